"""A function's surface to a file, in one call: a mesh in any format, points on it with normals, or voxels."""

from __future__ import annotations

import math
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

from ff3d.files import MARK, write_atomically
from ff3d.formats.writers import WRITERS, save_mesh
from ff3d.geometry.arrays import Floats
from ff3d.geometry.cores import available_memory
from ff3d.geometry.sampling import sample_surface
from ff3d.geometry.triangles import signed_volume, unit_vectors
from ff3d.surfaces import cleaning
from ff3d.surfaces.extraction import extract_mesh
from ff3d.surfaces.grid_levels import Guide, Logits

if TYPE_CHECKING:
    import trimesh

CHUNK = 2**18
BYTES_PER_QUERY = 100  # of a chunk
BYTES_PER_SAMPLE = 400  # of a point in an .xyz
ENDINGS = (*WRITERS, ".xyz", ".npz")


@dataclass(frozen=True)
class Export:
    """What `export_surface` wrote.

    faces: of the mesh, 0 for voxels.  volume: that it encloses, or that of the voxels inside, input units^3.
    inside: the share of the voxels that is inside; None for a mesh or points.  seconds: of the whole call.
    """

    path: Path
    faces: int
    volume: float
    inside: float | None
    seconds: float


def export_surface(
    logits: Logits,
    bounds: ArrayLike,
    path: str | Path,
    *,
    resolution: int = 256,
    method: str = "sparse",
    guide: Guide | None = None,
    refine: int = 0,
    max_memory: int | None = None,
    drop_floaters: float | None = None,
    simplify: int | None = None,
    simplify_error: float | None = None,
    smooth_normals: bool = False,
    points: int = 100_000,
    seed: int = 0,
    progress: bool = False,
) -> Export:
    """Extract the surface {logits = 0} in a box, clean it, and write it to a file by its ending.

    .ply, .obj, .stl, .glb: the closed mesh, outward, in the box's coordinates.  .xyz: `points` points on it with
    normals (`save_points`, with `seed`).  .npz: voxels (`save_voxels`), with none of the options for meshes.
    logits, bounds, resolution, method, guide, refine, max_memory, progress: as for `extract_mesh`.
    drop_floaters: drop parts of less than this share of the volume.  simplify: to about so many faces;
    simplify_error: as far as the surface moves by less than this, input units; give one of both at most.
    smooth_normals: vertex normals from the gradient of the logits, by six queries a vertex.

    Raises ValueError for another ending or options that do not go together, before anything is evaluated; else what
    `extract_mesh`, `drop_floaters`, `simplify` and `smooth_normals` raise.
    """
    begun = time.perf_counter()
    path = Path(path)
    check_ending(path)
    ending = path.suffix.lower()
    check_samples(points, max_memory if ending == ".xyz" else sys.maxsize)
    if simplify is not None and simplify_error is not None:
        raise ValueError(f"give either simplify or simplify_error, got {simplify} and {simplify_error}")
    box = np.asarray(bounds, dtype=np.float64)
    if ending == ".npz":
        if refine or smooth_normals or (drop_floaters, simplify, simplify_error) != (None, None, None):
            raise ValueError(
                f"{path}: voxels have no vertices to refine, simplify or clean; leave these out, or give .ply"
            )
        inside = save_voxels(logits, box, path, resolution=resolution, max_memory=max_memory, progress=progress)
        spacing = float((box[1] - box[0]).max()) / resolution
        volume = inside * float(np.prod(_voxels_along(box, spacing))) * spacing**3
        return Export(path, 0, volume, inside, time.perf_counter() - begun)
    mesh = extract_mesh(
        logits,
        box,
        resolution=resolution,
        method=method,
        guide=guide,
        refine=refine,
        max_memory=max_memory,
        progress=progress,
    )
    if drop_floaters is not None:
        mesh = cleaning.drop_floaters(mesh, drop_floaters)
    if simplify is not None or simplify_error is not None:
        mesh = cleaning.simplify(mesh, faces=simplify, error=simplify_error)
    if smooth_normals:
        cell = float((box[1] - box[0]).max()) / resolution
        mesh.vertex_normals = cleaning.smooth_normals(mesh, logits, cell / 2)  # type: ignore[method-assign]
    save_surface(mesh, path, points=points, seed=seed)
    return Export(path, len(mesh.faces), signed_volume(mesh), None, time.perf_counter() - begun)


def check_ending(path: Path) -> None:
    """Raise ValueError for a path of an ending that nothing is written to."""
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"{path}: cannot write {path.suffix!r}; known endings: {', '.join(ENDINGS)}")


def save_surface(mesh: trimesh.Trimesh, path: Path, *, points: int = 100_000, seed: int = 0) -> None:
    """Write a mesh by the path's ending: points on it with normals to an .xyz, else the mesh itself."""
    if path.suffix.lower() == ".xyz":
        save_points(mesh, path, count=points, seed=seed)
    else:
        save_mesh(mesh, path)


def save_points(mesh: trimesh.Trimesh, path: str | Path, *, count: int = 100_000, seed: int = 0) -> None:
    """Write `count` points of the surface, uniform by area, to a text file: x y z nx ny nz, input coordinates.

    Normals are the vertices', interpolated, of length 1. `ff3d.load_points` reads the file back.
    Raises ValueError if the mesh has no area, or count is not positive.
    """
    check_samples(count, None)
    points, face = sample_surface(mesh, count, np.random.default_rng(seed))
    corners, normals = mesh.vertices[mesh.faces[face]], mesh.vertex_normals[mesh.faces[face]]
    share = _barycentric(points, corners)
    blended = np.einsum("nk,nkd->nd", share, normals)
    blended = np.where(blended.any(axis=1, keepdims=True), unit_vectors(blended), mesh.face_normals[face])
    with write_atomically(path) as temporary:
        np.savetxt(temporary, np.concatenate([points, blended], axis=1), fmt=["%.12g"] * 3 + ["%.6f"] * 3)


def save_voxels(
    logits: Logits,
    bounds: ArrayLike,
    path: str | Path,
    *,
    resolution: int = 256,
    max_memory: int | None = None,
    progress: bool = False,
) -> float:
    """Write a box's voxels to a .npz; return the share that is inside.

    logits: points (n, 3) -> (n,), > 0 inside.  bounds: (2, 3), the box.  resolution: voxels along its longest side;
    they are cubes, and cover the box, centred on it.  max_memory: bytes, by default what is available.
    The file has `occupancy` (nx, ny, nz) bool, whether each voxel's centre is inside, `origin` (3,), the lowest
    corner of the grid, and `spacing`, the side of a voxel: centre (i, j, k) is origin + spacing * (i + .5, ...).
    Raises ValueError for an unusable box or resolution, MemoryError before the work if the voxels do not fit.
    """
    low, high = np.asarray(bounds, dtype=np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()) or resolution < 1:
        box = [low.tolist(), high.tolist()]
        raise ValueError(f"expected a box (2, 3) that is not flat and a resolution from 1, got {box}, {resolution}")
    spacing = float((high - low).max()) / resolution
    shape = check_voxels(np.stack([low, high]), resolution, max_memory)
    origin = (low + high) / 2 - shape * spacing / 2
    occupancy = np.zeros(shape, dtype=bool)
    flat = occupancy.reshape(-1)
    with tqdm(total=flat.size, desc="voxels", unit=" points", unit_scale=True, disable=not progress) as bar:
        for start in range(0, flat.size, CHUNK):
            voxels = np.arange(start, min(start + CHUNK, flat.size))
            index = np.stack(np.unravel_index(voxels, occupancy.shape), axis=1)
            flat[voxels] = logits(origin + (index + 0.5) * spacing) > 0
            bar.update(len(voxels))
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, occupancy=occupancy, origin=origin, spacing=np.array(spacing))
        file.flush()
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.comment = MARK
    return float(occupancy.mean())


def check_voxels(box: Floats, resolution: int, max_memory: int | None) -> NDArray[np.int64]:
    """The voxels along each side of a box (2, 3). Raises MemoryError if they need more than so many bytes."""
    shape = _voxels_along(box, float((box[1] - box[0]).max()) / resolution)
    chunk = BYTES_PER_QUERY * CHUNK
    needed, available = math.prod(shape.tolist()), available_memory() if max_memory is None else max_memory
    if needed + chunk > available:
        fits = int(resolution * (max(0, available - chunk) / needed) ** (1 / 3))
        raise MemoryError(
            f"{needed:,} voxels need {(needed + chunk) / 1e9:.3g} GB, {available / 1e9:.3g} GB are available; "
            + (f"a resolution of {fits} fits" if fits else "no resolution fits")
        )
    return shape


def check_samples(points: int, max_memory: int | None) -> None:
    """Raise ValueError for less than one point in an .xyz, MemoryError for more than fit in so many bytes."""
    if points < 1:
        raise ValueError(f"points must be at least 1, got {points}")
    needed, available = BYTES_PER_SAMPLE * points, available_memory() if max_memory is None else max_memory
    if needed > available:
        raise MemoryError(
            f"{points:,} points need {needed / 1e9:.3g} GB, {available / 1e9:.3g} GB are available; "
            f"{available // BYTES_PER_SAMPLE:,} fit"
        )


def _voxels_along(box: Floats, spacing: float) -> NDArray[np.int64]:
    """How many voxels of a side cover each side of a box (2, 3): (3,)."""
    return np.maximum(1, np.ceil((box[1] - box[0]) / spacing - 1e-9)).astype(np.int64)


def _barycentric(points: Floats, corners: Floats) -> Floats:
    """Barycentric coordinates (n, 3) of points (n, 3), each on a triangle (n, 3, 3); a third each on flat ones."""
    one, other, offset = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], points - corners[:, 0]
    a, b, c = (np.einsum("ij,ij->i", *pair) for pair in ((one, one), (one, other), (other, other)))
    d, e = (np.einsum("ij,ij->i", offset, edge) for edge in (one, other))
    determinant = a * c - b * b
    with np.errstate(invalid="ignore", divide="ignore"):
        second, third = (c * d - b * e) / determinant, (a * e - b * d) / determinant
    shares = np.stack([1 - second - third, second, third], axis=1)
    return np.where(np.isfinite(shares).all(axis=1, keepdims=True), shares, 1 / 3)
