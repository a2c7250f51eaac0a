"""Deformation network (paper: Deformation): how this person's face moves differently from the head model's actions.

The residual is low-rank and linear in the expression: a person's 52 actions are corrected by a few vertex fields, mixed
as the identity code says. It is folded into the head's own actions once, so a frame costs nothing more.
Zero-initialised: untrained the actions stay the head model's.
"""

from __future__ import annotations

import torch
from torch import nn

from ..headmodel.model import load_head_model

FIELD_UNIT = 0.002
"""Metres per unit of a field."""


class DeformationNetwork(nn.Module):
    """Identity code (1, C) -> corrections of the 52 actions (52, V, 3) m."""

    def __init__(self, code: int = 32, rank: int = 16):
        super().__init__()
        self.features, self.code = 0, code
        vertices = len(load_head_model().mean)
        self.fields = nn.Parameter(torch.randn(rank, vertices, 3) * 0.1)
        self.mix = nn.Sequential(nn.Linear(code, 64), nn.SiLU(), nn.Linear(64, 52 * rank))
        nn.init.zeros_(self.mix[-1].weight)
        nn.init.zeros_(self.mix[-1].bias)
        self.rank = rank

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        """Corrections (52, V, 3) m for one person's code (1, C)."""
        mix = self.mix(code).reshape(52, self.rank)
        return FIELD_UNIT * torch.einsum("ek,kvc->evc", mix, self.fields)
