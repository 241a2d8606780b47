"""sRGB, in which colours are named and pictures are stored, and linear light, in which they are computed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ff3d.geometry.arrays import Floats


def to_linear(color: ArrayLike) -> Floats:
    """sRGB in [0, 1], of any shape -> linear light in [0, 1] (IEC 61966-2-1).

    >>> to_linear([0.0, 0.5, 1.0]).round(4).tolist()
    [0.0, 0.214, 1.0]
    """
    value = np.asarray(color, dtype=np.float64)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Floats) -> Floats:
    """The inverse: linear light, of any shape -> sRGB in [0, 1]; what is outside [0, 1] is clipped.

    >>> to_srgb(np.array([-1.0, 0.214, 2.0])).round(3).tolist()
    [0.0, 0.5, 1.0]
    """
    value = np.clip(light, 0, 1)
    return np.where(value <= 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055)
