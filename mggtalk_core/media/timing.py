"""Frame rates and frame counts as exact fractions, so that an hour of speech ends with its picture."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from ..errors import InputError

MIN_FPS, MAX_FPS = 1, 240


def exact_fps(fps: float | int | str | Fraction) -> Fraction:
    """A frame rate as the fraction that is meant: 23.976 -> 24000/1001, 29.97 -> 30000/1001, 25 -> 25.

    A Fraction is taken as it is.

    Raises:
        InputError: not a number between 1 and 240.
    """
    try:
        rate = Fraction(fps)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError):
        given = repr(fps)[:40]
        raise InputError(f"frame rate {given} is not a number; give frames per second such as 25 or 29.97") from None
    if not MIN_FPS <= rate <= MAX_FPS:
        given = f"above {MAX_FPS}" if rate > MAX_FPS else f"below {MIN_FPS}"
        raise InputError(f"frame rate {given} is not usable; give {MIN_FPS} to {MAX_FPS} frames per second")
    if isinstance(fps, Fraction):
        return fps
    ntsc = Fraction(ceil(rate) * 1000, 1001)  # the NTSC family: 24, 30, 60 ... slowed by 1000/1001
    if abs(float(rate) - float(ntsc)) < 0.005:
        return ntsc
    return rate.limit_denominator(1001)


def frame_count(samples: int, sample_rate: int, fps: float | Fraction) -> int:
    """Frames that cover a clip of sound: ceil(duration * fps), computed without rounding error."""
    return ceil(Fraction(samples, sample_rate) * exact_fps(fps))
