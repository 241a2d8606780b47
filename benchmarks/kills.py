#!/usr/bin/env python3
"""Every command ended at random moments: nothing is lost, nothing is left behind, and the rerun gives the same bytes.

    benchmarks/kills.py [--seconds 300] [--cases N] [--seed 0] [--commands fit label ...] [--ways kill term ...]
        [--log FILE]

A case runs a command in a process of its own and disturbs it once: `kill` and `term` send SIGKILL and SIGTERM after a
random share of the command's own time, `full` lets no file grow beyond a random size, `readonly` takes the right to
write from it (as root: by another user), `twice` starts the same command twice at once, `other` starts it with two
settings at about the same time. Then the same command runs undisturbed. Counted are cases where

- lost: the rerun fails,
- wrong: its files differ from those of an undisturbed run (but for times); after `other`, config and field do, or the
  files are not all of one of the two settings,
- left: hidden files are left after it, or what was disturbed said more than one line of an error, or a traceback.

The exit code is 1 if there are any. --log takes a line for each case; given again, the cases that it has are counted,
and the next ones done. Commands start in processes forked from one that has the libraries loaded.
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
WAYS = ("kill", "term", "full", "readonly", "twice", "other")
CLOCK = {"seconds", "labelling", "label_seconds", "evaluation_seconds", "loss", "command"}
WITHOUT_RESULTS = {"view", "doctor"}  # commands that write no file
ADDING = {"benchmark", "ray", "compare", "tune"}  # what has other seeds is added to what is there
NOBODY = 65534


def make_inputs(folder: Path) -> None:
    """What commands are given: meshes, points, a picture and a run."""
    import numpy as np
    import trimesh
    from PIL import Image

    from ff3d.cli import main
    from ff3d.formats.writers import save_mesh

    save_mesh(trimesh.creation.icosphere(2), folder / "ball.ply")
    save_mesh(trimesh.creation.box(), folder / "box.ply")
    rng = np.random.default_rng(0)
    np.save(folder / "points.npy", rng.uniform(-1, 1, (400_000, 3)))
    Image.fromarray(rng.integers(256, size=(32, 32), dtype=np.uint8)).save(folder / "noise.png")
    fit = ["fit", str(folder / "ball.ply"), "--mapping", "none", "--steps", "200", *TINY]
    assert main([*fit, "--out", str(folder / "run")]) == 0


def commands(folder: Path) -> dict[str, list[str]]:
    """The arguments of each command, with {out} for where its results go and {seed}, 0 or 1."""
    ball, box, run, noise = (str(folder / name) for name in ("ball.ply", "box.ply", "run", "noise.png"))
    study = ["--steps", "40", *TINY, "--resolution", "16", "--out", "{out}"]
    tuned = ["--steps", "40", *TINY, "--out", "{out}"]
    benchmark = ["benchmark", ball, box, "--mappings", "none", "--seeds", "{seed}"]
    return {
        "fit": ["fit", ball, "--mapping", "none", "--steps", "300", *TINY, "--seed", "{seed}", "--out", "{out}"],
        "benchmark": [*benchmark, "--workers", "1", *study],
        "ray": [*benchmark, "--ray", "local", *study],
        "compare": ["compare", ball, "--mappings", "none", "basic", "--seed", "{seed}", *study],
        "tune": ["tune", ball, "--mappings", "none", "--rates", "0.01", "0.02", "--seeds", "{seed}", *tuned],
        "label": ["label", ball, str(folder / "points.npy"), "-o", "{out}/labels.npy"],
        "prepare": ["prepare", ball, box, "--points", "20000", "--seed", "{seed}", "--out", "{out}"],
        "watertight": ["watertight", ball, box, "--resolution", "4{seed}", "--out", "{out}"],
        "extract": ["extract", run, "--resolution", "9{seed}", "-o", "{out}/mesh.ply"],
        "evaluate": ["evaluate", run, "--mesh", ball, "--resolution", "32"],
        "inspect": ["inspect", ball, "--picture", "{out}/cuts.png"],
        "samples": ["samples", "{out}"],
        "image": ["image", noise, "--mappings", "none", "--steps", "20", "--out", "{out}"],
        "signal": ["signal", "--falloffs", "1", "--steps", "20", "--stds", "4", "--seed", "{seed}", "--out", "{out}"],
        "ntk": ["ntk", ball, "--points", "100", "--mappings", "none", "--seed", "{seed}", "--out", "{out}"],
        "lecture": ["lecture", "--out", "{out}", "--mesh", box, "--picture", noise, "--effort", "0.001"],
        "render": ["render", ball, "{out}/turn.gif", "--resolution", "16", "--frames", "4", "--size", "32"],
    }


def run(arguments: list[str], log: str, largest: int | None = None, readonly: bool = False) -> None:
    """In a process of its own: one command; what it says goes to a file."""
    from ff3d.cli import main

    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    if readonly and not os.getuid():
        os.setuid(NOBODY)
    sys.argv = ["ff3d", *arguments]
    os._exit(main(arguments))


def started(arguments: list[str], folder: Path, log: Path, seed: int = 0, **hindrance: Any) -> BaseProcess:
    """A command, on its way."""
    filled = [it.replace("{out}", str(folder)).replace("{seed}", str(seed)) for it in arguments]
    process: BaseProcess = CONTEXT.Process(target=run, args=(filled, str(log)), kwargs=hindrance)
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


class Usual:
    """What a command does if nobody disturbs it."""

    def __init__(self, name: str, arguments: list[str], place: Path):
        self.name, self.arguments = name, arguments
        self.seconds, self.files = self._done(place, 0)
        self.settings = 1 + any("{seed}" in it for it in arguments)
        self.others = [self.files, *(self._done(place, seed)[1] for seed in range(1, self.settings))]

    def _done(self, place: Path, seed: int) -> tuple[float, dict[str, str]]:
        folder, log, begun = place / f"{self.name}{seed}", place / f"{self.name}{seed}.log", time.monotonic()
        process = started(self.arguments, folder, log, seed)
        process.join()
        assert process.exitcode == 0, log.read_text()
        return time.monotonic() - begun, digest(folder)

    def disturbed(self, way: str, number: int) -> list[str]:
        """Disturb it, and run it again; what was wrong."""
        chance = random.Random(f"{self.name} {number}")  # noqa: S311  (the moment of a kill)
        with tempfile.TemporaryDirectory(prefix="ff3d-kills-") as place:
            folder, log, second = Path(place) / "out", Path(place) / "log", Path(place) / "second"
            if way == "readonly":
                Path(place).chmod(0o755)
                folder.mkdir(mode=0o555)
            largest = int(10 ** chance.uniform(1, 6)) if way == "full" else None
            processes = [started(self.arguments, folder, log, largest=largest, readonly=way == "readonly")]
            if way == "twice":
                processes.append(started(self.arguments, folder, second))
            elif way == "other":
                time.sleep(chance.uniform(0, 1) ** 2 * self.seconds)
                processes.append(started(self.arguments, folder, second, seed=1))
            elif way in ("kill", "term"):
                time.sleep(chance.uniform(0, 1.1) * self.seconds)
                with contextlib.suppress(ProcessLookupError):  # it was faster
                    os.kill(processes[0].pid or 0, signal.SIGKILL if way == "kill" else signal.SIGTERM)
            for process in processes:
                process.join()
            wrong = [f"said {said}" for path in (log, second) if (said := ill_said(path))]
            if way == "other":
                return wrong + self.mixed(folder)
            if way == "readonly":
                wrong += ["wrong: written to"] * any(folder.iterdir())
                folder.chmod(0o755)
            again = started(self.arguments, folder, log)
            again.join()
            if again.exitcode:
                return [*wrong, f"lost: exit code {again.exitcode}: {log.read_text()[-300:]!r}"]
            if (files := digest(folder)) != self.files:
                names = sorted(name for name, _ in files.items() ^ self.files.items())
                wrong.append(f"wrong: {', '.join(dict.fromkeys(names))}")
            return wrong + left(folder)

    def mixed(self, folder: Path) -> list[str]:
        """What two processes with other settings have made of one folder, if it is not that of one of them."""
        from ff3d.runs import Run, RunError

        wrong = left(folder)
        for path in folder.rglob("field.safetensors"):
            try:
                Run(path.parent).load()
            except RunError as error:
                wrong.append(f"wrong: {error}")
        if self.name not in ADDING and digest(folder) not in self.others:
            wrong.append("wrong: files of two settings")
        return wrong


def left(folder: Path) -> list[str]:
    """Hidden files in a folder."""
    hidden = [path.name for path in folder.rglob(".*")]
    return [f"left: {', '.join(hidden)}"] * bool(hidden)


def ill_said(log: Path) -> str:
    """What a command said that it should not: a traceback, or errors of more than one line."""
    text = log.read_text(errors="replace") if log.exists() else ""
    errors = [line for line in text.splitlines() if "error:" in line]
    return text[-300:] if "Traceback" in text or len(errors) > 1 else ""


def main() -> int:
    """Disturb commands for so many seconds; print a table, and what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--cases", type=int, default=sys.maxsize)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", default=[])
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    if sys.platform == "linux":
        CONTEXT.set_forkserver_preload(["ff3d.cli.main", "torch", "igl", "scipy.spatial", "skimage.measure", "trimesh"])
    cases: list[dict[str, Any]] = []
    if given.log and given.log.exists():
        cases = [json.loads(line) for line in given.log.read_text().splitlines()]
    with tempfile.TemporaryDirectory(prefix="ff3d-kills-") as place:
        Path(place).chmod(0o755)
        make_inputs(Path(place))
        known = commands(Path(place))
        usual: dict[str, Usual] = {}
        names = given.commands or list(known)
        number = max((case["number"] + 1 for case in cases), default=given.seed * 10**6)
        end, most = time.monotonic() + given.seconds, len(cases) + given.cases
        while time.monotonic() < end and len(cases) < most:
            name, way = names[number % len(names)], given.ways[number // len(names) % len(given.ways)]
            if name not in usual:
                usual[name] = Usual(name, known[name], Path(place))
            if way != "other" or usual[name].settings > 1:
                cases.append(
                    {"number": number, "command": name, "way": way, "wrong": usual[name].disturbed(way, number)}
                )
                if given.log:
                    with given.log.open("a") as file:
                        file.write(json.dumps(cases[-1]) + "\n")
            number += 1
    show(cases)
    return int(any(case["wrong"] for case in cases))


def show(cases: list[dict[str, Any]]) -> None:
    """Print a row for each command: the cases of each way, and those with a fault; and what was wrong."""
    print(f"| {'command':10} | {' | '.join(WAYS)} | all | faults |\n|---|{'---:|' * (len(WAYS) + 2)}")
    for name in [*dict.fromkeys(case["command"] for case in cases), "all"]:
        rows = [case for case in cases if name in (case["command"], "all")]
        ways = Counter(case["way"] for case in rows)
        faults = sum(bool(case["wrong"]) for case in rows)
        print(f"| {name:10} | {' | '.join(str(ways[way]) for way in WAYS)} | {len(rows)} | {faults} |")
    for case in cases:
        for fault in case["wrong"]:
            print(f"{case['command']} {case['number']}, {case['way']}: {fault}")


if __name__ == "__main__":
    sys.exit(main())
