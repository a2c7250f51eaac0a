"""Deformation: move a head's Gaussians to an expression and pose ([P_f ; P_f^s] -> [P_d ; P_d^s] in the paper).

Prior: a point follows its triangle of the head model (position by barycentric weights, covariance by the triangle's
deformation gradient; around lips by the mean of those at its corners, for narrow triangles stretch by turns) and
turns about the neck by its pose weight, which also stretches it where that weight changes.
Per frame that is a 52 x V product, one 3x3 matrix per triangle and a gather per point, in vector code
(frame_kernels.py).
"""

from __future__ import annotations

from copy import copy

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ..headmodel.model import load_head_model
from .frame_kernels import TRIANGLE_RECORD, at_least_8, deform_points, smooth_gradients, triangle_records
from .head import GaussianHead, covar_matrices

MAX_STRETCH = 5.0
"""A Gaussian grows at most this many times: beyond, stretched skin would show as streaks; closing lids need this much
or the rows of their few pixels part into arcs."""

MAX_GRADIENT = 4.0
"""Frobenius norm of (deformation gradient - identity) above which a triangle was degenerate at rest and is ignored."""

MOVES_ALONE = 1e-3
"""Pose weights nearer to 0 or 1 than this are."""

GRADIENT_NEIGHBOURS = 8

MAX_POSE_GRADIENT = 45.0
"""Steepest change of the pose weight, 1/m: twice that of the smooth blend over the neck; steeper is a border."""


class HeadDeformer:
    """Moves one head; keeps what does not change from frame to frame.

    Not to be shared between threads: each takes its own `twin`.
    """

    def __init__(self, head: GaussianHead):
        self._count = len(head)
        self._points = tuple(
            at_least_8(tensor.numpy())
            for tensor in (
                head.positions, head.covars, head.faces, head.barycentric, head.expression_weight, head.pose_weight,
                pose_weight_gradient(head.positions, head.pose_weight),
            )
        )  # fmt: skip
        self._triangles = head.triangles.numpy()
        self._vertices = head.vertices.numpy()
        self._basis = head.expression_basis.reshape(52, -1).numpy()
        self._source_expression = head.source_expression.numpy()
        self._neck = head.neck.numpy()
        self._rest_inverse = np.linalg.pinv(_triangle_frames(self._vertices, self._triangles)).astype(np.float32)
        self._lips = load_head_model().around_lips
        used, corners = np.unique(self._triangles[self._lips], return_inverse=True)
        self._lip_corners, self._lip_vertices = corners.reshape(-1, 3), len(used)
        self._make_buffers()

    def _make_buffers(self) -> None:
        self._records = np.zeros((len(self._triangles), TRIANGLE_RECORD), np.float32)
        self._lip_sums = np.zeros((self._lip_vertices, 10), np.float32)
        self._means, self._covars = np.empty_like(self._points[0]), np.empty_like(self._points[1])

    def twin(self) -> HeadDeformer:
        """Another deformer of the same head, with its own results; everything constant is shared."""
        twin = copy(self)
        twin._make_buffers()
        return twin

    def deform(
        self, expression: np.ndarray, rotation: np.ndarray, translation: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means (N, 3) m and covariances (N, 6) m^2, canonical frame; valid until the next call.

        expression (52,) 0..1 is the target; rotation (3,) axis-angle rad about the neck and translation (3,) m are
        relative to rest.
        """
        change = (np.asarray(expression, np.float32) - self._source_expression) @ self._basis
        triangle_records(
            self._vertices, change.reshape(self._vertices.shape), self._triangles, self._rest_inverse,
            np.float32(MAX_GRADIENT), self._records,
        )  # fmt: skip
        smooth_gradients(self._lips, self._lip_corners, self._lip_sums, self._records)
        turn = Rotation.from_rotvec(rotation).as_matrix().ravel()
        pose = tuple(np.float32(value) for value in (*turn, *self._neck, *translation, MAX_STRETCH**2))
        deform_points(*self._points, self._records, pose, self._means, self._covars)
        return self._means[: self._count], self._covars[: self._count]


def deform(
    head: GaussianHead, expression: np.ndarray, rotation: np.ndarray, translation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`HeadDeformer.deform` for a single frame: means (N, 3) m, covariances (N, 6) m^2."""
    return HeadDeformer(head).deform(expression, rotation, translation)


def deform_torch(
    head: GaussianHead,
    expression: torch.Tensor,  # (52,)
    rotation: torch.Tensor,  # (3,) rad
    translation: torch.Tensor,  # (3,) m
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in torch, differentiable and on any device; reference of the compiled pass and used in training."""
    from kornia.geometry.conversions import axis_angle_to_rotation_matrix

    displacement = torch.tensordot(expression - head.source_expression, head.expression_basis, 1)
    rest, moved = (_triangle_frames_torch(v, head.triangles) for v in (head.vertices, head.vertices + displacement))
    gradient = moved @ torch.linalg.pinv(rest)
    identity = torch.eye(3, dtype=gradient.dtype, device=gradient.device)
    sane = torch.linalg.matrix_norm(gradient - identity) < MAX_GRADIENT
    gradient = _smooth_at_lips(torch.where(sane[:, None, None], gradient, identity), sane, head.triangles)

    weight = head.expression_weight[:, None]
    corners = displacement[head.triangles[head.faces].long()]
    positions = head.positions + weight * (corners * head.barycentric[..., None]).sum(1)
    local = identity + weight[..., None] * (gradient[head.faces.long()] - identity)
    covars = covar_matrices(head.covars)
    stretched = local @ covars @ local.transpose(1, 2)
    trace = covars.diagonal(dim1=1, dim2=2).sum(1)
    growth = stretched.diagonal(dim1=1, dim2=2).sum(1) / trace.clamp_min(1e-20)
    stretched = stretched / (growth / MAX_STRETCH**2).clamp_min(1)[:, None, None]

    turn = axis_angle_to_rotation_matrix(rotation[None])[0]
    pose = head.pose_weight[:, None]
    turned = (positions - head.neck) @ turn.T + head.neck + translation
    means = (1 - pose) * positions + pose * turned
    blend = (1 - pose)[..., None] * identity + pose[..., None] * turn
    gradient = pose_weight_gradient(head.positions, head.pose_weight)
    blend = blend + (turned - positions)[..., None] * gradient[:, None]
    stretched = blend @ stretched @ blend.transpose(1, 2)
    return means, stretched[:, (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)]


def _smooth_at_lips(gradient: torch.Tensor, sane: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
    """Gradients (F, 3, 3) with those around lips replaced by the means of the sane (F,) ones around their corners."""
    lips = torch.from_numpy(load_head_model().around_lips).to(gradient.device)
    used, corners = torch.unique(triangles[lips], return_inverse=True)
    trusted = sane[lips, None, None].to(gradient).expand(-1, 3, 1).flatten(0, 1)
    count = torch.zeros(len(used), 1, 1).to(gradient).index_add(0, corners.flatten(), trusted[..., None])
    identity = torch.eye(3, dtype=gradient.dtype, device=gradient.device)
    change = (gradient[lips] - identity)[:, None].expand(-1, 3, -1, -1).flatten(0, 1)
    sums = torch.zeros(len(used), 3, 3).to(gradient).index_add(0, corners.flatten(), change)
    means = sums / count.clamp_min(1)
    return gradient.index_put((lips,), identity + means[corners].mean(1))


def pose_weight_gradient(positions: torch.Tensor, pose_weight: torch.Tensor) -> torch.Tensor:
    """How the pose weight (N,) changes along the surface, (N, 3) 1/m, by a plane through each point's neighbours.

    0 where it is 0 or 1, on the head and deep in the torso.
    """
    gradient = torch.zeros_like(positions)
    between = ((pose_weight > MOVES_ALONE) & (pose_weight < 1 - MOVES_ALONE)).nonzero()[:, 0]
    if len(between) <= GRADIENT_NEIGHBOURS:
        return gradient
    places, weights = positions[between].detach().cpu().numpy(), pose_weight[between].cpu().numpy()
    _, near = cKDTree(places).query(places, k=GRADIENT_NEIGHBOURS + 1, workers=-1)
    offsets = places[near] - places[near].mean(1, keepdims=True)
    changes = weights[near] - weights[near].mean(1, keepdims=True)
    square = np.einsum("nki,nkj->nij", offsets, offsets)
    # Neighbours lie on a surface: the ridge leaves the direction across it at no change.
    square += (0.01 * np.trace(square, axis1=1, axis2=2) + 1e-12)[:, None, None] * np.eye(3, dtype=np.float32)
    fitted = np.linalg.solve(square, np.einsum("nki,nk->ni", offsets, changes)[..., None])[..., 0]
    steepness = np.linalg.norm(fitted, axis=1, keepdims=True)
    fitted *= np.minimum(1, MAX_POSE_GRADIENT / np.maximum(steepness, 1e-6))
    gradient[between] = torch.from_numpy(fitted).to(gradient)
    return gradient


def _triangle_frames(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Edge, edge, normal (scaled to an edge's length) as columns (F, 3, 3) of each triangle."""
    return _triangle_frames_torch(torch.from_numpy(vertices), torch.from_numpy(triangles)).numpy()


def _triangle_frames_torch(vertices: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
    a, b, c = vertices[triangles.long()].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    normal = normal / (torch.linalg.norm(normal, dim=1, keepdim=True) + 1e-12).sqrt()
    return torch.stack([b - a, c - a, normal], 2)
