"""What a crop shows beyond its photo: the head closed by a crown of its own hair, and the background going on.

Where a photo ends at the forehead, its crop does not: repeating the photo's edge there drew the head as a column of
stripes up to the crop's border.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion, label

from ..geometry.binding import polygon_mask
from ..geometry.nearest_pixels import nearest_pixels
from ..geometry.pose_weights import smoothstep
from ..geometry.projection import project, to_camera
from ..headmodel.landmarks import OVAL
from ..types import SOLID_ALPHA, Camera
from .background import PERSON_ALPHA
from .inpainting import complete
from .skin import face_skin, like_skin, samples

HAIR_THICKNESS = 0.03
"""How far above the head model's top hair ends, crop sides."""

TRUSTED = 1 / 32
"""How far below the photo's edge the segmenter knows the person; nearer, stripes above look like background to it."""

LEAST_CROWN = 0.12
"""Height of a crown where the photo ends above the head model's top, of its width."""

ENOUGH = 0.005
"""How much of the crop hair or clothes must be to make more of them."""

STRIP = 1 / 64
"""Height, crop sides, of the strip along the photo's edge that must be hair for a column to be."""

CHIN, BETWEEN_EYES = 152, 168
"""Landmarks: hands may be beside a face, hardly above its eyes."""

TRANSITION = 0.05
"""Height, crop sides, over which what was cut goes over into hair: of a forehead it makes a hairline."""


def beyond_photo(crop_to_photo: np.ndarray, photo_size: tuple[int, int], size: int) -> np.ndarray:
    """Pixels (S, S) bool of a crop, by its affine (2, 3) to the photo, that a photo of a height and width lacks."""
    centres = np.arange(size) + 0.5
    columns, rows = (crop_to_photo[axis, axis] * centres + crop_to_photo[axis, 2] for axis in (0, 1))
    height, width = photo_size
    return ~(((rows > 0) & (rows < height))[:, None] & ((columns > 0) & (columns < width)))


def with_crown(alpha: np.ndarray, beyond: np.ndarray, vertices: np.ndarray, camera: Camera) -> np.ndarray:
    """The mask (S, S) of a person whose head, of canonical vertices (V, 3), ends in a crown above the photo's edge."""
    size, edge = len(alpha), _first_row(beyond)
    pixels = project(to_camera(vertices, camera), camera)
    middle = int(pixels[:, 0].mean().clip(0, size - 1))
    low = edge + round(TRUSTED * size)
    runs, _ = label(alpha[low] > 0.5)
    closed = alpha.copy()
    closed[:edge] = 0
    if not edge or not runs[middle]:
        return closed
    columns = np.flatnonzero(runs == runs[middle])
    closed[edge:low, columns] = np.maximum(closed[edge:low, columns], alpha[low, columns])
    across = np.linspace(-1, 1, len(columns) + 2)[1:-1]
    top = pixels[:, 1].min() - HAIR_THICKNESS * size
    heights = max(edge - top, LEAST_CROWN * len(columns)) * np.sqrt(1 - across**2)
    up = edge - np.arange(edge)[:, None] - 0.5
    closed[:edge, columns] = (heights - up + 0.5).clip(0, 1)
    return closed


def going_on(image: np.ndarray, alpha: np.ndarray, beyond: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """A crop (S, S, 3) of the person of mask (S, S) and these landmarks (478, 2) that goes on beyond the photo.

    What is there comes in patches: from the person's hair above the photo's edge, from clothes and neck below the chin,
    else from the background. Without hair, and beside the face, the person goes on as at the edge.
    """
    size, edge, chin = len(image), _first_row(beyond), int(landmarks[CHIN, 1])
    background = complete(image, beyond | (alpha > PERSON_ALPHA))
    known = (alpha > SOLID_ALPHA) & ~beyond
    person, hair, clothes = image.copy(), _hair(image, known, landmarks), known.copy()
    clothes[:chin] = False
    if edge and hair.mean() > ENOUGH:
        up = (edge - np.arange(size)[:, None, None]) / (TRANSITION * size)
        person += smoothstep(up) * (_of_patches(image, hair, _hair_above(image, hair, edge)) - image)
    if clothes.mean() > ENOUGH and beyond[chin:].any():
        person[chin:] = _of_patches(image, clothes, image)[chin:]
    there = background + alpha[..., None] * (person - background)
    return np.where(beyond[..., None], there, image).astype(np.float32)


def _of_patches(image: np.ndarray, source: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """An image (S, S, 3) of what a part of it, pixels (S, S) bool, is made of, beginning with a guess (S, S, 3)."""
    return complete(image, ~binary_erosion(source, iterations=max(1, len(image) // 128)), guess)


def _hair(image: np.ndarray, person: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Pixels (S, S) bool of a person's mask (S, S) bool beside and above the face that are not like skin."""
    hair = person & ~polygon_mask(landmarks[list(OVAL)], len(image))
    hair[int(landmarks[CHIN, 1]) :] = False
    high = hair.copy()
    high[int(landmarks[BETWEEN_EYES, 1]) :] = False
    skin = face_skin(image, person, landmarks)
    if high.any() and len(skin):
        hair[hair] = ~like_skin(image[hair], skin, samples(image[high]))
    return hair


def _hair_above(image: np.ndarray, hair: np.ndarray, edge: int) -> np.ndarray:
    """What is above the photo's first row `edge`, at first: each column's uppermost hair (S, S) bool again and again.

    Over a forehead that is the hair beside it, mirrored.
    """
    size = len(image)
    strip = hair[edge : edge + max(2, round(STRIP * size))].all(0)
    haired = np.flatnonzero(binary_erosion(strip, iterations=max(1, round(STRIP * size))))
    if not len(haired):
        return image[nearest_pixels(hair)]
    columns = np.arange(size)
    nearest = haired[np.abs(haired[:, None] - columns).argmin(0)]
    mirrored = 2 * nearest - columns
    mirrored = haired[np.abs(haired[:, None] - mirrored).argmin(0)]
    above = image.copy()
    above[:edge] = image[edge + 1, mirrored]
    return above


def _first_row(beyond: np.ndarray) -> int:
    """The photo's first row in a crop, pixels (S, S) bool of which lie beyond the photo."""
    return int(np.argmin(beyond.all(1)))
