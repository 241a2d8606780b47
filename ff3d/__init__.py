"""ff3d: meshes to compact neural shapes, in pipeline order.

The names are imported when they are first used, so that a machine with torch and numpy alone can train, and
`import ff3d` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ff3d.extraction import extract_mesh as extract_mesh
    from ff3d.field import OccupancyField as OccupancyField
    from ff3d.field import load_field as load_field
    from ff3d.mapping import make_mapping as make_mapping
    from ff3d.mesh import UnitCube as UnitCube
    from ff3d.mesh import inspect_mesh as inspect_mesh
    from ff3d.mesh import load_mesh as load_mesh
    from ff3d.mesh import save_mesh as save_mesh
    from ff3d.metrics import LabelledPoints as LabelledPoints
    from ff3d.metrics import iou as iou
    from ff3d.metrics import surface_distances as surface_distances
    from ff3d.occupancy import WindingNumberOracle as WindingNumberOracle
    from ff3d.occupancy import make_oracle as make_oracle
    from ff3d.plan import make_plan as make_plan
    from ff3d.pointcloud import PointCloud as PointCloud
    from ff3d.pointcloud import load_points as load_points
    from ff3d.rendering import render as render
    from ff3d.runs import Run as Run
    from ff3d.samples import sample_mesh as sample_mesh
    from ff3d.sampling import sample_near_surface as sample_near_surface
    from ff3d.sampling import sample_uniform as sample_uniform
    from ff3d.sampling import test_points as test_points
    from ff3d.shapes import SOLIDS as SOLIDS
    from ff3d.study import run_study as run_study
    from ff3d.training import fit as fit

_HOME = {
    "load_mesh": "mesh",
    "inspect_mesh": "mesh",
    "save_mesh": "mesh",
    "UnitCube": "mesh",
    "SOLIDS": "shapes",
    "sample_mesh": "samples",
    "load_points": "pointcloud",
    "PointCloud": "pointcloud",
    "make_oracle": "occupancy",
    "WindingNumberOracle": "occupancy",
    "sample_uniform": "sampling",
    "sample_near_surface": "sampling",
    "test_points": "sampling",
    "make_mapping": "mapping",
    "OccupancyField": "field",
    "load_field": "field",
    "fit": "training",
    "extract_mesh": "extraction",
    "LabelledPoints": "metrics",
    "iou": "metrics",
    "surface_distances": "metrics",
    "render": "rendering",
    "Run": "runs",
    "make_plan": "plan",
    "run_study": "study",
}
__all__ = list(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name's module at its first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'ff3d' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"ff3d.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
