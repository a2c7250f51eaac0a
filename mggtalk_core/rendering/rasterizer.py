"""`render`: 3D Gaussians -> image, alpha, depth. One interface, three backends with the same semantics (semantics.py).

    gsplat  CUDA tensors and gsplat >= 1.5 installed
    cpu     numba kernels on a few threads; forward and backward
    torch   plain torch, any device; the reference, and the fallback where numba is missing

Camera: OpenCV (x right, y down, z forward), pixel centres at +0.5. Colours are blended as they are (sRGB 0..1).
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from dataclasses import dataclass

import torch

from ..errors import InputError
from . import rasterize_torch
from .semantics import check_size

BACKENDS = ("auto", "cpu", "torch", "gsplat")
MAX_CHANNELS = 8
UPPER_TRIANGLE = [0, 1, 2, 4, 5, 8]  # xx, xy, xz, yy, yz, zz of a flattened 3x3


@dataclass(frozen=True)
class Rendered:
    """A rendered view (or a batch of views: every field gains a leading B)."""

    rgb: torch.Tensor  # (H, W, C), over the background if one was given
    alpha: torch.Tensor  # (H, W) 0..1
    depth: torch.Tensor  # (H, W) m, sum of weight * camera z; divide by alpha for the expected depth


@functools.cache
def _available(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@functools.cache
def _warn_numba_missing() -> None:
    warnings.warn("numba is not installed: Gaussians are rendered by plain torch, about 100x slower on the CPU "
                  "(pip install numba)", stacklevel=3)  # fmt: skip


def choose_backend(device: torch.device, name: str = "auto") -> str:
    """The backend that will run for tensors on `device`. Raises InputError for a name that can't run here."""
    if name not in BACKENDS:
        raise InputError(f"unknown rasterizer backend {name!r}; choose one of {', '.join(BACKENDS)}")
    if name == "gsplat":
        if not _available("gsplat"):
            raise InputError("backend 'gsplat' is not installed; pip install gsplat, or choose 'auto'")
        if device.type != "cuda":
            raise InputError(f"backend 'gsplat' needs CUDA tensors, got {device.type!r}; choose 'auto' or 'cpu'")
        return name
    if name == "cpu" and not _available("numba"):
        raise InputError("backend 'cpu' needs numba; pip install numba, or choose 'torch'")
    if name != "auto":
        return name
    if device.type == "cuda" and _available("gsplat"):
        return "gsplat"
    if device.type == "cpu":
        if _available("numba"):
            return "cpu"
        _warn_numba_missing()
    return "torch"


def render(
    means: torch.Tensor,
    quats: torch.Tensor | None,
    scales: torch.Tensor | None,
    opacities: torch.Tensor,
    colors: torch.Tensor,
    viewmat: torch.Tensor,
    K: torch.Tensor,
    width: int,
    height: int,
    background: torch.Tensor | None = None,
    *,
    covars: torch.Tensor | None = None,
    backend: str = "auto",
) -> Rendered:
    """Render N Gaussians; differentiable in every Gaussian input and the background.

    A Gaussian with a value that is not finite, or behind the near plane, is not drawn; a zero quaternion means no
    rotation. The `cpu` and `gsplat` backends compute in float32, `torch` in the type of `means` (at least float32).

    Args:
        means: (N, 3) world, m.
        quats, scales: (N, 4) wxyz of any length and (N, 3) m; or None, with `covars`.
        opacities: (N,) 0..1.
        colors: (N, C), C <= 8.
        viewmat: (4, 4) world -> camera.
        K: (3, 3) pixels.
        background: (C,) or (H, W, C) behind the Gaussians.
        covars: (N, 6) xx, xy, xz, yy, yz, zz or (N, 3, 3), world axes, m^2; instead of quats and scales.
        backend: "auto", "cpu", "torch" or "gsplat".

    Any of the tensors may have one more leading dimension B: then B views are rendered, the others being shared.

    Raises:
        InputError: shapes that do not fit together, an image size out of range, a backend that can't run here, or
            gradients asked for viewmat or K of a compiled backend ("auto" then takes "torch").
    """
    if (covars is None) == (quats is None and scales is None) or (quats is None) != (scales is None):
        raise InputError("render needs either quats and scales, or covars: exactly one of the two")
    if covars is not None and covars.shape[-2:] == (3, 3) and covars.ndim > 2:
        covars = covars.flatten(-2)[..., UPPER_TRIANGLE]
    gaussians = {"means": means, "covars": covars, "quats": quats, "scales": scales, "opacities": opacities}
    gaussians |= {"colors": colors}
    batch = _check(gaussians, viewmat, K, width, height)
    differentiable_camera = torch.is_grad_enabled() and (viewmat.requires_grad or K.requires_grad)
    if differentiable_camera and backend == "auto":
        backend = "torch"
    backend = choose_backend(means.device, backend)
    if differentiable_camera and backend != "torch":
        raise InputError(f"backend {backend!r} has no gradients for viewmat and K; choose backend 'torch'")
    if backend != "torch" or means.dtype in (torch.float16, torch.bfloat16):
        gaussians = {name: None if t is None else t.float() for name, t in gaussians.items()}
    dtype, device = gaussians["means"].dtype, means.device
    gaussians = {name: None if t is None else t.to(device, dtype) for name, t in gaussians.items()}
    viewmat, K = viewmat.to(device, dtype), K.to(device, dtype)
    draw = {"cpu": _draw_cpu, "torch": _draw_torch, "gsplat": _draw_gsplat}[backend]
    rgb, alpha, depth = draw(gaussians, viewmat, K, int(width), int(height), batch)
    if background is not None:
        rgb = rgb + (1 - alpha)[..., None] * _fit_background(background.to(device, dtype), rgb)
    return Rendered(rgb, alpha, depth)


ROW_SHAPES = {"means": (3,), "covars": (6,), "quats": (4,), "scales": (3,), "opacities": (), "colors": (None,)}


def _check(gaussians: dict[str, torch.Tensor | None], viewmat, K, width, height) -> int | None:
    """The batch size, or None for a single view; every shape checked."""
    check_size(width, height)
    n = gaussians["means"].shape[-2] if gaussians["means"].ndim > 1 else -1
    wanted = {name: (n, *row) for name, row in ROW_SHAPES.items()} | {"viewmat": (4, 4), "K": (3, 3)}
    batches = {}
    for name, tensor in (gaussians | {"viewmat": viewmat, "K": K}).items():
        if tensor is None:
            continue
        shape = wanted[name]
        tail = tuple(tensor.shape[max(tensor.ndim - len(shape), 0) :])
        fits = len(tail) == len(shape) and all(b is None or a == b for a, b in zip(tail, shape))
        if not fits or tensor.ndim > len(shape) + 1:
            expected = ", ".join("C" if size is None else str(size) for size in shape)
            raise InputError(f"{name} has shape {tuple(tensor.shape)}, expected ({expected}), or one more dimension B")
        if tensor.ndim > len(shape):
            batches[name] = tensor.shape[0]
    if not 1 <= gaussians["colors"].shape[-1] <= MAX_CHANNELS:
        raise InputError(f"colors have {gaussians['colors'].shape[-1]} channels; 1 to {MAX_CHANNELS} can be rendered")
    if len(set(batches.values())) > 1:
        raise InputError(f"batch sizes differ: {', '.join(f'{name} {size}' for name, size in batches.items())}")
    return next(iter(batches.values()), None)


def _fit_background(background: torch.Tensor, rgb: torch.Tensor) -> torch.Tensor:
    """(C,), (B, C), (H, W, C) or (B, H, W, C) made to broadcast against rgb. Raises InputError for another shape."""
    allowed = {tuple(rgb.shape[-1:]), tuple(rgb.shape[-3:]), tuple(rgb.shape), (*rgb.shape[:-3], rgb.shape[-1])}
    if tuple(background.shape) not in allowed:
        raise InputError(f"background has shape {tuple(background.shape)}, expected one of {sorted(allowed)}")
    return background[:, None, None] if background.ndim == 2 else background


def _views(gaussians, viewmat, K, batch):
    """One (gaussians, viewmat, K) per view of a batch."""
    rank = {name: len(row) + 2 for name, row in ROW_SHAPES.items()}

    def pick(tensor, batched_rank, k):
        return tensor[k] if tensor is not None and tensor.ndim == batched_rank else tensor

    for k in range(batch):
        yield {name: pick(t, rank[name], k) for name, t in gaussians.items()}, pick(viewmat, 3, k), pick(K, 3, k)


def _drop_bad(gaussians: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor | None]:
    """Gaussians that hold NaN or infinity made harmless and invisible (the CPU kernels do this by themselves)."""
    good = torch.ones_like(gaussians["opacities"], dtype=torch.bool)
    for name, tensor in gaussians.items():
        if tensor is not None:
            finite = torch.isfinite(tensor)
            good = good & (finite if name == "opacities" else finite.all(-1))
    return {
        name: None if t is None else torch.where(good if name == "opacities" else good[..., None], t, 0)
        for name, t in gaussians.items()
    }


def _stacked(draw, gaussians, viewmat, K, batch):
    """draw(gaussians, viewmat, K) for one view, or stacked over a batch."""
    if batch is None:
        return draw(gaussians, viewmat, K)
    views = [draw(*view) for view in _views(gaussians, viewmat, K, batch)]
    if not views:
        raise InputError("the batch is empty; give at least one view")
    return tuple(torch.stack(field) for field in zip(*views))


def _draw_torch(gaussians, viewmat, K, width, height, batch):
    def draw(gaussians, viewmat, K):
        g = _drop_bad(gaussians)
        covars = g["covars"] if g["covars"] is not None else rasterize_torch.covariance(g["quats"], g["scales"])
        return rasterize_torch.render(g["means"], covars, g["opacities"], g["colors"], viewmat, K, width, height)

    return _stacked(draw, gaussians, viewmat, K, batch)


def _draw_cpu(gaussians, viewmat, K, width, height, batch):
    from .rasterize_cpu import Rasterize

    def draw(g, viewmat, K):
        order = ("means", "covars", "quats", "scales", "opacities", "colors")
        return Rasterize.apply(*(g[name] for name in order), viewmat, K, width, height)

    return _stacked(draw, gaussians, viewmat, K, batch)


def _draw_gsplat(gaussians, viewmat, K, width, height, batch):
    from . import rasterize_gsplat

    return rasterize_gsplat.render(_drop_bad(gaussians), viewmat, K, width, height, batch)
