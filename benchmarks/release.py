#!/usr/bin/env python3
"""What a release does in a minute, as one small JSON file: `benchmarks/release.py benchmarks/releases/0.2.0.json`.

Seconds of a start, of labels, of a step of training under Gaussian features, of an extraction and a closing; the IoU
and bytes of a shape in 5 s and in 5 KB. Each time is the least of three. `benchmarks/compare_releases.py` compares two
files, which should come from one machine, idle.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rows import machine

import ff3d
from ff3d.files import write_text

REPEATS = 3


def least(action: Callable[[], object]) -> float:
    """The seconds of the fastest of some calls."""
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def measure() -> dict[str, float]:
    """Every figure by its name; what ends in s is seconds."""
    found: dict[str, float] = {}
    for name, code in (("import, s", "import ff3d"), ("import torch and fit, s", "import ff3d; ff3d.fit")):
        found[name] = least(lambda code=code: subprocess.run([sys.executable, "-c", code], check=True))  # type: ignore[misc]
    bunny = ff3d.load_mesh("bunny")
    points = ff3d.sample_uniform(bunny.bounds, 500_000, np.random.default_rng(0))
    found["500,000 labels, s"] = least(lambda: ff3d.make_oracle(bunny)(points))
    begun = time.perf_counter()
    ff3d.fit(bunny, "gaussian", steps=20, seed=0)
    middle = time.perf_counter()
    ff3d.fit(bunny, "gaussian", steps=40, seed=0)
    found["step of plain gaussian, s"] = max(0.0, (time.perf_counter() - middle) - (middle - begun)) / 20
    ball = [[-1.1] * 3, [1.1] * 3]
    found["ball at 512, s"] = least(
        lambda: ff3d.extract_mesh(lambda x: 1 - np.linalg.norm(x, axis=1), ball, resolution=512)
    )
    found["bracket closed at 128, s"] = least(lambda: ff3d.watertight("bracket", resolution=128))
    test = ff3d.test_points(bunny, "boundary", count=50_000, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "field.safetensors"
        for name, settings in (("direct, 5 s", {"seconds": 5.0}), ("bracket, 5 KB", {"bytes": 5000})):
            shape = "bracket" if "bracket" in name else bunny
            field = ff3d.fit(shape, seed=0, **settings)
            field.save(path)
            exact = test if shape is bunny else ff3d.test_points(shape, "boundary", count=50_000, seed=0)
            found[f"{name}: IoU"] = ff3d.iou(field.contains, exact)
            found[f"{name}: bytes"] = path.stat().st_size
    return found


def main(path: Path) -> None:
    """Measure, and write the file."""
    about = {"version": path.stem, "machine": machine(), "load": os.getloadavg()[0]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(about | {"figures": measure()}, indent=1) + "\n")
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
