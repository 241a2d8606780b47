import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import cache
from itertools import product

import igl
import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from ff3d.geometry.coordinates import UnitCube
from ff3d.geometry.crossings import Stations
from ff3d.geometry.surface_cells import INSIDE, REACH, UNKNOWN, SurfaceCells, touched_cells
from ff3d.labels.winding_number import WindingNumberOracle


def oracle_of(mesh: trimesh.Trimesh) -> WindingNumberOracle:
    return WindingNumberOracle(mesh)


def holed(mesh: trimesh.Trimesh, keep) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces[keep(mesh.triangles_center)], process=False)


def uniform(oracle, count=100_000, seed=0, growth=0.05):
    return np.random.default_rng(seed).uniform(-growth, 1 + growth, size=(count, 3))


def exact(oracle, unit):
    return igl.winding_number(oracle._vertices, oracle._faces, np.ascontiguousarray(unit))


def meets(triangle, cell) -> int:
    """The corners of what a triangle has in common with the unit cell at `cell`, by clipping it without rounding."""
    polygon = [[Fraction(float(x)) for x in corner] for corner in triangle]
    for axis, side in product(range(3), (-1, 1)):
        wall = Fraction(int(cell[axis])) if side < 0 else Fraction(int(cell[axis]) + 1)
        clipped = []
        for one, other in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            a, b = side * (wall - one[axis]), side * (wall - other[axis])
            if a >= 0:
                clipped.append(one)
            if (a > 0 > b) or (a < 0 < b):
                clipped.append([x + a / (a - b) * (y - x) for x, y in zip(one, other, strict=True)])
        polygon = clipped
    return len(polygon)


coordinate = st.floats(0.5, 8, width=32)


@pytest.mark.slow
@settings(max_examples=60)
@given(corners=st.lists(coordinate, min_size=9, max_size=9))
def test_no_cell_that_a_triangle_meets_is_missed_and_hardly_one_too_many_is_named(corners):
    triangle = np.array(corners).reshape(1, 3, 3)
    face, cells, level = touched_cells(triangle, 2_000_000)
    assert level == 0
    assert (face == 0).all()
    found = {tuple(cell) for cell in cells.tolist()}
    for cell in product(range(9), repeat=3):
        if meets(triangle[0], cell):
            assert cell in found
        elif cell in found:  # then it comes nearer than the reach
            assert meets((triangle[0] - cell + 3 * REACH) / (1 + 6 * REACH), (0, 0, 0))


@pytest.mark.slow
def test_cells_stay_larger_where_there_would_be_too_many():
    corners = np.random.default_rng(0).uniform(0, 512, size=(20_000, 3, 3))
    _, cells, level = touched_cells(corners, 2_000_000)
    assert level > 0
    assert cells.max() < 512 / 2**level + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh",
    [
        trimesh.creation.icosphere(subdivisions=4),
        trimesh.creation.box(extents=(1, 0.3, 0.02)),
        trimesh.creation.torus(1.0, 0.2),
        trimesh.util.concatenate([trimesh.creation.box(), trimesh.creation.icosphere(radius=0.7)]),
        holed(trimesh.creation.icosphere(subdivisions=4), lambda at: at[:, 2] < 0.8),
        holed(trimesh.creation.icosphere(subdivisions=3), lambda at: at[:, 2] < 0.0),
        holed(trimesh.creation.box(), lambda at: at[:, 0] < 0.4),
    ],
    ids=["sphere", "thin box", "torus", "overlap", "hole", "half sphere", "open box"],
)
def test_every_label_of_the_grid_is_that_of_the_exact_winding_number(mesh):
    oracle = oracle_of(mesh)
    unit = uniform(oracle)
    label = oracle.grid.look_up(unit)
    known = label != UNKNOWN
    assert known.mean() > 0.2
    assert np.array_equal(label[known] == INSIDE, exact(oracle, unit[known]) > 0.5)


@pytest.mark.slow
def test_the_grid_changes_no_bit_of_the_answers():
    mesh = holed(trimesh.creation.icosphere(subdivisions=4), lambda at: at[:, 2] < 0.9)
    plain, gridded = oracle_of(mesh), oracle_of(mesh)
    points = np.random.default_rng(1).uniform(-1.2, 1.2, size=(100_000, 3))
    assert gridded.grid is gridded.grid
    assert np.array_equal(plain(points), gridded(points))
    assert "grid" not in plain.__dict__


@pytest.mark.slow
def test_a_closed_surface_leaves_only_cells_at_the_surface_unknown():
    oracle = oracle_of(trimesh.creation.icosphere(subdivisions=5))
    assert oracle.closed
    unit = uniform(oracle)
    unknown = unit[oracle.grid.look_up(unit) == UNKNOWN]
    radius = 1 / oracle.cube.scale
    assert np.abs(np.linalg.norm(unknown - 0.5, axis=1) - radius).max() < 2 * oracle.grid.cell
    assert oracle.grid.known_share > 0.98


@pytest.mark.slow
def test_a_hole_leaves_cells_unknown_only_near_it():
    mesh = holed(trimesh.creation.icosphere(subdivisions=5), lambda at: at[:, 2] < 0.98)
    grid = oracle_of(mesh).grid
    assert 0.9 < grid.known_share < 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_are_looked_up_as_arrays_are(dtype):
    oracle = oracle_of(trimesh.creation.torus(1.0, 0.3))
    unit = torch.from_numpy(uniform(oracle)).to(dtype)
    label = oracle.grid.on("cpu").look_up(unit).numpy()
    known = label != UNKNOWN
    # a float32 point may fall into the next cell, never over the surface
    assert np.array_equal(label[known] == INSIDE, oracle(oracle.cube.from_unit(unit.double().numpy()))[known])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_the_gpu_looks_up_the_same():
    oracle = oracle_of(trimesh.creation.torus(1.0, 0.3))
    unit = uniform(oracle).astype(np.float32)
    there = oracle.grid.on("cuda").look_up(torch.from_numpy(unit).cuda()).cpu().numpy()
    assert np.array_equal(there, oracle.grid.look_up(unit))


@pytest.mark.slow
def test_points_far_away_are_outside_a_closed_surface_and_evaluated_beside_an_open_one():
    far = np.array([[1e6, 0, 0], [-1e6, 0.5, 0.5], [0.5, 0.5, 40], [0.5, -3, 0.5]])
    closed = oracle_of(trimesh.creation.box())
    assert (closed.grid.look_up(far) == 0).all()
    opened = oracle_of(holed(trimesh.creation.box(), lambda at: at[:, 0] < 0.4))
    assert (opened.grid.look_up(far) == UNKNOWN).all()


@pytest.mark.slow
@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_the_grid_of_any_soup_agrees_with_the_exact_sum(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 1, size=(rng.integers(1, 30), 1, 3)) + rng.normal(0, 0.2, size=(1, 3, 3))
    mesh = trimesh.Trimesh(corners.reshape(-1, 3), np.arange(len(corners) * 3).reshape(-1, 3), process=False)
    oracle = oracle_of(mesh)
    unit = uniform(oracle, 20_000, seed)
    label = oracle.grid.look_up(unit)
    known = label != UNKNOWN
    assert np.array_equal(label[known] == INSIDE, exact(oracle, unit[known]) > 0.5)


def test_the_cube_of_the_grid_is_that_of_the_oracle():
    mesh = trimesh.creation.box()
    assert oracle_of(mesh).cube == UnitCube.padded(mesh.vertices)


@cache
def torn_torus() -> WindingNumberOracle:
    return oracle_of(holed(trimesh.creation.torus(1.0, 0.2), lambda at: at[:, 0] < 1.1))


@pytest.mark.slow
@pytest.mark.parametrize("side", [1.0, 0.1, 0.02, 0.006, 0.001])
def test_a_cube_that_holds_no_surface_has_one_label(side):
    oracle = torn_torus()
    rng = np.random.default_rng(0)
    centers = rng.random((1000, 3))
    near = oracle.grid.may_hold_surface(centers, side)
    label = oracle.grid.look_up(centers)
    assert not (label[~near] == UNKNOWN).any()
    for _ in range(20):
        inside = centers + side * (rng.random((1000, 3)) - 0.5)
        assert np.array_equal(oracle.grid.look_up(inside)[~near], label[~near])
    corners = oracle._vertices[oracle._faces]
    on_surface = np.einsum("nk,nkd->nd", rng.dirichlet([1, 1, 1], 1000), corners[rng.integers(len(corners), size=1000)])
    assert oracle.grid.may_hold_surface(on_surface + side * (rng.random((1000, 3)) - 0.5), side).all()


@pytest.mark.slow
def test_surface_cells_know_the_side_of_every_point_that_they_have_a_label_for():
    shape = trimesh.creation.torus(1.0, 0.4)
    oracle = oracle_of(shape)
    cells = oracle.grid.surface_cells()
    points = np.random.default_rng(0).uniform(-0.2, 1.2, (100_000, 3))
    side, inside = cells.sides(points), oracle.winding_number(oracle.cube.from_unit(points)) > 0.5
    assert set(np.unique(side)) == {-2, -1, 0, 1, 2}
    assert np.array_equal(side[side != 0] > 0, inside[side != 0])
    # 2 is further from the surface than a cell, and from any cell that it touches
    near = oracle.cube.from_unit(points[:2000])
    squared, _, _ = igl.point_mesh_squared_distance(near, np.array(shape.vertices), np.array(shape.faces))
    distance = np.sqrt(squared) / oracle.cube.scale
    assert distance[np.abs(side[:2000]) == 2].min() > cells.side
    assert distance[side[:2000] == 0].max() < np.sqrt(3) * cells.side


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.03, -0.02])  # boxes that reach past the grid, and that end within it
@pytest.mark.parametrize("whole", [True, False])
def test_points_are_drawn_uniformly_from_all_of_a_box_that_has_no_label(whole, margin):
    ball = trimesh.creation.icosphere(subdivisions=3)
    oracle = oracle_of(ball if whole else holed(ball, lambda middle: middle[:, 2] < 0.8))
    cells = oracle.grid.surface_cells()
    top = cells.lower + np.array(cells.labels.shape) * cells.side
    box = np.array([cells.lower - margin, top + margin])
    points = cells.draw(50_000, np.random.default_rng(0), box)
    assert ((points >= box[0]) & (points <= box[1])).all()
    assert (cells.sides(points) == 0).all()
    tried = np.random.default_rng(1).uniform(*box, (2_000_000, 3))
    kept = tried[cells.sides(tried) == 0]
    beyond = ((kept < cells.lower) | (kept > top)).any(axis=1).mean()
    assert (beyond > 0.1) == (not whole and margin > 0)  # no closed surface leaves the space about it open
    bins = [np.linspace(*ends, 9) for ends in box.T]
    one, other = (np.histogramdd(sample, bins)[0].ravel() / len(sample) for sample in (points, kept))
    spread = (one - other) ** 2 / np.maximum(other, 1 / len(kept)) / (1 / len(points) + 1 / len(kept))
    filled = other * len(points) > 20
    assert one[~filled].sum() < 0.02
    assert abs(spread[filled].sum() - filled.sum()) < 5 * np.sqrt(2 * filled.sum())  # chi squared


@pytest.mark.slow
def test_of_a_surface_with_a_hole_the_cells_that_are_not_sure_have_no_label():
    oracle = oracle_of(holed(trimesh.creation.icosphere(subdivisions=3), lambda middle: middle[:, 2] < 0.8))
    cells = oracle.grid.surface_cells()
    assert (cells.labels == UNKNOWN).any()
    points = np.random.default_rng(0).uniform(0.05, 0.95, (20_000, 3))
    side, inside = cells.sides(points), oracle.winding_number(oracle.cube.from_unit(points)) > 0.5
    assert np.array_equal(side[side != 0] > 0, inside[side != 0])


@pytest.mark.slow
def test_outermost_cells_of_a_surface_with_a_hole_have_the_labels_that_hold_in_a_box():
    oracle = oracle_of(holed(trimesh.creation.icosphere(subdivisions=4), lambda middle: middle[:, 2] < 0.4))
    cells = oracle.grid.surface_cells()
    box = np.array([[-0.1] * 3, [1.1] * 3])
    settled = cells.settled(box, lambda unit: oracle.winding_number(oracle.cube.from_unit(unit)))
    assert np.array_equal(settled.labels[1:-1, 1:-1, 1:-1], cells.labels[1:-1, 1:-1, 1:-1])
    top = cells.lower + np.array(cells.labels.shape) * cells.side
    beyond = np.random.default_rng(0).uniform(*box, (400_000, 3))
    beyond = beyond[((beyond < cells.lower + cells.side) | (beyond > top - cells.side)).any(axis=1)]
    assert (cells.sides(beyond) == 0).all()
    side, inside = settled.sides(beyond), exact(oracle, beyond) > 0.5
    assert 0.5 < (side != 0).mean() < 1
    assert np.array_equal(side[side != 0] > 0, inside[side != 0])


def test_where_every_cell_has_a_label_no_point_can_be_drawn():
    cells = SurfaceCells(np.zeros(3), 1.0, np.zeros((3, 3, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="all of the box has labels"):
        cells.draw(1, np.random.default_rng(0), np.array([[0.0] * 3, [3.0] * 3]))


@pytest.mark.slow
def test_surface_cells_are_met_by_every_cube_on_the_surface():
    oracle = oracle_of(trimesh.creation.icosphere(subdivisions=3))
    cells = oracle.grid.surface_cells()
    rng = np.random.default_rng(0)
    points = oracle.cube.to_unit(
        trimesh.sample.sample_surface(trimesh.creation.icosphere(subdivisions=3), 2000, seed=0)[0]
    )
    for side in (0.05, 0.3, cells.side):
        assert cells(points + side * (rng.random((2000, 3)) - 0.5), side).all()
    assert not cells(np.array([[0.5, 0.5, 0.5], [5, 5, 5], [-3, 0.5, 0.5]]), cells.side).any()
    assert not cells(points, cells.side / 2).any()


# --- cells that triangles touch


def noise():
    ball = trimesh.creation.icosphere(subdivisions=4)
    ball.vertices *= 1 + 0.1 * np.random.default_rng(0).standard_normal((len(ball.vertices), 1))
    return ball


def thin_ball():
    inner = trimesh.creation.icosphere(subdivisions=4, radius=0.9995)
    inner.invert()
    return trimesh.util.concatenate([trimesh.creation.icosphere(subdivisions=4), inner])


def overlap():
    parts = trimesh.creation.icosphere(subdivisions=4), trimesh.creation.box(extents=(1.7, 0.2, 0.3))
    return trimesh.util.concatenate([*parts, slivers("cone")])


def needles():
    rng = np.random.default_rng(0)
    parts = [trimesh.creation.cylinder(radius=0.004, segment=ends, sections=3) for ends in rng.random((300, 2, 3))]
    return trimesh.util.concatenate(parts)


HARD = {
    "cylinder": lambda: trimesh.creation.cylinder(radius=1.0, height=2.0, sections=1500),
    "cup": lambda: holed(slivers("cylinder"), lambda at: at[:, 2] < 0.9),
    "cone": lambda: trimesh.creation.cone(radius=1.0, height=2.0, sections=2000),
    "noise": noise,
    "thin ball": thin_ball,
    "plate": lambda: trimesh.creation.box(extents=(1, 1, 1e-4)).subdivide().subdivide().subdivide(),
    "overlap": overlap,
    "apex": lambda: trimesh.creation.cone(radius=1.0, height=2.0, sections=4000),
    "pipe": lambda: trimesh.creation.annulus(r_min=0.9, r_max=1.0, height=20.0, sections=1500),
    "needles": needles,
}


@cache
def slivers(kind: str) -> trimesh.Trimesh:
    return HARD[kind]()


@cache
def hard_oracle(kind: str) -> WindingNumberOracle:
    return oracle_of(slivers(kind))


def near_surface(mesh: trimesh.Trimesh, count: int, distance: float) -> np.ndarray:
    points = trimesh.sample.sample_surface(mesh, count, seed=0)[0]
    return np.asarray(points) + distance * np.random.default_rng(0).standard_normal((count, 3))


@pytest.mark.parametrize("kind", list(HARD))
@pytest.mark.parametrize("distance", [1e-1, 1e-2, 1e-4, 1e-7])
def test_labels_next_to_the_surface_are_those_of_the_sum_over_all_faces(kind, distance):
    mesh, oracle = slivers(kind), hard_oracle(kind)
    assert oracle.grid.known_share > 0.4
    points = near_surface(mesh, 2000, distance)
    number = exact(oracle, oracle.cube.to_unit(points))
    sure = np.abs(number - 0.5) > 1e-6
    assert sure.mean() > 0.99
    assert np.array_equal((oracle._by_grid(oracle.cube.to_unit(points)) > 0.5)[sure], (number > 0.5)[sure])


@pytest.mark.parametrize("kind", ["cylinder", "cone", "thin ball", "overlap", "apex", "pipe", "needles"])
def test_hardly_a_point_next_to_long_thin_triangles_is_left_to_the_sum_over_all_faces(kind):
    oracle = hard_oracle(kind)
    number, _ = oracle.grid.whole_number(oracle.cube.to_unit(near_surface(slivers(kind), 20_000, 0.01)))
    assert np.isnan(number).mean() < 1e-3


@pytest.mark.parametrize("kind", [kind for kind in HARD if kind != "plate"])
def test_the_winding_number_of_a_surface_and_its_caps_is_whole_and_told_without_a_sum(kind):
    oracle = hard_oracle(kind)
    unit = np.concatenate([uniform(oracle, 3000), oracle.cube.to_unit(near_surface(slivers(kind), 3000, 0.003))])
    number = exact(oracle, unit)
    if oracle._caps is not None:
        caps = oracle._caps.triangles
        number += igl.winding_number(caps.reshape(-1, 3), np.arange(3 * len(caps)).reshape(-1, 3), unit)
    told, _ = oracle.grid.whole_number(unit)
    known = ~np.isnan(told)
    assert known.mean() > 0.999
    assert np.abs(told - number)[known].max() < 1e-6


@pytest.mark.parametrize("kind", ["cone", "cup", "pipe", "needles"])
def test_a_point_has_the_same_label_whatever_other_points_are_labelled_with_it(kind):
    points = near_surface(slivers(kind), 20_000, 0.01)
    together, alone = (WindingNumberOracle(slivers(kind)) for _ in range(2))
    _ = together.grid, alone.grid
    whole = together(points)
    assert np.array_equal(whole, np.concatenate([alone(part) for part in np.array_split(points, 40)]))
    assert np.array_equal(whole[::7], alone(points[::7]))


@pytest.mark.slow
@settings(max_examples=10)
@given(
    sides=st.integers(3, 400),
    height=st.floats(1e-3, 10),
    tip=st.floats(-2, 2),
    wall=st.floats(1e-3, 0.9),
    distance=st.sampled_from([0.1, 1e-2, 1e-5]),
)
def test_cones_and_pipes_of_any_shape_have_the_labels_of_the_exact_sum(sides, height, tip, wall, distance):
    cone = trimesh.creation.cone(radius=1.0, height=height, sections=sides)
    cone.vertices[cone.vertices[:, 2] > height / 2, 0] += tip
    pipe = trimesh.creation.annulus(r_min=1 - wall, r_max=1.0, height=height, sections=sides)
    for mesh in (cone, pipe, trimesh.util.concatenate([cone, pipe])):
        oracle = oracle_of(mesh)
        unit = oracle.cube.to_unit(near_surface(mesh, 300, distance))
        number = exact(oracle, unit)
        sure = np.abs(number - 0.5) > 1e-6
        assert np.array_equal((oracle._by_grid(unit) > 0.5)[sure], (number > 0.5)[sure])


@pytest.mark.parametrize("kind", ["cylinder", "noise", "overlap", "needles"])
def test_the_space_around_the_shape_and_crossings_tell_every_pocket(kind):
    grid = hard_oracle(kind).grid
    spaces, triangles = grid.__dict__["_stations"].spaces, hard_oracle(kind)._vertices[hard_oracle(kind)._faces]
    assert spaces.number[spaces.of_coarse[0, 0, 0]] == 0
    assert not np.isnan(spaces.number[1:]).any()
    cells = np.random.default_rng(0).permutation(np.argwhere(grid.table <= INSIDE))[:500]
    points = grid.lower + (cells + 0.5) * grid.side
    label = grid.look_up(points)
    number = igl.winding_number(triangles.reshape(-1, 3), np.arange(3 * len(triangles)).reshape(-1, 3), points)
    assert np.array_equal(label == INSIDE, number > 0.5)


def test_an_oracle_answers_several_threads_as_it_does_one(monkeypatch):
    mesh = trimesh.creation.uv_sphere(count=(96, 96))
    directions = np.random.default_rng(0).standard_normal((40_000, 3)) * [0.05, 0.05, 1]  # most at the crowded poles
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    parts = np.split(directions * np.random.default_rng(1).normal(1, 0.002, (40_000, 1)), 8)
    alone, shared = oracle_of(mesh), oracle_of(mesh)
    assert alone.grid.known_share > 0.5
    expected = [alone(part) for part in parts]
    inside, most, whole_number = [0], [0], Stations.whole_number

    def counted(stations, points):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        found = whole_number(stations, points)
        inside[0] -= 1
        return found

    monkeypatch.setattr(Stations, "whole_number", counted)
    assert shared.grid.known_share > 0.5
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(shared, parts))
    assert all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True))
    assert most == [1]  # each call finds out what the next ones use
