import numpy as np
import pytest
import trimesh

from ff3d.labels.oracles import load_surface
from ff3d.settings import make_config
from ff3d.theory.ntk import KernelRegression
from ff3d.theory.pictures import PictureError
from ff3d.theory.predictions import best_scale, gradient_time, neighbourhoods, predicted_error
from ff3d.theory.shapes import ntk, ntk_picture

BALL = trimesh.creation.icosphere(subdivisions=3)


def test_a_neighbourhood_stands_for_every_training_point_and_has_all_that_are_near():
    shape, config = load_surface(BALL), make_config(steps=40)
    for at in neighbourhoods(shape, config, places=1, size=400):
        assert len(at.points) == pytest.approx(400, rel=0.2)
        assert at.weights.sum() == pytest.approx(40 * 8192 / 2, rel=0.5)
        near = at.points[at.weights == 1]
        assert len(near) > 50
        center = near.mean(axis=0)
        assert np.linalg.norm(at.tests - center, axis=1).max() < 3 * np.linalg.norm(near - center, axis=1).max()
        assert 0.2 < np.mean(at.test_targets > 0) < 0.8


def test_of_more_points_than_are_drawn_each_stands_for_several(monkeypatch):
    monkeypatch.setattr("ff3d.theory.predictions.MOST", 40_000)
    (at,) = neighbourhoods(load_surface(BALL), make_config(steps=40), places=1, size=400)
    assert at.weights.min() == pytest.approx(40 * 8192 / 2 / 40_000)
    assert at.weights.sum() == pytest.approx(40 * 8192 / 2, rel=0.5)
    assert len(at.tests) > 50


def test_more_steps_get_further_and_errors_fall():
    shape = load_surface(BALL)
    places = neighbourhoods(shape, make_config(steps=20), places=1, size=300)
    errors = [predicted_error(make_config(mapping="gaussian", scale=4.0, steps=steps), places) for steps in (2, 200)]
    assert errors[1] < errors[0] / 2


def test_what_has_no_steps_is_not_predicted():
    with pytest.raises(ValueError, match="give steps, not seconds"):
        predicted_error(make_config(mapping="gaussian", seconds=3), [])


def test_adam_goes_faster_where_the_gradient_is_short():
    optimiser, kernel = make_config(mapping="gaussian", steps=50).optimiser, np.diag([2.0, 0.5, 0.1])
    times = [gradient_time(KernelRegression(kernel, size * np.ones(3), 1.0), 1.0, optimiser, 50) for size in (1.0, 0.1)]
    assert times[1] > times[0] > 0


def test_the_best_scale_is_a_parabolas_least_or_an_end():
    errors = {scale: np.log(scale / 5) ** 2 + 0.1 for scale in (2.0, 4.0, 8.0, 16.0)}
    assert best_scale(errors) == pytest.approx(5)
    assert best_scale({1.0: 0.1, 2.0: 0.2}) == 1.0


def test_eigenvectors_reach_the_slice_and_waves_are_learned_low_ones_first():
    kernels = ntk(BALL, ("basic", "gaussian"), points=200, slices=8)
    for report in kernels.reports:
        assert report.eigenvalues.sum() == pytest.approx(1)
        assert report.profile[0] == 1
        assert set(report.modes) == {0, 1, 4, 16, 64}
        assert all(values.shape == (8, 8) for values in report.modes.values())
    basic = kernels.reports[0].waves
    assert np.all(basic[:, 0] >= basic[:, 15])
    assert kernels.order() == ["basic", "gaussian"]
    assert kernels.best_scale() is None


@pytest.mark.slow
def test_of_a_picture_scales_too_small_and_too_large_are_predicted_to_do_worse():
    settings = {"points": 100, "slices": 0, "fit_steps": 300, "scales": (2, 8, 64), "size": 256}
    kernels = ntk_picture("camera", ("none",), **settings)
    errors = {it.scale: it.error for it in kernels.predicted}
    assert errors[8] < min(errors.values()) * 1.001
    assert kernels.best_scale() == pytest.approx(8, rel=0.5)
    assert kernels.said(kernels.predicted[2]).startswith("PSNR at held-out pixels 2")


def test_a_scale_of_zero_is_refused_and_not_taken_for_none_given():
    for scales in ((0.0, 4.0), (4.0, -1.0)):
        with pytest.raises(ValueError, match="scale must be a positive number"):
            ntk(BALL, ("gaussian",), points=50, fit_steps=5, scales=scales)
        with pytest.raises(ValueError, match="scale must be a positive number"):
            ntk_picture("text-0", ("gaussian",), points=50, fit_steps=5, scales=scales)


def test_a_picture_that_does_not_fit_into_memory_is_not_read(monkeypatch):
    monkeypatch.setattr("ff3d.theory.shapes.available_memory", lambda: 10**6)
    with pytest.raises(PictureError, match="megapixels take"):
        ntk_picture("camera", ("none",), points=20)
