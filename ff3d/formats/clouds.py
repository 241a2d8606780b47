"""Point clouds: text and NumPy files."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ff3d.formats.text import MeshError
from ff3d.geometry.arrays import Floats


def _split(table: NDArray[Any]) -> tuple[Floats, Floats | None]:
    """Rows of 3 or 6 numbers -> points and normals."""
    if table.ndim != 2 or table.shape[1] not in (3, 6):
        raise MeshError(f"expected rows of 3 numbers (x y z) or 6 (x y z nx ny nz), got shape {table.shape}; cut them")
    if not np.issubdtype(table.dtype, np.floating) and not np.issubdtype(table.dtype, np.integer):
        raise MeshError(f"expected numbers, got {table.dtype}; save it as float64")
    table = table.astype(np.float64)
    return table[:, :3], table[:, 3:] if table.shape[1] == 6 else None


def read_text(path: Path) -> tuple[Floats, Floats | None]:
    """Rows of text, x y z or x y z nx ny nz."""
    text = path.read_bytes().decode("utf-8", errors="replace").replace(",", " ").replace(";", " ")
    rows = [words for line in text.splitlines() if (words := line.partition("#")[0].split())]
    promised = int(rows.pop(0)[0]) if rows and len(rows[0]) == 1 else len(rows)
    widths = [len(row) for row in rows]
    odd = next((i for i, width in enumerate(widths) if width != widths[0]), None)
    if odd is not None:
        raise MeshError(
            f"row {odd + 1} has {widths[odd]} columns, the first {widths[0]}: cut short or damaged; export it again"
        )
    if promised != len(rows):
        raise MeshError(f"it promises {promised} points and holds {len(rows)}: cut short; export or download it again")
    if not rows:
        raise MeshError("it holds no points; export or download it again")
    return _split(np.array(list(map(float, chain.from_iterable(rows)))).reshape(len(rows), -1))


def read_npy(path: Path) -> tuple[Floats, Floats | None]:
    """An array (n, 3) or (n, 6)."""
    return _split(np.load(path, allow_pickle=False))


def read_npz(path: Path) -> tuple[Floats, Floats | None]:
    """Arrays `points` (n, 3) and, optionally, `normals` (n, 3)."""
    with np.load(path, allow_pickle=False) as arrays:
        if "points" not in arrays:
            raise MeshError(f"expected an array named points, got {', '.join(arrays) or 'none'}; rename it")
        points, normals = arrays["points"], arrays.get("normals")
    for name, array in {"points": points, "normals": normals}.items():
        if array is not None and array.shape != (len(points), 3):
            raise MeshError(f"expected points and normals of one shape (n, 3), got {name} {array.shape}; reshape them")
    return _split(points)[0], None if normals is None else _split(normals)[0]
