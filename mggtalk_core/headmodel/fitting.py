"""Fit the head model to 478 tracked landmarks: identity, expression and pose by Gauss-Newton."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from ..geometry.projection import projection_jacobian, rotation_derivative
from ..types import Camera, HeadFit
from .landmarks import (
    EYES,
    INNER_LIP_LOWER,
    INNER_LIP_UPPER,
    IRISES,
    LOWER_EDGES,
    OUTER_LIP,
    OVAL,
    UPPER_EDGES,
    inter_ocular_distance,
)
from .model import HeadModel
from .personal import personal_expression_basis

LANDMARK_SIGMA = 0.02
"""Expected landmark error in inter-ocular distances: what a residual is measured against the priors with."""

LANDMARK_CORRELATION = 0.5
"""Scale of the landmark Jacobian: 478 correlated landmarks count like about a quarter as many independent ones."""

GAP_SIGMA = 0.005
"""Expected error of the way from an edge of lips or lids to the opposite one, in inter-ocular distances: opposite
landmarks err alike, so openings are known better than places. Lips that touch are seen at once where they don't."""

POSE_ONLY_ITERATIONS = 2
"""Shape stays fixed until the pose is about right; otherwise shape explains what pose should."""


@dataclass(frozen=True)
class LandmarkModel:
    """The 478 landmarks as a linear function of shape: what fitting needs of the head model, 20x smaller."""

    neutral: np.ndarray  # (478, 3) m
    identity_basis: np.ndarray  # (I, 478, 3) m; I = 0 for a known person
    expression_basis: np.ndarray  # (52, 478, 3) m
    weights: np.ndarray  # (478,) relative trust


def generic_landmark_model(head: HeadModel) -> LandmarkModel:
    """Landmarks of an unknown person: identity is free."""
    weights = 1 / (0.03 + head.landmark_spread.clip(0, 0.12))
    weights /= np.median(weights)
    weights[list(OVAL)] = 0.25
    weights[list(OUTER_LIP)] = 1.3
    weights[list(INNER_LIP_UPPER + INNER_LIP_LOWER)] = 1.6
    weights[list(EYES)] = 1.6
    weights[list(IRISES)] = 1.6
    return LandmarkModel(
        head.landmarks_of(head.mean),
        head.landmarks_of(head.identity_basis),
        head.landmarks_of(head.expression_basis),
        weights,
    )


def personal_landmark_model(head: HeadModel, vertices: np.ndarray, expression: np.ndarray) -> LandmarkModel:
    """Landmarks of a known person, from their vertices (V, 3) that show expression (52,)."""
    basis = head.landmarks_of(personal_expression_basis(head, vertices, expression))
    neutral = head.landmarks_of(vertices) - np.tensordot(expression, basis, 1)
    return LandmarkModel(neutral, np.zeros((0, 478, 3)), basis, generic_landmark_model(head).weights)


def fit_landmarks(
    landmarks: np.ndarray,  # (478, 2) pixels
    scores: np.ndarray,  # (52,) the tracker's ARKit scores: mean of the expression prior
    model: LandmarkModel,
    K: np.ndarray,  # (3, 3) pixels
    *,
    start: HeadFit | None = None,
    iterations: int = 12,
    expression_sigma: float = 0.12,
) -> HeadFit:
    """Most probable identity, expression and pose for one set of landmarks.

    Robust Gauss-Newton on the reprojection error of landmarks and of the openings of lips and lids, with unit-normal
    identity, expression near the tracker's scores and bounded to 0..1 (active set). `start` gives pose
    and expression to begin with, as from the previous video frame.
    """
    landmarks = np.asarray(landmarks, np.float64)
    focal, centre = float(K[0, 0]), np.array([K[0, 2], K[1, 2]], np.float64)
    identities = len(model.identity_basis)
    identity_slice, expression_slice = slice(6, 6 + identities), slice(6 + identities, 6 + identities + 52)
    sigma = LANDMARK_SIGMA * inter_ocular_distance(landmarks)
    gap_sigma = GAP_SIGMA * inter_ocular_distance(landmarks)
    upper, lower = list(UPPER_EDGES), list(LOWER_EDGES)

    identity = np.zeros(identities)
    expression_prior = np.asarray(scores, np.float64)
    if start is None:
        expression = expression_prior.copy()
        rotation, translation = np.eye(3), _frontal_translation(landmarks, model, focal, centre)
    else:
        expression = start.expression.astype(np.float64)
        rotation, translation = start.rotation.astype(np.float64), start.translation.astype(np.float64)

    prior_precision = np.full(6 + identities + 52, 1e-6)
    prior_precision[identity_slice] = 1.0
    prior_precision[expression_slice] = 1 / expression_sigma**2

    for iteration in range(iterations):
        shape = _shape(model, identity, expression)
        rotated = shape @ rotation.T
        points = rotated + translation
        projected = centre + focal * points[:, :2] / points[:, 2:]
        residual = projected - landmarks
        robust = 1 / np.sqrt(1 + (np.linalg.norm(residual, axis=1) / (3 * sigma)) ** 2)
        row_weight = (LANDMARK_CORRELATION * model.weights * robust / sigma)[:, None]

        projection = projection_jacobian(points, focal)
        bases = np.concatenate([model.identity_basis, model.expression_basis]) @ rotation.T  # (I + 52, 478, 3)
        jacobian = np.concatenate(
            [
                projection @ rotation_derivative(rotated),
                projection,
                np.einsum("pij,kpj->pik", projection, bases, optimize=True),
            ],
            axis=2,
        )
        gap = residual[lower] - residual[upper]
        robust = 1 / np.sqrt(1 + (np.linalg.norm(gap, axis=1) / (3 * gap_sigma)) ** 2)
        gap_weight = (LANDMARK_CORRELATION * robust / gap_sigma)[:, None]
        rows = np.concatenate([residual * row_weight, gap * gap_weight])
        jacobian = np.concatenate(
            [jacobian * row_weight[..., None], (jacobian[lower] - jacobian[upper]) * gap_weight[..., None]]
        )
        J = jacobian.reshape(rows.size, -1)
        hessian = J.T @ J + np.diag(prior_precision)
        gradient = J.T @ rows.reshape(-1)
        gradient[identity_slice] += identity
        gradient[expression_slice] += (expression - expression_prior) / expression_sigma**2

        free = np.ones(len(gradient), bool)
        if start is None and iteration < POSE_ONLY_ITERATIONS:
            free[6:] = False
        step = _bounded_step(hessian, gradient, free, expression_slice, expression)

        rotation = Rotation.from_rotvec(step[:3]).as_matrix() @ rotation
        translation = translation + step[3:6]
        identity = identity + step[identity_slice]
        expression = np.clip(expression + step[expression_slice], 0, 1)
        if iteration > 4 and np.abs(step).max() < 1e-4:
            break

    points = _shape(model, identity, expression) @ rotation.T + translation
    projected = centre + focal * points[:, :2] / points[:, 2:]
    return HeadFit(
        identity=identity.astype(np.float32),
        expression=expression.astype(np.float32),
        rotation=rotation.astype(np.float32),
        translation=translation.astype(np.float32),
        landmarks=projected.astype(np.float32),
        error=(np.linalg.norm(projected - landmarks, axis=1) / inter_ocular_distance(landmarks)).astype(np.float32),
    )


def camera_of(fit: HeadFit, K: np.ndarray, size: int) -> Camera:
    """The camera that sees the canonical head frame as the fit does, over a (size, size) crop."""
    viewmat = np.eye(4, dtype=np.float32)
    viewmat[:3, :3], viewmat[:3, 3] = fit.rotation, fit.translation
    return Camera(viewmat, np.asarray(K, np.float32), size, size)


def _shape(model: LandmarkModel, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
    return (
        model.neutral
        + np.tensordot(identity, model.identity_basis, 1)
        + np.tensordot(expression, model.expression_basis, 1)
    )


def _frontal_translation(landmarks, model: LandmarkModel, focal: float, centre: np.ndarray) -> np.ndarray:
    """Where a frontal head with this inter-ocular distance in pixels would be."""
    metres = np.linalg.norm(model.neutral[468] - model.neutral[473])
    depth = focal * metres / inter_ocular_distance(landmarks)
    eyes = 0.5 * (landmarks[468] + landmarks[473])
    return np.array([*(eyes - centre) * depth / focal, depth])


def _bounded_step(hessian, gradient, free, expression_slice, expression) -> np.ndarray:
    """Newton step that keeps expression within 0..1: coefficients that would leave are pinned to their bound."""
    step = np.zeros(len(gradient))
    for _ in range(4):
        step[free] = np.linalg.solve(
            hessian[np.ix_(free, free)], -gradient[free] - hessian[np.ix_(free, ~free)] @ step[~free]
        )
        target = expression + step[expression_slice]
        leaving = np.zeros(len(gradient), bool)
        leaving[expression_slice] = (target < -1e-3) | (target > 1 + 1e-3)
        leaving &= free
        if not leaving.any():
            break
        step[leaving] = (np.clip(target, 0, 1) - expression)[leaving[expression_slice]]
        free = free & ~leaving
    return step
