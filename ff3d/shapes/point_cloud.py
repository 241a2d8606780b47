"""Oriented point clouds: read them, estimate their normals, and ask what lies inside.

A cloud becomes surfels: one small triangle for each point, in its tangent plane and as large as the area that the
point stands for. The winding number of Barill et al. 2018, "Fast winding numbers for soups and clouds", summed over
surfels is that of their point dipoles from afar, and near a point it has no pole: no surfel adds more than
1/2. libigl's tree of triangles is also built some ten times as fast as its octree of dipoles.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ff3d.files import home_path
from ff3d.formats import POINT_READERS, READERS
from ff3d.formats.text import MeshError, reading
from ff3d.geometry.arrays import Floats
from ff3d.geometry.coordinates import box_in_words, centered, check_points
from ff3d.geometry.triangles import merge_exactly, unit_vectors
from ff3d.shapes.mesh import build_mesh, load_mesh
from ff3d.shapes.sources import find_shape

if TYPE_CHECKING:
    import trimesh

logger = logging.getLogger(__name__)

FEWEST = 10  # points of a cloud


@dataclass(frozen=True)
class PointCloud:
    """points (n, 3) float64, input coordinates; normals (n, 3) float64 of unit length, outward, or None.

    Normals are made unit. Raises ValueError for other shapes, and for numbers that are not finite or normals of zero.
    """

    points: Floats
    normals: Floats | None = None

    def __post_init__(self) -> None:
        points = check_points(self.points)
        object.__setattr__(self, "points", points)
        if self.normals is None:
            return
        normals = check_points(self.normals)
        if normals.shape != points.shape:
            raise ValueError(f"normals must have the shape of the points, {points.shape}, got {normals.shape}")
        if not normals.any(axis=1).all():
            raise ValueError(f"normals must not be zero, got {(~normals.any(axis=1)).sum()}; pass None instead")
        object.__setattr__(self, "normals", unit_vectors(normals))

    @property
    def vertices(self) -> Floats:
        """The points: a cloud can stand where a mesh is queried for its extent."""
        return self.points


# ---------------------------------------------------------------------------------------------- load


def load_points(path: str | Path) -> PointCloud:
    """Load a point cloud: text (.xyz .txt .pts .asc .csv), PCD, PLY, OBJ, OFF, .npy, .npz of points and normals.

    Text and .npy hold x y z and any other columns: three of unit length behind them, or named nx ny nz in a header
    line, are normals; colours and the like are left out, and a logged line says so. docs/formats.md has the dialects.
    Points come in the file's order; of exact duplicates the first stays, and a logged line says how many went.
    Normals with a zero or NaN among them are dropped altogether, with a warning.
    Raises MeshError if the file is missing, of an unknown ending, damaged or cut short; if it holds under 10
    distinct points, a coordinate that is not finite, or points all in one plane, on one line or in one place.
    """
    file = home_path(path)
    ending = file.suffix.lower()
    if not file.is_file():
        raise MeshError(f"{file}: {'is a folder' if file.is_dir() else 'no such file'}; give a point cloud's path")
    if ending not in POINT_READERS:
        raise MeshError(f"{file}: unknown ending {ending!r}; ff3d reads points from {', '.join(POINT_READERS)}")
    with reading(file):
        return _clean(*POINT_READERS[ending](file), file)


def load_shape(path: str | Path) -> trimesh.Trimesh | PointCloud:
    """The mesh or the point cloud in a file: a PLY, OBJ or OFF without faces is a cloud, as are text, PCD, .npy, .npz.

    Otherwise as `load_mesh` and `load_points`.
    """
    file = home_path(path)
    if not file.is_file():
        file = find_shape(path)
    ending = file.suffix.lower()
    if ending not in READERS:
        return load_points(file) if ending in POINT_READERS else load_mesh(file)
    with reading(file):
        vertices, corners, lengths = READERS[ending](file)
        if len(corners) or ending not in POINT_READERS:
            return build_mesh((vertices, corners, lengths), file)
    return load_points(file)


@dataclass(frozen=True)
class CloudReport:
    """What `inspect_points` found. bounds: lowest and highest corner of the box, input units."""

    points: int
    normals: bool
    spacing: float  # the median distance of a point to its nearest, input units
    bounds: tuple[tuple[float, ...], tuple[float, ...]]

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.points:,} points {'with' if self.normals else 'without'} normals, a point cloud",
                f"box     {box_in_words(*self.bounds)}",
                f"spacing {self.spacing:.4g} between neighbours",
            ]
        )


def inspect_points(cloud: PointCloud) -> CloudReport:
    """What a point cloud is made of."""
    from scipy.spatial import cKDTree

    points = cloud.points
    some = points[np.unique(np.linspace(0, len(points) - 1, 10_000).astype(np.int64))]
    spacing = float(np.median(cKDTree(points).query(some, 2)[0][:, 1]))
    bounds = tuple(points.min(axis=0).tolist()), tuple(points.max(axis=0).tolist())
    return CloudReport(len(points), cloud.normals is not None, spacing, bounds)


def _clean(points: Floats, normals: Floats | None, file: Path) -> PointCloud:
    """The cloud without its duplicates; MeshError for the faults that `load_points` lists."""
    if not len(points):
        raise MeshError("it holds no points; export or download it again")
    broken = int((~np.isfinite(points)).any(axis=1).sum())
    if broken:
        raise MeshError(f"{broken} of its {len(points)} points are not finite (NaN or infinity); remove them")
    kept = np.sort(merge_exactly(points)[0])
    if len(kept) < len(points):
        logger.info("%s: %d of %d points are exact duplicates: dropped", file, len(points) - len(kept), len(points))
    points, normals = points[kept], None if normals is None else normals[kept]
    extent = float((points.max(axis=0) / 2 - points.min(axis=0) / 2).max())
    if extent == 0:
        raise MeshError("all its points lie in one place; export it again, or with more digits")
    if extent > 1e100:
        raise MeshError(f"it spans {2 * extent:.3g} units, whose volume float64 cannot hold; scale it down")
    if len(points) < FEWEST:
        raise MeshError(f"{len(points)} distinct points are too few, at least {FEWEST} are needed; scan more densely")
    spread = np.linalg.eigvalsh(np.cov(centered(points).T))
    if spread[0] <= 1e-14 * spread[2]:
        raise MeshError("all its points lie in one plane or on one line, which encloses nothing; give a whole scan")
    if normals is not None:
        useless = int((~(np.isfinite(normals).all(axis=1) & normals.any(axis=1))).sum())
        if useless:
            logger.warning("%s: %d normals are zero or not finite: all are dropped, to be estimated", file, useless)
            normals = None
    return PointCloud(points, normals)
