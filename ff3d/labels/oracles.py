"""Oracles: is this point inside? An oracle is any callable from points (n, 3) to bool (n,), input coordinates."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Floats
from ff3d.labels.rays import Open3DOracle, RayOracle
from ff3d.labels.winding_number import DOUBTED, REFUSED, WindingNumberOracle

if TYPE_CHECKING:
    import trimesh

    from ff3d.shapes.point_cloud import PointCloud
    from ff3d.shapes.solids import Solid

log = logging.getLogger("ff3d")


Oracle = Callable[[Floats], NDArray[np.bool_]]


class OpenSurfaceError(ValueError):
    """A shape that encloses nothing, so that no point of space is inside or outside of it."""


def make_oracle(shape: trimesh.Trimesh | PointCloud | Solid, kind: str = "auto") -> Oracle:
    """The oracle of a shape: what `auto` picks, or one of `ORACLES` by name, for a mesh.

    A mesh is asked by its winding number, a point cloud by that of its oriented points, a solid by its formula.
    What had to be put right is logged.
    Raises OpenSurfaceError for a sheet, which has no inside; ValueError for an unknown kind, or rays on a mesh that
    is not closed.
    """
    from ff3d.labels.surfels import PointCloudOracle
    from ff3d.shapes.point_cloud import PointCloud
    from ff3d.shapes.solids import Solid

    if kind not in ("auto", *ORACLES):
        raise ValueError(f"unknown oracle {kind!r}; known: auto, {', '.join(ORACLES)}")
    if isinstance(shape, Solid):
        return shape.contains
    if isinstance(shape, PointCloud) and kind != "auto":
        raise ValueError(f"a point cloud is asked by its own winding number, not by {kind!r}; leave the oracle to auto")
    oracle: Any = (
        PointCloudOracle(shape) if isinstance(shape, PointCloud) else ORACLES.get(kind, WindingNumberOracle)(shape)
    )
    for note in getattr(oracle, "notes", ()):
        log.info("%s", note)
    settled: Any = oracle if hasattr(oracle, "unsettled") else WindingNumberOracle(shape)  # type: ignore[arg-type]
    share = settled.unsettled
    if share > REFUSED:
        raise OpenSurfaceError(
            f"an open surface that encloses nothing: on {share:.0%} of its area both sides are outside; ff3d labels "
            "solids, scans with holes and oriented point clouds; thicken a sheet, or close it, first"
        )
    if share > DOUBTED:
        log.warning("labels mean little on %.0f%% of the surface: both its sides are outside there", 100 * share)
    return oracle


def load_surface(path: str | Path) -> tuple[trimesh.Trimesh, Oracle]:
    """The surface in a mesh or point cloud file, to draw points on, and its oracle.

    The surface of a cloud is a small triangle for each of its points. Raises as `load_shape` and `make_oracle` do.
    """
    from ff3d.labels.surfels import PointCloudOracle
    from ff3d.shapes.point_cloud import PointCloud, load_shape

    shape = load_shape(path)
    oracle = make_oracle(shape)
    if isinstance(shape, PointCloud):
        assert isinstance(oracle, PointCloudOracle)
        return oracle.surface, oracle
    return shape, oracle


def _warp_oracle(mesh: trimesh.Trimesh) -> Oracle:
    from ff3d.labels.warp import WarpOracle

    return WarpOracle(mesh)


ORACLES: dict[str, Callable[[Any], Oracle]] = {
    "winding": WindingNumberOracle,
    "rays": RayOracle,
    "open3d": Open3DOracle,
    "warp": _warp_oracle,
}
