"""Spikes and gradients of other simulators, recorded in `crossval/`, against adjsnn's."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "crossval"))

import compare  # a folder of scripts is no package

HERE = compare.HERE


def test_nest_has_every_spike_between_grid_points():
    found = compare.nest_precise()
    assert found["neurons"] >= 1500
    assert found["spikes"] > 10_000
    assert found["same"]
    assert found["largest"] < 1e-11  # ms: NEST keeps a spike as the part of its step, and bisects for it


def test_nest_has_every_spike_of_networks_that_to_nest_writes():
    for layers in compare.nest_layers().values():
        for found in layers:
            assert found["spikes"] > 50
            assert found["same"]
            assert found["largest"] < 1e-11  # ms, after a hundred milliseconds of recurrence


def test_nest_labels_first_spikes_by_the_end_of_their_step():
    found = compare.nest_grid()
    assert found["spikes"] > 1000
    assert found["other"] == 0


@pytest.mark.parametrize("h", [0.1, 0.25, 1.0])
def test_nest_rounds_delays_and_refractory_times_as_stated(h):
    found = compare.arrays("nest_exp.npz")
    for given, acts in found[f"delay_{h}"]:
        net = compare.LIFNetwork(1, 1, delays=given, refractory=1.0, dtype=torch.float64)
        if np.isnan(acts):
            with pytest.raises(compare.adjsnn.ConfigurationError, match="half a step"):
                net.rounded("nest", h)
        else:
            assert float(net.rounded("nest", h).delays[0]) == pytest.approx(acts, abs=1e-9)
    for model in ("iaf_psc_exp_ps", "iaf_psc_exp"):
        for given, acts in found[f"{model}_{h}"]:
            if np.isnan(acts):  # 0, which only the other model takes
                assert (given, model) == (0.0, "iaf_psc_exp_ps")
                continue
            net = compare.LIFNetwork(1, 1, delays=1.0, refractory=given, dtype=torch.float64)
            assert float(net.rounded("nest", h).refractory[0]) == pytest.approx(acts, abs=1e-9)


def test_brian2_rounds_delays_and_refractory_times_as_stated():
    found = compare.arrays("brian2_layers.npz")
    for (delay, acts), (period, holds) in zip(found["delay_0.1"], found["refractory_0.1"], strict=False):
        net = compare.LIFNetwork(1, 1, delays=delay, refractory=period, dtype=torch.float64).rounded("brian2", 0.1)
        assert float(net.delays[0]) == pytest.approx(acts, abs=1e-9)
        assert float(net.refractory[0]) == pytest.approx(holds, abs=1e-9)


def test_brian2_has_every_spike_of_three_layers():
    for found in compare.brian2_whole():
        assert found["spikes"] > 100
        assert found["same"]
        # In steps of 1 µs. Each of some ten spikes of a neuron, and each layer, is late by up to a step; more where v barely
        # reaches its threshold.
        assert found["median"] < 15.0
        assert found["largest"] < 150.0


def test_each_spike_of_brian2_is_in_its_step_by_the_rules():
    found = compare.brian2_intervals()
    assert found["spikes"] > 400
    assert found["other"] == 0


@pytest.mark.usefixtures("unchecked_shapes")
def test_spikingjelly_without_leak():
    found = compare.spikingjelly()
    for layer in found["layers"]:
        assert layer["spikes"] > 100
        assert layer["same"]
        assert layer["largest"] < 1e-8  # ms: ours is a current of a very long time constant, 1e12 ms
    assert max(found["gradients"]) < 1e-8


def test_jaxsnn_in_closed_form():
    found = compare.jaxsnn()
    assert found["same"]
    assert found["largest"] < 1e-12
    assert max(found["gradients"]) < 1e-11


def test_eventax_as_far_as_its_steps_allow():
    found = compare.eventax()
    assert all(x["same"] for x in found.values())
    assert found["Tsit5"]["largest"] < 1e-7  # its tolerance is 1e-10 a step
    assert max(found["Tsit5"]["gradients"]) < 1e-6
    # Euler's errors are in proportion to the step; that of a gradient is also rounded by where a spike lies in its step.
    coarse, fine = found["Euler 0.02"], found["Euler 0.01"]
    assert 1.8 < coarse["largest"] / fine["largest"] < 2.2
    assert max(coarse["gradients"]) < 0.02


def test_the_page_has_a_row_for_each_file():
    page = (HERE.parent / "docs" / "crossvalidation.md").read_text()
    listed = (HERE / "README.md").read_text()
    for path in HERE.glob("*.sh"):
        data = [x for x in HERE.glob(f"{path.stem}.*") if x.suffix not in {".sh", ".py"}]
        assert len(data) == 1
        assert data[0].stat().st_size < 300_000
        assert f"`{data[0].name}`" in listed
        assert (
            path.stem in {"nest_glif", "nir_peers", "sundials", "brian2_adex"} or f"`{path.stem}`" in page
        )  # of which tests and docs/nir.md tell
