"""Cameras: view matrices and intrinsics. OpenCV convention (x right, y down, z forward), metres and pixels."""

from __future__ import annotations

import math

import numpy as np

from ..types import Camera


def intrinsics_from_fov(fov_y: float, width: int, height: int) -> np.ndarray:
    """(3, 3) float32 pinhole K with square pixels and a centred axis; fov_y: vertical field of view, radians."""
    focal = 0.5 * height / math.tan(0.5 * fov_y)
    return np.array([[focal, 0, 0.5 * width], [0, focal, 0.5 * height], [0, 0, 1]], np.float32)


def look_at(eye: np.ndarray, target: np.ndarray, up: np.ndarray = (0.0, -1.0, 0.0)) -> np.ndarray:
    """(4, 4) float32 world -> camera: stands at `eye` (3,), looks at `target` (3,); `up` (3,) is up in the image."""
    eye, target = np.asarray(eye, float), np.asarray(target, float)
    forward = target - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, np.asarray(up, float))
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    viewmat = np.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ eye
    return viewmat.astype(np.float32)


def orbit(camera: Camera, yaw: float, pitch: float = 0.0, center: np.ndarray = (0.0, 0.0, 0.0)) -> Camera:
    """The camera carried around `center` (3,): it moves to the subject's left for yaw > 0, up for pitch > 0 (radians).

    The picture keeps its roll, distance, framing and intrinsics: only the side we look from changes. The turn is made
    about the camera's own vertical axis through `center`, then about its horizontal one.
    """
    R, t = camera.viewmat[:3, :3].astype(float), camera.viewmat[:3, 3].astype(float)
    pivot = R @ np.asarray(center, float) + t  # the centre, in camera axes
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    turn = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    viewmat = np.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = turn @ R, turn @ (t - pivot) + pivot
    return Camera(viewmat.astype(np.float32), camera.K, camera.width, camera.height)
