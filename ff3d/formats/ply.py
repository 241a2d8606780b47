"""PLY, text and binary."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ff3d.formats.polygons import Polygons
from ff3d.formats.text import MeshError
from ff3d.geometry.arrays import Floats

_PLY_TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}

_PLY_TYPES |= {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}

_PLY_TYPES |= {"int64": "i8", "uint64": "u8", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8"}


def _ply_columns(path: Path) -> dict[str, dict[str, NDArray[Any]]]:
    """PLY, text or binary of either byte order: the columns of each element, by element and property."""
    data = path.read_bytes()
    head = re.match(rb"ply\s.*?\send_header[ \t]*\r?\n", data, re.DOTALL)
    if not head:
        raise MeshError("no PLY header, or cut short in it; export or download it again")
    lines = [line.split() for line in head[0].decode("latin-1").splitlines()]
    encoding = next(words[1] for words in lines if words[:1] == ["format"])
    prefix = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[encoding]
    body = data[head.end() :]
    if not prefix:  # numbers as text become numbers in binary: one reader for both
        body = np.array([float(word) for word in body.split()], dtype="<f8").tobytes()
    elements: list[tuple[str, int, list[tuple[str, str, str]]]] = []
    for words in lines:
        if words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            length, kind = (
                (prefix + _PLY_TYPES[word] if prefix else "<f8") if word else ""
                for word in (words[2:4] if words[1] == "list" else ["", words[1]])
            )
            elements[-1][2].append((words[-1], length, kind))
    at, columns = 0, dict[str, dict[str, NDArray[Any]]]()
    for name, count, properties in elements:
        try:
            columns[name], at = _ply_element(body, at, count, properties)
        except ValueError as error:
            raise MeshError(f"cut short or damaged in its {count} {name} rows; export it again") from error
    if at != len(body):
        raise MeshError(f"damaged: {len(body) - at} bytes of data behind the last row; export it again")
    return columns


def read_ply_points(path: Path) -> tuple[Floats, Floats | None]:
    """The vertices (n, 3) of a PLY, with faces or without, and their nx ny nz (n, 3), if it holds them.

    Raises MeshError for a file that is damaged or cut short, or without x, y or z; ValueError or KeyError for a
    header that makes no sense.
    """
    vertex = _ply_columns(path).get("vertex") or dict.fromkeys("xyz", np.zeros(0))
    missing = [axis for axis in "xyz" if axis not in vertex]
    if missing:
        raise MeshError(f"its vertices lack {' '.join(missing)}; export it again, as points with x y z")
    points = np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float64)
    names = ["nx", "ny", "nz"]
    if not all(name in vertex for name in names):
        return points, None
    return points, np.stack([vertex[name] for name in names], axis=1).astype(np.float64)


def read_ply(path: Path) -> Polygons:
    """The vertices and faces of a PLY."""
    columns = _ply_columns(path)
    if "tristrips" in columns:
        raise MeshError("its faces are triangle strips, which ff3d does not read; save it with plain faces")
    vertex, face = columns.get("vertex") or dict.fromkeys("xyz", np.zeros(0)), columns.get("face", {})
    index = "vertex_indices" if "vertex_indices" in face else "vertex_index"
    corners, lengths = face.get(index, np.zeros(0)), face.get(f"{index}#", np.zeros(0))
    with np.errstate(invalid="ignore"):
        numbers = corners.astype(np.int64)
    if (numbers != corners).any():
        raise MeshError("damaged: a face names a vertex by a broken number; export or download it again")
    return np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float64), numbers, lengths.astype(np.int64)


def _ply_element(
    body: bytes, at: int, count: int, properties: list[tuple[str, str, str]]
) -> tuple[dict[str, NDArray[Any]], int]:
    """Read `count` rows from byte `at`; return their columns and the byte behind them.

    properties: (name, type of the length or "", type). A list `p` comes as its values in a row, its lengths as `p#`.
    Raises ValueError if the body ends before.
    """
    if not count:
        return {}, at
    fields: list[tuple[str, str, tuple[int, ...]]] = []
    for name, length, kind in properties:  # the lengths of the first row; mostly all rows have them
        if length:
            fields.append((f"{name}#", length, (1,)))
        place = at + np.dtype(fields).itemsize
        n = int(np.frombuffer(body, length, 1, place - np.dtype(length).itemsize)[0]) if length else 1
        fields.append((name, kind, (n,)))
    if at + count * np.dtype(fields).itemsize <= len(body):
        rows = np.frombuffer(body, fields, count, at)
        if all((rows[f"{p[0]}#"] == rows[p[0]].shape[1]).all() for p in properties if p[1]):
            return {field[0]: rows[field[0]].reshape(-1) for field in fields}, at + rows.nbytes
    values: dict[str, list[NDArray[Any]]] = {field[0]: [] for field in fields}
    for _ in range(count):
        for name, length, kind in properties:
            n = 1
            if length:
                values[f"{name}#"].append(np.frombuffer(body, length, 1, at))
                n = int(values[f"{name}#"][-1][0])
                at += np.dtype(length).itemsize
            if n < 0 or at + n * np.dtype(kind).itemsize > len(body):
                raise ValueError("the rows end early")
            values[name].append(np.frombuffer(body, kind, n, at))
            at += values[name][-1].nbytes
    return {name: np.concatenate(parts) for name, parts in values.items()}, at
