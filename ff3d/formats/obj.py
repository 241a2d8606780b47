"""Wavefront OBJ: meshes, and point clouds of v and vn lines."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ff3d.formats.polygons import Polygons
from ff3d.formats.text import MeshError, parse_numbers, shown, text_lines, without_comments
from ff3d.geometry.arrays import Floats

# A line of these continues after a backslash at its end. In a name or a comment it is a letter like any other.
CONTINUED = (b"v", b"vn", b"vt", b"vp", b"f", b"fo", b"l", b"p")
FACES = (b"f", b"fo")  # fo: a face's outline in files of before version 2.11, to be read as a face


def read_obj(path: Path) -> Polygons:
    """v and f (or fo) lines; indices count from 1 or, negative, back from the face's place in the file.

    v x y z w is divided by w; of v x y z r g b the colours are left out. Groups, normals, textures, materials, lines
    (l), points (p) and free-form surfaces are passed over.
    """
    lines = _read_lines(path)
    vertices = _vectors(lines, b"v")
    places, faces = _statements(lines, *FACES)
    index, lengths = parse_numbers(_first_indices(faces), places, whole=True)
    if (index == 0).any():
        face = int(np.repeat(np.arange(len(lengths)), lengths)[(index == 0).argmax()])
        raise MeshError(f"line {places[face]}: a face names vertex 0, but OBJ counts from 1; export it again")
    if (index < 0).any():
        before = np.cumsum([line.startswith(b"v ") for line in lines])[np.array(places) - 1]
        return vertices, np.where(index < 0, index + np.repeat(before, lengths), index - 1), lengths
    return vertices, index - 1, lengths


def read_obj_points(path: Path) -> tuple[Floats, Floats | None]:
    """The vertices (n, 3), and the normals (n, 3) where there is one for each vertex, in their order.

    In a file with faces too the normals are taken only where every face pairs a vertex with the normal of its number.
    """
    lines = _read_lines(path)
    vertices, normals = _vectors(lines, b"v"), _vectors(lines, b"vn")
    corners = (word.split(b"/") for line in _statements(lines, *FACES)[1] for word in line.split())
    if len(normals) != len(vertices) or any(len(corner) < 3 or corner[0] != corner[2] for corner in corners):
        return vertices, None
    return vertices, normals


def _read_lines(path: Path) -> list[bytes]:
    """The lines without comments; continued lines are joined, and blank ones stand in for those that continue them."""
    lines = text_lines(path.read_bytes())
    if any(line.endswith(b"\\") for line in lines):
        start: int | None = None  # of the statement that goes on
        for i, line in enumerate(lines):
            text, comment, _ = line.partition(b"#")
            if start is None and text.split(b" ")[0].removesuffix(b"\\") in CONTINUED:
                start = i
            elif start is not None:
                lines[start], lines[i] = lines[start].removesuffix(b"\\").rstrip(b" ") + b" " + line, b""
            if comment or not text.endswith(b"\\"):
                start = None
        if start is not None:
            lines[start] = lines[start].removesuffix(b"\\").rstrip(b" ")
    return without_comments(lines)


def _statements(lines: list[bytes], *keywords: bytes) -> tuple[list[int], list[bytes]]:
    """The numbers of the lines that start with one of the keywords, and what stands behind it."""
    starts = tuple(keyword + b" " for keyword in keywords)
    places = [place for place, line in enumerate(lines, 1) if line.startswith(starts) or line in keywords]
    return places, [lines[place - 1].partition(b" ")[2] for place in places]


def _first_indices(faces: list[bytes]) -> list[bytes]:
    """The faces with the indices of vertices alone, of those before and behind slashes."""
    text = b"\n".join(faces)
    return re.sub(rb"/[^ \n]*", b"", text).split(b"\n") if b"/" in text else faces


def _vectors(lines: list[bytes], keyword: bytes) -> Floats:
    """The vectors (n, 3) of v or vn lines: of 3 numbers, of 4 with w, or of 6 and more with colours."""
    places, rows = _statements(lines, keyword)
    numbers, counts = parse_numbers(rows, places)
    if (counts < 3).any():
        short = int((counts < 3).argmax())
        raise MeshError(
            f"line {places[short]}: {shown(lines[places[short] - 1])} has under 3 coordinates: cut short; "
            "export or download it again"
        )
    starts = np.cumsum(counts) - counts
    vectors: Floats = numbers[starts[:, None] + np.arange(3)]
    homogeneous = counts == 4
    vectors[homogeneous] /= numbers[starts[homogeneous] + 3][:, None]
    return vectors
