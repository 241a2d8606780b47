"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on a clean exit flush it to disk and rename it to `path`.

    After an error, a full disk or a kill, `path` is as it was before: absent, or the old file whole.
    The temporary name keeps the ending, so that writers which go by the ending work. The folder is made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
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
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _umask() -> int:
    """The process's file mode mask (mkstemp makes files private; ordinary files follow the mask)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
