"""Train the expression map on tracked clips: MediaPipe scores -> head-model coefficients that move the landmarks right.

A prediction is a difference, f(scores_a) - f(scores_b) for two frames of one clip, and is judged by the landmark motion
it causes, so that a person's own neutral face drops out. Takes less than a minute on one CPU core.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from ..headmodel.arkit import ARKIT_INDEX, ARKIT_NAMES
from ..headmodel.landmarks import EYES, IRISES, LIPS
from ..headmodel.model import HeadModel, load_head_model
from ..media.files import atomic_path
from .clips import Clip, read_clips

log = logging.getLogger(__name__)

BROWS = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
HIDDEN = 96
SCALE = 10.0
COEFFICIENT_WEIGHT = 0.02
"""Pull towards the fitted coefficients: decides among combinations of actions that move landmarks alike."""

DEPTH_WEIGHT = 0.05
"""Landmark motion along the view axis is hardly observed."""


@dataclass(frozen=True)
class Observations:
    """All frames of all clips, and which clip they are from."""

    scores: torch.Tensor  # (n, 52)
    landmarks: torch.Tensor  # (n, 478 * 3) canonical, inter-ocular distances
    coefficients: torch.Tensor  # (n, 52) fitted
    starts: torch.Tensor  # (clips,) first frame
    lengths: torch.Tensor  # (clips,)


def canonical_landmarks(clip: Clip, head: HeadModel) -> np.ndarray:
    """Observed landmarks (T, 478, 3) in the canonical frame, inter-ocular distances.

    The fitted head gives depth; the observed pixel gives the other two coordinates.
    """
    basis = head.landmarks_of(head.expression_basis)
    fitted = clip.neutral_landmarks + np.tensordot(clip.expression, basis, 1)
    points = np.einsum("tij,tpj->tpi", clip.rotation, fitted) + clip.translation[:, None]
    focal, centre = clip.K[0, 0], clip.K[:2, 2]
    projected = centre + focal * points[..., :2] / points[..., 2:]
    offset = np.concatenate([(clip.landmarks - projected) * points[..., 2:] / focal, 0 * points[..., 2:]], -1)
    observed = fitted + np.einsum("tji,tpj->tpi", clip.rotation, offset)
    return (observed / inter_ocular_metres(head)).astype(np.float32)


def inter_ocular_metres(head: HeadModel) -> float:
    """Distance between the irises of the mean head, metres."""
    points = head.landmarks_of(head.mean)
    return float(np.linalg.norm(points[468] - points[473]))


def landmark_mirror(head: HeadModel) -> np.ndarray:
    """(478,) the landmark on the other side."""
    points = head.landmarks_of(head.mean).astype(np.float64)
    return np.linalg.norm(points[:, None] * [-1, 1, 1] - points[None], axis=-1).argmin(1)


def expression_mirror() -> np.ndarray:
    """(52,) the action on the other side."""
    swap = {"Left": "Right", "Right": "Left"}

    def other(name: str) -> str:
        for side, opposite in swap.items():
            if name.endswith(side):
                return name.removesuffix(side) + opposite
        return name

    return np.array([ARKIT_INDEX[other(name)] for name in ARKIT_NAMES])


def landmark_weights() -> torch.Tensor:
    """How much each landmark coordinate counts, (478 * 3,). Without the irises' share gaze would be lost."""
    weights = torch.full((478, 3), 0.3)
    weights[list(BROWS)] = 0.6
    weights[list(LIPS)] = 1.0
    weights[list(EYES)] = 1.5
    weights[list(IRISES)] = 1.0
    weights[:, 2] *= DEPTH_WEIGHT
    return weights.reshape(-1)


class ExpressionMapNetwork(nn.Module):
    """The trainable form of headmodel.expression_map.ExpressionMap."""

    def __init__(self):
        super().__init__()
        self.skip = nn.Linear(52, 52, bias=False)
        self.layers = nn.ModuleList([nn.Linear(52, HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 52)])
        with torch.no_grad():
            self.skip.weight.copy_(torch.eye(52))
            self.layers[-1].weight.mul_(0.1)
            self.layers[-1].bias.zero_()

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """f (n, 52) of scores (n, 52)."""
        hidden = scores
        for layer in self.layers[:-1]:
            hidden = nn.functional.silu(layer(hidden))
        return self.skip(scores) + self.layers[-1](hidden)


def gather(clips: list[Clip], head: HeadModel) -> Observations:
    """Frames of all clips and, as further clips, of their mirror images."""
    flip_landmarks, flip_actions = landmark_mirror(head), expression_mirror()
    scores, landmarks, coefficients, lengths = [], [], [], []
    for clip in clips:
        observed = canonical_landmarks(clip, head)
        scores += [clip.scores, clip.scores[:, flip_actions]]
        landmarks += [observed, observed[:, flip_landmarks] * np.float32([-1, 1, 1])]
        coefficients += [clip.expression, clip.expression[:, flip_actions]]
        lengths += [len(clip)] * 2
    counts = torch.tensor(lengths)
    return Observations(
        torch.from_numpy(np.concatenate(scores)),
        torch.from_numpy(np.concatenate(landmarks)).flatten(1),
        torch.from_numpy(np.concatenate(coefficients)),
        counts.cumsum(0) - counts,
        counts,
    )


def train_map(data: Observations, head: HeadModel, *, steps: int, seed: int) -> ExpressionMapNetwork:
    """Fit the map; clips count alike, however long they are."""
    torch.manual_seed(seed)
    network = ExpressionMapNetwork()
    basis = torch.from_numpy(head.landmarks_of(head.expression_basis) / inter_ocular_metres(head)).flatten(1)
    weights = landmark_weights()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for step in range(steps):
        clip = torch.randint(len(data.starts), (128,))
        first, second = (data.starts[clip] + (torch.rand(128) * data.lengths[clip]).long() for _ in range(2))
        change = network(data.scores[first]) - network(data.scores[second])
        motion_error = (change @ basis - (data.landmarks[first] - data.landmarks[second])) * weights
        coefficient_error = change - (data.coefficients[first] - data.coefficients[second])
        loss = SCALE * (motion_error**2).sum(1).mean() + COEFFICIENT_WEIGHT * (coefficient_error**2).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            log.info("step %d of %d: loss %.4f", step + 1, steps, loss.item())
    return network


def save_map(network: ExpressionMapNetwork, path: Path, metadata: dict[str, str]) -> None:
    """Write the map in the form headmodel.expression_map loads."""
    tensors = {"skip": network.skip.weight.detach()}
    for index, layer in enumerate(network.layers):
        tensors[f"weight{index}"], tensors[f"bias{index}"] = layer.weight.detach(), layer.bias.detach()
    with atomic_path(path) as partial:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(partial), metadata)


def train_expression_map(config: dict, output: Path) -> dict:
    """The stage `expression_map` of `mggtalk train`: config has clips (folder), steps, seed."""
    head = load_head_model()
    clips = read_clips(Path(config["clips"]))
    data = gather(clips, head)
    network = train_map(data, head, steps=config.get("steps", 4000), seed=config.get("seed", 0))
    path = output / "expression_map.safetensors"
    save_map(network, path, {"format": "mggtalk-expression-map-1", "clips": str(len(clips))})
    return {"clips": len(clips), "frames": int(data.lengths.sum()) // 2, "output": str(path)}
