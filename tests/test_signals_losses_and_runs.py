"""Signals, losses, and what a run leaves behind."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

import adjsnn
from adjsnn.signals import MEAN_NORM, load_signal, lowpass, random_sinusoids
from adjsnn.training.runs import RunFolder


def test_random_sinusoids_have_the_stated_period_and_size():
    u = random_sinusoids(2400, 3, 2, 1.0, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert u.shape == (2400, 3, 2)
    torch.testing.assert_close(u[:1200], u[1200:], rtol=0, atol=1e-10)
    torch.testing.assert_close(u.norm(dim=2).mean(0), torch.full((3,), MEAN_NORM, dtype=torch.float64), rtol=1e-3, atol=0)
    again = random_sinusoids(2400, 3, 2, 1.0, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(u, again)
    spectrum = torch.fft.rfft(u[:1200, 0, 0]).abs()
    assert spectrum[18:].max() < 1e-9 * spectrum.max()


def test_lowpass_is_the_networks_own_filter():
    u = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    filtered = lowpass(u, 0.5, 10.0)
    expected = [torch.zeros_like(u[0])]
    for row in u:
        expected.append(expected[-1] + 0.05 * (row - expected[-1]))
    torch.testing.assert_close(filtered, torch.stack(expected), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(filtered[1:, 0, 0], lfilter([0.05], [1, -0.95], u[:, 0, 0].numpy()))


@pytest.mark.parametrize("dt", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("suffix", ["npy", "csv"])
def test_a_recording_keeps_its_shape_when_resampled(tmp_path, dt, suffix):
    times = np.arange(0, 2000)
    values = np.stack([3 * np.sin(2 * np.pi * times / 400) + 7, np.cos(2 * np.pi * times / 200)], axis=1)
    path = tmp_path / f"recording.{suffix}"
    if suffix == "npy":
        np.save(path, values)
    else:
        np.savetxt(path, values, delimiter=",", header="left,right", comments="")
    u = load_signal(path, 1.0, dt)
    assert u.shape == (int(1999 / dt), 2)
    middle = (np.arange(len(u)) + 0.5) * dt
    expected = np.stack([3 * np.sin(2 * np.pi * middle / 400), np.cos(2 * np.pi * middle / 200)], axis=1)
    expected -= expected.mean(0)
    expected *= MEAN_NORM / np.linalg.norm(expected, axis=1).mean()
    np.testing.assert_allclose(u, expected, atol=2e-3)  # the mean over a step against its middle, and the file's grid


def test_a_single_channel_file(tmp_path):
    np.save(tmp_path / "x.npy", np.sin(np.arange(100.0)))
    assert load_signal(tmp_path / "x.npy", 1.0, 0.5).shape == (198, 1)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_a_constant_recording(tmp_path, value):
    np.save(tmp_path / "x.npy", np.full(100, value))
    with pytest.raises(adjsnn.ConfigurationError, match="a constant signal"):
        load_signal(tmp_path / "x.npy", 1.0, 0.3)


def _solution():
    net = adjsnn.GatedSynapseNetwork(0, 2, 1, neuron=adjsnn.NIF(), dtype=torch.float64)
    with torch.no_grad():
        net.w_rec.zero_()
        net.w_out.fill_(1.0)
        net.bias.copy_(torch.tensor([0.05, -0.02]))
    return adjsnn.solve(net, torch.zeros(1000, 1, 0, dtype=torch.float64), dt=0.1)


def test_losses_have_their_stated_values():
    sol = _solution()
    target = torch.ones_like(sol.readout)
    torch.testing.assert_close(adjsnn.losses.readout_mse(sol, target), (sol.readout - 1).square().mean())
    silent = adjsnn.losses.normalised_cost(_solution(), sol.readout.detach() * 0 + 2.0)
    torch.testing.assert_close(silent, (sol.readout - 2).square().sum() / (4 * sol.readout.numel()))
    # 0.05 * 100 = 5 and 0.02 * 100 = 2 thresholds, up to rounding at the last one
    torch.testing.assert_close(adjsnn.losses.spike_count(sol).detach()[0], torch.tensor([5.0, 2.0]).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(
        adjsnn.losses.firing_rate(sol).detach()[0], torch.tensor([50.0, 20.0]).double(), rtol=0, atol=1e-7
    )


@dataclass(frozen=True)
class _Config:
    seed: int = 3
    rate: float = 0.1


def test_a_run_folder_keeps_everything(tmp_path):
    run = RunFolder.new(tmp_path, "trial", _Config(), "python trial.py", ["--rate", "0.1"])
    assert "-s3-" in run.path.name
    about = json.loads((run.path / "config.json").read_text())
    assert about["config"] == {"seed": 3, "rate": 0.1}
    assert about["command"] == "python trial.py --rate 0.1"
    assert about["versions"]["torch"] == torch.__version__
    run.log({"iteration": 0, "cost": 1.5})
    run.log({"iteration": 1, "cost": 0.5})
    assert run.metrics() == {"iteration": [0.0, 1.0], "cost": [1.5, 0.5]}
    net = adjsnn.GatedSynapseNetwork(2, 3, 1)
    run.save_best(net)
    other = adjsnn.GatedSynapseNetwork(2, 3, 1)
    run.load_best(other)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    assert not [path for path in run.path.iterdir() if "partial" in path.name]


def test_runs_of_one_second_have_folders_of_their_own(tmp_path):
    runs = {RunFolder.new(tmp_path, "trial", _Config(), "python trial.py", []).path for _ in range(3)}
    assert len(runs) == 3


def test_a_row_of_other_columns(tmp_path):
    run = RunFolder.new(tmp_path, "trial", _Config(), "python trial.py", [])
    run.log({"iteration": 0, "cost": 1.0})
    with pytest.raises(adjsnn.ConfigurationError, match="those of the first row"):
        run.log({"iteration": 1, "loss": 1.0})


def test_rows_after_a_step_are_dropped(tmp_path):
    run = RunFolder.new(tmp_path, "trial", _Config(), "python trial.py", [])
    for step in range(4):
        run.log({"iteration": step, "cost": 0.5})
    with open(run.path / "metrics.csv", "a") as file:
        file.write("2,0.")  # killed while it wrote
    run._keep_rows_up_to(2)
    assert run.metrics()["iteration"] == [0.0, 1.0, 2.0]


def test_a_failed_write_leaves_the_last_one(tmp_path):
    run = RunFolder.new(tmp_path, "trial", _Config(), "python trial.py", [])
    run.write_json("summary.json", {"cost": 1})
    loop: dict = {}
    loop["loop"] = loop
    with pytest.raises(ValueError, match="Circular"):
        run.write_json("summary.json", loop)
    assert json.loads((run.path / "summary.json").read_text()) == {"cost": 1}


def test_a_run_folder_in_an_impossible_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(adjsnn.ConfigurationError, match="cannot be made"):
        RunFolder.new(tmp_path / "file", "trial", _Config(), "python trial.py", [])
