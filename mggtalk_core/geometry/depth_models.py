"""Depth from any transformers depth model, in the head model's metres: better hair, ears and shoulders than the prior.

The model's depth is relative (many give inverse depth); the fitted head, whose depth is known, tells its scale and
shift. Off the head the model's shape is used, through its normals and bilateral normal integration, so that it joins
the head without a step.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy.ndimage import zoom

from ..errors import InputError
from ..types import DepthMap, Portrait
from .bini import integrate_normals
from .depth import normals_from_depth
from .nearest_pixels import nearest_pixels

HEAD_ANCHOR, MODEL_ANCHOR = 3e4, 10.0
"""How strongly the integrated surface is held to the head model's depth, and to the aligned model's elsewhere.

In units of one pixel's normal equation times the focal length squared (see bini.py).
"""

INTEGRATION_SIZE = 160
"""Side of the grid the surface is integrated on."""

MIN_AGREEMENT = 0.5
"""Correlation of a model's depth with the fitted head's below which it saw something else than a head."""


def model_depth(portrait: Portrait, prior: DepthMap, source: str) -> DepthMap:
    """`prior` with the depth model's surface where the head model does not reach.

    `source` is a local folder or a hub id that transformers' AutoModelForDepthEstimation can load.

    Raises:
        InputError: the model can't be loaded, or its depth does not resemble the fitted head.
    """
    prediction = _predict(source, portrait.image)
    aligned = align_to_head(prediction, prior)
    person = np.isfinite(prior.depth)
    model_normals = normals_from_depth(aligned.astype(np.float32), portrait)
    normals = np.where(prior.on_head[..., None], prior.normals, model_normals)
    depth = _joined(np.where(prior.on_head, prior.depth, aligned), normals, prior.on_head, person, portrait)
    filled = np.where(person, depth, np.nanmax(depth)).astype(np.float32)
    return replace(prior, depth=depth, normals=normals_from_depth(filled, portrait), source=source)


def _joined(blend: np.ndarray, normals: np.ndarray, on_head: np.ndarray, person: np.ndarray, portrait: Portrait):
    """`blend` (S, S) m without the step between head and model: the surface that has its normals, NaN off the person.

    Solved on a coarse grid; the correction is smooth, so it is enlarged and added to the full-size depth.
    """
    step = max(1, len(blend) // INTEGRATION_SIZE)
    sample = (slice(step // 2, None, step), slice(step // 2, None, step))
    K = portrait.camera.resized(blend[sample].shape[1], blend[sample].shape[0]).K
    anchor = np.where(on_head, HEAD_ANCHOR, MODEL_ANCHOR)[sample]
    coarse = integrate_normals(normals[sample], person[sample], K, blend[sample], anchor)
    correction = np.where(person[sample], coarse - blend[sample], 0)
    rows, columns = nearest_pixels(person[sample])
    enlarged = zoom(
        correction[rows, columns], np.array(blend.shape) / coarse.shape, order=1, grid_mode=True, mode="nearest"
    )
    # The head model's own pixels stay where they were fitted.
    return np.where(person, blend + np.where(on_head, 0, enlarged), np.nan).astype(np.float32)


def align_to_head(prediction: np.ndarray, prior: DepthMap) -> np.ndarray:
    """A relative depth or inverse depth (S, S) as metres (S, S), by robust regression on the fitted head.

    Raises:
        InputError: it does not resemble the fitted head.
    """
    depth = prior.depth[prior.on_head].astype(np.float64)
    seen = prediction[prior.on_head].astype(np.float64)
    candidates = []
    for inverse in (False, True):
        target = 1 / depth if inverse else depth
        scale, shift = _robust_line(seen, target)
        fitted = scale * seen + shift
        candidates.append((np.abs((1 / fitted if inverse else fitted) - depth).mean(), inverse, scale, shift))
    correlation = abs(np.corrcoef(seen, depth)[0, 1])
    if not correlation > MIN_AGREEMENT:
        raise InputError(
            f"the depth model's result does not resemble the face (correlation {correlation:.2f}, at least "
            f"{MIN_AGREEMENT} expected); use another depth model or the head prior"
        )
    _, inverse, scale, shift = min(candidates)
    line = scale * prediction.astype(np.float64) + shift
    # Far from the head an inverse depth near zero would fly away: keep within a metre of the head.
    near, far = depth.min() - 0.3, depth.max() + 0.7
    return np.clip(1 / np.clip(line, 1 / far, 1 / near) if inverse else line, near, far)


def _robust_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and offset of y over x, least absolute deviations by reweighting."""
    weights = np.ones_like(x)
    design = np.stack([x, np.ones_like(x)], 1)
    for _ in range(10):
        slope, offset = np.linalg.solve(design.T @ (design * weights[:, None]), design.T @ (y * weights))
        weights = 1 / (np.abs(y - slope * x - offset) + 1e-3 * np.abs(y).mean())
    return float(slope), float(offset)


@lru_cache(maxsize=1)
def _load(source: str):
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    try:
        # safetensors only: other weight formats can run code
        model = AutoModelForDepthEstimation.from_pretrained(source, use_safetensors=True)
        return AutoImageProcessor.from_pretrained(source), model.eval()
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"depth model {source!r} can't be loaded ({reason}); give a folder with a transformers depth model"
        ) from None


def _predict(source: str, image: np.ndarray) -> np.ndarray:
    """The model's depth (S, S) of an image (S, S, 3), at the image's size."""
    import torch

    processor, model = _load(source)
    pixels = np.round(image * 255).astype(np.uint8)
    with torch.no_grad():
        output = model(**processor(images=pixels, return_tensors="pt")).predicted_depth
    resized = torch.nn.functional.interpolate(output[:, None], image.shape[:2], mode="bicubic", align_corners=False)
    return resized[0, 0].numpy()
