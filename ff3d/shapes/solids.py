"""Procedural solids with exact occupancy.

A `Solid` is a function of points: positive inside, negative outside, 0 on the surface. Nothing is sampled or
stored, so `Solid.contains` is the truth against which labels, fields and extracted meshes are measured.
The y axis is up, the bunny looks towards +z, every sample is about one unit large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ff3d.geometry.arrays import Labels, PointFloats, Points

Values = NDArray[np.float64]
Vector = Sequence[float]
# The bracket: half width, thickness, plate lengths along z and y, corner cut, heel cut, half rib, rib leg.
WIDE, THICK, LENGTHS, CUT, HEEL, RIB, LEG = 0.4, 0.14, (0.9, 0.75), 0.12, 0.07, 0.05, 0.42
# Its holes: axis, the two coordinates of the centre in (x, y, z) order without the axis, radius.
HOLES = (
    (1, (-0.25, 0.5), 0.085), (1, (0.25, 0.5), 0.085), (1, (0.0, 0.74), 0.07),
    (2, (-0.25, 0.5), 0.085), (2, (0.25, 0.5), 0.085), (0, (0.27, 0.27), 0.07),
)  # fmt: skip


@dataclass(frozen=True)
class Solid:
    """A solid given by a function.

    name, description: what it is.  bounds (2, 3): a box that surely contains it, lower corner first.
    value: points (n, 3) float64 -> (n,) float64, > 0 inside, continuous, near the surface roughly the
    distance to it; each point's value depends on that point alone, never on the batch that it came in.
    """

    name: str
    description: str
    bounds: Values
    value: Callable[[Values], Values]

    def contains(self, points: ArrayLike) -> Labels:
        """Exact occupancy (n,) of points (n, 3): True inside. Raises ValueError for any other shape."""
        array = np.asarray(points, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != 3:
            raise ValueError(f"points must have shape (n, 3), got {array.shape}")
        return self.values(array) > 0

    def values(self, points: Points) -> PointFloats:
        """`value` in batches whose temporaries stay in the cache."""
        values = np.empty(len(points))
        for start in range(0, len(points), 1 << 14):
            batch = slice(start, start + (1 << 14))
            values[batch] = self.value(points[batch])
        return values


def sphere(radius: float, center: Vector = (0, 0, 0)) -> Solid:
    """Ball; `value` is the exact signed distance."""
    middle = np.array(center, dtype=np.float64)
    bounds = np.stack([middle - radius, middle + radius])
    return Solid("sphere", f"radius {radius}", bounds, lambda points: radius - length_of((points - middle).T))


def box(half_size: Vector, center: Vector = (0, 0, 0)) -> Solid:
    """Axis-aligned box with sharp edges; `value` is the distance to the nearest face's plane."""
    middle, half = np.array(center, dtype=np.float64), np.array(half_size, dtype=np.float64)
    bounds = np.stack([middle - half, middle + half])
    return Solid("box", f"half size {half}", bounds, lambda points: (half - np.abs(points - middle)).min(axis=1))


def torus(major: float, minor: float, center: Vector = (0, 0, 0)) -> Solid:
    """Ring about the y axis, major > minor: volume 2 pi^2 major minor^2; `value` is the exact distance."""
    middle, reach = np.array(center, dtype=np.float64), np.array([major + minor, minor, major + minor])

    def value(points: Values) -> Values:
        x, y, z = (points - middle).T
        distance: Values = np.hypot(np.hypot(x, z) - major, y)
        return minor - distance

    return Solid("torus", f"radii {major}, {minor}", np.stack([middle - reach, middle + reach]), value)


def union(first: Solid, second: Solid, smooth: float = 0.0) -> Solid:
    """The points of either solid; `smooth` > 0 fillets the seam where the values differ by less than that."""
    lower, upper = np.minimum(first.bounds, second.bounds)[0], np.maximum(first.bounds, second.bounds)[1]
    bounds = np.stack([lower - smooth / 4, upper + smooth / 4])  # a fillet adds at most smooth / 4 of value
    name = f"({first.name} or {second.name})"
    return Solid(name, "union", bounds, lambda p: _join(smooth, first.value(p), second.value(p)))


def intersection(first: Solid, second: Solid, smooth: float = 0.0) -> Solid:
    """The points of both solids; `smooth` > 0 rounds the edge. Raises ValueError if their boxes are apart."""
    bounds = np.stack([np.maximum(first.bounds, second.bounds)[0], np.minimum(first.bounds, second.bounds)[1]])
    if np.any(bounds[0] >= bounds[1]):
        raise ValueError(f"{first.name} and {second.name} have no common point: their bounds do not overlap")
    name = f"({first.name} and {second.name})"
    return Solid(name, "intersection", bounds, lambda p: _meet(smooth, first.value(p), second.value(p)))


def difference(first: Solid, second: Solid, smooth: float = 0.0) -> Solid:
    """The points of `first` outside `second`; `smooth` > 0 rounds the edge."""
    name = f"({first.name} without {second.name})"
    return Solid(name, "difference", first.bounds, lambda p: _meet(smooth, first.value(p), -second.value(p)))


def _join(smooth: float, *values: Values) -> Values:
    """Union of values: the maximum, with a parabola in place of the crease where two differ by < `smooth`.

    Source: Quilez, "smooth minimum", the quadratic polynomial, its sign turned: ours is positive inside.
    """
    joined = values[0]
    for value in values[1:]:
        overlap = np.maximum(smooth - np.abs(joined - value), 0.0)
        joined = np.maximum(joined, value) + (overlap * overlap / (4 * smooth) if smooth else 0.0)
    return joined


def _meet(smooth: float, *values: Values) -> Values:
    return -_join(smooth, *(-value for value in values))


# Below, p is (3, n): one row for each coordinate.


def length_of(p: Values) -> Values:
    """Of the columns of p (3, n): (n,)."""
    length: Values = np.sqrt(p[0] * p[0] + p[1] * p[1] + p[2] * p[2])
    return length


def _mirror(p: Values) -> Values:
    return np.stack([np.abs(p[0]), p[1], p[2]])


def _spin(a: Values, b: Values, degrees: float) -> tuple[Values, Values]:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return c * a - s * b, s * a + c * b


def _turn(p: Values, origin: Vector, nod: float = 0.0, turn: float = 0.0, tilt: float = 0.0) -> Values:
    """p seen from a frame at `origin`, turned by degrees about y, x and z in this order."""
    x, y, z = p - np.array(origin)[:, None]
    x, z = _spin(x, z, turn)
    y, z = _spin(y, z, -nod)
    return np.stack([*_spin(x, y, -tilt), z])


def _egg(p: Values, center: Vector, radii: Vector, nod: float = 0.0) -> Values:
    """Ellipsoid; near its surface the distance, by first-order correction (Quilez), capped deep inside."""
    q, r = _turn(p, center, nod), np.array(radii)[:, None]
    scaled, slope = np.maximum(length_of(q / r), 1e-9), np.maximum(length_of(q / (r * r)), 1e-12)
    value: Values = np.minimum(scaled * (1 - scaled) / slope, r.min() / 2)
    return value


def _limb(p: Values, start: Vector, end: Vector, radius: float, end_radius: float) -> Values:
    """Capsule whose radius changes linearly from start to end."""
    along = np.array(end) - np.array(start)
    q = p - np.array(start)[:, None]
    reach = q[0] * along[0] + q[1] * along[1] + q[2] * along[2]
    t: Values = np.clip(reach / float((along**2).sum()), 0.0, 1.0)
    return radius + (end_radius - radius) * t - length_of(q - along[:, None] * t)


def _fur(p: Values) -> Values:
    """Relief of about unit size: waves 0.036 to 0.06 long across the hair, over three times that along it.

    The hair runs down the chest and down and back over the trunk; the two directions blend at the shoulder.
    """
    x, y, z = p
    warp = 0.010 * np.sin(13 * x + 9 * y + 4) + 0.010 * np.sin(15 * z - 12 * y + 1)
    front = 0.5 + 0.5 * np.tanh((z + 0.5 * y - 0.26) / 0.04)
    relief = np.zeros(len(x))
    for share, slope in ((1 - front, 0.75), (front, 0.05)):
        across, along = _spin(y, z, math.degrees(math.atan2(1, slope)))
        for i in range(9):
            angle, wave = 2.39996 * i, 2 * math.pi / (0.036 + 0.003 * i)  # the golden angle spreads the waves
            side = math.cos(angle) * (x + warp) + math.sin(angle) * (across + warp)
            relief += share * np.sin(wave * (side + 0.28 * math.sin(5 * i) * along) + 1.7 * i * i)
    return relief / 3


def _bunny(points: Values) -> Values:
    """A sitting rabbit of blended eggs and limbs; q and g are p and the head's h with left and right folded."""
    p = np.ascontiguousarray(points.T)
    q, fur = _mirror(p), _fur(p)
    rump = _egg(p, (0, 0.24, -0.13), (0.205, 0.24, 0.235))
    back = _egg(p, (0, 0.37, 0.01), (0.155, 0.19, 0.165), -20)
    chest = _egg(p, (0, 0.34, 0.11), (0.12, 0.16, 0.11))
    haunch = _egg(q, (0.15, 0.165, -0.08), (0.09, 0.155, 0.16), -15)
    body = _join(0.035, _join(0.08, rump, back, chest), haunch) + 0.0036 * fur
    leg = _limb(q, (0.18, 0.042, -0.08), (0.19, 0.04, 0.13), 0.045, 0.04)
    foot = _join(0.03, leg, _egg(q, (0.19, 0.04, 0.15), (0.05, 0.042, 0.062)))
    arm = _limb(q, (0.078, 0.30, 0.14), (0.062, 0.06, 0.205), 0.06, 0.038)
    paw = _join(0.03, arm, _egg(q, (0.06, 0.036, 0.235), (0.045, 0.038, 0.065)))
    tail = _egg(p, (0, 0.15, -0.37), (0.085, 0.085, 0.08)) + 0.0055 * fur
    body = _join(0.02, _join(0.04, body, np.maximum(foot, paw) + 0.0016 * fur), tail)

    h = _turn(p, (0, 0.56, 0.13), 6, 12, -5) / 1.15
    g = _mirror(h)
    muzzle = _egg(h, (0, 0.01, 0.135), (0.07, 0.06, 0.066))
    cheek = _egg(g, (0.07, -0.005, 0.07), (0.07, 0.066, 0.072))
    head = _join(0.06, _egg(h, (0, 0.055, 0.03), (0.122, 0.118, 0.135)), muzzle, cheek)
    lip = _egg(g, (0.031, -0.006, 0.184), (0.037, 0.032, 0.036))
    chin = _egg(h, (0, -0.043, 0.165), (0.032, 0.022, 0.028))
    head = _join(0.02, head, _join(0.003, lip, chin))
    head += 0.0011 * (1 - np.tanh((h[2] - 0.08) / 0.04)) * fur  # the face is smooth
    for side, nod, tilt in ((1, -16, -8), (-1, -24, -17)):
        e = _turn(np.stack([side * h[0], h[1], h[2]]), (0.052, 0.14, 0), nod, 24, tilt)
        root = _limb(e, (0, -0.04, 0), (0, 0.08, 0), 0.035, 0.03)
        shell = _join(0.03, _egg(e, (0, 0.16, 0), (0.056, 0.175, 0.032)), root)
        hollow = _egg(e, (0, 0.155, 0.03), (0.038, 0.14, 0.031))
        head = _join(0.03, head, _meet(0.016, shell + 0.0008 * fur, -hollow))
    eye = _egg(g, (0.1, 0.057, 0.103), (0.031, 0.031, 0.033))
    nose = _egg(h, (0, 0.025, 0.21), (0.023, 0.014, 0.014))
    head = _join(0.005, head, np.maximum(eye, nose))
    return _meet(0.012, _join(0.045, body, 1.15 * head), p[1])  # sits on the plane y = 0


def _knot(points: Values) -> Values:
    """A three-stranded rope along a trefoil, the (2, 3) torus knot about the z axis.

    In the half plane at angle phi the two passes of the rope are discs about opposite points of a circle,
    at angles 1.5 phi and 1.5 phi + pi; their width is corrected for the slant at which the plane cuts them.
    """
    x, y, z = points.T
    ring, orbit, thick = 0.335, 0.11, 0.062
    phi, rho = np.arctan2(y, x), np.hypot(x, y)
    slant = np.maximum(rho, 0.15) / np.hypot(np.maximum(rho, 0.15), 1.5 * orbit)
    passes = []
    for t in (phi / 2, phi / 2 + math.pi):
        c, s = np.cos(3 * t), np.sin(3 * t)
        out = (rho - ring) * c + z * s - orbit
        aside = (z * c - (rho - ring) * s) * slant
        distance = np.hypot(out, aside)
        strands = np.cos(3 * np.arctan2(aside, out) - 30 * t) * np.minimum(distance / thick, 1.0) ** 2
        passes.append(thick * (1 + 0.16 * strands) - distance)
    value: Values = np.maximum.reduce([*passes, np.full(len(points), -thick)])
    return value  # the floor -thick hides the jump of phi on the axis


def _gyroid(points: Values) -> Values:
    """Walls about Schoen's gyroid, in its usual trigonometric form, in a ball; two periods across."""
    wave, shift = 2 * math.pi / 0.5, math.pi / 4  # unshifted, some walls would only graze the ball
    angles = wave * points.T + shift
    (a, b, c), (u, v, w) = np.sin(angles), np.cos(angles)
    wall = 0.04 - np.abs(a * v + b * w + c * u) / (1.5 * wave)  # 1.5 wave: the usual slope at the surface
    return _meet(0.045, wall, 0.5 - length_of(points.T))


def _bracket(points: Values) -> Values:
    """Two plates at a right angle with cut corners and heel, a rib between them, six holes; sharp edges."""
    x, y, z = points.T
    ax, root2 = np.abs(x), math.sqrt(2)
    solid: Values = np.minimum.reduce([RIB - ax, y, z, (2 * THICK + LEG - y - z) / root2])
    for across, along, length in ((y, z, LENGTHS[0]), (z, y, LENGTHS[1])):
        corner = (WIDE + length - CUT - ax - along) / root2
        plate = np.minimum.reduce([WIDE - ax, across, THICK - across, along, length - along, corner])
        solid = np.maximum(solid, plate)
    solid = np.minimum(solid, (y + z - HEEL) / root2)
    for axis, (a, b), radius in HOLES:
        u, v = (row for i, row in enumerate((x, y, z)) if i != axis)
        solid = np.minimum(solid, np.hypot(u - a, v - b) - radius)
    return solid


def _solid(name: str, lower: Vector, upper: Vector, value: Callable[[Values], Values], description: str) -> Solid:
    return Solid(name, description, np.array([lower, upper], dtype=np.float64), value)


SOLIDS = {
    solid.name: solid
    for solid in (
        _solid("bunny", (-0.28, -0.02, -0.49), (0.28, 1.12, 0.42), _bunny,
               "a sitting rabbit of smoothly blended ellipsoids and capsules, its fur a sum of stretched sines"),
        _solid("knot", (-0.53, -0.53, -0.22), (0.53, 0.53, 0.22), _knot,
               "a three-stranded rope along a trefoil, the (2, 3) torus knot"),
        _solid("gyroid", (-0.51, -0.51, -0.51), (0.51, 0.51, 0.51), _gyroid,
               "walls along sin x cos y + sin y cos z + sin z cos x = 0 in a ball, two periods across"),
        _solid("bracket", (-0.42, -0.02, -0.02), (0.42, 0.77, 0.92), _bracket,
               "two plates, a rib, cut corners and six through holes, all edges sharp: minima and maxima of planes"),
    )
}  # fmt: skip
