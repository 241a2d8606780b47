"""Input mappings with trained tables: points in the unit cube -> interpolated rows, for a very small network.

The features stand at the vertices of grids of several resolutions, and training moves them. On a CPU the cost is the
gather of the rows and its gradient. The encoding of a batch is a sparse matrix whose rows hold the corners' weights,
so that the gradient to the table is the product of its transpose with the incoming gradient.
"""

from __future__ import annotations

import sys
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own name for it)
from torch import Tensor, nn

from ff3d.fields.config import table_settings

MAX_PARAMETERS = 2**26
PRIMES = (1, 2654435761, 805459861)  # pi in equation 4 of arXiv:2201.05989
AXES = {"grid": ((0, 1, 2),), "hash": ((0, 1, 2),), "planes": ((0, 1), (0, 2), (1, 2))}  # in 3-D
BLOCK = 2**14  # points at once in `encode` on a CPU: their indices and weights take some 8 MiB
LOOKED_UP = 2**26  # numbers at once elsewhere: a quarter of a gigabyte


if TYPE_CHECKING or "jaxtyping" not in sys.modules:
    UnitPoints = Tensor  # (n, d)
    Features = Tensor  # (n, features)
else:  # shapes are checked while tests run; see ff3d.geometry.arrays
    from jaxtyping import Float

    UnitPoints = Float[Tensor, "n d"]
    Features = Float[Tensor, "n features"]


class GridMapping(nn.Module):
    """A trained mapping from (n, d) points to (n, features), by its name and a few whole numbers.

    settings: `levels` grids whose resolutions (cells a side) go geometrically from `coarsest` to `finest`, each with
    `features_per_level` features; unnamed ones are those of `GRID_DEFAULTS`.
    table: (rows, features_per_level) float32, every level's rows, the finest level first; the one trained tensor.

    - `grid`: dense grids, trilinear in 3-D. Vertex (i, j, k) at resolution r is row i + (r + 1) j + (r + 1)^2 k of its
      level; d is 2 or 3, for `hash` too.
    - `hash`: the same, but a level of more than 2^`log2_table` vertices shares that many rows among them by a hash.
      Mueller et al. 2022 (instant-ngp), arXiv:2201.05989, section 3; resolutions are rounded, to meet both ends.
    - `planes`: the product of bilinear features of (x, y), (x, z) and (y, z). Fridovich-Keil et al. 2023 (K-Planes),
      arXiv:2301.10241, section 3. d is 3.

    Outside the unit cube a point has the features of the nearest point of the cube. Tables are drawn from `seed`:
    U(-1e-4, 1e-4), or as the authors of K-Planes do, U(.1, .5): a product of numbers near 0 would learn nothing.
    Raises ValueError for an unknown name or setting, one out of range, or more than `MAX_PARAMETERS` in all.
    """

    table: nn.Parameter
    trained = True
    axes: Tensor
    sizes: Tensor
    strides: Tensor
    masks: Tensor
    offsets: Tensor

    def __init__(self, name: str, *, dimension: int = 3, seed: int = 0, **settings: int):
        super().__init__()
        self.name, self.settings, self.dimension = name, table_settings(name, settings), dimension
        if dimension not in ((3,) if name == "planes" else (2, 3)):
            raise ValueError(f"{name} takes no points of dimension {dimension}; choose another mapping")
        spans = AXES[name] if dimension == 3 else ((0, 1),)  # the axes of each grid of a level
        channels, limit = self.settings["features_per_level"], 2 ** self.settings.get("log2_table", 62)
        strides, masks, offsets, rows, hashed = [], [], [], 0, 0
        for size in self.resolutions:
            for axes in spans:
                vertices = (size + 1) ** len(axes)
                offsets.append(rows)
                rows += min(vertices, limit)
                if vertices > limit:  # the finest levels, so these come first and start at multiples of the limit
                    hashed += 1
                    strides.append([prime - 2**32 if prime >= 2**31 else prime for prime in PRIMES[: len(axes)]])
                    masks.append(limit - 1)
                else:
                    strides.append([(size + 1) ** power for power in range(len(axes))])
                    masks.append(-1)
        if rows * channels > MAX_PARAMETERS:
            raise ValueError(f"{name} of {self.settings} has {rows * channels:,} numbers; at most {MAX_PARAMETERS:,}")
        self.hashed = hashed  # levels whose rows are shared
        buffers = {"axes": spans, "sizes": self.resolutions, "strides": strides, "masks": masks}
        for key, value in (buffers | {"offsets": offsets}).items():
            tensor = torch.tensor(value, dtype=torch.int64 if key == "axes" else torch.int32)
            self.register_buffer(key, tensor, persistent=False)
        low, high = (0.1, 0.5) if name == "planes" else (-1e-4, 1e-4)
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.empty(rows, channels).uniform_(low, high, generator=generator))

    @property
    def features(self) -> int:
        """The number of output features; the finest level's come first."""
        return self.settings["levels"] * self.settings["features_per_level"]

    @property
    def resolutions(self) -> list[int]:
        """Cells a side of each level, the finest first."""
        levels, coarsest, finest = (self.settings[key] for key in ("levels", "coarsest", "finest"))
        growth = (finest / coarsest) ** (1 / max(levels - 1, 1))
        return [round(finest / growth**level) for level in range(levels)]

    def forward(self, points: UnitPoints) -> Features:
        """points (n, d), unit coordinates -> (n, features) float32.

        Gradients reach the table and, the slow way, points that require one.
        """
        rows, weights = self.corners(points.to(torch.float32))
        fast = points.device.type == "cpu" and not weights.requires_grad
        looked_up = _Lookup.apply(self.table, rows, weights) if fast else plain_lookup(self.table, rows, weights)
        features = reduce(torch.mul, looked_up.unflatten(0, (-1, len(self.axes))).unbind(1))
        return features.transpose(0, 1).flatten(1)

    @torch.no_grad()
    def encode(self, points: UnitPoints, dtype: torch.dtype) -> Features:
        """The same features, rounded to `dtype`, without any gradient and in little memory."""
        features = torch.empty(len(points), self.features, dtype=dtype, device=points.device)
        numbers = self.features * len(self.axes) * 2 ** self.axes.shape[1]  # that are looked up for a point
        size = BLOCK if points.device.type == "cpu" else max(BLOCK, LOOKED_UP // numbers)
        for rows, block in zip(features.split(size), points.split(size), strict=True):
            rows.copy_(self(block))
        return features

    def corners(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The corners of the cells around points (n, d): rows of the table, int32, and weights, float32.

        Both (c, grids, n): c corners a cell, 2^d, or 4 of planes; a grid is a level, or one of a level's three planes.
        """
        places = points.clamp(0, 1).T[self.axes] * self.sizes[:, None, None, None]
        places = places.flatten(0, 1)  # (grids, axes, n), in cells
        last = (self.sizes - 1).repeat_interleave(len(self.axes))[:, None, None]
        cells = torch.minimum(places.detach().int(), last).clamp_(min=0)  # not a number is cell 0, of weight nan
        upper = places - cells.float()
        weights = _outer(torch.mul, torch.stack((1 - upper, upper)))
        near = cells.mul_(self.strides[..., None])  # wraps around as unsigned 32-bit numbers would
        ends = torch.stack((near, near + self.strides[..., None])).bitwise_and_(self.masks[:, None, None])
        ends[:, :, 0] += self.offsets[:, None]
        rows = torch.empty_like(weights, dtype=torch.int32)
        shared = self.hashed  # not added up, but folded into one another bit by bit
        _outer(torch.bitwise_xor, ends[:, :shared], out=rows[:, :shared])
        _outer(torch.add, ends[:, shared:], out=rows[:, shared:])
        return rows, weights


def plain_lookup(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """table (r, f), rows and weights (c, grids, n) -> the weighted sums of c rows, (grids, n, f)."""
    gathered = table.index_select(0, rows.flatten()).unflatten(0, rows.shape)
    return (gathered * weights[..., None]).sum(dim=0)


class _Lookup(torch.autograd.Function):
    """`plain_lookup` on a CPU, with a gradient to the table alone."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        # numpy: its transposed copy takes half the time of torch's
        flat, shares = (torch.from_numpy(it.flatten(1).numpy().T.ravel()) for it in (rows, weights))
        starts = torch.arange(0, len(flat) + 1, len(rows), dtype=torch.int32)
        ctx.save_for_backward(flat, shares, starts)
        ctx.height = len(table)
        # detached: for a table that requires a gradient torch would prepare its own backward pass
        bags = F.embedding_bag(
            flat, table.detach(), starts, mode="sum", per_sample_weights=shares, include_last_offset=True
        )
        return bags.unflatten(0, rows.shape[1:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        flat, shares, starts = ctx.saved_tensors
        sums = gradient.flatten(0, 1)
        try:
            from scipy.sparse import csc_array
        except ImportError:  # torch and numpy alone: the same sums, slower (index_add_ is slower still)
            addends = sums.repeat_interleave(len(flat) // len(sums), dim=0) * shares[:, None]
            rows = flat.numpy()
            columns = [np.bincount(rows, column, ctx.height) for column in addends.T.numpy()]
            return torch.from_numpy(np.stack(columns, axis=1)).to(sums.dtype), None, None
        transposed = csc_array((shares.numpy(), flat.numpy(), starts.numpy()), shape=(ctx.height, len(sums)))
        return torch.from_numpy(transposed @ sums.numpy()), None, None


def _outer(combine: Any, ends: Tensor, out: Tensor | None = None) -> Tensor:
    """Combine two values an axis, ends (2, grids, axes, n), to one for each corner: (2^axes, grids, n)."""
    first, *others = ends.unbind(2)
    faces = reduce(lambda one, other: combine(one[:, None], other).flatten(0, 1), others)
    return combine(first[:, None], faces, out=None if out is None else out.unflatten(0, (2, len(out) // 2))).flatten(
        0, 1
    )
