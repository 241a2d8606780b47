#!/usr/bin/env python3
"""Two promises at the default sizes: a holed mesh gives a closed one, and the same seed gives the same field.

    benchmarks/guarantees.py MESH [--steps 300] [--resolution 128]

Prints what was compared; exits with 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch

import ff3d


def main() -> int:
    """Fit twice, extract once, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mesh")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--resolution", type=int, default=128)
    options = parser.parse_args()
    mesh = ff3d.load_mesh(options.mesh)
    first, again = (ff3d.fit(mesh, preset="fast", steps=options.steps, seed=0) for _ in range(2))
    assert isinstance(first, ff3d.OccupancyField)
    assert isinstance(again, ff3d.OccupancyField)
    before, shape = ff3d.inspect_mesh(mesh), first.extract_mesh(options.resolution)
    after = ff3d.inspect_mesh(shape)
    same = all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in first.state_dict().items())
    largest = max(shape.split(only_watertight=False), key=lambda part: float(part.volume))  # without specks
    offset = float(np.abs(largest.bounds - mesh.bounds).max() / mesh.extents.max())
    print(f"input     closed {before.closed}, {before.holes} holes, volume {before.volume:.6g}")
    print(f"extracted closed {after.closed}, {after.holes} holes, volume {after.volume:.6g}")
    print(f"corners of the bounding boxes at most {100 * offset:.2f}% of the longest side apart")
    print(f"the same seed twice, {options.steps} steps, {first.precision}: the same field bit for bit: {same}")
    return int(not (after.closed and after.volume > 0 and same))


if __name__ == "__main__":
    sys.exit(main())
