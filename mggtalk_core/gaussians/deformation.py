"""Deformation: move a head's Gaussians to an expression and pose ([P_f ; P_f^s] -> [P_d ; P_d^s] in the paper).

Prior: a point follows its triangle of the head model (position by barycentric weights, covariance by the triangle's
deformation gradient) and turns about the neck by its pose weight. Per frame that is a 52 x V product, one 3x3 matrix
per triangle and a gather per point, all in one compiled pass.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ..rendering.kernel_cache import kernel
from .head import GaussianHead, covar_matrices

MAX_STRETCH = 2.2
"""A Gaussian grows at most this many times: beyond, as when lips part, stretched skin would show as streaks."""

MAX_GRADIENT = 4.0
"""Frobenius norm of (deformation gradient - identity) above which a triangle was degenerate at rest and is ignored."""


class HeadDeformer:
    """Moves one head; keeps what does not change from frame to frame. Not to be shared between threads."""

    def __init__(self, head: GaussianHead):
        self._positions = head.positions.numpy()
        self._covars = head.covars.numpy()
        self._faces = head.faces.numpy()
        self._barycentric = head.barycentric.numpy()
        self._expression_weight = head.expression_weight.numpy()
        self._pose_weight = head.pose_weight.numpy()
        self._triangles = head.triangles.numpy()
        self._vertices = head.vertices.numpy()
        self._basis = head.expression_basis.reshape(52, -1).numpy()
        self._source_expression = head.source_expression.numpy()
        self._neck = head.neck.numpy()
        self._rest_inverse = np.linalg.pinv(_triangle_frames(self._vertices, self._triangles)).astype(np.float32)
        self._gradient = np.empty_like(self._rest_inverse)
        self.means = np.empty_like(self._positions)
        self.covars = np.empty_like(self._covars)

    def deform(
        self, expression: np.ndarray, rotation: np.ndarray, translation: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means (N, 3) m and covariances (N, 6) m^2, canonical frame; valid until the next call.

        expression (52,) 0..1 is the target; rotation (3,) axis-angle rad about the neck and translation (3,) m are
        relative to rest.
        """
        change = (np.asarray(expression, np.float32) - self._source_expression) @ self._basis
        displacement = change.reshape(self._vertices.shape)
        _face_gradients(self._vertices + displacement, self._triangles, self._rest_inverse, self._gradient)
        turn = Rotation.from_rotvec(rotation).as_matrix().astype(np.float32)
        _deform_points(
            self._positions, self._covars, self._faces, self._barycentric, self._expression_weight, self._pose_weight,
            self._triangles, displacement, self._gradient, turn, self._neck, np.asarray(translation, np.float32),
            self.means, self.covars,
        )  # fmt: skip
        return self.means, self.covars


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
    gradient = torch.where(sane[:, None, None], gradient, identity)

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
    stretched = blend @ stretched @ blend.transpose(1, 2)
    return means, stretched[:, (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)]


def _triangle_frames(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Edge, edge, normal (scaled to an edge's length) as columns (F, 3, 3) of each triangle."""
    return _triangle_frames_torch(torch.from_numpy(vertices), torch.from_numpy(triangles)).numpy()


def _triangle_frames_torch(vertices: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
    a, b, c = vertices[triangles.long()].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    normal = normal / (torch.linalg.norm(normal, dim=1, keepdim=True) + 1e-12).sqrt()
    return torch.stack([b - a, c - a, normal], 2)


@kernel(fastmath=True)
def _face_gradients(vertices, triangles, rest_inverse, gradient):
    """Deformation gradient per triangle: its moved frame times the inverse of its frame at rest."""
    frame = np.empty((3, 3), np.float32)
    for f in range(triangles.shape[0]):
        a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        for i in range(3):
            frame[i, 0] = vertices[b, i] - vertices[a, i]
            frame[i, 1] = vertices[c, i] - vertices[a, i]
        nx = frame[1, 0] * frame[2, 1] - frame[2, 0] * frame[1, 1]
        ny = frame[2, 0] * frame[0, 1] - frame[0, 0] * frame[2, 1]
        nz = frame[0, 0] * frame[1, 1] - frame[1, 0] * frame[0, 1]
        scale = 1 / np.sqrt(np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-12))
        frame[0, 2], frame[1, 2], frame[2, 2] = nx * scale, ny * scale, nz * scale
        distance = np.float32(0)
        for i in range(3):
            for j in range(3):
                value = (
                    frame[i, 0] * rest_inverse[f, 0, j]
                    + frame[i, 1] * rest_inverse[f, 1, j]
                    + frame[i, 2] * rest_inverse[f, 2, j]
                )
                gradient[f, i, j] = value
                distance += (value - (1 if i == j else 0)) ** 2
        if not distance < MAX_GRADIENT**2:
            for i in range(3):
                for j in range(3):
                    gradient[f, i, j] = 1 if i == j else 0


@kernel(fastmath=True)
def _deform_points(
    positions, covars, faces, barycentric, expression_weight, pose_weight, triangles, displacement, gradient, turn,
    neck, translation, means, out_covars,
):  # fmt: skip
    M = np.empty((3, 3), np.float32)  # pose blend times local deformation
    A = np.empty((3, 3), np.float32)
    B = np.empty((3, 3), np.float32)
    S = np.empty((3, 3), np.float32)
    p = np.empty(3, np.float32)
    for n in range(positions.shape[0]):
        f = faces[n]
        w, h = expression_weight[n], pose_weight[n]
        for i in range(3):
            moved = np.float32(0)
            for k in range(3):
                moved += barycentric[n, k] * displacement[triangles[f, k], i]
            p[i] = positions[n, i] + w * moved
        for i in range(3):
            turned = neck[i] + translation[i]
            for j in range(3):
                turned += turn[i, j] * (p[j] - neck[j])
                A[i, j] = w * gradient[f, i, j] + ((1 - w) if i == j else np.float32(0))
                B[i, j] = h * turn[i, j] + ((1 - h) if i == j else np.float32(0))
            means[n, i] = (1 - h) * p[i] + h * turned
        S[0, 0], S[0, 1], S[0, 2] = covars[n, 0], covars[n, 1], covars[n, 2]
        S[1, 0], S[1, 1], S[1, 2] = covars[n, 1], covars[n, 3], covars[n, 4]
        S[2, 0], S[2, 1], S[2, 2] = covars[n, 2], covars[n, 4], covars[n, 5]
        # Growth of the covariance's trace under the local deformation, before the (nearly rigid) pose blend.
        trace = S[0, 0] + S[1, 1] + S[2, 2]
        grown = np.float32(0)
        for i in range(3):
            for j in range(3):
                row = np.float32(0)
                for k in range(3):
                    row += A[i, k] * S[k, j]
                grown += row * A[i, j]
        shrink = np.float32(1) / max(grown / max(trace, np.float32(1e-20)) / np.float32(MAX_STRETCH**2), np.float32(1))
        for i in range(3):
            for j in range(3):
                M[i, j] = B[i, 0] * A[0, j] + B[i, 1] * A[1, j] + B[i, 2] * A[2, j]
        for i in range(3):  # A is free again: A = M S
            for j in range(3):
                A[i, j] = (M[i, 0] * S[0, j] + M[i, 1] * S[1, j] + M[i, 2] * S[2, j]) * shrink
        out_covars[n, 0] = A[0, 0] * M[0, 0] + A[0, 1] * M[0, 1] + A[0, 2] * M[0, 2]
        out_covars[n, 1] = A[0, 0] * M[1, 0] + A[0, 1] * M[1, 1] + A[0, 2] * M[1, 2]
        out_covars[n, 2] = A[0, 0] * M[2, 0] + A[0, 1] * M[2, 1] + A[0, 2] * M[2, 2]
        out_covars[n, 3] = A[1, 0] * M[1, 0] + A[1, 1] * M[1, 1] + A[1, 2] * M[1, 2]
        out_covars[n, 4] = A[1, 0] * M[2, 0] + A[1, 1] * M[2, 1] + A[1, 2] * M[2, 2]
        out_covars[n, 5] = A[2, 0] * M[2, 0] + A[2, 1] * M[2, 1] + A[2, 2] * M[2, 2]
