"""The torch backend: plain, portable, differentiable by autograd, on any device and in any float type.

It is the reference the compiled backends are tested against, and what runs where numba is missing. Every Gaussian is
expanded into the pixels of its box, pairs with alpha < 1/255 are dropped, the rest is sorted by (pixel, depth), and
the front-to-back products become a cumulative sum of log(1 - alpha) in float64 along that list.
"""

from __future__ import annotations

import torch

from .semantics import ALPHA_MAX, ALPHA_MIN, EPS2D, EXTENT, MIN_QUAT2, NEAR, T_MIN


def covariance(quats: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """R diag(scale^2) R^T as (N, 6) xx, xy, xz, yy, yz, zz, from (N, 4) wxyz (zero: no rotation) and (N, 3)."""
    zero = (quats.detach() ** 2).sum(-1, keepdim=True) <= MIN_QUAT2
    quats = torch.where(zero, quats.new_tensor([1.0, 0.0, 0.0, 0.0]), quats)
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    m = [torch.stack(row, -1) * scales for row in rows]
    return torch.stack([(m[a] * m[b]).sum(-1) for a, b in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))], -1)


def _project(means, covars, viewmat, K, width, height):
    """-> centre u, v (px), projected covariance a, b, c (px^2, EPS2D included), camera z."""
    x, y, z = (means @ viewmat[:3, :3].T + viewmat[:3, 3]).unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    x_z, y_z = x / z, y / z
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    tx = torch.minimum(torch.maximum(x_z, -cx / fx - margin_x), (width - cx) / fx + margin_x)
    ty = torch.minimum(torch.maximum(y_z, -cy / fy - margin_y), (height - cy) / fy + margin_y)
    p = (viewmat[0, :3] - tx[:, None] * viewmat[2, :3]) * (fx / z)[:, None]
    q = (viewmat[1, :3] - ty[:, None] * viewmat[2, :3]) * (fy / z)[:, None]
    full = covars[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].view(-1, 3, 3)
    cp, cq = (full @ p[:, :, None])[..., 0], (full @ q[:, :, None])[..., 0]
    return fx * x_z + cx, fy * y_z + cy, (p * cp).sum(-1) + EPS2D, (q * cp).sum(-1), (q * cq).sum(-1) + EPS2D, z


def render(means, covars, opacities, colors, viewmat, K, width, height):
    """One view of N Gaussians, all inputs finite: (rgb (H, W, C), alpha (H, W), depth (H, W)), no background.

    means (N, 3), covars (N, 6) world axes, opacities (N,), colors (N, C), viewmat (4, 4), K (3, 3).
    """
    with torch.no_grad():
        u, v, a, b, c, z = _project(means, covars, viewmat, K, width, height)
        det = a * c - b * b
        drawn = (z > NEAR) & (opacities >= ALPHA_MIN) & (det > 0) & torch.isfinite(u + v + a + c + det)
    # Only what is drawn enters the graph: no infinity of the others can turn a zero gradient into NaN.
    means, covars, opacities, colors = means[drawn], covars[drawn], opacities[drawn], colors[drawn]
    u, v, a, b, c, z = _project(means, covars, viewmat, K, width, height)
    det = a * c - b * b
    with torch.no_grad():
        reach = (2 * torch.log((opacities * 255).clamp(min=1))).clamp(max=EXTENT**2)
        rx, ry = (reach * a).sqrt() + 0.01, (reach * c).sqrt() + 0.01
        edges = [
            torch.ceil(u - rx - 0.5).clamp(0, width), torch.floor(u + rx - 0.5).clamp(-1, width - 1),
            torch.ceil(v - ry - 0.5).clamp(0, height), torch.floor(v + ry - 0.5).clamp(-1, height - 1),
        ]  # fmt: skip
        x0, x1, y0, y1 = [e.long() for e in edges]
        box_w = (x1 - x0 + 1).clamp(min=0)
        count = box_w * (y1 - y0 + 1).clamp(min=0)
        order = torch.argsort(z, stable=True)
        count = count[order]
        g = torch.repeat_interleave(order, count)
        k = torch.arange(len(g), device=g.device) - torch.repeat_interleave(torch.cumsum(count, 0) - count, count)
        px, py = x0[g] + k % box_w[g], y0[g] + k // box_w[g]

    def alphas(g, pixel_x, pixel_y):
        dx, dy = pixel_x + 0.5 - u[g], pixel_y + 0.5 - v[g]
        sigma = (0.5 * (c[g] * dx * dx + a[g] * dy * dy) - b[g] * dx * dy) / det[g]
        return (opacities[g] * torch.exp(-sigma)).clamp(max=ALPHA_MAX)

    def exclusive_log_t(alpha, first):
        """log of the transmittance before each pair; `first` marks the first pair of every pixel."""
        log_t = torch.log1p(-alpha.double())
        before = torch.cumsum(log_t, 0) - log_t
        return before - before[first][torch.cumsum(first, 0) - 1], log_t

    with torch.no_grad():
        alpha = alphas(g, px, py)
        keep = alpha >= ALPHA_MIN
        g, pixel, alpha = g[keep], (py * width + px)[keep], alpha[keep]
        pixel, by_pixel = torch.sort(pixel, stable=True)
        g, alpha = g[by_pixel], alpha[by_pixel]
        first = torch.ones_like(pixel, dtype=torch.bool)
        first[1:] = pixel[1:] != pixel[:-1]
        log_before, log_t = exclusive_log_t(alpha, first)
        alive = torch.exp(log_before + log_t) > T_MIN
        g, pixel, first = g[alive], pixel[alive], first[alive]
    alpha = alphas(g, pixel % width, pixel // width)
    weight = alpha * torch.exp(exclusive_log_t(alpha, first)[0]).to(alpha.dtype)
    values = torch.cat([colors[g], z[g][:, None], torch.ones_like(z[g])[:, None]], -1) * weight[:, None]
    image = values.new_zeros(height * width, values.shape[1]).index_add(0, pixel, values)
    image = image.view(height, width, -1)
    return image[..., :-2], image[..., -1], image[..., -2]
