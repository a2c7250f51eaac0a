"""The lower contour of an open mouth lies where the picture shows it, and lips that were open can close."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mggtalk_core.geometry.binding import polygon_mask
from mggtalk_core.geometry.projection import PORTRAIT_FOCAL, project, to_camera
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.headmodel.fitting import camera_of, personal_landmark_model
from mggtalk_core.headmodel.landmarks import (
    INNER_LIP_LOWER,
    INNER_LIP_RING,
    INNER_LIP_UPPER,
    inter_ocular_distance,
    mouth_is_open,
)
from mggtalk_core.headmodel.model import load_head_model
from mggtalk_core.headmodel.personal import personal_expression_basis
from mggtalk_core.motion.video import DrivingPerson
from mggtalk_core.portrait.lip_contour import refine_lip_contour
from mggtalk_core.portrait.tracking import TrackedFace
from mggtalk_core.types import HeadFit

SIZE = 512
K = np.array([[PORTRAIT_FOCAL * SIZE, 0, SIZE / 2], [0, PORTRAIT_FOCAL * SIZE, SIZE / 2], [0, 0, 1]], np.float32)
LOWER, UPPER = list(INNER_LIP_LOWER), list(INNER_LIP_UPPER)


def _landmarks(jaw: float) -> np.ndarray:
    """The mean head's landmarks (478, 2) px with the jaw open."""
    head = load_head_model()
    expression = np.zeros(52, np.float32)
    expression[ARKIT_INDEX["jawOpen"]] = jaw
    shape = head.shape(np.zeros(len(head.identity_basis)), expression)
    fit = HeadFit(
        np.zeros(len(head.identity_basis)), expression, Rotation.identity().as_matrix(), np.array([0, 0, 1.3]),
        np.zeros((478, 2)), np.zeros(478),
    )  # fmt: skip
    camera = camera_of(fit, K, SIZE)
    return project(to_camera(head.landmarks_of(shape), camera), camera)[:, :2].astype(np.float32)


def test_a_contour_through_the_teeth_moves_to_the_lip():
    true = _landmarks(0.5)
    image = np.full((SIZE, SIZE, 3), (0.7, 0.35, 0.35), np.float32)
    image[polygon_mask(true[list(INNER_LIP_RING)], SIZE)] = 0.9  # the whole opening shows teeth
    unit = inter_ocular_distance(true)
    tracked = true.copy()
    tracked[LOWER, 1] -= 0.03 * unit
    refined = refine_lip_contour(image, tracked)
    middle = slice(2, 7)  # towards the corners the contour is steep
    before, after = (np.abs(marks[LOWER, 1] - true[LOWER, 1])[middle].max() / unit for marks in (tracked, refined))
    assert before == pytest.approx(0.03, abs=1e-3) and after < 0.012
    others = [index for index in range(478) if index not in LOWER]
    np.testing.assert_array_equal(refined[others], tracked[others])


def test_a_closed_mouth_is_left_alone():
    closed = _landmarks(0.0)
    closed[LOWER] = closed[UPPER] + [0, 1]
    image = np.random.default_rng(0).random((SIZE, SIZE, 3)).astype(np.float32)
    assert not mouth_is_open(closed)
    np.testing.assert_array_equal(refine_lip_contour(image, closed), closed)


def test_lips_close_although_the_reference_frame_is_wide_open(demo_portrait):
    """Errors of the tracker, lasting ones of places and changing ones of scores, must not hold the lips apart."""
    portrait, camera = demo_portrait, demo_portrait.camera
    mesh = personal_landmark_model(load_head_model(), portrait.vertices, portrait.fit.expression)
    wide = portrait.fit.expression.copy()
    wide[ARKIT_INDEX["jawOpen"]] = 0.7
    error = np.random.default_rng(0).normal(0, 0.02 * inter_ocular_distance(portrait.landmarks), (478, 2))
    error[LOWER] = error[UPPER]

    def shape(expression):
        return mesh.neutral + np.tensordot(expression, mesh.expression_basis, 1)

    def seen(expression):
        pixels = project(to_camera(shape(expression), camera), camera)[:, :2]
        return TrackedFace((pixels + error).astype(np.float32), 0.5 * expression, np.eye(4))

    def gap(expression):
        return (shape(expression)[LOWER, 1] - shape(expression)[UPPER, 1])[2:7].mean()

    reference = replace(
        portrait,
        landmarks=seen(wide).landmarks,
        scores=np.clip(wide + 0.1, 0, 1),
        fit=replace(portrait.fit, expression=wide),
        vertices=portrait.vertices + np.tensordot(
            wide - portrait.fit.expression,
            personal_expression_basis(load_head_model(), portrait.vertices, portrait.fit.expression), 1,
        ),
    )  # fmt: skip
    closed = seen(portrait.fit.expression)
    person = replace(DrivingPerson.from_portrait(reference), K=camera.K)  # tracked in the crop
    person = person.acquainted([replace(person.rest_face, landmarks=seen(wide).landmarks), closed])
    expression, *_ = person.relative(person.fit(closed, None))
    assert gap(wide) > 0.02
    assert gap(expression) == pytest.approx(gap(portrait.fit.expression), abs=0.0005)  # m
