"""The CUDA backend: gsplat >= 1.5's `rasterization`, called so that it means what the other backends compute.

Everything is a batch to gsplat. When only the cameras differ, the Gaussians are shared by C cameras (projected once per
camera, stored once); when any Gaussian tensor has a batch dimension, all get one, each with a single camera.
"""

from __future__ import annotations

from .semantics import EPS2D, NEAR

FULL_MATRIX = [0, 1, 2, 1, 3, 4, 2, 4, 5]  # xx, xy, xz, yy, yz, zz -> 3x3, row by row
ROW_RANKS = {"means": 2, "covars": 2, "quats": 2, "scales": 2, "opacities": 1, "colors": 2}


def render(gaussians, viewmat, K, width, height, batch):
    """rgb ([B,] H, W, C), alpha ([B,] H, W), depth ([B,] H, W) without background.

    gaussians: dict of finite float32 CUDA tensors means, covars (N, 6) | None, quats, scales | None, opacities, colors,
    each with an optional leading B; viewmat ([B,] 4, 4); K ([B,] 3, 3); batch: B or None for a single view.
    """
    from gsplat import rasterization

    views = batch or 1
    viewmat, K = viewmat.expand(views, 4, 4), K.expand(views, 3, 3)
    moving = any(t is not None and t.ndim > ROW_RANKS[name] for name, t in gaussians.items())
    if moving:
        gaussians = {
            name: None if t is None else t.expand(views, *t.shape[-ROW_RANKS[name] :]) for name, t in gaussians.items()
        }
        viewmat, K = viewmat[:, None], K[:, None]  # (B, 1, ...): every batch element has its own single camera
    covars = gaussians["covars"]
    if covars is not None:
        covars = covars[..., FULL_MATRIX].unflatten(-1, (3, 3))
    image, alpha, _ = rasterization(
        means=gaussians["means"].contiguous(),
        quats=gaussians["quats"],
        scales=gaussians["scales"],
        opacities=gaussians["opacities"].contiguous(),
        colors=gaussians["colors"].contiguous(),
        viewmats=viewmat.contiguous(),
        Ks=K.contiguous(),
        width=width,
        height=height,
        near_plane=NEAR,
        eps2d=EPS2D,
        packed=False,
        render_mode="RGB+D",
        rasterize_mode="classic",
        covars=covars,
    )
    if moving:
        image, alpha = image[:, 0], alpha[:, 0]
    alpha = alpha[..., 0]
    if batch is None:
        image, alpha = image[0], alpha[0]
    return image[..., :-1], alpha, image[..., -1]
