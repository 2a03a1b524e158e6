"""Many runs: sweeps, their comparison, and pages of results."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adjsnn.training.__main__ import main
from adjsnn.training.files import read_summary, sealed
from adjsnn.training.sweep import combinations, joined

ROOT = Path(__file__).parents[2]
LINE = '''
import sys
from dataclasses import dataclass
import torch
from adjsnn.training import Column, Cost, Curve, Experiment, TrainingConfig, main

@dataclass(frozen=True)
class Config(TrainingConfig):
    """Fit a slope."""
    slope: float = 2.0
    fail: int = -1

class Line(Experiment[Config]):
    config_type = Config
    columns = {"cost": Column("cost", ".3f"), "slope": Column("slope", ".2f")}

    def network(self):
        if self.config.seed == self.config.fail:
            raise RuntimeError("this seed fails")
        torch.manual_seed(self.config.seed)
        return torch.nn.Linear(1, 1)

    def batch(self, generator, step):
        return torch.randn(self.config.batch, 1, generator=generator)

    def cost(self, net, x):
        return Cost((net(x) - self.config.slope * x).square().mean(), None)

    def evaluate(self, net, split):
        return {"cost": float((net.weight - self.config.slope).square()), "slope": float(net.weight)}

    def curves(self, net):
        x = (1.0, 2.0, 3.0)
        return {"error_against_x": Curve("x", "error", x, [v * self.config.slope for v in x], shaded=(1.0, 2.0), marked=1.0)}

if __name__ == "__main__":
    sys.exit(main(Line))
'''


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "line.py"
    path.write_text(LINE)
    return path


def _sweep(script, *options):
    return main(["sweep", str(script), "--runs", str(script.parent / "runs"), *options])


@pytest.mark.slow
def test_a_sweep_is_compared_and_recorded(script, capsys, monkeypatch):
    options = ["--seeds", "2", "--parallel", "2", "--grid", "slope=1,2", "learning-rate=0.05"]
    assert _sweep(script, *options, "--flags=--iterations 300 --log-every 100 --threads 1") == 0
    out = capsys.readouterr().out
    assert out.count("ended: ") == 4
    rows = re.findall(r"^\| slope=(\S+) \| 2 \| \S+ ± \S+ \| (\S+) ± \S+ \|", out, re.MULTILINE)
    assert [(slope, round(float(found))) for slope, found in rows] == [("1.0", 1), ("2.0", 2)]
    (root,) = (script.parent / "runs" / "sweeps").iterdir()
    assert (root / "compare.png").exists()

    page = script.parent / "RESULTS.md"
    assert main(["results", str(root), "--page", str(page), "--heading", "a test"]) == 0
    text = page.read_text()
    assert "| Line, a test, slope=1.0 |" in text
    assert "## Line, a test, slope=2.0" in text
    assert "2 runs at a time" in text
    assert len(list((script.parent / "RESULTS").glob("*.json"))) == 2
    assert "| x | slope=1.0 (trained 1 to 2) | slope=2.0 (trained 1 to 2) |" in text
    assert "| 3 | 3.0 ± 0.0 | 6.0 ± 0.0 |" in text
    assert (script.parent / "RESULTS" / "error-against-x.png").exists()
    assert main(["results", str(root), "--page", str(page), "--heading", "a test"]) == 0
    assert page.read_text() == text

    (run, *_) = root.glob("line/*")
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").exists()
    monkeypatch.chdir(script.parent)
    assert main(["compare", str(run)]) == 0
    assert (script.parent / "compare.png").exists()


@pytest.mark.slow
def test_a_run_that_fails_is_told_and_stops_no_other(script, capsys):
    assert _sweep(script, "--seeds", "3", "--flags=--iterations 5 --fail 1") == 1
    out = capsys.readouterr().out
    assert "FAILED (1)" in out
    assert "this seed fails" in out
    assert len(list(script.parent.glob("runs/sweeps/*/line/*/summary.json"))) == 2


@pytest.mark.slow
def test_a_stopped_sweep_stops_its_runs_which_save(script):
    command = [sys.executable, "-m", "adjsnn.training", "sweep", str(script), "--seeds", "2", "--parallel", "1"]
    flags = ["--flags=--iterations 1000000 --save-every 1000000", "--runs", str(script.parent / "runs")]
    process = subprocess.Popen([*command, *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(script.parent.glob("runs/sweeps/*/line/*/checkpoints/0*")):
        time.sleep(0.05)
        assert process.poll() is None
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert not err
    (run,) = script.parent.glob("runs/sweeps/*/line/*")  # the second never started
    assert len(list((run / "checkpoints").iterdir())) == 2


@pytest.mark.slow
def test_a_killed_sweep_goes_on(script, capsys):
    """One run stopped on its way and one never started: the first ends as it did, and finished ones are left alone."""
    flags = ["--seeds", "2", "--parallel", "1", "--flags=--iterations 300 --log-every 100 --save-every 100"]
    assert _sweep(script, *flags) == 0
    (root,) = (script.parent / "runs" / "sweeps").iterdir()
    first, second = sorted(root.glob("line/*"))
    last = first / "checkpoints" / "00000300"
    whole = (last / "weights.safetensors").read_bytes()
    (first / "summary.json").unlink()
    shutil.rmtree(last)
    shutil.rmtree(second)
    capsys.readouterr()
    assert main(["resume", str(root)]) == 0
    out = capsys.readouterr().out
    assert "2 runs, 1 at a time" in out
    assert f"--resume {first}" in out
    assert (last / "weights.safetensors").read_bytes() == whole
    ends = {path: path.stat().st_mtime_ns for path in root.glob("line/*/summary.json")}
    assert len(ends) == 2
    assert main(["resume", str(root)]) == 0
    assert "0 runs, 1 at a time" in capsys.readouterr().out
    assert ends == {path: path.stat().st_mtime_ns for path in root.glob("line/*/summary.json")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sweep", "nothing.py"], "no such script"),
        (["sweep", __file__, "--grid", "rate"], "flag=value,value"),
        (["sweep", __file__, "--seeds", "0"], "1 or more"),
        (["sweep", __file__, "--grid", "rate=1,2,1"], "each once"),
        (["sweep", __file__, "--grid", "rate=1,,2"], "each once"),
        (["sweep", __file__, "--grid", "seed=1,2"], "--seed twice"),
        (["sweep", __file__, "--grid", "a-b=1,2", "--flags=--a_b 3"], "--a-b twice"),
        (["sweep", __file__, "--flags=--runs=here"], "--runs twice"),
        (["sweep", __file__, "--flags=--name 'a"], "No closing quotation"),
        (["sweep", __file__, "--runs", __file__], "cannot be made"),
        (["resume", "."], "no sweep.json in it"),
        (["compare", "."], "no run in it"),
        (["results", "."], "no run in it"),
        (["report", "."], "is no run folder"),
    ],
)
def test_what_cannot_be_done_is_told(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(options) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_runs_that_are_not_alike_are_not_one_record(script, capsys, tmp_path):
    assert _sweep(script, "--seeds", "2", "--flags=--iterations 5") == 0
    (root,) = (script.parent / "runs" / "sweeps").iterdir()
    path = next(root.glob("line/*/summary.json"))
    summary = read_summary(path.parent)
    path.write_text(json.dumps(sealed({**summary, "versions": {**summary["versions"], "torch": "1.0"}})))
    assert main(["results", str(root), "--page", str(tmp_path / "R.md")]) == 1
    assert "2 kinds of machine or version" in capsys.readouterr().err


def test_combinations_of_a_grid():
    assert combinations([]) == [[]]
    assert combinations(["a=1,2", "--b=x"]) == [["--a", "1", "--b", "x"], ["--a", "2", "--b", "x"]]


def test_flags_may_begin_with_a_dash():
    told = joined(["sweep", "x.py", "--flags", "--iterations 2 --quick", "--seeds", "2"])
    assert told == ["sweep", "x.py", "--flags=--iterations 2 --quick", "--seeds", "2"]
    assert joined(["sweep", "--flags"]) == ["sweep", "--flags"]
    assert joined(["--flags=--a"]) == ["--flags=--a"]
