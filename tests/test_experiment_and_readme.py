"""The predictive-coding script from end to end, and the example that the README prints."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "experiments"))

import predictive_coding  # noqa: E402  the folder of scripts is not a package

SHORT = ["--iterations", "4", "--neurons", "8", "--batch", "4", "--window", "20", "--held-out-window", "30", "--log-every", "2"]


def _only_run(root: Path) -> Path:
    (run,) = (root / "predictive_coding").iterdir()
    return run


def test_a_short_run_leaves_its_folder(tmp_path, capsys):
    assert predictive_coding.main([*SHORT, "--runs", str(tmp_path)]) == 0
    run = _only_run(tmp_path)
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    figures = {f"figures/{name}.png" for name in ("readout", "weights", "learning")}
    assert names == {"config.json", "metrics.csv", "summary.json", "best.pt"} | figures
    summary = json.loads((run / "summary.json").read_text())
    assert 0 < summary["held_out"]["cost"] < 10
    assert "held-out signals: cost" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_numbers(tmp_path):
    results = []
    for name in ("first", "second"):
        assert predictive_coding.main([*SHORT, "--runs", str(tmp_path / name)]) == 0
        results.append(json.loads((_only_run(tmp_path / name) / "summary.json").read_text())["held_out"])
    assert results[0] == results[1]


def test_a_recording_of_three_channels(tmp_path):
    times = np.arange(600)[:, None]
    np.save(tmp_path / "recording.npy", np.sin(2 * np.pi * times / np.array([90.0, 70.0, 50.0])))
    options = ["--signal", str(tmp_path / "recording.npy"), "--signal-dt", "1.0", "--runs", str(tmp_path)]
    assert predictive_coding.main([*SHORT, *options]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--signal", "missing.npy"], "missing.npy cannot be read"),
        (["--dt", "2.0"], "dt=2 ms with tau_fast=1 ms"),
        (["--neurons", "0"], "n_hidden=0"),
        (["--gate-width", "1.5"], "active zone of width 1.5"),
    ],
)
def test_bad_options_end_with_a_message(options, message, tmp_path, capsys):
    assert predictive_coding.main([*SHORT, *options, "--runs", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_a_recording_too_short_to_hold_out(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.sin(np.arange(100.0)))
    assert predictive_coding.main([*SHORT, "--signal", str(tmp_path / "x.npy"), "--runs", str(tmp_path)]) == 1
    assert "at least one held-out trial" in capsys.readouterr().err


def test_unknown_flags_end_with_a_message(capsys):
    with pytest.raises(SystemExit) as caught:
        predictive_coding.main(["--learning-rat", "1"])
    assert caught.value.code != 0


def test_the_readme_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(example.strip().splitlines()) <= 25
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
    assert "w_rec" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_predictive_coding_reaches_its_targets(seed, tmp_path):
    assert predictive_coding.main(["--seed", str(seed), "--runs", str(tmp_path)]) == 0
    found = json.loads((_only_run(tmp_path) / "summary.json").read_text())["held_out"]
    assert found["cost"] <= 0.003
    assert found["spikes_per_s"] <= 60
    assert found["corr_rec"] >= 0.9
