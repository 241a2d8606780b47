"""How often segments in cells cross triangles, and the winding numbers of points in the cells that follow from that."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Bools, Corners, Floats, Indices, Integers, Ints
from ff3d.geometry.cores import threads
from ff3d.geometry.surface_cells import UNKNOWN, brick_address, floor_cells
from ff3d.geometry.triangles import cross_products, unit_vectors

Words = NDArray[np.uint64]

# A determinant of float64 unit coordinates counts as zero up to this share of the product of its vectors' lengths:
# some fifty times its largest rounding error
ROUNDING = 1e-14
RUN = 2**16  # pairs of a point and a triangle that pass through the caches together
CROWD = 12  # triangles of a cell from which on the slab that they lie in, and the cones, are looked at first
REUSE = 16  # points of a crowded cell from which on finding the cones of its triangles saves time
SLACK = 1e-5  # how far a cone reaches past itself, as a sine: a hundred times the rounding of float32
MASKS = 2**10  # triangles whose cones are found together

WAYS = [(axis, step) for axis in range(3) for step in (-1, 1)]  # to the six cells beside a cell
# Places in cells from the middle of one: far across the cell beside it; in it; on the wall between. None in the middle
# of a wall or straight across from another: what is built on straight lines has edges there
ACROSS = [np.roll([1.48 * step, 0.0137, -0.0211], axis) for axis, step in WAYS]
STATIONS = np.array([*ACROSS, [0.0729, 0.1371, -0.2113]])
STEPS = [np.roll([step, 0, 0], axis)[:, None] for axis, step in WAYS]
WALLS = np.array([np.roll([0.5 * step, 0.1729, -0.0913], axis) for axis, step in WAYS])
IN_CELL = len(WAYS)


@dataclass(frozen=True)
class Cones:
    """Pyramids of directions from one point: for each frame, n x n of them.

    frames: (f, 3, 3): the axis of the pyramids of a frame, and two vectors across.  edges: (n + 1,), where the sides
    of pyramids lie across the axis, at a distance of 1 along it.
    """

    frames: Floats
    edges: Floats

    def find(self, directions: Floats) -> Words:
        """The pyramid that each direction (n, 3) lies in: (n,)."""
        count = len(self.edges) - 1
        ahead = np.einsum("nd,fd->nf", directions, self.frames[:, 0])
        frame = ahead.argmax(axis=1)
        ahead = np.maximum(ahead.max(axis=1), np.finfo(np.float64).tiny)
        number = frame.astype(np.uint64)
        for across in (1, 2):
            slope = np.einsum("nd,nd->n", directions, self.frames[frame, across]) / ahead
            place = (slope - self.edges[0]) * (count / (self.edges[-1] - self.edges[0]))
            number = number * np.uint64(count) + np.clip(place, 0, count - 1).astype(np.uint64)
        return number

    def masks(self, corners: Floats) -> Words:
        """A bit for each pyramid that a triangle comes into: coordinates (3, 3 corners, n) from the point -> (n,).

        Two cones are apart if a side of either parts them. No pyramid is missed that comes within `SLACK`.
        """
        (x, y, z), (x2, y2, z2) = corners, np.roll(corners, -1, axis=1)
        sides = np.stack([y * z2 - z * y2, z * x2 - x * z2, x * y2 - y * x2])
        size, length = np.sqrt((corners**2).sum(axis=0)), np.sqrt((sides**2).sum(axis=0))
        length[length <= 1e-9 * size * np.roll(size, -1, axis=0)] = np.inf  # of no direction: parts nothing
        turned = (corners[:, 0] * sides[:, 1]).sum(axis=0) < 0
        sides *= np.where(turned, -1.0, 1.0) / length
        # the sides of the triangle's cone: a pyramid is beyond one if its four edges are
        ahead, one, other = self._local(sides)
        edges = self.edges[:, None, None].astype(np.float32)
        within = (ahead + edges * one)[:, :, None] > (-SLACK - edges * other)[:, None]
        within = within[:, 1:] | within[:, :-1]
        within = (within[:, :, 1:] | within[:, :, :-1]).all(axis=3)
        # the sides of the pyramids: a triangle is beyond one if its corners are
        ahead, one, other = self._local(corners)
        slack = (SLACK * size).astype(np.float32)
        bands = []
        for over in one - edges * ahead, other - edges * ahead:
            bands.append((over > -slack).any(axis=2)[:, :-1] & (over < slack).any(axis=2)[:, 1:])
        within &= bands[0][:, :, None] & bands[1][:, None]
        bits = np.zeros((within.shape[-1], 64), dtype=bool)
        bits[:, : within[..., 0].size] = within.reshape(-1, within.shape[-1]).T
        words: Words = np.packbits(bits, axis=1, bitorder="little").view("<u8")[:, 0]
        return words

    def _local(self, vectors: Floats) -> NDArray[np.float32]:
        """Vectors (3, k, n) in all frames: (3, f, 1, k, n). Not by a matrix product, whose threads get in the way."""
        return np.einsum("fad,dkn->afkn", self.frames, vectors)[:, :, None].astype(np.float32, order="C")


def _frame(axis: int, step: int) -> Floats:
    """A frame that looks along an axis."""
    return np.roll(np.eye(3), -axis, axis=0) * [[step], [1], [1]]


# From each of `STATIONS`: across the cell beside one sees all of the cell in a wide pyramid; in it, in all directions
CONES = [Cones(_frame(axis, -step)[None], np.linspace(-0.54, 0.54, 9)) for axis, step in WAYS]
CONES.append(Cones(np.stack([_frame(*way) for way in WAYS]), np.linspace(-1, 1, 4)))


@dataclass(frozen=True)
class CellFaces:
    """The triangles that touch each cell, and how often segments within a cell cross them.

    triangles: (f, 3, 3).  address: (k,) ascending, a number for each touched cell.  start: (k + 1,), where the faces of
    each begin in `face` (m,).
    """

    triangles: Corners
    address: Ints
    start: Ints
    face: Indices

    @classmethod
    def of(cls, triangles: Floats, face: Ints, address: Ints) -> CellFaces:
        """From pairs of a face (m,) and the address (m,) of a cell that it touches."""
        order = np.argsort(address)
        address = address[order]
        begins = np.flatnonzero(np.diff(address, prepend=-1))
        return cls(triangles, address[begins], np.append(begins, len(address)), face[order].astype(np.int32))

    @cached_property
    def counts(self) -> Ints:
        """How many triangles touch each cell."""
        return np.diff(self.start)

    @cached_property
    def _planes(self) -> Floats:
        """(f, 5): the normal of each triangle, twice its area long, the normal's product with the first corner, and up
        to where the difference of such products counts as zero.
        """
        normal = cross_products(self.triangles)
        planes = np.column_stack([normal, np.einsum("ij,ij->i", normal, self.triangles[:, 0])])
        return np.column_stack([planes, ROUNDING * np.abs(planes).sum(axis=1)])

    @cached_property
    def _slabs(self) -> Floats:
        """For each crowded cell a direction and the least and the most that its triangles reach along it: (k, 5).

        Other cells have NaN.
        """
        slabs = np.full((len(self.address), 5), np.nan)
        crowded, normals = np.flatnonzero(self.counts >= CROWD), unit_vectors(self._planes[:, :3])

        def measure(cells: Ints) -> None:
            counts = self.counts[cells]
            face, begin = self.face[self.pairs(cells)], np.cumsum(counts) - counts
            normal = normals[face]
            # the two sides of a plate look opposite ways
            along = np.einsum("ij,ij->i", normal, np.repeat(normal[begin], counts, axis=0))
            mean = unit_vectors(np.add.reduceat(np.where(along[:, None] < 0, -normal, normal), begin))
            heights = np.einsum("nkd,nd->kn", self.triangles[face], np.repeat(mean, counts, axis=0))
            slabs[cells, :3] = mean
            slabs[cells, 3] = np.minimum.reduceat(np.minimum.reduce(heights), begin) - ROUNDING
            slabs[cells, 4] = np.maximum.reduceat(np.maximum.reduce(heights), begin) + ROUNDING

        with ThreadPoolExecutor(threads()) as pool:
            list(pool.map(measure, runs(crowded, self.counts[crowded])))
        return slabs

    def sides(self, cell: Ints, points: Floats) -> NDArray[np.int8]:
        """The side of all triangles of a crowded cell that a point is on: 1 or -1; 0 if not known.

        No triangle of the cell parts points that are on the same side. cell: (n,) places, points: (n, 3) -> (n,).
        """
        side = np.zeros(len(cell), dtype=np.int8)
        crowded = np.flatnonzero(self.counts[cell] >= CROWD)
        if len(crowded):
            slab = self._slabs[cell[crowded]]
            height = np.einsum("ij,ij->i", slab[:, :3], points[crowded])
            side[crowded] = (height > slab[:, 4]).astype(np.int8) - (height < slab[:, 3])
        return side

    def pairs(self, cell: Ints) -> Ints:
        """Where the faces of cells stand in `face`, one cell after the other."""
        return _ranges(self.start[cell], self.counts[cell])

    def crossings(
        self, cell: Ints, points: Floats, ends: Floats, masks: Words | None = None, cone: Words | None = None
    ) -> Floats:
        """How much the winding number of points is more than that of ends in the same cells by the faces between them.

        cell: (n,) places.  points, ends: (n, 3) -> (n,) whole numbers; NaN where that is not sure: where a segment
        meets an edge or ends on a triangle but for rounding. With masks (m,) only triangles with the bit `cone` (n,)
        are tested.
        """
        if masks is None or cone is None:
            owner, pair = np.repeat(np.arange(len(cell)), self.counts[cell]), self.pairs(cell)
        else:
            # once for all points in a row that share a cell and a cone
            new = np.append(True, (np.diff(cell) != 0) | (cone[1:] != cone[:-1]))[: len(cell)]
            first, group = np.flatnonzero(new), np.cumsum(new) - 1
            counts, pair = self.counts[cell[first]], self.pairs(cell[first])
            met = np.flatnonzero((masks[pair] >> np.repeat(cone[first], counts)) & np.uint64(1))
            bounds = np.searchsorted(met, np.append(0, np.cumsum(counts)))
            counts = np.diff(bounds)[group]
            owner, pair = np.repeat(np.arange(len(cell)), counts), pair[met[_ranges(bounds[group], counts)]]
        face, way = self.face[pair], ends - points
        plane = self._planes[face]
        above = np.einsum("ij,ij->i", plane[:, :3], points[owner]) - plane[:, 3]
        rise = np.einsum("ij,ij->i", plane[:, :3], way[owner])
        below, fuzzy = above + rise, plane[:, 4]
        nearest = np.minimum(np.abs(above), np.abs(below))
        met = np.flatnonzero(((above < 0) != (below < 0)) | (nearest <= fuzzy))
        owner, face = owner[met], face[met]
        # a row for each coordinate: twice as fast
        corners = np.ascontiguousarray(self.triangles.reshape(-1, 9)[face].T).reshape(3, 3, -1)
        corners -= np.ascontiguousarray(points[owner].T)
        along = np.ascontiguousarray(way[owner].T)
        # the volumes between the segment and each edge: of one sign if it passes through the triangle
        volumes = [_determinant(along, corners[k], corners[k - 2]) for k in range(3)]
        low, high = np.minimum.reduce(volumes), np.maximum.reduce(volumes)
        slack = ROUNDING * np.abs(corners).max(axis=(0, 1)) ** 2 * np.abs(along).max(axis=0)
        through = (low > slack) | (high < -slack)
        hit = through & (nearest[met] > fuzzy[met])
        number = np.rint(np.bincount(owner[hit], np.sign(rise[met[hit]]), minlength=len(cell)))
        number[owner[~hit & ((low >= -slack) | (high <= slack))]] = np.nan
        return number


def _ranges(start: Ints, counts: Ints) -> Ints:
    """Whole numbers from each start on, so many of each, one range after the other."""
    return np.arange(counts.sum()) + np.repeat(start - (np.cumsum(counts) - counts), counts)


def _determinant(a: Floats, b: Floats, c: Floats) -> Floats:
    """The triple product of vectors (3, n)."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = a, b, c
    volume: Floats = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
    return volume


def runs(items: Ints, counts: Ints) -> list[Ints]:
    """Items in runs whose counts add up to about as much as passes through the caches together."""
    ends = np.cumsum(counts)
    return np.split(items, np.searchsorted(ends, np.arange(RUN, int(ends[-1]) if len(ends) else 0, RUN)))


@dataclass(frozen=True)
class Spaces:
    """The spaces of cells that no triangle touches, each with one winding number.

    table: (nx, ny, nz), the brick of each coarse cell, if more than `UNKNOWN`.
    of_cell: (k, b, b, b), the space of each cell of the bricks, 0 for touched ones.
    of_coarse: (nx, ny, nz), that of each coarse cell that is no brick.
    number: (s,), whole, NaN where it is not known yet, as always in space 0.
    """

    table: Integers
    of_cell: Integers
    of_coarse: Integers
    number: Floats

    @property
    def bits(self) -> int:
        """How often coarse cells are halved."""
        return self.of_cell.shape[1].bit_length() - 1

    def address(self, cell: Ints) -> Ints:
        """The number of cells (3, n) among those of all bricks, negative for those in none."""
        brick = self.table[tuple(cell >> self.bits)]
        return np.where(brick > UNKNOWN, brick_address(brick, cell, self.bits), -1)

    def at(self, cell: Ints) -> Integers:
        """The space that cells (3, n) lie in: 0 for touched ones."""
        address = self.address(cell)
        in_brick = self.of_cell.reshape(-1)[address]
        return np.where(address >= 0, in_brick, self.of_coarse[tuple(cell >> self.bits)])


@dataclass(frozen=True)
class Stations:
    """Winding numbers in the cells that triangles touch: one station for each, and what is crossed from there.

    lower: the grid's lowest corner (3,).  side: that of a cell.  cells: (3, k), those that triangles touch.
    caps: how many of the triangles, the last ones, close holes; their crossings are counted apart.
    """

    lower: Floats
    side: float
    spaces: Spaces
    faces: CellFaces
    cells: Ints
    caps: int = 0
    _masks: Words = field(init=False)
    _masked: Bools = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_masks", np.full(len(self.faces.face), -1, dtype=np.int64).view(np.uint64))
        object.__setattr__(self, "_masked", np.zeros(len(self.faces.counts), dtype=bool))

    def whole_number(self, points: Floats) -> tuple[Floats, Bools]:
        """The winding numbers of points (n, 3), and whether a cap touches the cell that they lie in.

        NaN where it is not sure what is crossed, to within rounding.
        """
        bits = self.spaces.bits
        last = (np.array(self.spaces.table.shape) << bits) - 1
        cell = np.clip(floor_cells((points - self.lower) / self.side), 0, last).T
        space = self.spaces.at(cell)
        known = self.known[1]
        number, touched = self.spaces.number[space], np.flatnonzero(space == 0)
        place = self._places[self.spaces.address(cell[:, touched])].astype(np.int64)
        side = self.faces.sides(place, points[touched])
        # beyond the slab of triangles one point of a cell tells for all
        beyond = np.flatnonzero((side != 0) & (side != self._sides[place]))
        key = 2 * place[beyond] + (side[beyond] > 0)
        _, first, owner = np.unique(key, return_index=True, return_inverse=True)
        tested = np.concatenate([beyond[first], np.flatnonzero(side == 0)])
        change = np.zeros(len(touched))
        change[tested] = self._changes(place[tested], points[touched[tested]])
        change[beyond] = change[beyond[first]][owner]
        number[touched] = known[place] + change
        beside_caps = np.zeros(len(points), dtype=bool)
        beside_caps[touched] = self._capped[place]
        return number, beside_caps

    @cached_property
    def _capped(self) -> Bools:
        """Whether a cap is among the triangles of each touched cell."""
        return np.logical_or.reduceat(self.faces.face >= len(self.faces.triangles) - self.caps, self.faces.start[:-1])

    def _changes(self, place: Ints, points: Floats) -> Floats:
        """How much the winding numbers of points (n, 3) in touched cells (n,) are more than those of the stations."""
        change = np.empty(len(points))
        kinds, ends = self.known[0][place], self._at(place)
        self._find_cones(place)
        cone = np.zeros(len(points), dtype=np.uint64)
        for kind, cones in enumerate(CONES):
            chosen = np.flatnonzero((kinds == kind) & self._masked[place])
            cone[chosen] = cones.find(points[chosen] - ends[chosen])
        order = np.argsort(64 * place + cone.astype(np.int64), kind="stable")

        def cross(chosen: Ints) -> None:
            change[chosen] = self.faces.crossings(
                place[chosen], points[chosen], ends[chosen], self._masks, cone[chosen]
            )

        with ThreadPoolExecutor(threads()) as pool:
            list(pool.map(cross, runs(order, self.faces.counts[place[order]])))
        return change

    def _find_cones(self, place: Ints) -> None:
        """Find the cones of triangles in crowded cells, once for each cell that holds enough of the points."""
        cells, count = np.unique(place, return_counts=True)
        cells = cells[(count >= REUSE) & (self.faces.counts[cells] >= CROWD) & ~self._masked[cells]]
        kinds = self.known[0][cells]

        def mask(job: tuple[int, Ints, Ints]) -> None:
            kind, cell, pair = job
            corners = self.faces.triangles[self.faces.face[pair]] - self._at(cell)[:, None]
            self._masks[pair] = CONES[kind].masks(np.ascontiguousarray((corners / self.side).transpose(2, 1, 0)))

        with ThreadPoolExecutor(threads()) as pool:
            for kind in range(len(CONES)):
                chosen = cells[kinds == kind]
                cell, pair = np.repeat(chosen, self.faces.counts[chosen]), self.faces.pairs(chosen)
                parts = [slice(start, start + MASKS) for start in range(0, len(pair), MASKS)]
                list(pool.map(mask, [(kind, cell[part], pair[part]) for part in parts]))
        self._masked[cells] = True

    def _at(self, place: Ints) -> Floats:
        """The stations of touched cells (n,): (n, 3)."""
        return self.lower + (self.cells[:, place].T + 0.5 + STATIONS[self.known[0][place]]) * self.side

    def _walls(self, place: Ints, way: Ints) -> Floats:
        """A point of the wall between touched cells (n,) and the cells beside them in directions (n,): (n, 3)."""
        return self.lower + (self.cells[:, place].T + 0.5 + WALLS[way]) * self.side

    @cached_property
    def _sides(self) -> NDArray[np.int8]:
        """The side of the triangles of each crowded cell that its station is on."""
        place = np.arange(len(self.faces.address))
        return self.faces.sides(place, self._at(place))

    @cached_property
    def known(self) -> tuple[Ints, Floats]:
        """Which of `STATIONS` each touched cell has, and the winding number there, both (k,).

        The station lies in an untouched cell beside it, if there is one. From where the number is known one walks
        through the walls of cells to the spaces, of which `spaces.number` is filled in, and to cells among cells. NaN
        where every way there meets an edge.
        """
        count, of_space = len(self.faces.address), self.spaces.number
        kind, number = np.full(count, IN_CELL), np.full(count, np.nan)
        self.__dict__["known"] = kind, number  # `_at` reads it
        with ThreadPoolExecutor(threads()) as pool:
            beside = np.stack(list(pool.map(lambda step: self.spaces.at(self.cells + step), STEPS)))
        ways, cells = np.nonzero(np.isnan(of_space)[beside] & (beside > 0))  # to spaces that are not known
        left = np.arange(count)
        while True:
            told = ~np.isnan(of_space)[beside[:, left]]
            new, told = left[told.any(axis=0)], told[:, told.any(axis=0)]
            kind[new] = told.argmax(axis=0)
            number[new] = of_space[beside[kind[new], new]]
            left = left[np.isnan(number[left])]
            space = beside[ways, cells]
            ready = np.flatnonzero(~np.isnan(number[cells]) & np.isnan(of_space[space]))
            if len(ready):
                ready = ready[np.unique(space[ready], return_index=True)[1]]
                cell, wall = cells[ready], self._walls(cells[ready], ways[ready])
                of_space[space[ready]] = number[cell] + self._segments(cell, wall, self._at(cell))
                ways, cells = np.delete(ways, ready), np.delete(cells, ready)
            elif not self._walk(left, number):
                return kind, number
            left = left[np.isnan(number[left])]

    def _walk(self, left: Ints, number: Floats) -> bool:
        """Fill in the numbers of touched cells (n,) that hang together with known ones; whether there was any."""
        near = np.stack([self._places[self.spaces.address(self.cells[:, left] + step)] for step in STEPS])
        walked = False
        while len(left):
            ready = ~np.append(np.isnan(number), True)[near]  # -1, which is no cell, comes last
            chosen = np.flatnonzero(ready.any(axis=0))
            if not len(chosen):
                break
            way, new = ready[:, chosen].argmax(axis=0), left[chosen]
            cell, wall = near[way, chosen].astype(np.int64), self._walls(new, way)
            near[way, chosen] = -1
            number[new] = number[cell] + self._segments(cell, wall, self._at(cell))
            number[new] += self._segments(new, self._at(new), wall)
            unknown = np.isnan(number[left])
            left, near, walked = left[unknown], near[:, unknown], True
        return walked

    @cached_property
    def _places(self) -> Indices:
        """The place of each cell of the bricks among the touched ones, -1 for others, and for no cell at the end."""
        places = np.full(self.spaces.of_cell.size + 1, -1, dtype=np.int32)
        places[self.faces.address] = np.arange(len(self.faces.address))
        return places

    def _segments(self, place: Ints, points: Floats, ends: Floats) -> Floats:
        """`CellFaces.crossings`, on all cores."""
        order = np.arange(len(place))

        def cross(chosen: Ints) -> Floats:
            return self.faces.crossings(place[chosen], points[chosen], ends[chosen])

        with ThreadPoolExecutor(threads()) as pool:
            return np.concatenate([np.zeros(0), *pool.map(cross, runs(order, self.faces.counts[place]))])
