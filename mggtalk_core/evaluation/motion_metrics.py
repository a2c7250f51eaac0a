"""Motion against motion: what a tracker finds again on the rendered frames, compared with the true ones.

Landmarks are MediaPipe's 478 in pixels; distances are in inter-ocular distances (iod: between the iris centres of the
true frame) unless said otherwise, so that they do not depend on the picture's size.
"""

from __future__ import annotations

import numpy as np

from ..headmodel.landmarks import INNER_FACE, LIPS, inter_ocular_distance

UPPER_LIP, LOWER_LIP = 13, 14
UPPER_LIDS, LOWER_LIDS = (159, 386), (145, 374)


def lip_opening(landmarks: np.ndarray) -> float:
    """Gap between the inner lips over the distance of the eyes, of landmarks (478, 2)."""
    return float(np.linalg.norm(landmarks[UPPER_LIP] - landmarks[LOWER_LIP])) / inter_ocular_distance(landmarks)


def eye_opening(landmarks: np.ndarray) -> float:
    """Mean gap between the lids of both eyes over the distance of the eyes, of landmarks (478, 2)."""
    gaps = np.linalg.norm(landmarks[list(UPPER_LIDS)] - landmarks[list(LOWER_LIDS)], axis=1)
    return float(gaps.mean()) / inter_ocular_distance(landmarks)


def landmark_distance(landmarks: np.ndarray, reference: np.ndarray) -> float:
    """Mean distance of the inner face's landmarks (478, 2), in iod."""
    distance = np.linalg.norm(landmarks[INNER_FACE] - reference[INNER_FACE], axis=1).mean()
    return float(distance) / inter_ocular_distance(reference)


def lip_landmark_distance(landmarks: np.ndarray, reference: np.ndarray) -> float:
    """LMD: mean distance of the lip landmarks after both mouths are centred (Chen et al. 2018), in iod."""
    lips, true_lips = landmarks[list(LIPS)], reference[list(LIPS)]
    difference = (lips - lips.mean(0)) - (true_lips - true_lips.mean(0))
    return float(np.linalg.norm(difference, axis=1).mean()) / inter_ocular_distance(reference)


def average_keypoint_distance(landmarks: np.ndarray, reference: np.ndarray) -> float:
    """AKD: mean distance of all 478 landmarks, in pixels (Siarohin et al. 2019 use 68 points at 256x256)."""
    return float(np.linalg.norm(landmarks - reference, axis=1).mean())


def average_expression_distance(scores: np.ndarray, reference: np.ndarray) -> float:
    """AED: mean absolute difference of the tracker's 52 expression scores."""
    return float(np.abs(scores - reference).mean())


def average_pose_distance(matrix: np.ndarray, reference: np.ndarray) -> float:
    """APD: angle between two head rotations, in degrees, of matrices (4, 4) or (3, 3)."""
    cosine = (np.trace(_rotation(matrix).T @ _rotation(reference)) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _rotation(matrix: np.ndarray) -> np.ndarray:
    """The nearest rotation to a matrix's upper left 3x3: trackers include a scale."""
    u, _, v = np.linalg.svd(np.asarray(matrix, np.float64)[:3, :3])
    return u @ np.diag([1, 1, np.sign(np.linalg.det(u @ v))]) @ v


def correlation(series: np.ndarray, reference: np.ndarray) -> float:
    """Pearson correlation of two series (T,) where both are finite; NaN for fewer than three or constant values."""
    valid = np.isfinite(series) & np.isfinite(reference)
    x, y = np.asarray(series, np.float64)[valid], np.asarray(reference, np.float64)[valid]
    if len(x) < 3 or x.std() < 1e-9 or y.std() < 1e-9:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def sync_offset(series: np.ndarray, reference: np.ndarray, fps: float, max_seconds: float = 0.5) -> float:
    """How much later `series` (T,) runs than `reference` (T,), in ms: the lag of the highest correlation.

    The peak is refined to a fraction of a frame by a parabola through its neighbours.
    """
    lags = np.arange(-round(max_seconds * fps), round(max_seconds * fps) + 1)
    scores = np.array([_lagged_correlation(series, reference, int(lag)) for lag in lags])
    if not np.isfinite(scores).any():
        return float("nan")
    best = int(np.nanargmax(scores))
    shift = 0.0
    if 0 < best < len(lags) - 1 and np.isfinite(scores[best - 1 : best + 2]).all():
        before, peak, after = scores[best - 1 : best + 2]
        curvature = before - 2 * peak + after
        shift = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
    return float((lags[best] + shift) * 1000 / fps)


def _lagged_correlation(series: np.ndarray, reference: np.ndarray, lag: int) -> float:
    length = min(len(series), len(reference)) - abs(lag)
    if length < 3:
        return float("nan")
    start, true_start = max(lag, 0), max(-lag, 0)
    return correlation(series[start : start + length], reference[true_start : true_start + length])
