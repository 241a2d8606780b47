import numpy as np
import pytest
import torch

import ff3d
from ff3d.fields.checkpoint import FitError
from ff3d.theory.images import (
    KEPT_BYTES,
    PUBLISHED,
    SCALED,
    coordinates,
    fit_image,
    fit_images,
    image_config,
    memory_needed,
    plan_images,
    planned_fits,
    predict,
)
from ff3d.theory.pictures import PictureError, load_picture, psnr, text_picture

TINY = {"size": 32, "steps": 60, "width": 32, "frequencies": 32, "device": "cpu"}


def smooth(size=32):
    """A picture of a few low frequencies."""
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin(2 * np.pi * (x + phase)) * np.cos(4 * np.pi * y) for phase in (0, 0.2, 0.4)]
    return load_picture(0.5 + np.stack(waves, axis=-1) / 3)


def test_pixels_lie_where_the_notebook_has_them():
    points = coordinates(6, 6).reshape(6, 6, 2)
    axis = np.linspace(0, 1, 7)[:-1]
    np.testing.assert_allclose(points, np.stack(np.meshgrid(axis, axis), axis=-1), atol=1e-7)
    half = np.linspace(0, 1, 4)[:-1]
    np.testing.assert_allclose(points[::2, ::2], np.stack(np.meshgrid(half, half), axis=-1), atol=1e-7)
    assert coordinates(3, 6).max() == pytest.approx(5 / 6)  # pixels are square


def features_of_the_notebook(points, name, frequencies):
    if name == "none":
        return points
    angles = (2 * np.pi * points) @ frequencies.T
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@pytest.mark.parametrize("name", ["none", "basic", "positional", "gaussian"])
def test_paper_is_the_notebook_written_out(name):
    """Eight steps of the authors' protocol in plain torch, from the same weights, on the same pixels."""
    steps, size = 8, 24
    truth = smooth(size)
    fit = fit_image(truth, name, preset="paper", size=size, steps=steps, frequencies=16, width=24, device="cpu")
    start = fit_image(truth, name, preset="paper", size=size, steps=1, frequencies=16, width=24, device="cpu")
    frequencies = fit.network.mapping.frequencies
    if name == "positional":
        axis = 2.0 ** torch.linspace(0, 6, 8) - 1
        torch.testing.assert_close(frequencies, torch.kron(torch.eye(2), axis[:, None]), atol=1e-4, rtol=1e-6)
    from ff3d.fields.network import Network

    fresh = Network(start.network.mapping, width=24, depth=3, outputs=3, seed=0)
    weights = [parameter.detach().clone().requires_grad_() for parameter in fresh.parameters()]
    moments = [(torch.zeros_like(it), torch.zeros_like(it)) for it in weights]
    pixels = torch.from_numpy(truth.pixels)
    points = torch.from_numpy(coordinates(size, size)).reshape(size, size, 2)

    def run(at):
        hidden = features_of_the_notebook(at, name, frequencies)
        for index in range(0, len(weights), 2):
            hidden = hidden @ weights[index].T + weights[index + 1]
            hidden = hidden.relu() if index < len(weights) - 2 else hidden.sigmoid()
        return hidden

    rate = 1e-2 if name in ("none", "basic") else 1e-3
    for step in range(1, steps + 1):
        loss = 0.5 * ((run(points[::2, ::2]) - pixels[::2, ::2]) ** 2).mean()
        for weight, gradient, (first, second) in zip(weights, torch.autograd.grad(loss, weights), moments, strict=True):
            first.mul_(0.9).add_(0.1 * gradient)
            second.mul_(0.999).add_(0.001 * gradient**2)
            correct = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            weight.data.sub_(rate * correct)
    plain = run(points).detach().numpy()
    np.testing.assert_allclose(fit.pixels, plain, atol=2e-4)
    last = fit.snapshots[-1].row
    assert last["psnr_test"] == pytest.approx(psnr(plain[1::2, 1::2], truth.pixels[1::2, 1::2]), abs=0.01)
    assert last["psnr_train"] == pytest.approx(psnr(plain[::2, ::2], truth.pixels[::2, ::2]), abs=0.01)


def test_the_papers_settings_are_the_papers():
    gaussian, positional, none = (image_config("paper", it) for it in ("gaussian", "positional", "none"))
    assert (gaussian.mapping.scale, gaussian.mapping.frequencies, gaussian.learning_rate) == (10, 256, 1e-3)
    assert (positional.mapping.scale, positional.mapping.notebook) == (2**6, True)
    assert (none.learning_rate, none.budget.steps, none.batch_size) == (1e-2, 2000, None)
    assert (none.network.depth, none.network.width or 256, none.network.precision) == (3, 256, "float32")
    text = [image_config("paper", it, kind="text") for it in ("gaussian", "positional", "none")]
    assert [it.mapping.scale for it in text] == [14, 2**5, None]
    assert {it.learning_rate for it in text} == {1e-3}
    assert all(list(row) == ["none", "basic", "positional", "gaussian"] for row in PUBLISHED.values())


def test_the_lecture_is_two_layers_under_its_module_on_the_whole_picture():
    fit = fit_image(smooth(), preset="lecture", **TINY)
    assert (fit.config.mapping.name, fit.scale, fit.network.depth) == ("lecture", 10, 2)
    assert fit.network.mapping.features == 32
    assert "psnr_test" not in fit.to_json()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["none", "basic", "positional", "gaussian", "lecture", "learned", "grid", "hash"])
def test_every_mapping_learns_a_smooth_picture(name):
    fit = fit_image(smooth(), name, size=32, steps=300, width=64, device="cpu", scale=2.0 if name in SCALED else None)
    last, first = fit.snapshots[-1].row, fit.snapshots[0].row
    assert last["psnr_train"] > max(24, first["psnr_train"] + 6)
    assert np.array_equal(predict(fit.network, (32, 32)), fit.pixels)
    assert name == "positional" or (last["psnr_test"] > 20 and fit.to_json()["ssim"] > 0.6)  # of 64 cycles on 16 pixels


@pytest.mark.slow
def test_a_mapping_shows_the_text_that_raw_coordinates_blur():
    none, gaussian = fit_images(text_picture(0, 64), ("none", "gaussian"), size=64, steps=200, width=64, device="cpu")
    assert gaussian.snapshots[-1].row["psnr_train"] > none.snapshots[-1].row["psnr_train"] + 6


def test_the_same_seed_is_the_same_picture_and_another_is_not():
    one, same, other = (fit_image(smooth(), seed=seed, **TINY).pixels for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_scales_come_after_the_mappings_and_none_twice():
    seen = []
    fits = fit_images(smooth(), ("none", "gaussian"), (1, 10), on_fit=lambda it: seen.append(len(it)), **TINY)
    assert [fit.title for fit in fits] == ["none", "gaussian 10", "gaussian 1"]
    assert seen == [1, 2, 3]


def test_memory_is_worked_out_before_the_work():
    config = image_config("paper", "gaussian")
    assert 5e8 < memory_needed(512, 512, config) < 2e9
    assert memory_needed(10_000, 10_000, image_config(size=10_000)) > 5e9
    with pytest.raises(PictureError, match=r"takes about [\d.]+ GB, and 0\.1 GB are available; give a smaller size"):
        fit_image(np.zeros((600, 600), np.uint8), preset="paper", max_memory=10**8)


def test_what_is_kept_of_every_fit_counts():
    noise, planned = np.zeros((600, 600), np.uint8), planned_fits((), (1, 10, 100), "fast")
    height, width, config = 512, 512, image_config()
    one, seven = (memory_needed(height, width, config, fits) for fits in (1, 7))
    assert seven - one == 6 * KEPT_BYTES * height * width
    assert len(plan_images(noise, planned, max_memory=seven).configs) == 7
    with pytest.raises(PictureError, match=r"a series of 7 fits of 0\.3 megapixels takes about"):
        plan_images(noise, planned, max_memory=seven - 1)
    assert len(plan_images(noise, planned[:1], max_memory=one).configs) == 1


def test_a_table_is_as_fine_as_the_picture_however_large_a_size_is_allowed():
    config = fit_image(smooth(64), "hash", **TINY | {"steps": 1, "size": 200_000}).config
    assert (config.size, config.mapping.finest) == (64, 32)


def test_no_fit_begins_where_a_later_one_cannot_be_done():
    begun = []
    for mappings, scales in ((("none", "planes"), ()), (("gaussian",), (1, 0)), (("none", "voxels"), ())):
        with pytest.raises(ValueError, match=r"planes|scale|voxels"):
            fit_images(smooth(), mappings, scales, on_fit=begun.append, **TINY)
    assert not begun


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"preset": "best"}, "unknown preset 'best'; known: paper, lecture, fast"),
        ({"mapping": "fourier"}, "unknown mapping 'fourier'"),
        ({"mapping": "planes"}, "planes are of three dimensions; take grid or hash"),
        ({"depths": 3}, "unknown setting depths; known: scale"),
        ({"scale": -1.0}, "scale must be positive"),
        ({"steps": 10, "seconds": 1.0}, "not both"),
        ({"size": 0}, "size must be positive"),
    ],
)
def test_settings_out_of_range_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        fit_image(smooth(), **settings)


def test_a_rate_that_diverges_is_named():
    with pytest.raises(FitError, match="lower the learning rate"):
        fit_image(smooth(), "none", **TINY | {"steps": 200}, learning_rate=1e30)


def test_it_is_a_public_name():
    assert ff3d.fit_image is fit_image
