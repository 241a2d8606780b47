"""The settings of the points that a fit is taught on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ff3d.checks import check_settings

Normalisation = Literal["padded", "paper"]
Target = Literal["occupancy", "distance"]


@dataclass(frozen=True)
class SamplingConfig:
    """Which points a fit is taught on, and what it is taught there."""

    target: Target = "occupancy"
    """what the network learns: inside or outside (cross-entropy), or tanh(signed distance / band) (L1)"""
    band: float = 0.004
    """distance: truncation distance, units"""
    guarded: bool = False
    """space that a coarse grid shows to be inside or outside is answered by it; the network learns the rest"""
    uniform: float = 0.5
    """share of points uniform in the box (guarded: in what the grid leaves open); the rest lie near the surface"""
    widths: tuple[float, ...] = (0.002, 0.006, 0.015, 0.04, 0.12)
    """widths of the noise near the surface, in units (the cube's side)"""
    cube: Normalisation = "padded"
    """padded: box centred, 5% room on each side; paper: about the mean vertex, no room"""
    margin: float = 0.03
    """the sampled box is the mesh's bounding box grown by this many units"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # from YAML or JSON: a list
        check_settings(self, positive=("band",))
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise ValueError(f"margin must be 0 or positive, got {self.margin}")
        if not 0 <= self.uniform <= 1 or not all(width > 0 for width in self.widths):
            raise ValueError("uniform must lie in [0, 1] and every width must be positive")
