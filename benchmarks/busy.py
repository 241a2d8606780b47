#!/usr/bin/env python3
"""Fits on a machine that is busy: how threads wait for each other, and how workers share the cores.

    benchmarks/busy.py waits  [--mesh bunny] [--steps 120] [--rounds 5] [--load N] [--ways ...] [--before DIR]
    benchmarks/busy.py study  [--mesh bunny] [--steps 60] [--rounds 2] [--before DIR]
    benchmarks/busy.py workers [--mesh bunny] [--seconds 20] [--seeds 4] [--rounds 1] [--before DIR]

waits: seconds of `ff3d fit` as a person waits for them, from the start of the process to its end: alone, two at once
(each), and beside N busy loops (as many as there are processors), for ways of waiting that the environment chooses.
study: seconds, and seconds of processors, of `ff3d benchmark` with eight fits.
workers: one worker against two: fits an hour, and steps and IoU at equal seconds a fit.

before: a checkout of ff3d to compare with. Everything is done in turns, whatever else the machine does meanwhile hits
all alike; medians, and the smallest in brackets.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ff3d.geometry.cores import VARIABLES, WAITING, processors

HERE = Path(__file__).parents[1]
MAPPINGS = ("none", "basic", "positional", "gaussian")
WAYS = {
    "now": {},
    "libgomp's own": {"GOMP_SPINCOUNT": "300000"},
    "10,000 turns": {"GOMP_SPINCOUNT": "10000"},
    "500 turns": {"GOMP_SPINCOUNT": "500"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def start(tree: Path, arguments: Sequence[str], **environment: str) -> subprocess.Popen[bytes]:
    """`ff3d ARGUMENTS` of a checkout, with nothing in the environment about threads but what is given."""
    plain = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, *WAITING)}
    return subprocess.Popen(
        [sys.executable, "-m", "ff3d.cli", *arguments],
        env=plain | {"PYTHONPATH": str(tree)} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def seconds(tree: Path, commands: Sequence[Sequence[str]], **environment: str) -> list[float]:
    """Seconds that each of some commands takes, all started at once."""
    begun = time.perf_counter()
    running = [start(tree, command, **environment) for command in commands]
    ended: dict[int, float] = {}
    while len(ended) < len(running):
        for number, process in enumerate(running):
            if number not in ended and process.poll() is not None:
                ended[number] = time.perf_counter() - begun
                if process.returncode:
                    raise SystemExit(f"ff3d {' '.join(commands[number])} ended with {process.returncode}")
        time.sleep(0.01)
    return list(ended.values())


@contextmanager
def load(count: int) -> Iterator[None]:
    """Within it so many processes do nothing, as fast as they can."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def trees(before: Path | None) -> dict[str, Path]:
    """The checkouts to compare, by name."""
    return ({"before": before} if before else {}) | {"now": HERE}


def figures(values: Sequence[float]) -> str:
    """The median, and the smallest in brackets."""
    return f"{statistics.median(values):7.1f} ({min(values):5.1f})"


def waits(options: argparse.Namespace) -> None:
    """The table of ways to wait."""
    variants = {name: (HERE, environment) for name, environment in WAYS.items() if name in options.ways}
    if options.before:
        variants = {"before": (options.before, {})} | variants
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in variants}
    for number in range(options.rounds):
        turn = list(variants)[number % len(variants) :] + list(variants)[: number % len(variants)]
        for name in turn:
            tree, environment = variants[name]
            with tempfile.TemporaryDirectory() as folder:
                commands = [
                    [
                        "fit",
                        options.mesh,
                        "--mapping",
                        "gaussian",
                        "--steps",
                        str(options.steps),
                        "--out",
                        f"{folder}/{i}",
                    ]
                    for i in range(4)
                ]
                found[name]["alone"] += seconds(tree, commands[:1], **environment)
                found[name]["two"] += seconds(tree, commands[1:3], **environment)
                with load(options.load):
                    found[name]["beside"] += seconds(tree, commands[3:], **environment)
        print(f"{number + 1} of {options.rounds} rounds", file=sys.stderr, flush=True)
    print(
        f"{options.steps} steps of gaussian on {options.mesh}, {processors()} processors, "
        f"{options.rounds} rounds: seconds"
    )
    print(f"{'threads wait':15}{'alone':>17}{'two, each':>17}{f'beside {options.load} loops':>17}{'two/alone':>11}")
    for name, measured in found.items():
        ratio = statistics.median(measured["two"]) / statistics.median(measured["alone"])
        columns = "".join(f"{figures(measured[it]):>17}" for it in ("alone", "two", "beside"))
        print(f"{name:15}{columns}{ratio:11.2f}")


def study(options: argparse.Namespace) -> None:
    """The table of a benchmark of short fits."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for _ in range(options.rounds):
        for workers in (1, 2):
            for name, tree in trees(options.before).items():
                with tempfile.TemporaryDirectory() as folder:
                    command = ["benchmark", options.mesh, "--mappings", *MAPPINGS, "--seeds", "0", "1"]
                    command += ["--steps", str(options.steps), "--workers", str(workers), "--out", folder]
                    spent = -processor_seconds()
                    took = max(seconds(tree, [command]))
                    found[name, workers].append((took, spent + processor_seconds()))
                    print(f"{name}, {workers} workers: {took:.1f} s", file=sys.stderr, flush=True)
    print(f"8 fits of {options.steps} steps on {options.mesh}, {processors()} processors, {options.rounds} rounds")
    print(f"{'':10}{'workers':>8}{'seconds':>17}{'of processors':>17}")
    for (name, workers), measured in found.items():
        columns = "".join(f"{figures(it):>17}" for it in zip(*measured, strict=True))
        print(f"{name:10}{workers:8}{columns}")


def processor_seconds() -> float:
    """Of the processes that this one has waited for, and of those that they have waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def workers_(options: argparse.Namespace) -> None:
    """The table of one worker against two."""
    found: dict[tuple[str, int], list[tuple[float, ...]]] = defaultdict(list)
    seeds = [str(seed) for seed in range(options.seeds)]
    for _ in range(options.rounds):
        for workers in (1, 2):
            for name, tree in trees(options.before).items():
                with tempfile.TemporaryDirectory() as folder:
                    command = ["benchmark", options.mesh, "--mappings", "gaussian", "--seeds", *seeds]
                    command += ["--seconds", str(options.seconds), "--workers", str(workers), "--out", folder]
                    took = max(seconds(tree, [command]))
                    rows = [json.loads(line) for line in (Path(folder) / "rows.jsonl").read_text().splitlines()]
                means = (statistics.mean(it) for it in zip(*map(measures, rows), strict=True))
                found[name, workers].append((3600 * len(rows) / took, *means))
                print(f"{name}, {workers} workers: {took:.1f} s", file=sys.stderr, flush=True)
    print(f"{options.seeds} fits of {options.seconds:g} s on {options.mesh}, gaussian, {processors()} processors")
    print(f"{'':10}{'workers':>8}{'fits an hour':>14}{'steps':>8}{'IoU uniform':>13}{'IoU boundary':>14}")
    for (name, workers), measured in found.items():
        rate, steps, uniform, boundary = (statistics.median(it) for it in zip(*measured, strict=True))
        print(f"{name:10}{workers:8}{rate:14.0f}{steps:8.0f}{uniform:13.4f}{boundary:14.4f}")


def measures(row: dict[str, object]) -> tuple[float, float, float]:
    """Steps, and IoU everywhere and near the surface, of a row of a benchmark."""
    iou = row["iou"]
    assert isinstance(iou, dict)
    return float(str(row["steps"])), iou["uniform"], iou["boundary_face"]


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("waits", "study", "workers"))
    parser.add_argument("--mesh", default="bunny")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--load", type=int, default=processors())
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="to wait, of `waits`")
    parser.add_argument("--before", type=Path, help="another checkout")
    options = parser.parse_args()
    options.steps = options.steps or {"waits": 120}.get(options.what, 60)
    {"waits": waits, "study": study, "workers": workers_}[options.what](options)


if __name__ == "__main__":
    main()
