"""Clamping for losses that start at a bound."""

from __future__ import annotations

import torch


def clamp_from_bounds(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """values within low..high, of any shape; exactly at a bound the gradient still passes.

    A network that starts at 0 leaves shares at 0 and the photo's white at 1. torch.clamp passes their gradient up to
    torch 2.13 and stops it from 2.14 on: such a network would never leave its start.
    """
    return torch.where(values < low, low, torch.where(values > high, high, values))
