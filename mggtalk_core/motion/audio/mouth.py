"""From what the mouth should do (lip gap, width, detail) to ARKit coefficients of *our* head model.

ARKit names promise no scale: jawOpen = 1 opens this head by some amount and another by a different one. So the gap and
width that every coefficient causes are measured on the baked head, and jaw and lip corners are solved so that the
head's own lips have the wanted gap and width. Nothing here is tuned by hand when the head is baked again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter1d, grey_opening, maximum_filter1d, minimum_filter1d

from ...headmodel.arkit import ARKIT_INDEX
from ...headmodel.model import HeadModel, load_head_model
from .head import DETAILS, OUTPUTS
from .windows import FEATURE_RATE

UPPER_LIP, LOWER_LIP, RIGHT_CORNER, LEFT_CORNER, RIGHT_EYE, LEFT_EYE = 13, 14, 61, 291, 33, 263
"""MediaPipe landmarks: inner lip centres, mouth corners, outer eye corners (left and right are the subject's)."""

REST_APERTURE = 0.007
"""Lip gap of a closed mouth as the tracker sees it, inter-ocular distances: 5th percentile of 105 s of real speech."""

SPEECH_APERTURE = (0.007, 0.093, 0.197)
"""5th, 50th and 95th percentile of the lip gap in real speech, inter-ocular distances (same measurement)."""

_SHORTEST_SILENCE_S = 0.35  # shorter pauses do not close the mouth of real speakers
_CLOSING_S, _OPENING_S = 0.1, 0.3  # lips are still closing after the last sound, and part this long before the first
_APERTURE, _WIDTH, _PRESS, _SILENCE, _BILABIAL = (
    OUTPUTS.index(name) for name in ("aperture", "width", "mouthPress", "silence", "bilabial")
)


def columns(name: str) -> list[int]:
    """The columns of an ARKit shape, both sides when it comes in a pair."""
    return [ARKIT_INDEX[n] for n in ([name] if name in ARKIT_INDEX else [f"{name}Left", f"{name}Right"])]


def lip_gaps(landmarks: np.ndarray, actions: np.ndarray) -> tuple[float, np.ndarray]:
    """Lip gap of landmarks (478, 3) and its change per unit of each action (52,), in outer eye corner distances.

    `actions` (52, 478, 3) are in the landmarks' unit, canonical frame.
    """
    eyes = np.linalg.norm(landmarks[LEFT_EYE] - landmarks[RIGHT_EYE])
    gap = float(landmarks[LOWER_LIP, 1] - landmarks[UPPER_LIP, 1]) / eyes
    return gap, (actions[:, LOWER_LIP, 1] - actions[:, UPPER_LIP, 1]) / eyes


def with_lip_gap(expression: np.ndarray, missing: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Expressions (T, 52) whose lips are farther apart by `missing` (T,), with each action opening them by `gap` (52,).

    The jaw opens them, mouthClose closes them; neither is held to 0..1.
    """
    expression = expression.copy()
    jaw, close = ARKIT_INDEX["jawOpen"], ARKIT_INDEX["mouthClose"]
    expression[:, jaw] += np.maximum(missing, 0) / gap[jaw]
    expression[:, close] += np.minimum(missing, 0) / gap[close]
    return expression


@dataclass(frozen=True)
class MouthRig:
    """What each ARKit coefficient does to the lips of the baked head. Lengths in inter-ocular distances."""

    gap: np.ndarray  # (52,) change of the vertical lip gap per unit
    width: np.ndarray  # (52,) change of the mouth width per unit

    @classmethod
    def of(cls, model: HeadModel) -> MouthRig:
        """Measures the baked head's actions at the mean identity."""
        mean = model.landmarks_of(model.mean)
        actions = model.landmarks_of(model.expression_basis)
        eyes = np.linalg.norm(mean[LEFT_EYE] - mean[RIGHT_EYE])
        corners = mean[LEFT_CORNER] - mean[RIGHT_CORNER]
        along = corners / np.linalg.norm(corners)
        width = (actions[:, LEFT_CORNER] - actions[:, RIGHT_CORNER]) @ along
        return cls(lip_gaps(mean, actions)[1].astype(np.float32), (width / eyes).astype(np.float32))

    def aperture_of(self, expression: np.ndarray) -> np.ndarray:
        """Lip gap (T,) of expressions (T, 52) as a tracker would measure it: a closed mouth has REST_APERTURE."""
        return np.maximum(expression @ self.gap, 0) + REST_APERTURE

    def opened(self, expression: np.ndarray, aperture: np.ndarray) -> np.ndarray:
        """Expressions (T, 52) with the jaw opened further, or the lips closed, until the lip gap is `aperture` (T,)."""
        asked, there = aperture - REST_APERTURE, expression @ self.gap
        return with_lip_gap(expression, np.where(asked > 0, asked - there, np.minimum(-there, 0)), self.gap)

    def width_of(self, expression: np.ndarray) -> np.ndarray:
        """Mouth width (T,) against rest of expressions (T, 52)."""
        return expression @ self.width

    def solve(self, aperture: np.ndarray, width: np.ndarray, detail: np.ndarray) -> np.ndarray:
        """Expressions (T, 52) whose lips have the gap above rest and the width change wanted.

        Args:
            aperture: (T,) lip gap above the closed mouth, >= 0.
            width: (T,) change of the mouth width against rest.
            detail: (T, len(DETAILS)) coefficients that give the lips their character; the jaw is solved, and a
                missing width is made up by the corners (wide) or by pucker and funnel (narrow).
        """
        expression = np.zeros((len(aperture), 52), np.float32)
        for name, value in zip(DETAILS, np.clip(detail, 0, 1).T):
            expression[:, columns(name)] = value[:, None]
        lips = columns("mouthLowerDown") + columns("mouthUpperUp") + columns("mouthFunnel")
        wide = columns("mouthStretch") + columns("mouthSmile")
        narrow = columns("mouthPucker") + columns("mouthFunnel")
        jaw, close = ARKIT_INDEX["jawOpen"], ARKIT_INDEX["mouthClose"]
        # Lips alone may not open further than wanted: without this a closed mouth would show its teeth.
        allowed = 0.5 * aperture
        opened = expression[:, lips] @ self.gap[lips]
        expression[:, lips] *= np.minimum(1, allowed / np.maximum(opened, 1e-6))[:, None]
        for _ in range(3):  # jaw and corners influence each other weakly, so a few alternations settle
            missing = width - expression @ self.width
            for group, sign in ((wide, 1), (narrow, -1)):
                share = np.maximum(sign * missing, 0) / np.abs(self.width[group]).sum()
                expression[:, group] = np.minimum(expression[:, group] + share[:, None], 1)
            expression[:, jaw] = expression[:, close] = 0
            missing = aperture - expression @ self.gap
            expression[:, jaw] = np.clip(missing / self.gap[jaw], 0, 1)
            expression[:, close] = np.clip(missing / self.gap[close], 0, 1)
        return expression


@lru_cache(maxsize=1)
def mouth_rig() -> MouthRig:
    """The rig of the baked head that ships."""
    return MouthRig.of(load_head_model())


def gates(outputs: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much silence and how much bilabial closure holds in each 50 Hz frame, both (T,) 0..1.

    Args:
        outputs: (T, len(OUTPUTS)) of the mouth head.
        level: (T,) dB re full scale; below -70 dB there is nothing to hear, whatever the head says.
    """
    silence = np.where(level < -70, 1.0, 1 / (1 + np.exp(-outputs[:, _SILENCE])))
    shortest, closing, opening = (round(s * FEATURE_RATE) for s in (_SHORTEST_SILENCE_S, _CLOSING_S, _OPENING_S))
    silence = grey_opening(silence, min(shortest, len(silence)))
    # the least of the last 0.1 s and the next 0.3 s; at the ends of the clip silence goes on
    silence = minimum_filter1d(silence, closing + opening + 1, origin=(closing - opening) // 2, mode="nearest")
    silence = gaussian_filter1d(silence, 2.5)
    bilabial = 1 / (1 + np.exp(-gaussian_filter1d(outputs[:, _BILABIAL], 0.7)))
    return silence.astype(np.float32), bilabial.astype(np.float32)


def mouth_expression(
    outputs: np.ndarray, level: np.ndarray, times: np.ndarray, fps: float, scale: float = 1.0
) -> np.ndarray:
    """ARKit coefficients (n, 52) of the mouth at `times` (n,) s from the head's 50 Hz outputs (T, len(OUTPUTS)).

    Closures are short (60-100 ms), so a frame of 1 / `fps` s takes the strongest closure of the time it covers.
    """
    silence, bilabial = gates(outputs, level)
    smooth = gaussian_filter1d(outputs[:, : 2 + len(DETAILS)], 1.0, axis=0) * (1 - silence)[:, None]
    per_frame = max(1, round(FEATURE_RATE / fps))
    closed = maximum_filter1d(bilabial * (1 - silence), per_frame, origin=-((per_frame - 1) // 2))
    clock = np.arange(len(outputs)) / FEATURE_RATE
    smooth = np.stack([np.interp(times, clock, curve) for curve in smooth.T], 1) * scale
    closed = np.interp(times, clock, closed)
    smooth[:, _PRESS] += 0.15 * closed * min(scale, 1)
    aperture = np.maximum(smooth[:, _APERTURE], 0) * (1 - closed)
    return mouth_rig().solve(aperture, smooth[:, _WIDTH], smooth[:, 2:])
