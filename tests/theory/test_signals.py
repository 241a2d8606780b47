import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ff3d
from ff3d.theory.signals import (
    DISTRIBUTIONS,
    draw_frequencies,
    falloff_mapping,
    fit_signal,
    fit_sparse,
    moments,
    predicted_by_falloff,
    random_signal,
    signal_network,
)

SMALL = {"steps": 40, "width": 64, "rate": 1e-4}


@given(power=st.floats(0, 3), seed=st.integers(0, 2**32 - 1))
def test_a_signal_spans_one_and_has_no_frequency_past_a_quarter_of_its_points(power, seed):
    signal = random_signal(power, seed=seed)
    assert (signal.values.min(), signal.values.max()) == pytest.approx((-0.5, 0.5))
    assert len(signal.trained[0]) == 32
    assert signal.tested.sum() == 224
    assert np.abs(np.fft.rfft(signal.values))[64:].max() < 1e-10


def test_amplitudes_fall_as_the_power_says():
    powers = [
        np.mean([np.abs(np.fft.rfft(random_signal(p, seed=s).values)) ** 2 for s in range(200)], axis=0) for p in (0, 1)
    ]
    ratio = powers[1] / powers[0]
    expected = (1.0 + np.arange(64)) ** -2
    np.testing.assert_allclose(ratio[1:64] / ratio[1], expected[1:] / expected[1], rtol=0.6)


@given(falloff=st.floats(0, 4) | st.just(math.inf), place=st.floats(0, 1))
def test_every_falloff_lies_on_the_unit_sphere(falloff, place):
    features = falloff_mapping(falloff)(torch.tensor([[place]]))
    assert float(features.square().sum()) == pytest.approx(1, abs=1e-5)


def test_infinite_falloff_is_the_basic_mapping_and_none_is_the_place_itself():
    places = torch.rand(9, 1, generator=torch.Generator().manual_seed(0))
    basic = falloff_mapping(math.inf)(places)[:, [0, 16]]
    angles = 2 * math.pi * places[:, 0]
    torch.testing.assert_close(basic, torch.stack([angles.sin(), angles.cos()], dim=1))
    assert torch.equal(falloff_mapping(None)(places), places - 0.5)


def test_a_fit_is_gradient_descent_written_out():
    signal = random_signal(seed=1)
    fit = fit_signal(1.0, signal=signal, seed=3, **SMALL)
    network = signal_network(falloff_mapping(1.0), width=64, seed=3)
    places, values = (torch.from_numpy(it).float()[:, None] for it in signal.trained)
    for _ in range(SMALL["steps"]):
        loss = 0.5 * (network(places) - values).square().sum()
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.sub_(gradient, alpha=SMALL["rate"])
    with torch.no_grad():
        expected = network(torch.from_numpy(signal.places).float()[:, None])[:, 0].numpy()
    np.testing.assert_allclose(fit.values, expected, atol=1e-6)
    error = expected - signal.values
    assert fit.train[-1] == pytest.approx(np.mean(error[::8] ** 2), rel=1e-4)
    assert fit.test[-1] == pytest.approx(np.mean(np.delete(error, np.arange(0, 256, 8)) ** 2), rel=1e-4)


def test_the_bands_hold_all_of_the_training_error():
    fit = fit_signal(0.5, **SMALL)
    energy = fit.bands**2
    energy[:, 1:-1] *= 2  # both signs
    np.testing.assert_allclose(energy.sum(axis=1) / 32**2, fit.train, rtol=1e-5)
    assert fit.steps == moments(40)
    assert len(fit.to_json()["bands"]) == len(fit.steps)


@pytest.mark.slow
def test_the_lowest_frequency_alone_never_learns_high_ones_and_all_alike_learn_them():
    low, flat = (fit_signal(falloff, power=0.5, steps=1500, width=256, rate=4e-4) for falloff in (math.inf, 0.0))
    high = slice(8, 17)
    assert low.bands[-1, high].sum() > 0.8 * low.bands[0, high].sum()
    assert flat.bands[-1, high].sum() < 0.5 * low.bands[-1, high].sum()


@pytest.mark.slow
@pytest.mark.parametrize("falloff", [0.0, 1.0, math.inf, None])
def test_wide_networks_train_as_their_kernel_predicts(falloff):
    fit = fit_signal(falloff, steps=100, seed=2)
    np.testing.assert_allclose(fit.predicted[0], fit.train, rtol=0.05)
    np.testing.assert_allclose(fit.predicted[1], fit.test, rtol=0.05)


def test_the_theory_chooses_faster_falloffs_for_smoother_signals():
    chosen = [
        min(predicted_by_falloff(power, (0.0, 1.0, 2.0), signals=16), key=lambda it: it[1])[0]
        for power in (0.5, 1.0, 2.0)
    ]
    assert chosen == sorted(chosen)
    assert chosen[0] < chosen[-1]


@settings(max_examples=8)
@given(distribution=st.sampled_from(DISTRIBUTIONS), std=st.floats(0.1, 100))
def test_frequencies_have_the_standard_deviation_that_was_wanted(distribution, std):
    drawn = draw_frequencies(distribution, std, 200_000, seed=0)
    assert float(drawn.square().mean().sqrt()) == pytest.approx(std, rel=0.02)
    assert abs(float(drawn.mean())) < 0.02 * std


def test_sparse_random_frequencies_learn_a_signal():
    std, fit = fit_sparse("gaussian", 8.0, signal=random_signal(1.5, trained=64, step=2), steps=60, width=64)
    assert 3 < std < 16
    assert fit.train[-1] < 0.5 * fit.train[0]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: falloff_mapping(-1.0), "falloff must be 0 or more, got -1.0"),
        (lambda: falloff_mapping(math.nan), "falloff must be 0 or more"),
        (lambda: random_signal(math.inf), "a finite power"),
        (lambda: draw_frequencies("normal", 1.0, 4, seed=0), "known: gaussian, uniform, laplacian, log-uniform"),
        (lambda: draw_frequencies("gaussian", 0.0, 4, seed=0), "std must be a positive number"),
        (lambda: fit_signal(1.0, steps=0), "steps must be positive"),
    ],
)
def test_what_makes_no_fit_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_it_is_a_public_name():
    assert ff3d.fit_signal is fit_signal
