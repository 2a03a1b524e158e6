"""Autoencoding and what it shares with predictive coding, for both families of networks."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from adjsnn.training import main
from adjsnn.training.trials import SignalTrials

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import autoencoding  # noqa: E402  the folder of scripts is not a package
import coding  # noqa: E402
import predictive_coding  # noqa: E402
import rate_distortion  # noqa: E402

KINDS = (autoencoding.GatedAutoencoding, autoencoding.LIFAutoencoding)
SHORT = ["--iterations", "2", "--batch", "2", "--neurons", "10", "--held-out-window", "30", "--window", "20"]


@pytest.mark.every(4)
@pytest.mark.parametrize("network", ["gated", "lif"])
@pytest.mark.parametrize("data", ["signals", "digits"])
def test_a_short_run(network, data, tmp_path, monkeypatch):
    monkeypatch.setattr(autoencoding, "HELD_OUT", 16)
    options = [*SHORT, "--network", network, "--data", data, "--row", "5", "--runs", str(tmp_path)]
    assert main(*KINDS, argv=options) == 0
    (run,) = (tmp_path / "autoencoding").iterdir()
    figures = {path.stem for path in (run / "figures").iterdir()}
    assert figures == {"readout", "events", "history"} | ({"pictures"} if data == "digits" else set())
    assert json.loads((run / "summary.json").read_text())["title"] == f"Autoencoding, {data}"


@pytest.mark.every(2)
@pytest.mark.parametrize("receptors", [2, 1])
def test_predictive_coding_with_jumps(receptors, tmp_path):
    kinds = (predictive_coding.GatedPredictiveCoding, predictive_coding.LIFPredictiveCoding)
    assert main(*kinds, argv=[*SHORT, "--network", "lif", "--receptors", str(receptors), "--runs", str(tmp_path)]) == 0
    (run,) = (tmp_path / "predictive_coding").iterdir()
    figures = {path.stem for path in (run / "figures").iterdir()}
    assert figures == {"readout", "weights", "events", "history"}
    assert json.loads((run / "config.json").read_text())["config"]["network"] == "lif"


def test_slow_synapses_start_with_the_charges_of_fast_ones():
    """And a current of the input enters as through one receptor: sizes and starts of the sum are those of one."""
    one, two = (autoencoding.LIFAutoencoding(autoencoding.LIF(neurons=300, receptors=k)) for k in (1, 2))
    nets = [experiment.network().requires_grad_(False) for experiment in (one, two)]
    fast, slow = nets[1].w_rec[0]
    assert nets[1].tau_syn[0][:, 0].tolist() == [0.5, 10.0]
    # Standard deviations of 9·10⁴ and of 1200 entries are good to a few percent.
    assert float(slow.std() / fast.std()) == pytest.approx(0.5 / 10.0, rel=0.05)
    (w_in, w_rec, _), (summed, of_fast, _) = map(coding.weights_of, nets)
    assert torch.equal(of_fast, fast)
    assert float(summed.std() / w_in.std()) == pytest.approx(1.0, rel=0.1)
    assert float(fast.std() / w_rec.std()) == pytest.approx(1.0, rel=0.05)
    sizes, split = one.sizes(nets[0]), two.sizes(nets[1])
    assert split["w_in.0"] == sizes["w_in.0"] / 2
    assert split["w_rec.0"].flatten().tolist() == [sizes["w_rec.0"], sizes["w_rec.0"] * 0.5 / 10.0]


def test_a_target_of_another_filter():
    experiment = predictive_coding.LIFPredictiveCoding(predictive_coding.LIF(tau_target=40.0, dtype="float64"))
    u = experiment.fixed["validation"]
    target = experiment.target(u)
    # Euler steps of τ ȯ = -o + u
    torch.testing.assert_close(target[1:], target[:-1] + 0.5 / 40.0 * (u - target[:-1]), rtol=0.0, atol=1e-12)


def test_the_filtered_picture_gives_back_its_pixels():
    """If the readout is the target, the redrawn picture is the shown one, to rounding."""
    experiment = autoencoding.GatedAutoencoding(autoencoding.Gated(data="digits", dtype="float64", dt=0.5))
    u = experiment.fixed["held_out"]
    assert u.shape == (8 * 40, 360, 8)
    redrawn = experiment.digits.redrawn(experiment.target(u), experiment.passed)
    torch.testing.assert_close(redrawn, experiment.digits.held["held_out"], rtol=0, atol=1e-12)
    row_of_first_picture = u[2 * 40 + 7, 0] / experiment.config.brightness
    torch.testing.assert_close(row_of_first_picture, experiment.digits.held["held_out"][0, 2])


def test_pictures_are_in_one_split_only():
    digits = autoencoding.Digits(3, 20.0, 0.5, 0.4)
    parts = [digits.pictures, digits.held["validation"], digits.held["held_out"]]
    assert [len(part) for part in parts] == [1077, 360, 360]
    everything = torch.cat(parts).flatten(1)
    images, _ = load_digits(return_X_y=True)
    shown = torch.from_numpy(images / 16.0)
    assert sorted(map(tuple, everything.tolist())) == sorted(map(tuple, shown.tolist()))
    other = autoencoding.Digits(4, 20.0, 0.5, 0.4)
    assert not torch.equal(other.pictures, digits.pictures)


def test_r_squared():
    target = torch.tensor([[0.0, 10.0], [2.0, 14.0]])
    assert coding.r_squared(target, target) == 1.0
    assert coding.r_squared(target.mean(0).expand(2, 2), target) == 0.0
    # deviations 1, 1, 2, 2; one error of 1
    assert coding.r_squared(target + torch.tensor([[1.0, 0.0], [0.0, 0.0]]), target) == pytest.approx(0.9)


def test_parts_of_a_recording(tmp_path):
    """Each value of a ramp tells its time: training, validation and held-out windows lie where they should."""
    np.save(tmp_path / "ramp.npy", np.arange(1001.0))
    trials = SignalTrials(0, 2, 1.0, 50.0, 100.0, signal=tmp_path / "ramp.npy")
    assert trials.channels == 1
    times = {split: (u - trials.fixed["validation"][0, 0]).flatten() for split, u in trials.fixed.items()}
    step = float(trials.fixed["validation"][1, 0, 0] - trials.fixed["validation"][0, 0, 0])
    assert trials.fixed["validation"].shape == (100, 1, 1)
    assert round(float(times["held_out"][0]) / step) == 150
    u = trials.training(64, torch.Generator().manual_seed(0))
    assert u.shape == (50, 64, 1)
    first, last = (float(x - trials.fixed["validation"][0, 0, 0]) / step for x in (u.min(), u.max()))
    assert -700.5 <= first <= -650.0
    assert last <= -0.5


def test_a_recording_and_digits_are_not_both_coded(tmp_path, capsys):
    assert main(*KINDS, argv=["--data", "digits", "--signal", "x.npy", "--runs", str(tmp_path)]) == 1
    assert "--signal with --data digits" in capsys.readouterr().err


@pytest.mark.slow
def test_the_rate_distortion_curve(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for price in ("0.1", "1"):
        assert main(*KINDS, argv=[*SHORT, "--activity-cost", price, "--runs", "runs"]) == 0
    assert rate_distortion.main(["runs"]) == 0
    out = capsys.readouterr().out
    assert "| signals, gated, λ = 0.1 | 1 |" in out
    assert "| signals, gated, λ = 1 | 1 |" in out
    assert (tmp_path / "rate_distortion.png").exists()
    assert rate_distortion.main(["runs", "--page", "PAGE.md"]) == 0
    page = (tmp_path / "PAGE.md").read_text()
    assert "## Rate and distortion" in page
    assert "(PAGE/rate-distortion.png)" in page
    assert (tmp_path / "PAGE" / "rate-distortion.png").exists()
    assert rate_distortion.main([str(tmp_path / "nothing")]) == 1
