"""Does a driven mouth move like the speaker's? Audio-driven lips against the lips tracked in the same clip.

Clips carry audio/video offsets of up to 0.3 s, so everything is scored at one offset per clip: the one where the lip
apertures correlate best. Scores are only worth something beside baselines that may choose their offset too: the
loudness envelope, and the curves driven by another clip's sound (chance).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.ndimage import binary_erosion, gaussian_filter1d

from ..headmodel.arkit import ARKIT_INDEX
from ..types import Motion
from .motion_metrics import correlation

RATE = 50.0  # Hz, the common clock of both curves
MAX_OFFSET_S = 0.32
_CLOSURE_TOLERANCE_S = 0.08
_LONGEST_CLOSURE_S = 0.5  # longer ones are pauses
_SILENT_DB, _PARTING_S = 35, 0.3
_CLOSED = 0.25  # of the way from the 5th to the 80th percentile
_OUTER_EYES, _CORNERS, _INNER_LIPS = (33, 263), (61, 291), (13, 14)


@dataclass(frozen=True)
class LipCurves:
    """A mouth over time on the 50 Hz clock. Lengths in distances between the outer eye corners."""

    aperture: np.ndarray  # (T,) gap between the inner lips
    width: np.ndarray  # (T,) between the mouth corners
    pucker: np.ndarray  # (T,) ARKit mouthPucker, any scale


@dataclass(frozen=True)
class LipScores:
    """How well two mouths agree."""

    lip_corr: float  # correlation of the apertures
    width_corr: float
    pucker_corr: float
    closure_recall: float
    closure_precision: float
    closure_f1: float
    offset_ms: float  # how much later the tracked mouth runs than the driven one
    jitter_ratio: float  # mean |acceleration| over standard deviation, driven / tracked
    range_ratio: float  # standard deviation of the aperture, driven / tracked


def tracked_curves(landmarks: np.ndarray, scores: np.ndarray, times: np.ndarray, seconds: float) -> LipCurves:
    """Lip curves of landmarks (F, 478, 2) and ARKit scores (F, 52) at `times` (F,) s; frames of NaN are skipped."""
    found = np.isfinite(landmarks[:, 0, 0])
    landmarks, scores, times = landmarks[found], scores[found], times[found]

    def distance(pair: tuple[int, int]) -> np.ndarray:
        return np.linalg.norm(landmarks[:, pair[0]] - landmarks[:, pair[1]], axis=1)

    eyes = distance(_OUTER_EYES)
    clock = np.arange(max(1, int(seconds * RATE))) / RATE
    curves = distance(_INNER_LIPS) / eyes, distance(_CORNERS) / eyes, scores[:, ARKIT_INDEX["mouthPucker"]]
    return LipCurves(*(np.interp(clock, times, curve) for curve in curves))


def driven_curves(motion: Motion) -> LipCurves:
    """Lip curves of the baked head under a motion, as a tracker would see them."""
    from ..motion.audio.mouth import mouth_rig

    rig = mouth_rig()
    times = np.arange(len(motion)) / motion.fps
    clock = np.arange(max(1, int(len(motion) / motion.fps * RATE))) / RATE
    expression = motion.expression
    curves = rig.aperture_of(expression), rig.width_of(expression), expression[:, ARKIT_INDEX["mouthPucker"]]
    return LipCurves(*(np.interp(clock, times, curve) for curve in curves))


def loudness_curves(waveform: np.ndarray, sample_rate: int) -> LipCurves:
    """The mouth that only follows loudness: level in dB over the clip's loudest 35 dB, smoothed over 30 ms."""
    from ..motion.audio.windows import loudness, to_mono_16k

    level = loudness(to_mono_16k(np.atleast_2d(waveform), sample_rate))
    envelope = np.clip((level - np.percentile(level, 95) + 35) / 35, 0, 1.2)
    envelope = gaussian_filter1d(envelope, 1.5)
    return LipCurves(envelope, envelope, envelope)


def _overlap(a: np.ndarray, b: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """a[t] beside b[t + lag] where both exist."""
    length = min(len(a) - max(0, -lag), len(b) - max(0, lag))
    return a[max(0, -lag) :][:length], b[max(0, lag) :][:length]


def best_lag(driven: np.ndarray, tracked: np.ndarray) -> int:
    """Frames by which `tracked` runs later than `driven`, where the two curves correlate best."""
    reach = round(MAX_OFFSET_S * RATE)
    scores = {}
    for lag in range(-reach, reach + 1):
        a, b = _overlap(driven, tracked, lag)
        scores[lag] = correlation(a, b) if len(a) >= RATE / 2 else float("nan")
    return max(scores, key=lambda lag: -2 if np.isnan(scores[lag]) else scores[lag])


def closures(aperture: np.ndarray) -> np.ndarray:
    """Frames (n,) where the lips meet for up to half a second (bilabials and the like, not pauses).

    A closure that the clip's beginning or end cuts has no known length and does not count.
    """
    low, high = np.percentile(aperture, [5, 80])
    edges = np.diff(np.concatenate([[0], (aperture < low + _CLOSED * (high - low)).astype(int), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    short = (stops - starts <= _LONGEST_CLOSURE_S * RATE) & (starts > 0) & (stops < len(aperture))
    return np.array([a + np.argmin(aperture[a:b]) for a, b in zip(starts[short], stops[short])], int)


def closure_scores(driven: np.ndarray, tracked: np.ndarray) -> tuple[float, float, float]:
    """Recall, precision and F1 of the driven mouth's closures against the tracked ones, within 80 ms."""
    found, true = closures(driven), closures(tracked)
    if len(found) == 0 or len(true) == 0:
        return 0.0, 0.0, 0.0
    close = np.abs(found[:, None] - true[None]) <= _CLOSURE_TOLERANCE_S * RATE
    recall, precision = float(close.any(0).mean()), float(close.any(1).mean())
    return recall, precision, 2 * recall * precision / max(recall + precision, 1e-9)


def _jitter(curve: np.ndarray) -> float:
    return float(np.abs(np.diff(curve, 2)).mean() / max(curve.std(), 1e-6))


def lip_scores(driven: LipCurves, tracked: LipCurves) -> LipScores:
    """Scores of a driven mouth at its best offset against the tracked one."""
    lag = best_lag(driven.aperture, tracked.aperture)
    aperture, true = _overlap(driven.aperture, tracked.aperture, lag)
    recall, precision, f1 = closure_scores(aperture, true)
    return LipScores(
        lip_corr=correlation(aperture, true),
        width_corr=correlation(*_overlap(driven.width, tracked.width, lag)),
        pucker_corr=correlation(*_overlap(driven.pucker, tracked.pucker, lag)),
        closure_recall=recall,
        closure_precision=precision,
        closure_f1=f1,
        offset_ms=1000 * lag / RATE,
        jitter_ratio=_jitter(aperture) / max(_jitter(true), 1e-6),
        range_ratio=float(aperture.std() / max(true.std(), 1e-6)),
    )


def silence_opening(aperture: np.ndarray, level: np.ndarray) -> float:
    """How far a mouth opens while nobody speaks: 95th percentile of its gap there, of that of the whole clip.

    Args:
        aperture: (T,) lip gap at 50 Hz. level: (T,) dB; silence lies 35 dB below the loudest, 0.3 s from any
            sound: real lips part that long before they are heard.

    Returns:
        0 closed, 1 as open as in speech; NaN for a clip without such a silence.
    """
    length = min(len(aperture), len(level))
    quiet = level[:length] < np.percentile(level, 95) - _SILENT_DB
    quiet = binary_erosion(quiet, np.ones(2 * round(_PARTING_S * RATE) + 1), border_value=1)
    gap = aperture[:length] - aperture.min()
    return float(np.percentile(gap[quiet], 95) / max(np.percentile(gap, 95), 1e-6)) if quiet.any() else float("nan")


def mean_scores(scores: list[LipScores]) -> LipScores:
    """The mean row of a table; NaN entries (a channel that never moves) count as no correlation."""
    rows = np.nan_to_num(np.array([list(asdict(score).values()) for score in scores]))
    return LipScores(*(float(value) for value in rows.mean(0)))
