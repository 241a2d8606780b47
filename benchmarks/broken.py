#!/usr/bin/env python3
"""Labels on a thousand broken meshes of which the truth is known, by ff3d and by others on the same points.

    benchmarks/broken.py [--kind mixed] [--cases 1000] [--first 0] [--points 20000] [--jobs 1]
                         [--alternatives libigl trimesh open3d] [--out results.jsonl]

A case is `ff3d.shapes.broken.broken_mesh(seed, kind)`: `mixed` faults, or `touching` bodies and what else was found in
the wild. Half of the points are uniform in the mesh's box, grown by 2% of its
longest side, half near the surface, at N(0, 0.01 side). Of both, the ones nearer to the surface than the mesh's own
error against the solid are left out: there the mesh itself is wrong. A label is right where the solid says
so; the accuracy is over all points kept. A case is right from 99.5% on, over the uniform points and over the near
ones (99% there, where a fault's own size shows). A sheet, which has no inside, is right if it is refused by name.
Each case runs in a child process, at most 60 s and 2 GB a labeller; past that the row says which.
Seconds are for building the labeller and labelling, without the import.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from ff3d.geometry.coordinates import grown_box
from ff3d.geometry.sampling import sample_near_surface, sample_uniform
from ff3d.shapes.broken import GROUPS, KINDS, SHARES, BrokenMesh, broken_mesh, warm

Points = NDArray[np.float64]
Bools = NDArray[np.bool_]
SECONDS, BYTES = 60.0, 2 * 10**9
RIGHT, RIGHT_NEAR = 0.995, 0.99
MARGIN, NEAR = 0.02, 0.01


def label(mesh: Any, points: Points) -> Bools:
    """ff3d's labels: the one place that says how ff3d is asked. A ValueError that says why is a refusal."""
    from ff3d.labels.oracles import make_oracle

    return make_oracle(mesh)(points)


def libigl(mesh: Any, points: Points) -> Bools:
    """The winding number of the faces as they are."""
    import igl

    tree: Any = igl.FastWindingNumberBVH()
    tree.init(np.ascontiguousarray(mesh.vertices), np.ascontiguousarray(mesh.faces, dtype=np.int64), 2)
    inside: Bools = tree.winding_number(points, 2.0) > 0.5
    return inside


def by_trimesh(mesh: Any, points: Points) -> Bools:
    """Parity along rays."""
    return np.concatenate([mesh.contains(points[start : start + 2000]) for start in range(0, len(points), 2000)])


def open3d(mesh: Any, points: Points, samples: int) -> Bools:
    """Parity along 1 ray, or the vote of 3."""
    o3d: Any = importlib.import_module("open3d")  # by name: it is no dependency
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(np.asarray(mesh.vertices, dtype=np.float32), np.asarray(mesh.faces, dtype=np.uint32))
    inside: Bools = scene.compute_occupancy(points.astype(np.float32), nthreads=1, nsamples=samples).numpy() > 0.5
    return inside


LABELLERS: dict[str, Callable[[Any, Points], Bools]] = {
    "ff3d": label,
    "libigl": libigl,
    "trimesh": by_trimesh,
    "open3d-1": lambda mesh, points: open3d(mesh, points, 1),
    "open3d-3": lambda mesh, points: open3d(mesh, points, 3),
}


def case_points(case: BrokenMesh, count: int, seed: int) -> tuple[Points, Bools]:
    """Points (count, 3), and which count for the uniform and for the near score (2, count)."""
    rng = np.random.default_rng([seed, 3])
    mesh = case.sound_mesh
    side = float(np.ptp(mesh.vertices, axis=0).max())
    uniform = sample_uniform(grown_box(mesh, MARGIN * side), count // 2, rng)
    near = sample_near_surface(mesh, count - count // 2, std=NEAR * side, rng=rng)
    points = np.concatenate([uniform, near])
    kept = np.zeros((2, count), dtype=bool)
    kept[0, : count // 2], kept[1, count // 2 :] = True, True
    if case.surface_error:
        kept &= _distance(mesh, points) > case.surface_error
    return points, kept


def _distance(mesh: Any, points: Points) -> Points:
    import igl

    low, side = mesh.vertices.min(axis=0), float(np.ptp(mesh.vertices, axis=0).max())
    local = np.ascontiguousarray((mesh.vertices - low) / side)
    faces = np.ascontiguousarray(mesh.faces, dtype=np.int64)
    squared = igl.point_mesh_squared_distance((points - low) / side, local, faces)[0]
    return np.sqrt(squared) * side


def score(case: BrokenMesh, labeller: str, points: Points, kept: Bools, truth: Bools) -> dict[str, Any]:
    """One labeller on one case: `status` right, wrong, refused or failed, `uniform` and `near` accuracy, `why`."""
    begun = time.perf_counter()
    try:
        found = LABELLERS[labeller](case.mesh, points)
    except ValueError as error:
        # a refusal names the fault in a sentence; a library's bare "mismatch" is no answer
        named = type(error).__name__.endswith("Error") and len(str(error)) > 20 and labeller == "ff3d"
        why = f"{type(error).__name__}: {error}"[:200]
        return {"status": "refused" if named else "failed", "why": why, "seconds": time.perf_counter() - begun}
    except Exception as error:
        why = f"{type(error).__name__}: {error}"[:200]
        return {"status": "failed", "why": why, "seconds": time.perf_counter() - begun}
    seconds = time.perf_counter() - begun
    same = found == truth
    uniform = float(same[kept[0]].mean())
    near = float(same[kept[1]].mean()) if kept[1].sum() >= 100 else None
    fine = case.enclosing and uniform >= RIGHT and (near is None or near >= RIGHT_NEAR)
    return {"status": "right" if fine else "wrong", "uniform": uniform, "near": near, "seconds": seconds}


def work(seed: int, kind: str, count: int, labellers: list[str], line: Connection) -> None:
    """In the child: make the case, then send a row for each labeller."""
    case = broken_mesh(seed, kind)
    points, kept = case_points(case, count, seed)
    truth = case.contains(points)
    facts = {"seed": seed, "name": case.name, "faults": case.faults, "faces": len(case.mesh.faces),
             "enclosing": case.enclosing, "inside": float(truth[kept[0]].mean())}  # fmt: skip
    line.send(("case", facts))
    for labeller in labellers:
        line.send((labeller, score(case, labeller, points, kept, truth)))
    line.close()


def run_case(seed: int, kind: str, count: int, labellers: list[str]) -> dict[str, Any]:
    """The case's row. A child that takes too long or too much is ended; the labellers left get a child of their own."""
    row: dict[str, Any] = {"seed": seed, "faults": [], "enclosing": True, "labels": {}}
    left = list(labellers)
    # forked before the libraries that keep threads are loaded; the child's caches are those that main filled
    context = multiprocessing.get_context("fork")
    while left:
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=work, args=(seed, kind, count, left, theirs), daemon=True)
        child.start()
        theirs.close()
        why, begun, watched = "", time.monotonic(), psutil.Process(child.pid)
        while left and not why:
            try:
                if ours.poll(0.05):
                    what, value = ours.recv()
                    begun = time.monotonic()
                    if what == "case":
                        row |= value
                    else:
                        row["labels"][what] = value
                        left.remove(what)
                    continue
                if time.monotonic() - begun > SECONDS:
                    why = f"over {SECONDS:.0f} s"
                elif watched.memory_info().rss > BYTES:
                    why = f"over {BYTES / 1e9:.0f} GB"
            except (EOFError, psutil.NoSuchProcess):
                child.join(5)
                why = f"the process ended with code {child.exitcode}"
        if why and left:
            row["labels"][left.pop(0)] = {"status": "failed", "why": why, "seconds": time.monotonic() - begun}
        child.kill()
        child.join()
    return row


def table(title: str, rows: list[dict[str, Any]], labellers: list[str]) -> Iterator[str]:
    """Lines: for each labeller, the shares of the cases."""
    yield f"{title} ({len(rows)} cases)"
    for labeller in labellers:
        found = [(row, row["labels"][labeller]) for row in rows if labeller in row["labels"]]
        if not found:
            continue
        # refused sheets are good, refused solids are not
        good = [it["status"] == "right" or (it["status"] == "refused" and not row["enclosing"]) for row, it in found]
        share: dict[str, float] = defaultdict(float)
        for _, it in found:
            share[it["status"]] += 1 / len(found)
        sums = [it["uniform"] for row, it in found if "uniform" in it and row["enclosing"]]
        worst, median = (min(sums), float(np.median(sums))) if sums else (float("nan"), float("nan"))
        seconds = float(np.mean([it["seconds"] for _, it in found]))
        yield (f"  {labeller:10} good {np.mean(good):6.1%}  right {share['right']:6.1%}"
               f"  refused {share['refused']:6.1%}  wrong {share['wrong']:6.1%}  failed {share['failed']:6.1%}"
               f"  median {median:.4f}  worst {worst:.4f}  {seconds:6.3f} s")  # fmt: skip


def report(rows: list[dict[str, Any]], labellers: list[str]) -> Iterator[str]:
    """The tables and the worst cases of ff3d."""
    drawn = {group: np.mean([any(it.startswith(group) for it in row["faults"]) for row in rows]) for group in GROUPS}
    if any(drawn.values()):
        yield "shares drawn: " + ", ".join(f"{group} {drawn[group]:.0%} ({SHARES[group]:.0%})" for group in GROUPS)
    yield from table("all", rows, labellers)
    yield from table("sheets, to be refused", [row for row in rows if not row["enclosing"]], labellers)
    groups = {it.split(":")[0] for row in rows for it in row["faults"]}
    for fault in [*GROUPS, *sorted(groups - set(GROUPS)), *sorted({it for row in rows for it in row["faults"]})]:
        chosen = [row for row in rows if any(it == fault or it.startswith(fault + ":") for it in row["faults"])]
        if chosen:
            yield from table(fault, chosen, labellers)
    bad = [row for row in rows if row["labels"]["ff3d"]["status"] != "right"
           and (row["enclosing"] or row["labels"]["ff3d"]["status"] != "refused")]  # fmt: skip
    bad.sort(key=lambda row: row["labels"]["ff3d"].get("uniform", 0.0) if row["enclosing"] else 1.0)
    yield f"the worst of ff3d's {len(bad)} cases that are not right: seed, uniform, near, faces, faults"
    for row in bad[:20]:
        it = row["labels"]["ff3d"]
        found = it.get("why") or f"{it['uniform']:.4f} " + (f"{it['near']:.4f}" if it["near"] is not None else "-")
        yield f"  {row['seed']:5} {found}  {row.get('faces', 0):6}  {'; '.join(row['faults'])}"


def main() -> None:
    """Run, write a JSON line a case, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, default="mixed")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--alternatives", nargs="*", default=[], choices=["libigl", "trimesh", "open3d"])
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    labellers = ["ff3d"]
    for name in options.alternatives:
        if name == "open3d":
            try:
                importlib.import_module("open3d")
            except Exception as error:
                print(f"open3d left out: {type(error).__name__}: {error}")
                continue
        labellers += [it for it in LABELLERS if it.split("-")[0] == name]
    warm()
    rows, begun = [], time.perf_counter()
    seeds = range(options.first, options.first + options.cases)
    with ThreadPoolExecutor(options.jobs) as pool:
        for row in pool.map(lambda seed: run_case(seed, options.kind, options.points, labellers), seeds):
            rows.append(row)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            if len(rows) % 50 == 0:
                print(f"{len(rows)} cases, {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    print("\n".join(report(rows, labellers)))


if __name__ == "__main__":
    main()
