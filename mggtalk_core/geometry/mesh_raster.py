"""A small z-buffer for triangle meshes: which triangle each pixel sees, and where on it."""

from __future__ import annotations

import numpy as np

from ..rendering.kernel_cache import kernel


@kernel(fastmath=True)
def _rasterize(points, faces, depth, face, barycentric):
    height, width = depth.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if points[a, 2] <= 0 or points[b, 2] <= 0 or points[c, 2] <= 0:
            continue
        # From here on in pixel centres: that of row 0, column 0 lies at the origin.
        x0, y0 = np.float64(points[a, 0]) - 0.5, np.float64(points[a, 1]) - 0.5
        x1, y1 = np.float64(points[b, 0]) - 0.5, np.float64(points[b, 1]) - 0.5
        x2, y2 = np.float64(points[c, 0]) - 0.5, np.float64(points[c, 1]) - 0.5
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        first_row, last_row = max(np.ceil(min(y0, y1, y2)), 0.0), min(np.floor(max(y0, y1, y2)), height - 1.0)
        first, last = max(np.ceil(min(x0, x1, x2)), 0.0), min(np.floor(max(x0, x1, x2)), width - 1.0)
        if abs(area) < 1e-9 or first_row > last_row or first > last:
            continue
        inv_area = 1 / area
        step0, step1 = (y1 - y2) * inv_area, (y2 - y0) * inv_area
        # 1/z is linear in image space, so perspective-correct depth and barycentrics come from interpolating it.
        iz0, iz1, iz2 = 1 / np.float64(points[a, 2]), 1 / np.float64(points[b, 2]), 1 / np.float64(points[c, 2])
        for row in range(int(first_row), int(last_row) + 1):
            start0 = (x1 * (y2 - row) - x2 * (y1 - row)) * inv_area
            start1 = (x2 * (y0 - row) - x0 * (y2 - row)) * inv_area
            for col in range(int(first), int(last) + 1):
                w0, w1 = start0 + col * step0, start1 + col * step1
                w2 = 1 - w0 - w1
                # A hair of tolerance, so that no pixel falls between two triangles that share an edge.
                if w0 < -1e-6 or w1 < -1e-6 or w2 < -1e-6:
                    continue
                z = 1 / (w0 * iz0 + w1 * iz1 + w2 * iz2)
                if z < depth[row, col]:
                    depth[row, col] = z
                    face[row, col] = f
                    barycentric[row, col, 0] = w0 * iz0 * z
                    barycentric[row, col, 1] = w1 * iz1 * z
                    barycentric[row, col, 2] = w2 * iz2 * z


def rasterize_mesh(
    points: np.ndarray,  # (V, 3) column px, row px, depth m along the camera's z
    faces: np.ndarray,  # (F, 3) int
    height: int,
    width: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest triangle per pixel: depth (H, W) m (inf where empty), face (H, W) int32 (-1), barycentric (H, W, 3)."""
    depth = np.full((height, width), np.inf, np.float32)
    face = np.full((height, width), -1, np.int32)
    barycentric = np.zeros((height, width, 3), np.float32)
    _rasterize(
        np.ascontiguousarray(points, np.float32), np.ascontiguousarray(faces, np.int32), depth, face, barycentric
    )
    return depth, face, barycentric


def at_points(of_vertices: np.ndarray, corners: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values (N, C) or (N,), those of a mesh's vertices being (V, C) or (V,), at points in its triangles.

    `corners` (N, 3) are the triangles' vertices, `weights` (N, 3) the points' barycentric coordinates.
    """
    values = of_vertices.reshape(len(of_vertices), -1)
    result = np.empty((len(corners), values.shape[1]), np.result_type(of_vertices, weights))
    _weigh(values, corners, weights, result)
    return result.reshape(len(corners), *of_vertices.shape[1:])


@kernel
def _weigh(values, corners, weights, result):
    """`at_points`, one point after the other."""
    for point in range(len(corners)):
        a, b, c = corners[point, 0], corners[point, 1], corners[point, 2]
        for column in range(values.shape[1]):
            result[point, column] = (
                values[a, column] * weights[point, 0]
                + values[b, column] * weights[point, 1]
                + values[c, column] * weights[point, 2]
            )


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit area-weighted vertex normals (V, 3) of a mesh (V, 3), (F, 3)."""
    corners = vertices[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], face_normals)
    return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)
