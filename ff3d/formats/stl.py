"""STL, binary and text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ff3d.formats.polygons import Polygons
from ff3d.formats.text import MeshError
from ff3d.geometry.triangles import merge_exactly

STL_FACE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("extra", "<u2")])


def read_stl(path: Path) -> Polygons:
    """STL, binary (float32) or text, all its solids; corners that coincide exactly become one vertex."""
    data = path.read_bytes()
    count = int.from_bytes(data[80:84], "little")
    if len(data) != 84 + 50 * count and re.match(rb"\s*solid", data, re.IGNORECASE):
        text = data.lower()
        found = re.findall(rb"^\s*vertex[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)\s*$", text, re.MULTILINE)
        corners = np.array(found, dtype="S").astype(np.float64).reshape(-1, 3)
        facets, ends = (len(re.findall(rb"^\s*%s\b" % word, text, re.MULTILINE)) for word in (b"facet", b"endfacet"))
        if not re.search(rb"^\s*endsolid[^\n]*\s*\Z", text, re.MULTILINE) or not len(found) == 3 * facets == 3 * ends:
            raise MeshError("text STL cut short: a facet or `endsolid` is missing; export or download it again")
    elif len(data) != 84 + 50 * count:
        raise MeshError(
            f"binary STL cut short or damaged: {count} faces take {84 + 50 * count} bytes, the file has {len(data)}; "
            "export or download it again"
        )
    else:
        faces = np.frombuffer(data, STL_FACE, offset=84)
        corners = faces["corners"].astype(np.float64).reshape(-1, 3)
    first, index = merge_exactly(corners)
    # number the vertices as the faces meet them, so that a written mesh comes back in its order
    order = np.argsort(first)
    rank = np.argsort(order)
    return corners[first[order]], rank[index], np.full(len(corners) // 3, 3)
