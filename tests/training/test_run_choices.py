"""What cannot be is refused before a run has a folder; runs beside damaged or repeated ones are compared rightly."""

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar, get_type_hints

import pytest
import torch

import adjsnn
from adjsnn.training import Column, Cost, Experiment, TrainingConfig, main
from adjsnn.training.__main__ import main as runs_main
from adjsnn.training.compare import spread
from adjsnn.training.files import read_about, read_summary, sealed
from adjsnn.training.ranges import _numbers
from adjsnn.training.sweep import _locked

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import adjoints  # noqa: E402  the folder of scripts is not a package
import rate_distortion  # noqa: E402
from autoencoding import GatedAutoencoding, LIFAutoencoding  # noqa: E402
from delayed_xor import GatedXor, LIFXor  # noqa: E402
from predictive_coding import GatedPredictiveCoding, LIFPredictiveCoding  # noqa: E402
from yin_yang import YinYang  # noqa: E402

KINDS = (GatedAutoencoding, LIFAutoencoding, GatedXor, LIFXor, GatedPredictiveCoding, LIFPredictiveCoding, YinYang)
CODING = ["--neurons", "6", "--batch", "2", "--window", "20", "--held-out-window", "20"]
TIMES = ["--delay", "0", "4", "--gap", "2", "4", "--pulse", "4", "--answer", "8", "--lead", "2", "--rest", "2"]
XOR = ["--neurons", "6", "--batch", "2", *TIMES, "--reaction", "2", "--validation-trials", "3", "--held-out-trials", "3"]
TINY = {"Coding": CODING, "Xor": XOR, "YinYang": ["--hidden", "8", "--batch", "10"]}


def _tiny(kind):
    return next(options for part, options in TINY.items() if part.lower() in kind.__name__.lower())


def _impossible(kind):
    """Flags of an experiment with 0, -1, nan and inf, where these are out of the range that a field states; and the others."""
    hints, bad, good = get_type_hints(kind.config_type, include_extras=True), [], []
    for field in dataclasses.fields(kind.config_type):
        numbers = list(_numbers(field.default, hints[field.name]))
        if not numbers:
            continue
        for value in ("0", "-1") if isinstance(numbers[0][0], int) else ("0", "-1", "nan", "inf"):
            fits = math.isfinite(float(value)) and all(allowed is None or float(value) in allowed for _, allowed in numbers)
            (good if fits else bad).append([f"--{field.name.replace('_', '-')}", *[value] * len(numbers)])
    return bad, good


@pytest.mark.every(5)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_numbers_out_of_range_are_refused_before_there_is_a_folder(kind, tmp_path, capsys):
    bad, _ = _impossible(kind)
    network = ["--network", "lif"] if kind.__name__.startswith("LIF") else []
    assert len(bad) > 40
    for options in bad:
        assert main(kind, argv=[*network, *options, "--runs", str(tmp_path)]) == 1, options
        told = capsys.readouterr().err
        assert told.startswith(f"error: {options[0][2:].replace('-', '_')}="), told
        assert "expected" in told
        assert f"Try: {options[0]}" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_other_extreme_numbers_train_or_are_refused_before_there_is_a_folder(kind, tmp_path, capsys):
    _, good = _impossible(kind)
    network = ["--network", "lif"] if kind.__name__.startswith("LIF") else []
    for number, options in enumerate(good):
        root = tmp_path / str(number)
        status = main(kind, argv=[*_tiny(kind), *network, "--iterations", "1", *options, "--runs", str(root)])
        assert status == 0 or not root.exists(), (options, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (GatedPredictiveCoding, ["--adjoint", "event"], "EventAdjoint"),
        (GatedXor, ["--adjoint", "event"], "EventAdjoint"),
        (GatedPredictiveCoding, ["--window", "0"], "window=0.0"),
        (GatedPredictiveCoding, ["--window", "0.01"], "one step or more"),
        (GatedPredictiveCoding, ["--gate-width", "1.5"], "active zone of width 1.5"),
        (GatedPredictiveCoding, ["--threads", "1000000"], "threads=1000000"),
        (LIFPredictiveCoding, ["--network", "lif", "--adjoint", "continuous"], "ContinuousAdjoint"),
        (LIFPredictiveCoding, ["--network", "lif", "--v-reset", "1"], "reset"),
        (YinYang, ["--batch", "6000"], "batch=6000"),
        (YinYang, ["--tau-mem", "0.5"], "tau_mem=0.5"),
        (YinYang, ["--learn", "everything"], "everything"),
        (GatedXor, ["--dt", "4", "--tau-fast", "5"], "two steps or more"),
        (GatedAutoencoding, ["--data", "digits", "--row", "0.01"], "one step or more"),
    ],
)
def test_what_cannot_be_is_refused_before_there_is_a_folder(kind, options, message, tmp_path, capsys):
    assert main(kind, argv=[*_tiny(kind), *options, "--runs", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


class Slope(Experiment[TrainingConfig]):
    columns: ClassVar = {"cost": Column("cost", ".3f")}

    def network(self):
        torch.manual_seed(self.config.seed)
        return torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.BatchNorm1d(2), torch.nn.Dropout(0.5))

    def batch(self, generator, step):
        return torch.randn(self.config.batch, 1, generator=generator)

    def cost(self, net, batch):
        return Cost((net(batch).sum(1) - batch[:, 0]).square().mean(), None)

    def evaluate(self, net, split):
        return {"cost": float(net[0].weight.detach().square().sum()), "noise": float(torch.rand(1))}


def test_the_rehearsal_leaves_no_trace_in_the_training(tmp_path, monkeypatch):
    """Weights, running means, random numbers and the first row are those of a training without one."""
    import adjsnn.training.main  # noqa: F401, PLC0415

    rows = []
    for name in ("with", "without"):
        if name == "without":
            monkeypatch.setattr(sys.modules["adjsnn.training.main"], "rehearse", lambda *_: None)
        assert main(Slope, argv=["--iterations", "5", "--runs", str(tmp_path / name)]) == 0
        (run,) = (tmp_path / name / "slope").iterdir()
        rows.append([row.split(",")[2:] for row in (run / "metrics.csv").read_text().splitlines()])
    assert rows[0] == rows[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    assert main(Slope, argv=["--iterations", "2", "--log-every", "1", "--runs", str(root)]) == 0
    (run,) = (root / "slope").iterdir()
    return run


def _copy(run, place, cost=None, **config):
    """A run like another, with another configuration and held-out cost."""
    shutil.copytree(run, place)
    about, summary = read_about(place), read_summary(place)
    about["config"].update(config)
    if cost is not None:
        summary["held_out"]["cost"] = cost
    (place / "config.json").write_text(json.dumps(sealed(about)))
    (place / "summary.json").write_text(json.dumps(sealed(summary)))
    return place


def _rows(out):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")][2:]


def test_a_seed_run_three_times_is_one_seed(made, tmp_path, capsys):
    for number in range(3):
        _copy(made, tmp_path / "runs" / str(number), cost=2.0)
    assert runs_main(["compare", str(tmp_path / "runs"), "--figure", str(tmp_path / "c.png")]) == 0
    found = capsys.readouterr()
    assert [row[1:3] for row in _rows(found.out)] == [["1", "2.000"]]
    assert "3 runs of seed 0, all the same, counted once" in found.err
    page = tmp_path / "R.md"
    assert runs_main(["results", str(tmp_path / "runs"), "--page", str(page)]) == 0
    (record,) = (tmp_path / "R").glob("*.json")
    assert len(json.loads(record.read_text())["runs"]) == 1


def test_seeds_are_counted_and_not_runs(made, tmp_path, capsys):
    for number, (seed, cost) in enumerate([(0, 1.0), (1, 3.0), (1, 3.0), (2, 5.0), (2, 4.0)]):
        _copy(made, tmp_path / "runs" / str(number), cost=cost, seed=seed)
    assert runs_main(["compare", str(tmp_path / "runs"), "--figure", str(tmp_path / "c.png")]) == 0
    found = capsys.readouterr()
    assert [row[1:3] for row in _rows(found.out)] == [["3", "2.667 ± 1.528"]]  # 1, 3, 4
    assert "2 runs of seed 1, all the same" in found.err
    assert "2 runs of seed 2, of different numbers; only the last counts" in found.err
    assert runs_main(["results", str(tmp_path / "runs"), "--page", str(tmp_path / "R.md")]) == 1
    assert "one run for each seed, all alike" in capsys.readouterr().err
    assert not (tmp_path / "R").exists()


@pytest.mark.every(3)
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("summary.json", lambda data: data[: len(data) // 2]),
        ("summary.json", lambda data: data.replace(b'"cost": 1.0', b'"cost": 9.0')),
        ("summary.json", lambda data: b"[]"),
        ("summary.json", lambda data: b"\xff\xfe"),
        ("config.json", lambda data: data[:-5]),
        ("config.json", lambda data: b'{"experiment": "slope"}'),
        ("metrics.csv", lambda data: data.replace(b"nan", b"nah")),
        ("metrics.csv", lambda data: data[:-7]),
        ("metrics.csv", lambda data: b""),
        ("metrics.csv", None),
    ],
)
def test_the_other_runs_are_shown_and_the_damaged_one_told(made, tmp_path, capsys, name, damage):
    for seed in range(4):
        _copy(made, tmp_path / "runs" / str(seed), cost=1.0 + seed, seed=seed)
    file = tmp_path / "runs" / "0" / name
    if damage is None:
        file.unlink()
    else:
        changed = damage(file.read_bytes())
        assert changed != file.read_bytes()
        file.write_bytes(changed)
    left = 4 if name == "metrics.csv" else 3  # whose numbers stand in summary.json
    assert runs_main(["compare", str(tmp_path / "runs"), "--figure", str(tmp_path / "c.png")]) == 0
    found = capsys.readouterr()
    assert _rows(found.out)[0][1] == str(left)
    assert found.err.count("is left out") == 1
    assert str(tmp_path / "runs" / "0") in found.err
    assert (tmp_path / "c.png").exists()
    assert runs_main(["results", str(tmp_path / "runs"), "--page", str(tmp_path / "R.md")]) == 0
    (record,) = (tmp_path / "R").glob("*.json")
    assert len(json.loads(record.read_text())["runs"]) == left


def test_runs_that_are_all_damaged_a_record_and_a_picture_that_cannot_be(made, tmp_path, capsys):
    run = _copy(made, tmp_path / "runs" / "0")
    assert runs_main(["compare", str(run), "--figure", str(tmp_path / "c.nothing")]) == 1
    assert "c.nothing" in capsys.readouterr().err
    assert rate_distortion.main([str(run)]) == 1
    assert "runs of autoencoding" in capsys.readouterr().err
    (run / "summary.json").write_text("{")
    assert runs_main(["compare", str(run)]) == 1
    assert "none of them finished and whole, 1 damaged" in capsys.readouterr().err
    assert runs_main(["report", str(run)]) == 1
    assert "summary.json cannot be read" in capsys.readouterr().err
    (tmp_path / "R").mkdir()
    (tmp_path / "R" / "old.json").write_text("{")
    assert runs_main(["results", str(made), "--page", str(tmp_path / "R.md")]) == 1
    assert "old.json cannot be read" in capsys.readouterr().err


def test_no_page_of_results_is_written_that_was_not_asked_for(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracked = {path: path.read_bytes() for path in (ROOT / "experiments").rglob("*") if path.suffix in (".md", ".json")}
    assert runs_main(["results", str(made)]) == 0
    assert (tmp_path / "RESULTS.md").exists()
    assert tracked == {path: path.read_bytes() for path in (ROOT / "experiments").rglob("*") if path.suffix in (".md", ".json")}


def test_adjoints_side_by_side_write_a_page_of_their_own(made, tmp_path, monkeypatch, capsys):
    """Columns follow the steps; the tracked page is left alone unless it is named."""
    assert adjoints.steps_shown(2) == [1, 2]
    assert adjoints.steps_shown(1) == [1]
    assert adjoints.steps_shown(10) == [1, 5, 10]
    assert adjoints.steps_shown(20) == [1, 5, 10, 20]
    tracked = (ROOT / "experiments" / "RESULTS.md").read_bytes()

    def train(adjoint, config, root):
        (run,) = adjoints.finished([_copy(made, root / adjoint)])
        return run

    monkeypatch.setattr(adjoints, "train", train)
    assert adjoints.main(["--iterations", "2", "--batch", "2", "--runs", str(tmp_path)]) == 0
    (page,) = tmp_path.glob("adjoints/*/adjoints.md")
    text = page.read_text()
    assert "| adjoint | s per training step | peak MB | curve apart, 1 step | curve apart, 2 steps |" in text
    assert "2 steps of 2 trials" in text
    assert str(page) in capsys.readouterr().out
    assert (ROOT / "experiments" / "RESULTS.md").read_bytes() == tracked
    assert adjoints.main(["--iterations", "2", "--runs", str(tmp_path), "--page", str(tmp_path / "P.md")]) == 0
    assert "## Adjoints side by side" in (tmp_path / "P.md").read_text()
    assert adjoints.main(["--dt", "0", "--runs", str(tmp_path / "none")]) == 1
    assert "dt=0.0" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


class _Compiling(Slope):
    """The first solve of a process takes half a second, as loops that are compiled do."""

    compiled = False

    def cost(self, net, batch):
        if not _Compiling.compiled:
            time.sleep(0.5)
            _Compiling.compiled = True
        return super().cost(net, batch)


def test_compilation_is_not_timed_as_training(tmp_path):
    assert main(_Compiling, argv=["--iterations", "2", "--runs", str(tmp_path)]) == 0
    (run,) = tmp_path.glob("*/*")
    assert _Compiling.compiled
    assert read_summary(run)["training"]["seconds"] < 0.5


WITHOUT = """
import sys
for name in ("matplotlib", "tyro", "sklearn"):
    sys.modules[name] = None  # as if it were not installed
import adjsnn
for statement in ("import adjsnn.plotting", "import adjsnn.training", "import yin_yang", "import rate_distortion"):
    try:
        exec(statement)
    except adjsnn.MissingPackageError as error:
        assert isinstance(error, ImportError)
        print(error)
del sys.modules["matplotlib"], sys.modules["tyro"]
import autoencoding
try:
    autoencoding.Digits(0, 20.0, 1.0, 0.4)
except adjsnn.MissingPackageError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_missing_extra_is_told_with_what_to_install():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "experiments")])}
    command = [sys.executable, "-c", WITHOUT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    packages = ["matplotlib", "tyro", "matplotlib", "matplotlib", "scikit-learn"]
    remedy = "expected those of the extra 'experiments'. Try: pip install \"adjsnn[experiments]\"."
    assert done.stdout.splitlines() == [f"no package {name}; {remedy}" for name in packages]


def test_a_sweep_whose_runs_still_work_is_not_resumed(tmp_path, capsys):
    """A killed sweep's runs hold its lock by inheritance: a process that has only the lock's descriptor keeps it."""
    (tmp_path / "sweep.json").write_text(json.dumps(sealed({"script": "x.py", "parallel": 1, "jobs": []})))
    with _locked(tmp_path) as lock:
        orphan = subprocess.Popen(["sleep", "60"], pass_fds=[lock.file])
    try:
        assert runs_main(["resume", str(tmp_path)]) == 1
        assert "is under way" in capsys.readouterr().err
    finally:
        orphan.kill()
        orphan.wait()
    assert runs_main(["resume", str(tmp_path)]) == 0


ENDLESS = """
import sys
sys.path.insert(0, {tests!r})
from training.test_run_choices import Slope
from adjsnn.training import main
class Endless(Slope):
    pass
sys.exit(main(Endless))
"""


@pytest.mark.slow
def test_the_runs_of_a_killed_sweep_save_and_end(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS.format(tests=str(ROOT / "tests")))
    command = [sys.executable, "-m", "adjsnn.training", "sweep", str(script), "--seeds", "2", "--parallel", "2"]
    flags = ["--flags=--iterations 100000000 --save-every 100000000 --log-every 1000000", "--runs", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    sweep = subprocess.Popen([*command, *flags], env=environment, stdout=subprocess.DEVNULL)
    while len(list(tmp_path.glob("sweeps/*/endless/*/checkpoints/00000000"))) < 2:
        time.sleep(0.05)
        assert sweep.poll() is None
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    (root,) = (tmp_path / "sweeps").iterdir()
    deadline = time.time() + 60
    while True:
        try:
            with _locked(root):
                break
        except adjsnn.ConfigurationError:
            assert time.time() < deadline
            time.sleep(0.1)
    for run in root.glob("endless/*"):
        assert "stopped by signal 15" in (run / "log.txt").read_text()
        assert len(list((run / "checkpoints").glob("0*"))) == 2


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((1.0, 3.0), "2.0 ± 1.4"),
        ((2.0,), "2.0"),
        ((math.nan,), "nan"),
        ((1.0, math.nan, 3.0), "2.0 ± 1.4 (2 of 3)"),
        ((math.nan, 3.0), "3.0 (1 of 2)"),
        ((math.nan, math.nan), "nan ± nan"),
    ],
)
def test_runs_without_a_number_are_counted_beside_the_mean_of_the_others(values, told):
    assert spread(values, ".1f") == told
