"""Checkpoints: the embedded one and users' own."""

from __future__ import annotations

import torch

from ..errors import InputError
from ..model import MGGTalkModel


def load_model(checkpoint: str | None = None, device: str = "cpu") -> MGGTalkModel:
    """The networks of a checkpoint on a device; None is the embedded default.

    Raises:
        InputError: there is no such checkpoint.
    """
    if checkpoint is not None:
        raise InputError(f"checkpoint {checkpoint} can't be loaded: this version runs on the analytic prior alone")
    return MGGTalkModel(device=torch.device(device))
