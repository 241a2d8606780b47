"""WindingNumberOracle: the generalized winding number of a triangle mesh, closed or not, above 1/2."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ff3d.geometry.arrays import Floats, Labels, PointFloats
from ff3d.geometry.coordinates import check_points
from ff3d.geometry.cores import threads
from ff3d.geometry.surface_cells import INSIDE, UNKNOWN
from ff3d.labels.label_grid import CHUNK, CellGrid
from ff3d.labels.repair import EXACT_LIFT, SETTLED, fast_winding_number, mid_numbers, repaired

if TYPE_CHECKING:
    import trimesh

# The fast sum's accuracy setting, and how near to 1/2 its answer must be for the next one, at last the exact sum, to
# be asked. Largest errors seen on scans of 50 to 100 thousand faces: 0.21, 0.006, 0.001. Where many sheets lie close
# together they grow (25 shells: 2.3, 0.06), so the first is measured on each mesh, and left out where it is too large.
CASCADE = ((1.0, 0.35), (2.0, 0.15), (4.0, 0.02))
COARSE_ERROR = 0.25
MANY = 10_000
GRID_PAYS = 2_000_000  # points after which the cell grid has paid for itself
DOUBTED, REFUSED = 0.15, 0.4  # the share of the surface that parts nothing from which that is said, and refused

ASKED, ASKED_EXACTLY = 4096, 256  # faces, or points, when that is measured
NEARNESS = (0.001, 0.004, 0.016)  # units: how far the points lie from the surface
FAR = 1e9  # sizes from the origin: from there on float64 itself rounds by more than the grid allows for


class WindingNumberOracle:
    """The generalized winding number of a triangle mesh, closed or not, above 1/2.

    Jacobson et al. 2013, "Robust inside-outside segmentation using generalized winding numbers", by the fast sum of
    Barill et al. 2018 (libigl), first coarse, then finer where that is not sure (`CASCADE`), at last the exact sum over
    all faces; and by a look-up in the cell grid, with the same answers, once many points have been asked about.
    Faces are repaired first (`labels.repair`): `notes` says what was done, and `inside_out` if the mesh was turned.
    """

    def __init__(self, mesh: trimesh.Trimesh):
        # libigl's tree works in float32: only unit coordinates keep their digits
        self.cube, surface = repaired(mesh)
        self.notes, self.inside_out = surface.notes, surface.inside_out
        self.one_sided, self.left_out = surface.one_sided, surface.left_out
        self._vertices, self._faces, self._rim = surface.vertices, surface.faces, surface.rim
        self._open = ~surface.closed
        self._tree = fast_winding_number(self._vertices, self._faces)
        self._cascade = CASCADE if self._coarse_error() < COARSE_ERROR else CASCADE[1:]
        self._asked = 0

    def _coarse_error(self) -> float:
        """How far the coarsest sum is off near the surface, at most, on a sample."""
        points = self._near_points(ASKED)
        return float(np.abs(self._tree(points, 1.0) - self._tree(points, 2.0)).max(initial=0.0))

    def _near_points(self, count: int) -> Floats:
        """Points about the surface, unit coordinates, the same each time; none if it has no area."""
        if not self._shares.any():
            return np.zeros((0, 3))
        corners = self._vertices[self._faces]
        rng = np.random.default_rng(0)
        chosen = rng.choice(len(corners), count, p=self._shares)
        on_surface = np.einsum("nk,nkd->nd", rng.dirichlet((1.0, 1.0, 1.0), count), corners[chosen])
        widths = np.array(NEARNESS)[np.arange(count) % len(NEARNESS), None]
        points: Floats = on_surface + widths * rng.standard_normal((count, 3))
        return points

    @cached_property
    def _shares(self) -> Floats:
        """Each face's share of the area; zeros if there is none."""
        corners = self._vertices[self._faces]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        shares: Floats = area / (area.sum() or 1.0)
        return shares

    @property
    def closed(self) -> bool:
        """Whether the repaired surface has no rim, so that its winding number is whole everywhere."""
        return not len(self._rim)

    @cached_property
    def unsettled(self) -> float:
        """The share of the surface that has outside on both its sides: 0 if closed, 1 for a sheet."""
        import igl

        shares = np.where(self._open, self._shares, 0.0)
        if not (share := float(shares.sum())) > 0:
            return 0.0 if self._shares.any() else 1.0
        chosen = np.random.default_rng(0).choice(len(self._faces), ASKED, p=shares / share)
        middle = mid_numbers(self._winding_number, self._vertices, self._faces[chosen])
        if share * (middle < SETTLED).mean() > DOUBTED:  # perhaps thinner than the places are apart

            def exact(points: Floats) -> Floats:
                return igl.winding_number(self._vertices, self._faces, points)

            few = chosen[:: ASKED // ASKED_EXACTLY]
            middle = mid_numbers(exact, self._vertices, self._faces[few], lift=EXACT_LIFT)
        return share * float((middle < SETTLED).mean())

    @cached_property
    def grid(self) -> CellGrid:
        """The cell grid of the mesh, in the coordinates of `cube`; made when first asked for."""
        if not len(self._faces):
            raise ValueError("a surface without faces has no cell grid")
        # a few points decide all the others: they are asked about finely
        return CellGrid.build(
            self._vertices[self._faces], self._rim, lambda unit: self._winding_number(unit, CASCADE[1:])
        )

    @property
    def known_grid(self) -> CellGrid | None:
        """The cell grid, if enough points were asked about for it to be made."""
        return self.__dict__.get("grid")

    def winding_number(self, points: ArrayLike) -> PointFloats:
        """points (n, 3), input coordinates -> (n,): 1 inside, 0 outside, in between near holes.

        Exact where it lies within 0.02 of 1/2, right to about 0.06 within 0.1 of it; elsewhere within about 0.25.
        """
        return self._winding_number(self.cube.to_unit(check_points(points)))

    def __call__(self, points: ArrayLike) -> Labels:
        """points (n, 3), input coordinates -> (n,) bool, True inside."""
        array = np.asarray(points, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != 3:
            check_points(array)
        self._asked += len(array)
        apart = np.abs(self.cube.center).max() > FAR * self.cube.scale
        if apart or not len(self._faces) or (self.known_grid is None and self._asked < GRID_PAYS):
            return self.winding_number(array) > 0.5
        inside = np.empty(len(array), dtype=bool)
        grid, origin = self.grid, self.cube.from_unit([[0.0, 0.0, 0.0]])[0]

        def look_up(start: int) -> NDArray[np.int64]:
            """Label a chunk, while it is in the cache; which points of it the grid does not know."""
            some = array[start : start + CHUNK]
            if not np.isfinite(some).all():
                check_points(some)
            label = grid.look_up(some, origin=origin, unit=self.cube.scale)
            inside[start : start + CHUNK] = label == INSIDE
            return start + np.flatnonzero(label == UNKNOWN)

        with ThreadPoolExecutor(threads()) as pool:
            unknown = np.concatenate([np.zeros(0, dtype=np.int64), *pool.map(look_up, range(0, len(array), CHUNK))])
        inside[unknown] = self._winding_number(self.cube.to_unit(array[unknown])) > 0.5
        return inside

    def _winding_number(self, unit: Floats, cascade: tuple[tuple[float, float], ...] | None = None) -> Floats:
        """`winding_number` of unit points."""
        import igl

        if not len(unit) or not len(self._faces):
            return np.zeros(len(unit))
        # neighbours in space one after the other walk the same branches of the tree, which then stay in the cache
        asked = np.arange(len(unit))
        if len(unit) > MANY:
            asked = np.lexsort((64 * np.clip(unit, -1, 1.98).T).astype(np.int8))
        number = np.empty(len(unit))
        for accuracy, unsure in cascade or self._cascade:
            number[asked] = self._tree(unit[asked], accuracy)
            asked = asked[np.abs(number[asked] - 0.5) < unsure]
            if not len(asked):
                return number
        number[asked] = igl.winding_number(self._vertices, self._faces, unit[asked])
        return number
