#!/usr/bin/env python3
"""Closing broken meshes of which the solid is known, by ff3d and by others; how sharp edges come out; what scans take.

    benchmarks/watertight.py --out rows.jsonl [--cases 1000] [--peers PYTHON --peer-cases 20] [--resolution 256]
                             [--methods ff3d sharp pcu alphawrap tetwild open3d] [--seconds 120] [--minutes M]
    benchmarks/watertight.py --edges [--rows FILE]
    benchmarks/watertight.py --meshes armadillo.obj ... --resolutions 512 1024 [--rows FILE]

Cases are `ff3d.shapes.broken.broken_mesh(seed)` that enclose something, from seed 0 on: all for ff3d, the first
`--peer-cases` seeds for the others (closers.py says how each is called), case for case in turn. Each mesh and method
runs in a process of its own, for at most `--seconds` of the processors (all threads), which other work on the machine
changes less than the clock. What stands in `--out` is not run again, and after `--minutes`
nothing new begins: the same command does the rest. Peers live in an environment of their own:

    python3 -m venv peers && peers/bin/pip install pymeshlab pytetwild point-cloud-utils open3d libigl trimesh

closed: every edge has two faces that run along it in opposite directions, and the volume is positive.
IoU, volume error: of the result's labels (its winding number) with the true solid, over 20,000 points in the box grown
by 2%; those nearer to the input than 1.5 times the estimate of its own error against the solid are left out.
Distances: between the result and the true surface, both ways, in per cent of the longest side. The true surface is what
of the input parts the true solid from the rest, and over holes the true solid's own. Seconds are without imports;
memory is the peak of the whole process.

--edges: the bracket and a fan (a plate of a rim with flat and round sides, all slanted) closed plain and sharp: how far
the edges and corners of the input lie from the result, in cells, and by how many degrees the angle between the result's
faces, .3 of a cell on either side of an edge, is off.
--meshes: how far the surface lies from the result and back, in cells, with seconds of the processors and memory.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from closers import METHODS
from rows import write_rows

from ff3d.closing.config import ClosingConfig
from ff3d.closing.files import is_closed
from ff3d.closing.watertight import close, largest_distance
from ff3d.geometry.coordinates import grown_box
from ff3d.geometry.distances import NearestFaces
from ff3d.geometry.sampling import Surface, sample_segments, sample_surface, sample_uniform
from ff3d.geometry.triangles import areas, unit_vectors
from ff3d.labels.winding_number import WindingNumberOracle
from ff3d.shapes.broken import OPEN, BrokenMesh, broken_mesh
from ff3d.shapes.mesh import load_mesh
from ff3d.shapes.sample_meshes import sample_mesh
from ff3d.surfaces.extraction import extract_mesh

OURS = ("ff3d", "sharp")
POINTS, MARGIN = 20_000, 0.02
SAFE = 1.5  # times the estimate of the mesh's own error
LIFT = 1e-4  # longest sides: how far from a face its two sides are queried, beyond the mesh's own error
PIECES = 48  # along the longest side: of faces of which a part is hidden
HOLES = 128  # cells of the true surface over holes
SPOTS = np.array([[1, 1, 1], [2.8, 0.1, 0.1], [0.1, 2.8, 0.1], [0.1, 0.1, 2.8]]) / 3
BESIDE = 0.3  # cells from an edge


@dataclass(frozen=True)
class Truth:
    """What a case's result is held against.

    queries (n, 3) with inside (n,): the solid's labels.  points (m, 3): on the true surface.  surface: distances to it.
    """

    size: float
    queries: Any
    inside: Any
    points: Any
    surface: NearestFaces

    @classmethod
    def of(cls, case: BrokenMesh) -> Truth:
        """The truth of a case, by its solid alone."""
        mesh, rng = case.sound_mesh, np.random.default_rng(0)
        size = float(np.ptp(mesh.vertices, axis=0).max())
        box, nearest = grown_box(mesh, MARGIN * size), NearestFaces(mesh)
        error = SAFE * case.surface_error

        def parts(points: Any, normals: Any) -> Any:
            """Whether the solid is on one side alone, past the error or, in what is thin, within it."""
            lifts = [lift * normals for lift in (error + LIFT * size, error / 4 + LIFT * size)]
            return np.any([case.contains(points + it) != case.contains(points - it) for it in lifts], axis=0)

        whole = Surface.of(mesh)
        points, faces = whole.sample(POINTS, rng, "even")
        points = points[parts(points, unit_vectors(whole.crosses[faces]))]
        cut = trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, size / PIECES, max_iter=20)
        pieces = Surface(cut[0][cut[1]])
        normals = unit_vectors(pieces.crosses)
        kept = np.any([parts(np.einsum("k,fkd->fd", spot, pieces.corners), normals) for spot in SPOTS], axis=0)
        corners = pieces.corners[kept]
        if any(fault.startswith(OPEN) for fault in case.faults):
            solid = extract_mesh(lambda p: np.where(case.contains(p), 1.0, -1.0), box, resolution=HOLES, refine=12)
            away = nearest(solid.vertices)[0] > error + 2 * LIFT * size
            patch = solid.vertices[solid.faces[away[solid.faces].any(axis=1)]]
            if len(patch):
                count = math.ceil(POINTS * areas(patch).sum() / areas(whole.corners).sum())
                points = np.concatenate([points, Surface(patch).sample(count, rng, "even")[0]])
                corners = np.concatenate([corners, patch])
        queries = sample_uniform(box, POINTS, rng)
        queries = queries[nearest(queries)[0] > error]
        surface = trimesh.Trimesh(corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3), process=False)
        return cls(size, queries, case.contains(queries), points, NearestFaces(surface))


def run(method: str, mesh: Any, resolution: int, python: str, seconds: int) -> Any:
    """The arrays that closers.py writes, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "in.npz"), Path(folder, "out.npz")
        np.savez(given, vertices=np.asarray(mesh.vertices), faces=np.asarray(mesh.faces, dtype=np.int64))
        script = Path(__file__).resolve().with_name("closers.py")
        command = [python, str(script), method, str(given), str(made), str(resolution), str(seconds)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # one leaves files
        if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
            return f"over {seconds} s"
        if done.returncode:
            return (done.stderr.strip().splitlines() or [f"the process ended with code {done.returncode}"])[-1]
        with np.load(made) as arrays:
            return dict(arrays)


def measure(made: Any, truth: Truth) -> dict[str, Any]:
    """The row of one result."""
    if isinstance(made, str):
        return {"failure": made}
    if not len(made["faces"]):
        return {"failure": "no faces"}
    closed = trimesh.Trimesh(made["vertices"], made["faces"], process=False)
    there = NearestFaces(closed)(truth.points)[0]
    back = truth.surface(sample_surface(closed, POINTS, np.random.default_rng(0), weight="even")[0])[0]
    inside, true = WindingNumberOracle(closed)(truth.queries), truth.inside
    return {
        "seconds": float(made["seconds"]),
        "processors": float(made["processors"]),
        "bytes": int(made["bytes"]),
        "faces": len(closed.faces),
        "closed": is_closed(closed),
        "iou": float((inside & true).sum() / max((inside | true).sum(), 1)),
        "volume_error": float(abs(int(inside.sum()) - int(true.sum())) / max(true.sum(), 1)),
        "mean": 50 * float(there.mean() + back.mean()) / truth.size,
        "hausdorff": 100 * float(max(there.max(), back.max())) / truth.size,
    }


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Close the cases by all methods; print and append a row for each; return all rows."""
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    known, begun = {(row["seed"], row["method"]) for row in rows}, time.monotonic()
    for seed in range(options.first, options.first + options.cases):
        chosen = [name for name in options.methods if name in OURS or (options.peers and seed < options.peer_cases)]
        chosen = [name for name in chosen if (seed, name) not in known]
        if not chosen or not (case := broken_mesh(seed)).enclosing:
            continue
        truth = Truth.of(case)
        for method in chosen:
            if options.minutes and time.monotonic() - begun > 60 * options.minutes:
                return rows
            python = sys.executable if method in OURS else options.peers
            made = run(method, case.mesh, options.resolution, python, options.seconds)
            facts = {"seed": seed, "case": case.name, "faults": case.faults, "input": len(case.mesh.faces)}
            row = facts | {"method": method, "resolution": options.resolution} | measure(made, truth)
            rows.append(row)
            print(json.dumps(row), flush=True)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    return rows


COLUMNS = {
    "method": "", "meshes": "0", "closed, %": "1", "IoU >= .995, %": "1", "mean IoU": ".4", "volume error, %": "2",
    "mean distance, %": "3", "Hausdorff, %, median": "2", "seconds of processors, mean": "1", "median": "1",
    "peak MB, median": "0", "largest": "0", "over the time": "0", "failed otherwise": "0",
}  # fmt: skip


def table(rows: list[dict[str, Any]]) -> Iterator[list[Any]]:
    """For each method a line over the cases that all have tried, and one over all of its cases if it has more.

    A case without a result is not closed and has no IoU of .995; the other columns are of those with one.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    shared = set.intersection(*({row["seed"] for row in rows if row["method"] == name} for name in methods))
    for method in methods:
        every = [row for row in rows if row["method"] == method]
        common = [row for row in every if row["seed"] in shared]
        for found in [common] if len(common) == len(every) else [common, every]:
            good = [row for row in found if "failure" not in row]
            late = sum(row.get("failure", "").startswith("over ") for row in found)

            def of(key: str, scale: float, summary: Callable[..., Any], good: list[Any] = good) -> float:
                return float(scale * summary([row[key] for row in good])) if good else float("nan")

            closed, right = (100 / len(found) * sum(map(bool, them)) for them in (
                [row["closed"] for row in good], [row["iou"] >= 0.995 for row in good]))  # fmt: skip
            yield [
                method, len(found), closed, right, of("iou", 1, np.mean), of("volume_error", 100, np.mean),
                of("mean", 1, np.mean), of("hausdorff", 1, np.median),
                of("processors", 1, np.mean), of("processors", 1, np.median), of("bytes", 1e-6, np.median),
                of("bytes", 1e-6, np.max),                late, len(found) - len(good) - late,
            ]  # fmt: skip


def fan(sections: int = 240) -> Any:
    """A plate whose rim is an arc (smooth), straight sides and corners, its walls and its top slanted."""
    angle = np.linspace(0, np.pi, sections + 1)
    arc = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rim = np.concatenate([arc, [[-1, -0.5], [-0.2, -0.5], [0.1, -0.2], [0.6, -0.6]]])
    count = len(rim)
    top = np.column_stack([0.75 * rim, 0.45 + 0.2 * rim[:, 0] + 0.1 * rim[:, 1]])
    vertices = np.concatenate([np.column_stack([rim, np.zeros(count)]), top, [[0, 0, 0], [0, 0, 0.45]]])
    one = np.arange(count)
    other = (one + 1) % count
    faces = [(one, other, count + other), (one, count + other, count + one),
             (0 * one + 2 * count, other, one), (0 * one + 2 * count + 1, count + one, count + other)]  # fmt: skip
    mesh = trimesh.Trimesh(vertices, np.concatenate([np.stack(it, axis=1) for it in faces]), process=False)
    return mesh.apply_transform(trimesh.transformations.rotation_matrix(0.4, [1, 2, 3]))


def edges() -> Iterator[list[Any]]:
    """For each shape, plain and sharp: how its edges and corners come out."""
    for name, mesh, resolution in (("bracket", sample_mesh("bracket"), 64), ("fan", fan(), 64), ("fan", fan(), 128)):
        chosen = mesh.face_adjacency_angles > np.radians(30)
        ends, pairs = mesh.face_adjacency_edges[chosen], mesh.face_adjacency[chosen]
        points, rows = sample_segments(np.asarray(mesh.vertices)[ends], POINTS, np.random.default_rng(0))
        corners = np.asarray(mesh.vertices)[np.bincount(ends.ravel(), minlength=len(mesh.vertices)) >= 3]
        along = unit_vectors(np.subtract(*np.moveaxis(np.asarray(mesh.vertices)[ends], 1, 0)))
        middles = np.asarray(mesh.triangles_center)[pairs] - np.asarray(mesh.vertices)[ends][:, :1]
        inward = unit_vectors(middles - np.einsum("npd,nd->np", middles, along)[..., None] * along[:, None])
        for sharp in (False, True):
            found = close(mesh, ClosingConfig(resolution=resolution, sharp=sharp))
            nearest = NearestFaces(found.mesh)
            sides = [nearest.with_normals(points + BESIDE * found.cell * inward[rows, side])[2] for side in (0, 1)]
            angle = np.degrees(np.arccos(np.clip(np.einsum("nd,nd->n", *sides), -1, 1)))
            wrong = np.abs(angle - np.degrees(mesh.face_adjacency_angles[chosen])[rows])
            far = nearest(points)[0] / found.cell
            back = NearestFaces(mesh)(Surface.of(found.mesh).sample(POINTS, np.random.default_rng(0), "even")[0])[0]
            yield [name, resolution, "sharp" if sharp else "plain", far.mean(), np.quantile(far, 0.99), far.max(),
                   (nearest(corners)[0] / found.cell).max(), wrong.mean(), np.quantile(wrong, 0.99),
                   back.mean() / found.cell, back.max() / found.cell]  # fmt: skip


EDGE_COLUMNS = {
    "shape": "", "cells": "0", "edges": "", "edges off, cells: mean": "3", "99%": "3", "most": "3",
    "corners, most": "3", "angle off, degrees: mean": "2", "99% of them": "2",
    "faces off: mean": "4", "most of them": "3",
}  # fmt: skip


def scans(options: argparse.Namespace) -> Iterator[list[Any]]:
    """For each mesh and resolution: both distances, in cells, seconds and memory."""
    for name in options.meshes:
        mesh = load_mesh(name)
        for resolution in options.resolutions:
            made = run("ff3d", mesh, resolution, sys.executable, options.seconds)
            if isinstance(made, str):
                yield [Path(name).stem, len(mesh.faces), resolution, made, *[""] * 5]
                continue
            closed = trimesh.Trimesh(made["vertices"], made["faces"], process=False)
            cell = float(np.ptp(mesh.vertices[np.unique(mesh.faces)], axis=0).max()) / resolution
            yield [Path(name).stem, len(mesh.faces), resolution, float(made["processors"]), 1e-9 * int(made["bytes"]),
                   len(closed.faces), "yes" if is_closed(closed) else "no",
                   largest_distance(mesh, closed) / cell, largest_distance(closed, mesh) / cell]  # fmt: skip


SCAN_COLUMNS = {
    "mesh": "", "faces": ",0", "cells": ",0", "seconds of processors": "1", "peak GB": "2", "faces of the result": ",0",
    "closed": "", "surface to result, cells": "2", "back": "2",
}  # fmt: skip


def main() -> None:
    """Measure what was named; print rows and write those of the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--resolution", type=int, default=256)
    usual = [name for name in METHODS if name != "sharp"]
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=usual)
    parser.add_argument("--peers", help="a Python that has them")
    parser.add_argument("--peer-cases", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--out", type=Path, default=Path("watertight-rows.jsonl"))
    parser.add_argument("--edges", action="store_true")
    parser.add_argument("--meshes", nargs="*", default=[])
    parser.add_argument("--resolutions", nargs="+", type=int, default=[512])
    parser.add_argument("--rows", type=Path, help="write the table's rows there")
    options = parser.parse_args()
    if options.edges:
        lines, columns, seeds = list(edges()), EDGE_COLUMNS, "none drawn"
    elif options.meshes:
        lines, columns, seeds = list(scans(options)), SCAN_COLUMNS, "none drawn"
    else:
        lines, columns = list(table(compare(options))), COLUMNS
        seeds = f"from {options.first} on"
    for line in [list(columns), *lines]:
        print("\t".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in line))
    if options.rows:
        write_rows(options.rows, columns, lines, seeds=seeds)


if __name__ == "__main__":
    main()
