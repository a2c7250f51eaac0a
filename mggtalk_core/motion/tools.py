"""Edit motion: smooth, resample, trim, concatenate, and retarget curves of another source onto our head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation, Slerp

from ..errors import InputError
from ..headmodel.arkit import ARKIT_NAMES
from ..types import Motion

SMOOTHING_S = 0.04
"""Default smoothing, standard deviation: about the 7-frame window that ComfyUI's core uses at 30 fps."""

_EYES = np.array([name.startswith(("eyeBlink", "eyeWide", "eyeSquint")) for name in ARKIT_NAMES])
_GAZE = np.array([name.startswith("eyeLook") for name in ARKIT_NAMES])
_BROWS = np.array([name.startswith(("brow", "noseSneer")) for name in ARKIT_NAMES])
_BLINKS = np.array([name.startswith("eyeBlink") for name in ARKIT_NAMES])
_MOUTH = ~(_EYES | _GAZE | _BROWS)


def smooth(motion: Motion, seconds: float = SMOOTHING_S) -> Motion:
    """Motion filtered over time with a Gaussian of `seconds` standard deviation; blinks keep their speed.

    Lag-free; head turns are filtered as rotations near the mean pose, where axis-angle vectors may be averaged.
    """
    if seconds < 0:
        raise InputError(f"smoothing of {seconds} s is negative; give 0 or more")
    sigma = seconds * motion.fps
    if sigma == 0 or len(motion) < 2:
        return motion
    expression = gaussian_filter1d(motion.expression, sigma, axis=0, mode="nearest")
    expression[:, _BLINKS] = motion.expression[:, _BLINKS]
    middle = Rotation.from_rotvec(motion.rotation).mean()
    around = (middle.inv() * Rotation.from_rotvec(motion.rotation)).as_rotvec()
    turned = middle * Rotation.from_rotvec(gaussian_filter1d(around, sigma, axis=0, mode="nearest"))
    translation = gaussian_filter1d(motion.translation, sigma, axis=0, mode="nearest")
    return replace(
        motion,
        expression=expression.astype(np.float32),
        rotation=turned.as_rotvec().astype(np.float32),
        translation=translation.astype(np.float32),
    )


def _at(motion: Motion, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expression, rotation and translation at times (n,) s, interpolated; the ends are held."""
    known = np.arange(len(motion)) / motion.fps
    times = np.clip(times, known[0], known[-1])
    expression = np.stack([np.interp(times, known, curve) for curve in motion.expression.T], 1)
    translation = np.stack([np.interp(times, known, curve) for curve in motion.translation.T], 1)
    if len(motion) == 1:
        return expression, np.repeat(motion.rotation, len(times), 0), translation
    rotation = Slerp(known, Rotation.from_rotvec(motion.rotation))(times).as_rotvec()
    return expression, rotation, translation


def resample(motion: Motion, fps: float) -> Motion:
    """The same motion at another frame rate and of the same duration (ceil, as for sound)."""
    if not 1 <= fps <= 240:
        raise InputError(f"{fps} frames per second is outside 1..240; give the video's frame rate, e.g. 25")
    if fps == motion.fps or len(motion) == 0:
        return replace(motion, fps=float(fps))
    frames = int(np.ceil(len(motion) / motion.fps * fps - 1e-6))
    curves = _at(motion, np.arange(frames) / fps)
    return Motion(*(curve.astype(np.float32) for curve in curves), float(fps), motion.warnings)


def trim(motion: Motion, start: float = 0.0, end: float | None = None) -> Motion:
    """The part from `start` to `end` seconds (the whole rest when None)."""
    last = len(motion) / motion.fps
    end = last if end is None else end
    if not 0 <= start < end or start >= last:
        raise InputError(f"can't cut {start}..{end} s out of {last:.2f} s of motion; give 0 <= start < end")
    part = slice(round(start * motion.fps), max(round(start * motion.fps) + 1, round(end * motion.fps)))
    return replace(
        motion,
        expression=motion.expression[part],
        rotation=motion.rotation[part],
        translation=motion.translation[part],
    )


def concatenate(motions: list[Motion], blend: float = 0.2) -> Motion:
    """Motions one after the other at the first one's frame rate, each beginning eased in from the pose before it.

    Args:
        blend: seconds over which the jump at a seam fades; no time is added or lost.
    """
    if not motions:
        raise InputError("nothing to join; give at least one motion")
    motions = [motions[0], *(resample(motion, motions[0].fps) for motion in motions[1:])]
    parts = [motions[0]]
    for motion in motions[1:]:
        before = parts[-1]
        count = min(len(motion), max(1, round(blend * motion.fps)))
        fade = np.zeros((len(motion), 1))
        fade[:count, 0] = 0.5 + 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / count)
        jump = Rotation.from_rotvec(motion.rotation[:1]).inv() * Rotation.from_rotvec(before.rotation[-1:])
        turned = Rotation.from_rotvec(motion.rotation) * Rotation.from_rotvec(fade * jump.as_rotvec())
        parts.append(
            replace(
                motion,
                expression=motion.expression + fade * (before.expression[-1] - motion.expression[0]),
                rotation=turned.as_rotvec(),
                translation=motion.translation + fade * (before.translation[-1] - motion.translation[0]),
            )
        )
    joined = [np.concatenate([getattr(p, name) for p in parts]) for name in ("expression", "rotation", "translation")]
    joined[0] = np.clip(joined[0], 0, 1)
    warnings = tuple(dict.fromkeys(w for motion in motions for w in motion.warnings))
    return Motion(*(curve.astype(np.float32) for curve in joined), motions[0].fps, warnings)


def retarget(
    motion: Motion,
    *,
    eyes: float = 2.0,
    brows: float = 2.0,
    mouth: float = 1.0,
    threshold: float = 0.02,
    baseline: bool = True,
) -> Motion:
    """Raw tracker scores made into curves that a face can show. Defaults are those ComfyUI's core was tuned to.

    Scores of a face at rest are not zero, and those of lids and brows stay far below one.

    Args:
        eyes, brows, mouth: gain of lids (not gaze), of brows and nose, and of mouth, jaw, cheeks and tongue.
        threshold: smaller values are noise and become 0.
        baseline: take away each curve's resting value (5th percentile), in clips of 30 frames or more.
    """
    expression = motion.expression.copy()
    if baseline and len(motion) >= 30:
        rest = np.percentile(expression, 5, axis=0)
        rest[_GAZE] = 0  # looking aside all the time is not a resting value
        expression -= rest
    gains = np.select([_EYES, _BROWS, _MOUTH], [eyes, brows, mouth], 1.0)
    expression = np.where(expression < threshold, 0, expression) * gains
    return replace(motion, expression=np.clip(expression, 0, 1).astype(np.float32))


def calibrate_range(motion: Motion, like: Motion, quantile: float = 95.0) -> Motion:
    """Each curve scaled so that its top (a percentile) is that of another motion, e.g. one of the same face.

    Curves that stay below 0.02 in either motion are left alone.
    """
    top, wanted = (np.percentile(m.expression, quantile, axis=0) for m in (motion, like))
    gain = np.where((top > 0.02) & (wanted > 0.02), wanted / np.maximum(top, 0.02), 1.0)
    return replace(motion, expression=np.clip(motion.expression * gain, 0, 1).astype(np.float32))
