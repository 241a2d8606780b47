"""What several commands share: names of arguments, loading, and saying what came of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from ff3d.cli.settings import Settings as FitSettings

if TYPE_CHECKING:
    from ff3d.fields.field import OccupancyField

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


def load_field_of(run: Path, device: str) -> OccupancyField:
    """The field of a run's folder, or of a field's file."""
    from ff3d.fields.field import load_field
    from ff3d.runs import Run

    return load_field(run, device=device) if run.suffix == ".safetensors" else Run(run).load(device=device)


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
