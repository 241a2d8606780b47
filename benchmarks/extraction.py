#!/usr/bin/env python3
"""Extraction: points asked about, seconds and memory, sparse and dense, against named alternatives.

    benchmarks/extraction.py [field.safetensors | bunny | knot | gyroid | bracket]
                             [--resolutions 128 256 512 1024] [--dense-up-to 512] [--refine 0] [--device auto]

One row a method and resolution, each in a process of its own, for its peak memory: points asked about, as a share of
the dense grid's (1 in how many), seconds within the function and without, peak memory above that of the imports,
faces. The alternatives get the whole grid of logits, asked the same way, up to the dense limit: scikit-image (Lewiner),
PyMCubes and VTK (flying edges), the last two where they are installed. They leave a surface open at the box's sides.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import resource
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ff3d.fields.field import load_field
from ff3d.geometry.arrays import Floats
from ff3d.shapes.solids import SOLIDS
from ff3d.surfaces.extraction import CHUNK, extract_mesh
from ff3d.surfaces.grid_levels import grid_axes

METHODS = {"sparse": "ff3d", "dense": "ff3d", "skimage": "skimage", "PyMCubes": "mcubes", "VTK": "vtkmodules"}


class Asked:
    """A function of points that keeps count, and time."""

    def __init__(self, name: str, device: str):
        if name in SOLIDS:
            self.logits, self.bounds = SOLIDS[name].values, SOLIDS[name].bounds
        else:
            field = load_field(Path(name), device=device)
            self.logits, self.bounds = field.logits, field.bounds  # type: ignore[assignment]
        self.points, self.seconds = 0, 0.0

    def __call__(self, points: Floats) -> Floats:
        """points (n, 3) -> logits (n,)."""
        start = time.perf_counter()
        values = self.logits(points)
        self.seconds += time.perf_counter() - start
        self.points += len(points)
        return values


def grid_of(asked: Asked, resolution: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The logits of the whole grid, as the dense extraction asks for them."""
    x, y, z = grid_axes(asked.bounds, resolution)
    grid = np.empty((len(x), len(y), len(z)), dtype=np.float32)
    rows = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    flat, step = grid.reshape(len(rows), len(z)), max(1, CHUNK // len(z))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        points = np.concatenate([np.repeat(some, len(z), axis=0), np.tile(z, len(some))[:, None]], axis=1)
        flat[start : start + step] = asked(points).reshape(len(some), len(z))
    return grid


def count_faces(method: str, asked: Asked, resolution: int, refine: int) -> int:
    """Extract by one method; how many faces came."""
    if method in ("sparse", "dense"):
        return len(extract_mesh(asked, asked.bounds, resolution=resolution, method=method, refine=refine).faces)
    grid = grid_of(asked, resolution)
    if method == "skimage":
        from skimage.measure import marching_cubes

        return len(marching_cubes(grid, 0.0)[1])
    if method == "PyMCubes":
        return len(import_module("mcubes").marching_cubes(grid, 0.0)[1])
    numpy_to_vtk = import_module("vtkmodules.util.numpy_support").numpy_to_vtk
    image = import_module("vtkmodules.vtkCommonDataModel").vtkImageData()
    image.SetDimensions(*grid.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(grid.reshape(-1)))
    edges = import_module("vtkmodules.vtkFiltersCore").vtkFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, 0.0)
    edges.Update()
    return int(edges.GetOutput().GetNumberOfPolys())


def measure(method: str, options: argparse.Namespace, resolution: int) -> dict[str, Any]:
    """One row, in this process."""
    asked = Asked(options.field, options.device)
    count_faces(method, asked, 16, 0)  # the imports
    asked.points, asked.seconds = 0, 0.0
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    faces = count_faces(method, asked, resolution, options.refine)
    seconds = time.perf_counter() - start
    return {
        "points": asked.points,
        "dense": math.prod(len(axis) for axis in grid_axes(asked.bounds, resolution)),
        "asking": asked.seconds,
        "rest": seconds - asked.seconds,
        "memory": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024,
        "faces": faces,
    }


def main() -> None:
    """Run each row in a process, print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("field", nargs="?", default="bunny")
    parser.add_argument("--resolutions", nargs="+", type=int, default=[128, 256, 512, 1024])
    parser.add_argument("--dense-up-to", type=int, default=512)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--refine", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(options.row[0], options, int(options.row[1]))))
        return
    print(f"{options.field}, refine {options.refine}")
    heads = f"{'points':>13} {'1 in':>6} {'asking s':>9} {'rest s':>7} {'GB':>6} {'faces':>10}"
    print(f"{'resolution':>10} {'method':9} {heads}")
    for resolution in options.resolutions:
        for method in options.methods:
            label = f"{resolution:10} {method:9} "
            if importlib.util.find_spec(METHODS[method]) is None:
                print(label + "not installed")
                continue
            if method != "sparse" and resolution > options.dense_up_to:
                print(label + f"left out: past --dense-up-to {options.dense_up_to}")
                continue
            command = [sys.executable, __file__, *sys.argv[1:], "--row", method, str(resolution)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(label + (done.stderr.strip().splitlines() or ["failed"])[-1])
                continue
            row = json.loads(done.stdout.splitlines()[-1])
            print(
                label + f"{row['points']:13,} {row['dense'] / row['points']:6.1f} {row['asking']:9.2f} "
                f"{row['rest']:7.2f} {row['memory'] / 1e9:6.2f} {row['faces']:10,}",
                flush=True,
            )


if __name__ == "__main__":
    main()
