"""Point clouds: text of any columns, PCD and NumPy files, each as points (n, 3) and normals (n, 3) or None."""

from __future__ import annotations

import logging
import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ff3d.files import check_archive
from ff3d.formats.text import MeshError, parse_numbers, shown, text_lines, without_comments
from ff3d.geometry.arrays import Floats

logger = logging.getLogger(__name__)

Cloud = tuple[Floats, Floats | None]

AXES = (("x", "y", "z"), ("points:0", "points:1", "points:2"))  # the second as ParaView writes them
NORMALS = (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"), ("normals:0", "normals:1", "normals:2"))
DECIMAL_COMMA = re.compile(rb"[+-]?(?:\d+|\d*,\d+|\d+,)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf(?:inity)?)", re.IGNORECASE)
COMMENT = re.compile(rb"#|//")


# ---------------------------------------------------------------------------------------------- columns


def _split(table: NDArray[Any], path: Path, names: Sequence[str] = ()) -> Cloud:
    """Rows of x y z and any other columns -> points and normals.

    Named columns are taken by their names. Without names x y z come first, and three columns are normals only if they
    have unit length: the next three, or the last three. Other columns (colours, intensity) are left out, logged.
    """
    if table.ndim != 2 or table.shape[1] < 3 or (len(table) < table.shape[1] and table.shape[1] > 12):  # transposed
        raise MeshError(f"expected rows of 3 numbers (x y z) or 6 (x y z nx ny nz), got shape {table.shape}; cut them")
    if not np.issubdtype(table.dtype, np.floating) and not np.issubdtype(table.dtype, np.integer):
        raise MeshError(f"expected numbers, got {table.dtype}; save it as float64")
    table = table.astype(np.float64)
    width = table.shape[1]
    if names:
        points, normals = _named(names, AXES), _named(names, NORMALS)
        if points is None:
            raise MeshError(f"its columns are named {', '.join(names)}, without x, y and z; rename them")
    else:
        points = [0, 1, 2]
        normals = next((c for c in ([3, 4, 5], [width - 3, width - 2, width - 1]) if _are_normals(table, c)), None)
    left = [str(names[k] if names else k + 1) for k in range(width) if k not in (*points, *(normals or ()))]
    if left:
        hint = "" if normals or names or width < 6 else ": no unit normals; if they are normals, name them nx ny nz"
        logger.info("%s: column%s %s left out%s", path, "s" * (len(left) > 1), ", ".join(left), hint)
    return table[:, points], None if normals is None else table[:, normals]


def _named(names: Sequence[str], known: Sequence[tuple[str, ...]]) -> list[int] | None:
    """The places of the first known triple that is among the names."""
    return next(([names.index(name) for name in triple] for triple in known if set(triple) <= set(names)), None)


def _are_normals(table: Floats, columns: list[int]) -> bool:
    """Whether these columns, of those behind x y z, hold vectors of unit length, as far as they are not zero or NaN.

    Without a negative number among them they are colours: no normals of a solid.
    """
    if columns[0] < 3 or columns[-1] >= table.shape[1]:
        return False
    vectors = table[:, columns]
    vectors = vectors[np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)]
    lengths = np.linalg.norm(vectors, axis=1)
    return bool(len(lengths) and vectors.min() < 0 and ((lengths > 0.9) & (lengths < 1.1)).mean() > 0.95)


# ---------------------------------------------------------------------------------------------- text


def read_text(path: Path) -> Cloud:
    """Rows of x y z and any other columns, as `_split` takes them, split by blanks, commas or semicolons.

    Before them may stand a line of the number of points, and one of the columns' names (X Y Z, //X Y Z, # x y z).
    # and // start a comment. Decimal commas are read where blanks, tabs or semicolons split the columns.
    """
    lines = text_lines(path.read_bytes())
    heads, first = _read_heads(lines)
    counts = [int(words[0]) for _, words in heads if not _named(words, AXES)]
    bare = without_comments(without_comments(lines[first:]), b"//")
    places = [place for place, line in enumerate(bare, first + 1) if line.strip(b" ,;")]
    rows = _split_columns([line for line in bare if line.strip(b" ,;")], places)
    if not rows:
        raise MeshError("it holds no points; export or download it again")
    numbers, widths = parse_numbers(rows, places)
    width = int(widths[0])
    odd = np.flatnonzero(widths != width)
    if len(odd):
        raise MeshError(
            f"line {places[odd[0]]} has {widths[odd[0]]} columns, the first row {width}: cut short or damaged; "
            "export it again"
        )
    if counts and counts[0] != len(rows):
        raise MeshError(f"it promises {counts[0]} points and holds {len(rows)}: cut short; export or download it again")
    names: list[str] = []
    for comment, words in heads:
        if _named(words, AXES) and (len(words) == width or not comment):
            names = words
    if names and len(names) != width:
        raise MeshError(f"its header names {len(names)} columns, its rows have {width}; export it again")
    return _split(numbers.reshape(-1, width), path, names)


def starts_as_cloud(path: Path) -> bool:
    """Whether a text file starts with rows of numbers, behind comments and a header line of columns' names."""
    with path.open("rb") as stream:
        lines = text_lines(stream.read(2**16))
    heads, first = _read_heads(lines)
    row = COMMENT.split(b"".join(lines[first : first + 1]), maxsplit=1)[0]
    return any(_named(words, AXES) for _, words in heads) or re.fullmatch(rb"[\d\s.,;eE+-]+", row) is not None


def _read_heads(lines: list[bytes]) -> tuple[list[tuple[bool, list[str]]], int]:
    """The counts and the columns' names before the first row: whether a comment, and the words; and the row's place.

    Names are in lower case, without quotes and units in brackets, and have x, y and z among them.
    """
    heads: list[tuple[bool, list[str]]] = []
    for place, line in enumerate(lines):
        comment = re.match(rb"(#|//)+", line)
        text = line[comment.end() :] if comment else COMMENT.split(line, maxsplit=1)[0]
        text = re.sub(rb"[\[(][^\])]*[\])]", b"", text).lower()
        words = [word.strip("\"'") for word in re.split(r"[\s,;]+", text.decode("utf-8", "replace")) if word]
        named = _named(words, AXES) is not None
        count = comment is None and len(words) == 1 and words[0].isdecimal()
        if words and not (comment or named or count):
            return heads, place
        if named or count:
            heads.append((comment is not None, words))
    return heads, len(lines)


def _split_columns(lines: list[bytes], places: list[int]) -> list[bytes]:
    """The lines with a blank between words, and decimal points. Raises MeshError where commas may be decimal or not."""
    if not lines:
        return []
    text = b"\n".join(lines).replace(b'"', b"")
    if b"," in text:  # within words that other signs split, as in 1,5;2,5;3,5 and 1,5 2,5 3,5?
        words = [word.strip() for word in re.split(rb";" if b";" in text else rb" ", lines[0].strip(b" ;"))]
        if len(words) >= 3 and all(DECIMAL_COMMA.fullmatch(word) for word in words):
            text = text.replace(b",", b".")
        elif len(words) >= 3 and all(b"," in word[1:-1] for word in words):
            raise MeshError(f"line {places[0]}: commas in numbers, as {shown(words[0])}; use points alone")
        elif b"." not in text and all(line.count(b",") == 5 for line in lines) and b"e" not in text.lower():
            raise MeshError(
                f"line {places[0]}: {shown(lines[0])} may be six whole numbers, or three with decimal commas; "
                "export it with decimal points"
            )
    return text_lines(text.replace(b",", b" ").replace(b";", b" "))


# ---------------------------------------------------------------------------------------------- PCD


def read_pcd(path: Path) -> Cloud:
    """PCD of the Point Cloud Library, text, binary or binary_compressed: x y z, and normal_x normal_y normal_z.

    Points with a NaN, which stand for rays without an echo, are left out; logged. Source: the PCD file format, v0.7.
    """
    data = path.read_bytes()
    header: dict[str, list[str]] = {}
    at = 0
    while "DATA" not in header:
        line, end, _ = data[at : at + 4096].partition(b"\n")
        words = line.decode("latin-1").partition("#")[0].split()
        if not end or (words and not words[0].isupper()):
            raise MeshError("no PCD header, or cut short in it; export or download it again")
        at += len(line) + 1
        if words:
            header[words[0]] = words[1:]
    try:
        names = [name.lower() for name in header["FIELDS"]]
        counts = [int(word) for word in header.get("COUNT", ["1"] * len(names))]
        kinds = [f"<{KINDS[kind]}{int(size)}" for kind, size in zip(header["TYPE"], header["SIZE"], strict=True)]
        num_points = int(header["POINTS"][0] if "POINTS" in header else 1)
        if "POINTS" not in header:
            num_points = int(header["WIDTH"][0]) * int(header.get("HEIGHT", ["1"])[0])
        fields = [(f"{k}", kind, (n,)) for k, (kind, n) in enumerate(zip(kinds, counts, strict=True))]
        layout = np.dtype(fields)
        encoding = header["DATA"][0].lower()
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise MeshError(f"its PCD header makes no sense ({error}); export or download it again") from error
    read = {"ascii": _pcd_text, "binary": _pcd_binary, "binary_compressed": _pcd_compressed}.get(encoding)
    if read is None or num_points < 0 or len(names) != len(counts) or min(counts, default=0) < 1:
        raise MeshError(f"its PCD header makes no sense (DATA {encoding}); export or download it again")
    columns = read(data[at:], layout, num_points, data[:at].count(b"\n"))
    names = [f"{name}~{k}" if name in names[:k] else name for k, name in enumerate(names)]
    used = [k for k, n in enumerate(counts) if n == 1]
    table = np.stack([columns[k][:, 0] for k in used], axis=1).astype(np.float64) if used else np.zeros((0, 3))
    points, normals = _split(table, path, [names[k] for k in used])
    seen = ~np.isnan(points).any(axis=1)
    if not seen.all():
        logger.info("%s: %d of %d points without an echo (NaN) left out", path, (~seen).sum(), len(points))
    return points[seen], None if normals is None else normals[seen]


KINDS = {"I": "i", "U": "u", "F": "f"}


def _pcd_text(body: bytes, layout: np.dtype[Any], num_points: int, header_lines: int) -> list[NDArray[Any]]:
    lines = text_lines(body)
    places = [place for place, line in enumerate(lines, header_lines + 1) if line][:num_points]
    if len(places) < num_points:
        raise MeshError(f"it promises {num_points} points and holds {len(places)}: cut short; download it again")
    numbers, counts = parse_numbers([lines[place - header_lines - 1] for place in places], places)
    widths = [layout[name].shape[0] for name in layout.names or ()]
    short = np.flatnonzero(counts < sum(widths))
    if len(short):
        place, count = places[short[0]], counts[short[0]]
        raise MeshError(f"line {place} has {count} columns, expected {sum(widths)}; export it again")
    table = numbers[(np.cumsum(counts) - counts)[:, None] + np.arange(sum(widths))]
    return np.split(table, np.cumsum(widths)[:-1], axis=1)


def _pcd_binary(body: bytes, layout: np.dtype[Any], num_points: int, _: int) -> list[NDArray[Any]]:
    if num_points * layout.itemsize > len(body):
        raise MeshError(
            f"it promises {num_points} points and holds {len(body) // layout.itemsize}: cut short; download it again"
        )
    rows = np.frombuffer(body, layout, num_points)
    return [rows[name] for name in layout.names or ()]


def _pcd_compressed(body: bytes, layout: np.dtype[Any], num_points: int, _: int) -> list[NDArray[Any]]:
    packed, size = (int.from_bytes(body[at : at + 4], "little") for at in (0, 4))
    if packed > len(body) - 8:
        raise MeshError(f"cut short: {packed} bytes promised, {max(len(body) - 8, 0)} there; download it again")
    if size != num_points * layout.itemsize or size > 300 * packed:
        raise MeshError(f"damaged: {num_points} points take {num_points * layout.itemsize} bytes, not {size}")
    data, at, columns = _unpack_lzf(body[8 : 8 + packed], size), 0, []
    for name in layout.names or ():  # field by field, not point by point
        kind, (width,) = layout[name].base, layout[name].shape
        columns.append(np.frombuffer(data, kind, num_points * width, at).reshape(num_points, width))
        at += columns[-1].nbytes
    return columns


def _unpack_lzf(packed: bytes, size: int) -> bytes:
    """The `size` bytes that LibLZF packed: runs of literals, and copies of what came up to 8,192 bytes before."""
    out, at = bytearray(), 0
    try:
        while at < len(packed) and len(out) <= size:
            control = packed[at]
            at += 1
            if control < 32:
                out += packed[at : at + control + 1]
                at += control + 1
                continue
            length, offset = control >> 5, (control & 31) << 8
            if length == 7:
                length += packed[at]
                at += 1
            start = len(out) - offset - packed[at] - 1
            at += 1
            if start < 0:
                raise MeshError("damaged: its compressed data points before its start; download it again")
            run = bytes(out[start : start + length + 2])
            out += (run * (-(-(length + 2) // len(run))))[: length + 2]  # a copy may overlap itself
    except IndexError:
        pass  # the size tells
    if len(out) != size:
        raise MeshError(f"damaged: {len(out)} bytes of its compressed data, expected {size}; download it again")
    return bytes(out)


# ---------------------------------------------------------------------------------------------- NumPy


def read_npy(path: Path) -> Cloud:
    """An array (n, 3) or wider, as `_split` takes its columns."""
    with path.open("rb") as stream:
        _check_array(stream, path.stat().st_size)
    return _split(np.load(path, allow_pickle=False), path)


def read_npz(path: Path) -> Cloud:
    """Arrays `points` (n, 3) and, optionally, `normals` (n, 3)."""
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as stream:
                _check_array(stream, entry.file_size)
    with np.load(path, allow_pickle=False) as arrays:
        if "points" not in arrays:
            raise MeshError(f"expected an array named points, got {', '.join(arrays) or 'none'}; rename it")
        points, normals = arrays["points"], arrays.get("normals")
    for name, array in {"points": points, "normals": normals}.items():
        if array is not None and array.shape != (len(points), 3):
            raise MeshError(f"expected points and normals of one shape (n, 3), got {name} {array.shape}; reshape them")
    return _split(points, path)[0], None if normals is None else _split(normals, path)[0]


def _check_array(stream: Any, size: int) -> None:
    """Raise MeshError if a .npy, an open binary file of this size, cannot hold what its header says.

    NumPy would make room for it first.
    """
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(stream)
    if not kind.hasobject and math.prod(shape) * kind.itemsize > size:
        raise MeshError(f"cut short or damaged: {shape} numbers promised, {size} bytes there; save it again")
