"""Extract any function of points: a gyroid in a ball, written as a formula, to a closed mesh."""

import numpy as np

import ff3d


def logits(points):
    """> 0 inside: the walls of a gyroid, within a ball."""
    x, y, z = (10 * points).T
    wall = 0.4 - np.abs(np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x))
    return np.minimum(wall, 5 * (1 - np.linalg.norm(points, axis=1)))


mesh = ff3d.extract_mesh(logits, [[-1.1] * 3, [1.1] * 3], resolution=96)
assert mesh.is_watertight
print(f"{len(mesh.faces):,} faces, volume {mesh.volume:.3f}")
ff3d.save_mesh(mesh, "gyroid.stl")
