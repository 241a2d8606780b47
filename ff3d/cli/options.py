"""What several commands share: names of arguments, loading, and saying what came of it."""

from __future__ import annotations

import errno
import math
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

from tyro.conf import Positional, arg

from ff3d.cli.settings import Settings as FitSettings

if TYPE_CHECKING:
    from ff3d.fields.field import LatticeField, OccupancyField

RunName = Annotated[Positional[Path], arg(metavar="RUN", help="the folder of a fit, or a field's .safetensors file")]
ManyMeshes = Annotated[
    Positional[tuple[str, ...]],
    arg(
        metavar="MESHES",
        help="mesh files, folders, globs, lists of them (.lst), names: a sample, armadillo, dragon, ...",
    ),
]

ShapeName = Annotated[
    Positional[str],
    arg(metavar="MESH", help="a mesh or point cloud file, or a name: a sample, dragon, thingi10k:32770"),
]
OracleName = Literal["auto", "winding", "rays", "open3d", "warp"]
Output = Annotated[Path | None, arg(aliases=["-o"])]
Settings = Annotated[FitSettings, arg(name="")]


@dataclass
class PageOptions:
    """Where a page in the browser is served."""

    host: str = "127.0.0.1"
    """address of the page (view, --watch); others than 127.0.0.1 let other machines see it"""
    port: int = 8080
    """the page's port, or the next one that is free; 0: any"""
    no_open: bool = False
    """open no browser, where there is a display"""


ServedPage = Annotated[PageOptions, arg(name="")]


def load_field_of(run: Path, device: str) -> OccupancyField | LatticeField:
    """The field of a run's folder, or of a field's file."""
    from ff3d.fields.field import load_field
    from ff3d.runs import Run

    return load_field(run, device=device) if run.suffix == ".safetensors" else Run(run).load(device=device)


def bytes_of(gigabytes: float | None) -> int | None:
    """--max-memory in bytes, None where it is not given."""
    if gigabytes is not None and not 0 < gigabytes < math.inf:
        raise ValueError(f"--max-memory must be a positive number of gigabytes, got {gigabytes:g}")
    return None if gigabytes is None else round(gigabytes * 1e9)


def typed_command() -> str:
    """The command as it was typed, but for the folder of the program."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def number_or_text(text: str) -> int | float | bool | str:
    """The number, or the true or false, that a text stands for, else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def say_places(places: Sequence[object]) -> None:
    """A line for each place."""
    for place in places:
        say(f"        {place}")


def scores_in_words(scores: Mapping[str, float | None]) -> str:
    """IoU by kind of test points, on one line; a dash where there is none."""
    return "  ".join(f"{kind} {'-' if score is None else f'{score:.4f}'}" for kind, score in scores.items())


def say(text: str) -> None:
    """Results go to standard output; the log and the bars to standard error."""
    print(text, flush=True)  # noqa: T201  (this is the command line)
    if isinstance(sys.stdout, Stream) and sys.stdout.lost:
        print(text, file=sys.stderr, flush=True)  # noqa: T201


class Stream:
    """A standard stream of which what cannot be written is dropped. fault: why, if so."""

    def __init__(self, stream: TextIO | None):
        self._stream: Any = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (until the process ends)
        self.fault: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def lost(self) -> bool:
        """Whether something is missing, and not because its reader (`| head`) has read enough."""
        return self.fault is not None and self.fault.errno != errno.EPIPE

    def write(self, text: str) -> int:
        """Write, or drop."""
        self._do(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        self._do(self._stream.flush)

    def _do(self, action: Any, *arguments: str) -> None:
        if self.fault is not None:
            return
        try:
            action(*arguments)
        except OSError as error:
            self.fault = error
            with suppress(OSError, ValueError), open(os.devnull, "w", encoding="utf-8") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())  # what is buffered goes there when Python ends


@contextmanager
def standard_streams() -> Iterator[Stream]:
    """Within it the standard streams are `Stream`s, also those that were closed; gives standard output."""
    for number in (0, 1, 2):  # else the next file that is opened takes the number, and a library's messages
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    output = Stream(sys.stdout)
    sys.stdout, sys.stderr = output, Stream(sys.stderr)
    try:
        yield output
    finally:
        sys.stdout, sys.stderr = before
