"""Gradients of pairs of spikes: the split is exact, its parts are what they say, and the script writes its page."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import adjsnn
from adjsnn.training import main

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import three_factors  # noqa: E402  the folder of scripts is not a package
import three_factors_measured as measured  # noqa: E402
from predictive_coding import GatedPredictiveCoding, LIFPredictiveCoding  # noqa: E402
from spike_pairs import attributed, costate  # noqa: E402
from three_factors_measured import Config, Curve, Pairs, examined, network, one_sided, told, window  # noqa: E402

KINDS = GatedPredictiveCoding, LIFPredictiveCoding
SMALL = Config(seeds=1, neurons=12, trials=3, duration=60.0, steps=3, lag=5.0)


def solved(name, seed=0):
    net, _ = network(name, seed, SMALL)
    u, target = measured.trial(SMALL, torch.Generator().manual_seed(seed))
    y0 = net.initial_state(SMALL.trials)
    y0 = y0._replace(a_fast=y0.a_fast + 0.1, v=y0.v + 0.3)
    sol = adjsnn.solve(net, u, dt=SMALL.dt, y0=y0)
    cost = (sol.readout - target).square().sum()
    return net, u, sol, *torch.autograd.grad(cost, [sol.readout, net.w_rec, net.bias])


@pytest.mark.parametrize("name", ["lif", "qif"])
def test_contributions_of_pairs_sum_to_the_exact_gradient(name):
    """To rounding; so does the recursion's own w, by (1.10)."""
    net, u, sol, c_readout, exact, of_bias = solved(name)
    split = attributed(net, u, sol, c_readout, SMALL.dt)
    assert int(split.time.isfinite().sum()) == sol.stats.spikes > 20
    assert float((split.gradient(SMALL.neurons) - exact).norm() / exact.norm()) < 1e-10
    found = costate(net, u, sol, c_readout, SMALL.dt)
    assert float(((found.response * found.error).sum((0, 1)) - of_bias).norm() / of_bias.norm()) < 1e-10


def test_no_pair_acts_backward_in_time():
    """A charge that is released after the postsynaptic spike is no part of it; a presynaptic spike releases its own over some
    milliseconds before its time."""
    net, u, sol, c_readout, *_ = solved("qif")
    split = attributed(net, u, sol, c_readout, SMALL.dt)
    seen = 0
    width = 15.0  # ms, more than a spike takes from where it enters the zone to the threshold
    for rows, k in split.pairs():
        time = split.time[rows]
        late = time[:, None] - time < -width
        assert not bool(k[late].any())
        seen += int((k[time[:, None] > time] != 0.0).sum())
    assert seen > 100


@pytest.mark.parametrize("name", ["lif", "qif"])
def test_a_pair_by_hand(name):
    """Of the chosen pairs the split among spikes is that of the adjoint, as each neuron has one spike, and only before it."""
    pairs = Pairs.made(name, "one", SMALL)
    curves, sol, cotangents = pairs.gradients(SMALL.dt)
    n = len(pairs.lags)
    for sign, cotangent in cotangents.items():
        split = attributed(pairs.net, pairs.u, sol, cotangent, SMALL.dt)
        (rows, k), *_ = split.pairs()
        post = ((split.neuron[rows] == n) & split.time[rows].isfinite()).nonzero()[:, 0]
        real = ((split.neuron[rows] < n) & split.time[rows].isfinite()).nonzero()[:, 0]
        lag = (split.time[rows][post] - split.time[rows][real]).numpy()
        found = -k[post][0, real].numpy()[np.argsort(lag)]
        np.testing.assert_allclose(found, curves[sign].mean, rtol=1e-9, atol=1e-9 * np.abs(found).max())
        assert (np.sign(found[np.sort(lag) > 2.0]) == -sign).all()
        assert np.abs(found[np.sort(lag) < -2.0]).max() < 1e-3 * np.abs(found).max()


def test_the_window_of_a_lif_neuron_is_its_response_to_a_synapse():
    """∂v_k/∂I decays with τ_m = 20 ms, a_f with τ_f = 5 ms: their convolution. The gate's width blurs it by a millisecond."""
    curves, *_ = Pairs.made("lif", "one", SMALL).gradients(SMALL.dt)
    lag = curves[-1].lag
    expected = np.where(lag > 0.0, np.exp(-lag / 20.0) - np.exp(-lag / 5.0), 0.0)
    assert measured.correlated(curves[-1].mean, expected) > 0.995


def test_windows():
    """What was made as a window is found, whichever way up."""
    lag = np.arange(-40.0, 41.0)
    y = measured.stdp(lag, 1.0, 12.0, 0.4, 25.0)
    curves = {sign: Curve(lag, -sign * 3.0 * y, 0.0 * lag) for sign in (-1, 1)}
    for sign, curve in curves.items():
        found = window(curve, sign)
        assert found.correlation > 0.999
        peak = y.max()
        assert (found.a_plus * peak, found.a_minus * peak) == (pytest.approx(1.0, rel=0.02), pytest.approx(0.4, rel=0.02))
        assert (found.tau_plus, found.tau_minus) == (pytest.approx(12.0, rel=0.03), pytest.approx(25.0, rel=0.03))
        assert found.lobes == pytest.approx(y[lag < 0].sum() / y[lag > 0].sum())
    assert told(curves)["flip"] == pytest.approx(-1.0)
    alone = window(Curve(lag, np.where(lag > 0, y, 0.0), 0.0 * lag), -1)
    assert (alone.lobes, alone.a_minus) == (0.0, 0.0)
    assert np.isnan(alone.tau_minus)
    assert one_sided(np.arange(1.0, 5.0), -np.ones(4))[0] == 0.0


def test_what_is_said_of_a_network():
    net, generator = network("qif", 0, SMALL)
    measured.train(net, SMALL, generator)
    found = examined(net, 0, SMALL)
    assert found.numbers["sum_off"] < 1e-10
    assert 0.0 < found.numbers["same_sign"] < 1.0
    earlier, later = (np.nanmean(found.by_factor[sign]) for sign in (-1, 1))
    assert earlier > 0.0 > later  # more weight where the spike should come earlier, less where later


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
def test_the_script_writes_a_page_a_picture_and_numbers(tmp_path, capsys):
    flags = ["--quick", "--neurons", "10", "--runs", str(tmp_path), "--page", str(tmp_path / "docs" / "page.md")]
    assert three_factors.main(flags) == 0
    page = (tmp_path / "docs" / "page.md").read_text()
    assert "![" in page
    assert (tmp_path / "docs" / "page.png").stat().st_size > 10_000
    assert str(tmp_path / "docs" / "page.md") in capsys.readouterr().out
    (path,) = (tmp_path / "three_factors").glob("*/numbers.json")
    numbers = json.loads(path.read_text())["numbers"]
    for name in ("lif", "qif"):
        one, regular, in_turn = (numbers[f"pairs, {name}, {protocol}"] for protocol in measured.PROTOCOLS)
        assert abs(one["earlier"]["lobes"]) < 0.05
        assert regular["earlier"]["lobes"] > 0.5
        assert in_turn["earlier"]["lobes"] < -0.5
        assert one["flip"] < -0.99
        assert 0.8 < one["earlier"]["correlation"] <= 1.0
        assert one["earlier"]["tau_plus"] > 0.0
        for state in ("start", "trained"):
            assert max(numbers[f"network, {name}, {state}"]["sum_off"]) < 1e-10
            assert -1.0 <= numbers[f"network, {name}, {state}, by_error"]["flip"] <= 1.0


def test_impossible_flags(tmp_path, capsys):
    assert three_factors.main(["--dt", "-1", "--runs", str(tmp_path)]) == 1
    assert "dt=-1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_experiment_with_gated_synapses_trains_by_the_rule(tmp_path, capsys):
    flags = ["--iterations", "2", "--batch", "2", "--neurons", "6", "--held-out-window", "20", "--window", "10"]
    flags += ["--adjoint", "three_factors", "--angles", "three_factors_random", "--runs", str(tmp_path)]
    assert main(*KINDS, argv=flags) == 0
    assert len(list((tmp_path / "predictive_coding").glob("*/summary.json"))) == 1
    capsys.readouterr()
    assert main(*KINDS, argv=[*flags, "--network", "lif"]) == 1
    assert "ThreeFactors for a LIF network" in capsys.readouterr().err
