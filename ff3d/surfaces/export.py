"""What leaves ff3d besides meshes: points of a surface with normals, and voxels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from ff3d.files import write_whole
from ff3d.geometry.arrays import Floats
from ff3d.geometry.sampling import sample_surface
from ff3d.geometry.triangles import unit_vectors

if TYPE_CHECKING:
    import trimesh

CHUNK = 2**18


def save_points(mesh: trimesh.Trimesh, path: str | Path, *, count: int = 100_000, seed: int = 0) -> None:
    """Write `count` points of the surface, uniform by area, to a text file: x y z nx ny nz, input coordinates.

    Normals are the vertices', interpolated, of length 1. `ff3d.load_points` reads the file back.
    Raises ValueError if the mesh has no area, or count is not positive.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1 point, got {count}")
    points, face = sample_surface(mesh, count, np.random.default_rng(seed))
    corners, normals = mesh.vertices[mesh.faces[face]], mesh.vertex_normals[mesh.faces[face]]
    share = _barycentric(points, corners)
    blended = np.einsum("nk,nkd->nd", share, normals)
    blended = np.where(blended.any(axis=1, keepdims=True), unit_vectors(blended), mesh.face_normals[face])
    with write_whole(path) as temporary:
        np.savetxt(temporary, np.concatenate([points, blended], axis=1), fmt=["%.12g"] * 3 + ["%.6f"] * 3)


def save_voxels(
    logits: Callable[[Floats], NDArray[np.floating]],
    bounds: ArrayLike,
    path: str | Path,
    *,
    resolution: int = 256,
    progress: bool = False,
) -> float:
    """Write a box's voxels to a .npz; return the share that is inside.

    logits: points (n, 3) -> (n,), > 0 inside.  bounds: (2, 3), the box.  resolution: voxels along its longest side;
    they are cubes, and cover the box, centred on it.
    The file holds `occupancy` (nx, ny, nz) bool, whether each voxel's centre is inside, `origin` (3,), the lowest
    corner of the grid, and `spacing`, the side of a voxel: centre (i, j, k) is origin + spacing * (i + .5, ...).
    Raises ValueError for a box or a resolution that is no such thing.
    """
    low, high = np.asarray(bounds, dtype=np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()) or resolution < 1:
        box = [low.tolist(), high.tolist()]
        raise ValueError(f"expected a box (2, 3) that is not flat and a resolution from 1, got {box}, {resolution}")
    spacing = float((high - low).max()) / resolution
    shape = np.maximum(1, np.ceil((high - low) / spacing - 1e-9)).astype(int)
    origin = (low + high) / 2 - shape * spacing / 2
    occupancy = np.zeros(shape, dtype=bool)
    flat = occupancy.reshape(-1)
    with tqdm(total=flat.size, desc="voxels", unit=" points", unit_scale=True, disable=not progress) as bar:
        for start in range(0, flat.size, CHUNK):
            place = np.arange(start, min(start + CHUNK, flat.size))
            index = np.stack(np.unravel_index(place, occupancy.shape), axis=1)
            flat[place] = logits(origin + (index + 0.5) * spacing) > 0
            bar.update(len(place))
    with write_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, occupancy=occupancy, origin=origin, spacing=np.array(spacing))
    return float(occupancy.mean())


def _barycentric(points: Floats, corners: Floats) -> Floats:
    """The shares (n, 3) of triangles' corners (n, 3, 3) in points on them."""
    one, other, to = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], points - corners[:, 0]
    a, b, c = (np.einsum("ij,ij->i", *pair) for pair in ((one, one), (one, other), (other, other)))
    d, e = (np.einsum("ij,ij->i", to, it) for it in (one, other))
    determinant = a * c - b * b
    with np.errstate(invalid="ignore", divide="ignore"):
        second, third = (c * d - b * e) / determinant, (a * e - b * d) / determinant
    shares = np.stack([1 - second - third, second, third], axis=1)
    return np.where(np.isfinite(shares).all(axis=1, keepdims=True), shares, 1 / 3)
