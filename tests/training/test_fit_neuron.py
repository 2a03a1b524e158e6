"""Fits of a generalised LIF neuron: what it is fitted to, the state that recorded spikes imply, its costs and its metric."""

import datetime
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pynwb
import pytest
import torch
from torch import Tensor

import adjsnn
from adjsnn.coincidence import coincidence_factor, matched
from adjsnn.training import main

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from fit_neuron import (  # noqa: E402  the folder of scripts is not a package
    KINDS,
    FileFit,
    FitFile,
    FitHodgkinHuxley,
    HodgkinHuxleyFit,
)
from forced_spikes import DelayedNeuron, Part, Recording, forced, log_likelihood  # noqa: E402
from hodgkin_huxley import NEURONS, HodgkinHuxley, random_current, record  # noqa: E402
from nwb_sweep import read_sweep  # noqa: E402

DT = 0.2
SHORT = ["--duration", "600", "--piece", "200", "--batch", "3", "--log-every", "2"]


def trains(*rows: list[float], t_max: float = 1000.0) -> adjsnn.SpikeTrains:
    return adjsnn.SpikeTrains.from_list([[(t, 0) for t in row] for row in rows], n_neurons=1, t_max=t_max, dtype=torch.float64)


def neuron(**options) -> DelayedNeuron:
    """One that spikes some thirty times a second by `current`."""
    kinds = {"tau_adapt": [20.0, 150.0], "jump_adapt": [0.1, -0.1], "tau_th": [8.0, 90.0], "jump_th": [0.2, 0.1]}
    learn = ("weights", "bias", "tau_mem", "v_reset", "refractory", *kinds)
    own = {"tau_mem": 12.0, "refractory": 2.3, "v_reset": -0.3, "bias": [0.2], "learn": learn, "dtype": torch.float64}
    net = DelayedNeuron(**{**own, **kinds, **options})
    with torch.no_grad():
        net.w_in[0].fill_(1.0)
        net.delay.fill_(0.0)
    return net


def current(steps: int = 2000, seed: int = 1) -> Tensor:
    return random_current(steps, DT, 1.0, 2.0, 3.0, torch.Generator().manual_seed(seed))


def spikes_of(net: DelayedNeuron, u: Tensor) -> Tensor:
    with torch.no_grad():
        return adjsnn.solve(net, u[:, None, None], dt=DT).spike_times()


@pytest.mark.every(3)
@pytest.mark.parametrize("name", sorted(NEURONS))
def test_the_compiled_neuron_is_the_hybrid_system(name):
    """The loop's steps of 0.025 ms and its straight line between two of them are 2e-3 ms off at most."""
    u = 8.0 + 4.0 * torch.sin(torch.arange(10, dtype=torch.float64))
    voltage, spikes = record(NEURONS[name], u.numpy(), 1.0)
    sol = adjsnn.solve(HodgkinHuxley(NEURONS[name]), u[:, None, None], dt=1.0, method="dopri5", rtol=1e-5, atol=1e-6)
    found = sol.event_times[0]
    found = found[found.isfinite()]
    assert len(found) == len(spikes) >= 1
    torch.testing.assert_close(found, torch.from_numpy(spikes), rtol=0.0, atol=2e-3)
    torch.testing.assert_close(sol.y[-1, 0, 0], torch.tensor(voltage[-1], dtype=torch.float64), rtol=0.0, atol=0.05)


def test_squid_and_cell_are_at_rest_without_a_current():
    for neuron in NEURONS.values():
        voltage, spikes = record(neuron, np.zeros(500), DT)
        assert len(spikes) == 0
        assert float(np.abs(voltage - voltage[0]).max()) < 0.01  # mV


def test_a_forced_neuron_that_follows_its_own_spikes_is_itself():
    """v, threshold and currents at any time, and at the spikes v is at the threshold."""
    net, u = neuron(), current()
    ts = torch.linspace(0.05, len(u) * DT, 1500, dtype=torch.float64)
    with torch.no_grad():
        sol = adjsnn.solve(net, u[:, None, None], dt=DT, ts=ts)
        spikes = sol.spike_times()
        state = forced(net, Recording(u, spikes), DT, ts)
        at_spikes = forced(net, Recording(u, spikes), DT, spikes)
    assert len(spikes) > 5
    close = {"rtol": 0.0, "atol": 1e-11}
    torch.testing.assert_close(state.v, sol.v[0][:, 0, 0], **close)
    torch.testing.assert_close(state.threshold, sol.threshold()[:, 0, 0], **close)
    torch.testing.assert_close(state.a, sol.a[0][:, 0, :, 0], **close)
    torch.testing.assert_close(state.h, sol.h[0][:, 0, :, 0], **close)
    torch.testing.assert_close(at_spikes.v, at_spikes.threshold, **close)


def test_equal_time_constants():
    """K(a, a), where its quotient is 0/0."""
    u, spikes = current(500), torch.tensor([20.0, 50.0], dtype=torch.float64)
    ts = torch.linspace(0.0, 100.0, 300, dtype=torch.float64)
    near, at = (
        forced(neuron(tau_adapt=[tau], jump_adapt=[0.3]), Recording(u, spikes), DT, ts).v for tau in (12.0 + 1e-7, 12.0)
    )
    torch.testing.assert_close(at, near, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("cost", ["van_rossum", "matched", "likelihood"])
def test_gradients_of_the_costs_are_exact(cost):
    """Against central differences over 1e-5, of errors of 1e-10 by bending and about 1e-9 by rounding."""
    config = HodgkinHuxleyFit(
        duration=400.0, piece=200.0, batch=2, cost="matched" if cost == "matched" else "van_rossum", seed=3
    )
    task = FitHodgkinHuxley(config)
    net = neuron(v_reset=-0.5, jump_adapt=[0.05, -0.1])
    with torch.no_grad():
        net.w_in[0].fill_(0.5)
        net.delay.fill_(0.4)
    batch = task.batch(torch.Generator().manual_seed(0), 0 if cost == "likelihood" else config.likelihood)

    def value() -> Tensor:
        return task.cost(net, batch).value

    value().backward()
    for name, p in net.named_parameters():
        if not p.requires_grad:
            continue
        assert p.grad is not None
        for k in range(p.numel()):
            step, row = 1e-5 * max(1.0, abs(float(p.detach().view(-1)[k]))), p.detach().view(-1)
            start = float(row[k])
            found = []
            for sign in (1.0, -1.0):
                row[k] = start + sign * step
                found.append(float(value().detach()))
            row[k] = start
            difference = (found[0] - found[1]) / (2.0 * step)
            assert float(p.grad.view(-1)[k]) == pytest.approx(difference, rel=1e-5, abs=1e-7), f"{name}[{k}]"


def test_the_likelihood_is_highest_at_the_neuron_that_spiked():
    """Of scale and drive: with a soft threshold of a tenth of the noise's height, within a tenth of them."""
    net, u = neuron(tau_adapt=None, jump_adapt=None, tau_th=None, jump_th=None, learn=("weights",)), current(20_000)
    part = Part(Recording(u, spikes_of(net, u)), 0, len(u))
    found = {}
    for factor in (0.7, 0.9, 1.0, 1.1, 1.4):
        with torch.no_grad():
            net.w_in[0].fill_(factor)
            found[factor] = float(log_likelihood(net, part, DT, 0.02))
    assert max(found, key=lambda x: found[x]) in (0.9, 1.0, 1.1)
    assert found[1.0] > found[0.7]
    assert found[1.0] > found[1.4]


def test_a_fit_starts_where_recorded_spikes_lead():
    """The neuron that made the recording makes it again from the middle, with a cost of rounding."""
    net, u = neuron(), current(3000)
    task = FitHodgkinHuxley(HodgkinHuxleyFit(duration=400.0, piece=200.0))
    recording = Recording(u, spikes_of(net, u))
    first = torch.tensor([500, 1000, 1777])
    sol, target = task.solve(net, recording, first, 1000)
    assert len(target) > 8
    # One that is held where a piece begins is let go there.
    free = [b for b, t in enumerate((first * DT).tolist()) if not ((recording.spikes < t) & (recording.spikes > t - 2.3)).any()]
    assert len(free) > 1
    for b in free:
        torch.testing.assert_close(sol.layer_spikes[0][b : b + 1].time, target[b : b + 1].time, rtol=0.0, atol=1e-8)


def test_coincidence_factor_of_equal_trains_is_one():
    times = [3.0, 50.0, 51.0, 400.0]
    assert coincidence_factor(trains(times, times), trains(times, [t + 1.9 for t in times])).tolist() == [[1.0], [1.0]]


def test_coincidence_factor_by_hand():
    """Three of four and five spikes coincide; ν = 4/1000 ms, so that 2 ν Δ = 0.016 and chance has 0.08 pairs."""
    found = coincidence_factor(trains([10.0, 20.0, 30.0, 500.0]), trains([11.0, 22.0, 30.5, 40.0, 600.0]))
    assert found.item() == pytest.approx((3 - 0.016 * 5) / 4.5 / (1 - 0.016), rel=1e-14)


def test_a_spike_coincides_once():
    k, m = matched(torch.tensor([10.0, 11.0, 12.0]), torch.tensor([11.5]), 2.0)
    assert (k.tolist(), m.tolist()) == ([0], [0])
    k, m = matched(torch.tensor([10.0, 12.5]), torch.tensor([8.5, 11.0]), 2.0)  # nearest first would leave one out
    assert (k.tolist(), m.tolist()) == ([0, 1], [0, 1])
    assert matched(torch.tensor([]), torch.tensor([1.0]), 2.0)[0].tolist() == []


def test_poisson_trains_coincide_by_chance():
    """Γ of 400 pairs of 10 s at 20 and 30 spikes/s has a mean of 0 within 4 standard errors, and never more than 0.15."""
    generator = torch.Generator().manual_seed(0)
    rates = [torch.full((400, 1), rate, dtype=torch.float64) for rate in (20.0, 30.0)]
    a, b = (adjsnn.SpikeTrains.poisson(x, 10_000.0, generator=generator) for x in rates)
    gamma = coincidence_factor(a, b, 1.0)
    assert abs(float(gamma.mean())) < 4.0 * float(gamma.std()) / 400**0.5 + 0.01  # each once: a little below chance
    assert float(gamma.abs().max()) < 0.15


def test_silence_and_what_has_no_factor():
    assert coincidence_factor(trains([]), trains([5.0])).item() == 0.0
    assert bool(coincidence_factor(trains([]), trains([])).isnan())
    fast = trains([float(t) for t in range(300)])
    for wrong, message in (
        (lambda: coincidence_factor(fast, fast), "no meaning|mean interval"),
        (lambda: coincidence_factor(trains([1.0]), trains([1.0], [2.0])), "as many samples"),
        (lambda: coincidence_factor(trains([1.0]), trains([1.0], t_max=999.0)), "the same t_max"),
        (lambda: coincidence_factor(trains([1.0]), trains([1.0]), 0.0), "delta"),
        (lambda: coincidence_factor([1.0], trains([1.0])), "spikes"),  # type: ignore[arg-type]
    ):
        with pytest.raises(adjsnn.ConfigurationError, match=message):
            wrong()


@pytest.mark.every(2)
@pytest.mark.parametrize("options", [[], ["--level", "lif", "--cost", "matched"], ["--optimiser", "cma", "--dtype", "float32"]])
def test_a_short_run(tmp_path, options):
    argv = [*SHORT, "--iterations", "4", "--likelihood", "2", *options, "--runs", str(tmp_path)]
    assert main(*KINDS, argv=argv) == 0
    (run,) = (tmp_path / "fit_neuron").iterdir()
    assert {path.stem for path in (run / "figures").iterdir()} == {"held_out", "parameters", "history"}
    held_out = json.loads((run / "summary.json").read_text())["held_out"]
    assert -1.0 < held_out["gamma"] <= 1.0
    assert held_out["recorded_per_s"] > 5.0


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--optimiser", "cma"]])
def test_a_run_goes_on_to_the_bit(tmp_path, options):
    argv = [*SHORT, "--iterations", "5", "--likelihood", "2", "--save-every", "3", *options]
    runs = []
    for name in ("whole", "part"):
        assert main(*KINDS, argv=[*argv, "--runs", str(tmp_path / name)]) == 0
        runs += list((tmp_path / name / "fit_neuron").iterdir())
    whole, part = runs
    shutil.rmtree(part / "checkpoints" / "00000005")
    (part / "summary.json").unlink()
    assert main(*KINDS, argv=["--resume", str(part)]) == 0
    name = "checkpoints/00000005/weights.safetensors"
    assert (whole / name).read_bytes() == (part / name).read_bytes()
    assert (whole / "figures" / "parameters.png").read_bytes() == (part / "figures" / "parameters.png").read_bytes()


def test_a_recording_in_files(tmp_path):
    u = current(6000)
    np.savetxt(tmp_path / "u.csv", u.numpy(), header="current", comments="")
    np.save(tmp_path / "spikes.npy", spikes_of(neuron(), u).numpy())
    argv = ["--task", "file", "--spikes", str(tmp_path / "spikes.npy"), "--dt", str(DT), "--piece", "150"]
    argv += ["--iterations", "3", "--likelihood", "2", "--runs", str(tmp_path)]
    assert main(*KINDS, argv=[*argv, "--current", str(tmp_path / "u.csv")]) == 0
    (run,) = (tmp_path / "fit_neuron").iterdir()
    assert (run / "summary.json").exists()


def sweep(path, u, spikes, rate, start=0.0, name="sweep"):
    """A file that pynwb writes: a current in pA and the times of two units in ms from its first sample."""
    made = pynwb.NWBFile("a test", "test", datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    electrode = made.create_icephys_electrode(name="e", description="d", device=made.create_device(name="d"))
    made.add_stimulus(
        pynwb.icephys.CurrentClampStimulusSeries(
            name=name, data=u, conversion=1e-12, rate=rate, starting_time=start, electrode=electrode, gain=1.0
        )
    )
    for times in ([start], start + spikes / 1000.0):
        made.add_unit(spike_times=np.asarray(times))
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(made)
    return path


def test_a_sweep_of_an_nwb_file(tmp_path):
    u = current(6000)
    spikes = spikes_of(neuron(), u).numpy()
    path = sweep(tmp_path / "sweep.nwb", np.repeat(u.numpy(), 4), spikes, 4000.0 / DT, start=2.0)
    read, times = read_sweep(path, DT, None, 1)
    np.testing.assert_allclose(read, u.numpy(), rtol=1e-15)
    np.testing.assert_allclose(times, np.sort(spikes), atol=1e-12)  # roundings of 2 s plus a time
    fit = FitFile(FileFit(current=path, unit=1, dt=DT, piece=150.0))
    assert fit.unit == "pA"
    assert [part.stop for part in fit.parts.values()] == [3600, 4800, 6000]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stimulus": "other"}, r"one of \['sweep'\]"),
        ({"dt": DT / 3}, "a whole number of samples"),
        ({"unit": 2}, "units=2"),
        ({"unit": 0}, "1 spikes of unit 0"),
        ({"path": Path("no.nwb")}, "cannot be read"),
    ],
)
def test_sweeps_that_cannot_be(tmp_path, change, message):
    path = sweep(tmp_path / "sweep.nwb", np.ones(100), np.array([1.0, 2.0]), 1000.0 / DT)
    with pytest.raises(adjsnn.ConfigurationError, match=message):
        read_sweep(**{"path": path, "dt": DT, "stimulus": None, "unit": 1} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spikes": None}, "a file of each"),
        ({"spikes": np.array([10.0, 99_999.0])}, "times within"),
        ({"spikes": np.array([10.0, 10.0])}, "two spikes at once"),
        ({"spikes": np.ones((5, 2))}, "columns"),
        ({"spikes": np.array([10.0, 20.0])}, "spikes in it"),
        ({"dt": 0.001}, "times within"),
        ({"held_out": 0.9}, "leave some to fit"),
    ],
)
def test_files_that_cannot_be(tmp_path, capsys, change, message):
    files = {"current": current(3000).numpy(), "spikes": np.arange(1, 590, 20.0)} | {
        k: v for k, v in change.items() if k == "spikes"
    }
    argv = ["--task", "file", "--piece", "100", "--runs", str(tmp_path)]
    for name, values in files.items():
        if values is not None:
            np.save(tmp_path / f"{name}.npy", values)
            argv += [f"--{name}", str(tmp_path / f"{name}.npy")]
    options = {"dt": DT, "held_out": 0.2} | {k: v for k, v in change.items() if k != "spikes"}
    for name, value in options.items():
        argv += [f"--{name.replace('_', '-')}", str(value)]
    assert main(*KINDS, argv=argv) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "fit_neuron").exists()
