"""WindingNumberOracle: the generalized winding number of a triangle mesh, closed or not, above 1/2."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ff3d.geometry.arrays import Corners, Floats, Ints, Labels, PointFloats
from ff3d.geometry.coordinates import MANY, check_points, order_in_space
from ff3d.geometry.cores import threads
from ff3d.geometry.surface_cells import INSIDE, UNKNOWN
from ff3d.geometry.triangles import areas, by_batches, closing_triangles, loose
from ff3d.labels.label_grid import CHUNK, PAIRS, Caps, CellGrid
from ff3d.labels.repair import EXACT_LIFT, SETTLED, fast_winding_number, mid_numbers, repaired

if TYPE_CHECKING:
    import trimesh

# The fast sum's accuracy setting, and how near to 1/2 its answer must be for the next one, at last the exact sum, to
# be used. Largest errors seen on scans of 50 to 100 thousand faces: 0.21, 0.006, 0.001. Where many sheets lie close
# together they grow (25 shells: 2.3, 0.06), so the first is measured on each mesh, and left out where it is too large.
CASCADE = ((1.0, 0.35), (2.0, 0.15), (4.0, 0.02))
COARSE_ERROR = 0.25
OF_CAPS = (*CASCADE[1:], (8.0, 0.004))  # the same for the caps that close a surface
ROUNDING = 1e-9  # of winding numbers that are exact but for that
LATE = 2  # times the points for which the grid pays: where they came in several calls, for few may be to come
DOUBTED, REFUSED = 0.15, 0.4  # the share of the surface that parts nothing from which that is said, and refused

SAMPLES, EXACT_SAMPLES = 4096, 256  # faces, or points near the surface, on which that and the coarse error are measured
NEARNESS = (0.001, 0.004, 0.016)  # units: how far the points lie from the surface
COUNTED, NEIGHBOURS = 2**14, 32  # faces, and points, for which it is counted which are near each other
FACE = 0.03  # microseconds of a processor for a face in a sum
FAR = 1e9  # sizes from the origin: from there on float64 itself rounds by more than the grid allows for


class WindingNumberOracle:
    """The generalized winding number of a triangle mesh, closed or not, above 1/2.

    Jacobson et al. 2013, "Robust inside-outside segmentation using generalized winding numbers", by the fast sum of
    Barill et al. 2018 (libigl), first coarse, then finer where that is not sure (`CASCADE`), at last the exact sum over
    all faces; and once so many points have been queried that it pays, by look-up in a cell grid, with the same labels.
    Faces are repaired first (`labels.repair`): `notes` says what was done, and `inside_out` if the mesh was turned.
    solid: whether no face was left out, every edge is of two, and every part encloses a volume by itself.
    """

    def __init__(self, mesh: trimesh.Trimesh):
        # libigl's tree works in float32: only unit coordinates keep their digits
        self.cube, surface = repaired(mesh)
        self.notes, self.inside_out = surface.notes, surface.inside_out
        self.one_sided, self.left_out = surface.one_sided, surface.left_out
        self._vertices, self._faces, self._rim = surface.vertices, surface.faces, surface.rim
        self._open = ~surface.closed
        self.solid = surface.solid and len(self._faces) == len(mesh.faces)
        self._queried = 0

    @cached_property
    def _tree(self) -> Callable[[Floats, float], Floats]:
        return fast_winding_number(self._vertices, self._faces)

    @cached_property
    def _cascade(self) -> tuple[tuple[float, float], ...]:
        """The cascade, without its first step where the coarsest sum is too far off near the surface, on a sample.

        Of no steps where the fast sum takes no less time than the exact one.
        """
        if self._sum_cost > FACE * len(self._faces) / 2:
            return ()
        points = self._near_points(SAMPLES)
        error = np.abs(self._tree(points, 1.0) - self._tree(points, 2.0)).max(initial=0.0)
        return CASCADE if error < COARSE_ERROR else CASCADE[1:]

    def _near_points(self, count: int) -> Floats:
        """Points about the surface, unit coordinates, the same each time; none if it has no area."""
        if not self._shares.any():
            return np.zeros((0, 3))
        rng = np.random.default_rng(0)
        chosen = rng.choice(len(self._faces), count, p=self._shares)
        corners = self._vertices[self._faces[chosen]]
        on_surface = np.einsum("nk,nkd->nd", rng.dirichlet((1.0, 1.0, 1.0), count), corners)
        widths = np.array(NEARNESS)[np.arange(count) % len(NEARNESS), None]
        points: Floats = on_surface + widths * rng.standard_normal((count, 3))
        return points

    @cached_property
    def _areas(self) -> Floats:
        """The area of each face."""
        return by_batches(areas, self._vertices, self._faces)

    @property
    def _shares(self) -> Floats:
        """Each face's share of the area; zeros if there is none."""
        return self._areas / (self._areas.sum() or 1.0)

    @cached_property
    def _sum_cost(self) -> float:
        """Microseconds of a processor that the fast sum takes for a point near the surface, by a model.

        It visits the faces that lie nearer than about twice their length: few of well-shaped ones, most of long thin
        ones. Counted for a sample of both.
        """
        count = len(self._faces)
        chosen = np.random.default_rng(0).permutation(count)[:COUNTED]
        corners = self._vertices[self._faces[chosen]]
        lengths = ((corners - np.roll(corners, 1, axis=1)) ** 2).sum(axis=2).max(axis=1)
        away = corners.mean(axis=1)[:, None] - self._near_points(NEIGHBOURS)
        near = (away**2).sum(axis=2) < 4 * lengths[:, None]
        return 1 + FACE * count * float(near.sum() / max(1, near.size))

    @cached_property
    def _grid_pays(self) -> float:
        """The number of points from which on the cell grid, its making included, is faster than the fast sum.

        The choice is one of speed alone: the labels are the same.
        """
        if len(self._rim) >= len(self._faces):  # nothing to look up, or hardly a cell with a label
            return np.inf
        return (0.3 * PAIRS + 6 * len(self._faces)) / self._sum_cost

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
        chosen = np.random.default_rng(0).choice(len(self._faces), SAMPLES, p=shares / share)
        number = self._by_grid if self._grid_pays < 2 * SAMPLES else self._winding_number
        middle = mid_numbers(number, self._vertices, self._faces[chosen])
        if share * (middle < SETTLED).mean() > DOUBTED:  # perhaps thinner than the places are apart

            def exact(points: Floats) -> Floats:
                return igl.winding_number(self._vertices, self._faces, points)

            few = chosen[:: SAMPLES // EXACT_SAMPLES]
            middle = mid_numbers(exact, self._vertices, self._faces[few], lift=EXACT_LIFT)
        return share * float((middle < SETTLED).mean())

    @cached_property
    def _caps(self) -> Caps | None:
        """What closes the surface; None if it is closed."""
        if self.closed:
            return None
        triangles = closing_triangles(self._vertices, self._faces)
        return Caps(triangles, self._rim, fast_winding_number(*loose(triangles)))

    @property
    def caps(self) -> Corners:
        """What closes the surface: triangles (n, 3, 3), input coordinates, none if it is closed.

        Labels change only at the surface and about these: further from them than the root of their area over pi, they
        are worth less than a quarter of a winding number.
        """
        if self._caps is None:
            return np.zeros((0, 3, 3))
        return self.cube.from_unit(self._caps.triangles.reshape(-1, 3)).reshape(-1, 3, 3)

    @cached_property
    def grid(self) -> CellGrid:
        """The cell grid of the mesh, in the coordinates of `cube`; built when first used."""
        if not len(self._faces):
            raise ValueError("a surface without faces has no cell grid")
        triangles, caps = self._vertices[self._faces], self._caps
        if caps is not None:
            triangles = np.concatenate([triangles, caps.triangles])
        return CellGrid.build(triangles, caps)

    def winding_number(self, points: ArrayLike) -> PointFloats:
        """points (n, 3), input coordinates -> (n,): 1 inside, 0 outside, in between near holes.

        Exact where it lies within 0.02 of 1/2, right to about 0.06 within 0.1 of it; elsewhere within about 0.25.
        """
        unit = self.cube.to_unit(check_points(points))
        return self._winding_number(unit) if len(unit) < self._grid_pays else self._by_grid(unit)

    def exact_winding_number(self, points: ArrayLike) -> PointFloats:
        """`winding_number`, summed in float64 over all faces: slow, and right at any distance from them."""
        return exact_sum(self._vertices, self._faces, self.cube.to_unit(check_points(points)))

    def __call__(self, points: ArrayLike) -> Labels:
        """points (n, 3), input coordinates -> (n,) bool, True inside."""
        array = np.asarray(points, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != 3:
            check_points(array)
        self._queried += len(array)
        far_off = np.abs(self.cube.center).max() > FAR * self.cube.scale
        many = len(array) >= self._grid_pays or self._queried >= LATE * self._grid_pays
        pays = many or ("grid" in self.__dict__ and self._grid_pays < np.inf)
        if far_off or not pays:
            return self._winding_number(self.cube.to_unit(check_points(array))) > 0.5
        inside = np.empty(len(array), dtype=bool)
        grid, origin = self.grid, self.cube.from_unit([[0.0, 0.0, 0.0]])[0]

        def look_up(start: int) -> NDArray[np.int64]:
            """Label a chunk, while it is in the cache; which points of it the grid does not know."""
            chunk = array[start : start + CHUNK]
            if not np.isfinite(chunk).all():
                check_points(chunk)
            label = grid.look_up(chunk, origin=origin, unit=self.cube.scale)
            inside[start : start + CHUNK] = label == INSIDE
            return start + np.flatnonzero(label == UNKNOWN)

        with ThreadPoolExecutor(threads()) as pool:
            unknown = np.concatenate([np.zeros(0, dtype=np.int64), *pool.map(look_up, range(0, len(array), CHUNK))])
        inside[unknown] = self._by_grid(self.cube.to_unit(array[unknown])) > 0.5
        return inside

    def _by_grid(self, unit: Floats) -> Floats:
        """`winding_number` of unit points, by the grid where that can be."""
        number, beside_caps = self.grid.whole_number(unit)
        if self._caps is not None:
            whole = number
            # a sum in float32 may take a point next to a cap for one on its other side
            number = cascaded(self._caps.winding_number, unit, np.where(beside_caps, np.nan, whole), OF_CAPS)
            left = np.flatnonzero(np.isnan(number))
            number[left] = whole[left] - exact_sum(*loose(self._caps.triangles), unit[left])
            number[np.abs(number - 0.5) < ROUNDING] = np.nan
        left = np.flatnonzero(np.isnan(number))
        number[left] = self._winding_number(unit[left])
        return number

    def _winding_number(self, unit: Floats) -> Floats:
        """`winding_number` of unit points, by the fast sum."""
        if not len(unit) or not len(self._faces):
            return np.zeros(len(unit))
        number = cascaded(self._tree, unit, None, self._cascade) if self._cascade else np.full(len(unit), np.nan)
        left = np.flatnonzero(np.isnan(number))
        number[left] = exact_sum(self._vertices, self._faces, unit[left])
        return number


def cascaded(
    tree: Callable[[Floats, float], Floats],
    unit: Floats,
    whole: Floats | None,
    cascade: tuple[tuple[float, float], ...],
) -> Floats:
    """Winding numbers of unit points by a fast sum, subtracted from `whole` numbers if given, finer step by step.

    NaN where the last step is not sure, or `whole` has it.
    """
    number = np.full(len(unit), np.nan)
    left = np.arange(len(unit)) if whole is None else np.flatnonzero(~np.isnan(whole))
    if len(left) > MANY:
        left = left[order_in_space(unit[left])]
    for accuracy, unsure in cascade:
        found = tree(unit[left], accuracy)
        number[left] = found if whole is None else whole[left] - found
        left = left[np.abs(number[left] - 0.5) < unsure]
        if not len(left):
            break
    number[left] = np.nan
    return number


def exact_sum(vertices: Floats, faces: Ints, unit: Floats) -> Floats:
    """The winding numbers of unit points, summed in float64 over all faces."""
    import igl

    number: Floats = igl.winding_number(vertices, faces, np.ascontiguousarray(unit)) if len(unit) else np.zeros(0)
    return number
