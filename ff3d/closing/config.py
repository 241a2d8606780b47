"""How a shape is closed: the options of `watertight`, and lengths in input units or per cent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Length = float | str  # input units, or "0.5%" of the longest side of the shape's box
RESOLUTION = 512
SHEETS, CAVITIES = ("refuse", "thicken", "fill"), ("keep", "fill")


@dataclass(frozen=True)
class ClosingConfig:
    """How `watertight` closes a shape. Lengths are in input units, or per cent of its longest side: "0.5%".

    resolution: cells along the longest side of the shape's box, by default `RESOLUTION`.
    error: instead of it, how far the shape's surface may lie from the result, before that is simplified: measured, and
    the resolution raised until that is so; with an offset or sheets, the side of a cell.
    sharp: edges and corners that marching cubes cuts off are put back; not with an offset, which rounds them.
    sheets: what becomes of parts that enclose nothing. "refuse": OpenSurfaceError, if they are a large share.
    "thicken": each becomes a slab of `thickness`. "fill": what they cut off from outside, at the resolution, is inside.
    cavities: "keep", or "fill" hollows that nothing leads into.
    drop_floaters: drop parts of less than this share of the volume; by default every part stays.
    offset: how far outward the surface is moved, inward if negative.
    simplify: to about so many faces.  simplify_error: as far as the surface moves by less than this.
    Raises ValueError for values that are out of range or do not go together.
    """

    resolution: int | None = None
    error: Length | None = None
    sharp: bool = False
    sheets: Literal["refuse", "thicken", "fill"] = "refuse"
    thickness: Length | None = None
    cavities: Literal["keep", "fill"] = "keep"
    drop_floaters: float | None = None
    offset: Length = 0.0
    simplify: int | None = None
    simplify_error: Length | None = None

    def __post_init__(self) -> None:
        for name, known in (("sheets", SHEETS), ("cavities", CAVITIES)):
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}")
        for name, least in (("resolution", 1), ("simplify", 4)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or value != int(value) or value < least):
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        for name in ("error", "thickness", "simplify_error"):
            value = getattr(self, name)
            if value is not None and not length_of(value, 1.0) > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        length_of(self.offset, 1.0)
        for name in ("error", "thickness", "simplify_error", "offset"):  # one length has one spelling
            value = getattr(self, name)
            if isinstance(value, str) and not value.strip().endswith("%"):
                object.__setattr__(self, name, float(value))
        if self.drop_floaters is not None and not 0 <= self.drop_floaters < 1:
            raise ValueError(f"drop_floaters must be in [0, 1), a share of the volume, got {self.drop_floaters}")
        for one, other in (("resolution", "error"), ("simplify", "simplify_error")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"give either {one} or {other}, not both")
        if self.sharp and length_of(self.offset, 1.0):
            raise ValueError("sharp edges are not offset: give either sharp or offset, not both")
        if (self.sheets == "thicken") != (self.thickness is not None):
            raise ValueError('sheets "thicken" and a thickness go together: give both or neither')


def length_of(value: Length, size: float) -> float:
    """A length in input units.  value: input units, or per cent of `size`, "0.5%".

    >>> length_of("0.5%", 40.0)
    0.2

    Raises ValueError for what is no finite number.
    """
    text = str(value).strip()
    try:
        number = float(text.removesuffix("%")) * (size / 100 if text.endswith("%") else 1.0)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f'expected a length, 0.02 input units or "0.5%" of the longest side, got {value!r}')
    return number
