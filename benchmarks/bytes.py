#!/usr/bin/env python3
"""Quality against bytes: fields of several sizes beside the same mesh simplified to files of such sizes.

    benchmarks/bytes.py FOLDER [--names dragon buddha armadillo] [--sizes 25k 50k 100k 200k] [--tables 10 12 14]
                        [--seconds 60] [--out runs/bytes]

FOLDER holds meshes/NAME.obj and testsets/NAME.npz. Fields: `lattice` and `voxels` in so many bytes, and hash grids with
tables of 2^N rows, fitted for so many seconds and stored with 8 bits a number; bytes are those of field.safetensors.
Meshes: quadric simplification (fast-simplification)
to several numbers of faces, as binary PLY (float32 vertices, int32 faces), and as Draco with 11, 12 and 14 bits a
coordinate, which is how meshes travel. IoU is of labels by the winding number of the field, of the simplified mesh,
and of what Draco gives back.
Prints a table in Markdown and draws it. Needs `pip install 'ff3d[benchmarks]'` (matplotlib, DracoPy).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

import ff3d
from ff3d.fitting import train
from ff3d.geometry.coordinates import UnitCube
from ff3d.metrics import LabelledPoints, iou
from ff3d.points.test_sets import TEST_KINDS, load_test_sets
from ff3d.settings import make_config

Tests = dict[str, LabelledPoints]
Measured = tuple[int, list[float]]
KINDS = ("lattice", "voxels")
# a network over small tables: what the preset `small` was before lattices
TABLES: dict[str, Any] = {"preset": "fast", "levels": 8, "coarsest": 10, "finest": 512, "depth": 2, "passes": 4}
FACES = (1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000)
DRACO_BITS = (11, 12, 14)


def fields(mesh: trimesh.Trimesh, tests: Tests, options: argparse.Namespace) -> dict[str, Measured]:
    """A field for each number of bytes, and for each size of the table."""
    found = {}
    configs = {
        f"{name}, {size}": make_config("small", mapping=name, bytes=size) for name in KINDS for size in options.sizes
    }
    for rows in options.tables:
        configs[f"hash, 2^{rows} rows"] = make_config(
            **TABLES, seconds=options.seconds, log2_table=rows, storage="int8"
        )
    for what, config in configs.items():
        fit = train(mesh, config, held_out={})
        if fit.progress.interrupted:
            raise SystemExit("interrupted")
        path = options.out / "field.safetensors"
        fit.field.save(path)
        contains = ff3d.load_field(path).contains
        scores = [iou(contains, tests[kind]) for kind in TEST_KINDS]
        found[f"{what} ({fit.progress.seconds:.0f} s)"] = path.stat().st_size, scores
    return found


def meshes(mesh: trimesh.Trimesh, tests: Tests) -> dict[str, Measured]:
    """The simplified mesh, as PLY and as Draco."""
    import DracoPy
    import fast_simplification  # itself, for ff3d's own wants a closed surface, and the dragon's touches itself

    cube, found = UnitCube.padded(mesh.vertices), {}
    unit = cube.to_unit(mesh.vertices)
    for count in (it for it in FACES if it < len(mesh.faces)):
        vertices, faces = fast_simplification.simplify(unit, mesh.faces.astype(np.int32), target_count=count)
        small = trimesh.Trimesh(cube.from_unit(np.float64(vertices)), faces, process=False)
        written = small.export(file_type="ply")
        found[f"PLY, {len(small.faces):,} faces"] = len(written), _scores(small.vertices, small.faces, tests)
        for bits in DRACO_BITS:
            data = DracoPy.encode(
                np.asarray(small.vertices), np.asarray(faces), quantization_bits=bits, compression_level=10
            )
            read = DracoPy.decode(data)
            found[f"Draco, {len(small.faces):,} faces, {bits} bits"] = (
                len(data),
                _scores(read.points, read.faces, tests),
            )
    return found


def _scores(vertices: NDArray[Any], faces: NDArray[Any], tests: Tests) -> list[float]:
    oracle = ff3d.WindingNumberOracle(trimesh.Trimesh(vertices, faces, process=False))
    return [iou(oracle, tests[kind]) for kind in TEST_KINDS]


def picture(found: dict[str, dict[str, Measured]], path: Path) -> None:
    """IoU near the surface against kilobytes, both logarithmic, a panel a mesh."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no picture without matplotlib: pip install 'ff3d[benchmarks]'")
        return
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(found), figsize=(5 * len(found), 4.6), sharey=True, constrained_layout=True)
    series = {name: name for name in (*KINDS, "hash", "PLY")} | {
        f"Draco, {bits} bits": f"{bits} bits" for bits in DRACO_BITS
    }
    ticks = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998)
    for panel, (name, rows) in zip(np.atleast_1d(panels), found.items(), strict=True):
        for label, part in series.items():
            points = sorted((size / 1000, scores[2]) for key, (size, scores) in rows.items() if part in key)
            if not points:
                continue
            kilobytes, iou = np.array(points).T
            panel.plot(
                kilobytes, 1 - iou, marker="o", markersize=3, label=label, linewidth=2.5 if part in KINDS else 1.2
            )
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_yticks([1 - tick for tick in ticks], [f"{tick:g}" for tick in ticks])
        panel.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        panel.invert_yaxis()
        panel.set_title(name, loc="left")
        panel.set_xlabel("KB")
        panel.grid(alpha=0.3)
    np.atleast_1d(panels)[0].set_ylabel("IoU near the surface (by area)")
    np.atleast_1d(panels)[0].legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Fit, simplify, measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", nargs="+", default=["dragon", "buddha", "armadillo"])
    parser.add_argument("--sizes", nargs="+", default=["25k", "50k", "100k", "200k"])
    parser.add_argument("--tables", type=int, nargs="*", default=[10, 12, 14])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path("runs/bytes"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Measured]] = {}
    print(f"| mesh | what | KB | {' | '.join(TEST_KINDS)} |\n|---|---|---:" + "|---:" * len(TEST_KINDS) + "|")
    for name in options.names:
        mesh = ff3d.load_mesh(options.folder / "meshes" / f"{name}.obj")
        tests = load_test_sets(options.folder / "testsets" / f"{name}.npz")
        found[name] = fields(mesh, tests, options) | meshes(mesh, tests)
        for what, (size, scores) in found[name].items():
            print(f"| {name} | {what} | {size / 1000:,.0f} | {' | '.join(f'{it:.4f}' for it in scores)} |", flush=True)
    picture(found, options.out / "bytes.png")


if __name__ == "__main__":
    main()
