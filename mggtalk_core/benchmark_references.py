"""gsplat's own torch code, made to run on a CPU: what `mggtalk benchmark render` and the parity tests compare with.

Projection, tile intersection and pixel accumulation are gsplat 1.5's functions (gsplat.cuda._torch_impl). Three of
their callees exist only for CUDA and are replaced here by code that does the same: the per-pixel search for the
Gaussians that count (numba), nerfacc's transmittance product and nerfacc's accumulation (torch). `_isect_tiles` is a
Python loop over the Gaussians and is replaced by a vectorised equivalent, which flatters the reference.
"""

from __future__ import annotations

import functools
import math

import numba
import numpy as np
import torch


def available() -> bool:
    """Whether gsplat and nerfacc are installed (neither needs CUDA to be imported)."""
    import importlib.util

    return all(importlib.util.find_spec(name) for name in ("gsplat", "nerfacc", "jaxtyping", "rich"))


def gsplat_torch(means, quats, scales, opacities, colors, viewmat, K, width, height):
    """gsplat's torch reference, float32 CPU tensors: rgb (H, W, C), alpha (H, W), depth (H, W). Differentiable."""
    ti = _patched_torch_impl()
    covars, _ = ti._quat_scale_to_covar_preci(quats, scales, True, False)
    radii, means2d, depths, conics, _ = ti._fully_fused_projection(means, covars, viewmat[None], K[None], width, height)
    tiles_x, tiles_y = math.ceil(width / 16), math.ceil(height / 16)
    ids, offsets = _tile_lists(means2d[0].detach(), radii[0], depths[0].detach(), tiles_x, tiles_y)
    values = torch.cat([colors[None], depths[..., None]], -1)
    image, alpha = ti._rasterize_to_pixels(
        means2d, conics, values, opacities[None], width, height, 16, offsets, ids
    )
    return image[0, ..., :-1], alpha[0, ..., 0], image[0, ..., -1]


@functools.cache
def _patched_torch_impl():
    import nerfacc
    from gsplat.cuda import _torch_impl, _wrapper

    nerfacc.render_weight_from_alpha = _weights_from_alpha
    nerfacc.accumulate_along_rays = _accumulate
    _wrapper.rasterize_to_indices_in_range = _indices_in_range
    return _torch_impl


def _weights_from_alpha(alphas, ray_indices=None, n_rays=None, **_):
    log_t = torch.log1p(-alphas.double())
    before = torch.cumsum(log_t, 0) - log_t
    first = torch.ones_like(ray_indices, dtype=torch.bool)
    first[1:] = ray_indices[1:] != ray_indices[:-1]
    transmittance = torch.exp(before - before[first][torch.cumsum(first, 0) - 1]).float()
    return alphas * transmittance, transmittance


def _accumulate(weights, values=None, ray_indices=None, n_rays=None):
    source = weights[:, None] if values is None else weights[:, None] * values
    return torch.zeros((n_rays, source.shape[1]), dtype=source.dtype).index_add_(0, ray_indices, source)


def _tile_lists(means2d, radii, depths, tiles_x, tiles_y):
    """(Gaussian ids sorted by tile and depth, first entry of every tile (1, tiles_y, tiles_x))."""
    radius, center = radii.float() / 16, means2d / 16
    limit = torch.tensor([tiles_x, tiles_y])
    low = torch.minimum(torch.floor(center - radius).long().clamp(min=0), limit)
    size = torch.minimum(torch.ceil(center + radius).long().clamp(min=0), limit) - low
    count = size.prod(-1) * (radii > 0).all(-1)
    g = torch.repeat_interleave(torch.arange(len(count)), count)
    k = torch.arange(len(g)) - (torch.cumsum(count, 0) - count)[g]
    tile = (low[g, 1] + k // size[g, 0]) * tiles_x + low[g, 0] + k % size[g, 0]
    key, order = torch.sort((tile << 32) | depths.contiguous().view(torch.int32).long()[g], stable=True)
    offsets = torch.searchsorted(key >> 32, torch.arange(tiles_x * tiles_y)).reshape(1, tiles_y, tiles_x).int()
    return g[order].int(), offsets


@numba.njit(nogil=True)
def _walk(start, stop, T, means2d, conics, opacities, width, height, tile, offsets, ids, gaussians, pixels, store):
    tiles_x, total = offsets.shape[1], 0
    flat = offsets.ravel()
    for y in range(height):
        for x in range(width):
            t = (y // tile) * tiles_x + x // tile
            end = flat[t + 1] if t + 1 < flat.size else ids.shape[0]
            left = T[y, x]
            for k in range(flat[t] + start * tile * tile, min(end, flat[t] + stop * tile * tile)):
                g = ids[k]
                dx, dy = means2d[g, 0] - np.float32(x + 0.5), means2d[g, 1] - np.float32(y + 0.5)
                sigma = np.float32(0.5) * (conics[g, 0] * dx * dx + conics[g, 2] * dy * dy) + conics[g, 1] * dx * dy
                alpha = min(np.float32(0.999), opacities[g] * np.exp(-sigma))
                if sigma < 0 or alpha < np.float32(1 / 255):
                    continue
                after = left * (np.float32(1) - alpha)
                if after <= np.float32(1e-4):
                    break
                if store:
                    gaussians[total], pixels[total] = g, y * width + x
                total += 1
                left = after
    return total


def _indices_in_range(start, stop, T, means2d, conics, opacities, width, height, tile, offsets, ids):
    arrays = [a[0].detach().numpy() for a in (T, means2d, conics, opacities)]
    common = (int(start), int(stop), *arrays, width, height, tile, offsets[0].numpy(), ids.numpy())
    empty = np.empty(0, np.int64)
    total = _walk(*common, empty, empty, False)
    gaussians, pixels = np.empty(total, np.int64), np.empty(total, np.int64)
    _walk(*common, gaussians, pixels, True)
    return torch.from_numpy(gaussians), torch.from_numpy(pixels), torch.zeros(total, dtype=torch.int64)
