"""A file's faults as one line, whatever a reader trips over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class MeshError(ValueError):
    """A mesh that cannot be found, read or used; the message names the file, the fault and what to do."""


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Whatever goes wrong within becomes a MeshError of one line that names the file; an empty file is one too."""
    try:
        if file.stat().st_size == 0:
            raise MeshError("the file is empty; export or download it again")
        yield
    except MeshError as fault:
        raise MeshError(f"{file}: {fault}") from None
    except Exception as error:  # whatever a reader trips over is the file's fault, and one line says so
        what = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise MeshError(
            f"{file}: damaged, or not {file.suffix[1:].upper()} ({what}); export or download it again"
        ) from error
