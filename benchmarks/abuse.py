#!/usr/bin/env python3
"""Damaged and hostile files to every reader: each load gives a result or one clear line, without a warning, soon.

    benchmarks/abuse.py [--seconds 60] [--loads N] [--processes 2] [--seed 0] [--readers field row ...] [--log FILE]
        [--one field:17]

Each reader gets mutations of small sound files that are made here: files cut short, other bytes, other numbers in the
text, and of JSON, also within safetensors, other values in any place. A mutation is a function of its number, so that
--one loads it again in this process, with the traceback.

A fault is a process that dies, an exception that is not documented (ValueError, OSError, FitError, MemoryError), a
message of more than one line or 500 characters, a warning, more than 5 s, or a process that grows by more than 1 GB.
The exit code is 1 if there is any. --log takes a line for each batch; given again, the batches that it has are counted,
and the next ones done.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import multiprocessing
import re
import resource
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SECONDS, KILOBYTES, LONGEST = 5.0, 10**6, 500
BATCH, SHOWN = 200, 5  # loads of a turn; of its faults, those that are told
NUMBERS = [b"1000000000000", b"4294967295", b"-1", b"99999999999999999999999", b"nan", b"1e400", b"0", b"9" * 5000]
VALUES: list[Any] = [None, True, -1, 0, 2**70, 1e308, "", "../../evil", "x" * 1000, [], {}, [[]], {"a": 1}, [1, "a"]]
TINY: dict[str, Any] = {
    "width": 8,
    "depth": 1,
    "frequencies": 4,
    "batch_size": 256,
    "pool_size": 256,
    "device": "cpu",
    "steps": 2,
}


class Reader(NamedTuple):
    """A sound file's name and bytes, and what loads it. kind: how it is mutated: bytes, json or tensors."""

    name: str
    data: bytes
    load: Callable[[Path], object]
    kind: str = "bytes"


@cache
def readers(place: str) -> dict[str, Reader]:
    """Every reader, with a small sound file; what they need beside it lies in a folder in `place`."""
    import trimesh
    from PIL import Image

    from ff3d.datasets.config import make_sets_config
    from ff3d.datasets.prepare import ROWS as PREPARED
    from ff3d.datasets.prepare import prepare
    from ff3d.fields.checkpoint import Checkpoint
    from ff3d.fields.field import OccupancyField, load_field
    from ff3d.fields.optimise import Adam
    from ff3d.files import read_rows
    from ff3d.formats.writers import WRITERS, save_mesh
    from ff3d.labels.oracles import make_oracle
    from ff3d.points.label_files import label_file
    from ff3d.points.test_sets import load_test_sets, test_points
    from ff3d.runs import MeshSource, Run
    from ff3d.settings import make_config
    from ff3d.shapes.mesh import load_mesh
    from ff3d.shapes.point_cloud import load_points
    from ff3d.shapes.sources import find_shapes
    from ff3d.studies.plan import PLAN, make_plan, matches_plan, provenance, read_plan, read_tuned
    from ff3d.studies.study import run_study
    from ff3d.studies.task import Row
    from ff3d.theory.pictures import load_picture
    from ff3d.viewer.items import load_items

    folder = Path(tempfile.mkdtemp(dir=place))
    ball = trimesh.creation.icosphere(1)
    found = []
    for ending in WRITERS:
        save_mesh(ball, folder / f"ball{ending}")
        found.append(Reader(f"ball{ending}", (folder / f"ball{ending}").read_bytes(), load_mesh))
    points = np.asarray(ball.vertices)
    rows = "".join(" ".join(map(repr, row)) + "\n" for row in points.tolist())
    faces = "".join("3 " + " ".join(map(str, row)) + "\n" for row in ball.faces.tolist())
    off = f"OFF\n{len(points)} {len(ball.faces)} 0\n{rows}{faces}"
    pcd = "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
    pcd += f"WIDTH {len(points)}\nHEIGHT 1\nPOINTS {len(points)}\nDATA "
    found += [
        Reader("ball.off", off.encode(), load_mesh),
        Reader("scan.xyz", rows.encode(), load_points),
        Reader("scan.pcd", (pcd + "binary\n").encode() + points.astype("<f4").tobytes(), load_points),
        Reader("text.pcd", (pcd + "ascii\n" + rows).encode(), load_points),
        Reader("scan.npy", _saved(np.save, points), load_points),
        Reader("scan.npz", _saved(np.savez, points=points, normals=points), load_points),
    ]
    tests = {kind: test_points(ball, kind, count=64) for kind in ("uniform", "boundary_face")}
    arrays = {kind: it.points for kind, it in tests.items()} | {f"{kind}_inside": it[1] for kind, it in tests.items()}
    found.append(Reader("tests.npz", _saved(np.savez, **arrays), load_test_sets))
    oracle = make_oracle(ball)
    found.append(
        Reader("points.npy", _saved(np.save, points), lambda path: label_file(oracle, path, path.parent / "labels"))
    )
    save_mesh(ball, folder / "mesh.ply")
    run, config = Run(folder / "run"), make_config("fast", mapping="gaussian", learning_rate=0.01, **TINY)
    fit = run.fit(ball, config, MeshSource("ball.ply", "0" * 64))
    network = fit.field
    assert isinstance(network, OccupancyField)
    lattice = Run(folder / "lattice")
    lattice.fit(ball, make_config(mapping="voxels", bytes=20_000, device="cpu"), MeshSource("ball.ply", "0" * 64))

    def field(path: Path) -> None:
        logits = load_field(path, device="cpu").logits(points)
        assert np.isfinite(logits).all(), "logits are not finite"

    found.append(Reader("field.safetensors", run.field_path.read_bytes(), field, "tensors"))
    found.append(Reader("lattice.safetensors", lattice.field_path.read_bytes(), field, "tensors"))
    found.append(Reader("config.json", run.config_path.read_bytes(), lambda path: Run(path.parent).record(), "json"))
    found.append(Reader("metrics.jsonl", run.metrics_path.read_bytes(), lambda path: Run(path.parent).history()))
    settings = config.flat()
    adam = Adam(network, config.optimiser)
    Checkpoint(folder / "checkpoint.safetensors", settings).save(network, adam, fit.progress)

    def checkpoint(path: Path) -> None:
        Checkpoint(path, settings).load(network, adam)

    data = (folder / "checkpoint.safetensors").read_bytes()
    found.append(Reader("checkpoint.safetensors", data, checkpoint, "tensors"))
    plan = make_plan([folder / "mesh.ply"], ("none",), (0,), resolution=8, learning_rate=0.01, **TINY)
    study = run_study(plan, folder / "study")
    found.append(
        Reader(
            "row.json",
            study.rows[0].to_json().encode(),
            lambda path: Row.from_json(path.read_text(errors="replace")),
            "json",
        )
    )
    found.append(
        Reader(PLAN, json.dumps(provenance(plan)).encode(), lambda path: matches_plan(path.parent, plan), "json")
    )
    tuned = {"gaussian": {"learning_rate": 0.5, "scale": 7.0}}
    found.append(Reader("tuned.json", json.dumps(tuned).encode(), read_tuned, "json"))
    text = f"meshes: [{folder / 'mesh.ply'}]\nmappings: [none, gaussian]\nseeds: [0, 1]\n"
    text += "steps: 9\nvary: {scale: [3, 6]}\n"
    found.append(Reader("plan.yaml", text.encode(), read_plan))
    entries = {"meshes": [str(folder / "mesh.ply")], "mappings": ["none"], "seeds": [0], "steps": 9, "resolution": 8}
    found.append(Reader("plan.yml", json.dumps(entries | {"vary": {"scale": [3]}}).encode(), read_plan, "json"))
    prepare([folder / "mesh.ply"], folder / "set", make_sets_config("ff3d", points=64))
    found.append(Reader(PREPARED, (folder / "set" / PREPARED).read_bytes(), read_rows))
    found.append(Reader("set.npz", (folder / "set/mesh.npz").read_bytes(), lambda path: load_items([path])))
    # relative: a name cut to "/" would have the whole disk searched
    names = f"# two\n../{folder.name}/mesh.ply\n../{folder.name}/ball.obj\n"
    found.append(Reader("meshes.lst", names.encode(), lambda path: find_shapes([path])))
    stream = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(stream, "png")
    found.append(Reader("picture.png", stream.getvalue(), load_picture))
    return {reader.name: reader for reader in found}


def _saved(save: Callable[..., None], *arrays: Any, **named: Any) -> bytes:
    stream = io.BytesIO()
    save(stream, *arrays, **named)
    return stream.getvalue()


def mutated(reader: Reader, number: int) -> bytes:
    """The mutation of this number: always the same."""
    rng = np.random.default_rng([number, sum(reader.name.encode())])
    if reader.kind == "json" and rng.random() < 0.7:
        return _other_value(reader.data, rng)
    if reader.kind == "tensors" and rng.random() < 0.7:
        return _other_tensors(reader.data, rng)
    data = bytearray(reader.data)
    choice = rng.integers(4)
    if choice == 0:
        return bytes(data[: rng.integers(len(data))])
    if choice == 1:
        numbers = [match.span() for match in re.finditer(rb"\d+", data[: 2**16])]
        if numbers:
            start, end = numbers[min(int(rng.exponential(6)), len(numbers) - 1)]
            data[start:end] = NUMBERS[rng.integers(len(NUMBERS))]
            return bytes(data)
    reach = len(data) if choice == 2 else min(len(data), 300)
    for place in rng.integers(reach, size=rng.integers(1, 20)):
        data[place] = rng.integers(256)
    return bytes(data)


def _other_value(data: bytes, rng: np.random.Generator) -> bytes:
    """JSON with other values in some places, or nested beyond reason."""
    if rng.random() < 0.02:
        return b"[" * 100_000
    document = json.loads(data)
    for _ in range(rng.integers(1, 4)):
        holder, key = document, None
        while isinstance(holder, dict | list) and len(holder):
            key = list(holder)[rng.integers(len(holder))] if isinstance(holder, dict) else rng.integers(len(holder))
            if not isinstance(holder[key], dict | list) or rng.random() < 0.3:
                break
            holder = holder[key]
        if key is None or not len(holder):
            continue
        if isinstance(holder, dict) and rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    return json.dumps(document).encode()


def _other_tensors(data: bytes, rng: np.random.Generator) -> bytes:
    """A safetensors file with other JSON in its header, or other numbers in its tensors."""
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])
    if rng.random() < 0.6:
        metadata = header["__metadata__"]
        name = list(metadata)[rng.integers(len(metadata))]
        metadata[name] = _other_value(metadata[name].encode(), rng).decode()
    else:
        numbers = np.frombuffer(body[: len(body) // 4 * 4], dtype="<f4").copy()
        chosen = rng.integers(len(numbers), size=rng.integers(1, len(numbers)))
        numbers[chosen] = rng.choice([3e38, -3e38, 1e30, 0, np.nan, np.inf, 1e-45], size=len(chosen))
        body[: numbers.nbytes] = numbers.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body)


def loaded(reader: Reader, data: bytes, folder: Path) -> str:
    """Load a file of such bytes: "read", "refused", or the fault in words."""
    from ff3d.fields.checkpoint import FitError

    path = folder / reader.name
    path.write_bytes(data)
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = "read"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reader.load(path)
    except (ValueError, OSError, FitError, MemoryError) as error:
        outcome = "refused"
        if "\n" in str(error) or len(str(error)) > LONGEST or isinstance(error, UnicodeError):
            outcome = f"message: {str(error)[:200]!r}"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {str(error)[:200]}"
    if (seconds := time.perf_counter() - begun) > SECONDS:
        outcome = f"{seconds:.0f} s"
    if (grown := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > KILOBYTES:
        outcome = f"{grown / 1e6:.1f} GB"
    return outcome


def batch(name: str, numbers: range, place: str) -> dict[str, Any]:
    """Loads of one reader: how many came out how, the first faults by their numbers, and the slowest load's seconds."""
    reader, counts, faults, slowest = readers(place)[name], Counter[str](), dict[int, str](), 0.0
    with tempfile.TemporaryDirectory(dir=place) as folder:
        for number in numbers:
            begun = time.perf_counter()
            outcome = loaded(reader, mutated(reader, number), Path(folder))
            slowest = max(slowest, time.perf_counter() - begun)
            counts[outcome if outcome in ("read", "refused") else "fault"] += 1
            if outcome not in ("read", "refused") and len(faults) < SHOWN:
                faults[number] = outcome
    return {**counts, "faults": faults, "slowest": slowest}


def quiet() -> None:
    """One thread, and no notes on standard error."""
    import logging
    import os

    os.environ["OMP_NUM_THREADS"] = "1"
    logging.disable()


def main() -> int:
    """Load mutations for so many seconds; print a table, and what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the first mutation: others with each million")
    parser.add_argument("--readers", nargs="+", default=[])
    parser.add_argument("--loads", type=int, default=10**9)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--one", help="READER:NUMBER, a mutation to load again")
    given = parser.parse_args()
    quiet()
    with tempfile.TemporaryDirectory(prefix="ff3d-abuse-") as place:
        return _one(given.one, place) if given.one else _many(given, place)


def _one(job: str, place: str) -> int:
    """Load READER:NUMBER."""
    name, _, number = job.rpartition(":")
    path = Path(tempfile.mkdtemp(dir=place)) / name
    path.write_bytes(mutated(readers(place)[name], int(number)))
    try:
        print(readers(place)[name].load(path))
    except Exception:
        traceback.print_exc()
    return 0


def _many(given: argparse.Namespace, place: str) -> int:
    from pebble import ProcessExpired, ProcessPool

    names = given.readers or list(readers(place))
    rows: list[dict[str, Any]] = []
    if given.log and given.log.exists():
        rows = [json.loads(line) for line in given.log.read_text().splitlines()]
    turn, last = len(rows), len(rows) + -(-given.loads // given.batch)
    end = time.monotonic() + given.seconds
    context = multiprocessing.get_context("forkserver")
    with ProcessPool(given.processes, initializer=quiet, context=context) as pool:
        waiting: dict[Future[Any], tuple[str, range]] = {}
        while True:
            while len(waiting) < given.processes and time.monotonic() < end and turn < last:
                start = given.seed * 10**6 + turn // len(names) * given.batch
                job = names[turn % len(names)], range(start, start + given.batch)
                waiting[pool.schedule(batch, (*job, place), timeout=120 + SECONDS * given.batch)] = job
                turn += 1
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED)[0]:
                name, numbers = waiting.pop(future)
                try:
                    row = future.result()
                except (ProcessExpired, TimeoutError) as error:
                    row = {"fault": 1, "faults": {numbers.start: f"one of {given.batch}: {type(error).__name__}"}}
                rows.append({"reader": name, "read": 0, "refused": 0, "fault": 0, "slowest": 0.0} | row)
                if given.log:
                    with given.log.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
    show(rows)
    return int(any(row["fault"] for row in rows))


def show(rows: list[dict[str, Any]]) -> None:
    """Print a row for each reader, and what was wrong."""
    print(f"| {'reader':22} | loads | read | refused | faults | slowest s |\n|---|---:|---:|---:|---:|---:|")
    for name in [*dict.fromkeys(row["reader"] for row in rows), "all"]:
        of_reader = [row for row in rows if name in (row["reader"], "all")]
        counts = [sum(row[outcome] for row in of_reader) for outcome in ("read", "refused", "fault")]
        cells = " | ".join(f"{count:,}" for count in (sum(counts), *counts))
        print(f"| {name:22} | {cells} | {max((row['slowest'] for row in of_reader), default=0.0):.2f} |")
    for row in rows:
        for number, fault in row["faults"].items():
            print(f"{row['reader']}:{number}: {fault}")


if __name__ == "__main__":
    sys.exit(main())
