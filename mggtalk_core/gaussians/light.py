"""Light as second-order spherical harmonics: fitted once on the source, then re-applied as the head turns.

Ramamoorthi and Hanrahan 2001: nine coefficients per colour describe how any distant light shades a matte surface, to
within a few percent.
"""

from __future__ import annotations

import numpy as np

SH_TERMS = 9


def sh_basis(normals: np.ndarray) -> np.ndarray:
    """Polynomial spherical harmonics up to order 2, (..., 9), of unit normals (..., 3); unnormalised."""
    x, y, z = np.moveaxis(normals, -1, 0)
    return np.stack([np.ones_like(x), x, y, z, x * y, y * z, x * z, x * x - y * y, 3 * z * z - 1], -1)
