#!/usr/bin/env python3
"""Run the examples that every command's --help ends with, and write docs/commands.md with what they print.

`scripts/run_examples.py` takes over half an hour. Commands that it is given (`scripts/run_examples.py extract
evaluate`) are run in the folder that the last run left, without what they wrote there themselves, and the page keeps
what it says of the others. Numbers differ from run to run and from machine to machine: a test runs the quick ones again
and compares the words.
"""

import contextlib
import io
import logging
import os
import platform
import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from ff3d.cli.main import all_commands, main

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/commands.md"
FOLDER = ROOT / "build/examples"
ORDER = ["samples", "inspect", "watertight", "fit", "extract", "evaluate", "label", "prepare", "compare", "benchmark"]
NOT_RUN = ("view",)  # serves until it is stopped
HEAD = """# Commands

Each command's `--help` ends with the examples below, and has every option. What follows an example is what it printed
on two cores, other work beside it, when `scripts/run_examples.py` ran it in an empty folder and wrote this page.
Results go to standard output; notes and progress, of which the notes are shown, to standard error. `points.npy` is
`numpy.random.default_rng(0).uniform(-1, 1, (1000, 3))`. These budgets are small, to be quick, and so are the scores:
[quality](quality.md) has those of budgets that a person would give.

Tab completes commands and options after
`ff3d --tyro-write-completion bash ~/.local/share/bash-completion/completions/ff3d` (or `zsh ~/.zfunc/_ff3d`).

MESH is a file or a name: `bunny`, `knot`, `gyroid`, `bracket` and `soup` come with ff3d; [the guide](guide.md) has the
others.
"""


def example_lines() -> dict[str, list[str]]:
    """The examples of each command, as they are typed, in the page's order."""
    commands = all_commands()
    names = ORDER + [name for name in commands if name not in ORDER]
    return {name: [f"ff3d {name} {text}".rstrip() for text in commands[name].EXAMPLES] for name in names}


def run_example(line: str) -> tuple[str, float]:
    """What a command prints in the working directory, without progress bars, and its seconds.

    Raises RuntimeError if it fails.
    """
    printed, log = io.StringIO(), logging.getLogger("ff3d")
    notes = logging.StreamHandler(printed)
    arguments, before = line.split(), sys.argv
    sys.argv = arguments
    log.addHandler(notes)
    begun = time.monotonic()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            code = main(arguments[1:])
    finally:
        log.removeHandler(notes)
        sys.argv = before
    text = printed.getvalue().strip("\n")
    if code:
        raise RuntimeError(f"{line}: exit code {code}\n{text}")
    return _of_no_machine(text), time.monotonic() - begun


def _of_no_machine(text: str) -> str:
    """The text without where this machine keeps its files, and which kernel it has."""
    return text.replace(os.path.expanduser("~"), "~").replace(platform.platform(), platform.system())


def words(text: str) -> str:
    """A text with # for every number and without spaces: the same in every run."""
    return re.sub(r"\s+", " ", re.sub(r"-?\d[\d.,]*(e[-+]?\d+)?", "#", text))


def read_page() -> dict[str, tuple[str, float]]:
    """What the page says that each example printed, and its seconds."""
    if not PAGE.exists():
        return {}
    blocks = re.findall(r"```console\n\$ (.*?)\n(.*?)```\n\n(?:([\d.]+) s)?", PAGE.read_text(encoding="utf-8"), re.S)
    return {line: (printed.strip("\n"), float(seconds or 0)) for line, printed, seconds in blocks}


def write_page(results: dict[str, tuple[str, float]]) -> None:
    """Write the page of what each example printed."""
    commands, parts = all_commands(), [HEAD]
    for name, lines in example_lines().items():
        about = re.sub(r"\s+", " ", (type(commands[name]).__doc__ or "").strip())
        parts.append(f"## ff3d {name}\n\n{about}\n")
        for line in lines:
            printed, seconds = results.get(line, ("", 0.0))
            parts.append(f"```console\n$ {line}\n{printed}\n```\n")
            parts += [f"{seconds:.1f} s\n"] * (name not in NOT_RUN)
    PAGE.write_text("\n".join(parts), encoding="utf-8")


def prepare_folder() -> None:
    """Put into the working directory what examples take."""
    np.save("points.npy", np.random.default_rng(0).uniform(-1, 1, (1000, 3)))


def remove_results(line: str, printed: str) -> None:
    """Remove what an example wrote in an earlier run, so that it resumes nothing and numbers no folder.

    printed: what the page says that it printed, where the results of one without --out and -o are named.
    """
    places = re.findall(r" (?:--out|-o) (\S+)", line)
    if not places:  # runs/tune of runs/tune/tuned.json, runs/signal of runs/signal-2
        named = re.findall(r"^results: (\S+)", printed, re.M)
        places = [re.sub(r"^([^/]+/[^/]+?)(-\d+)?(/.*)?$", r"\1", place) for place in named]
    for place in map(Path, places):
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)


def run(names: list[str]) -> None:
    """Run the examples of these commands (none named: of all) and write the page."""
    results = read_page()
    if not names:
        shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(FOLDER):
        prepare_folder()
        for name, lines in example_lines().items():
            for line in lines:
                if name in NOT_RUN:
                    results[line] = "", 0.0
                elif name in names or not names:
                    remove_results(line, results.get(line, ("",))[0])
                    results[line] = run_example(line)
                    print(f"{results[line][1]:5.1f} s  {line}", flush=True)
            write_page(results)


if __name__ == "__main__":
    run(sys.argv[1:])
