"""Make training data: labelled points and signed distances of two meshes, as other projects read them."""

import numpy as np

import ff3d

rng = np.random.default_rng(0)
for name in ("bracket", "knot"):
    mesh = ff3d.load_mesh(name)
    inside = ff3d.make_oracle(mesh)  # points (n, 3) -> (n,) bool, for broken meshes too
    low, high = mesh.bounds
    uniform = ff3d.sample_uniform([low - 0.05, high + 0.05], 10_000, rng)
    near = ff3d.sample_near_surface(mesh, 10_000, std=0.01, rng=rng)
    points = np.concatenate([uniform, near]).astype(np.float32)
    labels = inside(points)
    np.savez(f"{name}.npz", points=points, occupancies=np.packbits(labels))
    print(f"{name}: {labels.mean():.1%} of {len(points):,} points are inside")

data = np.load("knot.npz")
assert np.unpackbits(data["occupancies"], count=len(data["points"])).astype(bool).tolist() == labels.tolist()
