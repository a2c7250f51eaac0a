"""What every backend agrees on: gsplat's "classic" rasterization (gsplat 1.5 defaults)."""

from ..errors import InputError

EPS2D = 0.3  # px^2 added to the diagonal of the projected covariance: nothing is thinner than a pixel
ALPHA_MIN = 1.0 / 255.0  # fainter contributions are skipped
ALPHA_MAX = 0.999
T_MIN = 1e-4  # a pixel stops before the Gaussian that would leave this transmittance or less
EXTENT = 3.33  # standard deviations; at opacity 1 this is where alpha falls under ALPHA_MIN
NEAR = 0.01  # m
MIN_QUAT2 = 1e-24  # squared length at or below which a quaternion counts as zero and means "no rotation"
MAX_SIDE = 32767  # pixels; the CPU kernels keep boxes as int16


def check_size(width: int, height: int) -> None:
    """Raises InputError for an image size no backend draws."""
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise InputError(f"image size {width}x{height} is out of range; each side must be 1 to {MAX_SIDE} pixels")
