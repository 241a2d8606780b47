"""Text files as rows of words, and every fault of a file as one line.

Words and lines are split as the formats mean them: only CR, LF and CR LF end a line (not U+2028, NEL, form feed or
vertical tab, at which `str.splitlines` splits), and only ASCII blanks end a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ff3d.geometry.arrays import Floats, Ints

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
# What C libraries of Microsoft's print for NaN and infinity; the # would start a comment and leave -1.
NOT_FINITE = re.compile(rb"[+-]?1[.,]#(?:INF|IND|QNAN|SNAN|QNB|IO|J\b|R\b)\w*|[+-]?nan\([^)\s]*\)", re.IGNORECASE)


class MeshError(ValueError):
    """A mesh that cannot be found, read or used; the message names the file, the fault and what to do."""


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Whatever goes wrong within becomes a MeshError of one line that names the file.

    So do an empty file, and a file that starts like one of `IMPOSTORS`. NumPy warns of nothing within: what it would
    warn of (an overflow, a NaN) the checks of what was read name.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
        if file.stat().st_size == 0:
            raise MeshError("the file is empty; export or download it again")
        for pattern, what in IMPOSTORS:
            if re.match(pattern, start, re.IGNORECASE):
                raise MeshError(f"it is {what}")
        if start.startswith(b"PK\3\4") and file.suffix.lower() != ".npz":
            raise MeshError("it is a zip archive; unpack it first")
        with np.errstate(all="ignore"):
            yield
    except MeshError as fault:
        raise MeshError(f"{file}: {fault}") from None
    except MemoryError:
        raise MeshError(f"{file}: too large for this computer's memory; simplify it, or use a larger one") from None
    except Exception as error:  # whatever a reader trips over is the file's fault, and one line says so
        what = re.sub(r" at 0x\w+", "", " ".join(f"{type(error).__name__}: {error}".split()))[:200]
        raise MeshError(
            f"{file}: damaged, or not {file.suffix[1:].upper()} ({what}); export or download it again"
        ) from error


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
    """The lines of a text file, in UTF-8; numbers written as 1.#QNAN, -1.#IND, nan(ind) and the like become nan."""
    data = as_utf8(data)
    if b"#" in data or b"(" in data:
        data = NOT_FINITE.sub(b"nan", data)
    return data.splitlines()  # of bytes: at CR, LF and CR LF alone


def text_rows(data: bytes, *, comment: bytes = b"#") -> list[tuple[int, list[bytes]]]:
    """The lines that hold words: each its number, from 1, and its words before the comment."""
    rows = ((number, line.partition(comment)[0].split()) for number, line in enumerate(text_lines(data), 1))
    return [row for row in rows if row[1]]


def to_floats(words: Sequence[bytes]) -> Floats:
    """Words as float64 (n,). Raises ValueError for a word that is no number; 1_000 is none."""
    if b"_" in b"".join(words):
        raise ValueError("a number with _ in it")
    return np.array(list(map(float, words)), dtype=np.float64)


def to_ints(words: Sequence[bytes]) -> Ints:
    """Words as int64 (n,). Raises ValueError for a word that is no whole number."""
    if b"_" in b"".join(words):
        raise ValueError("a number with _ in it")
    try:
        return np.array(list(map(int, words)), dtype=np.int64)
    except OverflowError as error:
        raise ValueError(f"{error}") from error


def bad_number(rows: Iterable[tuple[int, Sequence[bytes]]], *, whole: bool = False) -> MeshError:
    """The fault of the first word in rows (number of the line, words) that is no number, found after the fact."""
    kind, convert = ("a whole number", to_ints) if whole else ("a number", to_floats)
    for number, words in rows:
        for word in words:
            try:
                convert([word])
            except ValueError:
                return MeshError(f"line {number}: expected {kind}, got {shown(word)}; correct it, or export it again")
    return MeshError("damaged: a count in it is not finite; export or download it again")


def shown(word: bytes) -> str:
    """A word of a file, for a message: short and printable."""
    text = word.decode("utf-8", errors="replace")
    return repr(text if len(text) <= 40 else text[:40] + "...")
