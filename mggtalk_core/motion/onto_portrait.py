"""Fit a motion made for anybody to one portrait, which already has an expression."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..gaussians.head import GaussianHead
from ..headmodel.arkit import ARKIT_INDEX, ARKIT_NAMES
from ..headmodel.model import load_head_model
from ..types import Motion
from .audio.mouth import lip_gaps, mouth_rig, with_lip_gap

_SPEECH = ("jaw", "mouth", "tongue")
_MOOD = ("mouthSmile", "mouthFrown", "mouthDimple")

KEPT_MOOD = 0.5
"""How much of a photo's smile stays while its person speaks: all of it would leave no lips to close.

Rounded lips keep none: nobody says "oo" with a smile."""


SOURCE_YAW, HIDDEN_YAW_LIMIT = np.radians([15, 40]), np.radians([45, 25])
"""How far a head may turn to its hidden side, for photos taken from the front and from the side (radians)."""


def onto_portrait(motion: Motion, head: GaussianHead) -> Motion:
    """The motion with the portrait's own expression kept where speech leaves it alone, and with lips that meet.

    Jaw and lips go where the motion says. Smile, frown and dimples keep part of the portrait's. Eyes, brows, cheeks and
    nose start from the portrait's, and the motion uses up what is left of their range. Then jaw and lips are corrected
    so that this person's lip gap is the one the motion has on the average head: closed stays closed on an open smile.
    Turns to a side the photo doesn't show are limited, with a warning.
    """
    source = head.source_expression.numpy()
    rounded = motion.expression[:, [ARKIT_INDEX["mouthPucker"], ARKIT_INDEX["mouthFunnel"]]].sum(1).clip(0, 1)
    expression = np.empty_like(motion.expression)
    for index, name in enumerate(ARKIT_NAMES):
        wanted = motion.expression[:, index]
        if name.startswith(_MOOD):
            expression[:, index] = np.maximum(wanted, KEPT_MOOD * (1 - rounded) * source[index])
        elif name.startswith(_SPEECH):
            expression[:, index] = wanted
        else:
            expression[:, index] = source[index] + (1 - source[index]) * wanted
    missing = mouth_rig().aperture_of(motion.expression) - lip_aperture(head, expression)
    expression = with_lip_gap(expression, missing, _lip_gaps(head)[1])
    rotation = motion.rotation.copy()
    rotation[:, 1], limited = _keep_known_side(rotation[:, 1], head)
    warnings = motion.warnings
    if limited:
        warnings += ("the motion turns the head to its hidden side; the turn was reduced",)
    return replace(motion, expression=expression.clip(0, 1), rotation=rotation, warnings=warnings)


def _keep_known_side(yaw: np.ndarray, head: GaussianHead) -> tuple[np.ndarray, bool]:
    """Yaw (T,) rad, softly limited where it would turn a side into view that the photo doesn't show.

    A frontal photo shows both sides; one taken from the side has nothing but a mirror image for the other. Also says
    whether the limit took away more than a degree.
    """
    rotation = head.viewmat.numpy()[:3, :3]
    turned = float(np.arctan2(-rotation[0, 2], rotation[2, 2]))  # the photo's own yaw
    limit = np.interp(abs(turned), SOURCE_YAW, HIDDEN_YAW_LIMIT)
    toward_hidden = yaw * np.sign(turned)
    kept = np.where(toward_hidden > 0, limit * np.tanh(toward_hidden / limit) * np.sign(turned), yaw)
    return kept.astype(np.float32), bool(np.abs(kept - yaw).max(initial=0) > np.radians(1))


def lip_aperture(head: GaussianHead, expression: np.ndarray) -> np.ndarray:
    """Lip gap (T,) of a head with expressions (T, 52), in distances between the outer eye corners."""
    rest, change = _lip_gaps(head)
    return rest + (expression - head.source_expression.numpy()) @ change


def _lip_gaps(head: GaussianHead) -> tuple[float, np.ndarray]:
    """The portrait's own lip gap, and its change per unit of each action (52,), in outer eye corner distances."""
    model = load_head_model()
    return lip_gaps(model.landmarks_of(head.vertices.numpy()), model.landmarks_of(head.expression_basis.numpy()))
