"""Files that are written atomically: complete, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

SETTLED = 2 * 10**9  # ns: a file younger than that may change again without a change of its time


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on a clean exit flush it to disk and rename it to `path`.

    After an error, a full disk or a kill, `path` is as it was before: absent, or the old file.
    The temporary name keeps the ending, so that writers which go by the ending work. The folder is made. A temporary
    file that a killed process left beside `path` is removed first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = _prefix(path)
    _remove_abandoned(path.parent, prefix)
    handle, name = tempfile.mkstemp(prefix=f"{prefix}{os.getpid()}-", suffix=path.suffix[-16:], dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except Exception as error:
        if "No space left" in str(error):  # a library's own error may neither be an OSError nor name the file
            reason = "No space left on device; make room and run the same command again"
            raise OSError(errno.ENOSPC, reason, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _prefix(path: Path) -> str:
    """How the names of temporary files for `path` begin on this machine; short, however long the name of `path` is."""
    name, machine = (zlib.crc32(text.encode()) for text in (path.name, platform.node()))
    return f".ff3d-{name:08x}-{machine:08x}-"


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove temporary files of this prefix whose process, of this machine, is no more."""
    for left in folder.glob(f"{prefix}*"):
        process = left.name.removeprefix(prefix).partition("-")[0]
        if process.isdecimal() and not _alive(int(process)):
            left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    if os.name == "nt":  # there a signal of 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal; read once, while the file stays as it is."""
    path = Path(path).resolve()
    stamp = path.stat()
    if time.time_ns() - stamp.st_mtime_ns < SETTLED:
        return _sha256.__wrapped__(path, stamp.st_mtime_ns, stamp.st_size, stamp.st_ino)
    return _sha256(path, stamp.st_mtime_ns, stamp.st_size, stamp.st_ino)


@lru_cache(maxsize=4096)
def _sha256(path: Path, *stamp: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    """The process's file mode mask (mkstemp makes files private; ordinary files follow the mask)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
