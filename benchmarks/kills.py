#!/usr/bin/env python3
"""Every command ended at random moments: nothing is lost, nothing is left behind, and the rerun gives the same bytes.

    benchmarks/kills.py [--seconds 300] [--seed 0] [--commands fit label ...] [--ways kill term full twice]

A case runs a command in a process of its own and disturbs it once: `kill` and `term` send SIGKILL and SIGTERM after a
random share of the command's own time, `full` lets no file grow beyond a random size, `twice` starts the same command
twice at once, `other` starts it with two seeds at once. Then the same command runs undisturbed. Counted are cases where

- lost: the rerun fails,
- wrong: its files differ from those of an undisturbed run (but for times), or, after `other`, config and field do,
- left: hidden files are left after it, or what was disturbed said more than one line of an error, or a traceback.

The exit code is 1 if there are any. Commands start in processes forked from one that has the libraries loaded.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

CONTEXT: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
TINY = ["--width", "16", "--depth", "2", "--frequencies", "8", "--batch-size", "256", "--pool-size", "1024"]
TINY += ["--learning-rate", "0.01", "--device", "cpu", "--precision", "float32"]
WAYS = ("kill", "term", "full", "twice", "other")
CLOCK = {"seconds", "labelling", "label_seconds", "evaluation_seconds", "loss", "command"}


def commands(folder: Path) -> dict[str, list[str]]:
    """The arguments of each command, with {out} for where its results go and {seed}."""
    import numpy as np
    import trimesh

    from ff3d.cli import main
    from ff3d.formats.writers import save_mesh

    save_mesh(trimesh.creation.icosphere(2), folder / "ball.ply")
    save_mesh(trimesh.creation.box(), folder / "box.ply")
    np.save(folder / "points.npy", np.random.default_rng(0).uniform(-1, 1, (400_000, 3)))
    ball, box, run = str(folder / "ball.ply"), str(folder / "box.ply"), str(folder / "run")
    assert main(["fit", ball, "--mapping", "none", "--steps", "200", *TINY, "--out", run]) == 0
    study = ["--steps", "40", *TINY, "--resolution", "16", "--out", "{out}"]
    tuned = ["--steps", "40", *TINY, "--out", "{out}"]
    return {
        "fit": ["fit", ball, "--mapping", "none", "--steps", "300", *TINY, "--seed", "{seed}", "--out", "{out}"],
        "benchmark": ["benchmark", ball, box, "--mappings", "none", "--seeds", "{seed}", "--workers", "1", *study],
        "compare": ["compare", ball, "--mappings", "none", "basic", "--seed", "{seed}", *study],
        "tune": ["tune", ball, "--mappings", "none", "--rates", "0.01", "0.02", "--seeds", "{seed}", *tuned],
        "label": ["label", ball, str(folder / "points.npy"), "-o", "{out}/labels.npy"],
        "prepare": ["prepare", ball, box, "--points", "20000", "--seed", "{seed}", "--out", "{out}"],
        "watertight": ["watertight", ball, box, "--resolution", "48", "--out", "{out}"],
        "extract": ["extract", run, "--resolution", "96", "-o", "{out}/mesh.ply"],
        "samples": ["samples", "{out}"],
    }  # fmt: skip


def run(arguments: list[str], log: str, largest: int | None = None) -> None:
    """In a process of its own: one command; what it says goes to a file."""
    from ff3d.cli import main

    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.argv = ["ff3d", *arguments]
    os._exit(main(arguments))


def started(arguments: list[str], folder: Path, log: Path, seed: int = 0, largest: int | None = None) -> BaseProcess:
    """A command, on its way."""
    filled = [it.replace("{out}", str(folder)).replace("{seed}", str(seed)) for it in arguments]
    process: BaseProcess = CONTEXT.Process(target=run, args=(filled, str(log), largest))
    process.start()
    return process


def digest(folder: Path) -> dict[str, str]:
    """A hash of each file, without times, pictures and pages."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix in (".png", ".html", ".md", ".parquet"):
            continue
        data: object = path.read_bytes()
        if path.suffix in (".json", ".jsonl"):
            lines = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
            rows = [timeless(json.loads(line)) for line in lines]
            data = rows if path.suffix == ".json" else {json.dumps(row.get("file", row)): row for row in rows}
        found[str(path.relative_to(folder))] = hashlib.sha256(repr(data).encode()).hexdigest()
    return found


def timeless(value: Any) -> Any:
    """Plain JSON without what the clock says."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in sorted(value.items()) if key not in CLOCK}
    return [timeless(each) for each in value] if isinstance(value, list) else value


class Case:
    """One disturbance of one command."""

    def __init__(self, name: str, arguments: list[str], usual: tuple[float, dict[str, str]], number: int):
        self.name, self.arguments, (self.seconds, self.expected) = name, arguments, usual
        self.random = random.Random(f"{name} {number}")  # noqa: S311  (the moment of a kill)

    def done(self, way: str) -> list[str]:
        """Disturb, run again; what was wrong."""
        with tempfile.TemporaryDirectory(prefix="ff3d-kills-") as place:
            folder, log, second = Path(place) / "out", Path(place) / "log", Path(place) / "second"
            largest = int(10 ** self.random.uniform(1, 6)) if way == "full" else None
            processes = [started(self.arguments, folder, log, largest=largest)]
            if way in ("twice", "other"):
                processes.append(started(self.arguments, folder, second, seed=int(way == "other")))
            elif way != "full":
                time.sleep(self.random.uniform(0, 1.1) * self.seconds)
                with contextlib.suppress(ProcessLookupError):  # it was faster
                    os.kill(processes[0].pid or 0, signal.SIGKILL if way == "kill" else signal.SIGTERM)
            for process in processes:
                process.join()
            wrong = [f"{way}: said {said}" for path in (log, second) if (said := ill_said(path))]
            if way == "other":
                return wrong + self.mixed(folder)
            again = started(self.arguments, folder, log)
            again.join()
            if again.exitcode:
                return [*wrong, f"{way}: lost: exit code {again.exitcode}: {log.read_text()[-300:]!r}"]
            if digest(folder) != self.expected:
                names = sorted(name for name, _ in digest(folder).items() ^ self.expected.items())
                wrong.append(f"{way}: wrong: {', '.join(dict.fromkeys(names))}")
            if hidden := [path.name for path in folder.rglob(".*")]:
                wrong.append(f"{way}: left: {', '.join(hidden)}")
            return wrong

    @staticmethod
    def mixed(folder: Path) -> list[str]:
        """Runs of which config and field are of different fits."""
        from ff3d.runs import Run, RunError

        wrong = []
        for path in folder.rglob("field.safetensors"):
            try:
                Run(path.parent).load()
            except RunError as error:
                wrong.append(f"other: wrong: {error}")
        return wrong


def ill_said(log: Path) -> str:
    """What a command said that it should not: a traceback, or errors of more than one line."""
    text = log.read_text(errors="replace") if log.exists() else ""
    errors = [line for line in text.splitlines() if "error:" in line]
    return text[-300:] if "Traceback" in text or len(errors) > 1 else ""


def main() -> int:
    """Disturb commands for so many seconds; print a table, and what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", default=[])
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    given = parser.parse_args()
    if sys.platform == "linux":
        CONTEXT.set_forkserver_preload(["ff3d.cli.main", "torch", "igl", "scipy.spatial", "skimage.measure", "trimesh"])
    with tempfile.TemporaryDirectory(prefix="ff3d-kills-") as place:
        known = commands(Path(place))
        names = given.commands or list(known)
        usual: dict[str, tuple[float, dict[str, str]]] = {}
        counts: dict[str, Counter[str]] = {name: Counter() for name in names}
        wrong: list[str] = []
        end, number = time.monotonic() + given.seconds, given.seed * 10**6
        while time.monotonic() < end:
            name, way = names[number % len(names)], given.ways[number // len(names) % len(given.ways)]
            if name not in usual:
                begun = time.monotonic()
                process = started(known[name], Path(place) / "usual" / name, Path(place) / f"{name}.log")
                process.join()
                assert process.exitcode == 0, (Path(place) / f"{name}.log").read_text()
                usual[name] = time.monotonic() - begun, digest(Path(place) / "usual" / name)
            if way != "other" or name in ("fit", "benchmark", "compare", "tune", "prepare"):
                found = Case(name, known[name], usual[name], number).done(way)
                counts[name][way] += 1
                counts[name]["faults"] += bool(found)
                wrong += [f"{name} {number}, {it}" for it in found]
            number += 1
        shutil.rmtree(Path(place) / "usual", ignore_errors=True)
    print(f"| {'command':10} | {' | '.join(given.ways)} | faults |\n|---|{'---:|' * (len(given.ways) + 1)}")
    for name, count in counts.items():
        print(f"| {name:10} | {' | '.join(str(count[way]) for way in (*given.ways, 'faults'))} |")
    print("\n".join(wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
