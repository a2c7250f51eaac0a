"""What a face does while it talks, apart from the mouth: blinks, head sway, glances and brows, all from one seed.

Ranges follow what was measured on 105 s of real talking clips (docs/audio.md): head angles vary by 3.7 degrees
(standard deviation) with |head speed| tied to loudness (r = 0.4), and a blink is half closed for 133-151 ms.
Blinks come 15-25 times a minute with log-normal intervals.

Curves are drawn on a fixed 50 Hz clock and read at the video's frame times, so a seed gives the same performance at
any frame rate, a longer clip begins like a shorter one, and a part of a clip (`start`) moves like that part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..headmodel.arkit import ARKIT_INDEX
from ..headmodel.model import LEFT_EYE, HeadModel, load_head_model

CLOCK = 50.0  # Hz
_SWAY_DEG = np.array([2.0, 2.6, 1.4])  # standard deviation of pitch, yaw, roll about the canonical x, y, z axes
_NOD_DEG = 1.5  # how far a stressed syllable lowers the head
_BLINKS, _SWAY, _GAZE, _BROWS = range(4)  # independent random streams


@dataclass(frozen=True)
class Gaze:
    """How far one unit of eyeLook turns the baked head's eyes, degrees."""

    horizontal: float
    vertical: float

    @classmethod
    def of(cls, model: HeadModel) -> Gaze:
        """Measured from how far the eyelook actions move the front of the left eyeball."""
        ball = model.part_vertices(LEFT_EYE)
        centre = (model.mean[ball].min(0) + model.mean[ball].max(0)) / 2
        front = ball[np.argmin(model.mean[ball, 2])]
        radius = np.linalg.norm(model.mean[front] - centre)

        def degrees(name: str) -> float:
            return float(np.degrees(np.linalg.norm(model.expression_basis[ARKIT_INDEX[name], front]) / radius))

        return cls(degrees("eyeLookOutLeft"), degrees("eyeLookUpLeft"))


@lru_cache(maxsize=1)
def gaze() -> Gaze:
    """The eyes of the baked head that ships."""
    return Gaze.of(load_head_model())


def _noise(rng: np.random.Generator, start: int, count: int, channels: int, period_s: float) -> np.ndarray:
    """Smooth unit-variance noise (count, channels) from clock frame `start` on."""
    step = period_s / 2 * CLOCK
    knots = int(np.ceil((start + count) / step)) + 4
    values = rng.standard_normal((knots, channels))
    x = (start + np.arange(count)) / step
    index = x.astype(int)
    t = (x - index)[:, None]
    # uniform cubic B-spline: smooth speed and acceleration; 0.48 is its mean squared weight
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    return sum(w * values[index + k] for k, w in enumerate(weights)) / 6 / np.sqrt(0.48)


def blink_times(rng: np.random.Generator, duration: float) -> np.ndarray:
    """Onsets (n,) s of blinks: log-normal intervals, median 2.9 s (about 18 a minute), never closer than 0.6 s."""
    onsets = []
    time = rng.uniform(0.8, 3.0)
    while time < duration:
        onsets.append(time)
        time += max(0.6, float(np.exp(rng.normal(np.log(2.9), 0.5))))
    return np.array(onsets)


def blinks(seed: int, times: np.ndarray) -> np.ndarray:
    """Lid closure (T,) 0..1 at `times` (T,) s: 80 ms down, 60 ms closed, 160 ms up."""
    rng = np.random.default_rng([seed, _BLINKS])
    closure = np.zeros(len(times), np.float32)
    for onset in blink_times(rng, times[-1] if len(times) else 0.0):
        t = times - onset
        down, up = np.clip(t / 0.08, 0, 1), np.clip((t - 0.14) / 0.16, 0, 1)
        shape = down * down * (3 - 2 * down) - up * up * (3 - 2 * up)
        closure = np.maximum(closure, shape)
    return closure.astype(np.float32)


def emphasis(level: np.ndarray, speaking: np.ndarray) -> np.ndarray:
    """Prosodic stress (n,) 0..1 on the clock: loudness above its running mean over 1.5 s, in speech only.

    Args:
        level: (n,) dB re full scale at 50 Hz. speaking: (n,) 0..1.
    """
    audible = np.maximum(level, level.max() - 45)
    syllables = gaussian_filter1d(audible, 4.0)
    above = syllables - gaussian_filter1d(audible, 37.5)
    return (np.clip(above / 8, 0, 1) * gaussian_filter1d(speaking, 5.0)).astype(np.float32)


def sway(seed: int, stress: np.ndarray, speaking: np.ndarray, start: int = 0) -> np.ndarray:
    """Head rotation (n, 3) rad on the clock, about the canonical x (nod), y (turn) and z (tilt) axes.

    Slow drift plus faster movement that grows with speech, and a nod on stressed syllables. Starts at the portrait's
    own pose and leaves it within a second.
    """
    count = len(stress)
    slow = _noise(np.random.default_rng([seed, _SWAY, 0]), start, count, 3, 5.0)
    fast = _noise(np.random.default_rng([seed, _SWAY, 1]), start, count, 3, 1.6)
    lively = gaussian_filter1d(speaking, 12.0)[:, None]
    degrees = _SWAY_DEG * (0.75 * slow + 0.45 * fast * (0.3 + 0.7 * lively))
    degrees[:, 0] += _NOD_DEG * gaussian_filter1d(stress, 4.0)
    leaving = np.clip((start + np.arange(count)) / CLOCK, 0, 1)[:, None]
    return np.radians(degrees * leaving * leaving * (3 - 2 * leaving)).astype(np.float32)


def glances(seed: int, count: int, start: int = 0) -> np.ndarray:
    """Gaze angles (count, 2) degrees on the clock (right of the image, down): small jumps every 0.5-2.5 s."""
    rng = np.random.default_rng([seed, _GAZE])
    angles = np.zeros((count, 2))
    position = -start
    while position < count:
        hold = int(rng.uniform(0.5, 2.5) * CLOCK)
        angles[max(0, position) : max(0, position + hold)] = rng.normal(0, (1.4, 0.8))
        position += hold
    return gaussian_filter1d(angles, 0.8, axis=0)  # a saccade of this size takes about 40 ms


def eye_expression(degrees: np.ndarray) -> np.ndarray:
    """ARKit coefficients (T, 52) of both eyes looking `degrees` (T, 2) to the right of the image and down."""
    expression = np.zeros((len(degrees), 52), np.float32)
    turn, tilt = degrees[:, 0] / gaze().horizontal, degrees[:, 1] / gaze().vertical
    # the right of the image is the subject's left: out for the left eye, in for the right one
    for name, value in (
        ("eyeLookOutLeft", turn), ("eyeLookInRight", turn), ("eyeLookInLeft", -turn), ("eyeLookOutRight", -turn),
        ("eyeLookDownLeft", tilt), ("eyeLookDownRight", tilt), ("eyeLookUpLeft", -tilt), ("eyeLookUpRight", -tilt),
    ):  # fmt: skip
        expression[:, ARKIT_INDEX[name]] = np.clip(value, 0, 1)
    return expression


def brows(seed: int, stress: np.ndarray, start: int = 0) -> np.ndarray:
    """Brow raise (n,) 0..1 on the clock: a slow wander and a lift on some of the stressed syllables."""
    slow = _noise(np.random.default_rng([seed, _BROWS, 0]), start, len(stress), 1, 4.0)[:, 0]
    quick = _noise(np.random.default_rng([seed, _BROWS, 1]), start, len(stress), 1, 2.0)[:, 0]
    wander = np.clip(slow, 0, 2) * 0.06
    chosen = np.clip(quick + 0.3, 0, 1)
    return (wander + 0.35 * chosen * gaussian_filter1d(stress, 5.0)).astype(np.float32)


