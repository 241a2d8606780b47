"""Labels on a GPU, by NVIDIA's warp (an extra): the winding number of a mesh, of points that lie there already."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ff3d.geometry.arrays import Labels
from ff3d.geometry.coordinates import check_points
from ff3d.labels.repair import repaired

if TYPE_CHECKING:
    import trimesh
    from torch import Tensor

ACCURACY = 3.0  # of the tree's sum: 2, warp's default, errs by up to 0.006
FAR = 1e6  # units: warp answers only if a face is nearer


class WarpOracle:
    """The generalized winding number above 1/2, in float32, on a CUDA device (or warp's CPU, one thread).

    The mesh is put right as for `WindingNumberOracle`, which gives the same labels but within about 1e-6 unit of the
    surface and where the winding number is within 0.01 of 1/2.
    Raises ImportError, with what to install, where there is no warp; ValueError for a device that is not there.
    """

    def __init__(self, mesh: trimesh.Trimesh, *, device: str = "auto"):
        wp, self._kernel = _warp()
        if device == "auto":
            device = "cuda:0" if wp.is_cuda_available() else "cpu"
        try:
            self.device: Any = wp.get_device(device)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"device {device!r} cannot be used here ({error}); try cpu") from error
        self._wp, (self.cube, surface) = wp, repaired(mesh)
        if not len(surface.faces):
            raise ValueError("no faces are left once they are put right: the mesh encloses nothing")
        self.notes = surface.notes
        self._mesh: Any = wp.Mesh(
            points=wp.array(surface.vertices.astype(np.float32), dtype=wp.vec3, device=self.device),
            indices=wp.array(surface.faces.astype(np.int32).ravel(), dtype=wp.int32, device=self.device),
            support_winding_number=True,  # without it, warp silently counts rays
        )

    def __call__(self, points: ArrayLike) -> Labels:
        """points (n, 3), input coordinates -> (n,) bool, True inside."""
        unit = self.cube.to_unit(check_points(points)).astype(np.float32)
        asked = self._wp.array(np.ascontiguousarray(unit), dtype=self._wp.vec3, device=self.device)
        labels: NDArray[np.bool_] = self._ask(asked).numpy().astype(bool)
        return labels

    def label(self, unit_points: Tensor) -> Tensor:
        """unit_points (n, 3) float32, unit coordinates of `cube`, on this device -> (n,) bool there; no copy."""
        asked = self._wp.from_torch(unit_points.contiguous(), dtype=self._wp.vec3)
        answer: Tensor = self._wp.to_torch(self._ask(asked)).bool()
        return answer

    def _ask(self, points: Any) -> Any:
        answer = self._wp.zeros(len(points), dtype=self._wp.uint8, device=self.device)
        self._wp.launch(self._kernel, len(points), inputs=[self._mesh.id, points], outputs=[answer], device=self.device)
        return answer


@cache
def _warp() -> tuple[Any, Any]:
    """Warp, quiet, and the kernel, compiled at its first launch."""
    try:
        wp: Any = importlib.import_module("warp")
    except ImportError as error:
        raise ImportError("labels on a GPU need warp: pip install 'ff3d[gpu]'") from error
    wp.config.quiet = True
    wp.init()

    def label(mesh: Any, points: Any, inside: Any) -> None:
        i = wp.tid()
        found = wp.mesh_query_point_sign_winding_number(mesh, points[i], FAR, ACCURACY, 0.5)
        if found.sign < 0.0:
            inside[i] = wp.uint8(1)

    # strings, as this file's annotations are, would be looked up outside this function
    label.__annotations__ = {
        "mesh": wp.uint64,
        "points": wp.array(dtype=wp.vec3),
        "inside": wp.array(dtype=wp.uint8),
    }
    return wp, wp.Kernel(func=label, key="ff3d_label")
