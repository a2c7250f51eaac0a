"""Bilateral normal integration, BiNI (Cao et al., ECCV 2022): a surface from normals that may be discontinuous.

At each pixel the surface is assumed continuous on at least one side, along columns and along rows; which side is found
by iteratively reweighted least squares. Perspective case, in log depth: with n~ = n . (u - cx, v - cy, f) the surface
satisfies n~ d(log z)/du = -nx and n~ d(log z)/dv = -ny.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import spsolve

SHARPNESS = 50.0
"""k of the paper: how decisively one side is preferred. Theirs is 2 at megapixels; small crops have small steps."""

ITERATIONS = 12
TOLERANCE = 1e-4
MIN_FACING = 0.08
"""Normals more grazing than this carry no usable slope; |n~| is kept at least this many focal lengths."""


def integrate_normals(
    normals: np.ndarray,  # (H, W, 3) unit, camera frame (z forward), facing the camera
    mask: np.ndarray,  # (H, W) bool
    K: np.ndarray,  # (3, 3) pixels
    depth: np.ndarray,  # (H, W) m, where `depth_weight` > 0
    depth_weight: np.ndarray,  # (H, W) >= 0, how strongly the surface is held to `depth`
) -> np.ndarray:
    """Depth (H, W) m whose normals are the given ones, NaN off the mask.

    `depth_weight` must be positive somewhere in every connected part of the mask: normals do not tell distance.
    """
    rows, columns = np.nonzero(mask)
    count = len(rows)
    number = np.full(mask.shape, -1)
    number[rows, columns] = np.arange(count)
    n = normals[rows, columns].astype(np.float64)
    focal = K[0, 0]
    facing = n[:, 0] * (columns + 0.5 - K[0, 2]) + n[:, 1] * (rows + 0.5 - K[1, 2]) + n[:, 2] * focal
    facing = np.where(np.abs(facing) < MIN_FACING * focal, np.copysign(MIN_FACING * focal, facing), facing)
    # Dividing by the focal length makes the equations dimensionless and of order one.
    sides = [_one_sided(number, rows, columns, step, facing / focal) for step in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    slope = np.stack([-n[:, 0], -n[:, 0], -n[:, 1], -n[:, 1]]) / focal
    anchor = depth_weight[rows, columns] / focal**2
    log_prior = np.log(np.where(anchor > 0, depth[rows, columns], 1.0))
    solution = np.where(anchor > 0, log_prior, np.average(log_prior, weights=anchor))
    weights = [np.where(inside, 0.5, 0.0) for _, inside in sides]
    energy = np.inf
    for _ in range(ITERATIONS):
        normal_matrix = sparse.diags(anchor + 1e-12)
        right = anchor * log_prior + 1e-12 * solution
        for (operator, _), weight, target in zip(sides, weights, slope):
            weighted = operator.T @ sparse.diags(weight)
            normal_matrix = normal_matrix + weighted @ operator
            right = right + weighted @ target
        solution = spsolve(normal_matrix.tocsc(), right)
        residual = [(operator @ solution - target) ** 2 * focal**2 for (operator, _), target in zip(sides, slope)]
        for first in (0, 2):
            forward, backward = residual[first], residual[first + 1]
            preferred = 1 / (1 + np.exp(np.clip(-SHARPNESS * (backward - forward), -60, 60)))
            for side, share in ((first, preferred), (first + 1, 1 - preferred)):
                weights[side] = np.where(sides[side][1], np.where(sides[side ^ 1][1], share, 1.0), 0.0)
        previous, energy = energy, sum(float((w * r).sum()) for w, r in zip(weights, residual))
        if abs(previous - energy) < TOLERANCE * max(previous, 1e-12):
            break
    result = np.full(mask.shape, np.nan, np.float32)
    result[rows, columns] = np.exp(solution)
    return result


def _one_sided(number: np.ndarray, rows, columns, step: tuple[int, int], facing: np.ndarray):
    """Operator (n, n) for facing * one-sided difference of log depth, and where (n,) that side exists.

    Backward differences are taken as z(here) - z(before), so that all sides approximate the same derivative.
    """
    height, width = number.shape
    r, c = rows + step[0], columns + step[1]
    inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
    neighbour = np.where(inside, number[r.clip(0, height - 1), c.clip(0, width - 1)], -1)
    inside &= neighbour >= 0
    here = np.flatnonzero(inside)
    sign = 1.0 if sum(step) > 0 else -1.0
    values = sign * facing[here]
    operator = sparse.csr_matrix(
        (np.concatenate([values, -values]), (np.tile(here, 2), np.concatenate([neighbour[here], here]))),
        shape=(len(rows), len(rows)),
    )
    return operator, inside
