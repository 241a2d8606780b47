"""Other oracles of the same mesh: by rays, a second and a third opinion, and the winding number on a GPU."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ff3d.geometry.arrays import Floats, Labels
from ff3d.geometry.coordinates import check_points
from ff3d.geometry.cores import embree_scene
from ff3d.geometry.triangles import cross_products, unit_vectors
from ff3d.labels.repair import area_cube, repaired

if TYPE_CHECKING:
    import trimesh
    from torch import Tensor

ACCURACY = 3.0  # of the tree's sum: 2, warp's default, errs by up to 0.006
BATCH = 2**16  # points of a look-up on the CPU: what passes through the caches together
FAR = 1e6  # units: warp answers only if a face is nearer


class RayOracle:
    """How often rays from a point leave a closed mesh, less how often they enter it; several directions vote.

    Embree casts the rays (embreex). Counting which way each face looks, and not only how many there are, keeps the
    overlap of two parts inside. Independent of the winding number, and slower; a second opinion.
    Raises ValueError if the mesh, repaired as for `WindingNumberOracle`, is not closed.
    """

    STEP = 2e-6  # units past a hit, where the next ray begins: embree computes in float32
    FIRST, MORE = 3, 4  # directions; the others are queried where the first do not agree

    def __init__(self, mesh: trimesh.Trimesh, *, seed: int = 0):
        from embreex.mesh_construction import TriangleMesh

        self.cube, surface = repaired(mesh)
        if len(surface.rim) or not len(surface.faces):
            raise ValueError(
                f"rays label closed meshes only, and this one has {len(surface.rim)} open edges; "
                "use the winding number (the default)"
            )
        self.notes = surface.notes
        corners = surface.vertices[surface.faces]
        self._box = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
        self._normals = cross_products(corners)
        self._scene: Any = embree_scene()
        TriangleMesh(self._scene, surface.vertices.astype(np.float32), surface.faces.astype(np.int32))
        directions = np.random.default_rng(seed).standard_normal((self.FIRST + self.MORE, 3))
        self._directions = unit_vectors(directions)

    def __call__(self, points: ArrayLike) -> Labels:
        """points (n, 3), input coordinates -> (n,) bool, True inside."""
        unit = self.cube.to_unit(check_points(points))
        votes = np.zeros(len(unit), dtype=np.int64)
        low, high = self._box
        queried = np.flatnonzero(((unit >= low) & (unit <= high)).all(axis=1))
        for direction in self._directions[: self.FIRST]:
            votes[queried] += self._crossings(unit[queried], direction) > 0
        torn = queried[(votes[queried] > 0) & (votes[queried] < self.FIRST)]
        for direction in self._directions[self.FIRST :]:
            votes[torn] += self._crossings(unit[torn], direction) > 0
        votes[torn] = 2 * votes[torn] > self.FIRST + self.MORE
        return votes > 0

    def _crossings(self, unit: Floats, direction: Floats) -> NDArray[np.int64]:
        """How often rays from unit points go out through the surface, less how often in."""
        number = np.zeros(len(unit), dtype=np.int64)
        active, place = np.arange(len(unit)), unit.astype(np.float32)
        step = direction.astype(np.float32)
        outward = self._normals @ direction
        while len(active):
            hit = self._scene.run(place, np.broadcast_to(step, place.shape).copy(), output=1)
            face = np.asarray(hit["primID"])
            met = face >= 0
            active, face = active[met], face[met]
            number[active] += np.sign(outward[face]).astype(np.int64)
            past = np.asarray(hit["tfar"], dtype=np.float32)[met, None] + np.float32(self.STEP)
            place = (place[met] + step * past).astype(np.float32)
        return number


class Open3DOracle:
    """The parity of the surfaces that rays cross, by Open3D, `samples` directions voting: a third opinion.

    Parity holds for a closed mesh whose parts do not overlap. Raises ImportError, with what to install, where Open3D
    does not import: it needs the system's libGL and libusb.
    """

    def __init__(self, mesh: trimesh.Trimesh, *, samples: int = 5):
        try:
            import open3d
        except (ImportError, OSError) as error:
            raise ImportError(
                f"open3d does not import ({error}); pip install 'ff3d[open3d]', and on a bare Debian also "
                "apt install libgl1 libusb-1.0-0 libgomp1"
            ) from error
        self.cube = area_cube(np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64))
        self._tensor, self._samples = open3d.core.Tensor, samples
        self._scene = open3d.t.geometry.RaycastingScene()
        vertices = self.cube.to_unit(mesh.vertices).astype(np.float32)
        self._scene.add_triangles(self._tensor(vertices), self._tensor(np.asarray(mesh.faces, dtype=np.uint32)))

    def __call__(self, points: ArrayLike) -> Labels:
        """points (n, 3), input coordinates -> (n,) bool, True inside."""
        unit = np.asarray(self.cube.to_unit(check_points(points)), dtype=np.float32)
        inside: NDArray[np.bool_] = (
            self._scene.compute_occupancy(self._tensor(unit), nsamples=self._samples).numpy() > 0.5
        )
        return inside


class WarpOracle:
    """The generalized winding number above 1/2, in float32, on a CUDA device (or warp's CPU, one thread).

    The mesh is repaired as for `WindingNumberOracle`, which gives the same labels but within about 1e-6 unit of the
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
            raise ValueError("no faces are left once they are repaired: the mesh encloses nothing")
        self.notes = surface.notes
        self._mesh: Any = wp.Mesh(
            points=wp.array(surface.vertices.astype(np.float32), dtype=wp.vec3, device=self.device),
            indices=wp.array(surface.faces.astype(np.int32).ravel(), dtype=wp.int32, device=self.device),
            support_winding_number=True,  # without it, warp silently counts rays
        )

    def __call__(self, points: ArrayLike) -> Labels:
        """points (n, 3), input coordinates -> (n,) bool, True inside."""
        unit = self.cube.to_unit(check_points(points)).astype(np.float32)
        queried = self._wp.array(np.ascontiguousarray(unit), dtype=self._wp.vec3, device=self.device)
        labels: NDArray[np.bool_] = self._query(queried).numpy().astype(bool)
        return labels

    def label(self, unit_points: Tensor) -> Tensor:
        """unit_points (n, 3) float32, unit coordinates of `cube`, on this device -> (n,) bool there; no copy."""
        queried = self._wp.from_torch(unit_points.contiguous(), dtype=self._wp.vec3)
        answer: Tensor = self._wp.to_torch(self._query(queried)).bool()
        return answer

    def _query(self, points: Any) -> Any:
        answer = self._wp.zeros(len(points), dtype=self._wp.uint8, device=self.device)
        self._wp.launch(self._kernel, len(points), inputs=[self._mesh.id, points], outputs=[answer], device=self.device)
        return answer


class GridTensors:
    """A cell grid on a torch device: batches of points are labelled where they are drawn."""

    def __init__(
        self, lower: Floats, cell: float, table: NDArray[np.int32], bricks: NDArray[np.uint8], device: str | Any
    ):
        import torch

        _, ny, nz = table.shape
        self._shift = bricks.shape[1].bit_length() - 1
        self._strides = ny * nz, nz
        self._lower = torch.tensor(lower)
        self._scale = 1 / cell
        # the last cell begins one below the last index, so that a clamped point stays in it
        self._last = torch.tensor([n * bricks.shape[1] - 0.5 for n in table.shape])
        self._table = torch.tensor(table.reshape(-1), device=device)
        self._bricks = torch.tensor(bricks.reshape(-1), device=device)

    def look_up(self, points: Tensor) -> Tensor:
        """points (n, 3), unit coordinates, on this grid's device -> (n,) uint8."""
        import torch

        answer = torch.empty(len(points), dtype=torch.uint8, device=points.device)
        step = BATCH if points.device.type == "cpu" else max(1, len(points))
        # not every device has float64
        lower, last = (corner.to(points.dtype).to(points.device) for corner in (self._lower, self._last))
        shift, mask = self._shift, 2**self._shift - 1
        for start in range(0, len(points), step):
            index = points[start : start + step] - lower
            index = torch.minimum(index.mul_(self._scale).clamp_(min=0), last).int()
            x, y, z = index.unbind(1)
            stride_x, stride_y = self._strides
            brick = self._table[(x >> shift) * stride_x + (y >> shift) * stride_y + (z >> shift)]
            local = (((x & mask) << shift | (y & mask)) << shift) | (z & mask)
            answer[start : start + step] = self._bricks[(brick.long() << 3 * shift) + local]
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
