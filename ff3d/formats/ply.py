"""PLY, text and binary: meshes of faces or triangle strips, and point clouds."""

from __future__ import annotations

import logging
import re
import struct
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ff3d.formats.polygons import Polygons, strip_triangles
from ff3d.formats.text import MeshError, parse_numbers, shown, text_lines
from ff3d.geometry.arrays import Floats, Ints

logger = logging.getLogger(__name__)

TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}
TYPES |= {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
TYPES |= {"int64": "i8", "uint64": "u8", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8"}
STRUCT = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f4": "f", "f8": "d"}

ENCODINGS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
CORNERS = re.compile(r"vert(ex|ices)?_?ind(ex|ices|exes)|vertices|indices|index")  # names of the list of a face

Columns = dict[str, NDArray[Any]]  # of an element: a list `p` as its values in a row, its lengths as `p#`


class _Property(NamedTuple):
    name: str
    length: str  # the NumPy type of the length of a list, else ""
    kind: str  # the NumPy type of the values


class _Element(NamedTuple):
    name: str
    rows: int
    properties: list[_Property]


def read_ply(path: Path) -> Polygons:
    """The vertices, and the faces or the triangles of the strips."""
    columns = _read_columns(path)
    vertices = _stack(columns.get("vertex", {}), ("x", "y", "z"))
    if vertices is None:
        raise MeshError(f"its vertices lack {_lacking(columns.get('vertex', {}))}; export it again, with x y z")
    corners, lengths = _corners(columns.get("face", {}))
    strips, strip_lengths = _corners(columns.get("tristrips", {}))
    if len(strips):
        # as if a restart stood behind each strip
        joined = np.insert(strips, np.cumsum(strip_lengths), -1)
        triangles = strip_triangles(joined, -1)
        corners = np.concatenate([corners, triangles.reshape(-1)])
        lengths = np.concatenate([lengths, np.full(len(triangles), 3)])
    return vertices, corners, lengths


def read_ply_points(path: Path) -> tuple[Floats, Floats | None]:
    """The vertices (n, 3) of a PLY, with faces or without, and their nx ny nz (n, 3), if it holds them.

    Raises MeshError for a file that is damaged or cut short, or without x, y or z.
    """
    vertex = _read_columns(path).get("vertex", {})
    points = _stack(vertex, ("x", "y", "z"))
    if points is None:
        raise MeshError(f"its vertices lack {_lacking(vertex)}; export it again, as points with x y z")
    normals = _stack(vertex, ("nx", "ny", "nz")) if "nx" in vertex else None
    return points, _stack(vertex, ("normal_x", "normal_y", "normal_z")) if normals is None else normals


def _stack(columns: Columns, names: tuple[str, ...]) -> Floats | None:
    """Columns side by side as float64 (n, 3); None where one is missing; no rows for an element without any."""
    if not columns and names == ("x", "y", "z"):
        return np.zeros((0, 3))
    if not all(name in columns for name in names):
        return None
    return np.stack([columns[name] for name in names], axis=1).astype(np.float64)


def _lacking(columns: Columns) -> str:
    return " ".join(axis for axis in "xyz" if axis not in columns)


def _corners(columns: Columns) -> tuple[Ints, Ints]:
    """The vertex numbers of an element's faces or strips in a row, and how many each has."""
    lists = [name for name in columns if f"{name}#" in columns]
    name = next((name for name in lists if CORNERS.fullmatch(name)), lists[0] if len(lists) == 1 else "")
    if not columns:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if not name:
        raise MeshError(f"its faces have no list vertex_indices, only {', '.join(columns)}; export it again")
    numbers = columns[name].astype(np.int64)
    if columns[name].dtype.kind != "i" and (numbers != columns[name]).any():
        raise MeshError("damaged: a face names a vertex by a broken number; export or download it again")
    return numbers, columns[f"{name}#"].astype(np.int64)


# ---------------------------------------------------------------------------------------------- header


def _read_columns(path: Path) -> dict[str, Columns]:
    """The columns of each element that has rows, by element and property, names in lower case."""
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if not re.match(rb"ply\s", data):
        raise MeshError("no PLY header; export or download it again")
    # the lines end as the first does: where CR alone ends them, an LF behind the header is data
    end = b"\r" if re.match(rb"ply[ \t]*\r(?!\n)", data) else b"\n"
    found = re.search(rb"[\r\n][ \t]*end_header[ \t]*" + (rb"\r" if end == b"\r" else rb"\r?\n"), data)
    if not found:
        raise MeshError("no PLY header, or cut short in it; export or download it again")
    prefix, elements = _read_header(data[: found.end()].decode("latin-1").split(end.decode()))
    body = data[found.end() :]
    if not prefix:
        return _read_text(body, elements, path, first_line=data[: found.end()].count(end) + 1)
    at, columns = 0, dict[str, Columns]()
    for element in elements:
        columns[element.name], at = _read_binary(body, at, element)
    if body[at:].strip(b"\0\r\n\t "):
        raise MeshError(f"damaged: {len(body) - at} bytes of data behind the last row; export it again")
    return columns


def _read_header(lines: list[str]) -> tuple[str, list[_Element]]:
    """The byte order, "" for text, and the elements, in which a name that comes again has a number behind it."""
    encoding: str | None = None
    elements: list[_Element] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        try:
            if words[:1] == ["format"]:
                encoding = ENCODINGS[words[1]]
            elif words[:1] == ["element"]:
                elements.append(_Element(words[1].lower(), int(words[2]), []))
                if elements[-1].rows < 0:
                    raise ValueError("a negative count")
            elif words[:1] == ["property"]:
                types = words[2:4] if words[1] == "list" else ["", words[1]]
                length, kind = (word and TYPES[word] for word in types)
                properties = elements[-1].properties
                again = sum(name.partition("~")[0] == words[-1].lower() for name, _, _ in properties)
                properties.append(_Property(words[-1].lower() + f"~{again}" * bool(again), length, kind))
        except (ValueError, LookupError) as error:
            raise MeshError(
                f"line {number}: {shown(line.strip().encode())} is no line of a PLY header; export it again"
            ) from error
    if encoding is None:
        raise MeshError("its header has no format line; export it again")
    if len({element.name for element in elements}) < len(elements):
        raise MeshError("its header has two elements of one name; export it again")
    ordered = [
        _Element(
            name, count, [_Property(p, length and encoding + length, encoding + kind) for p, length, kind in listed]
        )
        for name, count, listed in elements
    ]
    return encoding, ordered


# ---------------------------------------------------------------------------------------------- rows


def _cut_short(element: _Element, there: int | None = None) -> MeshError:
    where = f"after {there} of its" if there is not None else "in its"
    return MeshError(f"cut short or damaged {where} {element.rows} {element.name} rows; export or download it again")


def _read_text(body: bytes, elements: list[_Element], path: Path, first_line: int) -> dict[str, Columns]:
    """The columns of text: a line a row, where further numbers are passed over; or word by word, if lines are short."""
    bare = text_lines(body)
    places = [place for place, line in enumerate(bare, first_line) if line]
    numbers, counts = parse_numbers([line for line in bare if line], places)
    starts, row = np.cumsum(counts) - counts, 0
    taken = np.zeros(len(counts), dtype=np.int64)
    for element in elements:
        rows = slice(row, row + element.rows)
        taken[rows] = _numbers_taken(element, numbers, starts[rows], counts[rows])
        row += element.rows
    if row > len(counts) or (taken > counts).any():
        return _columns_of_numbers(elements, numbers)
    place_in_row = np.arange(len(numbers)) - np.repeat(starts, counts)
    columns = _columns_of_numbers(elements, numbers[place_in_row < np.repeat(taken, counts)])
    if row < len(counts):
        last = elements[-1] if elements else _Element("", 0, [])
        like_rows = _numbers_taken(last, numbers, starts[row:], counts[row:]) == counts[row:]
        if (like_rows & (counts[row:] >= 3)).any():
            raise MeshError(
                f"line {places[row]}: {len(counts) - row} rows behind the last row of its {last.rows} {last.name} "
                "rows: its counts are damaged; export it again"
            )
        behind = len(counts) - row
        logger.warning("%s: from line %d on, %d rows behind the last are left out", path, places[row], behind)
    return columns


def _numbers_taken(element: _Element, numbers: Floats, starts: Ints, counts: Ints) -> Ints:
    """How many of its numbers each row of the element takes; more than it has, if it is cut short."""
    taken = np.zeros(len(starts), dtype=np.int64)
    for _, length, _ in element.properties:
        there = taken < counts
        if length:
            n = np.where(there, numbers[np.where(there, starts + taken, 0)], 0) if len(numbers) else 0 * taken
            # what is no length takes more than the row has
            taken += np.where((n >= 0) & (n <= counts) & (n % 1 == 0), np.nan_to_num(n), counts).astype(np.int64)
        taken += 1
    return taken


def _columns_of_numbers(elements: list[_Element], numbers: Floats) -> dict[str, Columns]:
    """The columns of numbers in a row, read as if they were binary float64."""
    body, at, columns = numbers.tobytes(), 0, dict[str, Columns]()
    for name, rows, properties in elements:
        element = _Element(name, rows, [_Property(p, length and "<f8", "<f8") for p, length, _ in properties])
        columns[name], at = _read_binary(body, at, element)
    if at != len(body):
        raise MeshError(f"damaged: {(len(body) - at) // 8} numbers behind the last row; export it again")
    return columns


def _read_binary(body: bytes, at: int, element: _Element) -> tuple[Columns, int]:
    """Read an element's rows from byte `at`; return their columns and the byte behind them.

    Raises MeshError if the body ends before.
    """
    _, count, properties = element
    if not count or not properties:
        return {}, at
    # no row is smaller than this: a count that the body cannot hold is refused before anything of its size is made
    least = sum(np.dtype(length or kind).itemsize for _, length, kind in properties)
    if at + count * least > len(body):
        raise _cut_short(element, there=(len(body) - at) // least if not any(p.length for p in properties) else None)
    fields: list[tuple[str, str, tuple[int, ...]]] = []
    for field, length, kind in properties:  # the lengths of the first row; mostly all rows have them
        if length:
            fields.append((f"{field}#", length, (1,)))
        place = at + np.dtype(fields).itemsize
        n = int(np.frombuffer(body, length, 1, place - np.dtype(length).itemsize)[0]) if length else 1
        if not 0 <= n * np.dtype(kind).itemsize <= len(body) - place:
            raise _cut_short(element)
        fields.append((field, kind, (n,)))
    if at + count * np.dtype(fields).itemsize <= len(body):
        rows = np.frombuffer(body, fields, count, at)
        if all((rows[f"{p.name}#"] == rows[p.name].shape[1]).all() for p in properties if p.length):
            return {field[0]: rows[field[0]].reshape(-1) for field in fields}, at + rows.nbytes
    return _read_uneven(body, at, element)


def _read_uneven(body: bytes, at: int, element: _Element) -> tuple[Columns, int]:
    """`_read_binary` for lists of several lengths: every row is walked to find where its values start."""
    sizes = [(p.length and Struct(p.length[0] + STRUCT[p.length[1:]]), np.dtype(p.kind).itemsize) for p in element[2]]
    places: list[list[int]] = [[] for _ in sizes]
    counts: list[list[int]] = [[] for _ in sizes]
    try:
        for _ in range(element.rows):
            for k, (length, size) in enumerate(sizes):
                if isinstance(length, Struct):
                    n = int(length.unpack_from(body, at)[0])
                    at += length.size
                    if not 0 <= n <= len(body):
                        raise _cut_short(element)
                    counts[k].append(n)
                else:
                    n = 1
                places[k].append(at)
                at += n * size
    except (struct.error, ValueError, OverflowError) as error:  # past the end, or a length that is no number
        raise error if isinstance(error, MeshError) else _cut_short(element) from None
    if at > len(body):
        raise _cut_short(element)
    data, columns = np.frombuffer(body, np.uint8), Columns()
    for (name, is_list, kind), starts, lengths in zip(element.properties, places, counts, strict=True):
        each = np.array(lengths if is_list else [1] * element.rows, dtype=np.int64)
        size = np.dtype(kind).itemsize
        first = np.array(starts, dtype=np.int64) - (np.cumsum(each) - each) * size  # less the values of rows before
        values = np.repeat(first, each) + size * np.arange(each.sum())
        columns[name] = data[values[:, None] + np.arange(size)].reshape(-1).view(kind)
        if is_list:
            columns[f"{name}#"] = each
    return columns, at
