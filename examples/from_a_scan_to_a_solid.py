"""From a scan to a solid: points with normals, some noise, a closed mesh."""

import numpy as np

import ff3d

bunny = ff3d.load_mesh("bunny")
rng = np.random.default_rng(0)
rows = rng.choice(len(bunny.vertices), 5_000, replace=False)
points = bunny.vertices[rows] + 0.001 * rng.standard_normal((5_000, 3))
scan = ff3d.PointCloud(points, bunny.vertex_normals[rows])  # ff3d.load_points reads .xyz, .pcd, .ply, .npy

solid = ff3d.watertight(scan, resolution=64)
assert solid.is_watertight
print(f"volume {solid.volume:.4f}; the mesh's own {bunny.volume:.4f}")
ff3d.save_mesh(solid, "solid.ply")
