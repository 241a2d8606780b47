"""Wavefront OBJ."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ff3d.formats.polygons import Polygons
from ff3d.formats.text import MeshError


def read_obj(path: Path) -> Polygons:
    """Wavefront OBJ: v and f lines, indices from 1 or (negative) back from the face's place in the file."""
    text = path.read_bytes().decode("utf-8", errors="replace").replace("\\\r\n", " ").replace("\\\n", " ")
    numbers: list[str] = []
    corners: list[str] = []
    lengths, seen = [], []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words and words[0] == "v":
            if len(words) < 4:
                raise MeshError(f"{line.strip()!r} has under 3 coordinates: cut short; export or download it again")
            numbers += words[1:4]
        elif words and words[0] == "f":
            corners += words[1:]
            lengths.append(len(words) - 1)
            seen.append(len(numbers) // 3)
    index = np.array([int(corner.partition("/")[0]) for corner in corners], dtype=np.int64)
    if (index == 0).any():
        raise MeshError("a face names vertex 0, but OBJ counts from 1; export it again")
    counts = np.array(lengths, dtype=np.int64)
    index += np.where(index < 0, np.repeat(np.array(seen, dtype=np.int64), counts), -1)
    return np.array(list(map(float, numbers))).reshape(-1, 3), index, counts
