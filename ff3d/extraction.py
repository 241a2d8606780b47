"""Any callable points -> logits, > 0 inside, to a watertight mesh: marching cubes on a dense grid."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

if TYPE_CHECKING:
    import trimesh

Floats = NDArray[np.float64]
Logits = Callable[[Floats], NDArray[np.floating]]

MARGIN = 1e-3  # of a cell: no vertex comes nearer to a grid point, so that no face collapses
HUGE = 1e30  # infinite logits become this
BORDER = -1e38  # far more than any logit, so that a surface closed at a side of the box lies at that side
CHUNK = 2**18

# peak resident memory, measured for spheres and gyroids of three sizes at resolutions 128 to 400
BYTES_A_VOXEL = 9  # 4 for the logit, 4 for its sign, 1 in passing
BYTES_A_VERTEX = 330  # with its two faces: the mesh, and scikit-image's copies of it
BYTES_A_POINT = 100  # of a chunk


class ExtractionError(ValueError):
    """A function that has no surface to extract; the message says what it answered, and where."""


def extract_mesh(
    logits: Logits,
    bounds: ArrayLike,
    *,
    resolution: int = 256,
    chunk: int = CHUNK,
    progress: bool = False,
    max_memory: int | None = None,
) -> trimesh.Trimesh:
    """The surface {logits = 0} in a box as a closed mesh, outward, in the box's coordinates.

    logits: any function of points (n, 3) float64, in the box's coordinates -> (n,) numbers, > 0 inside; infinite
    ones are allowed. It is asked about points of the box only, whole rows of them, about `chunk` at a time.
    bounds: (2, 3), the box. Outside it everything is outside: a surface that meets a side is closed there.
    resolution: cells along the longest side. Cells are cubes. The other sides get as many as cover them, centred;
    where those stand out of the box, the outermost are cut off at its side (to no less than half a cell, unless
    the box itself is thinner).
    progress: show a tqdm bar.  max_memory: bytes that may be used, by default what is available now.

    Every edge of the mesh has exactly two faces, and no face is without area, whatever the logits are. For this
    - the cases are those of Lorensen and Cline 1987, by scikit-image, which go by the signs alone. Lewiner's
      (2003) compare products of logits too; ties there, as between whole numbers, give edges with four faces.
    - a vertex lies on an edge of the grid, by linear interpolation, but no nearer to its ends than 1e-3 of a cell.
      This displaces it by at most as much, and a surface closed at a side of the box lies 1e-3 of a cell outside.

    Returns a Trimesh, vertices float64, nothing merged or otherwise processed.
    Raises ExtractionError if nothing is inside, or the function answers NaN, no numbers or in another shape;
    MemoryError if the grid does not fit, with the largest resolution that does, or if the surface turns out too
    rough to fit; ValueError for an unusable box or resolution.
    """
    box = _check_box(bounds, resolution)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 point, got {chunk}")
    available = available_memory() if max_memory is None else max_memory
    if (needed := memory_needed(box, resolution, chunk=chunk)) > available:
        fits = bisect_right(range(1, resolution), available, key=lambda n: memory_needed(box, n, chunk=chunk))
        raise MemoryError(
            f"resolution {resolution} needs {needed / 1e9:.3g} GB, {available / 1e9:.3g} GB are available; "
            + (f"the largest resolution that fits is {fits}" if fits else "no resolution fits")
        )
    axes = _grid(box, resolution)
    volume = _evaluate(logits, axes, chunk, progress)
    inner = volume[1:-1, 1:-1, 1:-1]
    if not inner.max() > 0:
        raise ExtractionError(
            f"nothing is inside: on the grid of {' x '.join(map(str, inner.shape))} points the logits range from "
            f"{inner.min():.6g} to {inner.max():.6g}, and inside is > 0; is the box the right one, is the fit done, "
            "is the shape thinner than a cell (raise the resolution)?"
        )
    return _surface(volume, axes, available)


def memory_needed(bounds: ArrayLike, resolution: int, *, chunk: int = CHUNK) -> int:
    """Bytes that `extract_mesh` takes, an estimate: for its grid, a smooth surface, and a chunk of points.

    The surface is taken as half as large again as a sphere that fills the box. How large it is shows only when the
    logits are known; `extract_mesh` then looks again. What the function itself needs for a chunk is not in it.
    """
    nx, ny, nz = _cells(_check_box(bounds, resolution), resolution)
    asked = min(max(chunk, nz + 1), (nx + 1) * (ny + 1) * (nz + 1))
    vertices = 2 * (nx * ny + ny * nz + nz * nx)
    return BYTES_A_VOXEL * (nx + 3) * (ny + 3) * (nz + 3) + BYTES_A_VERTEX * vertices + BYTES_A_POINT * asked


def available_memory(group: str | Path = "/sys/fs/cgroup") -> int:
    """Bytes available to this process: the machine's, or the control group's (cgroup v2) where that is less."""
    available = int(psutil.virtual_memory().available)
    try:
        limit, used = (int(Path(group, name).read_text()) for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in Path(group, "memory.stat").read_text().splitlines())
        # file pages that nobody uses count as used, but are given back when memory runs short
        return max(0, min(available, limit - used + int(statistics.get("inactive_file", 0))))
    except (OSError, ValueError):
        return available  # no control group, or no limit in it ("max")


def _check_box(bounds: ArrayLike, resolution: int) -> Floats:
    """The bounds as an array (2, 3); ValueError if they or the resolution are unusable."""
    box = np.asarray(bounds, dtype=np.float64)
    if box.shape != (2, 3) or not np.isfinite(box).all() or not (box[1] > box[0]).all():
        raise ValueError(f"bounds must be (2, 3), finite, lower corner first and not flat, got {box.tolist()}")
    if isinstance(resolution, bool) or not isinstance(resolution, int | np.integer) or resolution < 1:
        raise ValueError(f"resolution must be a whole number of cells, at least 1, got {resolution!r}")
    step = MARGIN * min(float((box[1] - box[0]).max()) / int(resolution), float((box[1] - box[0]).min()))
    if step < 4 * np.spacing(np.abs(box).max()):
        raise ValueError(
            f"bounds are too thin or too far from the origin for float64 at resolution {resolution}: {box.tolist()}; "
            "move the box to the origin, or lower the resolution"
        )
    return box


def _cells(box: Floats, resolution: int) -> tuple[int, int, int]:
    """How many cubes, `resolution` of them along the longest side, cover each side."""
    extent = box[1] - box[0]
    nx, ny, nz = (max(1, math.ceil(side * int(resolution) / extent.max() - 1e-9)) for side in extent)
    return nx, ny, nz


def _grid(box: Floats, resolution: int) -> list[Floats]:
    """The coordinates of the grid points along each axis, the first and last of them on the box's sides."""
    cell = float((box[1] - box[0]).max()) / int(resolution)
    axes = []
    for low, high, cells in zip(*box, _cells(box, resolution), strict=True):
        axis = low + ((high - low) - cells * cell) / 2 + cell * np.arange(cells + 1)
        axis[0], axis[-1] = low, high
        axes.append(axis)
    return axes


def _evaluate(logits: Logits, axes: list[Floats], chunk: int, progress: bool) -> NDArray[np.float32]:
    """The logits on the grid, inside a border of one layer that is outside; asked in runs of rows along z."""
    x, y, z = axes
    volume = np.full([len(axis) + 2 for axis in axes], BORDER, dtype=np.float32)
    inner = volume[1:-1, 1:-1, 1:-1]
    rows = len(x) * len(y)
    with tqdm(total=inner.size, desc="extract", unit=" points", unit_scale=True, disable=not progress) as bar:
        for start in range(0, rows, step := max(1, chunk // len(z))):
            i, j = np.divmod(np.arange(start, min(start + step, rows)), len(y))
            points = np.empty((len(i), len(z), 3))
            points[..., 0], points[..., 1], points[..., 2] = x[i, None], y[j, None], z
            values = _ask(logits, points.reshape(-1, 3))
            inner[i, j] = np.clip(values, -HUGE, HUGE).reshape(len(i), len(z))
            bar.update(len(values))
    return volume


def _ask(logits: Logits, points: Floats) -> Floats:
    """What the function answers about points (n, 3): (n,), checked."""
    values = np.asarray(logits(points))
    if values.shape != (len(points),) or values.dtype.kind not in "fiu":
        raise ExtractionError(
            f"the function must answer points of shape {points.shape} with numbers (> 0 inside) of shape "
            f"({len(points)},); between {points[0].tolist()} and {points[-1].tolist()} it answers {values.dtype} of "
            f"shape {values.shape}" + ("; subtract 0.5 from an occupancy" if values.dtype.kind == "b" else "")
        )
    if (bad := np.isnan(values)).any():
        where = points[bad.argmax()].tolist()
        raise ExtractionError(f"the function answers NaN at {where} ({bad.sum()} of {len(points)} points there)")
    return values.astype(np.float64)


def _surface(volume: NDArray[np.float32], axes: list[Floats], available: int) -> trimesh.Trimesh:
    """Marching cubes on the bordered logits, in index space; then to the box's coordinates in float64."""
    import trimesh
    from skimage.measure import marching_cubes

    inside = volume > 0
    turned = (np.moveaxis(inside, axis, 0) for axis in range(3))
    vertices = sum(np.count_nonzero(it[1:] != it[:-1]) for it in turned)
    if (needed := BYTES_A_VOXEL * volume.size + BYTES_A_VERTEX * vertices) > available:
        raise MemoryError(
            f"the surface is rough: its {vertices} vertices need {needed / 1e9:.3g} GB, {available / 1e9:.3g} GB are "
            "available; lower the resolution, or look whether the function is noise"
        )
    signs = np.where(inside, np.float32(1), np.float32(-1))
    del inside
    # by the signs alone each vertex lies halfway along an edge of the grid; "ascent" is what winds faces outward here
    halfway, faces, _, _ = marching_cubes(signs, 0.0, gradient_direction="ascent", method="lorensen")
    del signs
    assert len(halfway) == vertices, "marching cubes missed an edge of the grid"
    first, second = np.floor(halfway).astype(np.intp), np.ceil(halfway).astype(np.intp)
    a, b = (volume[tuple(ends.T)].astype(np.float64) for ends in (first, second))
    share = np.clip(a / (a - b), MARGIN, 1 - MARGIN)
    index = first + (second - first) * share[:, None]
    assert _volume(index, faces) > 0, "marching cubes gave a mesh that is inside out"
    for k, axis in enumerate(axes):
        cell = np.diff(axis).max()
        bordered = np.concatenate([[axis[0] - cell], axis, [axis[-1] + cell]])
        index[:, k] = np.interp(index[:, k], np.arange(len(bordered)), bordered)
    return trimesh.Trimesh(index, faces, process=False)


def _volume(vertices: Floats, faces: NDArray[np.integer]) -> float:
    """Signed volume of a closed mesh, by the divergence theorem along x."""
    x, y, z = (vertices[:, k][faces] for k in range(3))
    area = (y[:, 1] - y[:, 0]) * (z[:, 2] - z[:, 0]) - (z[:, 1] - z[:, 0]) * (y[:, 2] - y[:, 0])
    return float((x.sum(axis=1) * area).sum()) / 6
