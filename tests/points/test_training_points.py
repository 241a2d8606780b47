import dataclasses

import numpy as np
import pytest
import trimesh

from ff3d.geometry.coordinates import UnitCube
from ff3d.labels.oracles import make_oracle
from ff3d.points.config import SamplingConfig
from ff3d.points.training_points import REACH, TrainingPoints
from ff3d.settings import make_config

BALL = trimesh.creation.icosphere(subdivisions=4, radius=3.0)
CUBE = UnitCube.padded(BALL.vertices)


COUNT = 4000


def make_points(seed=0, **settings):
    return TrainingPoints(BALL, make_oracle(BALL), CUBE, make_config("fast", **settings).sampling, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["occupancy", "distance"])
def test_a_pool_is_a_function_of_the_seed_and_its_number(target):
    first, again = make_points(target=target), make_points(target=target)
    again(0, COUNT)  # another order
    for index in (3, 0):
        for one, other in zip(first(index, COUNT), again(index, COUNT), strict=True):
            assert np.array_equal(one, other)
    points = [make_points(target=target, seed=seed)(index, COUNT).points for seed, index in ((0, 0), (0, 1), (1, 0))]
    assert len({it.tobytes() for it in points}) == 3
    assert [len(it) for it in points] == [4000] * 3


@pytest.mark.parametrize("count", [1, 3, 2002])
def test_a_pool_has_exactly_as_many_points_as_are_wanted(count):
    pool = make_points()(5, count)
    assert pool.points.shape == (count, 3)
    assert pool.targets.shape == (count,)
    assert {it.dtype for it in pool} == {np.dtype(np.float32)}


def test_labels_are_those_of_the_oracle():
    pool = make_points(target="occupancy", widths=(0.01, 0.1))(0, COUNT)
    inside = make_oracle(BALL)(CUBE.from_unit(pool.points.astype(np.float64)))
    assert 0.2 < inside.mean() < 0.8
    assert (pool.targets == inside).mean() > 0.999  # float32 moves a point by up to 1e-7


def test_distances_are_those_of_the_ball_in_bands():
    band = 0.02
    pool = make_points(band=band, widths=(0.005, 0.02, 0.2))(0, COUNT)
    radius = np.linalg.norm(CUBE.from_unit(pool.points.astype(np.float64)), axis=1)
    true = np.clip((3.0 - radius) / CUBE.scale / band, -REACH, REACH)
    assert np.abs(pool.targets - true).max() < 0.002 * 3.0 / CUBE.scale / band  # how far faces cut below the sphere
    assert (np.abs(pool.targets) == REACH).mean() > 0.1


def test_of_parts_that_overlap_only_the_surface_of_the_whole_is_taught():
    from ff3d.geometry.distances import TruncatedDistance

    boxes = [trimesh.creation.box((1.0, 0.8, 0.6)), trimesh.creation.box((0.5, 1.4, 0.5))]
    both, union = trimesh.util.concatenate(boxes), trimesh.boolean.union(boxes, engine="manifold")
    cube, oracle, band = UnitCube.padded(both.vertices), make_oracle(both), 0.003
    sampling = make_config("fast", band=band, uniform=0.0).sampling
    pool = TrainingPoints(both, oracle, cube, sampling, seed=0)(0, 131_072)
    points = cube.from_unit(pool.points.astype(np.float64))
    exact = TruncatedDistance(union.vertices, union.faces, 1.0, unit=cube.scale).signed(points, oracle)
    assert np.abs(exact).max() < 0.006  # six of the widest noise
    off = np.abs(pool.targets - np.clip(exact / band, -REACH, REACH))
    assert off.max() < 1  # where the boxes meet, half a reach at most
    assert (off > 0.01).mean() < 0.003


def test_what_is_not_near_the_surface_comes_from_where_it_is_told_to():
    corner = make_points().bounds[0]

    def share_at_corner(uniform):
        sampling = dataclasses.replace(make_config("fast").sampling, uniform=uniform)
        points = TrainingPoints(
            BALL,
            make_oracle(BALL),
            CUBE,
            sampling,
            seed=0,
            everywhere=lambda count, rng: np.tile(corner, (count, 1)),
        )(0, COUNT).points
        return (np.abs(points - CUBE.to_unit(corner[None])) < 1e-6).all(axis=1).mean()

    assert share_at_corner(0.25) == 0.25
    assert share_at_corner(0.0) == 0


def test_settings_read_from_a_file_are_those_given_in_python():
    assert SamplingConfig(widths=[0.1, 0.2]) == SamplingConfig(widths=(0.1, 0.2))
