"""Eight float lanes at a time: a small vocabulary for writing vector kernels inside numba.

numba's auto-vectoriser leaves the splatting loop scalar (measured 14x slower), so the three hot loops are emitted as
LLVM vector IR through `numba.extending.intrinsic`. LLVM lowers `<8 x float>` to AVX2, AVX-512VL, two SSE or two NEON
registers, so there is nothing per-CPU here. `Lanes` overloads the operators, so that a kernel still reads as the
mathematics it is:

    simd = Simd(builder)
    z = simd.fma(v22, Z, v23)        # 8 depths
    visible = z > simd.f32(0.01)     # 8 bits
    z = visible.select(z, 0.0)

Comparisons are *ordered*: a NaN lane compares false, which is how bad input is masked out without any branch.
Arithmetic carries the `contract` flag (a*b+c may become one FMA) and no other fast-math: NaN and infinity keep their
meaning, and nothing is reassociated, so results do not depend on how a frame was cut into bands.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils
from numba.np.arrayobj import make_array

WIDTH = 8
F32, I32, I64, I16 = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.IntType(16)
U8 = ir.IntType(8)
VF = ir.VectorType(F32, WIDTH)
VI = ir.VectorType(I32, WIDTH)
CONTRACT = ("contract",)


def const_i64(value: int) -> ir.Constant:
    """A 64-bit integer constant (array offsets)."""
    return ir.Constant(I64, value)


def _vector_type(element: ir.Type, count: int) -> ir.VectorType:
    return ir.VectorType(element, count)


class Lanes:
    """Eight values of one type (float, int32 or bool) and the operators between them."""

    def __init__(self, simd: Simd, value: ir.Value):
        self.simd, self.value = simd, value

    def _float(self, op: str, left, right) -> Lanes:
        lift = self.simd.f32
        return Lanes(self.simd, getattr(self.simd.builder, op)(lift(left).value, lift(right).value, flags=CONTRACT))

    def __add__(self, other):
        return self._float("fadd", self, other)

    def __sub__(self, other):
        return self._float("fsub", self, other)

    def __mul__(self, other):
        return self._float("fmul", self, other)

    def __truediv__(self, other):
        return self._float("fdiv", self, other)

    def __radd__(self, other):
        return self._float("fadd", other, self)

    def __rsub__(self, other):
        return self._float("fsub", other, self)

    def __rmul__(self, other):
        return self._float("fmul", other, self)

    def __rtruediv__(self, other):
        return self._float("fdiv", other, self)

    def __neg__(self):
        return Lanes(self.simd, self.simd.builder.fneg(self.value))

    def _compare(self, op: str, other) -> Lanes:
        return Lanes(self.simd, self.simd.builder.fcmp_ordered(op, self.value, self.simd.f32(other).value))

    def __lt__(self, other):
        return self._compare("<", other)

    def __le__(self, other):
        return self._compare("<=", other)

    def __gt__(self, other):
        return self._compare(">", other)

    def __ge__(self, other):
        return self._compare(">=", other)

    def equals(self, other) -> Lanes:
        """Lane-wise ordered equality (`==` stays Python's identity)."""
        return self._compare("==", other)

    def __and__(self, other: Lanes) -> Lanes:
        return Lanes(self.simd, self.simd.builder.and_(self.value, other.value))

    def __or__(self, other: Lanes) -> Lanes:
        return Lanes(self.simd, self.simd.builder.or_(self.value, other.value))

    def select(self, if_true, if_false) -> Lanes:
        """self (bool lanes) ? if_true : if_false."""
        lift = self.simd.f32
        return Lanes(self.simd, self.simd.builder.select(self.value, lift(if_true).value, lift(if_false).value))

    def max(self, other) -> Lanes:
        """Lane-wise maximum; a NaN in self yields `other`."""
        return (self > other).select(self, other)

    def min(self, other) -> Lanes:
        """Lane-wise minimum; a NaN in self yields `other`."""
        return (self < other).select(self, other)

    def as_int(self) -> Lanes:
        """The float lanes' bits as int32."""
        return Lanes(self.simd, self.simd.builder.bitcast(self.value, VI))

    def as_float(self) -> Lanes:
        """The int32 lanes' bits as floats."""
        return Lanes(self.simd, self.simd.builder.bitcast(self.value, VF))


class Simd:
    """Emits vector code at the current position of an llvmlite IRBuilder."""

    def __init__(self, builder: ir.IRBuilder):
        self.builder = builder

    # ---- constants and conversions -------------------------------------------------------------------------------
    def f32(self, value) -> Lanes:
        """Python number, scalar IR float or Lanes -> Lanes."""
        if isinstance(value, Lanes):
            return value
        if isinstance(value, (int, float)):
            return Lanes(self, ir.Constant(VF, [ir.Constant(F32, float(value))] * WIDTH))
        undefined = ir.Constant(VF, ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(I32, 0))
        return Lanes(self, self.shuffle(first, undefined, [0] * WIDTH))

    def i32(self, value: int) -> Lanes:
        """The same integer in every lane."""
        return Lanes(self, ir.Constant(VI, [ir.Constant(I32, value)] * WIDTH))

    def iota(self) -> Lanes:
        """0, 1, ... 7 as floats."""
        return Lanes(self, ir.Constant(VF, [ir.Constant(F32, float(i)) for i in range(WIDTH)]))

    def to_int(self, lanes: Lanes) -> Lanes:
        """Truncate float lanes to int32 (values must be in range: clamp first)."""
        return Lanes(self, self.builder.fptosi(lanes.value, VI))

    def _call(self, name: str, *args: Lanes) -> Lanes:
        kind = ir.FunctionType(VF, [VF] * len(args))
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.{name}.v8f32")
        return Lanes(self, self.builder.call(function, [a.value for a in args]))

    def fma(self, a, b, c) -> Lanes:
        """a * b + c, fused where the CPU can."""
        return self._call("fmuladd", self.f32(a), self.f32(b), self.f32(c))

    def sqrt(self, x: Lanes) -> Lanes:
        return self._call("sqrt", x)

    def ceil(self, x: Lanes) -> Lanes:
        return self._call("ceil", x)

    def floor(self, x: Lanes) -> Lanes:
        return self._call("floor", x)

    def exp2(self, x: Lanes, floor: float = -126.0) -> Lanes:
        """2**x for x < 128, relative error 8e-8; x below `floor` >= -126 gives 2**floor.

        Split x into the nearest integer n and f in [-1/2, 1/2]: a polynomial gives 2**f, adding n to its exponent bits
        multiplies by 2**n. Adding 1.5 * 2**23 rounds to nearest and leaves n in the low mantissa bits, which saves a
        rounding and a conversion instruction.
        """
        b, magic = self.builder, self.f32(12582912.0).value
        x = x.max(floor)
        shifted = b.fadd(x.value, magic)  # no flags here: these two must round as written
        f = Lanes(self, b.fsub(x.value, b.fsub(shifted, magic)))
        q = self.f32(EXP2_POLYNOMIAL[0])
        for c in EXP2_POLYNOMIAL[1:]:
            q = self.fma(q, f, c)
        n = b.shl(b.bitcast(shifted, VI), self.i32(23).value)
        return Lanes(self, b.add(q.as_int().value, n)).as_float()

    def log2(self, x: Lanes) -> Lanes:
        """log2(x) for normal positive x, absolute error about 1e-7: exponent + polynomial in mantissa - 1."""
        b = self.builder
        bits = x.as_int().value
        exponent = b.ashr(b.sub(bits, self.i32(0x3F3504F3).value), self.i32(23).value)  # mantissa in [0.707, 1.414)
        mantissa = Lanes(self, b.sub(bits, b.shl(exponent, self.i32(23).value))).as_float()
        t = mantissa - 1.0
        q = self.f32(LOG2_POLYNOMIAL[0])
        for c in LOG2_POLYNOMIAL[1:]:
            q = self.fma(q, t, c)
        return self.fma(q, t, Lanes(self, b.sitofp(exponent, VF)))

    def sum(self, x: Lanes) -> ir.Value:
        """Sum of the eight lanes, pairwise (a scalar)."""
        kind = ir.FunctionType(F32, [F32, VF])
        reduce = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.vector.reduce.fadd.v8f32")
        return self.builder.call(reduce, [ir.Constant(F32, -0.0), x.value], fastmath=("reassoc",))

    # ---- memory --------------------------------------------------------------------------------------------------
    def load(self, pointer) -> Lanes:
        """Eight consecutive floats."""
        return Lanes(self, self.builder.load(self.builder.bitcast(pointer, VF.as_pointer()), align=4))

    def store(self, lanes: Lanes, pointer) -> None:
        """Eight consecutive values."""
        kind = lanes.value.type
        self.builder.store(lanes.value, self.builder.bitcast(pointer, kind.as_pointer()), align=4)

    def shuffle(self, a, b, indices) -> ir.Value:
        """LLVM shufflevector with a constant mask."""
        mask_indices = list(indices)
        mask = ir.Constant(_vector_type(I32, len(mask_indices)), [ir.Constant(I32, i) for i in mask_indices])
        return self.builder.shuffle_vector(a, b, mask)

    def load_fields(self, pointer, fields: int, element: ir.Type = F32) -> list[ir.Value]:
        """Read 8 consecutive records of `fields` values and return one 8-vector per field (AoS -> SoA)."""
        wide = _vector_type(element, WIDTH * fields)
        align = 1 if element is U8 else 4
        data = self.builder.load(self.builder.bitcast(pointer, wide.as_pointer()), align=align)
        undefined = ir.Constant(wide, ir.Undefined)
        return [self.shuffle(data, undefined, [i * fields + k for i in range(WIDTH)]) for k in range(fields)]

    def store_fields(self, columns: list[ir.Value], pointer) -> None:
        """The inverse of `load_fields`: write 8 records whose fields are the given 8-vectors."""
        n = len(columns)
        parts = columns + [columns[-1]] * ((1 << (n - 1).bit_length()) - n)  # concatenation needs equal halves
        while len(parts) > 1:
            size = parts[0].type.count
            parts = [self.shuffle(a, b, range(2 * size)) for a, b in zip(parts[::2], parts[1::2])]
        joined = parts[0]
        order = [k * WIDTH + i for i in range(WIDTH) for k in range(n)]
        data = self.shuffle(joined, ir.Constant(joined.type, ir.Undefined), order)
        self.builder.store(
            data, self.builder.bitcast(pointer, data.type.as_pointer()), align=1 if data.type.element is U8 else 4
        )

    def transpose(self, rows: list[ir.Value]) -> list[ir.Value]:
        """8x8 transpose: interleave singles, then pairs (inside 128-bit halves, one instruction each), then halves."""
        pairs = []
        for a, b in zip(rows[::2], rows[1::2]):
            pairs += [self.shuffle(a, b, [0, 8, 1, 9, 4, 12, 5, 13]), self.shuffle(a, b, [2, 10, 3, 11, 6, 14, 7, 15])]
        quads = []
        for i in (0, 4):
            for a, b in ((pairs[i], pairs[i + 2]), (pairs[i + 1], pairs[i + 3])):
                quads.append(self.shuffle(a, b, [0, 1, 8, 9, 4, 5, 12, 13]))
                quads.append(self.shuffle(a, b, [2, 3, 10, 11, 6, 7, 14, 15]))
        low = [self.shuffle(a, b, [0, 1, 2, 3, 8, 9, 10, 11]) for a, b in zip(quads[:4], quads[4:])]
        high = [self.shuffle(a, b, [4, 5, 6, 7, 12, 13, 14, 15]) for a, b in zip(quads[:4], quads[4:])]
        return low + high


LOG2_POLYNOMIAL = (
    0.125412356,
    -0.210303342,
    0.217379418,
    -0.238519442,
    0.287656672,
    -0.360721195,
    0.480922529,
    -0.721347128,
    1.44269487,
)
"""Minimax fit of log2(1 + t) / t on [2**-0.5 - 1, 2**0.5 - 1], highest power first (Lawson's iteration in float64)."""


EXP2_POLYNOMIAL = (1.53458124e-4, 1.33999309e-3, 9.61848907e-3, 0.0555032864, 0.240226462, 0.693147182, 1.0)
"""Minimax fit of 2**f on [-1/2, 1/2], relative error 2e-9 before rounding, highest power first."""


def array_pointer(context, builder, array_type, array) -> ir.Value:
    """The data pointer of a numba array argument."""
    return make_array(array_type)(context, builder, array).data


def dot3(a: list[Lanes], b: list[Lanes]) -> Lanes:
    """a . b of two 3-vectors of lanes."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


class Rows:
    """The arguments of an intrinsic that works on rows i .. i+7 of its arrays, by name (one of them is "i")."""

    def __init__(self, s: Simd, context, names: list[str], signature, args):
        self.s, self.context = s, context
        self.value, self.kind = dict(zip(names, args)), dict(zip(names, signature.args))

    def pointer(self, name: str) -> ir.Value:
        """Start of an array argument."""
        return array_pointer(self.context, self.s.builder, self.kind[name], self.value[name])

    def at(self, name: str, stride: int, element: ir.Type = F32) -> ir.Value:
        """Row i of an array with `stride` elements per row."""
        b = self.s.builder
        start = b.bitcast(self.pointer(name), element.as_pointer())
        return b.gep(start, [b.mul(self.value["i"], const_i64(stride))])

    def fields(self, name: str, count: int) -> list[Lanes]:
        """The columns of an (N, count) float array."""
        return [Lanes(self.s, v) for v in self.s.load_fields(self.at(name, count), count)]

    def store(self, name: str, columns: list[Lanes]) -> None:
        """Write the columns of an (N, len(columns)) float array."""
        self.s.store_fields([column.value for column in columns], self.at(name, len(columns)))

    def gather(self, table: str, index: str, length: int) -> list[Lanes]:
        """table[index[i .. i+7]]: the columns of eight scattered rows of a (?, length) float array, length % 8 == 0.

        Eight whole-row loads and a transpose are cheaper than one gather instruction per column.
        """
        s, b = self.s, self.s.builder
        indices, start = self.at(index, 1, I32), self.pointer(table)
        rows = []
        for lane in range(WIDTH):
            row = b.sext(b.load(b.gep(indices, [const_i64(lane)])), I64)
            rows.append(b.gep(start, [b.mul(row, const_i64(length))]))
        columns = []
        for block in range(0, length, WIDTH):
            loaded = [s.load(b.gep(row, [const_i64(block)])).value for row in rows]
            columns += [Lanes(s, v) for v in s.transpose(loaded)]
        return columns
