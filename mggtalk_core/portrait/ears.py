"""Ears that the segmenter missed: it often leaves them to the background, whole or half transparent."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, binary_fill_holes, binary_opening, label

from ..geometry.mesh_raster import rasterize_mesh
from ..geometry.nearest_pixels import distance_to
from ..geometry.projection import project, to_camera
from ..headmodel.model import HeadModel
from ..types import Camera
from .skin import NEIGHBOURS, face_skin, like_skin, samples

EAR_GROWTH = 0.016
"""How far real ears reach beyond the head model's, metres."""

BEYOND, TOO_FAR, EAR_SIZED = 1.5, 10e-6, 200e-6
"""What looks like an ear but goes on beyond an ear's reach, up to so many times that, by more than this area, square
metres, is something dark or ruddy in the background that touches the head; unless it is smaller than this (ears have
700 to 800 square millimetres): such pieces are mostly hair beside an ear."""

SURE_PERSON, SURE_BACKGROUND = 0.9, 0.1
"""The segmenter's confidences that are believed."""

GAP = 0.004
"""Hair or shadow between ear and head is at most this wide, metres."""

AROUND = 0.05
"""The background beside an ear is learned from this far around it, metres."""

ENOUGH_PIXELS = 512
"""Pixels per side, about, that are looked at: the mask's edges are refined afterwards."""

TOO_ALIKE = 0.7
"""Where more than this part of the background around looks like skin, nothing can be told."""


def with_ears(
    mask: np.ndarray,  # (S, S) 0..1, the segmenter's
    image: np.ndarray,  # (S, S, 3) 0..1
    landmarks: np.ndarray,  # (478, 2) px
    vertices: np.ndarray,  # (V, 3) m, the fitted head
    camera: Camera,
    head: HeadModel,
) -> np.ndarray:
    """The mask (S, S) with what looks like skin and is joined to the person where the fitted head has its ears."""
    step = max(1, len(image) // ENOUGH_PIXELS)
    every = np.s_[::step, ::step]
    size = len(mask[every])
    found = _missed_ears(mask[every], image[every], landmarks / step, vertices, camera.resized(size, size), head)
    found = found.repeat(step, 0).repeat(step, 1)[: len(mask), : len(mask)]
    return np.where(found, 1, mask)


def _missed_ears(
    mask: np.ndarray, image: np.ndarray, landmarks: np.ndarray, vertices: np.ndarray, camera: Camera, head: HeadModel
) -> np.ndarray:
    """Pixels (S, S) bool that `with_ears` adds."""
    size = len(image)
    pixel = camera.viewmat[2, 3] / camera.K[0, 0]
    points = project(to_camera(vertices, camera), camera)
    person = mask > SURE_PERSON
    skin = face_skin(image, person, landmarks)
    ears = np.zeros((size, size), bool)
    for side in (-1, 1):
        members = head.faces[(head.ears & (side * head.mean[:, 0] > 0))[head.faces].any(1)]
        ear = np.isfinite(rasterize_mesh(points, members, size, size)[0])
        if not ear.any() or not len(skin):
            continue
        near = distance_to(ear) * pixel
        around = (near > 1.5 * EAR_GROWTH) & (near < AROUND) & (mask < SURE_BACKGROUND)
        background = samples(image[around])
        if len(background) < NEIGHBOURS:
            continue
        unsure = (near < BEYOND * EAR_GROWTH) & ~person
        if like_skin(background, skin, background).mean() > TOO_ALIKE:
            continue
        found = np.zeros((size, size), bool)
        found[unsure] = like_skin(image[unsure], skin, background)
        found = binary_opening(found)
        pieces, count = label(found)
        far = near >= EAR_GROWTH
        beyond, within = (
            np.bincount(pieces[found & where], minlength=count + 1) * pixel**2 for where in (far, ~far)
        )
        found &= ((beyond < TOO_FAR) | (within < EAR_SIZED))[pieces] & ~far
        pieces, _ = label(found | (person & (near < 2 * EAR_GROWTH)))
        beside = binary_dilation(person, iterations=max(1, round(GAP / pixel)))
        joined = np.unique(pieces[beside & found])
        found &= np.isin(pieces, joined[joined > 0])
        ears |= binary_fill_holes(found | person) & (near < EAR_GROWTH)
    return ears
