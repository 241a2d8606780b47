"""Put a shape into a few kilobytes: saved, loaded, evaluated and extracted again."""

from pathlib import Path

import numpy as np

import ff3d

mesh = ff3d.load_mesh("bracket")
field = ff3d.fit(mesh, "lattice", bytes=5_000, seed=0)
field.save("bracket.safetensors")

loaded = ff3d.load_field("bracket.safetensors")
test = ff3d.test_points(mesh, "boundary", count=20_000, seed=0)
assert np.array_equal(loaded.logits(test.points), field.logits(test.points))
print(
    f"{Path('bracket.safetensors').stat().st_size:,} bytes, IoU near the surface {ff3d.iou(loaded.contains, test):.4f}"
)
ff3d.save_mesh(loaded.extract_mesh(resolution=128), "bracket.ply")
