"""The loops of patch-based completion: how alike two patches are, which match best, what matches vote for.

Pictures have a margin here, as wide as a patch reaches, and four channels (red, green, blue, 1): a patch's row is 28
consecutive numbers, four vectors of eight (`Lanes`). The fourth channel makes no difference between patches, and sums
up weights where they vote.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from ..rendering.kernel_cache import kernel
from ..rendering.simd import WIDTH, Lanes, Simd, array_pointer, const_i64

RADIUS = 3  # patches of 7 x 7 pixels
CHANNELS = 4
ROW = CHANNELS * (2 * RADIUS + 1)


def bordered(channels: np.ndarray) -> np.ndarray:
    """A picture (H, W, 4) as the kernels want it: (H + 6, 4 (W + 7)) float32, 0 in the margins.

    The right one is a pixel wider: the last of a row's vectors reads that far.
    """
    margins = ((RADIUS, RADIUS), (RADIUS, RADIUS + 1), (0, 0))
    padded = np.pad(np.asarray(channels, np.float32), margins)
    return padded.reshape(len(padded), -1)


def unbordered(picture: np.ndarray) -> np.ndarray:
    """The colours (H, W, 3) of a picture with margins."""
    channels = picture.reshape(len(picture), -1, CHANNELS)
    return channels[RADIUS:-RADIUS, RADIUS : -RADIUS - 1, :3]


@kernel
def match(picture, confidence, sources, targets, matches, cost, sweeps, seed):
    """PatchMatch: good matches spread to neighbours, and each looks around itself at random in shrinking windows.

    `picture` and `confidence` are `bordered`; `sources`, `targets` (H, W) bool are patches' middles; `matches`
    (H, W, 2) int32, row and column of a source, are improved in place; `cost` (H, W) float32 is scratch.
    """
    side = len(targets)
    state = np.uint32(2463534242 + 977 * seed)
    for row in range(side):
        for column in range(side):
            if targets[row, column]:
                cost[row, column] = _distance(
                    picture, confidence, row, column, matches[row, column, 0], matches[row, column, 1], np.float32(1e30)
                )
    for sweep in range(sweeps):
        step = 1 if sweep % 2 == 0 else -1
        for i in range(side):
            row = i if step == 1 else side - 1 - i
            for j in range(side):
                column = j if step == 1 else side - 1 - j
                if not targets[row, column]:
                    continue
                for axis in range(2):
                    y = row - step if axis == 0 else row
                    x = column if axis == 0 else column - step
                    if 0 <= y < side and 0 <= x < side and targets[y, x]:
                        other_row = matches[y, x, 0] + (step if axis == 0 else 0)
                        other_column = matches[y, x, 1] + (0 if axis == 0 else step)
                        if 0 <= other_row < side and 0 <= other_column < side and sources[other_row, other_column]:
                            d = _distance(picture, confidence, row, column, other_row, other_column, cost[row, column])
                            if d < cost[row, column]:
                                cost[row, column] = d
                                matches[row, column, 0], matches[row, column, 1] = other_row, other_column
                window = side
                while window >= 1:
                    state ^= state << np.uint32(13)
                    state ^= state >> np.uint32(17)
                    state ^= state << np.uint32(5)
                    other_row = matches[row, column, 0] + np.int32(state % np.uint32(2 * window + 1)) - window
                    state ^= state << np.uint32(13)
                    state ^= state >> np.uint32(17)
                    state ^= state << np.uint32(5)
                    other_column = matches[row, column, 1] + np.int32(state % np.uint32(2 * window + 1)) - window
                    if 0 <= other_row < side and 0 <= other_column < side and sources[other_row, other_column]:
                        d = _distance(picture, confidence, row, column, other_row, other_column, cost[row, column])
                        if d < cost[row, column]:
                            cost[row, column] = d
                            matches[row, column, 0], matches[row, column, 1] = other_row, other_column
                    window //= 2


@kernel
def vote(picture, confidence, hole, targets, matches):
    """Each pixel of a hole (H, W) bool becomes the mean of what the patches over it say, confident ones counting more.

    `picture` is `bordered` and changed in place; `confidence` (H, W) is a patch's middle's.
    """
    side = len(hole)
    votes = np.zeros_like(picture)
    width = picture.shape[1]
    for row in range(side):
        for column in range(side):
            if targets[row, column]:
                weight = confidence[row, column] ** 2
                other_row, other_column = matches[row, column, 0], matches[row, column, 1]
                for down in range(2 * RADIUS + 1):
                    _add_row(
                        votes,
                        (row + down) * width + CHANNELS * column,
                        picture,
                        (other_row + down) * width + CHANNELS * other_column,
                        weight,
                    )
    for row in range(side):
        for column in range(side):
            if hole[row, column]:
                first = CHANNELS * (column + RADIUS)
                total = votes[row + RADIUS, first + 3]
                for channel in range(3):
                    picture[row + RADIUS, first + channel] = votes[row + RADIUS, first + channel] / total


@kernel
def _distance(picture, confidence, row, column, other_row, other_column, limit):
    """Confident squared difference of two patches, cut at the picture's border; given up once it exceeds `limit`."""
    width = picture.shape[1]
    total = np.float32(0)
    for down in range(2 * RADIUS + 1):
        total += _row_difference(
            picture,
            confidence,
            (row + down) * width + CHANNELS * column,
            (other_row + down) * width + CHANNELS * other_column,
        )
        if total >= limit:
            return total
    return total


def _row_vectors(s: Simd):
    """Offsets of the vectors that make up a patch's row, and which of their lanes lie in it."""
    for offset in range(0, ROW, WIDTH):
        yield const_i64(offset), s.iota() < ROW - offset


@intrinsic
def _row_difference(tyctx, picture, confidence, at, other):
    """Confident squared difference of the patch rows that begin at two numbers of a picture."""
    signature = types.float32(picture, confidence, types.int64, types.int64)

    def codegen(context, b, signature, args):
        s = Simd(b)
        pixels, weights = (array_pointer(context, b, signature.args[k], args[k]) for k in (0, 1))

        def load(start, at, offset) -> Lanes:
            return s.load(b.gep(start, [b.add(at, offset)]))

        total = s.f32(0.0)
        for offset, inside in _row_vectors(s):
            difference = load(pixels, args[2], offset) - load(pixels, args[3], offset)
            weight = inside.select(load(weights, args[2], offset), 0.0)
            total = s.fma(difference * difference, weight, total)
        return s.sum(total)

    return signature, codegen


@intrinsic
def _add_row(tyctx, votes, at, picture, other, weight):
    """Add a weight times a picture's patch row that begins at number `other` to the votes from number `at` on."""
    signature = types.void(votes, types.int64, picture, types.int64, types.float32)

    def codegen(context, b, signature, args):
        s = Simd(b)
        sums, pixels = (array_pointer(context, b, signature.args[k], args[k]) for k in (0, 2))
        for offset, inside in _row_vectors(s):
            target = b.gep(sums, [b.add(args[1], offset)])
            source = s.load(b.gep(pixels, [b.add(args[3], offset)]))
            s.store(s.fma(inside.select(args[4], 0.0), source, s.load(target)), target)
        return context.get_dummy_value()

    return signature, codegen
