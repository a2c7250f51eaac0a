"""Expressions and head poses as people type them: `{"jawOpen": 0.4, "headYaw": 10}` or `jawOpen=0.4, yaw=10`.

A shape name without its side means both sides: `mouthSmile` is mouthSmileLeft and mouthSmileRight. The head's angles
are degrees, with the signs of the motion CSV: headYaw > 0 turns the face to the right of the picture, headPitch > 0
lowers it, headRoll > 0 tilts its top to the right.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

import numpy as np

from ..mggtalk_core.errors import InputError
from ..mggtalk_core.gaussians.head import GaussianHead
from ..mggtalk_core.headmodel.arkit import ARKIT_INDEX, ARKIT_NAMES
from ..mggtalk_core.motion.blendshape_csv import euler_from_rotation, rotation_from_euler
from ..mggtalk_core.motion.onto_portrait import onto_portrait
from ..mggtalk_core.types import Motion

HEAD_ANGLES = ("headYaw", "headPitch", "headRoll")
MODES = ("add", "replace", "multiply")
_BOTH_SIDES = {
    name.removesuffix("Left"): (name, name.removesuffix("Left") + "Right")
    for name in ARKIT_NAMES
    if name.endswith("Left") and name.removesuffix("Left") + "Right" in ARKIT_INDEX and name != "jawLeft"
}
_LOWER_CASE = {name.lower(): name for name in (*ARKIT_NAMES, *_BOTH_SIDES, *HEAD_ANGLES)}
_LOWER_CASE |= {name.removeprefix("head").lower(): name for name in HEAD_ANGLES}  # as timelines call them


@dataclass(frozen=True)
class Edit:
    """Values for some of the 52 shapes and head angles; the others are left alone."""

    shapes: dict[str, float]  # ARKit name -> value
    angles: dict[str, float]  # of HEAD_ANGLES -> degrees


def parse_edit(text: str) -> Edit:
    """An edit from a JSON object, or from `name=value, name=value`.

    Raises:
        InputError: unknown names, or values that are not finite numbers.
    """
    text = text.strip()
    if text.startswith("{"):
        try:
            pairs = list(json.loads(text).items())
        except json.JSONDecodeError as error:
            raise InputError(f'not valid JSON ({error}); write it like {{"jawOpen": 0.4}}') from None
    else:
        pairs = []
        for part in filter(None, re.split(r"[,;\s]+(?=[A-Za-z])|[,;]", text)):
            name, equals, value = part.partition("=")
            if not equals:
                raise InputError(f"'{part.strip()}' has no value; write it like jawOpen=0.4")
            pairs.append((name.strip(), value))
    shapes: dict[str, float] = {}
    angles: dict[str, float] = {}
    for name, value in pairs:
        known = _LOWER_CASE.get(name.lower())
        if known is None:
            raise InputError(f"'{name}' is not one of ARKit's 52 shapes nor {', '.join(HEAD_ANGLES)}")
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise InputError(f"the value of {name} is {value!r}; give a number") from None
        if not np.isfinite(number):
            raise InputError(f"the value of {name} is {value!r}; give a finite number")
        if known in HEAD_ANGLES:
            angles[known] = number
        else:
            shapes.update(dict.fromkeys(_BOTH_SIDES.get(known, (known,)), number))
    return Edit(shapes, angles)


def apply_edit(motion: Motion, edit: Edit, mode: str) -> Motion:
    """The motion with the edit added to it, put in its place, or multiplied onto it."""
    combine = {"add": np.add, "replace": lambda _, new: np.full_like(_, new), "multiply": np.multiply}[mode]
    expression = motion.expression.copy()
    for name, value in edit.shapes.items():
        column = ARKIT_INDEX[name]
        expression[:, column] = combine(expression[:, column], value)
    rotation = motion.rotation
    if edit.angles:
        degrees = np.degrees(euler_from_rotation(motion.rotation))
        for index, name in enumerate(HEAD_ANGLES):
            if name in edit.angles:
                degrees[:, index] = combine(degrees[:, index], edit.angles[name])
        rotation = rotation_from_euler(np.radians(degrees))
    return replace(motion, expression=np.clip(expression, 0, 1), rotation=rotation)


def still(frames: int = 1, fps: float = 25.0) -> Motion:
    """A neutral face that does not move."""
    return Motion(
        np.zeros((frames, len(ARKIT_NAMES)), np.float32),
        np.zeros((frames, 3), np.float32),
        np.zeros((frames, 3), np.float32),
        fps,
    )


@dataclass(frozen=True)
class FittedMotion(Motion):
    """A motion made for one head: rendered as it is, not fitted to the portrait's expression again."""


def for_head(motion: Motion | None, head: GaussianHead) -> Motion:
    """The motion as this head performs it; without a motion, one frame of the photo's own face."""
    source = head.source_expression.numpy()
    if isinstance(motion, FittedMotion):
        return motion
    fitted = replace(still(), expression=source[None].copy()) if motion is None else onto_portrait(motion, head)
    return FittedMotion(**vars(fitted))


def frame_of(motion: Motion, index: int) -> Motion:
    """One frame of a motion."""
    one = slice(index, index + 1)
    return replace(
        motion,
        expression=motion.expression[one],
        rotation=motion.rotation[one],
        translation=motion.translation[one],
    )
