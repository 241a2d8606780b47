"""Segments in cells, the triangles they cross, and cones that say which they may cross: against exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ff3d.geometry.crossings import CONES, CROWD, STATIONS, CellFaces

coordinate = st.floats(0.5, 8, width=32)


@settings(max_examples=60)
@given(corners=st.lists(coordinate, min_size=18, max_size=18), seed=st.integers(0, 99))
def test_a_segment_crosses_a_triangle_as_exact_arithmetic_says(corners, seed):
    triangles = np.array(corners).reshape(2, 3, 3)
    faces = CellFaces.of(triangles, np.array([0, 1]), np.array([5, 5]))
    points, ends = np.random.default_rng(seed).uniform(0.5, 8, size=(2, 20, 3))
    number = faces.crossings(np.zeros(20, dtype=int), points, ends)

    def volume(a, b, c, d):
        rows = [[Fraction(float(x)) - Fraction(float(y)) for x, y in zip(p, d, strict=True)] for p in (a, b, c)]
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = rows
        return ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)

    for point, end, counted in zip(points, ends, number, strict=True):
        expected = 0
        for a, b, c in triangles:
            start, stop = volume(a, b, c, point), volume(a, b, c, end)
            sides = [volume(point, end, p, q) for p, q in ((a, b), (b, c), (c, a))]
            if start * stop < 0 and (min(sides) > 0 or max(sides) < 0):
                expected += 1 if start > 0 else -1
        assert np.isnan(counted) or counted == expected


def test_segments_that_meet_an_edge_or_end_on_a_triangle_are_not_sure():
    triangle = np.array([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    faces = CellFaces.of(triangle, np.array([0]), np.array([0]))
    points = np.array([[0.2, 0.2, -1], [0.5, 0.0, -1], [0.5, 0.5, -1], [0, 0, -1], [0.2, 0.2, 0], [2, 2, 0.0]])
    ends = points + [0, 0, 2.0]
    number = faces.crossings(np.zeros(6, dtype=int), points, ends)
    assert np.isnan(number).tolist() == [False, True, True, True, True, False]
    assert number[[0, 5]].tolist() == [1, 0]


def in_one_cell(triangles):
    return CellFaces.of(triangles, np.arange(len(triangles)), np.zeros(len(triangles), dtype=int))


@pytest.mark.parametrize("kind", range(len(CONES)))
@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), stretch=st.sampled_from([1e-3, 1.0, 100.0]), width=st.sampled_from([1.0, 1e-4, 0.0]))
def test_a_triangle_is_in_the_cone_of_each_of_its_points_that_lies_in_the_cell(kind, seed, stretch, width):
    rng = np.random.default_rng(seed)
    middle, along, across = rng.uniform(-0.5, 0.5, (30, 3)), rng.normal(size=(30, 3)), rng.normal(size=(30, 3))
    corners = middle[:, None] + stretch * np.stack([along, -along, width * across - 0.3 * along], axis=1)
    masks = CONES[kind].masks(np.ascontiguousarray((corners - STATIONS[kind]).transpose(2, 1, 0)))
    weights = rng.dirichlet((0.3, 0.3, 0.3), size=(200, 30))
    points = np.concatenate([np.einsum("mnk,nkd->mnd", weights, corners), middle[None]])
    row, face = np.nonzero((np.abs(points) <= 0.5).all(axis=2))
    cone = CONES[kind].find(points[row, face] - STATIONS[kind])
    assert ((masks[face] >> cone) & np.uint64(1)).all()


@pytest.mark.parametrize("kind", range(len(CONES)))
@pytest.mark.parametrize("count", [CROWD, 500])
def test_cones_change_no_number_of_crossings_and_leave_most_triangles_out(kind, count):
    rng = np.random.default_rng(0)
    start, end = rng.uniform(-1, 1, (2, count, 3))
    faces = in_one_cell(np.stack([start, end, end + rng.normal(0, 0.02, (count, 3))], axis=1))
    points = rng.uniform(-0.5, 0.5, (2000, 3))
    ends, cell = np.broadcast_to(STATIONS[kind], points.shape), np.zeros(len(points), dtype=int)
    masks = CONES[kind].masks(np.ascontiguousarray((faces.triangles[faces.face] - STATIONS[kind]).transpose(2, 1, 0)))
    cone = CONES[kind].find(points - ends)
    order = np.argsort(cone)
    for chosen in (order, np.arange(len(points))):  # together with those of the same cone, and not
        number = faces.crossings(cell, points[chosen], ends, masks, cone[chosen])
        assert np.array_equal(number, faces.crossings(cell, points[chosen], ends))
    seen = (masks[None] >> cone[:, None]) & np.uint64(1)
    assert seen.mean() < 0.4
