"""OFF text in all its dialects: meshes, and point clouds of zero faces."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ff3d.formats.polygons import Polygons
from ff3d.formats.text import MeshError, bad_number, shown, text_rows, to_floats, to_ints
from ff3d.geometry.arrays import Floats, Ints

logger = logging.getLogger(__name__)

# ST texture coordinates, C colours, N normals, 4 homogeneous coordinates, n another dimension; the counts may be glued
HEADER = re.compile(rb"((?:ST|C|N|4)*)OFF(.*)", re.IGNORECASE)

Rows = list[tuple[int, list[bytes]]]


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
    layout, rows = _read_header(path)
    table, corners, lengths = _read_rows(layout, rows, path)
    return _positions(layout, table), corners, lengths


def read_off_points(path: Path) -> tuple[Floats, Floats | None]:
    """The vertices (n, 3), and the normals (n, 3) where the header has an N."""
    layout, rows = _read_header(path)
    table, _, _ = _read_rows(layout, rows, path)
    start = 4 if layout.homogeneous else 3
    return _positions(layout, table), table[:, start : start + 3] if layout.normals else None


def _read_header(path: Path) -> tuple[_Layout, Rows]:
    """The layout, and the rows behind the counts."""
    rows = [(number, list(words)) for number, words in text_rows(path.read_bytes())]
    found = HEADER.fullmatch(rows[0][1][0]) if rows else None
    counts_alone = bool(rows) and rows[0][1][0].isdigit() and (len(rows[0][1]) in (2, 3) or len(rows) == 1)
    if not found and not counts_alone:
        raise MeshError("no OFF header (OFF, with ST, C, N or 4 before it, or the counts alone); export it again")
    prefix = found[1] if found else b""
    if found:
        rows[0][1][:1] = [found[2]] if found[2] else []
        if b"".join(rows[0][1][:1]).upper() == b"BINARY":
            raise MeshError("binary OFF is not read; export it as text, or as PLY")
        rows = rows if rows[0][1] else rows[1:]
        # nOFF has its dimension before the counts; where all letters are small, noff may be NOFF
        small = found[0].islower() and not (rows and len(rows[0][1]) in (1, 4))
        if prefix.endswith(b"n") and not small:
            prefix = prefix[:-1]
            number, dimension = _take(rows)
            if dimension != b"3" or b"4" in prefix:
                raise MeshError(f"line {number}: its space has {shown(dimension)} dimensions; export it in three")
    prefix = prefix.upper()
    least = len(rows[0][1]) if rows else 0
    counts = [_take(rows) for _ in range(2)]
    if least != 2:  # the third, of the edges, means nothing, and may be missing
        _take(rows)
    try:
        vertices, faces = to_ints([word for _, word in counts]).tolist()
    except ValueError:
        raise bad_number(((number, [word]) for number, word in counts), whole=True) from None
    if min(vertices, faces) < 0:
        raise MeshError(f"line {counts[0][0]}: expected counts, got {vertices} and {faces}; export it again")
    homogeneous, normals = b"4" in prefix, b"N" in prefix
    width = (4 if homogeneous else 3) + 3 * normals + 4 * (b"C" in prefix) + 2 * (b"ST" in prefix)
    return _Layout(vertices, faces, homogeneous, normals, width), rows


def _take(rows: Rows) -> tuple[int, bytes]:
    """The next word and its line, taken off the rows."""
    if not rows:
        raise MeshError("the counts of vertices and faces are missing behind the header: cut short; export it again")
    number, words = rows[0]
    word = words.pop(0)
    if not words:
        rows.pop(0)
    return number, word


def _read_rows(layout: _Layout, rows: Rows, path: Path) -> tuple[Floats, Ints, Ints]:
    """The numbers of each vertex (v, 3 or more), the corners of all faces in a row, and the corners of each face."""
    least = 3 + layout.homogeneous + 3 * layout.normals
    points, faces = rows[: layout.vertices], rows[layout.vertices : layout.vertices + layout.faces]
    complete = len(points) == layout.vertices and len(faces) == layout.faces
    if complete and all(len(words) >= least for _, words in points):
        lengths = _ints([(number, words[:1]) for number, words in faces])
        if (lengths < 0).any():
            raise MeshError(f"line {faces[lengths.argmin()][0]}: a face of {lengths.min()} corners; export it again")
        if (np.array([len(words) for _, words in faces], dtype=np.int64) > lengths).all():
            behind = len(rows) - layout.vertices - layout.faces
            if behind:
                logger.warning("%s: %d rows behind the last of %d faces left out", path, behind, layout.faces)
            table = _floats([(number, words[:least]) for number, words in points]).reshape(-1, least)
            ends = zip(faces, (lengths + 1).tolist(), strict=True)
            return table, _ints([(number, words[1:end]) for (number, words), end in ends]), lengths
    words = [(number, [word]) for number, words in rows for word in words]
    behind = layout.vertices * layout.width
    table = _floats(words[:behind])
    corners, lengths = _split_faces(words[behind:], layout.faces)
    if len(table) < behind or len(lengths) < layout.faces:
        raise MeshError(
            f"it promises {layout.vertices} vertices and {layout.faces} faces but ends in the midst: cut short; "
            "export or download it again"
        )
    return table.reshape(-1, layout.width)[:, :least], corners, lengths


def _split_faces(words: Rows, faces: int) -> tuple[Ints, Ints]:
    """Corners and lengths of faces word by word: as many faces as are complete, of at most `faces`.

    Raises MeshError if words are left behind the last: colours, which take rows, or a file whose counts are wrong.
    """
    numbers = _ints(words).tolist() if faces and words else []
    corners: list[int] = []
    lengths: list[int] = []
    at = 0
    while at < len(numbers) and len(lengths) < faces and 0 <= numbers[at] < len(numbers) - at:
        corners += numbers[at + 1 : at + 1 + numbers[at]]
        lengths.append(numbers[at])
        at += 1 + numbers[at]
    if len(lengths) == faces and at < len(words):
        raise MeshError(
            f"line {words[at][0]}: {len(words) - at} words behind the last of {faces} faces: its counts or rows are "
            "damaged; export it again"
        )
    return np.array(corners, dtype=np.int64), np.array(lengths, dtype=np.int64)


def _positions(layout: _Layout, table: Floats) -> Floats:
    return table[:, :3] / table[:, 3:4] if layout.homogeneous else table[:, :3]


def _floats(rows: Rows) -> Floats:
    try:
        return to_floats([word for _, words in rows for word in words])
    except ValueError:
        raise bad_number(rows) from None


def _ints(rows: Rows) -> Ints:
    try:
        return to_ints([word for _, words in rows for word in words])
    except ValueError:
        raise bad_number(rows, whole=True) from None
