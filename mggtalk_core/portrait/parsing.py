"""Parsing: the person against the background, as a soft mask (paper: semantic parsing into I_s^h and I_s^bg)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_opening, label
from torch.nn.functional import interpolate

from ..geometry.binding import polygon_mask
from ..geometry.nearest_pixels import distance_to
from ..geometry.pose_weights import ramp
from ..headmodel.landmarks import OVAL
from ..model_files import find_model_file

SEGMENTER_SIZE = 256
"""Side of the picture that the segmenter looks at, pixels."""

GUIDE_GRID = 128
"""The guided filter's local models are fitted on about so many pixels per side (He and Sun 2015): much faster."""

GUIDE_WINDOW = 5
"""Width of the filter's window on that grid: about the error of the segmenter's edge. Odd: a window of an even number
of pixels has no middle and moves the edge (by 3 pixels at 256, which this once did)."""

GUIDE_PASSES, GUIDE_RAMP = 2, 1.8
"""The filter softens what is solid; a steeper ramp after each pass undoes that. Chosen on synthetic heads, whose mattes
are known: tools/measure_edges.py measures it."""

GUIDE_EPSILON = 2e-4
"""Contrast (squared, of 0..1 images) below which the mask is smoothed instead of following the picture's edges."""

ISLAND_GAP = 1 / 100
"""What the mask has farther than this from the person, in crop sides, is somebody or something else."""

BACKGROUND_ALPHA, SOFT_EDGE = 0.15, (0.015, 0.035)
"""What counts as background, if it is wider than a few pixels; and up to how far from it, in crop sides, a mask may be
soft (as it likes, less and less): loose hair is, what a segmenter is unsure of in the middle of a person is not."""

SEEN_FACE = 0.8
"""Share of a face that the mask covers if the segmenter took it for a person: people, paintings and cartoons have .94
and more; robots, masks and dolls may have nothing."""


def person_mask(image: np.ndarray) -> np.ndarray:
    """Soft person mask (H, W) float32 0..1 of an image (H, W, 3) float32: MediaPipe's segmenter, edges refined."""
    return refine_edges(image, coarse_person_mask(image))


def coarse_person_mask(image: np.ndarray) -> np.ndarray:
    """The segmenter's own confidence (H, W) float32 0..1, smooth and a few pixels wrong at edges."""
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageSegmenterOptions(
        base_options=BaseOptions(model_asset_buffer=find_model_file("selfie_segmenter.tflite").read_bytes()),
        output_category_mask=False,
        output_confidence_masks=True,
    )
    # Resized here: the segmenter's own enlarging puts the mask up to 1.5 pixels of 1024 to the right.
    small = interpolate(_planes(image), size=(SEGMENTER_SIZE, SEGMENTER_SIZE), mode="bilinear", antialias=True)
    picture = np.ascontiguousarray(np.round(small[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    with vision.ImageSegmenter.create_from_options(options) as segmenter:
        result = segmenter.segment(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture))
        mask = np.squeeze(result.confidence_masks[-1].numpy_view()).astype(np.float32)
    large = interpolate(torch.from_numpy(mask)[None, None], size=image.shape[:2], mode="bicubic")
    return large[0, 0].clamp(0, 1).numpy()


def one_person(mask: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The mask (H, W) of the person with these landmarks (478, 2) alone: islands elsewhere are 0."""
    size = len(mask)
    joined, _ = label(binary_dilation(mask > 0.5, iterations=max(1, round(ISLAND_GAP * size / 2))))
    columns, rows = landmarks.astype(int).clip(0, size - 1).T
    own = np.bincount(joined[rows, columns]).argmax()
    reach = binary_dilation(joined == own, iterations=max(1, round(ISLAND_GAP * size)))
    return np.where(reach, mask, 0) if own else mask


def without_veils(mask: np.ndarray) -> np.ndarray:
    """The mask (H, W) with what is half transparent far from any background made solid."""
    size = len(mask)
    background = binary_opening(mask < BACKGROUND_ALPHA, iterations=max(1, size // 256))
    if not background.any():
        return mask
    inward = distance_to(background) / size
    solid = ramp(inward, SOFT_EDGE)
    return np.maximum(mask, solid).astype(np.float32)


def face_share(mask: np.ndarray, landmarks: np.ndarray) -> float:
    """How much, 0..1, of the face with these landmarks (478, 2) a mask (S, S) covers."""
    return float(mask[polygon_mask(landmarks[list(OVAL)], len(mask))].mean())


def with_face(mask: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The mask (S, S) with all of the face in it."""
    return np.maximum(mask, polygon_mask(landmarks[list(OVAL)], len(mask)))


def refine_edges(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Snap a mask (H, W) to the edges of its image (H, W, 3) with a guided filter (He et al. 2010)."""
    from kornia.filters import guided_blur

    coarser = max(1, round(image.shape[0] / GUIDE_GRID))
    window = (GUIDE_WINDOW - 1) * coarser + 1
    guide = _planes(image)
    refined = torch.from_numpy(mask)[None, None]
    for _ in range(GUIDE_PASSES):
        refined = guided_blur(guide, refined, window, GUIDE_EPSILON, subsample=coarser)
        refined = ((refined - 0.5) * GUIDE_RAMP + 0.5).clamp(0, 1)
    return refined[0, 0].numpy().astype(np.float32)


def _planes(image: np.ndarray) -> torch.Tensor:
    """An image (H, W, 3) as a batch of one (1, 3, H, W)."""
    return torch.from_numpy(image).permute(2, 0, 1)[None]
