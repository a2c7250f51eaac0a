"""Spectacles: which pixels of the photo are rims, temples and dark lenses, by a network; and the face without them.

Spectacles are no skin: they stay stiff when brows and lids move, and stand before the face when it turns
(geometry/worn.py). The face behind them is filled from around.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_fill_holes, gaussian_filter, grey_dilation, label, mean
from scipy.spatial import ConvexHull
from torch.nn.functional import affine_grid, grid_sample, interpolate, pixel_shuffle, pixel_unshuffle

from ..geometry.binding import polygon_mask
from ..geometry.nearest_pixels import nearest_pixels
from ..geometry.pose_weights import ramp
from ..geometry.projection import project, to_camera
from ..types import SOLID_ALPHA, Camera, Spectacles
from ..unet import UNet
from .inpainting import fill_smoothly

WINDOW_HEIGHT, WINDOW_WIDTH = 128, 256
"""Rows and columns of the picture the network looks at."""

WINDOW_SCALE = 1350.0
"""Its pixels per metre at the head: 19 cm are 256 pixels wide, a rim of one millimetre a little more than one."""

WINDOW_CENTRE = (0.0, 0.008, 0.045)
"""Its middle, canonical metres: between the eyes and the ears, so that turned heads have both in view."""

CELL = 2
"""The network sees cells of 2 x 2 pixels: rims need every pixel, not every convolution at full size."""

RARE = 4.0
"""Added to its logits' negative: untrained, and of most pixels, it says no."""

RIM, TEMPLE, DARK_LENS = 0, 1, 2
"""Its outputs: rims, bridge and nose pads; temples; lenses that nothing is seen through."""


class SpectaclesUNet(UNet):
    """(B, 3, 128, 256) sRGB 0..1 less a half -> logits (B, 3, 128, 256) of rims, temples and dark lenses."""

    def __init__(self, width: int = 16):
        super().__init__(3 * CELL**2, 3 * CELL**2, width)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Logits; the last axes of a picture are multiples of 16."""
        return pixel_shuffle(super().forward(pixel_unshuffle(pictures, CELL)), CELL) - RARE


def window_to_crop(camera: Camera) -> np.ndarray:
    """Affine map (2, 3) from the window's pixels (column, row) to the crop's: upright in the head, of one scale."""
    ends = to_camera(np.array([WINDOW_CENTRE, np.add(WINDOW_CENTRE, (0, 0.01, 0))]), camera)
    focal, principal = camera.K[0, 0], camera.K[:2, 2]
    centre, below = ends[:, :2] / ends[:, 2:] * focal + principal
    down = (below - centre) / np.linalg.norm(below - centre)
    scale = focal / ends[0, 2] / WINDOW_SCALE
    linear = scale * np.array([[down[1], down[0]], [-down[0], down[1]]])
    middle = np.array([WINDOW_WIDTH / 2, WINDOW_HEIGHT / 2])
    return np.column_stack([linear, centre - linear @ middle])


def cut_window(image: np.ndarray, camera: Camera) -> torch.Tensor:
    """The window (3, 128, 256) of a crop (S, S, 3)."""
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    to_crop = window_to_crop(camera)
    scale = np.hypot(*to_crop[:, 0])
    if scale > 1:
        planes = interpolate(planes, scale_factor=1 / scale, mode="bilinear", antialias=True)
    return _warped(planes, to_crop, len(image), (WINDOW_HEIGHT, WINDOW_WIDTH), "border")[0]


def from_window(planes: torch.Tensor, camera: Camera, size: int) -> torch.Tensor:
    """Planes (C, 128, 256) of the window back in the crop (C, size, size); 0 outside."""
    to_crop = np.vstack([window_to_crop(camera), [0, 0, 1]])
    return _warped(planes[None], np.linalg.inv(to_crop)[:2], (WINDOW_WIDTH, WINDOW_HEIGHT), (size, size), "zeros")[0]


def _warped(
    planes: torch.Tensor, to_source: np.ndarray, extent: int | tuple[int, int], shape: tuple[int, int], padding: str
) -> torch.Tensor:
    """Planes (1, C, h, w), of an extent (width, height), at `to_source` (2, 3) of a picture's pixels."""
    extent = np.broadcast_to(extent, 2).astype(float)
    target = np.array(shape[::-1], float)
    # From [-1, 1] of the target to [-1, 1] of the source, pixel edges at the ends.
    theta = np.column_stack([to_source[:, :2] * target / 2, to_source[:, :2] @ (target / 2) + to_source[:, 2]])
    theta = theta / (extent[:, None] / 2)
    theta[:, 2] -= 1
    grid = affine_grid(torch.from_numpy(theta)[None].float(), [1, 1, *shape], align_corners=False)
    return grid_sample(planes, grid, mode="bilinear", padding_mode=padding, align_corners=False)


FRONT = ((-0.08, 0.08), (-0.045, 0.06), (-0.03, 0.02))
"""Where rims and lenses can be, canonical metres along x, y and z: what looks like a dark lens by an ear is hair."""

SURE, LEAST = 0.5, 100.0
"""Spectacles are there if their pixels of at least this certainty, in the network's window, are at least so many."""

LEAST_PIECE = 0.04
"""Pieces smaller than this share of the largest one are something else."""

DARK_SHARE = 0.4
"""Share of what lies within a rim that is taken for a dark lens if all of it is one."""

BEGINS, WHOLE = 0.1, 0.35
"""Certainties between which a pixel begins to be theirs and is so all the way."""

GROWN, SOFT, BESIDE = 1 / 400, 1 / 900, 1 / 250
"""By how much their pixels are grown, how soft their edge is, and up to how far beside them the face may be in their
shadow or blurred with them, in crop sides."""

FILLED = (0.0, 0.08)
"""How much of a pixel is theirs where the face begins to be filled in, and is so all the way."""

SKIN_VARIES = 0.025
"""Difference, sRGB, of skin from the skin around it that is common."""

CONTRAST = (0.1, 0.25)
"""Differences, sRGB, of their colour from the face's between which the picture begins to tell how much of a pixel is
theirs, and tells it alone: rims of clear plastic are found by the network alone."""


def take_off_spectacles(
    network: SpectaclesUNet, image: np.ndarray, alpha: np.ndarray, camera: Camera
) -> tuple[Spectacles, np.ndarray] | None:
    """The spectacles in a crop (S, S, 3) of a person of mask (S, S) that a fitted camera sees, and the crop without.

    None if there are none.
    """
    size = len(image)
    masks = find_spectacles(network, image, camera)
    certain = masks.max(0)
    of_window = np.hypot(*window_to_crop(camera)[:, 0]) ** 2  # so many of the crop's pixels are one of the window's
    if (certain > SURE).sum() < LEAST * of_window:
        return None
    grown = grey_dilation(certain, size=2 * round(GROWN * size) + 1)
    about = gaussian_filter(((grown - BEGINS) / (WHOLE - BEGINS)).clip(0, 1), SOFT * size)
    face = _filled(image, about > 0, alpha)
    # Between their own colour and the face's the picture tells how much of a pixel is theirs.
    sure = nearest_pixels(certain > SURE)
    own = image[sure]
    contrast, difference = (np.linalg.norm(each - face, axis=-1) for each in (own, image))
    share = ((difference - SKIN_VARIES) / np.maximum(contrast - SKIN_VARIES, 0.05)).clip(0, 1)
    matte = about * (1 + ramp(contrast, CONTRAST) * (np.where(certain > SURE, 1, share) - 1))
    bare = image + ramp(matte, FILLED)[..., None] * (face - image)
    colors = ((image - (1 - matte[..., None]) * bare) / np.maximum(matte, 0.1)[..., None]).clip(0, 1)
    temples = (masks[TEMPLE] > masks[[RIM, DARK_LENS]].max(0))[sure]
    return Spectacles(image, colors.astype(np.float32), matte.astype(np.float32), temples), bare.astype(np.float32)


@torch.no_grad()
def find_spectacles(network: SpectaclesUNet, image: np.ndarray, camera: Camera) -> np.ndarray:
    """Certainties (3, S, S), 0..1, of rims, temples and dark lenses in a crop (S, S, 3) seen by a fitted camera."""
    device = next(network.parameters()).device
    seen = network(cut_window(image, camera)[None].to(device) - 0.5)[0].sigmoid().cpu()
    masks = from_window(seen, camera, len(image)).numpy()
    masks[[RIM, DARK_LENS]] *= _projected_box(camera, len(image))
    masks[DARK_LENS] = _whole_lenses(masks)
    return masks * _large_pieces(masks.max(0))


def _filled(image: np.ndarray, hole: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A crop (S, S, 3) with a hole (S, S) bool in the person of mask (S, S) filled from around on that person.

    Smoothly: patches of skin would take the place of the brows that rims run along.
    """
    beside = binary_dilation(hole, iterations=max(1, round(BESIDE * len(hole))))
    filled = fill_smoothly(image, ~beside & (alpha > SOLID_ALPHA))
    return np.where((hole & (alpha > 0))[..., None], filled, image)


def _large_pieces(certain: np.ndarray) -> np.ndarray:
    """Pixels (S, S) bool of the pieces of spectacles that are no specks, by a certainty (S, S)."""
    pieces, count = label(certain > BEGINS)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    large = sizes >= LEAST_PIECE * sizes[1:].max(initial=0)
    large[0] = False
    return large[pieces]


def _whole_lenses(masks: np.ndarray) -> np.ndarray:
    """The certainty (S, S) of dark lenses among masks (3, S, S), the same all over what lies within a rim."""
    rim, dark = masks[RIM] > SURE, masks[DARK_LENS]
    lenses, count = label(binary_fill_holes(rim | (dark > SURE)) & ~rim)
    share = mean(dark, lenses, np.arange(1, count + 1))
    return np.r_[0, share > DARK_SHARE].astype(np.float32)[lenses]


def _projected_box(camera: Camera, size: int) -> np.ndarray:
    """Pixels (S, S) bool of a crop that show FRONT."""
    corners = np.stack(np.meshgrid(*FRONT), -1).reshape(-1, 3)
    pixels = project(to_camera(corners, camera), camera)[:, :2]
    return polygon_mask(pixels[ConvexHull(pixels).vertices], size)
