"""The reusable talking head: canonical Gaussians, what moves them, and the picture they came from."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import InputError
from ..media.files import atomic_path, require_file
from ..types import Camera, Gaussians

FORMAT_VERSION = 3

_LAYOUT = {
    "positions": ("float32", "N3"), "covars": ("float32", "N6"), "colors": ("float32", "N3"),
    "opacities": ("float32", "N"), "faces": ("int32", "N"), "barycentric": ("float32", "N3"),
    "expression_weight": ("float32", "N"), "pose_weight": ("float32", "N"), "origin": ("uint8", "N"),
    "normals": ("float32", "N3"), "turned_changes": ("float32", "N3"), "light": ("float32", "93"),
    "vertices": ("float32", "V3"), "triangles": ("int32", "F3"), "expression_basis": ("float16", "EV3"),
    "source_expression": ("float32", "E"), "neck": ("float32", "3"), "viewmat": ("float32", "44"),
    "K": ("float32", "33"), "background": ("uint8", "SS3"), "alpha": ("uint8", "SS"), "photo": ("uint8", "HW3"),
    "crop_to_photo": ("float64", "23"),
}  # fmt: skip
"""Type and shape of each tensor in a file; a letter is a size that has to be the same wherever it stands."""


@dataclass(frozen=True)
class GaussianHead:
    """G_den at rest (the photo's own expression and pose) with its binding to the head model, canonical metres."""

    positions: torch.Tensor  # (N, 3) float32 m
    covars: torch.Tensor  # (N, 6) float32 m^2: xx, xy, xz, yy, yz, zz
    colors: torch.Tensor  # (N, 3) float32 sRGB 0..1
    opacities: torch.Tensor  # (N,) float32 0..1
    faces: torch.Tensor  # (N,) int32, bound triangle
    barycentric: torch.Tensor  # (N, 3) float32
    expression_weight: torch.Tensor  # (N,) float32 0..1
    pose_weight: torch.Tensor  # (N,) float32 0..1
    origin: torch.Tensor  # (N,) uint8 VISIBLE | SYMMETRIC | INTERIOR | SUBSTITUTE | OBLIQUE | WORN
    normals: torch.Tensor  # (N, 3) float32 unit, outward
    turned_changes: torch.Tensor  # (N, 3) float32, added to the colours of what has turned to the camera
    light: torch.Tensor  # (9, 3) float32, spherical-harmonic light on the skin (gaussians/light.py)
    vertices: torch.Tensor  # (V, 3) float32 m, the person's head model at rest
    triangles: torch.Tensor  # (F, 3) int32
    expression_basis: torch.Tensor  # (52, V, 3) float32 m
    source_expression: torch.Tensor  # (52,) float32, the expression at rest
    neck: torch.Tensor  # (3,) float32 m, the joint the head turns about
    viewmat: torch.Tensor  # (4, 4) float32, the photo's camera
    K: torch.Tensor  # (3, 3) float32 pixels of the crop
    background: torch.Tensor  # (S, S, 3) uint8 sRGB, the crop without the person
    alpha: torch.Tensor  # (S, S) uint8, the person in the crop
    photo: torch.Tensor  # (H, W, 3) uint8 sRGB, the whole photo
    crop_to_photo: torch.Tensor  # (2, 3) float64, crop pixels -> photo pixels
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def crop_size(self) -> int:
        """Side of the crop the head was built from, pixels."""
        return self.background.shape[0]

    @property
    def camera(self) -> Camera:
        """The photo's camera over the crop."""
        return Camera(self.viewmat.numpy(), self.K.numpy(), self.crop_size, self.crop_size)

    def to(self, device: torch.device) -> GaussianHead:
        """The same head with every tensor on a device."""
        tensors = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "warnings"}
        return replace(self, **tensors)

    def gaussians(self) -> Gaussians:
        """The head in the photo's own expression and pose, for views from all sides, in gsplat's parametrisation."""
        from .opacities import Opacities  # imports numba, for which ComfyUI does not wait as it starts

        opacities = torch.from_numpy(Opacities.of(self).from_all_sides(self.source_expression.numpy()))
        return gaussians_from_covars(self.positions, self.covars, opacities, self.colors)

    def save(self, path: str | os.PathLike) -> None:
        """Write one safetensors file; the expression basis is stored as float16."""
        tensors = {f.name: getattr(self, f.name).contiguous() for f in fields(self) if f.name != "warnings"}
        tensors["expression_basis"] = tensors["expression_basis"].half()
        metadata = {"format": "mggtalk-head", "version": str(FORMAT_VERSION), "warnings": json.dumps(self.warnings)}
        with atomic_path(path, (".safetensors",)) as temporary:
            save_file(tensors, temporary, metadata)

    @staticmethod
    def load(path: str | os.PathLike) -> GaussianHead:
        """Read a file written by `save`.

        Raises:
            InputError: not a head file, or of another format version.
        """
        path = require_file(path, "head")
        try:
            with safe_open(str(path), "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != "mggtalk-head":
                    raise InputError(f"{path} is not a saved MGGTalk head; expected a file made by Save Head")
                if metadata.get("version") != str(FORMAT_VERSION):
                    raise InputError(
                        f"{path} has head format {metadata.get('version')}, expected {FORMAT_VERSION}; "
                        "build the head from its photo again"
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError) as error:
            raise InputError(f"cannot read head file {path}: {error}") from error
        missing = {f.name for f in fields(GaussianHead)} - {"warnings"} - tensors.keys()
        if missing:
            raise InputError(f"{path} is not a complete MGGTalk head; it lacks {', '.join(sorted(missing))}")
        tensors = {name: tensors[name] for name in _LAYOUT}
        _check_layout(path, tensors)
        tensors["expression_basis"] = tensors["expression_basis"].float()
        return GaussianHead(**tensors, warnings=_warnings_of(metadata))

    def without(self, origin: int) -> GaussianHead:
        """The head without the points of one origin (for ablations)."""
        keep = self.origin != origin
        per_point = ("positions", "covars", "colors", "opacities", "faces", "barycentric", "expression_weight",
                     "pose_weight", "origin", "normals", "turned_changes")  # fmt: skip
        return replace(self, **{name: getattr(self, name)[keep] for name in per_point})


def _check_layout(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Refuses tensors that would make the renderer read outside of them or draw nothing.

    Raises:
        InputError: a wrong type or shape, an index out of range, or NaN.
    """
    sizes = {"E": 52}
    for name, (kind, shape) in _LAYOUT.items():
        tensor = tensors[name]
        if len(tensor) and len(shape) == tensor.ndim:
            expected = [int(s) if s.isdecimal() else sizes.setdefault(s, n) for s, n in zip(shape, tensor.shape)]
        else:
            expected = None
        if expected != list(tensor.shape) or tensor.dtype != getattr(torch, kind):
            raise InputError(
                f"{path}: {name} is {str(tensor.dtype)[6:]} {tuple(tensor.shape)}, expected {kind} {tuple(shape)}; "
                "build the head from its photo again"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{path}: {name} has NaN or infinite values; build the head from its photo again")
    for name, limit in (("faces", sizes["F"]), ("triangles", sizes["V"])):
        if tensors[name].min() < 0 or tensors[name].max() >= limit:
            raise InputError(f"{path}: {name} has an index outside 0..{limit - 1}; build the head from its photo again")


def _warnings_of(metadata: dict[str, str]) -> tuple[str, ...]:
    """The warnings stored with a head; none when they are unreadable, since nothing depends on them."""
    try:
        return tuple(map(str, json.loads(metadata.get("warnings", "[]"))))
    except (ValueError, TypeError):
        return ()


def covars_from_axes(axes: np.ndarray) -> np.ndarray:
    """Covariances (N, 6) xx, xy, xz, yy, yz, zz of surfels with half axes (N, 3, 3) in rows."""
    pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    products = [sum(axes[:, axis, a] * axes[:, axis, b] for axis in range(3)) for a, b in pairs]
    return np.stack(products, 1).astype(np.float32)


def covar_matrices(covars: torch.Tensor) -> torch.Tensor:
    """Covariances (N, 6) xx, xy, xz, yy, yz, zz as symmetric matrices (N, 3, 3)."""
    return covars[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)


def gaussians_from_covars(
    means: torch.Tensor, covars: torch.Tensor, opacities: torch.Tensor, colors: torch.Tensor
) -> Gaussians:
    """Gaussians with covariances (N, 6) as scales (in no order) and wxyz quaternions, by eigenvectors."""
    from kornia.geometry.conversions import rotation_matrix_to_quaternion

    # float64: the thin axis of a surfel is 1e-3 of its others, 1e-6 in the covariance, next to float32's rounding.
    values, vectors = torch.linalg.eigh(covar_matrices(covars).double())
    vectors[:, :, 0] *= torch.linalg.det(vectors).sign()[:, None]  # eigenvectors may be a reflection
    return Gaussians(
        means=means,
        quats=rotation_matrix_to_quaternion(vectors).float(),
        scales=values.clamp_min(1e-14).sqrt().float(),
        opacities=opacities,
        colors=colors,
    )
