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

BACKENDS = ("auto", "cpu", "torch", "gsplat")
MAX_CHANNELS = 8


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
    """Render N Gaussians.

    means (N, 3) world; either quats (N, 4) wxyz (any length) with scales (N, 3), or covars (N, 6) xx,xy,xz,yy,yz,zz or
    (N, 3, 3) in world axes; opacities (N,) 0..1; colors (N, C <= 8); viewmat (4, 4) world -> camera; K (3, 3) pixels;
    background (C,) or (H, W, C).
    """
    if (covars is None) == (quats is None or scales is None):
        raise InputError("render needs either quats and scales or covars, exactly one of the two")
    if covars is not None and covars.shape[-2:] == (3, 3):
        covars = covars.flatten(-2)[..., [0, 1, 2, 4, 5, 8]]
    backend = choose_backend(means.device, backend)
    if backend == "torch":
        covars = rasterize_torch.covariance(quats, scales) if covars is None else covars
        rgb, alpha, depth = rasterize_torch.render(means, covars, opacities, colors, viewmat, K, width, height)
    else:
        from . import rasterize_cpu

        arrays = [None if t is None else t.detach().float().numpy() for t in (means, covars, quats, scales, opacities, colors)]
        out = rasterize_cpu.render_float(*arrays, viewmat.numpy(), K.numpy(), width, height, rasterize_cpu.available_cpus())
        rgb, alpha, depth = (torch.from_numpy(a) for a in out)
    if background is not None:
        rgb = rgb + (1 - alpha)[..., None] * background
    return Rendered(rgb, alpha, depth)
