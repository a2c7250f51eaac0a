"""MakeHuman's CC0 assets (skins, hair, brows, lashes, teeth) fitted to the baked head model.

The folder is MakeHuman's own asset repository; its .mhclo files bind every asset vertex to three base-mesh vertices.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open

from ..errors import InputError
from ..headmodel.model import HEAD_MODEL_FILE

TO_CANONICAL = np.array([0.1, -0.1, -0.1], np.float32)
"""MakeHuman's decimetres (y up, z out of the face) -> canonical metres."""

NO_SKIN = ("toon", "suit")
"""Skin textures of these kinds are not skin."""

HIDES_FACE = ("bob01", "bob02", "short03")
"""Hair that covers an eye: no photo shows enough of such a face to learn from."""


@dataclass(frozen=True)
class SkinMap:
    """Where the head model's triangles lie on MakeHuman's skin textures."""

    base_vertices: np.ndarray  # (V,) index into MakeHuman's base mesh
    uv: np.ndarray  # (n, 2), v upwards
    face_uv: np.ndarray  # (F, 3)


@dataclass(frozen=True)
class Proxy:
    """A mesh that follows the head: vertex = sum of weights * anchors + offset * local size."""

    name: str
    anchors: np.ndarray  # (n, 3) head-model vertices
    weights: np.ndarray  # (n, 3)
    offsets: np.ndarray  # (n, 3) m
    size_anchors: np.ndarray  # (3, 2) head-model vertices whose distance along each axis ...
    size_metres: np.ndarray  # (3,) ... was this when the asset was made
    faces: np.ndarray  # (F, 3)
    uv: np.ndarray  # (m, 2)
    face_uv: np.ndarray  # (F, 3)
    texture: np.ndarray  # (H, W, 4) uint8 sRGB + alpha

    def fit(self, vertices: np.ndarray) -> np.ndarray:
        """Vertices (n, 3) m of the asset on a head with vertices (V, 3)."""
        axis = np.arange(3)
        ends = vertices[self.size_anchors]  # (3, 2, 3)
        size = np.abs(ends[axis, 0, axis] - ends[axis, 1, axis]) / self.size_metres
        return (vertices[self.anchors] * self.weights[..., None]).sum(1) + self.offsets * size


@dataclass(frozen=True)
class Wardrobe:
    """Everything a synthetic person can wear."""

    skin_map: SkinMap
    skins: dict[str, Path]
    hair: tuple[Proxy, ...]
    brows: tuple[Proxy, ...]
    lashes: tuple[Proxy, ...]
    teeth: tuple[Proxy, ...]


def load_skin_map() -> SkinMap:
    """UVs of the baked head."""
    with safe_open(str(HEAD_MODEL_FILE), "numpy") as file:
        return SkinMap(file.get_tensor("base_vertices"), file.get_tensor("uv"), file.get_tensor("face_uv"))


def load_wardrobe(folder: Path) -> Wardrobe:
    """Read MakeHuman's asset folder.

    Raises:
        InputError: it lacks skins or hair.
    """
    folder = Path(folder)
    skin_map = load_skin_map()
    head_vertex = {base: index for index, base in enumerate(skin_map.base_vertices.tolist())}

    def proxies(kind: str) -> tuple[Proxy, ...]:
        paths = sorted(path for path in (folder / kind).glob("*/*.mhclo") if path.stem not in HIDES_FACE)
        return tuple(_read_proxy(path, head_vertex) for path in paths)

    textures = (folder / "skins" / "textures").glob("*_diffuse*")
    skins = {path.stem: path for path in sorted(textures) if not any(word in path.stem for word in NO_SKIN)}
    wardrobe = Wardrobe(skin_map, skins, *(proxies(kind) for kind in ("hair", "eyebrows", "eyelashes", "teeth")))
    if not (wardrobe.skins and wardrobe.hair):
        raise InputError(f"{folder} is not MakeHuman's asset folder: no skins/textures or hair in it")
    return wardrobe


def _read_proxy(path: Path, head_vertex: dict[int, int]) -> Proxy:
    """A .mhclo binding with its .obj mesh and its texture."""
    anchors, weights, offsets = [], [], []
    size_anchors, size_metres = np.zeros((3, 2), int), np.ones(3)
    reading = False
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("x_scale", "y_scale", "z_scale"):
            axis = "xyz".index(words[0][0])
            size_anchors[axis] = head_vertex[int(words[1])], head_vertex[int(words[2])]
            size_metres[axis] = 0.1 * float(words[3])
        elif words[0] == "verts":
            reading = True
        elif reading and words[0].lstrip("-").isdigit():
            if len(words) == 1:  # sits exactly on one base vertex
                words = [words[0]] * 3 + ["1", "0", "0", "0", "0", "0"]
            anchors.append([head_vertex[int(word)] for word in words[:3]])
            weights.append([float(word) for word in words[3:6]])
            offsets.append([float(word) for word in words[6:9]])
        elif words[0] == "delete_verts":
            break
    uv, faces, face_uv = _read_obj_faces(path.with_suffix(".obj"))
    return Proxy(
        path.stem,
        np.array(anchors),
        np.array(weights, np.float32),
        np.array(offsets, np.float32) * TO_CANONICAL,
        size_anchors,
        size_metres.astype(np.float32),
        faces,
        uv,
        face_uv,
        _read_texture(path),
    )


def _read_obj_faces(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """UVs (m, 2), triangles (F, 3) and their UV indices (F, 3) of an .obj; its vertices come from the binding."""
    uv, faces, face_uv = [], [], []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if words and words[0] == "vt":
            uv.append([float(word) for word in words[1:3]])
        elif words and words[0] == "f":
            corners = [word.split("/") for word in words[1:]]
            for second in range(1, len(corners) - 1):
                chosen = (corners[0], corners[second], corners[second + 1])
                faces.append([int(corner[0]) - 1 for corner in chosen])
                face_uv.append([int(corner[1]) - 1 for corner in chosen])
    return np.array(uv, np.float32), np.array(faces, np.int32), np.array(face_uv, np.int32)


def _read_texture(path: Path) -> np.ndarray:
    """The diffuse texture (H, W, 4) uint8 named by the asset's material; teeth share one in materials/."""
    materials = [path.with_suffix(".mhmat"), *sorted((path.parents[1] / "materials").glob("*.mhmat"))]
    for material in materials:
        if not material.exists():
            continue
        for line in material.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("diffuseTexture"):
                image = material.parent / line.split(maxsplit=1)[1]
                return np.asarray(Image.open(image).convert("RGBA"))
    raise InputError(f"{path}: no material with a diffuseTexture beside it")
