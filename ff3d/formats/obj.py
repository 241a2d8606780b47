"""Wavefront OBJ: meshes, and point clouds of v and vn lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ff3d.formats.polygons import Polygons
from ff3d.formats.text import MeshError, bad_number, shown, text_lines, to_floats, to_ints
from ff3d.geometry.arrays import Floats

# A line of these continues after a backslash at its end. In a name or a comment it is a letter like any other.
CONTINUED = (b"v", b"vn", b"vt", b"vp", b"f", b"fo", b"l", b"p")

Rows = list[tuple[int, list[bytes]]]


def read_obj(path: Path) -> Polygons:
    """v and f lines; indices count from 1 or, negative, back from the face's place in the file.

    v x y z w is divided by w; of v x y z r g b the colours are left out. Groups, normals, textures, materials, lines
    (l), points (p) and free-form surfaces are passed over.
    """
    statements = _statements(path)
    vertices = _vertices(statements)
    rows, seen, count = [], [], 0
    for number, words in statements:
        if words[0] == b"v":
            count += 1
        elif words[0] == b"f":
            rows.append((number, [word.partition(b"/")[0] for word in words[1:]]))
            seen.append(count)
    try:
        index = to_ints([word for _, words in rows for word in words])
    except ValueError:
        raise bad_number(rows, whole=True) from None
    if (index == 0).any():
        number = next(number for number, words in rows if 0 in map(int, words))
        raise MeshError(f"line {number}: a face names vertex 0, but OBJ counts from 1; export it again")
    lengths = np.array([len(words) for _, words in rows], dtype=np.int64)
    index += np.where(index < 0, np.repeat(np.array(seen, dtype=np.int64), lengths), -1)
    return vertices, index, lengths


def read_obj_points(path: Path) -> tuple[Floats, Floats | None]:
    """The vertices (n, 3), and the normals (n, 3) where there is one for each vertex, in their order.

    In a file with faces too the normals are taken only where every face pairs a vertex with the normal of its number.
    """
    statements = _statements(path)
    vertices = _vertices(statements)
    rows = [row for row in statements if row[1][0] == b"vn"]
    corners = (word.split(b"/") for _, words in statements if words[0] == b"f" for word in words[1:])
    if len(rows) != len(vertices) or any(len(corner) < 3 or corner[0] != corner[2] for corner in corners):
        return vertices, None
    return vertices, _table(rows)


def _statements(path: Path) -> Rows:
    """The v, vn and f lines, continued lines joined, without comments: the first line's number and the words."""
    rows: Rows = []
    goes_on = False
    for number, line in enumerate(text_lines(path.read_bytes()), 1):
        text, comment, _ = line.partition(b"#")
        words = text.split()
        if goes_on:
            rows[-1][1].extend(words)
        elif words and words[0].removesuffix(b"\\") in CONTINUED:
            rows.append((number, words))
        else:
            continue
        goes_on = not comment and bool(words) and words[-1].endswith(b"\\")
        if goes_on:
            last = rows[-1][1].pop()[:-1]
            rows[-1][1].extend([last] if last else [])
    return [row for row in rows if row[1] and row[1][0] in (b"v", b"vn", b"f")]


def _vertices(statements: Rows) -> Floats:
    """Positions (v, 3) of the v lines: of 3 numbers, of 4 with w, or of 6 and more with colours."""
    rows = [row for row in statements if row[1][0] == b"v"]
    vertices = _table(rows)
    homogeneous = [i for i, (_, words) in enumerate(rows) if len(words) == 5]
    if homogeneous:
        try:
            weights = to_floats([rows[i][1][4] for i in homogeneous])
        except ValueError:
            raise bad_number((number, words[4:5]) for number, words in rows) from None
        vertices[homogeneous] /= weights[:, None]
    return vertices


def _table(rows: Rows) -> Floats:
    """The first three numbers of each v or vn line (n, 3)."""
    for number, words in rows:
        if len(words) < 4:
            raise MeshError(
                f"line {number}: {shown(b' '.join(words))} has under 3 coordinates: cut short; "
                "export or download it again"
            )
    try:
        return to_floats([word for _, words in rows for word in words[1:4]]).reshape(-1, 3)
    except ValueError:
        raise bad_number((number, words[1:4]) for number, words in rows) from None
