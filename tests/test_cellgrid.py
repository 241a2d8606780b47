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

from ff3d.cellgrid import INSIDE, REACH, UNKNOWN, touched_cells
from ff3d.mesh import UnitCube
from ff3d.occupancy import WindingNumberOracle


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


@settings(max_examples=60)
@given(corners=st.lists(coordinate, min_size=9, max_size=9))
def test_no_cell_that_a_triangle_meets_is_missed_and_hardly_one_too_many_is_named(corners):
    triangle = np.array(corners).reshape(1, 3, 3)
    cells, level = touched_cells(triangle)
    assert level == 0
    found = {tuple(cell) for cell in cells.tolist()}
    for cell in product(range(9), repeat=3):
        if meets(triangle[0], cell):
            assert cell in found
        elif cell in found:  # then it comes nearer than the reach
            assert meets((triangle[0] - cell + 3 * REACH) / (1 + 6 * REACH), (0, 0, 0))


def test_cells_stay_larger_where_there_would_be_too_many():
    corners = np.random.default_rng(0).uniform(0, 512, size=(20_000, 3, 3))
    cells, level = touched_cells(corners)
    assert level > 0
    assert cells.max() < 512 / 2**level + 1


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


def test_the_grid_changes_no_bit_of_the_answers():
    mesh = holed(trimesh.creation.icosphere(subdivisions=4), lambda at: at[:, 2] < 0.9)
    plain, gridded = oracle_of(mesh), oracle_of(mesh)
    points = np.random.default_rng(1).uniform(-1.2, 1.2, size=(100_000, 3))
    assert gridded.grid is gridded.grid
    assert np.array_equal(plain(points), gridded(points))
    assert "grid" not in plain.__dict__


def test_a_closed_surface_leaves_only_cells_at_the_surface_unknown():
    oracle = oracle_of(trimesh.creation.icosphere(subdivisions=5))
    assert oracle.closed
    unit = uniform(oracle)
    unknown = unit[oracle.grid.look_up(unit) == UNKNOWN]
    radius = 1 / oracle.cube.scale
    assert np.abs(np.linalg.norm(unknown - 0.5, axis=1) - radius).max() < 2 * oracle.grid.cell
    assert oracle.grid.known_share > 0.98


def test_a_hole_leaves_cells_unknown_only_near_it():
    mesh = holed(trimesh.creation.icosphere(subdivisions=5), lambda at: at[:, 2] < 0.98)
    grid = oracle_of(mesh).grid
    assert 0.9 < grid.known_share < 1


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


def test_points_far_away_are_outside_a_closed_surface_and_asked_about_beside_an_open_one():
    far = np.array([[1e6, 0, 0], [-1e6, 0.5, 0.5], [0.5, 0.5, 40], [0.5, -3, 0.5]])
    closed = oracle_of(trimesh.creation.box())
    assert (closed.grid.look_up(far) == 0).all()
    opened = oracle_of(holed(trimesh.creation.box(), lambda at: at[:, 0] < 0.4))
    assert (opened.grid.look_up(far) == UNKNOWN).all()


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
