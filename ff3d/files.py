"""Files that are written atomically: complete, or not at all; and folders that one process at a time writes to."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import platform
import re
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: folders are not locked there
    fcntl = None  # type: ignore[assignment]

LOCK = ".ff3d-lock"
MOST_PACKED = 20  # times, beyond 256 MiB: random numbers hardly pack at all
PATIENCE = 3.0  # seconds: what a killed process has started ends soon after it
MARK = b"ff3d"  # near the start of what `formats.writers` and the other writers write
FORCE = "name another one, or give --force to replace it"
POINT = re.compile(rb"(-?\d\S* ){3}(-?[01]\.\d{6} ){2}-?[01]\.\d{6}\n")  # as `save_points` writes them
SETTLED = 2 * 10**9  # ns: a file younger than that may change again without a change of its time


class FolderError(ValueError):
    """A file or folder that results cannot go to; the message names it and says what to do."""


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on a clean exit flush it to disk and rename it to `path`.

    After an error, a full disk or a kill, `path` is as it was before: absent, or the old file.
    The temporary name keeps the ending, so that writers which go by the ending work. The folder is made. A temporary
    file that a killed process left beside `path` is removed first. A link stays, and what it leads to is replaced; into
    a device or a pipe the finished file is copied.
    """
    path = Path(path)
    make_folder(path.parent)
    if path.is_dir():
        raise FolderError(f"{path}: is a folder, expected a file; name another one")
    if path.exists() and not path.is_file():  # a device or a pipe, which nothing takes the place of
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder, f"output{path.suffix}")
            yield temporary
            with temporary.open("rb") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
        return
    if path.is_symlink():
        path = path.resolve()
    prefix = _prefix(path)
    _remove_abandoned(path.parent, path)
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
        # a library's own error may neither be an OSError nor name the file
        reasons = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)}
        for reason, number in reasons.items():
            if reason in str(error):
                advice = f"{reason}; make room and run the same command again"
                raise OSError(number, advice, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append a row to a .jsonl; of a row that does not fit on the disk nothing stays."""
    with path.open("a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        cut = file.read(1) not in (b"", b"\n")  # by a kill
        try:
            line = b"\n" * cut + json.dumps(row).encode() + b"\n"
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            file.truncate(end)
            raise OSError(
                error.errno, f"{error.strerror}; make room and run the same command again", str(path)
            ) from None


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """The last row of each `file` in a .jsonl, those that were cut short left out; none if there is no such file.

    Raises FolderError for a file that `append_row` has not written.
    """
    rows, text = {}, path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            row = json.loads(line)
            rows[str(row["file"])] = row
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    if text and not rows and not text.startswith('{"mesh"'):
        raise FolderError(f"{path}: is there, and was not made by ff3d; name another folder")
    return rows


def short_name(name: str, most: int = 200) -> str:
    """A file's name of at most so many bytes: of a longer one its start, and 16 letters of its hash.

    >>> short_name("ball-gaussian-0"), len(short_name("n" * 250))
    ('ball-gaussian-0', 200)
    """
    data = os.fsencode(name)
    if len(data) <= most:
        return name
    return f"{os.fsdecode(data[: most - 17]).encode(errors='ignore').decode()}-{hashlib.sha256(data).hexdigest()[:16]}"


def make_folder(folder: str | Path) -> Path:
    """Make a folder and those above it, where they are not there. Raises FolderError if one of them is a file."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        file = next(path for path in (folder, *folder.parents) if path.exists() and not path.is_dir())
        raise FolderError(f"{file}: is a file, expected a folder; name another one") from None
    return folder


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold a folder, which is made, for this process alone; FolderError if another one still does after `PATIENCE`.

    At the end what processes that were killed left half-written there is removed.
    The lock is the system's own (flock, also of NFS where its server locks), so that it ends with the process,
    however that ends. On a file system without locks, and on Windows, this does nothing.
    """
    path = make_folder(folder) / LOCK
    deadline = time.monotonic() + PATIENCE
    while (handle := _take(path)) is None:
        if time.monotonic() > deadline:
            with suppress(OSError):
                holder = path.read_text(encoding="utf-8", errors="replace")[:100]
                raise FolderError(
                    f"{folder}: in use by {holder or 'another process'}; wait for it, or name another one"
                )
        time.sleep(0.05)
    try:
        yield
    finally:
        _remove_abandoned(path.parent)
        if handle >= 0:
            path.unlink(missing_ok=True)  # before it is let go: whoever waits sees that the file is no more
            os.close(handle)


def _take(path: Path) -> int | None:
    """An open file that is locked; None if another process has it; -1 where there are no locks."""
    if fcntl is None:
        return -1
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            return -1
        if isinstance(error, BlockingIOError):
            return None
        raise
    if not os.fstat(handle).st_nlink:  # the process that had it has removed it meanwhile
        os.close(handle)
        return None
    with suppress(OSError):  # a full disk takes no name, but the lock holds
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
    return handle


def check_folder(folder: str | Path) -> None:
    """Raise FolderError, before the work, if a folder cannot be made or written to."""
    parent = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
    if not parent.is_dir():
        raise FolderError(f"{parent}: is a file, expected a folder; name another one")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise FolderError(f"{folder}: cannot be written, for {parent} is read-only here; name another one")


def check_output(path: str | Path, *, force: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Raise FolderError, before the work, if a file cannot be written or is one that ff3d has not made.

    inputs: files that are read, which it must not be, with force or without.
    What ff3d writes is known by its mark, and points with normals in an .xyz by their form.
    """
    path = Path(path)
    check_folder(path.parent)
    if not path.exists():
        return
    if path.is_dir():
        raise FolderError(f"{path}: is a folder, expected a file; name another one")
    if any(other.exists() and path.samefile(other) for other in inputs):
        raise FolderError(f"{path}: is the input itself; name another one")
    if not force and not is_marked(path):
        raise FolderError(f"{path}: is there, and was not made by ff3d; {FORCE}")


def check_unmade(*paths: Path) -> None:
    """Raise FolderError if one of these is there, in a folder that ff3d has not made."""
    for path in paths:
        if path.exists():
            raise FolderError(f"{path}: is there, and was not made by ff3d; {FORCE}")


def is_marked(path: Path, mark: bytes = MARK) -> bool:
    """Whether a file looks as if ff3d had written it: empty, with its mark near one of its ends, or such an .xyz."""
    with path.open("rb") as file:
        head = file.read(1024)
        file.seek(max(0, path.stat().st_size - 64))
        tail = file.read()
    return not head or mark in head or mark in tail or (path.suffix == ".xyz" and bool(POINT.match(head)))


def _prefix(path: Path) -> str:
    """How the names of temporary files for `path` begin on this machine; short, however long the name of `path` is."""
    name, machine = (zlib.crc32(text.encode()) for text in (path.name, platform.node()))
    return f".ff3d-{name:08x}-{machine:08x}-"


def _remove_abandoned(folder: Path, path: Path | None = None) -> None:
    """Remove temporary files, for `path` or for any, whose process, of this machine, is no more."""
    start, name, machine, _ = _prefix(path or Path()).split("-")
    for left in folder.glob(f"{start}-{name if path else '?' * 8}-{machine}-*"):
        process = left.name.split("-")[3]
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


def home_path(path: str | Path) -> Path:
    """The path with the home folder for its ~; ~NAME of nobody stays, where Path.expanduser raises a RuntimeError."""
    return Path(os.path.expanduser(path))


def check_archive(file: Path | io.BytesIO) -> None:
    """Raise ValueError, before anything is unpacked, for an .npz that unpacks to far more than numbers would."""
    with zipfile.ZipFile(file) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    packed = file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes
    if size > max(2**28, MOST_PACKED * packed):
        raise ValueError(f"it would unpack to {size / 1e9:.3g} GB, {size // packed:,} times its size")


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
