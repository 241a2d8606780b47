"""Input mappings: points in the unit cube -> features that a small network can learn from.

A network on raw coordinates learns low frequencies first and high ones hardly at all ("spectral bias"). Mapping
the input to sines of many frequencies cures it: Tancik et al. 2020, "Fourier Features Let Networks Learn High
Frequency Functions in Low Dimensional Domains", arXiv:2006.10739.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ff3d.fields.config import GRID_MAPPINGS, MappingConfig
from ff3d.fields.feature_grids import Features, GridMapping, UnitPoints

MAPPINGS = ("none", "basic", "positional", "gaussian", "lecture", "learned")
DEFAULT_SCALE = {"positional": 64.0, "gaussian": 12.0, "lecture": 10.0, "learned": 12.0}
BLOCK = 1024  # rows a thread whose angles fit its second-level cache


class InputMapping(nn.Module):
    """A mapping gamma from (n, d) points to (n, features), fixed by its name and its frequencies.

    frequencies (B in the paper): (m, d) float32, cycles per unit, saved and, but for `learned`, never trained.

    - `none`: 2 x - 1, which centres the unit cube on 0; m = 0.
    - `basic`, `positional`, `gaussian`: [sin(2 pi B x), cos(2 pi B x)] / sqrt(m), so that |gamma(x)| = 1.
    - `learned`: as `gaussian`, and training moves B too.
    - `lecture`: sin(2 pi B x), the sines alone and unscaled.

    amplitudes (m,), a in the paper: what the sines and the cosines of each frequency are multiplied by, in place of
    1 / sqrt(m); not saved with a field.
    """

    frequencies: Tensor
    amplitudes: Tensor | None
    settings: dict[str, int] = {}  # noqa: RUF012  (it has none)

    def __init__(self, name: str, frequencies: Tensor, amplitudes: Tensor | None = None):
        super().__init__()
        if name not in MAPPINGS:
            raise ValueError(f"unknown mapping {name!r}; known: {', '.join(MAPPINGS)}")
        if frequencies.ndim != 2 or frequencies.shape[1] < 1 or (name != "none" and len(frequencies) < 1):
            raise ValueError(f"frequencies must have shape (m, d), got {tuple(frequencies.shape)}")
        if amplitudes is not None and amplitudes.shape != frequencies.shape[:1]:
            raise ValueError(f"amplitudes must have shape ({len(frequencies)},), got {tuple(amplitudes.shape)}")
        self.name = name
        self.register_buffer("amplitudes", amplitudes, persistent=False)
        if name == "learned":
            self.frequencies = nn.Parameter(frequencies.to(torch.float32))
        else:
            self.register_buffer("frequencies", frequencies.to(torch.float32))

    @property
    def trained(self) -> bool:
        """Whether training moves the frequencies."""
        return self.name == "learned"

    @property
    def dimension(self) -> int:
        """The number d of input coordinates."""
        return int(self.frequencies.shape[1])

    @property
    def features(self) -> int:
        """The number of output features."""
        if self.name == "none":
            return self.dimension
        return len(self.frequencies) * (1 if self.name == "lecture" else 2)

    def forward(self, points: UnitPoints) -> Features:
        """points (n, d), unit coordinates -> (n, features) float32.

        float32 throughout, whatever the network runs in: bfloat16 coordinates near 1 are 4e-3 apart.
        """
        points = points.to(torch.float32)
        if self.name == "none":
            return 2 * points - 1
        angles = (2 * math.pi) * (points @ self.frequencies.T)
        if self.name == "lecture":
            return angles.sin()
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
        if self.amplitudes is None:
            return waves / math.sqrt(len(self.frequencies))
        return waves * self.amplitudes.repeat(2)

    @torch.no_grad()
    def encode(self, points: UnitPoints, dtype: torch.dtype) -> Features:
        """The same features, rounded to `dtype`, without a gradient to the points: the fast twin of `forward`.

        Written straight to where they belong; on a CPU in blocks whose angles stay in the cache.
        """
        if self.name in ("none", "lecture") or points.device.type not in ("cpu", "cuda"):
            return self(points).to(dtype)
        m = len(self.frequencies)
        angular = (2 * math.pi * self.frequencies.T).contiguous()
        gain: Any = 1 / math.sqrt(m) if self.amplitudes is None else self.amplitudes
        features = torch.empty(len(points), 2 * m, dtype=dtype, device=points.device)
        # on a CPU each operation waits for all threads once: few of them
        size = BLOCK * torch.get_num_threads() if points.device.type == "cpu" else max(1, len(points))
        for rows, block in zip(features.split(size), points.to(torch.float32).split(size), strict=True):
            angles = block @ angular
            torch.mul(angles.sin(), gain, out=rows[:, :m])
            torch.mul(angles.cos_(), gain, out=rows[:, m:])
        return features


class RawCoordinates(InputMapping):
    """`none` as in the notebooks of Tancik et al. 2020: x - `center` itself, not 2 x - 1."""

    def __init__(self, dimension: int, center: float = 0.0):
        super().__init__("none", torch.zeros(0, dimension))
        self.center = center

    def forward(self, points: UnitPoints) -> Features:
        """points (n, d) -> (n, d) float32."""
        return points.to(torch.float32) - self.center


Mapping = InputMapping | GridMapping


def make_mapping(
    name: str,
    *,
    dimension: int = 3,
    count: int = 256,
    scale: float | None = None,
    seed: int = 0,
    notebook: bool = False,
    **table: int,
) -> Mapping:
    """Build a mapping by name; the same arguments give the same frequencies or table, bit for bit.

    - `none`, `basic`: the coordinates themselves; one frequency an axis. Tancik et al. 2020, section 6.
    - `positional`: count // dimension frequencies an axis, spaced evenly in their logarithm from 1 to `scale` (64)
      cycles per unit. `notebook` subtracts 1 from each, as the authors' notebook does: frequencies 0 to 63, so that
      one sine an axis is always zero. Mildenhall et al. 2020 (NeRF); Tancik et al. 2020, section E.2.
    - `gaussian`: `count` rows from N(0, scale^2), scale 12 cycles per unit. Tancik et al. 2020, section E.2.
    - `learned`: those of `gaussian`, from which training moves on.
    - `lecture`: sin(2 pi s x b) with b ~ N(0, 1) and s = `scale` (10): `count` sines, no cosines, no norm.
    - `grid`, `hash`, `planes`: a `GridMapping` of the settings `table`; count and scale are not used.

    Raises ValueError for an unknown name, a dimension or count under 1, or a scale that is not positive.

    >>> names = ("none", "basic", "positional", "gaussian", "hash")
    >>> {name: tuple(make_mapping(name)(torch.rand(5, 3)).shape) for name in names}
    {'none': (5, 3), 'basic': (5, 6), 'positional': (5, 510), 'gaussian': (5, 512), 'hash': (5, 20)}
    """
    if name in GRID_MAPPINGS:
        return GridMapping(name, dimension=dimension, seed=seed, **table)
    if table:
        raise ValueError(f"{', '.join(table)}: settings of {', '.join(GRID_MAPPINGS)}, not of {name}")
    if dimension < 1 or count < dimension:
        raise ValueError(f"count must be at least dimension >= 1, got count={count}, dimension={dimension}")
    scale = DEFAULT_SCALE.get(name, 1.0) if scale is None else scale
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be a positive number of cycles per unit, got {scale}")
    if name == "none":
        frequencies = torch.zeros(0, dimension)
    elif name == "basic":
        frequencies = torch.eye(dimension)
    elif name == "positional":
        octaves = torch.linspace(0, math.log2(scale), count // dimension, dtype=torch.float64)
        axis = 2**octaves - (1 if notebook else 0)
        frequencies = torch.kron(torch.eye(dimension, dtype=torch.float64), axis[:, None])
    else:
        generator = torch.Generator().manual_seed(seed)
        frequencies = scale * torch.randn(count, dimension, generator=generator)
    return InputMapping(name, frequencies)


def build_mapping(config: MappingConfig, *, seed: int, dimension: int = 3) -> Mapping:
    """The mapping of these settings; the same seed gives the same frequencies or table. Raises as `make_mapping`."""
    return make_mapping(
        config.name,
        dimension=dimension,
        count=config.frequencies,
        scale=config.scale,
        seed=seed,
        notebook=config.notebook,
        **config.table,
    )
