"""The CPU rasterizer's compiled kernels: project -> sort_and_bin -> blend, and the way back.

All kernels are `nogil` and touch only the arrays they are given, so that plain Python threads run them side by side
(numba's own threading layer aborts the process when two threads enter it at once; never `parallel=True` here).

Buffers (N Gaussians, H x W pixels, P planes = colour channels, plus one for depth when it is wanted):

    records  (N, 16 or 24) float32, one or two cache lines per Gaussian, written by `project`, read at random by `blend`
             0 u, 1 v            centre, pixels
             2 A, 3 B, 4 C       log2(alpha) = log2_opacity + A dx^2 + B dx dy + C dy^2   (negative conic times log2 e)
             5 log2_opacity
             6, 7                int16 x0, x1, y0, y1: the same box as in `boxes`
             8 q                 2**(2 C), the factor between the alpha ratios of successive rows; negative: steep
             9 ...               the P planes (colours, then depth)
    boxes    (N, 4) int16        inclusive pixel box x0, x1, y0, y1 outside which alpha < 1/255; x0 > x1 = not drawn
    depths   (N,) float32        camera z, metres; as bits they sort like integers because z > 0
    counts   (tiles + 1,) int32  after binning: end of each tile's run in `lists` (its start is the previous end)
    lists    (pairs,) int32      Gaussian indices, tile after tile, front to back inside a tile

Folding the opacity into the exponent makes alpha one exp2 with no product after it, and even that is rare: down a
column of pixels the exponent is a parabola, so alpha follows from the row above by alpha *= r, r *= q with constant q.
Two exp2 start each run of 16 rows, or of 5 where the parabola is steep; rounding grows with the square of the run's
length, and at 16 rows it is still below what float32 pixel coordinates cost.

A tile is 64 x 32 pixels; its transmittance T and planes stay in a small buffer that fits the first-level cache (37 KB
for video), one row after another: [T | plane 0 | plane 1 ...], `ROW_STRIDE` floats each (64 + 8, as 8-pixel groups
start at any column). A splat across a tile's side is visited twice and its rows split into two groups: hence the width.

Semantics are gsplat's "classic" mode: 0.3 px^2 added to the projected covariance, alpha capped at 0.999, alpha < 1/255
skipped, and a pixel stops before the Gaussian that would bring T to 1e-4 or less. A stopped pixel is marked by T's
sign bit: T * (1 - alpha) stays negative, so the one comparison T * (1 - alpha) > 1e-4 answers "still alive" too.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .kernel_cache import kernel
from .semantics import ALPHA_MAX, ALPHA_MIN, EPS2D, EXTENT, MIN_QUAT2, NEAR, T_MIN
from .simd import F32, I16, I32, I64, U8, VF, VI, WIDTH, Lanes, Rows, Simd, array_pointer, const_i64, dot3

TILE_W_SHIFT, TILE_H_SHIFT = 6, 5
TILE_W, TILE_H = 1 << TILE_W_SHIFT, 1 << TILE_H_SHIFT
ROW_STRIDE = TILE_W + WIDTH
GEOMETRY = 9  # floats of a record before its planes
RUN = 16  # rows between two exact evaluations of alpha
STEEP_RUN = 5  # the same for steep parabolas
MAX_BEND = 56.0  # log2: |C| rows^2 above which a run must be short; 5 rows never exceed it, since |C| <= 2.41
FLOOR = -106.0  # log2: no column that will be visible within a run starts lower: -(sqrt(MAX_BEND) + sqrt(8))^2
RADIX_BITS = 11
RADIX_MASK = (1 << RADIX_BITS) - 1
CHECK_EVERY = 128  # Gaussians blended between two looks at whether the whole tile has stopped

LOG2_E = 1.4426950408889634
LOG2_255 = 7.994353436858858


def record_length(planes: int) -> int:
    """Floats per record: 9 of geometry, then the planes, in whole 8-lane vectors."""
    return -(-(GEOMETRY + planes) // WIDTH) * WIDTH


def tile_buffer_size(planes: int) -> int:
    """Floats of one tile's buffer: T and the planes, and one more for the backward pass."""
    return TILE_H * ROW_STRIDE * (planes + 2) + WIDTH


# ---- projection ------------------------------------------------------------------------------------------------------


def _rotation(quats: list[Lanes]) -> list[list[Lanes]]:
    """Rotation matrix of wxyz quaternions of any length; a zero quaternion means no rotation."""
    w, x, y, z = quats
    n = 2.0 / (w * w + x * x + y * y + z * z).max(MIN_QUAT2)
    xx, yy, zz, xy, xz, yz = x * x * n, y * y * n, z * z * n, x * y * n, x * z * n, y * z * n
    wx, wy, wz = w * x * n, w * y * n, w * z * n
    return [
        [1.0 - yy - zz, xy - wz, xz + wy],
        [xy + wz, 1.0 - xx - zz, yz - wx],
        [xz - wy, yz + wx, 1.0 - xx - yy],
    ]


def _covariance(quats: list[Lanes], scales: list[Lanes]) -> list[Lanes]:
    """World covariance xx, xy, xz, yy, yz, zz of R(q) diag(scale^2) R(q)^T."""
    m = [[r * scale for r, scale in zip(row, scales)] for row in _rotation(quats)]
    return [dot3(m[a], m[b]) for a, b in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))]


class _View:
    """Eight Gaussians seen by the camera: everything up to the projected covariance (a b; b c) and its determinant."""

    def __init__(self, s: Simd, mean: list[Lanes], cov: list[Lanes], camera: ir.Value):
        cam = [s.f32(value) for value in cgutils.unpack_tuple(s.builder, camera)]
        self.rotation = rotation = [cam[0:3], cam[4:7], cam[8:11]]
        self.fx, self.fy, cx, cy, x_min, x_max, y_min, y_max, self.width, self.height = cam[12:]
        x, y, self.z = [dot3(row, mean) + t for row, t in zip(rotation, (cam[3], cam[7], cam[11]))]
        self.iz = iz = 1.0 / self.z
        self.x_z, self.y_z = x * iz, y * iz
        self.u, self.v = self.fx * self.x_z + cx, self.fy * self.y_z + cy
        # Rows p = du/dmean, q = dv/dmean of the perspective Jacobian J in world axes; (a b; b c) = J cov J^T + 0.3 I.
        self.tx, self.ty = self.x_z.max(x_min).min(x_max), self.y_z.max(y_min).min(y_max)
        self.jx, self.jy = self.fx * iz, self.fy * iz
        self.p = [self.jx * r0 - self.jx * self.tx * r2 for r0, r2 in zip(rotation[0], rotation[2])]
        self.q = [self.jy * r1 - self.jy * self.ty * r2 for r1, r2 in zip(rotation[1], rotation[2])]
        xx, xy, xz, yy, yz, zz = cov
        self.cov_p = [dot3(row, self.p) for row in ((xx, xy, xz), (xy, yy, yz), (xz, yz, zz))]
        self.cov_q = [dot3(row, self.q) for row in ((xx, xy, xz), (xy, yy, yz), (xz, yz, zz))]
        self.a, self.b = dot3(self.p, self.cov_p) + EPS2D, dot3(self.q, self.cov_p)
        self.c = dot3(self.q, self.cov_q) + EPS2D
        self.det = self.a * self.c - self.b * self.b
        self.inv_det = 1.0 / self.det


@intrinsic
def _project8(
    tyctx, i, means, covars, quats, scales, opacities, colors, channels, planes, camera, records, boxes, depths, extent
):
    """Project Gaussians i .. i+7; see `project` for the arguments."""
    signature = types.void(
        i, means, covars, quats, scales, opacities, colors, channels, planes, camera, records, boxes, depths, extent
    )
    names = "i means covars quats scales opacities colors channels planes camera records boxes depths extent".split()
    n_colors, n_planes = channels.count, planes.count

    def codegen(context, builder, signature, args):
        s = Simd(builder)
        rows = Rows(s, context, names, signature, args)
        at, fields = rows.at, rows.fields
        mean, color, opacity = fields("means", 3), fields("colors", n_colors), s.load(at("opacities", 1))
        if isinstance(covars, types.NoneType):
            cov = _covariance(fields("quats", 4), fields("scales", 3))
        else:
            cov = fields("covars", 6)

        view = _View(s, mean, cov, rows.value["camera"])
        a, b, c, u, v, z = view.a, view.b, view.c, view.u, view.v, view.z
        det, inv_det = view.det, view.inv_det
        width, height = view.width, view.height
        # alpha >= 1/255 is the ellipse d^T conic d <= 2 ln(255 opacity) =: reach, whose box is +- sqrt(reach a) by
        # +- sqrt(reach c).
        log2_opacity = s.log2(opacity.max(1e-30).min(1e30))
        reach = ((log2_opacity + LOG2_255) * (2.0 / LOG2_E)).min(EXTENT * EXTENT)
        rx, ry = s.sqrt(reach * a) + 0.01, s.sqrt(reach * c) + 0.01
        x0, x1 = s.ceil(u - rx - 0.5), s.floor(u + rx - 0.5)
        y0, y1 = s.ceil(v - ry - 0.5), s.floor(v + ry - 0.5)
        # Behind the camera, outside, NaN, infinite, degenerate: each fails one of these ordered comparisons.
        zeros = [value * 0.0 for value in mean + color + [opacity]]
        finite = zeros[0]
        for value in zeros[1:]:
            finite = finite + value
        drawn = (z > NEAR) & (opacity >= ALPHA_MIN) & (det > 0.0) & (det < 1e38) & finite.equals(0.0)
        drawn = drawn & (x0 <= x1) & (x0 < width) & (x1 >= 0.0) & (y0 <= y1) & (y0 < height) & (y1 >= 0.0)
        box = [
            s.to_int(drawn.select(edge, empty)).value
            for edge, empty in (
                (x0.max(0.0), 1.0), (x1.min(width - 1.0), 0.0), (y0.max(0.0), 1.0), (y1.min(height - 1.0), 0.0)
            )
        ]  # fmt: skip
        sixteen = s.i32(16).value
        box_x, box_y = [builder.or_(low, builder.shl(high, sixteen)) for low, high in (box[0:2], box[2:4])]

        scale = inv_det * LOG2_E
        A, B, C = c * scale * -0.5, b * scale, a * scale * -0.5
        # The steeper the parabola, the shorter its runs (`_for_each_group`); q's sign says which length.
        length = (ry + ry).min(RUN - 1.0)
        q = s.exp2(C + C)
        q = (C * length * length < -MAX_BEND).select(-q, q)
        columns = [u, v, A, B, C, log2_opacity, Lanes(s, box_x).as_float(), Lanes(s, box_y).as_float(), q]
        columns += color + [z][: n_planes - n_colors]
        packed = [column.value for column in columns + [s.f32(0.0)] * (-len(columns) % 8)]
        record = at("records", len(packed))
        for block in range(0, len(packed), 8):
            for lane, row in enumerate(s.transpose(packed[block : block + 8])):
                s.store(Lanes(s, row), builder.gep(record, [const_i64(lane * len(packed) + block)]))
        s.store_fields([box_x, box_y], at("boxes", 2, I32))
        s.store(z, at("depths", 1))
        nearest = rows.pointer("extent")
        farthest = builder.gep(nearest, [const_i64(WIDTH)])
        s.store(drawn.select(z, math.inf).min(s.load(nearest)), nearest)
        s.store(drawn.select(z, 0.0).max(s.load(farthest)), farthest)
        return context.get_dummy_value()

    return signature, codegen


@kernel
def project(
    first, last, means, covars, quats, scales, opacities, colors, channels, planes, camera, records, boxes, depths,
    extent, cost,
):  # fmt: skip
    """Project Gaussians first .. last-1 into `records`, `boxes`, `depths`; add up the blending cost per tile row.

    means (N, 3), covars (N, 6) xx,xy,xz,yy,yz,zz or None with quats (N, 4) wxyz and scales (N, 3), opacities (N,),
    colors (N, C), all float32 C-contiguous, N >= 8. `channels` and `planes` are tuples of length C and P whose only
    use is to make C and P compile-time constants. camera: 22 floats: rows 0-2 of the view matrix (12), fx, fy, cx, cy,
    min and max of x/z and of y/z beyond which the Jacobian is frozen, width, height. extent (2, 8) receives the nearest
    and farthest drawn depth, lane by lane; cost (tile rows,) int64.
    """
    cost[:] = 0
    extent[0], extent[1] = np.inf, 0.0
    n = means.shape[0]
    for start in range(first, last, WIDTH):
        i = min(start, n - WIDTH)  # the last group overlaps the one before: same values written twice
        _project8(
            i, means, covars, quats, scales, opacities, colors, channels, planes, camera, records, boxes, depths, extent
        )
        if boxes[i, 0] <= boxes[i, 1]:  # one sample in eight balances the bands well enough
            groups = (boxes[i, 1] - boxes[i, 0] + WIDTH) // WIDTH
            cost[boxes[i, 2] >> TILE_H_SHIFT] += 12 + groups * (boxes[i, 3] - boxes[i, 2] + 1)


# ---- order and bins --------------------------------------------------------------------------------------------------


@kernel
def radix_pass(n, shift, entries, entries_out, starts):
    """Stable counting sort of n entries (depth key << 32 | id) by the digit of the key at `shift`.

    starts (2048,): where each digit's entries begin in `entries_out`; used up.
    """
    for j in range(n):
        entry = entries[j]
        digit = (entry >> np.uint64(32 + shift)) & RADIX_MASK
        slot = starts[digit]
        starts[digit] = slot + 1
        entries_out[slot] = entry


@kernel
def sort_and_bin(
    n, tiles_x, row0, row1, boxes, depth_bits, lowest, highest, entries_a, entries_b, digits, counts, lists
):
    """List the Gaussians that touch tile rows [row0, row1), tile by tile, front to back. -> pairs, or -needed.

    An exact least-significant-digit radix sort on the bits of the (positive) float depth, then a counting sort by tile;
    both are stable, so equal depths keep their order. One walk over the boxes counts every digit of every pass and
    every tile at once, a second one is the first pass. lowest, highest: bits of the nearest and farthest drawn depth;
    digits (3, 2048) int32. A negative result says `lists` must hold that many pairs.
    """
    top, bottom = row0 << TILE_H_SHIFT, (row1 << TILE_H_SHIFT) - 1
    tiles = tiles_x * (row1 - row0)
    counts[: tiles + 1] = 0
    span, passes = highest - lowest, 1
    while span >> (RADIX_BITS * passes):
        passes += 1
    digits[:passes] = 0
    selected = 0
    for i in range(n):
        y0, y1 = boxes[i, 2], boxes[i, 3]
        if y0 <= bottom and y1 >= top and y0 <= y1:
            selected += 1
            key = np.int64(depth_bits[i]) - lowest
            digits[0, key & RADIX_MASK] += 1
            if passes > 1:
                digits[1, (key >> RADIX_BITS) & RADIX_MASK] += 1
                if passes > 2:
                    digits[2, key >> (2 * RADIX_BITS)] += 1
            tx0, tx1 = boxes[i, 0] >> TILE_W_SHIFT, boxes[i, 1] >> TILE_W_SHIFT
            for ty in range((max(y0, top) >> TILE_H_SHIFT) - row0, (min(y1, bottom) >> TILE_H_SHIFT) - row0 + 1):
                for t in range(ty * tiles_x + tx0, ty * tiles_x + tx1 + 1):
                    counts[t] += 1
    if selected == 0:
        return 0
    pairs = 0
    for t in range(tiles):
        count = counts[t]
        counts[t] = pairs
        pairs += count
    if pairs + 8 > lists.shape[0]:  # 8: the splatting loop prefetches a little past the end
        return -pairs - 8
    for p in range(passes):
        start = 0
        for digit in range(RADIX_MASK + 1):
            count = digits[p, digit]
            digits[p, digit] = start
            start += count

    for i in range(n):
        y0, y1 = boxes[i, 2], boxes[i, 3]
        if y0 <= bottom and y1 >= top and y0 <= y1:
            key = np.int64(depth_bits[i]) - lowest
            slot = digits[0, key & RADIX_MASK]
            digits[0, key & RADIX_MASK] = slot + 1
            entries_a[slot] = np.uint64(key << 32 | i)
    if passes > 1:
        radix_pass(selected, RADIX_BITS, entries_a, entries_b, digits[1])
    if passes > 2:
        radix_pass(selected, 2 * RADIX_BITS, entries_b, entries_a, digits[2])
    entries = entries_b if passes == 2 else entries_a
    for j in range(selected):
        g = np.int64(entries[j] & np.uint64(0xFFFFFFFF))
        tx0, tx1 = boxes[g, 0] >> TILE_W_SHIFT, boxes[g, 1] >> TILE_W_SHIFT
        y0, y1 = max(boxes[g, 2], top), min(boxes[g, 3], bottom)
        for ty in range((y0 >> TILE_H_SHIFT) - row0, (y1 >> TILE_H_SHIFT) - row0 + 1):
            for t in range(ty * tiles_x + tx0, ty * tiles_x + tx1 + 1):
                slot = counts[t]
                counts[t] = slot + 1
                lists[slot] = g
    return pairs


# ---- blending --------------------------------------------------------------------------------------------------------


def _larger(builder, a, b):
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _smaller(builder, a, b):
    return builder.select(builder.icmp_signed("<", a, b), a, b)


class _Splat:
    """One Gaussian over one tile, as seen by the code generator: its record's fields, box clipped to the tile."""

    def __init__(self, s: Simd, record: ir.Value, planes: int, tile_x, tile_y, tile_w, tile_h):
        b = s.builder
        field = [b.load(b.gep(record, [const_i64(k)])) for k in range(6)]
        box = b.bitcast(b.gep(record, [const_i64(6)]), I16.as_pointer())
        x0, x1, y0, y1 = [b.sext(b.load(b.gep(box, [const_i64(k)])), I64) for k in range(4)]
        one, zero = const_i64(1), const_i64(0)
        self.x0, self.x1 = _larger(b, b.sub(x0, tile_x), zero), _smaller(b, b.sub(x1, tile_x), b.sub(tile_w, one))
        self.y0, self.y1 = _larger(b, b.sub(y0, tile_y), zero), _smaller(b, b.sub(y1, tile_y), b.sub(tile_h, one))
        self.u, self.v = field[0], field[1]
        self.A, self.B, self.C, self.log2_opacity = [s.f32(value) for value in field[2:6]]
        self.color = [s.f32(b.load(b.gep(record, [const_i64(GEOMETRY + k)]))) for k in range(planes)]
        q = b.load(b.gep(record, [const_i64(GEOMETRY - 1)]))
        flat = b.fcmp_ordered(">", q, ir.Constant(F32, 0.0))
        self.run = b.select(flat, const_i64(RUN), const_i64(STEEP_RUN))  # rows
        self.q = s.f32(b.select(flat, q, b.fneg(q)))


def _prefetch_record(s: Simd, records, lists, k, stride: int) -> None:
    """Ask for the record six Gaussians ahead: records are read in depth order, which the hardware can't foresee."""
    b = s.builder
    byte = U8.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
    prefetch = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
    ahead = b.sext(b.load(b.gep(lists, [b.add(k, const_i64(6))])), I64)
    address = b.bitcast(b.gep(records, [b.mul(ahead, const_i64(stride))]), byte)
    b.call(prefetch, [address, ir.Constant(I32, 0), ir.Constant(I32, 3), ir.Constant(I32, 1)])


@intrinsic
def _splat_list(tyctx, planes, buffer, records, lists, first, last, tile_x, tile_y, tile_w, tile_h):
    """Blend Gaussians lists[first:last] into a tile's buffer, front to back.

    Eight neighbouring pixels of a row at a time, starting at the Gaussian's own first column (not a multiple of 8):
    splats of a head are 5-9 pixels wide, so most need one group per row.
    """
    i64 = types.int64
    signature = types.void(planes, buffer, records, lists, i64, i64, i64, i64, i64, i64)
    n = planes.count
    row_floats, stride = ROW_STRIDE * (n + 1), record_length(n)

    def codegen(context, b, signature, args):
        s = Simd(b)
        tile, records, lists = [array_pointer(context, b, signature.args[k], args[k]) for k in (1, 2, 3)]
        first, last, tile_x, tile_y, tile_w, tile_h = args[4:]
        with cgutils.for_range_slice(b, first, last, const_i64(1)) as (k, _):
            _prefetch_record(s, records, lists, k, stride)
            record = b.gep(records, [b.mul(b.sext(b.load(b.gep(lists, [k])), I64), const_i64(stride))])
            g = _Splat(s, record, n, tile_x, tile_y, tile_w, tile_h)

            def blend_group(pixel, raw, dy):
                weight, T, _ = _blend_step(s, raw, s.load(pixel))
                s.store(T, pixel)
                for plane, color in enumerate(g.color):
                    target = b.gep(pixel, [const_i64(ROW_STRIDE * (plane + 1))])
                    s.store(s.fma(weight, color, s.load(target)), target)

            _for_each_group(s, g, tile, row_floats, tile_x, tile_y, lambda dx: blend_group, lambda dx: None)
        return context.get_dummy_value()

    return signature, codegen


def _for_each_group(s: Simd, g: _Splat, tile, row_floats: int, tile_x, tile_y, begin_strip, end_strip) -> None:
    """Emit the loops over a Gaussian's box: strips of 8 columns, runs of rows, rows.

    begin_strip(dx) is called once per strip and returns the body f(pixel pointer, uncapped alpha, dy) for its groups;
    end_strip(dx) once after them.
    """
    b = s.builder
    one = const_i64(1)
    rows_end = b.add(g.y1, one)
    row_step = const_i64(row_floats)
    left = b.fsub(b.fadd(b.sitofp(tile_x, F32), ir.Constant(F32, 0.5)), g.u)
    top = b.fsub(b.fadd(b.sitofp(tile_y, F32), ir.Constant(F32, 0.5)), g.v)
    with cgutils.for_range_slice(b, g.x0, b.add(g.x1, one), const_i64(WIDTH)) as (x, _):
        dx = s.iota() + s.f32(b.fadd(left, b.sitofp(x, F32)))
        body = begin_strip(dx)
        b_dx, a_dx2 = g.B * dx, s.fma(g.A * dx, dx, g.log2_opacity)
        with cgutils.for_range_slice(b, g.y0, rows_end, g.run) as (y, _):
            dy = s.f32(b.fadd(top, b.sitofp(y, F32)))
            alpha_slot, ratio_slot, dy_slot = [cgutils.alloca_once(b, VF) for _ in range(3)]
            b.store(dy.value, dy_slot)
            exponent = s.fma(s.fma(g.C, dy, b_dx), dy, a_dx2)
            slope = s.fma(g.C, dy + dy + 1.0, b_dx)
            # A column that is invisible here and only falls, or lies too deep to rise in time, is set to exactly 0: a
            # value carried on down there would end in denormal numbers, which cost 100 cycles each.
            seen = exponent >= (slope > 0.0).select(FLOOR, -8.0)
            b.store(seen.select(s.exp2(exponent), 0.0).value, alpha_slot)
            b.store(s.exp2(slope, -60.0).value, ratio_slot)
            pixel = b.gep(tile, [b.add(b.mul(y, row_step), x)])
            rows = _smaller(b, g.run, b.sub(rows_end, y))
            with cgutils.for_range_slice(b, const_i64(0), b.mul(rows, row_step), row_step) as (offset, _):
                alpha, ratio, dy = [Lanes(s, b.load(slot)) for slot in (alpha_slot, ratio_slot, dy_slot)]
                body(b.gep(pixel, [offset]), alpha, dy)
                b.store((dy + 1.0).value, dy_slot)
                b.store((alpha * ratio).value, alpha_slot)
                b.store((ratio * g.q).value, ratio_slot)
        end_strip(dx)


def _blend_step(s: Simd, raw: Lanes, T: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    """Eight pixels meet one Gaussian of uncapped alpha `raw`. -> weight alpha T or 0, new T, whether it was blended.

    The forward and the backward pass both call this: the same instructions take the same decisions.
    """
    b = s.builder
    counts = raw >= ALPHA_MIN
    alpha = raw.min(ALPHA_MAX)
    product = Lanes(s, b.fmul(alpha.value, T.value))
    after = Lanes(s, b.fsub(T.value, product.value))
    blended = counts & (after > T_MIN)
    weight = blended.select(product, 0.0)
    # Stop: set T's sign bit with integer operations (a second select here becomes a masked store, slow on AMD).
    stops = b.and_(counts.value, b.not_(blended.value))
    sign = b.and_(b.sext(stops, VI), s.i32(-0x80000000).value)
    T = Lanes(s, b.or_(blended.select(after, T).as_int().value, sign)).as_float()
    return weight, T, blended


@intrinsic
def _any_alive(tyctx, buffer, offset, groups):
    """Largest T over groups * 8 consecutive floats (> 0: some pixel has not stopped)."""
    signature = types.float32(buffer, types.int64, types.int64)

    def codegen(context, b, signature, args):
        s = Simd(b)
        pointer = array_pointer(context, b, signature.args[0], args[0])
        slot = cgutils.alloca_once_value(b, s.f32(-1.0).value)
        b.store(s.f32(-1.0).value, slot)
        with cgutils.for_range(b, args[2]) as loop:
            here = b.gep(pointer, [b.add(args[1], b.mul(loop.index, const_i64(WIDTH)))])
            b.store(Lanes(s, b.load(slot)).max(s.load(here)).value, slot)
        lanes = b.load(slot)
        best = b.extract_element(lanes, ir.Constant(I32, 0))
        for lane in range(1, WIDTH):
            value = b.extract_element(lanes, ir.Constant(I32, lane))
            best = b.select(b.fcmp_ordered(">", value, best), value, best)
        return best

    return signature, codegen


@kernel
def _blend_tile(planes, buffer, records, lists, first, last, tile_x, tile_y, tile_w, tile_h):
    """Clear a tile's buffer and blend its Gaussians; pixels beyond the image are born stopped (T = -1)."""
    row_floats = ROW_STRIDE * (len(planes) + 1)
    for y in range(TILE_H):
        row = y * row_floats
        for x in range(ROW_STRIDE):
            buffer[row + x] = 1.0 if x < tile_w and y < tile_h else -1.0
        for x in range(ROW_STRIDE, row_floats):
            buffer[row + x] = 0.0
    while first < last:
        chunk = min(last, first + CHECK_EVERY)
        _splat_list(planes, buffer, records, lists, first, chunk, tile_x, tile_y, tile_w, tile_h)
        first = chunk
        if first < last:
            alive = np.float32(0.0)
            for y in range(tile_h):
                alive = max(alive, _any_alive(buffer, y * row_floats, TILE_W // WIDTH))
            if alive <= 0.0:
                return


@kernel
def blend(tiles_x, row0, row1, channels, planes, records, counts, lists, buffer, rgb, alpha, depth):
    """Blend tile rows [row0, row1) into rgb (H, W, C), alpha (H, W) and depth (H, W), float32, no background."""
    height, width = alpha.shape
    row_floats = ROW_STRIDE * (len(planes) + 1)
    for t in range(tiles_x * (row1 - row0)):
        first, last = (counts[t - 1] if t > 0 else 0), counts[t]
        left, top = (t % tiles_x) << TILE_W_SHIFT, (t // tiles_x + row0) << TILE_H_SHIFT
        w, h = min(TILE_W, width - left), min(TILE_H, height - top)
        if first == last:
            rgb[top : top + h, left : left + w] = 0.0
            alpha[top : top + h, left : left + w] = 0.0
            depth[top : top + h, left : left + w] = 0.0
            continue
        _blend_tile(planes, buffer, records, lists, first, last, left, top, w, h)
        whole = w - w % WIDTH
        for y in range(h):
            for x in range(0, whole, WIDTH):
                _copy8(channels, buffer, y * row_floats + x, rgb, alpha, depth, (top + y) * width + left + x)
            for x in range(whole, w):
                pixel = y * row_floats + x
                for c in range(len(channels)):
                    rgb[top + y, left + x, c] = buffer[pixel + ROW_STRIDE * (c + 1)]
                alpha[top + y, left + x] = np.float32(1.0) - abs(buffer[pixel])
                depth[top + y, left + x] = buffer[pixel + ROW_STRIDE * len(planes)]


@kernel
def blend_uint8(tiles_x, row0, row1, planes, records, counts, lists, buffer, background, rgb, alpha):
    """Blend tile rows [row0, row1) over `background`, rounded: rgb (H, W, 3), alpha (H, W), all uint8."""
    height, width = alpha.shape
    flat_rgb, flat_background = rgb.reshape(-1), background.reshape(-1)
    row_floats = ROW_STRIDE * (len(planes) + 1)
    for t in range(tiles_x * (row1 - row0)):
        first, last = (counts[t - 1] if t > 0 else 0), counts[t]
        left, top = (t % tiles_x) << TILE_W_SHIFT, (t // tiles_x + row0) << TILE_H_SHIFT
        w, h = min(TILE_W, width - left), min(TILE_H, height - top)
        if first == last:
            for y in range(top, top + h):
                begin, end = 3 * (y * width + left), 3 * (y * width + left + w)
                flat_rgb[begin:end] = flat_background[begin:end]
                alpha[y, left : left + w] = 0
            continue
        _blend_tile(planes, buffer, records, lists, first, last, left, top, w, h)
        for y in range(h):
            whole = w - w % WIDTH
            for x in range(0, whole, WIDTH):
                _resolve8(buffer, y * row_floats + x, background, rgb, alpha, ((top + y) * width + left + x))
            for x in range(whole, w):
                pixel = y * row_floats + x
                T = abs(buffer[pixel])
                alpha[top + y, left + x] = np.uint8((np.float32(1.0) - T) * np.float32(255.0) + np.float32(0.5))
                for c in range(3):
                    behind = T * np.float32(background[top + y, left + x, c]) + np.float32(0.5)
                    value = buffer[pixel + ROW_STRIDE * (c + 1)] * np.float32(255.0) + behind
                    rgb[top + y, left + x, c] = np.uint8(min(max(value, np.float32(0.0)), np.float32(255.0)))


@intrinsic
def _copy8(tyctx, channels, buffer, offset, rgb, alpha, depth, pixel):
    """Eight finished pixels of a tile into the picture, float32: planes to interleaved channels."""
    signature = types.void(channels, buffer, types.int64, rgb, alpha, depth, types.int64)
    n = channels.count

    def codegen(context, b, signature, args):
        s = Simd(b)
        tile, rgb, alpha, depth = [array_pointer(context, b, signature.args[k], args[k]) for k in (1, 3, 4, 5)]
        source = b.gep(tile, [args[2]])
        planes = [s.load(b.gep(source, [const_i64(ROW_STRIDE * k)])) for k in range(n + 2)]
        s.store_fields([plane.value for plane in planes[1:-1]], b.gep(rgb, [b.mul(args[6], const_i64(n))]))
        s.store(1.0 - planes[0].max(-planes[0]), b.gep(alpha, [args[6]]))
        s.store(planes[-1], b.gep(depth, [args[6]]))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _resolve8(tyctx, buffer, offset, background, rgb, alpha, pixel):
    """Eight finished pixels: colour + T * background, to uint8, interleaved, in one store of 24 bytes."""
    signature = types.void(buffer, types.int64, background, rgb, alpha, types.int64)

    def codegen(context, b, signature, args):
        s = Simd(b)
        tile, behind, rgb, alpha = [array_pointer(context, b, signature.args[k], args[k]) for k in (0, 2, 3, 4)]
        source = b.gep(tile, [args[1]])
        T = s.load(source)
        T = T.max(-T)  # without the mark of a stopped pixel
        byte_offset = b.mul(args[5], const_i64(3))
        bytes8 = ir.VectorType(U8, WIDTH)
        columns = []
        for c, under in enumerate(s.load_fields(b.gep(behind, [byte_offset]), 3, U8)):
            under = Lanes(s, b.uitofp(under, VF))
            value = s.load(b.gep(source, [const_i64(ROW_STRIDE * (c + 1))]))
            value = s.fma(value, 255.0, s.fma(T, under, 0.5)).max(0.0).min(255.0)
            columns.append(b.trunc(s.to_int(value).value, bytes8))
        s.store_fields(columns, b.gep(rgb, [byte_offset]))
        cover = s.fma(1.0 - T, 255.0, 0.5)
        packed = b.trunc(s.to_int(cover).value, bytes8)
        b.store(packed, b.bitcast(b.gep(alpha, [args[5]]), bytes8.as_pointer()), align=1)
        return context.get_dummy_value()

    return signature, codegen


# ---- backward --------------------------------------------------------------------------------------------------------
#
# With h = dL/d(ln alpha) of one Gaussian at one pixel, everything the geometry needs are six moments of h over its
# pixels (dx, dy from the centre): sum h, h dx, h dy, h dx^2, h dx dy, h dy^2. A second walk over the same lists, again
# front to back, recomputes alpha and T by the forward pass's own instructions; what lies behind a Gaussian is the
# total (from the finished picture) minus what has been walked over, so nothing is divided by a vanishing T.
#
# Tile rows hold [T | Q | P planes of dL/dplane]; Q = sum over the Gaussians still ahead of weight (dL/dplane . plane)
# plus the background's share -dL/dalpha * T_end.

MOMENTS = 6
GRADIENT = 16  # floats per Gaussian in a gradient row: 6 moments, then up to 9 planes


@intrinsic
def _splat_list_backward(tyctx, planes, buffer, records, gradients, lists, first, last, tile_x, tile_y, tile_w, tile_h):
    """Replay lists[first:last] over a tile and add each Gaussian's moments and plane gradients to its gradient row."""
    i64 = types.int64
    signature = types.void(planes, buffer, records, gradients, lists, i64, i64, i64, i64, i64, i64)
    n = planes.count
    row_floats, stride = ROW_STRIDE * (n + 2), record_length(n)

    def codegen(context, b, signature, args):
        s = Simd(b)
        tile, records, gradients, lists = [array_pointer(context, b, signature.args[k], args[k]) for k in (1, 2, 3, 4)]
        first, last, tile_x, tile_y, tile_w, tile_h = args[5:]
        zero = s.f32(0.0)

        def slots(count: int) -> list[ir.Value]:
            return [cgutils.alloca_once(b, VF) for _ in range(count)]

        def add(slot, lanes: Lanes) -> None:
            b.store((Lanes(s, b.load(slot)) + lanes).value, slot)

        with cgutils.for_range_slice(b, first, last, const_i64(1)) as (k, _):
            _prefetch_record(s, records, lists, k, stride)
            index = b.sext(b.load(b.gep(lists, [k])), I64)
            g = _Splat(s, b.gep(records, [b.mul(index, const_i64(stride))]), n, tile_x, tile_y, tile_w, tile_h)
            totals, plane_totals, column = slots(MOMENTS), slots(n), slots(3)
            for slot in totals + plane_totals:
                b.store(zero.value, slot)

            def strip(dx):
                for slot in column:
                    b.store(zero.value, slot)
                return group

            def group(pixel, raw, dy):
                T = s.load(pixel)
                weight, after, blended = _blend_step(s, raw, T)
                s.store(after, pixel)
                plane_gradients = [s.load(b.gep(pixel, [const_i64(ROW_STRIDE * (k + 2))])) for k in range(n)]
                toward = plane_gradients[0] * g.color[0]
                for value, color in zip(plane_gradients[1:], g.color[1:]):
                    toward = s.fma(value, color, toward)
                behind_pointer = b.gep(pixel, [const_i64(ROW_STRIDE)])
                behind = s.load(behind_pointer) - weight * toward
                s.store(behind, behind_pointer)
                alpha = raw.min(ALPHA_MAX)
                # A capped alpha does not move with its exponent.
                h = (blended & (raw <= ALPHA_MAX)).select(weight * toward - alpha * behind / (1.0 - alpha), 0.0)
                h_dy = h * dy
                for slot, value in zip(column, (h, h_dy, h_dy * dy)):
                    add(slot, value)
                for slot, value in zip(plane_totals, plane_gradients):
                    add(slot, weight * value)

            def finish_strip(dx):
                h, h_dy, h_dy2 = [Lanes(s, b.load(slot)) for slot in column]
                h_dx = h * dx
                for slot, value in zip(totals, (h, h_dx, h_dy, h_dx * dx, h_dy * dx, h_dy2)):
                    add(slot, value)

            _for_each_group(s, g, tile, row_floats, tile_x, tile_y, strip, finish_strip)
            row = b.gep(gradients, [b.mul(index, const_i64(GRADIENT))])
            for k, slot in enumerate(totals + plane_totals):
                target = b.gep(row, [const_i64(k)])
                b.store(b.fadd(b.load(target), s.sum(Lanes(s, b.load(slot)))), target)
        return context.get_dummy_value()

    return signature, codegen


@kernel
def blend_backward(
    n, tiles_x, row0, row1, channels, planes, boxes, records, counts, lists, buffer, rgb, alpha, depth,
    grad_rgb, grad_alpha, grad_depth, gradients,
):  # fmt: skip
    """Fill gradients (N, 16) of the Gaussians that touch tile rows [row0, row1): moments, then dL/d(plane).

    rgb (H, W, C), alpha, depth (H, W): the picture `blend` made from these lists; grad_*: dL/d of each.
    """
    height, width = alpha.shape
    row_floats = ROW_STRIDE * (len(planes) + 2)
    for i in range(n):
        if boxes[i, 2] < row1 << TILE_H_SHIFT and boxes[i, 3] >= row0 << TILE_H_SHIFT:
            for k in range(GRADIENT):
                gradients[i, k] = 0.0
    for t in range(tiles_x * (row1 - row0)):
        first, last = (counts[t - 1] if t > 0 else 0), counts[t]
        if first == last:
            continue
        left, top = (t % tiles_x) << TILE_W_SHIFT, (t // tiles_x + row0) << TILE_H_SHIFT
        w, h = min(TILE_W, width - left), min(TILE_H, height - top)
        for y in range(TILE_H):
            for x in range(ROW_STRIDE):
                pixel = y * row_floats + x
                if x < w and y < h:
                    Y, X = top + y, left + x
                    behind = grad_depth[Y, X] * depth[Y, X] - grad_alpha[Y, X] * (np.float32(1.0) - alpha[Y, X])
                    for c in range(len(channels)):
                        behind += grad_rgb[Y, X, c] * rgb[Y, X, c]
                        buffer[pixel + ROW_STRIDE * (c + 2)] = grad_rgb[Y, X, c]
                    buffer[pixel + ROW_STRIDE * (len(planes) + 1)] = grad_depth[Y, X]
                    buffer[pixel], buffer[pixel + ROW_STRIDE] = 1.0, behind
                else:
                    buffer[pixel] = -1.0
                    for plane in range(1, len(planes) + 2):
                        buffer[pixel + ROW_STRIDE * plane] = 0.0
        while first < last:
            chunk = min(last, first + CHECK_EVERY)
            _splat_list_backward(planes, buffer, records, gradients, lists, first, chunk, left, top, w, h)
            first = chunk
            if first < last:
                alive = np.float32(0.0)
                for y in range(h):
                    alive = max(alive, _any_alive(buffer, y * row_floats, TILE_W // WIDTH))
                if alive <= 0.0:
                    break


@intrinsic
def _chain8(
    tyctx, i, means, covars, quats, scales, opacities, channels, planes, camera, boxes, moments,
    grad_means, grad_covars, grad_quats, grad_scales, grad_opacities, grad_colors,
):  # fmt: skip
    """Gaussians i .. i+7: from moments (8, 16) to the gradients of the inputs; see `chain`."""
    names = (
        "i means covars quats scales opacities channels planes camera boxes moments "
        "grad_means grad_covars grad_quats grad_scales grad_opacities grad_colors"
    ).split()
    kinds = (
        i, means, covars, quats, scales, opacities, channels, planes, camera, boxes, moments,
        grad_means, grad_covars, grad_quats, grad_scales, grad_opacities, grad_colors,
    )  # fmt: skip
    n_colors, n_planes = channels.count, planes.count

    def codegen(context, builder, signature, args):
        s = Simd(builder)
        rows = Rows(s, context, names, signature, args)
        at, fields = rows.at, rows.fields
        moment_rows = rows.pointer("moments")
        columns = []
        for block in (0, 8):
            lanes = [s.load(builder.gep(moment_rows, [const_i64(lane * GRADIENT + block)])).value for lane in range(8)]
            columns += [Lanes(s, v) for v in s.transpose(lanes)]
        h, h_x, h_y, h_xx, h_xy, h_yy = columns[:MOMENTS]
        plane_gradients = columns[MOMENTS : MOMENTS + n_planes]
        box_x = s.load_fields(at("boxes", 2, I32), 2, I32)[0]
        sixteen = s.i32(16).value
        first_column = builder.ashr(builder.shl(box_x, sixteen), sixteen)
        drawn = Lanes(s, builder.icmp_signed("<=", first_column, builder.ashr(box_x, sixteen)))

        from_quats = isinstance(covars, types.NoneType)
        mean = fields("means", 3)
        if from_quats:
            quat, scale = fields("quats", 4), fields("scales", 3)
            cov = _covariance(quat, scale)
        else:
            cov = fields("covars", 6)
        view = _View(s, mean, cov, rows.value["camera"])

        # ln alpha = ln opacity - (A dx^2 + 2 B dx dy + C dy^2) / 2 with the conic (A B; B C) = (a b; b c)^-1.
        A, B, C = view.c * view.inv_det, -view.b * view.inv_det, view.a * view.inv_det
        grad_u, grad_v = A * h_x + B * h_y, B * h_x + C * h_y
        gA, gB, gC = h_xx * -0.5, h_xy * -0.5, h_yy * -0.5
        # d(M^-1) = -M^-1 dM M^-1: back through the inverse to the projected covariance (full symmetric matrices).
        t00, t01, t10, t11 = gA * A + gB * B, gA * B + gB * C, gB * A + gC * B, gB * B + gC * C
        ga, gb, gc = -(A * t00 + B * t10), -(A * t01 + B * t11), -(B * t01 + C * t11)
        # cov = J^T G J for the world covariance, 2 G J cov for the rows of J.
        p, q = view.p, view.q
        gp = [(ga * a + gb * b) * 2.0 for a, b in zip(view.cov_p, view.cov_q)]
        gq = [(gb * a + gc * b) * 2.0 for a, b in zip(view.cov_p, view.cov_q)]
        Gp, Gq = [ga * a + gb * b for a, b in zip(p, q)], [gb * a + gc * b for a, b in zip(p, q)]
        grad_cov = [[p[r] * Gp[k] + q[r] * Gq[k] for k in range(3)] for r in range(3)]

        # J = (jx r0 - jx tx r2; jy r1 - jy ty r2), jx = fx / z, tx = x/z unless frozen at the image's edge.
        r0, r1, r2 = view.rotation
        g_jx, g_jy = dot3(gp, r0) - view.tx * dot3(gp, r2), dot3(gq, r1) - view.ty * dot3(gq, r2)
        g_tx, g_ty = -(view.jx * dot3(gp, r2)), -(view.jy * dot3(gq, r2))
        g_xz = grad_u * view.fx + view.tx.equals(view.x_z).select(g_tx, 0.0)
        g_yz = grad_v * view.fy + view.ty.equals(view.y_z).select(g_ty, 0.0)
        g_z = -(g_xz * view.x_z + g_yz * view.y_z + g_jx * view.jx + g_jy * view.jy) * view.iz
        if n_planes > n_colors:
            g_z = g_z + plane_gradients[n_colors]
        g_camera = (g_xz * view.iz, g_yz * view.iz, g_z)

        def store(name: str, columns: list[Lanes]) -> None:
            s.store_fields([drawn.select(column, 0.0).value for column in columns], at(name, len(columns)))

        store("grad_means", [dot3([r0[k], r1[k], r2[k]], g_camera) for k in range(3)])
        s.store(drawn.select(h / s.load(at("opacities", 1)), 0.0), at("grad_opacities", 1))
        store("grad_colors", plane_gradients[:n_colors])
        if not from_quats:
            (xx, xy, xz), (_, yy, yz), (_, _, zz) = grad_cov
            store("grad_covars", [xx, xy + xy, xz + xz, yy, yz + yz, zz])
            return context.get_dummy_value()

        # cov = M M^T, M = R diag(scale): dM = 2 dcov M.
        R = _rotation(quat)
        M = [[R[r][k] * scale[k] for k in range(3)] for r in range(3)]
        gM = [[dot3(grad_cov[r], [M[0][k], M[1][k], M[2][k]]) * 2.0 for k in range(3)] for r in range(3)]
        store("grad_scales", [dot3([gM[0][k], gM[1][k], gM[2][k]], [R[0][k], R[1][k], R[2][k]]) for k in range(3)])
        m = [[gM[r][k] * scale[k] for k in range(3)] for r in range(3)]  # dL/dR
        length2 = dot3(quat[1:], quat[1:]) + quat[0] * quat[0]
        inverse = (length2 > MIN_QUAT2).select(1.0 / s.sqrt(length2), 0.0)
        w, x, y, z = [component * inverse for component in quat]
        g = [
            x * (m[2][1] - m[1][2]) + y * (m[0][2] - m[2][0]) + z * (m[1][0] - m[0][1]),
            y * (m[1][0] + m[0][1]) + z * (m[2][0] + m[0][2]) + w * (m[2][1] - m[1][2]) - x * (m[1][1] + m[2][2]) * 2.0,
            x * (m[1][0] + m[0][1]) + z * (m[2][1] + m[1][2]) + w * (m[0][2] - m[2][0]) - y * (m[0][0] + m[2][2]) * 2.0,
            x * (m[2][0] + m[0][2]) + y * (m[2][1] + m[1][2]) + w * (m[1][0] - m[0][1]) - z * (m[0][0] + m[1][1]) * 2.0,
        ]
        radial = g[0] * w + g[1] * x + g[2] * y + g[3] * z  # the quaternion's length does not matter
        store("grad_quats", [(a - radial * b) * inverse * 2.0 for a, b in zip(g, (w, x, y, z))])
        return context.get_dummy_value()

    return types.void(*kinds), codegen


@kernel
def chain(
    first, last, means, covars, quats, scales, opacities, channels, planes, camera, boxes, bands, gradients,
    grad_means, grad_covars, grad_quats, grad_scales, grad_opacities, grad_colors,
):  # fmt: skip
    """Gaussians first .. last-1: add up the bands' gradient rows and carry them to the inputs.

    bands (B + 1,) int64: tile-row edges; gradients (B, N, 16), row k valid only for the Gaussians that touch
    band k. Inputs as in `project`; grad_* have the inputs' shapes, None where the input is None.
    """
    n = means.shape[0]
    moments = np.empty((WIDTH, GRADIENT), np.float32)
    for start in range(first, last, WIDTH):
        i = min(start, n - WIDTH)
        for lane in range(WIDTH):
            y0, y1 = boxes[i + lane, 2], boxes[i + lane, 3]
            for c in range(GRADIENT):
                moments[lane, c] = 0.0
            for k in range(gradients.shape[0]):
                if y0 <= y1 and y0 < bands[k + 1] << TILE_H_SHIFT and y1 >= bands[k] << TILE_H_SHIFT:
                    for c in range(GRADIENT):
                        moments[lane, c] += gradients[k, i + lane, c]
        _chain8(
            i, means, covars, quats, scales, opacities, channels, planes, camera, boxes, moments,
            grad_means, grad_covars, grad_quats, grad_scales, grad_opacities, grad_colors,
        )  # fmt: skip
