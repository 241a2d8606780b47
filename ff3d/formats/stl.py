"""STL, binary and text."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ff3d.formats.polygons import Polygons
from ff3d.formats.text import MeshError, parse_numbers, text_lines
from ff3d.geometry.arrays import Floats, Singles
from ff3d.geometry.triangles import merge_in_order

logger = logging.getLogger(__name__)

STL_FACE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("extra", "<u2")])
HEAD = 84  # bytes of a binary file before the first face: a header of 80, and the count

UNCOUNTED = (0, 2**31 - 1, 2**32 - 1)  # what stands for the count where the program did not know it yet


def read_stl(path: Path) -> Polygons:
    """STL, binary (float32) or text, all its solids; corners that coincide exactly become one vertex."""
    data = path.read_bytes()
    corners = _read_text(data, path) if _is_text(data) else _read_binary(data, path)
    first, index = merge_in_order(corners)  # numbered as the faces meet them: a written mesh comes back in its order
    return corners[first].astype(np.float64), index, np.full(len(corners) // 3, 3)


def _is_text(data: bytes) -> bool:
    """Whether it is text, whatever the header says: many a binary file starts with solid too."""
    if len(data) == HEAD + 50 * int.from_bytes(data[80:HEAD], "little"):
        return False
    start = data[:1000]  # in a binary file there is a zero: in its count, or in the numbers of its first faces
    if re.match(rb"(\xff\xfe)?s\0o\0l\0i\0d|(\xfe\xff)?\0s\0o\0l\0i\0d", start, re.IGNORECASE):
        return True  # UTF-16
    return b"\0" not in start and re.search(rb"\b(solid|facet)\b", start, re.IGNORECASE) is not None


def _read_text(data: bytes, path: Path) -> Floats:
    """The corners (3 f, 3) of the facets; other words between and behind them are passed over.

    A file that ends behind a complete facet, without endsolid, is read, and a logged line says so.
    """
    lines = text_lines(data.lower())
    kinds = b"".join([line[:1] for line in lines])
    facets = kinds.count(b"f")
    ended = any(line.startswith(b"endsolid") for line in lines[-2:])
    # a line for each keyword, as in nearly all files
    if ended and lines.count(b"endfacet") == facets and re.fullmatch(rb"(s(fovvvee)+e)+", kinds):
        places = [place for place, line in enumerate(lines, 1) if line.startswith(b"vertex ")]
        numbers, counts = parse_numbers([lines[place - 1][7:] for place in places], places)
        if len(places) == 3 * facets and (counts == 3).all():
            return numbers.reshape(-1, 3)
    text = re.sub(rb"\bend (?=(solid|facet|loop)\b)", b"end", b"\n".join(lines))
    # names of solids may hold any word: they go from solid to the first facet, or to the end of the line
    text = re.sub(rb"\b((?:end)?solid)\b[^\n]*?(?=\bfacet\s+normal\b|\n|\Z)", rb"\1 ", text)
    opened, closed = (len(re.findall(word, text)) for word in (rb"\bfacet\b", rb"\bendfacet\b"))
    tail = text[text.rfind(b"endfacet") + len(b"endfacet") :] if closed else text
    ended = re.search(rb"\bendsolid\b", tail) is not None
    if not opened == closed > 0 or (tail.strip() and not ended):
        raise MeshError(
            f"text STL cut short or damaged: of {opened} facets {closed} end, and then comes no endsolid; "
            "export or download it again"
        )
    if not ended:
        logger.warning("%s: text STL without endsolid, perhaps cut short behind facet %d", path, closed)
    if b"".join(re.findall(rb"\bvertex\b|\bendfacet\b", text)) != (3 * b"vertex" + b"endfacet") * closed:
        for facet in re.finditer(rb"\bfacet\b(.*?)\bendfacet\b", text, re.DOTALL):
            count = len(re.findall(rb"\bvertex\b", facet[1]))
            if count != 3:
                raise MeshError(
                    f"line {_line(text, facet.start())}: a facet of {count} vertices, not three; export again"
                )
        raise MeshError("text STL damaged: a vertex stands outside of its facet; export or download it again")
    found = list(re.finditer(rb"\bvertex\s+(\S+)\s+(\S+)\s+(\S+)", text))
    if len(found) != 3 * closed:
        raise MeshError("text STL damaged: a vertex without three coordinates; export or download it again")
    rows = [b" ".join(match.groups()) for match in found]
    return parse_numbers(rows, (_line(text, match.start()) for match in found))[0].reshape(-1, 3)


def _line(text: bytes, place: int) -> int:
    return text.count(b"\n", 0, place) + 1


def _read_binary(data: bytes, path: Path) -> Singles:
    """The corners (3 f, 3). A count that stands for none is taken from the size, and bytes behind are left out: logged.

    Some programs write bytes of their own behind each face, as many as its last two bytes say.
    """
    count = int.from_bytes(data[80:HEAD], "little")
    size = HEAD + 50 * count
    if len(data) < HEAD:
        raise MeshError(f"binary STL cut short in its header, after {len(data)} bytes; export or download it again")
    if count in UNCOUNTED and len(data) > HEAD and (len(data) - HEAD) % 50 == 0:
        logger.warning("%s: the count of faces says %d; read the %d there are", path, count, (len(data) - HEAD) // 50)
        count = (len(data) - HEAD) // 50
    elif len(data) != size:
        starts = _payload_starts(data, count)
        if starts is not None:
            rows = np.frombuffer(data, np.uint8)[starts[:, None] + np.arange(50)]
            return _corners(rows.reshape(-1).view(STL_FACE))
        if len(data) < size:
            raise MeshError(
                f"binary STL cut short or damaged: {count} faces take {size} bytes, the file has {len(data)}; "
                "export or download it again"
            )
        if not count:
            raise MeshError(f"binary STL of 0 faces with {len(data) - size} bytes behind them; export it again")
        logger.warning("%s: %d bytes behind the last of %d faces left out", path, len(data) - size, count)
    return _corners(np.frombuffer(data, STL_FACE, count, HEAD))


def _corners(faces: NDArray[Any]) -> Singles:
    corners: Singles = faces["corners"].astype(np.float32).reshape(-1, 3)
    return corners


def _payload_starts(data: bytes, count: int) -> NDArray[np.int64] | None:
    """Where each face starts if its last two bytes count bytes of payload behind it; None if that does not fit."""
    if count > (len(data) - HEAD) // 50:
        return None
    starts, at = [], HEAD
    for _ in range(count):
        starts.append(at)
        at += 50 + int.from_bytes(data[at + 48 : at + 50], "little")
        if at > len(data):
            return None
    return np.array(starts, dtype=np.int64) if at == len(data) else None
