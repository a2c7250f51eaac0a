"""The CPU rasterizer's compiled kernels: project -> sort_and_bin -> blend, and the way back.

All kernels are `nogil` and touch only the arrays they are given, so that plain Python threads run them side by side
(numba's own threading layer aborts the process when two threads enter it at once; never `parallel=True` here).

Buffers (N Gaussians, H x W pixels, P planes = colour channels, plus one for depth when it is wanted):

    records  (N, 16 or 24) float32, one or two cache lines per Gaussian, written by `project`, read at random by `blend`
             0 u, 1 v            centre, pixels
             2 A, 3 B, 4 C       log2(alpha) = log2_opacity + A dx^2 + B dx dy + C dy^2   (negative conic times log2 e)
             5 log2_opacity
             6, 7                int16 x0, x1, y0, y1: the same box as in `boxes`
             8 ...               the P planes (colours, then depth)
    boxes    (N, 4) int16        inclusive pixel box x0, x1, y0, y1 outside which alpha < 1/255; x0 > x1 = not drawn
    depths   (N,) float32        camera z, metres; as bits they sort like integers because z > 0
    counts   (tiles + 1,) int32  after binning: end of each tile's run in `lists` (its start is the previous end)
    lists    (pairs,) int32      Gaussian indices, tile after tile, front to back inside a tile

Folding the opacity into the exponent makes alpha one exp2 with no product after it. A tile is 32 x 32 pixels; its
transmittance T and planes stay in a small buffer that fits the first-level cache, one row after another:
[T | plane 0 | plane 1 ...], `ROW_STRIDE` floats each (32 + 8, because 8-pixel groups start at any column).

Semantics are gsplat's "classic" mode: 0.3 px^2 added to the projected covariance, alpha capped at 0.999, alpha < 1/255
skipped, and a pixel stops before the Gaussian that would bring T to 1e-4 or less. A stopped pixel is marked by T's
sign bit: T * (1 - alpha) stays negative, so the one comparison T * (1 - alpha) > 1e-4 answers "still alive" too.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .kernel_cache import kernel
from .semantics import ALPHA_MAX, ALPHA_MIN, EPS2D, EXTENT, NEAR, T_MIN
from .simd import F32, I16, I32, I64, U8, VF, VI, WIDTH, Lanes, Simd, array_pointer, const_i64

TILE_SHIFT = 5
TILE = 1 << TILE_SHIFT
ROW_STRIDE = TILE + WIDTH
RADIX_BITS = 11
CHECK_EVERY = 128  # Gaussians blended between two looks at whether the whole tile has stopped

LOG2_E = 1.4426950408889634
LOG2_255 = 7.994353436858858


def record_length(planes: int) -> int:
    """Floats per record: 8 of geometry, then the planes, in whole 8-lane vectors."""
    return 8 + 8 * ((planes + 7) // 8)


def tile_buffer_size(planes: int) -> int:
    """Floats of one tile's buffer for T and `planes` planes."""
    return TILE * ROW_STRIDE * (planes + 1) + WIDTH


# ---- projection ------------------------------------------------------------------------------------------------------


def _covariance(s: Simd, quats: list[Lanes], scales: list[Lanes]) -> list[Lanes]:
    """World covariance xx, xy, xz, yy, yz, zz of R(q) diag(scale^2) R(q)^T; a zero quaternion means no rotation."""
    w, x, y, z = quats
    n = 2.0 / (w * w + x * x + y * y + z * z).max(1e-24)
    xx, yy, zz, xy, xz, yz = x * x * n, y * y * n, z * z * n, x * y * n, x * z * n, y * z * n
    wx, wy, wz = w * x * n, w * y * n, w * z * n
    rows = ((1.0 - yy - zz, xy - wz, xz + wy), (xy + wz, 1.0 - xx - zz, yz - wx), (xz - wy, yz + wx, 1.0 - xx - yy))
    m = [[r * scale for r, scale in zip(row, scales)] for row in rows]
    pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    return [m[a][0] * m[b][0] + m[a][1] * m[b][1] + m[a][2] * m[b][2] for a, b in pairs]


@intrinsic
def _project8(tyctx, i, means, covars, quats, scales, opacities, colors, channels, planes, camera, records, boxes, depths):
    """Project Gaussians i .. i+7; see `project` for the arguments."""
    signature = types.void(
        i, means, covars, quats, scales, opacities, colors, channels, planes, camera, records, boxes, depths
    )
    names = "i means covars quats scales opacities colors channels planes camera records boxes depths".split()
    n_colors, n_planes = channels.count, planes.count

    def codegen(context, builder, signature, args):
        s = Simd(builder)
        values, kinds = dict(zip(names, args)), dict(zip(names, signature.args))

        def at(name: str, stride: int, element: ir.Type = F32) -> ir.Value:
            pointer = array_pointer(context, builder, kinds[name], values[name])
            pointer = builder.bitcast(pointer, element.as_pointer())
            return builder.gep(pointer, [builder.mul(values["i"], const_i64(stride))])

        def fields(name: str, count: int) -> list[Lanes]:
            return [Lanes(s, v) for v in s.load_fields(at(name, count), count)]

        cam = [s.f32(v) for v in cgutils.unpack_tuple(builder, values["camera"])]
        view, (fx, fy, cx, cy), (x_min, x_max, y_min, y_max) = (cam[0:4], cam[4:8], cam[8:12]), cam[12:16], cam[16:20]
        width, height = cam[20:22]
        mean, color, opacity = fields("means", 3), fields("colors", n_colors), s.load(at("opacities", 1))
        if isinstance(covars, types.NoneType):
            cov = _covariance(s, fields("quats", 4), fields("scales", 3))
        else:
            cov = fields("covars", 6)

        x, y, z = [row[0] * mean[0] + row[1] * mean[1] + row[2] * mean[2] + row[3] for row in view]
        iz = 1.0 / z
        x_z, y_z = x * iz, y * iz
        # Rows p = du/dmean and q = dv/dmean of the perspective Jacobian, in world axes; (a b; b c) = J cov J^T + 0.3 I.
        jx, jy = fx * iz, fy * iz
        kx, ky = jx * x_z.max(x_min).min(x_max), jy * y_z.max(y_min).min(y_max)
        p = [jx * r0 - kx * r2 for r0, r2 in zip(view[0][:3], view[2][:3])]
        q = [jy * r1 - ky * r2 for r1, r2 in zip(view[1][:3], view[2][:3])]
        xx, xy, xz, yy, yz, zz = cov
        cov_p = [row[0] * p[0] + row[1] * p[1] + row[2] * p[2] for row in ((xx, xy, xz), (xy, yy, yz), (xz, yz, zz))]
        cov_q = [row[0] * q[0] + row[1] * q[1] + row[2] * q[2] for row in ((xx, xy, xz), (xy, yy, yz), (xz, yz, zz))]
        a = p[0] * cov_p[0] + p[1] * cov_p[1] + p[2] * cov_p[2] + EPS2D
        b = q[0] * cov_p[0] + q[1] * cov_p[1] + q[2] * cov_p[2]
        c = q[0] * cov_q[0] + q[1] * cov_q[1] + q[2] * cov_q[2] + EPS2D
        det = a * c - b * b
        inv_det = 1.0 / det
        u, v = fx * x_z + cx, fy * y_z + cy

        # alpha >= 1/255 is the ellipse d^T conic d <= 2 ln(255 opacity) =: reach; its box is +-sqrt(reach a), sqrt(reach c).
        log2_opacity = s.log2(opacity.max(1e-30).min(1e30))
        reach = ((log2_opacity + LOG2_255) * (2.0 / LOG2_E)).min(EXTENT * EXTENT)
        rx, ry = s.sqrt(reach * a) + 0.01, s.sqrt(reach * c) + 0.01
        x0, x1 = s.ceil(u - rx - 0.5), s.floor(u + rx - 0.5)
        y0, y1 = s.ceil(v - ry - 0.5), s.floor(v + ry - 0.5)
        # Behind the camera, outside, NaN, infinite, degenerate: each fails one of these ordered comparisons.
        zeros = [value * 0.0 for value in mean + color]
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
        columns = [u, v, c * scale * -0.5, b * scale, a * scale * -0.5, log2_opacity]
        columns += [Lanes(s, box_x).as_float(), Lanes(s, box_y).as_float()] + color + [z][: n_planes - n_colors]
        rows = [column.value for column in columns + [s.f32(0.0)] * (-len(columns) % 8)]
        record = at("records", len(rows))
        for block in range(0, len(rows), 8):
            for lane, row in enumerate(s.transpose(rows[block : block + 8])):
                s.store(Lanes(s, row), builder.gep(record, [const_i64(lane * len(rows) + block)]))
        s.store_fields([box_x, box_y], at("boxes", 2, I32))
        s.store(z, at("depths", 1))
        return context.get_dummy_value()

    return signature, codegen


@kernel
def project(
    first, last, means, covars, quats, scales, opacities, colors, channels, planes, camera, records, boxes, depths, cost
):
    """Project Gaussians first .. last-1 into `records`, `boxes`, `depths`; add up the blending cost per tile row.

    means (N, 3), covars (N, 6) xx,xy,xz,yy,yz,zz or None with quats (N, 4) wxyz and scales (N, 3), opacities (N,),
    colors (N, C), all float32 C-contiguous, N >= 8. `channels` and `planes` are tuples of length C and P whose only
    use is to make C and P compile-time constants. camera: 22 floats: rows 0-2 of the view matrix (12), fx, fy, cx, cy,
    min and max of x/z and of y/z beyond which the Jacobian is frozen, width, height. cost (tile rows,) int64.
    """
    cost[:] = 0
    n = means.shape[0]
    for start in range(first, last, WIDTH):
        i = min(start, n - WIDTH)  # the last group overlaps the one before: same values written twice
        _project8(i, means, covars, quats, scales, opacities, colors, channels, planes, camera, records, boxes, depths)
        if boxes[i, 0] <= boxes[i, 1]:  # one sample in eight balances the bands well enough
            groups = (boxes[i, 1] - boxes[i, 0] + WIDTH) // WIDTH
            cost[boxes[i, 2] >> TILE_SHIFT] += 12 + groups * (boxes[i, 3] - boxes[i, 2] + 1)


# ---- order and bins --------------------------------------------------------------------------------------------------


@kernel
def sort_and_bin(n, tiles_x, row0, row1, boxes, depth_bits, keys_a, ids_a, keys_b, ids_b, histogram, counts, lists):
    """List the Gaussians that touch tile rows [row0, row1), tile by tile, front to back. -> pairs, or -needed.

    Selection, then an exact least-significant-digit radix sort on the bits of the (positive) float depth, smallest
    first and stable, then a counting sort by tile. A negative result says `lists` must hold that many pairs.
    """
    selected = 0
    lowest, highest = np.uint32(0xFFFFFFFF), np.uint32(0)
    top, bottom = row0 << TILE_SHIFT, (row1 << TILE_SHIFT) - 1
    tiles = tiles_x * (row1 - row0)
    for t in range(tiles + 1):
        counts[t] = 0
    for i in range(n):
        y0, y1 = boxes[i, 2], boxes[i, 3]
        if y0 <= bottom and y1 >= top and y0 <= y1:
            key = depth_bits[i]
            keys_a[selected] = key
            ids_a[selected] = i
            selected += 1
            lowest, highest = min(lowest, key), max(highest, key)
            for ty in range((max(y0, top) >> TILE_SHIFT) - row0, (min(y1, bottom) >> TILE_SHIFT) - row0 + 1):
                for t in range(ty * tiles_x + (boxes[i, 0] >> TILE_SHIFT), ty * tiles_x + (boxes[i, 1] >> TILE_SHIFT) + 1):
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

    shift, span, mask = 0, np.int64(highest - lowest), (1 << RADIX_BITS) - 1
    swapped = False
    while span >> shift:
        histogram[:] = 0
        if swapped:
            keys_in, ids_in, keys_out, ids_out = keys_b, ids_b, keys_a, ids_a
        else:
            keys_in, ids_in, keys_out, ids_out = keys_a, ids_a, keys_b, ids_b
        for j in range(selected):
            histogram[(np.int64(keys_in[j] - lowest) >> shift) & mask] += 1
        start = 0
        for digit in range(mask + 1):
            count = histogram[digit]
            histogram[digit] = start
            start += count
        for j in range(selected):
            digit = (np.int64(keys_in[j] - lowest) >> shift) & mask
            slot = histogram[digit]
            histogram[digit] = slot + 1
            keys_out[slot] = keys_in[j]
            ids_out[slot] = ids_in[j]
        swapped = not swapped
        shift += RADIX_BITS
    ids = ids_b if swapped else ids_a
    for j in range(selected):
        g = ids[j]
        tx0, tx1 = boxes[g, 0] >> TILE_SHIFT, boxes[g, 1] >> TILE_SHIFT
        for ty in range((max(boxes[g, 2], top) >> TILE_SHIFT) - row0, (min(boxes[g, 3], bottom) >> TILE_SHIFT) - row0 + 1):
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
        self.color = [s.f32(b.load(b.gep(record, [const_i64(8 + k)]))) for k in range(planes)]


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
        one = const_i64(1)
        center_x = b.fadd(b.sitofp(tile_x, F32), ir.Constant(F32, 0.5))
        center_y = b.fadd(b.sitofp(tile_y, F32), ir.Constant(F32, 0.5))
        with cgutils.for_range_slice(b, first, last, one) as (k, _):
            _prefetch_record(s, records, lists, k, stride)
            record = b.gep(records, [b.mul(b.sext(b.load(b.gep(lists, [k])), I64), const_i64(stride))])
            g = _Splat(s, record, n, tile_x, tile_y, tile_w, tile_h)
            dy_first = s.f32(b.fsub(b.fadd(center_y, b.sitofp(g.y0, F32)), g.v))
            rows = b.mul(b.add(b.sub(g.y1, g.y0), one), const_i64(row_floats))
            with cgutils.for_range_slice(b, g.x0, b.add(g.x1, one), const_i64(WIDTH)) as (x, _):
                dx = s.iota() + s.f32(b.fsub(b.fadd(center_x, b.sitofp(x, F32)), g.u))
                b_dx, a_dx2 = g.B * dx, s.fma(g.A * dx, dx, g.log2_opacity)
                top = b.gep(tile, [b.add(b.mul(g.y0, const_i64(row_floats)), x)])
                dy_slot = cgutils.alloca_once(b, VF)
                b.store(dy_first.value, dy_slot)
                with cgutils.for_range_slice(b, const_i64(0), rows, const_i64(row_floats)) as (offset, _):
                    pixel = b.gep(top, [offset])
                    dy = Lanes(s, b.load(dy_slot))
                    weight, T, _, _ = _blend_step(s, g, dy, b_dx, a_dx2, s.load(pixel))
                    s.store(T, pixel)
                    for plane, color in enumerate(g.color):
                        target = b.gep(pixel, [const_i64(ROW_STRIDE * (plane + 1))])
                        s.store(s.fma(weight, color, s.load(target)), target)
                    b.store((dy + 1.0).value, dy_slot)
        return context.get_dummy_value()

    return signature, codegen


def _blend_step(s: Simd, g: _Splat, dy: Lanes, b_dx: Lanes, a_dx2: Lanes, T: Lanes):
    """Eight pixels meet one Gaussian. -> (weight alpha T or 0, new T, raw alpha, bool: it was blended).

    The forward and the backward pass both call this: the same instructions take the same decisions.
    """
    b = s.builder
    raw = s.exp2(s.fma(s.fma(g.C, dy, b_dx), dy, a_dx2))
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
    return weight, T, raw, blended


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
    for y in range(TILE):
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
                alive = max(alive, _any_alive(buffer, y * row_floats, TILE // WIDTH))
            if alive <= 0.0:
                return


@kernel
def blend(tiles_x, row0, row1, channels, planes, records, counts, lists, buffer, rgb, alpha, depth):
    """Blend tile rows [row0, row1) into rgb (H, W, C), alpha (H, W) and depth (H, W), float32, no background."""
    height, width = alpha.shape
    row_floats = ROW_STRIDE * (len(planes) + 1)
    for t in range(tiles_x * (row1 - row0)):
        first, last = (counts[t - 1] if t > 0 else 0), counts[t]
        left, top = (t % tiles_x) << TILE_SHIFT, (t // tiles_x + row0) << TILE_SHIFT
        w, h = min(TILE, width - left), min(TILE, height - top)
        if first == last:
            rgb[top : top + h, left : left + w] = 0.0
            alpha[top : top + h, left : left + w] = 0.0
            depth[top : top + h, left : left + w] = 0.0
            continue
        _blend_tile(planes, buffer, records, lists, first, last, left, top, w, h)
        for y in range(h):
            for x in range(w):
                pixel = y * row_floats + x
                for c in range(len(channels)):
                    rgb[top + y, left + x, c] = buffer[pixel + ROW_STRIDE * (c + 1)]
                alpha[top + y, left + x] = np.float32(1.0) - abs(buffer[pixel])
                depth[top + y, left + x] = buffer[pixel + ROW_STRIDE * len(planes)]


@kernel
def blend_uint8(tiles_x, row0, row1, planes, records, counts, lists, buffer, background, rgb, alpha):
    """Blend tile rows [row0, row1) over `background`, rounded: rgb (H, W, 3), alpha (H, W), all uint8."""
    height, width = alpha.shape
    row_floats = ROW_STRIDE * (len(planes) + 1)
    for t in range(tiles_x * (row1 - row0)):
        first, last = (counts[t - 1] if t > 0 else 0), counts[t]
        left, top = (t % tiles_x) << TILE_SHIFT, (t // tiles_x + row0) << TILE_SHIFT
        w, h = min(TILE, width - left), min(TILE, height - top)
        if first == last:
            rgb[top : top + h, left : left + w] = background[top : top + h, left : left + w]
            alpha[top : top + h, left : left + w] = 0
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
