"""The CPU backend: compiled kernels (kernels.py) driven by a few plain Python threads.

A frame is two rounds of parallel work with one barrier between them:

1. *project*: each thread takes a run of Gaussians.
2. *bands*: the image's tile rows are cut into bands of about equal cost (the projection counted it); each band selects
   its own Gaussians, sorts them, bins them into tiles and blends, without looking at any other band.

Every pixel is blended by exactly one band in depth order, so the picture does not depend on how many threads ran.
Buffers live in workspaces that are lent to one call at a time: any number of renders may run at once.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import torch

from ..errors import InputError
from . import kernels
from .cpus import available_cpus
from .kernels import TILE_H, TILE_W
from .semantics import check_size

BANDS_PER_THREAD = 2
BAND_OVERHEAD = 200  # cost of an empty tile row, in 8-pixel groups
MAX_PAIRS = 1 << 29  # entries of one band's list (2 GB); reached only by millions of huge Gaussians
PARALLEL_FROM = 2000  # Gaussians; below, handing work to threads costs more than it saves


def default_threads(n: int) -> int:
    """Threads for a frame of n Gaussians."""
    return available_cpus() if n >= PARALLEL_FROM else 1


_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # threads do not survive a fork; a fresh pool is made on demand


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(available_cpus(), thread_name_prefix="mggtalk-raster")
    return _pool


def run_parallel(tasks: int, threads: int, work: Callable[[int], None]) -> None:
    """work(0) .. work(tasks - 1), shared between the calling thread and threads - 1 helpers."""
    queue = deque(range(tasks))

    def drain() -> None:
        while True:
            try:
                task = queue.popleft()
            except IndexError:
                return
            work(task)

    helpers = [_threads().submit(drain) for _ in range(min(threads, tasks) - 1)]
    try:
        drain()
    finally:
        wait(helpers)  # whatever happened, nobody works on the buffers any more
    for helper in helpers:
        helper.result()


class _Band:
    """Scratch of one band: sort entries, tile counts, lists and one tile's pixels."""

    def __init__(self):
        self.lists = np.zeros(1 << 15, np.int32)
        self.digits = np.zeros((3, 1 << kernels.RADIX_BITS), np.int32)
        self.n = self.tiles = self.buffer_size = -1

    def fit(self, n: int, tiles: int, planes: int) -> None:
        if self.n < n:
            self.n = n
            self.entries_a, self.entries_b = np.empty(n, np.uint64), np.empty(n, np.uint64)
        if self.tiles < tiles:
            self.tiles = tiles
            self.counts = np.empty(tiles + 1, np.int32)
        if self.buffer_size < kernels.tile_buffer_size(planes):
            self.buffer_size = kernels.tile_buffer_size(planes)
            self.buffer = np.empty(self.buffer_size, np.float32)


class Workspace:
    """All buffers of one frame in flight (layouts in kernels.py); they only ever grow."""

    def __init__(self):
        self.n = self.stride = 0
        self.bands: list[_Band] = []
        self.gradient_memory = np.empty(0, np.float32)

    def fit(self, n: int, planes: int, bands: int, tiles: int) -> None:
        stride = kernels.record_length(planes)
        if self.n < n or self.stride < stride:
            self.n, self.stride = max(n, self.n), max(stride, self.stride)
            self.record_memory = np.empty(self.n * self.stride + 16, np.float32)
            self.boxes, self.depths = np.empty((self.n, 4), np.int16), np.empty(self.n, np.float32)
        # Start records on a 64-byte boundary: each then is exactly one cache line (P <= 7).
        start = (-self.record_memory.ctypes.data % 64) // 4
        self.records = self.record_memory[start : start + n * stride].reshape(n, stride)
        while len(self.bands) < bands:
            self.bands.append(_Band())
        for band in self.bands[:bands]:
            band.fit(n, tiles, planes)

    def gradient_rows(self, bands: int, n: int) -> np.ndarray:
        """(bands, n, 16) float32, uninitialised: the backward pass clears the rows it uses."""
        size = bands * n * kernels.GRADIENT
        if len(self.gradient_memory) < size:
            self.gradient_memory = np.empty(size, np.float32)
        return self.gradient_memory[:size].reshape(bands, n, kernels.GRADIENT)


_idle_workspaces: deque[Workspace] = deque(maxlen=16)


def borrow_workspace() -> Workspace:
    """A workspace nobody else uses; give it back with `return_workspace`."""
    try:
        return _idle_workspaces.pop()
    except IndexError:
        return Workspace()


def return_workspace(workspace: Workspace) -> None:
    _idle_workspaces.append(workspace)


def camera_tuple(viewmat: np.ndarray, K: np.ndarray, width: int, height: int) -> tuple[np.float32, ...]:
    """The 22 floats the projection kernel wants (kernels.project); its Jacobian is frozen 15 % beyond the edges."""
    V, K = np.asarray(viewmat, np.float64), np.asarray(K, np.float64)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    limits = (-cx / fx - margin_x, (width - cx) / fx + margin_x, -cy / fy - margin_y, (height - cy) / fy + margin_y)
    return tuple(np.float32(v) for v in (*V[:3].ravel(), fx, fy, cx, cy, *limits, width, height))


def pad_to_group(n: int, *arrays: np.ndarray | None) -> list[np.ndarray | None]:
    """Contiguous float32 arrays of at least 8 rows; added rows are zero, hence opacity 0, hence not drawn."""
    out = []
    for array in arrays:
        if array is not None:
            array = np.ascontiguousarray(array, np.float32)
            if n < 8:
                array = np.concatenate([array, np.zeros((8 - n, *array.shape[1:]), np.float32)])
        out.append(array)
    return out


class Frame:
    """One projected frame in a workspace: `bands()` blends it, and the backward pass looks at it again."""

    def __init__(self, workspace, gaussians, planes, camera, width, height, threads):
        """gaussians: (means, covars | None, quats | None, scales | None, opacities, colors), from `pad_to_group`."""
        self.workspace, self.threads = workspace, threads
        self.n = n = len(gaussians[0])
        self.channels, self.planes = (0,) * gaussians[5].shape[1], (0,) * planes
        self.tiles_x, self.tile_rows = -(-width // TILE_W), -(-height // TILE_H)
        bands = 1 if threads == 1 else min(BANDS_PER_THREAD * threads, self.tile_rows)
        workspace.fit(n, planes, bands, self.tiles_x * self.tile_rows)
        self.gaussians, self.camera = gaussians, camera
        means, covars, quats, scales, opacities, colors = gaussians
        cost = np.empty((threads, self.tile_rows), np.int64)
        extent = np.empty((threads, 2, 8), np.float32)
        self.cuts = cuts = [n * t // threads // 8 * 8 for t in range(threads)] + [n]

        def work(t: int) -> None:
            kernels.project(
                cuts[t], cuts[t + 1], means, covars, quats, scales, opacities, colors, self.channels, self.planes,
                camera, workspace.records, workspace.boxes, workspace.depths, extent[t], cost[t],
            )  # fmt: skip

        run_parallel(threads, threads, work)
        nearest, farthest = extent[:, 0].min(), extent[:, 1].max()
        self.lowest, self.highest = int(nearest.view(np.uint32)), int(farthest.view(np.uint32))
        if nearest > farthest:  # nothing is drawn
            self.lowest = self.highest
        total = np.cumsum(cost.sum(0) + BAND_OVERHEAD)
        edges = np.searchsorted(total, total[-1] * np.arange(1, bands) / bands)
        self.edges = np.unique(np.concatenate([[0], edges, [self.tile_rows]]))  # no empty bands

    def for_each_band(self, work: Callable[[_Band, int, int], None]) -> None:
        """work(band, first tile row, end) for every band, in parallel."""
        bands = self.workspace.bands
        run_parallel(
            len(self.edges) - 1, self.threads, lambda b: work(bands[b], int(self.edges[b]), int(self.edges[b + 1]))
        )

    def bin(self, band: _Band, row0: int, row1: int) -> None:
        """Sort and bin one band's Gaussians, growing its list if they do not fit."""
        w = self.workspace
        while True:
            pairs = kernels.sort_and_bin(
                self.n, self.tiles_x, row0, row1, w.boxes, w.depths.view(np.uint32), self.lowest, self.highest,
                band.entries_a, band.entries_b, band.digits, band.counts, band.lists,
            )  # fmt: skip
            if pairs >= 0:
                return
            if -pairs > MAX_PAIRS:
                raise InputError(f"the Gaussians cover too many pixels ({-pairs} tile entries); are they too large?")
            band.lists = np.zeros(-pairs * 5 // 4, np.int32)

    def blend(self, rgb: np.ndarray, alpha: np.ndarray, depth: np.ndarray) -> None:
        """Fill rgb (H, W, C), alpha (H, W), depth (H, W) float32."""

        def work(band: _Band, row0: int, row1: int) -> None:
            self.bin(band, row0, row1)
            kernels.blend(
                self.tiles_x, row0, row1, self.channels, self.planes, self.workspace.records, band.counts, band.lists,
                band.buffer, rgb, alpha, depth,
            )  # fmt: skip

        self.for_each_band(work)

    def blend_uint8(self, background: np.ndarray, rgb: np.ndarray, alpha: np.ndarray) -> None:
        """Fill rgb (H, W, 3) and alpha (H, W) uint8 over background (H, W, 3) uint8."""

        def work(band: _Band, row0: int, row1: int) -> None:
            self.bin(band, row0, row1)
            kernels.blend_uint8(
                self.tiles_x, row0, row1, self.planes, self.workspace.records, band.counts, band.lists, band.buffer,
                background, rgb, alpha,
            )  # fmt: skip

        self.for_each_band(work)


    def backward(self, picture, gradients) -> tuple:
        """Gradients of (means, covars | None, quats | None, scales | None, opacities, colors) after `blend`.

        picture: (rgb, alpha, depth) as blended; gradients: dL/d of each, float32 C-contiguous.
        """
        w = self.workspace
        rows = w.gradient_rows(len(self.edges) - 1, self.n)

        def work(band: _Band, row0: int, row1: int) -> None:
            mine = np.searchsorted(self.edges, row0)
            kernels.blend_backward(
                self.n, self.tiles_x, row0, row1, self.channels, self.planes, w.boxes, w.records, band.counts,
                band.lists, band.buffer, *picture, *gradients, rows[mine],
            )  # fmt: skip

        self.for_each_band(work)
        means, covars, quats, scales, opacities, colors = self.gaussians
        out = [None if array is None else np.empty_like(array) for array in self.gaussians]
        cuts = self.cuts

        def carry(t: int) -> None:
            kernels.chain(
                cuts[t], cuts[t + 1], means, covars, quats, scales, opacities, self.channels, self.planes, self.camera,
                w.boxes, self.edges, rows, *out,
            )  # fmt: skip

        run_parallel(self.threads, self.threads, carry)
        return tuple(out)


class _Lease:
    """A workspace on loan; it goes back when the last holder (the autograd graph) lets go of this object."""

    def __init__(self):
        self.workspace = borrow_workspace()

    def __del__(self):
        return_workspace(self.workspace)


class Rasterize(torch.autograd.Function):
    """The kernels as one differentiable torch operation; float32 CPU tensors.

    The forward pass's buffers stay on loan until the graph is freed, so the backward pass need not sort again.
    """

    @staticmethod
    def forward(ctx, means, covars, quats, scales, opacities, colors, viewmat, K, width, height, threads=None):
        """threads: None for all CPUs. -> rgb (H, W, C), alpha (H, W), depth (H, W), no background."""
        lease = _Lease()
        inputs = (means, covars, quats, scales, opacities, colors)
        n, channels = colors.shape
        gaussians = pad_to_group(n, *(None if t is None else t.detach().numpy() for t in inputs))
        camera = camera_tuple(viewmat.detach().numpy(), K.detach().numpy(), width, height)
        threads = threads or default_threads(n)
        frame = Frame(lease.workspace, gaussians, channels + 1, camera, width, height, threads)
        rgb = np.empty((height, width, channels), np.float32)
        alpha, depth = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
        frame.blend(rgb, alpha, depth)
        picture = torch.from_numpy(rgb), torch.from_numpy(alpha), torch.from_numpy(depth)
        if any(ctx.needs_input_grad):
            ctx.frame, ctx.lease, ctx.n = frame, lease, n
            ctx.save_for_backward(*picture)
        return picture

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *gradients):
        picture = [t.numpy() for t in ctx.saved_tensors]
        gradients = [np.ascontiguousarray(g.numpy(), np.float32) for g in gradients]
        out = ctx.frame.backward(picture, gradients)
        return *(None if g is None else torch.from_numpy(g[: ctx.n]) for g in out), *[None] * 5


class CpuRenderer:
    """Numpy frames for video: no autograd, no depth, uint8 straight from the blending kernel."""

    def __init__(self, max_threads: int | None = None):
        self.threads = max_threads or available_cpus()

    def render_uint8(self, means, covars6, opacities, colors, viewmat, K, width, height, background, *, out=None):
        """One finished frame over a background.

        means (N, 3), covars6 (N, 6) xx,xy,xz,yy,yz,zz, opacities (N,), colors (N, 3) 0..1; viewmat (4, 4), K (3, 3);
        background uint8 (height, width, 3) or (3,). Returns rgb (height, width, 3), alpha (height, width) uint8, which
        are new arrays unless `out` = (rgb, alpha) is given.

        Raises:
            InputError: shapes that do not fit together, or an image size out of range.
        """
        n = len(means)
        shapes = [
            ("means", means, (n, 3)), ("covars6", covars6, (n, 6)), ("opacities", opacities, (n,)),
            ("colors", colors, (n, 3)), ("viewmat", viewmat, (4, 4)), ("K", K, (3, 3)),
        ]  # fmt: skip
        picture = (height, width, 3)
        background = np.asarray(background, np.uint8)
        shapes.append(("background", background, (3,) if background.ndim == 1 else picture))
        if out is None:
            check_size(width, height)
            out = np.empty(picture, np.uint8), np.empty(picture[:2], np.uint8)
        shapes += [("out[0]", out[0], picture), ("out[1]", out[1], picture[:2])]
        for name, array, shape in shapes:
            if np.shape(array) != shape:
                raise InputError(f"{name} has shape {np.shape(array)}, expected {shape}")
        if any(array.dtype != np.uint8 or not array.flags.c_contiguous for array in out):
            raise InputError("out needs C-contiguous uint8 arrays")
        # Read-only in every case, since numba compiles read-only and writable arrays separately.
        background = np.ascontiguousarray(np.broadcast_to(background, picture)).view()
        background.flags.writeable = False
        gaussians = pad_to_group(len(means), means, covars6, None, None, opacities, colors)
        lease = _Lease()
        camera = camera_tuple(viewmat, K, width, height)
        Frame(lease.workspace, gaussians, 3, camera, width, height, self.threads).blend_uint8(background, *out)
        return out
