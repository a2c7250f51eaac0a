"""The learned part: an optional network per stage of the paper, each a residual on that stage's analytic prior."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class MGGTalkModel:
    """Networks in the order the pipeline uses them; None runs a stage on its analytic prior alone."""

    checkpoint: str = "prior"  # what was loaded, for reports
    device: torch.device = torch.device("cpu")
    matting: nn.Module | None = None  # the person's edge (ours)
    spectacles: nn.Module | None = None  # rims, temples and dark lenses (ours)
    geo_refine: nn.Module | None = None  # depth offsets (paper: Geo. Refine)
    identity_encoder: nn.Module | None = None  # features F of the head image (paper: Identity Enc.)
    gaussian_decoder: nn.Module | None = None  # visible Gaussians (paper: Gauss. Dec.)
    sym_gaussian_decoder: nn.Module | None = None  # hidden Gaussians, given the visible (paper: Sym-Gauss. Dec.)
    mouth_tone: nn.Module | None = None  # tone of teeth, tongue and cavity (ours)
    densify: nn.Module | None = None  # parents -> children (paper: Densify)
    deformation: nn.Module | None = None  # residual motion (paper: Deformation)
    inpainter: nn.Module | None = None  # seams, mouth, eyes (paper: Render & Inpaint)
