"""Cameras for the renderer: paths around the head, and ComfyUI's camera info."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from ..mggtalk_core.rendering.camera import look_at, orbit
from ..mggtalk_core.types import Camera

HEAD_CENTRE = np.array([0.0, 0.02, 0.09])  # m, canonical frame: between the ears, a little below the eyes


@dataclass(frozen=True)
class CameraPath:
    """Where a camera goes around the head, as keys over time relative to the photo's camera."""

    times: np.ndarray  # (K,) s, increasing
    yaw: np.ndarray  # (K,) degrees to the right of the photo's camera
    pitch: np.ndarray  # (K,) degrees above it
    distance: np.ndarray  # (K,) times the photo's distance
    repeat: bool  # start again after the last key

    def cameras(self, base: Camera, times: np.ndarray) -> list[Camera]:
        """The camera at each of the times (T,) s, for a head photographed by `base`."""
        if self.repeat:
            times = np.mod(times, self.times[-1])
        curves = [np.interp(times, self.times, curve) for curve in (self.yaw, self.pitch, self.distance)]
        return [around_head(base, yaw, pitch, distance) for yaw, pitch, distance in zip(*curves)]


def around_head(base: Camera, yaw: float, pitch: float, distance: float = 1.0) -> Camera:
    """`base` moved around the head: `yaw` degrees to its right, `pitch` degrees up, `distance` times as far."""
    moved = orbit(base, np.radians(yaw), np.radians(pitch), HEAD_CENTRE)
    centre = moved.viewmat[:3, :3] @ HEAD_CENTRE + moved.viewmat[:3, 3]
    viewmat = moved.viewmat.copy()
    viewmat[:3, 3] += (distance - 1) * centre
    return Camera(viewmat, base.K, base.width, base.height)


def from_camera_info(info: dict, width: int, height: int) -> Camera:
    """ComfyUI's camera info (y up, looks along -z) as a pinhole camera of the canonical frame (y down, z forward).

    As in RenderSplat the field of view belongs to the shorter side. Orthographic cameras become perspective ones.
    """
    flip = np.diag([1.0, -1.0, -1.0])  # viewer world <-> canonical frame
    position = flip @ _vector(info["position"])
    if info.get("quaternion"):
        q = info["quaternion"]
        right, up, back = (flip @ Rotation.from_quat([q["x"], q["y"], q["z"], q["w"]]).as_matrix()).T
        viewmat = np.eye(4, dtype=np.float32)
        viewmat[:3, :3] = [right, -up, -back]
        viewmat[:3, 3] = -viewmat[:3, :3] @ position
    else:
        viewmat = look_at(position, flip @ _vector(info["target"]))
    focal = min(width, height) / 2 / np.tan(np.radians(info.get("fov") or 35.0) / 2) * (info.get("zoom") or 1.0)
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], np.float32)
    return Camera(viewmat, K, width, height)


def to_camera_info(camera: Camera) -> dict:
    """A camera of the canonical frame as ComfyUI's camera info, aimed at the head."""
    flip = np.diag([1.0, -1.0, -1.0])
    rotation = camera.viewmat[:3, :3].astype(np.float64)
    position = flip @ (-rotation.T @ camera.viewmat[:3, 3])
    axes = flip @ np.stack([rotation[0], -rotation[1], -rotation[2]], axis=1)
    x, y, z, w = Rotation.from_matrix(axes).as_quat()
    fov = 2 * np.degrees(np.arctan(min(camera.width / camera.K[0, 0], camera.height / camera.K[1, 1]) / 2))
    return {
        "position": _named(position),
        "target": _named(flip @ HEAD_CENTRE),
        "quaternion": {**_named((x, y, z)), "w": float(w)},
        "fov": float(fov),
        "zoom": 1.0,
        "cameraType": "perspective",
    }


def _vector(point: dict) -> np.ndarray:
    return np.array([point["x"], point["y"], point["z"]], np.float64)


def _named(vector) -> dict[str, float]:
    return {name: float(value) for name, value in zip("xyz", vector)}
