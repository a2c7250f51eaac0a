"""Reads photos as the core wants them: upright, sRGB, three channels, float32 0..1."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ..errors import InputError
from .files import require_file

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")
"""What Pillow may open. Its EPS reader starts Ghostscript and others are rarely exercised: not at this door."""
MIN_SIDE = 32
MAX_PIXELS = 100_000_000
"""Checked before anything is decoded; a 12-bit medium-format photo has 100 megapixels."""


def check_photo(image: np.ndarray, name: str = "image") -> np.ndarray:
    """An image array (H, W, 1|3|4) with values 0..1 as (H, W, 3) float32, transparency over white.

    Raises:
        InputError: other shapes, fewer than 32 pixels a side, more than 100 megapixels, NaN or infinite values.
    """
    image = np.asarray(image, dtype=np.float32)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise InputError(f"{name}: an image has shape (height, width, 3), not {image.shape}")
    _check_size(image.shape[1], image.shape[0], name)
    if not np.isfinite(image).all():
        raise InputError(f"{name}: the image has NaN or infinite pixels; export it again as PNG or JPEG")
    image = np.clip(image, 0, 1)
    if image.shape[2] == 4:
        alpha = image[..., 3:]
        return image[..., :3] * alpha + (1 - alpha)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def read_photo(path: str | Path) -> np.ndarray:
    """A photo as (H, W, 3) float32 0..1 sRGB: EXIF upright, colour profile applied, transparency over white.

    Raises:
        InputError: not a readable picture, too small, too large, or with NaN pixels.
    """
    path = require_file(path, "image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's size warning: the size is checked here
            Image.init()  # registers the readers this Pillow has
            with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
                _check_size(*image.size, str(path))
                image.load()
                return check_photo(_to_srgb(ImageOps.exif_transpose(image)), str(path))
    except Image.DecompressionBombError:
        raise InputError(f"{path}: over {MAX_PIXELS // 1_000_000} megapixels; make the picture smaller") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a picture this can read; save it as JPEG or PNG") from None
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, ArithmeticError, IndexError) as error:
        # Pillow raises these on damaged files, depending on the format
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: the picture is damaged ({error}); save it again as JPEG or PNG") from None


def _check_size(width: int, height: int, name: str) -> None:
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{name}: {width}x{height} pixels is too small; give at least {MIN_SIDE}x{MIN_SIDE}")
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name}: {width}x{height} is over {MAX_PIXELS // 1_000_000} megapixels; make the picture smaller"
        )


def _to_srgb(image: Image.Image) -> np.ndarray:
    """A decoded Pillow image as (H, W, C) float32 0..1."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I"):
        return np.asarray(image, dtype=np.float32) / 65535
    if image.mode == "F":
        return np.asarray(image, dtype=np.float32)
    if image.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode not in ("RGB", "RGBA", "CMYK"):
        image = image.convert("RGB")
    profile = image.info.get("icc_profile")
    if profile:
        try:
            image = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGBA" if image.mode == "RGBA" else "RGB",
            )
        except ImageCms.PyCMSError:
            pass  # a grayscale or broken profile: the numbers are taken as sRGB, as browsers do
    if image.mode == "CMYK":
        image = image.convert("RGB")
    return np.asarray(image, dtype=np.float32) / 255


def as_bytes(picture: np.ndarray) -> np.ndarray:
    """Values 0..1 of any shape as uint8 0..255, rounded; what lies outside is cut off."""
    return np.round(picture.clip(0, 1) * 255).astype(np.uint8)
