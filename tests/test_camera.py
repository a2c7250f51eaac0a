"""Cameras: where they stand, what they see, and the frame's conventions."""

import math

import numpy as np
import pytest

from mggtalk_core.rendering.camera import intrinsics_from_fov, look_at, orbit
from mggtalk_core.types import Camera


def project(camera, point):
    x, y, z = camera.viewmat[:3, :3] @ point + camera.viewmat[:3, 3]
    u, v, w = camera.K @ (x, y, z)
    return np.array([u / w, v / w]), z


def position(camera):
    return -camera.viewmat[:3, :3].T @ camera.viewmat[:3, 3]


def front():
    return Camera(look_at((0.0, 0.0, -1.0), (0.0, 0.0, 0.0)), intrinsics_from_fov(math.radians(20), 640, 480), 640, 480)


def test_looking_at_the_face_is_the_identity_turn():
    """The canonical frame has a frontal camera's own axes: x right, y down, z forward."""
    assert np.allclose(front().viewmat, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]])


def test_field_of_view_spans_the_image_height():
    camera = front()
    edge = math.tan(math.radians(10))
    assert project(camera, (0, 0, 0))[0] == pytest.approx((320, 240))
    assert project(camera, (0, -edge, 0))[0] == pytest.approx((320, 0), abs=1e-3)  # y down: up is negative
    assert project(camera, (edge, 0, 0))[0] == pytest.approx((320 + 240, 240), abs=1e-3)


def test_look_at_puts_the_target_in_the_middle_and_up_is_up():
    camera = Camera(look_at((0.3, -0.4, -0.8), (0.1, 0.0, 0.2)), intrinsics_from_fov(0.5, 100, 100), 100, 100)
    middle, depth = project(camera, np.array([0.1, 0.0, 0.2]))
    assert middle == pytest.approx((50, 50), abs=1e-3) and depth > 0
    assert project(camera, np.array([0.1, -0.05, 0.2]))[0][1] < 50
    assert np.linalg.det(camera.viewmat[:3, :3]) == pytest.approx(1)


@pytest.mark.parametrize("yaw, pitch", [(0.5, 0.0), (0.0, 0.3), (-0.4, 0.2), (math.pi, 0.0)])
def test_orbit_keeps_distance_and_framing(yaw, pitch):
    center = np.array([0.02, 0.1, 0.05])
    start = front()
    moved = orbit(start, yaw, pitch, center)
    assert np.linalg.norm(position(moved) - center) == pytest.approx(np.linalg.norm(position(start) - center), rel=1e-5)
    assert project(moved, center)[0] == pytest.approx(project(start, center)[0], abs=1e-2)
    assert moved.K is start.K and (moved.width, moved.height) == (640, 480)


def test_orbit_directions():
    """yaw > 0 carries the camera to +x (the subject's left), pitch > 0 up (-y)."""
    assert position(orbit(front(), 0.3))[0] > 0.2
    assert position(orbit(front(), 0.0, 0.3))[1] < -0.2
    assert np.allclose(orbit(front(), 0.0).viewmat, front().viewmat)
