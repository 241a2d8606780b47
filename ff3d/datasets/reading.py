"""Sets of points of every layout, read back into input coordinates; what writes them is `layouts`."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ff3d.checks import one_line
from ff3d.datasets.config import LAYOUTS
from ff3d.files import check_archive
from ff3d.geometry.arrays import Bools, Floats
from ff3d.geometry.coordinates import check_points

# the arrays that are not named as their sets are
NAMES = {"vol_points": "volume", "random_near_points": "near", "sharp_near_points": "sharp"}
NAMES |= {"random_surface": "surface", "sharp_surface": "salient", "sharp_near_surface": "sharp"}
NAMES |= {"fps_coarse_surface": "surface", "fps_sharp_surface": "salient", "rand_points": "near and volume"}


@dataclass(frozen=True, eq=False)
class StoredSet:
    """A set of points of one shape, as it was stored.

    name: "" of points that are mixed.  points: (n, 3) float64, input coordinates.  inside: (n,) bool, of queries with
    labels or signed distances.  normals: (n, 3), of points on the surface.
    """

    name: str
    points: Floats
    inside: Bools | None = None
    normals: Floats | None = None


def stored_sets(folder: Path, row: Mapping[str, Any]) -> list[StoredSet]:
    """The sets of the shape that a row of prepared.jsonl in this folder is of.

    Raises ValueError, in one line, for files that cannot be read and for sets of no layout that is known.
    """
    found = []
    for path in row.get("files", [row["file"]]):
        try:
            if path.endswith(".npz"):
                found += read_sets(load_arrays(folder / path))
            elif path.endswith(".tar"):
                key = PurePosixPath(row["file"]).name
                found += [each for data in _entries(folder / path, key) for each in read_sets(load_arrays(data))]
        except Exception as error:  # whatever is wrong with it
            raise ValueError(f"{folder / path}: {one_line(error)}") from error
    if not found:
        raise ValueError(f"{folder / row['file']}: no sets of points of a known layout: {', '.join(LAYOUTS)}")
    return found


def read_sets(arrays: Mapping[str, Any]) -> list[StoredSet]:
    """The sets in an .npz of any layout; none in one without `loc` and `scale`, or of bare points.

    A set is (n, 3) points beside an array of labels, distances or normals, or rows of six numbers, points and normals,
    or of four, points and distances. Raises ValueError for arrays that do not fit.
    """
    if not {"loc", "scale"} <= arrays.keys():
        return []
    found = []
    for key, array in arrays.items():
        columns = array.shape[-1] if array.ndim in (2, 3) else 0
        prefix = key.removesuffix("points")
        if columns not in (3, 4, 6) or (columns == 3 and prefix == key):
            continue
        rows = array.reshape(-1, columns).astype(np.float64)
        inside = normals = None
        if columns == 6:
            normals = rows[:, 3:]
        elif columns == 4:
            inside = rows[:, 3] > 0
        elif (known := f"{prefix}normals") in arrays:
            normals = np.asarray(arrays[known], dtype=np.float64)
        elif (known := f"{prefix}occupancies") in arrays:
            inside = _unpacked(arrays[known], len(rows))
        elif (known := f"{prefix}label") in arrays or (known := f"{prefix}distances") in arrays:
            inside = None if _is_unsigned(arrays) else arrays[known] > 0
        else:
            continue
        if any(values is not None and len(values) != len(rows) for values in (inside, normals)):
            raise ValueError(f"{key} has {len(rows)} points, and not as many values beside them")
        name = NAMES.get(key, prefix.removesuffix("_") or ("" if normals is None else "surface"))
        points = check_points(rows[:, :3] * float(arrays["scale"]) + arrays["loc"])
        found.append(StoredSet(name, points, inside, normals))
    return found


def load_arrays(file: Path | io.BytesIO) -> dict[str, Any]:
    """The arrays of an .npz. Raises whatever numpy does, and ValueError for one that unpacks to far more."""
    check_archive(file)
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _entries(shard: Path, key: str) -> Iterator[io.BytesIO]:
    """The .npz of a shape in a .tar."""
    with tarfile.open(shard, "r:") as archive:
        for entry in archive:
            if entry.isfile() and entry.name.startswith(f"{key}.") and entry.name.endswith(".npz"):
                file = archive.extractfile(entry)
                assert file is not None
                yield io.BytesIO(file.read())


def _unpacked(occupancies: Any, count: int) -> Bools:
    """Labels of so many points, one a bit, or one a number."""
    if occupancies.dtype == np.uint8 and 8 * len(occupancies) >= count:
        return np.unpackbits(occupancies, count=count).astype(bool)
    return np.asarray(occupancies > 0)


def _is_unsigned(arrays: Mapping[str, Any]) -> bool:
    """Whether distances have no sign."""
    return "meta" in arrays and json.loads(str(arrays["meta"])).get("target") == "unsigned"
