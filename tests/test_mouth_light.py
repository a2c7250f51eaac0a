"""Light behind the lips and on their rims."""

import numpy as np
import pytest

from mggtalk_core.gaussians.mouth_light import RIM, MouthLight
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.headmodel.model import load_head_model
from mggtalk_core.types import INTERIOR


def shaded(head, **actions: float) -> np.ndarray:
    """How bright (N,) the head's Gaussians are, in what they are in the photo, with some actions set."""
    expression = head.source_expression.numpy().copy()
    for name, value in actions.items():
        expression[ARKIT_INDEX[name]] = value
    colors = np.full((len(head), 3), 0.5, np.float32)
    MouthLight.of(head).shade(colors, expression)
    return colors[:, 0] / 0.5


ROUND = {"mouthPucker": 1.0, "mouthSmileLeft": 0.0, "mouthSmileRight": 0.0}


def test_the_photo_s_own_mouth_keeps_its_light(demo_head):
    assert shaded(demo_head) == pytest.approx(1)


def test_hidden_rims_darken_in_round_mouths_only(demo_head):
    rims = (demo_head.origin.numpy() == INTERIOR) & load_head_model().beside_lips(RIM)[demo_head.faces.numpy()]
    assert rims.sum() > 20
    assert shaded(demo_head, **ROUND)[rims].max() < 0.8
    assert shaded(demo_head, jawOpen=0.5)[rims] == pytest.approx(1)


def test_skin_outside_the_mouth_is_left_alone(demo_head):
    model, faces = load_head_model(), demo_head.faces.numpy()
    outside = model.outer_skin[faces] & ~model.beside_lips(RIM)[faces]
    assert shaded(demo_head, **ROUND)[outside] == pytest.approx(1)
