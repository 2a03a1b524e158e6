"""The experiments from end to end, and the examples that the README prints."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adjsnn.equations import link
from adjsnn.training import main, runs
from adjsnn.training.results import record

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import predictive_coding  # noqa: E402  the folder of scripts is not a package
import yin_yang  # noqa: E402

SHORT = ["--iterations", "4", "--neurons", "8", "--batch", "4", "--window", "20", "--held-out-window", "30", "--log-every", "2"]


def _only_run(root: Path, experiment: str = "predictive_coding") -> Path:
    (run,) = (root / experiment).iterdir()
    return run


def _figures(run: Path) -> set[str]:
    assert (run / "report.html").exists()
    return {path.stem for path in (run / "figures").iterdir()}


def _predictive_coding(*options) -> int:
    return main(predictive_coding.GatedPredictiveCoding, argv=options)


def test_a_short_run_leaves_its_folder(tmp_path, capsys):
    assert _predictive_coding(*SHORT, "--runs", str(tmp_path)) == 0
    run = _only_run(tmp_path)
    assert _figures(run) == {"readout", "weights", "events", "history"}
    summary = json.loads((run / "summary.json").read_text())
    assert 0 < summary["held_out"]["cost"] < 10
    assert "held out: cost / silent" in capsys.readouterr().out


def test_a_library_in_no_checkout_has_reports_too(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "source_state", dict)  # as of a wheel
    assert _predictive_coding(*SHORT, "--runs", str(tmp_path)) == 0
    run = _only_run(tmp_path)
    assert json.loads((run / "config.json").read_text())["source"] == {}
    assert "git checkout" not in (run / "report.html").read_text()
    record((run,), tmp_path / "RESULTS.md", "")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers(tmp_path):
    results = []
    for name in ("first", "second"):
        assert _predictive_coding(*SHORT, "--runs", str(tmp_path / name)) == 0
        results.append(json.loads((_only_run(tmp_path / name) / "summary.json").read_text())["held_out"])
    assert results[0] == results[1]


@pytest.mark.slow
def test_a_recording_of_three_channels(tmp_path):
    times = np.arange(600)[:, None]
    np.save(tmp_path / "recording.npy", np.sin(2 * np.pi * times / np.array([90.0, 70.0, 50.0])))
    options = ["--signal", str(tmp_path / "recording.npy"), "--signal-dt", "1.0", "--runs", str(tmp_path)]
    assert _predictive_coding(*SHORT, *options) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--signal", "missing.npy"], "missing.npy cannot be read"),
        (["--dt", "2.0"], "dt=2 ms with tau_fast=1 ms"),
        (["--neurons", "0"], "neurons=0"),
        (["--gate-width", "1.5"], "active zone of width 1.5"),
    ],
)
def test_bad_options_end_with_a_message(options, message, tmp_path, capsys):
    assert _predictive_coding(*SHORT, *options, "--runs", str(tmp_path)) == 1
    assert message in capsys.readouterr().err


def test_a_recording_too_short_to_hold_out(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.sin(np.arange(100.0)))
    assert _predictive_coding(*SHORT, "--signal", str(tmp_path / "x.npy"), "--runs", str(tmp_path)) == 1
    assert "at least one held-out trial" in capsys.readouterr().err


def test_unknown_flags_end_with_a_message(capsys):
    with pytest.raises(SystemExit) as caught:
        _predictive_coding("--learning-rat", "1")
    assert caught.value.code != 0


@pytest.mark.parametrize(("number", "printed"), [(0, "w_rec"), (1, "SpikeTrains"), (2, "tensor"), (3, "dw/dt")])
def test_the_readme_examples_run(number, printed, capsys, monkeypatch):
    monkeypatch.setattr(link, "INTERPRETED", True)  # a text takes seconds to compile
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(examples) == 4
    assert len(examples[number].strip().splitlines()) <= 25
    exec(compile(examples[number], "README.md", "exec"), {"__name__": "readme"})
    assert printed in capsys.readouterr().out


@pytest.mark.slow
def test_yin_yang_leaves_its_folder_and_the_same_numbers(tmp_path, capsys):
    results = []
    for name in ("first", "second"):
        options = ["--iterations", "50", "--log-every", "25", "--hidden", "30", "--batch", "100", "--averaging", "0"]
        learnt = ["--learn", "weights", "delays", "tau_mem", "--runs", str(tmp_path / name)]
        assert main(yin_yang.YinYang, argv=[*options, *learnt]) == 0
        run = _only_run(tmp_path / name, "yin_yang")
        assert _figures(run) == {"decision_map", "raster", "events", "history"}
        results.append(json.loads((run / "summary.json").read_text()))
    assert results[0]["held_out"] == results[1]["held_out"]
    assert results[0]["held_out"]["accuracy"] > 0.5  # a third by chance
    assert np.isnan(results[0]["training"]["seconds_to_98"])
    assert "held out: accuracy" in capsys.readouterr().out


def test_an_epoch_of_yin_yang_shows_each_point_once():
    experiment = yin_yang.YinYang(yin_yang.Config(batch=100))
    shown = torch.cat([experiment.batch(torch.Generator(), step).points for step in range(50)])
    assert torch.equal(shown.unique(dim=0), experiment.data["train"].points.unique(dim=0))
    first, again = (experiment.batch(torch.Generator(), step).points for step in (0, 50))
    assert not torch.equal(first, again)


def test_yin_yang_points():
    data = yin_yang.draw_points(999, 0, 30.0)
    assert torch.bincount(data.labels).tolist() == [333, 333, 333]
    # A half turn around the centre swaps yin and yang, and eyes with each other.
    turned = yin_yang.classes_of(1.0 - data.points)
    assert torch.equal(turned, torch.tensor([1, 0, 2])[data.labels])
    assert torch.equal(data.x.idx.sort(1).values, torch.arange(5).expand(999, 5))


def test_waking_is_no_part_of_the_gradient():
    """A silent output neuron of the right class: its weights rise after the step, and their gradient is zero before."""
    experiment = yin_yang.YinYang(yin_yang.Config(hidden=10))
    net, data = experiment.network(), yin_yang.draw_points(30, 0, 30.0)
    with torch.no_grad():
        net.w_in[1][2] = -1.0
    cost = experiment.cost(net, data)
    cost.value.backward()
    before = net.w_in[1].detach().clone()
    yin_yang.wake(net, cost.sol, data.labels, 0.5)
    assert not net.w_in[1].grad[2].any()
    eyes = data.labels == 2
    spiked = (cost.sol.layer_spikes[0].counts()[eyes] > 0).float().mean(0)
    torch.testing.assert_close(net.w_in[1][2].detach(), before[2] + 0.5 * spiked)
    assert torch.equal(net.w_in[1][:2], before[:2])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_predictive_coding_reaches_its_targets(seed, tmp_path):
    assert _predictive_coding("--seed", str(seed), "--runs", str(tmp_path)) == 0
    found = json.loads((_only_run(tmp_path) / "summary.json").read_text())["held_out"]
    assert found["cost"] <= 0.003
    assert found["spikes_per_s"] <= 60
    assert found["corr_rec"] >= 0.9


def test_yin_yang_read_from_hidden_spikes(tmp_path):
    """The answer is the largest integral over the trial of w_out times each hidden spike, filtered; on a clock and without."""
    config = yin_yang.Config(hidden=20, answer="readout", tau_out=15.0, clock=0.05, dtype="float64")
    experiment = yin_yang.YinYang(config)
    net, data = experiment.network().double(), yin_yang.draw_points(30, 0, 30.0)
    assert (net.layers, net.n_out) == ((20,), 3)
    data = experiment.place(data)
    cost = experiment.cost(net, data)
    spikes = cost.sol.layer_spikes[0]
    held = -torch.expm1((spikes.time - config.t_end) / config.tau_out).where(spikes.idx >= 0, 0.0)
    by_hand = torch.zeros(30, 20, dtype=torch.float64).scatter_add(1, spikes.idx.clamp(min=0), held) @ net.w_out.T
    torch.testing.assert_close(yin_yang.scores_of(cost.sol, "readout"), by_hand)
    torch.testing.assert_close(cost.value, torch.nn.functional.cross_entropy(by_hand, data.labels))
    on_clock = yin_yang.YinYang(replace(config, adjoint="surrogate"))
    near = on_clock.cost(net, data)
    assert abs(float((near.value - cost.value).detach())) < 0.02  # spike times are off by half a step, of 15 ms
    near.value.backward()
    assert bool(net.w_in[0].grad.any())
    before = net.w_out.detach().clone()
    on_clock.after_step(net, data, near, 1.0)
    assert torch.equal(net.w_out, before)  # nothing is woken
    few = ["--answer", "readout", "--adjoint", "surrogate", "--clock", "1.0", "--hidden", "8", "--iterations", "2"]
    assert main(yin_yang.YinYang, argv=[*few, "--batch", "4", "--log-every", "1", "--runs", str(tmp_path)]) == 0
    run = _only_run(tmp_path, "yin_yang")
    assert _figures(run) == {"decision_map", "raster", "events", "history"}
    assert 0.0 <= json.loads((run / "summary.json").read_text())["held_out"]["accuracy"] <= 1.0
