"""Text files as rows of words, and every fault of a file as one line.

Words and lines are split as the formats mean them: only CR, LF and CR LF end a line (not U+2028, NEL, form feed or
vertical tab, at which `str.splitlines` splits), and only ASCII blanks end a word.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ff3d.checks import one_line
from ff3d.geometry.arrays import Ints

# How a file starts that is not what its name says: what it is, and what to do about it.
IMPOSTORS = (
    (rb"version https://git-lfs\.", "a Git LFS pointer, not the file; fetch the file with: git lfs pull"),
    (rb"(\.\./)*(\.git/|/)?annex/objects/", "a git-annex pointer, not the file; fetch the file with: git annex get"),
    (rb"<(!doctype\s+html|html|head|body)\b", "a web page, not the file; download the file itself"),
    (rb"<\?xml", "an XML document (or a server's error message), not this format; export or download it again"),
    (rb"\x1f\x8b", "compressed by gzip; unpack it first"),
    (rb"(BZh\d|\xfd7zXZ\0|7z\xbc\xaf|Rar!)", "a compressed archive; unpack it first"),
)
BOMS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
BLANKS = bytes.maketrans(b"\t\v\f", b"   ")
# What C libraries of Microsoft's print for NaN and infinity; the # would start a comment and leave -1.
NOT_FINITE = re.compile(rb"[+-]?1[.,]#(?:INF|IND|QNAN|SNAN|QNB|IO|J\b|R\b)\w*|[+-]?nan\([^)\s]*\)", re.IGNORECASE)


class MeshError(ValueError):
    """A mesh that cannot be found, read or used; the message names the file, the fault and what to do."""


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Whatever goes wrong within becomes a MeshError of one short line that names the file.

    So do an empty file, and a file that starts like one of `IMPOSTORS`. NumPy warns of nothing within: what it would
    warn of (an overflow, a NaN) the checks of what was read name.
    """
    try:
        if file.stat().st_size == 0:
            raise MeshError("the file is empty; export or download it again")
        refuse_impostors(file)
        with np.errstate(all="ignore"):
            yield
    except MeshError as fault:
        raise MeshError(f"{file}: {one_line(fault)}") from None
    except MemoryError:
        raise MeshError(f"{file}: too large for this computer's memory; simplify it, or use a larger one") from None
    except Exception as error:  # whatever a reader trips over is the file's fault, and one line says so
        what = re.sub(r" at 0x\w+", "", " ".join(f"{type(error).__name__}: {error}".split()))[:200]
        raise MeshError(
            f"{file}: damaged, or not {file.suffix[1:].upper()} ({what}); export or download it again"
        ) from error


def refuse_impostors(file: Path) -> None:
    """Raise MeshError, without the file's name, if the file starts like one of `IMPOSTORS`, or like a zip archive."""
    with file.open("rb") as stream:
        start = stream.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, what in IMPOSTORS:
        if re.match(pattern, start, re.IGNORECASE):
            raise MeshError(f"it is {what}")
    if start.startswith(b"PK\3\4") and file.suffix.lower() != ".npz":
        raise MeshError("it is a zip archive; unpack it first")


def as_utf8(data: bytes) -> bytes:
    """A text file as UTF-8 without a byte-order mark: UTF-16 and UTF-32 are converted, UTF-16 without its mark too."""
    for mark, encoding in BOMS:
        if data.startswith(mark):
            return _reencode(data, encoding)
    for offset, encoding in ((0, "utf-16-be"), (1, "utf-16-le")):  # a text in it has a zero in every other byte
        high, low = data[offset:200:2], data[1 - offset : 200 : 2]
        if len(high) > 1 and high.count(0) > 0.9 * len(high) and not low.count(0):
            return _reencode(data, encoding)
    return data.removeprefix(b"\xef\xbb\xbf")


def _reencode(data: bytes, encoding: str) -> bytes:
    try:
        return data.decode(encoding).removeprefix("\ufeff").encode()
    except UnicodeDecodeError as error:
        raise MeshError(f"it starts as {encoding.upper()} text but is damaged; save it as UTF-8") from error


def text_lines(data: bytes) -> list[bytes]:
    """The lines of a text file, as UTF-8, their words split by one blank each; a blank line is empty.

    Numbers written as 1.#QNAN, -1.#IND, nan(ind) and the like become nan.
    """
    data = as_utf8(data).rstrip(b"\x1a\0")  # old systems end or fill their files with these
    if b".#" in data or b",#" in data or (b"(" in data and b"nan(" in data.lower()):
        data = NOT_FINITE.sub(b"nan", data)
    data = data.translate(BLANKS).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data.replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ").split(b"\n")


def without_comments(lines: list[bytes], sign: bytes = b"#") -> list[bytes]:
    """The lines, each up to the sign that starts a comment."""
    return [line.partition(sign)[0].rstrip(b" ") if sign in line else line for line in lines]


def parse_numbers(lines: list[bytes], places: Iterable[int], *, whole: bool = False) -> tuple[NDArray[Any], Ints]:
    """All numbers of `text_lines` in a row, float64 or (whole) int64, and how many each line holds.

    places: the number of each line in its file, read only for a message.
    Raises MeshError, with the line, for a word that is no number; 1_000 is none.
    """
    counts = np.array([line.count(b" ") + 1 if line else 0 for line in lines], dtype=np.int64)
    kind, total = np.dtype(np.int64 if whole else np.float64), int(counts.sum())
    if not total:
        return np.zeros(0, kind), counts
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy before 2.4 warns where it stops at a word that is no number
            values = np.fromstring(b" ".join(lines), kind, sep=" ")
    except (ValueError, DeprecationWarning):
        values = np.zeros(0, kind)
    if len(values) == total and not (whole and values.max() == np.iinfo(np.int64).max):
        return values, counts
    found: list[float] = []
    for place, line in zip(places, lines, strict=True):
        for word in line.split():
            try:
                found.append(_number(word, whole))
            except ValueError:
                expected = "a whole number" if whole else "a number"
                raise MeshError(
                    f"line {place}: expected {expected}, got {shown(word)}; correct it, or export it again"
                ) from None
    return np.array(found, dtype=kind), counts


def _number(word: bytes, whole: bool) -> float:
    """The number in a word. Raises ValueError for other words: Python would take 1_000, and int64 holds no more."""
    number = int(word) if whole else float(word)
    if b"_" in word or (whole and abs(number) > 2**62):
        raise ValueError("no number of this format")
    return number


def shown(word: bytes) -> str:
    """A word of a file, for a message: short and printable."""
    text = word.decode("utf-8", errors="replace")
    return repr(text if len(text) <= 40 else text[:40] + "...")
