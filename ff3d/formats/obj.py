"""Wavefront OBJ: meshes, and point clouds of v and vn lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ff3d.formats.polygons import Polygons
from ff3d.formats.text import MeshError, as_utf8, parse_numbers, shown, text_lines, without_comments
from ff3d.geometry.arrays import Floats

# A line of these continues after a backslash at its end. In a name or a comment it is a letter like any other.
CONTINUED = (b"v", b"vn", b"vt", b"vp", b"f", b"fo", b"l", b"p")
BLOCK = 2**24  # bytes of text whose lines are in memory at once
FACES = (b"f", b"fo")  # fo: a face's outline in files of before version 2.11, to be read as a face


def read_obj(path: Path) -> Polygons:
    """v and f (or fo) lines; indices count from 1 or, negative, back from the face's place in the file.

    v x y z w is divided by w; of v x y z r g b the colours are left out. Groups, normals, textures, materials, lines
    (l), points (p) and free-form surfaces are passed over.
    """
    vertices, corners, lengths, known = [], [], [], 0
    for before, lines in _blocks(path):
        vertices.append(_vectors(lines, b"v", before))
        places, faces = _statements(lines, *FACES)
        index, counts = parse_numbers(_first_indices(faces), (before + place for place in places), whole=True)
        if (index == 0).any():
            face = int(np.repeat(np.arange(len(counts)), counts)[(index == 0).argmax()])
            raise MeshError(
                f"line {before + places[face]}: a face names vertex 0, but OBJ counts from 1; export it again"
            )
        if (index < 0).any():
            there = known + np.cumsum([line.startswith(b"v ") for line in lines])[np.array(places) - 1]
            index = np.where(index < 0, index + np.repeat(there, counts) + 1, index)
        known += len(vertices[-1])
        corners.append(index - 1)
        lengths.append(counts)
    return np.concatenate(vertices), np.concatenate(corners), np.concatenate(lengths)


def read_obj_points(path: Path) -> tuple[Floats, Floats | None]:
    """The vertices (n, 3), and the normals (n, 3) where there is one for each vertex, in their order.

    In a file with faces too the normals are taken only where every face pairs a vertex with the normal of its number.
    """
    lines = [line for _, block in _blocks(path) for line in block]
    vertices, normals = _vectors(lines, b"v"), _vectors(lines, b"vn")
    corners = (word.split(b"/") for line in _statements(lines, *FACES)[1] for word in line.split())
    if len(normals) != len(vertices) or any(len(corner) < 3 or corner[0] != corner[2] for corner in corners):
        return vertices, None
    return vertices, normals


def _blocks(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """The number of lines before, and the lines, megabytes at a time: those of millions of faces take gigabytes."""
    data = as_utf8(path.read_bytes())
    start, before = 0, 0
    while start <= len(data):
        end = data.find(b"\n", start + BLOCK)
        while end > 0 and data[max(start, end - 80) : end].rstrip().endswith(b"\\"):  # its last line continues
            end = data.find(b"\n", end + 1)
        end = end if end > 0 else len(data)
        lines = _statement_lines(data[start:end].removesuffix(b"\r"))
        yield before, lines
        start, before = end + 1, before + len(lines)


def _statement_lines(data: bytes) -> list[bytes]:
    """The lines without comments; continued lines are joined, and blank ones stand in for those that continue them."""
    lines = text_lines(data)
    if b"\\" in data and any(line.endswith(b"\\") for line in lines):
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
    return without_comments(lines) if b"#" in data else lines


def _statements(lines: list[bytes], *keywords: bytes) -> tuple[list[int], list[bytes]]:
    """The numbers of the lines that start with one of the keywords, and what stands behind it."""
    starts = tuple(keyword + b" " for keyword in keywords)
    places = [place for place, line in enumerate(lines, 1) if line.startswith(starts) or line in keywords]
    return places, [lines[place - 1].partition(b" ")[2] for place in places]


def _first_indices(faces: list[bytes]) -> list[bytes]:
    """The faces with the indices of vertices alone, of those before and behind slashes."""
    text = b"\n".join(faces)
    return re.sub(rb"/[^ \n]*", b"", text).split(b"\n") if b"/" in text else faces


def _vectors(lines: list[bytes], keyword: bytes, before: int = 0) -> Floats:
    """The vectors (n, 3) of v or vn lines: of 3 numbers, of 4 with w, or of 6 and more with colours."""
    places, rows = _statements(lines, keyword)
    numbers, counts = parse_numbers(rows, (before + place for place in places))
    if (counts < 3).any():
        short = int((counts < 3).argmax())
        raise MeshError(
            f"line {before + places[short]}: {shown(lines[places[short] - 1])} has under 3 coordinates: cut short; "
            "export or download it again"
        )
    starts = np.cumsum(counts) - counts
    vectors: Floats = numbers[starts[:, None] + np.arange(3)]
    homogeneous = counts == 4
    vectors[homogeneous] /= numbers[starts[homogeneous] + 3][:, None]
    return vectors
