#!/usr/bin/env python3
"""What the extracted mesh is, on real shapes: closed, manifold, of the same topology sparse and dense; and refined.

    benchmarks/surfaces.py MESH [MESH ...] [--resolutions 128 256 512]
    benchmarks/surfaces.py --field field.safetensors [--resolutions 256 512]

The first extracts each mesh's labels (1 inside, -1 outside), sparse, found by the cell grid, and dense, and prints
whether the sparse mesh is closed, edge-manifold, without degenerate and duplicate faces and of positive volume, the
genus of both, and whether they are the same array for array. The second prints how far the vertices of a field's mesh
lie from where the field is 0 along the same edges of the grid (30 steps of root finding), by steps of --refine.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from ff3d.fields.field import load_field
from ff3d.geometry.coordinates import grown_box
from ff3d.labels.winding_number import WindingNumberOracle
from ff3d.shapes.mesh import inspect_mesh, load_mesh
from ff3d.shapes.sources import find_mesh
from ff3d.surfaces.extraction import extract_mesh

Floats = NDArray[np.float64]


def topology(name: str, resolutions: list[int]) -> None:
    """Print a row for each resolution of one mesh."""
    mesh = load_mesh(find_mesh(name))
    oracle = WindingNumberOracle(mesh)
    bounds = grown_box(mesh, 0.02 * oracle.cube.scale)

    def logits(points: Floats) -> Floats:
        return np.where(oracle(points), 1.0, -1.0)

    def guide(centers: Floats, side: float) -> NDArray[np.bool_]:
        return oracle.grid.may_hold_surface(oracle.cube.to_unit(centers), side / oracle.cube.scale)

    for resolution in resolutions:
        sparse = extract_mesh(logits, bounds, resolution=resolution, guide=guide)
        dense = extract_mesh(logits, bounds, resolution=resolution, method="dense")
        same = np.array_equal(sparse.vertices, dense.vertices) and np.array_equal(sparse.faces, dense.faces)
        report = inspect_mesh(sparse)
        sound = report.closed and not report.flipped_edges and report.volume > 0
        faults = f"{report.degenerate_faces} / {report.duplicate_faces}"
        share = dense.metadata["evaluations"] / sparse.metadata["evaluations"]
        print(
            f"| {Path(name).stem} | {resolution} | {len(sparse.faces):,} | {'yes' if sound else 'NO'} | {faults} | "
            f"{characteristic(sparse)} / {characteristic(dense)} | {'yes' if same else 'NO'} | 1/{share:.0f} |",
            flush=True,
        )


def characteristic(mesh: trimesh.Trimesh) -> int:
    """Vertices less edges and faces: 2 for each part, less 2 for each handle."""
    return len(mesh.vertices) - len(mesh.faces) // 2


def refinement(path: Path, resolutions: list[int]) -> None:
    """Print how far vertices are off, by steps of refining."""
    field = load_field(path)
    for resolution in resolutions:
        true = field.extract_mesh(resolution, refine=30).vertices
        cell = float((field.bounds[1] - field.bounds[0]).max()) / resolution
        first = 0.0
        for steps in (0, 1, 2, 3, 4, 6, 8):
            off = np.linalg.norm(field.extract_mesh(resolution, refine=steps).vertices - true, axis=1) / cell
            first = first or float(off.max())
            quantile = float(np.quantile(off, 0.99))
            ratio = first / max(float(off.max()), 1e-12)
            print(
                f"| {resolution} | {steps} | {off.max():.4f} | {quantile:.5f} | {off.mean():.5f} | {ratio:.1f} |",
                flush=True,
            )


def main() -> None:
    """Parse the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", nargs="*")
    parser.add_argument("--field", type=Path)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[128, 256, 512])
    arguments = parser.parse_args()
    if arguments.field:
        print("| resolution | steps | farthest, cells | 99% within | mean | farthest over that of no step |")
        print("|---:|---:|---:|---:|---:|---:|", flush=True)
        refinement(arguments.field, arguments.resolutions)
    if arguments.meshes:
        print(
            "| mesh | resolution | faces | sound | degenerate / duplicate | V - E + F, sparse / dense | same | asked |"
        )
        print("|---|---:|---:|---|---:|---:|---|---:|", flush=True)
    for name in arguments.meshes:
        topology(name, arguments.resolutions)


if __name__ == "__main__":
    main()
