"""More than one photo: further pictures of the same person correct a head built from the first one.

Each picture is tracked with the person's own head model, the head is rendered in its expression and pose, and what the
picture shows differently is carried back to the points that were seen: gently where the first photo saw them too
(its detail stays, the lasting difference of colour is averaged in), fully where only the new picture does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from ..errors import InputError
from ..geometry.projection import project, to_camera
from ..headmodel.model import TONGUE, load_head_model
from ..media.video_reader import VideoReader
from ..motion.picture_alignment import PICTURE_SIZE, PictureAlignment, contrast
from ..motion.video import DrivingPerson
from ..portrait.crop import cut_square, face_crop_box
from ..portrait.parsing import person_mask
from ..portrait.tracking import FaceTracker, search_faces
from ..rendering.rasterizer import render
from ..types import WORN, Camera, Portrait, is_shown
from .deformation import HeadDeformer
from .head import GaussianHead
from .light import Relighter
from .opacities import Opacities

VIEW_SIZE = PICTURE_SIZE
"""Pictures are compared at this size; the differences that last are smooth."""

SEEN_BLUR, HIDDEN_BLUR = 2.0, 1.0
"""Blur of the difference in pixels of VIEW_SIZE, for points the first photo saw and for points it hid."""

SEEN_PRIOR, HIDDEN_PRIOR, MOUTH_PRIOR = 0.7, 0.15, 2.0
"""Weight of "no difference", in fully seen pictures; inside the mouth a lip's misfit would paint lips on teeth."""

FIT_ROUNDS = 4
"""A frame's fit starts near its neighbour's; a photo starts far away and needs that many times its iterations."""

MIN_FACING = 0.2
"""Cosine of the viewing angle below which a picture does not count: there a small misfit shows another place."""

SURE_TRAVEL = 0.003
"""Metres a point may move with the expression and still be found about where the fit says."""

DEPTH_TOLERANCE = 0.006
"""A point is seen if it is that near, metres, to the rendered surface."""


@dataclass(frozen=True)
class FurtherView:
    """Another picture of the same person, in the first photo's canonical frame."""

    image: np.ndarray  # (S, S, 3) float32 0..1
    alpha: np.ndarray  # (S, S) person
    camera: Camera  # of the crop
    expression: np.ndarray  # (52,)
    rotation: np.ndarray  # (3,) rad, relative to the first photo
    translation: np.ndarray  # (3,) m


def personalize(head: GaussianHead, portrait: Portrait, photos: list[np.ndarray]) -> GaussianHead:
    """The head corrected by further photos (H, W, 3) float32 0..1 of the same person.

    Raises:
        InputError: no face in one of them.
    """
    if not photos:
        return head
    alignment = PictureAlignment(head)
    views = [further_view(portrait, photo, alignment, number) for number, photo in enumerate(photos, 2)]
    return correct_colors(head, views)


def further_view(
    portrait: Portrait, photo: np.ndarray, alignment: PictureAlignment, number: int = 2
) -> FurtherView:
    """Track one more photo (H, W, 3) of the portrait's person; `alignment` is of the head made from the portrait.

    Raises:
        InputError: there is no face in it.
    """
    with FaceTracker() as tracker:
        faces = search_faces(tracker, np.round(photo * 255).astype(np.uint8))
        if not faces:
            raise InputError(f"no face found in photo {number}; leave it out or use one that shows the face")
        centre, side = face_crop_box(faces[0].landmarks)
        image, to_photo = cut_square(photo, centre, side, 2 * VIEW_SIZE)
        found = tracker.detect(np.round(image * 255).astype(np.uint8))
    scale = to_photo[0, 0]
    face = found[0] if found else faces[0].moved(1 / scale, -to_photo[:, 2] / scale)
    person = DrivingPerson.from_portrait(portrait)
    # The new picture's camera has the same lens over its own crop; only pose and expression are unknown.
    K = portrait.camera.resized(2 * VIEW_SIZE, 2 * VIEW_SIZE).K
    person = replace(person, K=K)
    fit = None
    for _ in range(FIT_ROUNDS):
        fit = person.fit(face, fit)
    small = image.reshape(VIEW_SIZE, 2, VIEW_SIZE, 2, 3).mean((1, 3))
    expression, rotation, translation = alignment.align(contrast(small), *person.relative(fit))
    camera = Camera(portrait.camera.viewmat, portrait.camera.resized(VIEW_SIZE, VIEW_SIZE).K, VIEW_SIZE, VIEW_SIZE)
    return FurtherView(small, person_mask(small), camera, expression, rotation, translation)


def correct_colors(head: GaussianHead, views: list[FurtherView]) -> GaussianHead:
    """The head with the views' lasting colour differences added to the points they see."""
    deformer, relighter, opacities = HeadDeformer(head), Relighter.of(head), Opacities.of(head)
    hidden = ~is_shown(head.origin.numpy()) & (head.origin.numpy() != WORN)
    total, weights = np.zeros((len(head), 3)), np.zeros(len(head))
    for view in views:
        means, covars = deformer.deform(view.expression, view.rotation, view.translation)
        colors = relighter.colors(view.expression, view.rotation).astype(np.float32)
        shown = opacities.seen_by(view.camera, view.expression, view.rotation)
        difference, seen = _difference(head, view, means, covars, shown, colors, hidden)
        total += difference * seen[:, None]
        weights += seen
    model, faces = load_head_model(), head.faces.numpy()
    inside_mouth = model.mouth_interior[faces] | (model.parts[faces] >= TONGUE)
    prior = np.where(inside_mouth, MOUTH_PRIOR, np.where(hidden, HIDDEN_PRIOR, SEEN_PRIOR))
    change = total / (weights + prior)[:, None]
    colors = np.clip(head.colors.numpy() + change, 0, 1).astype(np.float32)
    return replace(head, colors=torch.from_numpy(colors))


def _difference(head: GaussianHead, view: FurtherView, means, covars, opacities, colors, hidden):
    """Colour difference (N, 3) of a picture to the head rendered in its pose, at each point, and how well seen (N,)."""
    tensor = lambda array: torch.from_numpy(np.ascontiguousarray(array, np.float32))  # noqa: E731
    camera = view.camera
    rendered = render(
        tensor(means), None, None, tensor(opacities), tensor(colors), tensor(camera.viewmat), tensor(camera.K),
        camera.width, camera.height, covars=tensor(covars),
    )  # fmt: skip
    alpha = rendered.alpha.numpy()
    depth = rendered.depth.numpy() / np.maximum(alpha, 1e-3)
    # Only where both are solid; elsewhere hair edges and background would be carried onto the head.
    mask = ((alpha > 0.95) & (view.alpha > 0.9)).astype(np.float64)
    residual = (view.image - rendered.rgb.numpy()) * mask[..., None]
    # Another exposure or white balance is not the person: take out the median difference of the face.
    if mask.any():
        residual -= mask[..., None] * np.median(residual[mask > 0], axis=0) * 0.5

    def smooth(sigma: float) -> np.ndarray:
        share = gaussian_filter(mask, sigma)[..., None]
        return gaussian_filter(residual, (sigma, sigma, 0)) / np.maximum(share, 0.05)

    pixels = project(to_camera(means, camera), camera)
    inside = ((pixels[:, :2] > 1) & (pixels[:, :2] < camera.width - 1)).all(1)
    where = np.where(inside[:, None], pixels[:, :2], 1.0)[:, ::-1].T - 0.5
    near = np.exp(-(((pixels[:, 2] - map_coordinates(depth, where, order=1)) / DEPTH_TOLERANCE) ** 2))
    turned = head.normals.numpy() @ Rotation.from_rotvec(view.rotation).as_matrix().T @ camera.viewmat[:3, :3].T
    facing = np.clip((-turned[:, 2] - MIN_FACING) / 0.3, 0, 1)
    # The torso moves by itself: what a picture shows there is not where the head's pose puts it.
    on_head = head.pose_weight.numpy() ** 4
    seen = inside * near * facing * on_head * _surely_placed(head, view) * map_coordinates(mask, where, order=1)
    fields = [np.stack([map_coordinates(smooth(s)[..., c], where, order=1) for c in range(3)], -1)
              for s in (SEEN_BLUR, HIDDEN_BLUR)]  # fmt: skip
    return np.where(hidden[:, None], fields[1], fields[0]), seen


def _surely_placed(head: GaussianHead, view: FurtherView) -> np.ndarray:
    """Trust (N,) by how far the expression moved a point since the first photo: open lips are never fitted exactly."""
    change = torch.from_numpy(view.expression) - head.source_expression
    moved = torch.linalg.norm(torch.tensordot(change, head.expression_basis, 1), dim=1)
    travel = (moved[head.triangles[head.faces.long()].long()] * head.barycentric).sum(1).numpy()
    return np.exp(-((travel / SURE_TRAVEL) ** 2))


SPREAD_FRAMES = 6
"""Frames of a clip that are used: more add little and take longer."""


def frames_of_clip(path: str | os.PathLike) -> list[np.ndarray]:
    """Frames (H, W, 3) float32 0..1 spread over a clip of the person, for `personalize`."""
    reader = VideoReader(path)
    count = reader.frame_estimate or sum(1 for _ in reader)
    wanted = set(np.linspace(0, count - 1, min(count, SPREAD_FRAMES)).round().astype(int).tolist())
    return [frame.rgb.astype(np.float32) / 255 for frame in reader if frame.index in wanted]
