"""Oracles: is this point inside? An oracle is any callable from points (n, 3) to bool (n,), input coordinates."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray

from ff3d.files import file_sha256
from ff3d.geometry.arrays import Floats
from ff3d.labels.second_oracles import Open3DOracle, RayOracle, WarpOracle
from ff3d.labels.winding_number import DOUBTED, REFUSED, WindingNumberOracle

if TYPE_CHECKING:
    import trimesh

    from ff3d.labels.surfels import PointCloudOracle
    from ff3d.shapes.point_cloud import PointCloud
    from ff3d.shapes.solids import Solid

log = logging.getLogger("ff3d")

ONE_SIDED = 0.5  # the share of the area that makes a surface a one-sided one
LEFT_OUT = 0.05  # the share of the area from which sheets beside the solids are warned of
RESOLUTION = 160  # cells along the longest side of a solid that is meshed to draw points on


Oracle = Callable[[Floats], NDArray[np.bool_]]


class OpenSurfaceError(ValueError):
    """A shape that encloses nothing, so that no point of space is inside or outside of it."""


@dataclass(frozen=True)
class LabelledShape:
    """A shape that is ready to be labelled, measured or fitted to.

    mesh: what counts as surface, to draw points on and to take the box from: of a point cloud, a small triangle for
    each of its points; of a solid, a mesh of it.  oracle: points (n, 3) -> bool (n,), input coordinates.
    name: the file's, without folders, or what kind of shape came from memory.  sha256: the file's, None for a shape
    from memory.  notes: what was repaired, estimated or left out, a line each.  shape: as it was loaded or given.
    """

    mesh: trimesh.Trimesh
    oracle: Oracle
    name: str
    sha256: str | None
    notes: tuple[str, ...]
    shape: trimesh.Trimesh | PointCloud | Solid

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return Path(self.name).stem


Shape = Union["str", Path, "trimesh.Trimesh", "PointCloud", "Solid", LabelledShape]


def load_surface(shape: Shape, kind: str = "auto", *, inspecting: bool = False) -> LabelledShape:
    """The surface and the oracle of a shape: the one way from a path, a name or a shape in memory to labels.

    shape: a mesh or point cloud file, a name that `find_shape` knows (a sample, "dragon", "thingi10k:32770"), a
    Trimesh, a PointCloud or a Solid; a LabelledShape is returned as it is.  kind: as of `make_oracle`.
    inspecting: a shape that encloses nothing is not refused, and the notes are not logged.
    What counts as surface is said in `labels.counted_surface`: far strays and sheets at the edge of the box are left
    out of labels and box, each with a note and a warning; faces without area do not set the box.
    Raises as `find_shape`, `load_shape` and `make_oracle` do.
    """
    from ff3d.labels.counted_surface import abridged, cloud_without_strays, with_area, without_sheets, without_strays
    from ff3d.labels.surfels import PointCloudOracle
    from ff3d.shapes.point_cloud import PointCloud
    from ff3d.shapes.solids import Solid

    if isinstance(shape, LabelledShape):
        return shape
    if kind not in ("auto", *ORACLES):
        raise ValueError(f"unknown oracle {kind!r}; known: auto, {', '.join(ORACLES)}")
    if isinstance(shape, str | Path):
        return load_timed(shape, kind, inspecting=inspecting)[0]
    if isinstance(shape, Solid):
        return LabelledShape(_mesh_of(shape), shape.contains, shape.name, None, (), shape)
    if isinstance(shape, PointCloud):
        if kind != "auto":
            raise ValueError(
                f"a point cloud is queried by its own winding number, not by {kind!r}; leave the oracle to auto"
            )
        cloud, strays = cloud_without_strays(shape)
        for note in () if inspecting else strays:
            log.warning("%s", note)
        points = PointCloudOracle(cloud)
        _check_settled(points, refuse=not inspecting)
        return LabelledShape(points.surface, points, "cloud", None, (*strays, *points.notes), shape)
    mesh, strays = without_strays(shape)
    judge = WindingNumberOracle(mesh)
    sheets: tuple[str, ...] = ()
    while True:  # in the smaller box of what is left, the next ones are seen more closely
        mesh, found = without_sheets(mesh, judge)
        if not found:
            break
        judge, sheets = WindingNumberOracle(mesh), (*sheets, *found)
    sheets = abridged(sheets)
    oracle: Any = judge if kind in ("auto", "winding") else ORACLES[kind](mesh)
    for note in () if inspecting else (*strays, *sheets):
        log.warning("%s", note)
    repairs = tuple(getattr(oracle, "notes", ()))
    for note in () if inspecting else repairs:
        log.info("%s", note)
    _check_settled(judge, refuse=not inspecting)
    return LabelledShape(with_area(mesh), oracle, "mesh", None, (*strays, *sheets, *repairs), shape)


def load_timed(name: str | Path, kind: str = "auto", *, inspecting: bool = False) -> tuple[LabelledShape, float]:
    """The surface of a file or a name, as of `load_surface`, and the seconds that it took once the file was read."""
    from ff3d.shapes.point_cloud import load_shape
    from ff3d.shapes.sources import find_shape

    path = find_shape(name)
    sha256, shape = file_sha256(path), load_shape(path)
    begun = time.perf_counter()
    surface = load_surface(shape, kind, inspecting=inspecting)
    return replace(surface, name=path.name, sha256=sha256), time.perf_counter() - begun


def in_memory(shape: Shape) -> Shape:
    """The shape of a path or a name, read; any other as it is."""
    from ff3d.shapes.point_cloud import load_shape
    from ff3d.shapes.sources import find_shape

    return load_shape(find_shape(shape)) if isinstance(shape, str | Path) else shape


def is_cloud(shape: Shape, oracle: Oracle | None = None) -> bool:
    """Whether a shape in memory, or what labels it, has points alone, between which there are no distances."""
    from ff3d.labels.surfels import PointCloudOracle
    from ff3d.shapes.point_cloud import PointCloud

    given = shape.shape if isinstance(shape, LabelledShape) else shape
    return isinstance(given, PointCloud) or isinstance(oracle, PointCloudOracle)


def make_oracle(shape: Shape, kind: str = "auto") -> Oracle:
    """The oracle of a shape: what `auto` picks, or one of `ORACLES` by name, for a mesh.

    A mesh is queried by its winding number, a point cloud by that of its oriented points, a solid by its formula.
    What encloses nothing and lies far from the rest, or sets the box, is left out; this, and what had to be repaired,
    is logged: it is the oracle of `load_surface`.
    Raises OpenSurfaceError for a sheet or a one-sided surface, which have no inside; ValueError for an unknown kind, or
    rays on a mesh that is not closed.
    """
    from ff3d.shapes.solids import Solid

    if isinstance(shape, Solid) and kind in ("auto", *ORACLES):
        return shape.contains
    return load_surface(shape, kind).oracle


def surface_and_oracle(shape: Shape, oracle: Oracle | None = None) -> tuple[trimesh.Trimesh, Oracle]:
    """What of a shape counts as surface, and the given oracle, by default the shape's own; otherwise as `load_surface`.

    With an oracle given, a mesh need not be one that ff3d can label.
    """
    import trimesh

    from ff3d.labels.counted_surface import with_area, without_strays

    shape = in_memory(shape)
    if oracle is not None and isinstance(shape, trimesh.Trimesh):
        return with_area(without_strays(shape)[0]), oracle
    surface = load_surface(shape)
    return surface.mesh, oracle or surface.oracle


def _check_settled(oracle: WindingNumberOracle | PointCloudOracle, *, refuse: bool) -> None:
    """Raise OpenSurfaceError, or warn, if both sides are outside on a large share of a surface."""
    share, one_sided = oracle.unsettled, getattr(oracle, "one_sided", 0.0)
    if refuse and share > REFUSED and one_sided > ONE_SIDED:
        raise OpenSurfaceError(
            f"a one-sided surface, like a Moebius strip or a Klein bottle: {one_sided:.0%} of its area can be wound "
            "neither way, so that nothing is inside; ff3d labels solids, scans with holes and oriented point clouds"
        )
    if refuse and share > REFUSED:
        raise OpenSurfaceError(
            f"an open surface that encloses nothing: on {share:.0%} of its area both sides are outside; ff3d labels "
            "solids, scans with holes and oriented point clouds; thicken a sheet, or close it, first"
        )
    if DOUBTED < share <= REFUSED:
        log.warning("labels mean little on %.0f%% of the surface: both its sides are outside there", 100 * share)
    if refuse and (left_out := getattr(oracle, "left_out", 0.0)) > LEFT_OUT:
        log.warning("%.0f%% of the surface are sheets that enclose nothing: labels are of the rest", 100 * left_out)


def _mesh_of(solid: Solid) -> trimesh.Trimesh:
    """A solid's surface, by marching cubes of its formula."""
    from ff3d.surfaces.extraction import extract_mesh

    return extract_mesh(solid.values, solid.bounds, resolution=RESOLUTION, refine=2)


ORACLES: dict[str, Callable[[Any], Oracle]] = {
    "winding": WindingNumberOracle,
    "rays": RayOracle,
    "open3d": Open3DOracle,
    "warp": WarpOracle,
}
