"""A small z-buffer for triangle meshes: which triangle each pixel sees, and where on it."""

from __future__ import annotations

import numpy as np

from ..rendering.kernel_cache import kernel


@kernel(fastmath=True)
def _rasterize(points, faces, depth, face, barycentric):
    height, width = depth.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0, x1, y1, x2, y2 = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9 or points[a, 2] <= 0 or points[b, 2] <= 0 or points[c, 2] <= 0:
            continue
        inv_area = 1 / area
        # 1/z is linear in image space, so perspective-correct depth and barycentrics come from interpolating it.
        iz0, iz1, iz2 = 1 / points[a, 2], 1 / points[b, 2], 1 / points[c, 2]
        for row in range(max(int(np.floor(min(y0, y1, y2))), 0), min(int(np.ceil(max(y0, y1, y2))), height - 1) + 1):
            y = row + 0.5
            for col in range(max(int(np.floor(min(x0, x1, x2))), 0), min(int(np.ceil(max(x0, x1, x2))), width - 1) + 1):
                x = col + 0.5
                w0 = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) * inv_area
                w1 = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) * inv_area
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
    return np.einsum("nk...,nk->n...", of_vertices[corners], weights)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit area-weighted vertex normals (V, 3) of a mesh (V, 3), (F, 3)."""
    corners = vertices[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], face_normals)
    return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)
