"""What happens to every Gaussian in every frame, eight at a time: follow its triangle, turn with the head, be relit.

Written with rendering/simd.py; `deformation.deform_torch` and `light.Relighter` say what is computed. Arrays are
C-contiguous float32 (faces int32) with at least 8 rows (`at_least_8`). Kernels release the GIL: frames.py runs several
frames at once.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..rendering.kernel_cache import kernel
from ..rendering.simd import WIDTH, Lanes, Rows, Simd, dot3

TRIANGLE_RECORD = 24
"""Floats per triangle: displacement of its corners (3 x 3), deformation gradient minus identity (3 x 3), whether that
was trusted (1 or 0), 5 unused.

One row holds all a Gaussian needs of its triangle: three vector loads, no further look-up of vertices."""


def at_least_8(array: np.ndarray) -> np.ndarray:
    """C-contiguous, filled up with zero rows to one vector's length."""
    missing = max(WIDTH - len(array), 0)
    return np.ascontiguousarray(np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)]))


@kernel(fastmath=True)
def triangle_records(vertices, displacement, triangles, rest_inverse, max_gradient, records):
    """Fill records (F, 24) from rest vertices (V, 3), their displacement (V, 3) and inverse rest frames (F, 3, 3).

    The gradient is the moved frame (edge, edge, normal scaled to an edge's length) times the inverse of the frame at
    rest; where it is further than `max_gradient` from the identity the triangle was degenerate, and it is ignored.
    """
    one = np.float32(1.0)
    for f in range(triangles.shape[0]):
        a, b, c = triangles[f, 0], triangles[f, 1], triangles[f, 2]
        for i in range(3):
            records[f, i], records[f, 3 + i] = displacement[a, i], displacement[b, i]
            records[f, 6 + i] = displacement[c, i]
        ux = vertices[b, 0] + displacement[b, 0] - vertices[a, 0] - displacement[a, 0]
        uy = vertices[b, 1] + displacement[b, 1] - vertices[a, 1] - displacement[a, 1]
        uz = vertices[b, 2] + displacement[b, 2] - vertices[a, 2] - displacement[a, 2]
        vx = vertices[c, 0] + displacement[c, 0] - vertices[a, 0] - displacement[a, 0]
        vy = vertices[c, 1] + displacement[c, 1] - vertices[a, 1] - displacement[a, 1]
        vz = vertices[c, 2] + displacement[c, 2] - vertices[a, 2] - displacement[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        scale = one / np.sqrt(np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-12))
        distance = np.float32(0.0)
        for j in range(3):
            r0, r1, r2 = rest_inverse[f, 0, j], rest_inverse[f, 1, j], rest_inverse[f, 2, j] * scale
            gx, gy, gz = ux * r0 + vx * r1 + nx * r2, uy * r0 + vy * r1 + ny * r2, uz * r0 + vz * r1 + nz * r2
            if j == 0:
                gx -= one
            elif j == 1:
                gy -= one
            else:
                gz -= one
            records[f, 9 + j], records[f, 12 + j], records[f, 15 + j] = gx, gy, gz
            distance += gx * gx + gy * gy + gz * gz
        records[f, 18] = one
        if not distance < max_gradient * max_gradient:
            records[f, 9:19] = 0.0


@kernel(fastmath=True)
def smooth_gradients(members, corners, sums, records):
    """Replace the gradients of some triangles by the means of those around their corners.

    members (n,) are rows of records (F, 24), corners (n, 3) the triangles' corners numbered from 0 to v, sums (v, 10)
    is overwritten.
    """
    sums[:] = 0.0
    for m in range(len(members)):
        for corner in corners[m]:
            for i in range(10):
                sums[corner, i] += records[members[m], 9 + i]
    third = np.float32(1 / 3)
    for m in range(len(members)):
        records[members[m], 9:18] = 0.0
        for corner in corners[m]:
            share = third / max(sums[corner, 9], np.float32(1.0))
            for i in range(9):
                records[members[m], 9 + i] += share * sums[corner, i]


def _times(a: list[list[Lanes]], b: list[list[Lanes]]) -> list[list[Lanes]]:
    """3x3 matrix product."""
    return [[dot3(row, [b[0][j], b[1][j], b[2][j]]) for j in range(3)] for row in a]


def _congruent(m: list[list[Lanes]], s: list[list[Lanes]]) -> list[list[Lanes]]:
    """m s m^T of a symmetric s; only the upper triangle is computed."""
    ms = _times(m, s)
    upper = {(i, j): dot3(ms[i], m[j]) for i in range(3) for j in range(i, 3)}
    return [[upper[min(i, j), max(i, j)] for j in range(3)] for i in range(3)]


@intrinsic
def _deform8(
    tyctx, i, positions, covars, faces, barycentric, expression_weight, pose_weight, pose_gradient, records, pose,
    out_means, out_covars,
):  # fmt: skip
    """Rows i .. i+7 of `deform_points`."""
    names = (
        "i positions covars faces barycentric expression_weight pose_weight pose_gradient records pose out_means "
        "out_covars"
    ).split()
    signature = types.void(
        i, positions, covars, faces, barycentric, expression_weight, pose_weight, pose_gradient, records, pose,
        out_means, out_covars,
    )  # fmt: skip

    def codegen(context, builder, signature, args):
        s = Simd(builder)
        rows = Rows(s, context, names, signature, args)
        constants = [s.f32(value) for value in cgutils.unpack_tuple(builder, rows.value["pose"])]
        turn = [constants[0:3], constants[3:6], constants[6:9]]
        neck, translation, max_growth = constants[9:12], constants[12:15], constants[15]

        triangle = rows.gather("records", "faces", TRIANGLE_RECORD)
        weight, pose = rows.fields("expression_weight", 1)[0], rows.fields("pose_weight", 1)[0]
        barycentric = rows.fields("barycentric", 3)
        moved = [dot3(barycentric, [triangle[axis], triangle[3 + axis], triangle[6 + axis]]) for axis in range(3)]
        position = [p + weight * d for p, d in zip(rows.fields("positions", 3), moved)]

        identity = [[1.0 if r == c else 0.0 for c in range(3)] for r in range(3)]
        local = [[weight * triangle[9 + 3 * r + c] + identity[r][c] for c in range(3)] for r in range(3)]
        xx, xy, xz, yy, yz, zz = rows.fields("covars", 6)
        stretched = _congruent(local, [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        grown = stretched[0][0] + stretched[1][1] + stretched[2][2]
        growth = grown / (xx + yy + zz).max(1e-20)
        shrink = (growth > max_growth).select(max_growth / growth, 1.0)

        # The head's turn, shared out by the pose weight: 1 - pose of it stays with the torso.
        still = 1.0 - pose
        from_neck = [p - n for p, n in zip(position, neck)]
        turned = [dot3(turn[axis], from_neck) + neck[axis] + translation[axis] for axis in range(3)]
        rows.store("out_means", [still * p + pose * t for p, t in zip(position, turned)])
        blend = [[pose * turn[r][c] + (still if r == c else 0.0) for c in range(3)] for r in range(3)]
        # Where neighbours turn by another share, what lies between them is drawn out or pushed together.
        gradient = rows.fields("pose_gradient", 3)
        blend = [[blend[r][c] + (turned[r] - position[r]) * gradient[c] for c in range(3)] for r in range(3)]
        final = _congruent(blend, stretched)
        rows.store("out_covars", [final[r][c] * shrink for r in range(3) for c in range(r, 3)])
        return context.get_dummy_value()

    return signature, codegen


@kernel
def deform_points(
    positions, covars, faces, barycentric, expression_weight, pose_weight, pose_gradient, records, pose, out_means,
    out_covars,
):  # fmt: skip
    """Means (N, 3) and covariances (N, 6) of the moved points.

    positions (N, 3), covars (N, 6), faces (N,) int32, barycentric (N, 3), weights (N,), pose_gradient (N, 3) 1/m,
    records (F, 24) from `triangle_records`; pose: 16 floats: turn (9, row by row), neck (3),
    translation (3), largest growth of a covariance's trace.
    """
    n = positions.shape[0]
    for start in range(0, n, WIDTH):
        _deform8(  # the last eight overlap the ones before: the same values are written twice
            min(start, n - WIDTH), positions, covars, faces, barycentric, expression_weight, pose_weight, pose_gradient,
            records, pose, out_means, out_covars,
        )  # fmt: skip


@intrinsic
def _relight8(tyctx, i, colors, normals, at_rest, pose_weight, light, out_colors):
    """Rows i .. i+7 of `relight_points`."""
    signature = types.void(i, colors, normals, at_rest, pose_weight, light, out_colors)

    def codegen(context, builder, signature, args):
        s = Simd(builder)
        rows = Rows(s, context, "i colors normals at_rest pose_weight light out_colors".split(), signature, args)
        constants = [s.f32(value) for value in cgutils.unpack_tuple(builder, rows.value["light"])]
        floor, lowest, highest = constants[27:30], constants[30], constants[31]
        x, y, z = rows.fields("normals", 3)
        basis = [x, y, z, x * y, y * z, x * z, x * x - y * y, 3.0 * z * z - 1.0]  # light.sh_basis without its 1
        pose = rows.fields("pose_weight", 1)[0]
        relit = []
        for c, (color, rest) in enumerate(zip(rows.fields("colors", 3), rows.fields("at_rest", 3))):
            shade = constants[c]
            for k, term in enumerate(basis, start=1):
                shade = shade + term * constants[3 * k + c]
            change = (shade.max(floor[c]) * rest).max(lowest).min(highest)
            relit.append((color * (1.0 + pose * (change - 1.0))).max(0.0).min(1.0))
        rows.store("out_colors", relit)
        return context.get_dummy_value()

    return signature, codegen


@kernel
def relight_points(colors, normals, at_rest, pose_weight, light, out_colors):
    """Colours (N, 3) under a turned light.

    colors, normals, at_rest (N, 3), pose_weight (N,); light: 32 floats: coefficients (9, 3) row by row, the darkest
    light per colour (3), smallest and largest change.
    """
    n = colors.shape[0]
    for start in range(0, n, WIDTH):
        _relight8(min(start, n - WIDTH), colors, normals, at_rest, pose_weight, light, out_colors)


@kernel
def turn_points(colors, points, changes, normals, pose_weight, before, none, whole):
    """Add to colours (N, 3), in place, the changes (n, 3) of some points (n,), as far as these have turned.

    normals (n, 3), pose_weight (n,); `before` (3,) is what the way to the camera gains in the head's frame; below a
    cosine gained of `none` nothing is added, above `whole` all.
    """
    for i in range(len(points)):
        gain = normals[i, 0] * before[0] + normals[i, 1] * before[1] + normals[i, 2] * before[2]
        share = min((pose_weight[i] * gain - none) / (whole - none), np.float32(1))
        if share > 0:
            amount = share * share * (3 - 2 * share)
            for c in range(3):
                turned = colors[points[i], c] + amount * changes[i, c]
                colors[points[i], c] = min(max(turned, np.float32(0)), np.float32(1))
