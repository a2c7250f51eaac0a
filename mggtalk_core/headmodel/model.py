"""The baked head model: mean shape, identity basis, 52 ARKit actions, topology and landmark correspondence.

The file is written once by `tools/bake_head_model.py` from CC0 data; nothing here knows how it was made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from safetensors import safe_open
from scipy.spatial import cKDTree

from .arkit import ARKIT_INDEX
from .landmarks import INNER_LIP_LOWER, INNER_LIP_RING, INNER_LIP_UPPER

HEAD_MODEL_FILE = Path(__file__).parent / "assets" / "head.safetensors"

SKIN, LEFT_EYE, RIGHT_EYE, TONGUE, UPPER_TEETH, LOWER_TEETH = range(6)
"""Values of `HeadModel.parts`. Left and right are the subject's."""

EAR_HEIGHTS, EAR_WIDTH = (-0.015, 0.06), 0.0725
"""The average head's skin between these heights (metres below the eyes), farther than this from the middle, is ear."""

MOUTH_SHAPE, MOUTH_REACH = np.array([0.8, 1.3, 1]), 0.035
"""Around the mouth is what lies nearer than this to its middle, metres; it is wider than high."""

LIP_REACH = 0.015
"""Lips, and the skin that moves much as they do, lie so near to the lips' inner edges, metres."""


@dataclass(frozen=True)
class HeadModel:
    """Linear head: vertices = mean + identity @ identity_basis + expression @ expression_basis (canonical metres)."""

    mean: np.ndarray  # (V, 3) float32 m
    identity_basis: np.ndarray  # (I, V, 3) float32 m per standard deviation
    expression_basis: np.ndarray  # (52, V, 3) float32 m, ARKit order
    faces: np.ndarray  # (F, 3) int32
    parts: np.ndarray  # (F,) uint8, SKIN .. LOWER_TEETH
    mouth_interior: np.ndarray  # (F,) bool, skin triangles of the mouth cavity, never seen with the mouth closed
    mirror_vertices: np.ndarray  # (V,) int32, the vertex on the other side
    mirror_faces: np.ndarray  # (F,) int32, the triangle on the other side
    landmark_faces: np.ndarray  # (478,) int32, MediaPipe landmark -> triangle
    landmark_barycentric: np.ndarray  # (478, 3) float32
    landmark_spread: np.ndarray  # (478,) float32, uncertainty of that correspondence in inter-ocular distances
    neck: np.ndarray  # (3,) float32 m, the joint the head turns about

    def shape(self, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """Vertices (V, 3) in canonical metres for identity (I,) and expression (52,)."""
        return (
            self.mean
            + np.tensordot(identity, self.identity_basis, 1)
            + np.tensordot(expression, self.expression_basis, 1)
        ).astype(np.float32)

    def landmarks_of(self, field: np.ndarray) -> np.ndarray:
        """A per-vertex field (..., V, C) at the 478 landmarks (..., 478, C)."""
        corners = field[..., self.faces[self.landmark_faces], :]
        return (corners * self.landmark_barycentric[..., None]).sum(-2)

    def mouth_centre(self, vertices: np.ndarray) -> np.ndarray:
        """Mean of the inner lip contour (3,) m of a head's vertices (V, 3)."""
        return self.landmarks_of(vertices)[list(INNER_LIP_RING)].mean(0)

    def around_mouth(self, positions: np.ndarray, vertices: np.ndarray) -> np.ndarray:
        """Mask (n,) of positions (n, 3) m around the mouth of a head with vertices (V, 3)."""
        return np.linalg.norm((positions - self.mouth_centre(vertices)) * MOUTH_SHAPE, axis=1) < MOUTH_REACH

    def mirror_landmarks(self) -> np.ndarray:
        """For each of the 478 landmarks (478,) the one on the other side."""
        mean = self.landmarks_of(self.mean)
        return cKDTree(mean).query(mean * [-1, 1, 1])[1]

    @property
    def ears(self) -> np.ndarray:
        """Mask (V,) of the ears' vertices: skin farther to the side than the skull, at their height."""
        low, high = EAR_HEIGHTS
        x, y = self.mean[:, 0], self.mean[:, 1]
        return (np.abs(x) > EAR_WIDTH) & (y > low) & (y < high)

    @property
    def outer_skin(self) -> np.ndarray:
        """Mask (F,) of the triangles of skin and scalp: not the mouth's inside, teeth, tongue or eyeballs."""
        return (self.parts == SKIN) & ~self.mouth_interior

    @cached_property
    def below_mouth(self) -> np.ndarray:
        """Mask (F,) of the triangles of the lower lip and what is below it: those below the middle of an open mouth."""
        opened = self.mean + self.expression_basis[ARKIT_INDEX["jawOpen"]]
        marks = self.landmarks_of(opened)
        middle = 0.5 * (marks[list(INNER_LIP_UPPER)] + marks[list(INNER_LIP_LOWER)])
        centres = opened[self.faces].mean(1)
        return centres[:, 1] > np.interp(centres[:, 0], *middle[np.argsort(middle[:, 0]), :2].T)

    def beside_lips(self, reach: float) -> np.ndarray:
        """Mask (F,) of the triangles of skin within `reach` metres of the lips' inner edges, on the average head."""
        edges = self.landmarks_of(self.mean)[list(INNER_LIP_RING)]
        distance, _ = cKDTree(edges).query(self.mean[self.faces].mean(1))
        return self.outer_skin & (distance < reach)

    @cached_property
    def around_lips(self) -> np.ndarray:
        """Indices (n,) of the triangles of skin within LIP_REACH of the lips' inner edges, on the average head."""
        return np.flatnonzero(self.beside_lips(LIP_REACH))

    def part_vertices(self, part: int) -> np.ndarray:
        """Indices (n,) of the vertices that belong to one of SKIN .. LOWER_TEETH."""
        return np.unique(self.faces[self.parts == part])


@lru_cache(maxsize=1)
def load_head_model(path: Path = HEAD_MODEL_FILE) -> HeadModel:
    """The baked head model (shared, treat as read-only)."""
    with safe_open(str(path), "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys() if name in HeadModel.__annotations__}
    for name in ("mean", "identity_basis", "expression_basis"):
        arrays[name] = arrays[name].astype(np.float32)
    return HeadModel(**arrays)
