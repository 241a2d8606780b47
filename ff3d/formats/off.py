"""OFF text in all its dialects: meshes, and point clouds of zero faces."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ff3d.formats.polygons import Polygons
from ff3d.formats.text import MeshError, parse_numbers, shown, text_lines, without_comments
from ff3d.geometry.arrays import Floats, Ints

logger = logging.getLogger(__name__)

# ST texture coordinates, C colours, N normals, 4 homogeneous coordinates, n another dimension; the counts may be glued
HEADER = re.compile(rb"((?:ST|C|N|4)*)OFF(.*)", re.IGNORECASE)

Lines = tuple[list[int], list[bytes]]  # those that hold words: their numbers in the file, from 1, and the words


class _Layout(NamedTuple):
    """What a header says: the counts, and the numbers of a vertex."""

    vertices: int
    faces: int
    homogeneous: bool
    normals: bool
    width: int  # numbers of a vertex, where rows do not tell


def read_off(path: Path) -> Polygons:
    """The vertices and faces; colours, normals and texture coordinates are left out, and x y z w is divided by w.

    Read by rows where there is a row for each vertex and face, as then colours of any number may follow; otherwise word
    by word, as the format is free. Source of the dialects: Geomview's manual, "OFF: object file format".
    """
    layout, lines = _read_header(path)
    table, corners, lengths = _read_rows(layout, lines, path)
    return _positions(layout, table), corners, lengths


def read_off_points(path: Path) -> tuple[Floats, Floats | None]:
    """The vertices (n, 3), and the normals (n, 3) where the header has an N."""
    layout, lines = _read_header(path)
    table, _, _ = _read_rows(layout, lines, path)
    start = 4 if layout.homogeneous else 3
    return _positions(layout, table), table[:, start : start + 3] if layout.normals else None


def _positions(layout: _Layout, table: Floats) -> Floats:
    return table[:, :3] / table[:, 3:4] if layout.homogeneous else table[:, :3]


def _read_header(path: Path) -> tuple[_Layout, Lines]:
    """The layout, and the lines behind the counts."""
    bare = without_comments(text_lines(path.read_bytes()))
    places = [place for place, line in enumerate(bare, 1) if line]
    lines = [line for line in bare if line]
    words = lines[0].split() if lines else [b""]
    found = HEADER.fullmatch(words[0])
    if not found and not (words[0].isdigit() and (len(words) in (2, 3) or len(lines) == 1)):
        raise MeshError("no OFF header (OFF, with ST, C, N or 4 before it, or the counts alone); export it again")
    prefix = b""
    if found:
        prefix = found[1]
        _take(places, lines, len(found[0]) - len(found[2]))
        ahead = lines[0].split() if lines else []
        if ahead[:1] and ahead[0].upper() == b"BINARY":
            raise MeshError("binary OFF is not read; export it as text, or as PLY")
        # nOFF has its dimension before the counts; where all letters are small, noff may be NOFF
        if prefix.endswith(b"n") and not (found[0].islower() and len(ahead) not in (1, 4)):
            prefix = prefix[:-1]
            place, dimension = _take(places, lines)
            if dimension != b"3" or b"4" in prefix:
                raise MeshError(f"line {place}: its space has {shown(dimension)} dimensions; export it in three")
    prefix = prefix.upper()
    edges_too = not lines or len(lines[0].split()) != 2
    taken = [_take(places, lines) for _ in range(2)]
    (vertices, faces), _ = parse_numbers([word for _, word in taken], [place for place, _ in taken], whole=True)
    if edges_too:  # their count means nothing
        _take(places, lines)
    if min(vertices, faces) < 0:
        raise MeshError(f"line {taken[0][0]}: expected counts, got {vertices} and {faces}; export it again")
    homogeneous, normals = b"4" in prefix, b"N" in prefix
    width = (4 if homogeneous else 3) + 3 * normals + 4 * (b"C" in prefix) + 2 * (b"ST" in prefix)
    return _Layout(int(vertices), int(faces), homogeneous, normals, width), (places, lines)


def _take(places: list[int], lines: list[bytes], size: int | None = None) -> tuple[int, bytes]:
    """The next word, or its first `size` letters, and its line, taken off the lines."""
    if not lines:
        raise MeshError("the counts of vertices and faces are missing behind the header: cut short; export it again")
    place, word = places[0], lines[0].split()[0][:size]
    lines[0] = lines[0][len(word) :].lstrip(b" ")
    if not lines[0]:
        del places[0], lines[0]
    return place, word


def _read_rows(layout: _Layout, found: Lines, path: Path) -> tuple[Floats, Ints, Ints]:
    """The numbers of each vertex (v, 3 or more), the corners of all faces in a row, and the corners of each face."""
    places, lines = found
    least = 3 + layout.homogeneous + 3 * layout.normals
    end = layout.vertices + layout.faces
    if end <= len(lines):
        numbers, counts = parse_numbers(lines[:end], places)
        starts = np.cumsum(counts) - counts
        first, places_of_faces = starts[layout.vertices :], np.array(places[layout.vertices : end], dtype=np.int64)
        if (counts[: layout.vertices] >= least).all() and (counts[layout.vertices :] > numbers[first]).all():
            lengths = _whole(numbers[first], places_of_faces)
            if (lengths < 0).any():
                place = places_of_faces[lengths.argmin()]
                raise MeshError(f"line {place}: a face of {lengths.min()} corners; export it again")
            if end < len(lines):
                behind = len(lines) - end
                logger.warning("%s: %d rows behind the last of %d faces left out", path, behind, layout.faces)
            before = np.cumsum(lengths) - lengths  # the corners of the faces before each
            corners = numbers[np.repeat(first + 1 - before, lengths) + np.arange(lengths.sum())]
            table = numbers[starts[: layout.vertices, None] + np.arange(least)]
            return table, _whole(corners, np.repeat(places_of_faces, lengths)), lengths
    numbers, counts = parse_numbers(lines, places)
    start = layout.vertices * layout.width  # of the numbers of the faces
    corners_at, lengths, at = _split_faces(numbers, start, layout.faces)
    if len(numbers) < start or len(lengths) < layout.faces:
        raise MeshError(
            f"it promises {layout.vertices} vertices and {layout.faces} faces but ends in the midst: cut short; "
            "export or download it again"
        )
    of_numbers = np.repeat(np.array(places, dtype=np.int64), counts)
    if at < len(numbers):
        raise MeshError(
            f"line {of_numbers[at]}: {len(numbers) - at} words behind the last of {layout.faces} faces: its counts or "
            "rows are damaged; export it again"
        )
    table = numbers[:start].reshape(-1, layout.width)[:, :least]
    return table, _whole(numbers[corners_at], of_numbers[corners_at]), lengths


def _split_faces(numbers: Floats, at: int, faces: int) -> tuple[Ints, Ints, int]:
    """Where the corners of the faces from number `at` on stand, the faces' lengths, and where the last one ends."""
    row = numbers.tolist()
    corners: list[int] = []
    lengths: list[int] = []
    while at < len(row) and len(lengths) < faces and 0 <= row[at] < len(row) - at and row[at] % 1 == 0:
        n = int(row[at])
        corners += range(at + 1, at + 1 + n)
        lengths.append(n)
        at += 1 + n
    return np.array(corners, dtype=np.int64), np.array(lengths, dtype=np.int64), at


def _whole(numbers: Floats, places: Ints) -> Ints:
    """Numbers as int64. Raises MeshError, with the line, for one that is not whole."""
    whole = np.nan_to_num(numbers).astype(np.int64)
    if (whole != numbers).any():
        bad = int((whole != numbers).argmax())
        raise MeshError(f"line {places[bad]}: expected a whole number, got {numbers[bad]:g}; export it again")
    return whole
