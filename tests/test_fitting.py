"""Fitting the head model: known heads are found again, from landmarks alone."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mggtalk_core.geometry.projection import PORTRAIT_FOCAL, project, to_camera
from mggtalk_core.headmodel.arkit import ARKIT_INDEX
from mggtalk_core.headmodel.fitting import camera_of, fit_landmarks, generic_landmark_model, personal_landmark_model
from mggtalk_core.headmodel.landmarks import INNER_FACE
from mggtalk_core.headmodel.model import load_head_model
from mggtalk_core.headmodel.personal import LID_PAIRS, personal_expression_basis
from mggtalk_core.headmodel.warp import warp_to_landmarks
from mggtalk_core.types import HeadFit

SIZE = 512
K = np.array([[PORTRAIT_FOCAL * SIZE, 0, SIZE / 2], [0, PORTRAIT_FOCAL * SIZE, SIZE / 2], [0, 0, 1]])


def _observed(head, identity, expression, degrees):
    """Landmarks (478, 2) px of a head about 1.3 m away."""
    fit = HeadFit(
        identity, expression, Rotation.from_euler("yxz", degrees, degrees=True).as_matrix(),
        np.array([0.01, 0.0, 1.3]), np.zeros((478, 2)), np.zeros(478),
    )  # fmt: skip
    camera = camera_of(fit, K, SIZE)
    return project(to_camera(head.landmarks_of(head.shape(identity, expression)), camera), camera)[:, :2], fit


@pytest.mark.parametrize("degrees", [(0, 0, 0), (20, -8, 5), (-25, 10, -12)])
def test_pose_is_found_although_identity_is_not_known(degrees):
    head = load_head_model()
    identity = np.random.default_rng(0).normal(0, 0.5, len(head.identity_basis))
    expression = np.zeros(52)
    expression[ARKIT_INDEX["jawOpen"]] = 0.4
    landmarks, truth = _observed(head, identity, expression, degrees)
    found = fit_landmarks(landmarks, np.zeros(52), generic_landmark_model(head), K)
    error = Rotation.from_matrix(found.rotation @ truth.rotation.T).magnitude()
    assert np.degrees(error) < 1.5
    assert found.error[INNER_FACE].mean() < 0.005


def test_a_known_person_gives_back_the_expression():
    head = load_head_model()
    identity = np.random.default_rng(1).normal(0, 0.5, len(head.identity_basis))
    neutral = head.shape(identity, np.zeros(52))
    model = personal_landmark_model(head, neutral, np.zeros(52))
    basis = personal_expression_basis(head, neutral, np.zeros(52))
    expression = np.zeros(52)
    for name, value in (("jawOpen", 0.5), ("mouthSmileLeft", 0.6), ("eyeBlinkRight", 0.9)):
        expression[ARKIT_INDEX[name]] = value
    shown = neutral + np.tensordot(expression, basis, 1)
    camera = camera_of(_observed(head, identity, expression, (10, 0, 0))[1], K, SIZE)
    landmarks = project(to_camera(head.landmarks_of(shown), camera), camera)[:, :2]
    found = fit_landmarks(landmarks, 0.5 * expression, model, K, expression_sigma=0.15)
    for name in ("jawOpen", "mouthSmileLeft", "eyeBlinkRight"):
        assert found.expression[ARKIT_INDEX[name]] == pytest.approx(expression[ARKIT_INDEX[name]], abs=0.12)
    assert (found.expression >= 0).all() and (found.expression <= 1).all()


def test_the_warp_puts_landmarks_where_they_were_seen():
    head = load_head_model()
    zeros = np.zeros(len(head.identity_basis))
    landmarks, truth = _observed(head, zeros, np.zeros(52), (5, 0, 0))
    seen = landmarks + 3 * np.sin(landmarks / 40)  # a smooth personal difference of up to 3 px
    fit = HeadFit(zeros, np.zeros(52), truth.rotation, truth.translation, landmarks, np.zeros(478))
    warped = warp_to_landmarks(head, head.shape(zeros, np.zeros(52)), fit, seen, K)
    camera = camera_of(truth, K, SIZE)
    now = project(to_camera(head.landmarks_of(warped), camera), camera)[:, :2]
    before, after = (np.linalg.norm((p - seen)[INNER_FACE], axis=1).mean() for p in (landmarks, now))
    assert after < 0.25 * before


def test_full_blink_just_closes_wide_and_narrow_eyes():
    head = load_head_model()
    for opening in (-0.4, 0.0, 0.4):  # narrowed by squint, as is, widened
        expression = np.zeros(52)
        action = "eyeWide" if opening > 0 else "eyeSquint"
        for side in ("Left", "Right"):
            expression[ARKIT_INDEX[action + side]] = abs(opening)
        vertices = head.shape(np.zeros(len(head.identity_basis)), expression)
        basis = personal_expression_basis(head, vertices, expression)
        closed = vertices + basis[ARKIT_INDEX["eyeBlinkLeft"]]
        height = head.landmarks_of(closed)[:, 1]
        gap = np.mean([height[lower] - height[upper] for upper, lower in LID_PAIRS["Left"]])
        assert gap == pytest.approx(-0.0005, abs=0.0005)
