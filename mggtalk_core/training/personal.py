"""The paper's other regime: fit one person's head to a clip of them, through the differentiable rasterizer.

Starts from the head built from the first frame and learns, with the paper's loss, what is constant in the person
(colours, opacities, sizes, places of the Gaussians) and what changes with expression and pose, in low-rank form: motion
and colour fields on the head model's vertices, mixed linearly by the 52 coefficients and the pose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ..gaussians.clamp import clamp_from_bounds
from ..gaussians.deformation import deform_torch
from ..gaussians.head import GaussianHead
from ..gaussians.light import Relighter
from ..gaussians.opacities import Opacities
from ..rendering.rasterizer import render
from ..types import Motion
from .losses import PictureLoss

RANK = 12
PLACE_UNIT, FIELD_UNIT = 0.0005, 0.001
"""Metres per unit of a Gaussian's place and of a vertex field."""


class PersonalHead(nn.Module):
    """A head with learnable residuals, all zero at first."""

    def __init__(self, head: GaussianHead):
        super().__init__()
        self.head = head
        self._relighter, self._opacities = Relighter.of(head), Opacities.of(head)
        count, vertices = len(head), len(head.vertices)
        self.color = nn.Parameter(torch.zeros(count, 3))
        self.opacity = nn.Parameter(torch.zeros(count))
        self.size = nn.Parameter(torch.zeros(count))
        self.place = nn.Parameter(torch.zeros(count, 3))
        self.fields = nn.Parameter(0.3 * torch.randn(RANK, vertices, 6))  # motion (3) and colour (3)
        self.mix = nn.Parameter(torch.zeros(58, RANK))

    def forward(self, expression: torch.Tensor, rotation: torch.Tensor, translation: torch.Tensor):
        """Picture (S, S, 3) and alpha (S, S) over black of one frame: (52,), (3,), (3,)."""
        head = self.head
        code = torch.cat([expression - head.source_expression, 3 * rotation, 10 * translation]) @ self.mix
        corners, weights = head.triangles[head.faces.long()].long(), head.barycentric
        field = torch.einsum("k,kvc->vc", code, self.fields)
        at_points = (field[corners] * weights[..., None]).sum(1) * head.pose_weight[:, None]
        moved = replace(
            head,
            positions=head.positions + PLACE_UNIT * self.place + FIELD_UNIT * at_points[:, :3],
            covars=head.covars * torch.exp(self.size)[:, None],
        )
        means, covars = deform_torch(moved, expression, rotation, translation)
        lit = torch.from_numpy(self._relighter.colors(expression.numpy(), rotation.numpy()))
        colors = clamp_from_bounds(lit + 0.1 * self.color + 0.1 * at_points[:, 3:], 0, 1)
        prior = torch.from_numpy(self._opacities.seen_by(head.camera, expression.numpy(), rotation.numpy()))
        opacities = torch.sigmoid(torch.logit(prior.clamp(0.01, 0.99)) + self.opacity)
        camera = head.camera
        drawn = render(
            means, None, None, opacities, colors, torch.from_numpy(camera.viewmat), torch.from_numpy(camera.K),
            camera.width, camera.height, covars=covars,
        )  # fmt: skip
        return drawn.rgb, drawn.alpha


def fit_person(
    head: GaussianHead,
    motion: Motion,  # one row per frame, relative to the head's rest
    frames: Sequence[np.ndarray],  # each (S, S, 3) float32 0..1, S the head's crop size
    masks: Sequence[np.ndarray],  # each (S, S) 0..1, where a frame counts
    *,
    steps: int = 400,
    learning_rate: float = 0.02,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> PersonalHead:
    """Fit a head to frames of its person."""
    torch.manual_seed(seed)
    order = np.random.default_rng(seed)
    person, loss_of = PersonalHead(head), PictureLoss()
    background = head.background.float() / 255
    optimizer = torch.optim.Adam(person.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, max(steps, 2))
    for step in range(steps):
        index = int(order.integers(len(frames)))
        rgb, alpha = person(*(torch.from_numpy(np.asarray(row[index], np.float32))
                              for row in (motion.expression, motion.rotation, motion.translation)))  # fmt: skip
        picture = rgb + (1 - alpha)[..., None] * background
        truth, mask = torch.from_numpy(frames[index])[None], torch.from_numpy(masks[index])[None]
        loss = loss_of(picture[None], truth, mask)["loss"]
        loss = loss + 1e-4 * (person.place**2).mean() + 1e-4 * (person.size**2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress:
            progress(step + 1, loss.item())
    return person
