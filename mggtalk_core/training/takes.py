"""Takes: tracked clips as the renderer sees them, for losses on rendered pictures.

A take is the head built from a clip's first frame by the model as it is, and for every later frame where the fitted
expression and pose put its Gaussians. What is fixed in training is computed once and kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from scipy.spatial.transform import Rotation

from ..evaluation.masks import head_mask, mouth_mask
from ..gaussians.decoders import GaussianDecoder, visible_inputs
from ..gaussians.deformation import HeadDeformer
from ..gaussians.densify import parent_inputs
from ..gaussians.head import GaussianHead
from ..gaussians.light import Relighter, surface_normals
from ..gaussians.mouth_light import MouthLight
from ..gaussians.opacities import Opacities
from ..gaussians.sgp import identity_of, predict_invisible, predict_visible
from ..gaussians.turning_tone import TurningTone
from ..gaussians.unfolding_tone import UnfoldingTone
from ..geometry.dsgr import build_points, estimate_depth
from ..headmodel.fitting import camera_of, fit_landmarks, generic_landmark_model
from ..headmodel.model import load_head_model
from ..headmodel.warp import warp_to_landmarks
from ..model import MGGTalkModel
from ..motion.picture_alignment import PictureAlignment
from ..portrait.background import begin_removing_person
from ..portrait.lip_contour import refine_lip_contour
from ..types import VISIBLE, Motion, Portrait
from .clips import Clip

MOUTH_WEIGHT = 3.0
"""How much a mouth pixel counts against any other of the head: there are few of them, and they are looked at."""


@dataclass(frozen=True)
class Moved:
    """One frame of a take: where the Gaussians are, how the light changes them, and what the camera saw."""

    means: torch.Tensor  # (N, 3) m
    covars: torch.Tensor  # (N, 6) m^2
    light: torch.Tensor  # (N, 3) factor on the colours
    opacities: torch.Tensor  # (N,)
    expression: torch.Tensor  # (52,) difference to the source's
    rotation: torch.Tensor  # (3, 3) of the head in the canonical frame
    truth: torch.Tensor  # (S, S, 3) 0..1
    mask: torch.Tensor  # (S, S) weight of each pixel


class Take:
    """A clip with its head; `features`, `identity` and `code` are the visible Gaussian decoder's inputs, `parents`
    those of Densify, and `tangents` (n, 2, 3) m the parents' half axes.

    `head` stays on the CPU, where it is deformed; what is drawn and what networks see is on the device.
    """

    @torch.no_grad()
    def __init__(self, clip: Clip, model: MGGTalkModel, device: torch.device):
        portrait = portrait_of(clip)
        points = build_points(portrait, estimate_depth(portrait, model=model))
        visible = predict_visible(model, points)
        self.clip, self.head = clip, predict_invisible(model, visible)
        self.head_on_device = self.head.to(device)
        self.visible = self.head_on_device.origin == VISIBLE
        head_model = load_head_model()
        normals = surface_normals(visible.points, head_model)
        inputs = visible_inputs(visible.points, normals, head_model)
        self.features = inputs.features.to(device)
        seen = visible.points.origin == VISIBLE
        self.parents = parent_inputs(visible.points, normals)[seen].to(device)
        self.tangents = torch.from_numpy(visible.points.axes[seen, :2]).to(device)
        identity, code = identity_of(model, visible.points, inputs.pixels, GaussianDecoder())
        self.identity, self.code = identity.to(device), code.to(device)
        self.motion = _aligned(motion_of(clip, portrait, self.head), clip, self.head)
        self._deformer = HeadDeformer(self.head)
        # Relit grey shows the light's factor; grey leaves room for it to grow.
        head = self.head
        grey = np.full((len(head), 3), 0.5, np.float32)
        arrays = (head.normals, head.pose_weight, head.light)
        arrays = (array.numpy() for array in arrays)
        self._relighter = Relighter(grey, *arrays, MouthLight.of(head), UnfoldingTone.none(), TurningTone.none())
        self._opacities = Opacities.of(head)

    def __len__(self) -> int:
        return len(self.clip)

    def moved(self, index: int) -> Moved:
        """Everything of frame `index` that no network changes."""
        expression, rotation = self.motion.expression[index], self.motion.rotation[index]
        means, covars = self._deformer.deform(expression, rotation, self.motion.translation[index])
        light = self._relighter.colors(expression, rotation) / 0.5
        opacities = self._opacities.seen_by(self.head.camera, expression, rotation)
        clip = self.clip
        alpha = clip.alpha(index)
        mask = head_mask(alpha, clip.landmarks[index]) * alpha
        mouth = binary_dilation(mouth_mask(clip.landmarks[index], *alpha.shape), iterations=2)
        arrays = (
            means,
            covars,
            light,
            opacities,
            expression - self.head.source_expression.numpy(),
            Rotation.from_rotvec(rotation).as_matrix(),
            clip.picture(index),
            mask * (1 + (MOUTH_WEIGHT - 1) * mouth),
        )
        device = self.head_on_device.positions.device
        return Moved(*(torch.tensor(array, dtype=torch.float32, device=device) for array in arrays))


def _aligned(motion: Motion, clip: Clip, head: GaussianHead) -> Motion:
    """The motion corrected by the clip's pictures; the first frame, the source, stays at rest.

    Where a frame is half a pixel off, networks learn to blur.
    """
    alignment = PictureAlignment(head)
    tracked = zip(motion.expression, motion.rotation, motion.translation)
    aligned = [
        at if index == 0 else alignment.align(alignment.picture_of(clip.picture(index) * 255), *at)
        for index, at in enumerate(tracked)
    ]
    return replace(motion, **dict(zip(("expression", "rotation", "translation"), map(np.stack, zip(*aligned)))))


def portrait_of(clip: Clip) -> Portrait:
    """What portrait analysis makes of a clip's first frame, with the clip's own landmarks and mask."""
    head, K = load_head_model(), clip.K
    image, alpha = clip.picture(0), clip.alpha(0)
    landmarks = refine_lip_contour(image, clip.landmarks[0])
    fit = fit_landmarks(landmarks, clip.scores[0], generic_landmark_model(head), K)
    return Portrait(
        image=image,
        photo=image,
        crop_to_photo=np.array([[1.0, 0, 0], [0, 1.0, 0]]),
        alpha=alpha,
        filling=begin_removing_person(image, alpha),
        landmarks=landmarks,
        scores=clip.scores[0],
        fit=fit,
        vertices=warp_to_landmarks(head, head.shape(fit.identity, fit.expression), fit, landmarks, K),
        camera=camera_of(fit, K, clip.size),
    )


def motion_of(clip: Clip, portrait: Portrait, head: GaussianHead) -> Motion:
    """The clip's fits as a motion of the head built from its first frame."""
    expression = np.clip(portrait.fit.expression + clip.expression - clip.expression[0], 0, 1)
    neck, rest = head.neck.numpy(), clip.rotation[0]
    turn = np.einsum("ji,tjk->tik", rest, clip.rotation)
    shift = (clip.translation - clip.translation[0]) @ rest + turn @ neck - neck
    rotation = Rotation.from_matrix(turn).as_rotvec()
    return Motion(*(array.astype(np.float32) for array in (expression, rotation, shift)), fps=25.0)
