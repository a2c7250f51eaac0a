"""gsplat's classic rasterization written the plain way: every Gaussian at every pixel. For tests; small scenes only."""

import torch


def dense_render(means, covars, opacities, colors, viewmat, K, width, height):
    """rgb (H, W, C), alpha (H, W), depth (H, W); covars (N, 3, 3). Follows gsplat 1.5 `_torch_impl` line by line:
    EWA projection, +0.3 px^2, tiles of 16 px within ceil(3.33 sigma), cap 0.999, skip < 1/255, stop at T <= 1e-4."""
    R, t = viewmat[:3, :3], viewmat[:3, 3]
    camera = means @ R.T + t
    x, y, z = camera.unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    tan_x, tan_y = 0.5 * width / fx, 0.5 * height / fy
    tx = z * torch.clamp(x / z, min=-(cx / fx + 0.3 * tan_x), max=(width - cx) / fx + 0.3 * tan_x)
    ty = z * torch.clamp(y / z, min=-(cy / fy + 0.3 * tan_y), max=(height - cy) / fy + 0.3 * tan_y)
    zero = torch.zeros_like(z)
    J = torch.stack([fx / z, zero, -fx * tx / z**2, zero, fy / z, -fy * ty / z**2], -1).reshape(-1, 2, 3)
    cov = J @ (R @ covars @ R.T) @ J.transpose(1, 2) + 0.3 * torch.eye(2, dtype=means.dtype)
    conic = torch.linalg.inv(cov)
    center = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    radius = torch.ceil(3.33 * torch.sqrt(cov.diagonal(dim1=1, dim2=2))).detach()

    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([xs, ys], -1).reshape(-1, 2)
    order = torch.argsort(z.detach(), stable=True)
    order = order[(z[order] > 0.01)]
    low, high = torch.floor((center - radius) / 16), torch.ceil((center + radius) / 16)  # tiles [low, high)
    tile = (pixels // 16)[:, None]
    hit = ((tile >= low[order]) & (tile < high[order])).all(-1)

    d = center[order] - (pixels[:, None].to(means.dtype) + 0.5)
    sigma = 0.5 * torch.einsum("pni,nij,pnj->pn", d, conic[order], d)
    alpha = torch.clamp(opacities[order] * torch.exp(-sigma), max=0.999)
    alpha = torch.where(hit & (alpha >= 1 / 255), alpha, 0)
    T = torch.cumprod(1 - alpha, 1)
    alpha = torch.where(T > 1e-4, alpha, 0)  # T only falls, so this is the stop rule
    before = torch.cumprod(torch.cat([torch.ones_like(T[:, :1]), 1 - alpha], 1), 1)
    weight = alpha * before[:, :-1]
    values = torch.cat([colors[order], z[order, None], torch.ones_like(z[order, None])], 1)
    image = (weight @ values).reshape(height, width, -1)
    return image[..., :-2], image[..., -1], image[..., -2]
