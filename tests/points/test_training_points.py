import dataclasses

import numpy as np
import pytest
import trimesh

from ff3d.geometry.coordinates import UnitCube
from ff3d.labels.oracles import make_oracle
from ff3d.points.training_points import REACH, Supply
from ff3d.settings import make_config

BALL = trimesh.creation.icosphere(subdivisions=4, radius=3.0)
CUBE = UnitCube.padded(BALL.vertices)


def supply(**settings):
    config = make_config("fast", **({"batch_size": 1000, "pool_size": 4000, "steps": 1} | settings))
    return Supply(BALL, make_oracle(BALL), CUBE, config)


@pytest.mark.parametrize("target", ["occupancy", "distance"])
def test_a_pool_is_a_function_of_the_seed_and_its_number(target):
    first, again = supply(target=target), supply(target=target)
    again(0)  # another order
    for index in (3, 0):
        for one, other in zip(first(index), again(index), strict=True):
            assert np.array_equal(one, other)
    points = [supply(target=target, seed=seed)(index).points for seed, index in ((0, 0), (0, 1), (1, 0))]
    assert len({it.tobytes() for it in points}) == 3
    assert [len(it) for it in points] == [4000] * 3


@pytest.mark.parametrize("batch_size", [1, 3, 1001])
def test_a_pool_has_as_many_points_as_its_batches(batch_size):
    pool = supply(batch_size=batch_size, pool_size=2 * batch_size)(5)
    assert pool.points.shape == (2 * batch_size, 3)
    assert pool.targets.shape == (2 * batch_size,)
    assert {it.dtype for it in pool} == {np.dtype(np.float32)}


def test_labels_are_those_of_the_oracle():
    pool = supply(target="occupancy", widths=(0.01, 0.1))(0)
    inside = make_oracle(BALL)(CUBE.from_unit(pool.points.astype(np.float64)))
    assert 0.2 < inside.mean() < 0.8
    assert (pool.targets == inside).mean() > 0.999  # float32 moves a point by up to 1e-7


def test_distances_are_those_of_the_ball_in_bands():
    band = 0.02
    pool = supply(band=band, widths=(0.005, 0.02, 0.2))(0)
    radius = np.linalg.norm(CUBE.from_unit(pool.points.astype(np.float64)), axis=1)
    true = np.clip((3.0 - radius) / CUBE.scale / band, -REACH, REACH)
    assert np.abs(pool.targets - true).max() < 0.002 * 3.0 / CUBE.scale / band  # how far faces cut below the sphere
    assert (np.abs(pool.targets) == REACH).mean() > 0.1


def test_of_parts_that_overlap_only_the_surface_of_the_whole_is_taught():
    from ff3d.geometry.distances import TruncatedDistance

    boxes = [trimesh.creation.box((1.0, 0.8, 0.6)), trimesh.creation.box((0.5, 1.4, 0.5))]
    both, union = trimesh.util.concatenate(boxes), trimesh.boolean.union(boxes, engine="manifold")
    cube, oracle, band = UnitCube.padded(both.vertices), make_oracle(both), 0.003
    pool = Supply(both, oracle, cube, make_config("fast", band=band, uniform=0.0, steps=1))(0)
    points = cube.from_unit(pool.points.astype(np.float64))
    exact = TruncatedDistance(union.vertices, union.faces, 1.0, unit=cube.scale).signed(points, oracle)
    assert np.abs(exact).max() < 0.006  # six of the widest noise
    off = np.abs(pool.targets - np.clip(exact / band, -REACH, REACH))
    assert off.max() < 1  # where the boxes meet, half a reach at most
    assert (off > 0.01).mean() < 0.003


def test_what_is_not_near_the_surface_comes_from_where_it_is_told_to():
    mine = supply(uniform=0.25)
    corner = np.array(mine._bounds[0])
    mine = Supply(BALL, make_oracle(BALL), CUBE, mine.config, lambda count, rng: np.tile(corner, (count, 1)))
    at_corner = (np.abs(mine(0).points - CUBE.to_unit(corner[None])) < 1e-6).all(axis=1)
    assert at_corner.sum() == 1000
    none = Supply(
        BALL,
        make_oracle(BALL),
        CUBE,
        dataclasses.replace(mine.config, uniform=0.0),
        lambda count, rng: np.tile(corner, (count, 1)),
    )
    assert not (np.abs(none(0).points - CUBE.to_unit(corner[None])) < 1e-6).all(axis=1).any()
