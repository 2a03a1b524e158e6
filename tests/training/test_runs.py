"""Runs: what they leave, that a killed one goes on to the bit, that processes share a batch, and what goes wrong loudly."""

import contextlib
import csv
import importlib.util
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import adjsnn
from adjsnn.training import Cost, Experiment, RunFolder, TrainingConfig, main
from adjsnn.training.__main__ import main as work
from adjsnn.training.batches import samples_of, share_of
from adjsnn.training.files import checkpoints, read_about, sealed

ROOT = Path(__file__).parents[2]
PAGE = re.findall(r"^%%writefile echo.py\n(.*?)^```", (ROOT / "docs" / "experiments.md").read_text(), re.DOTALL | re.MULTILINE)
SMALL = ["--duration", "40", "--batch", "4", "--neurons", "8"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "echo.py"
    path.write_text(PAGE[0])
    return path


def _start(script, *options, before=(), **settings):
    command = [sys.executable, *before, str(script), *options]
    return subprocess.Popen(
        command, cwd=script.parent, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings
    )


def _run(script, *options, **settings):
    process = _start(script, *options, **settings)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def _complaints(err):
    """What stderr says beside that loops are compiled, where they are for the first time."""
    return "".join(line for line in err.splitlines(keepends=True) if not line.startswith("adjsnn: compiling"))


def _here(script, *options):
    """The script's command in this process, which need not load torch again."""
    spec = importlib.util.spec_from_file_location("echo", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules["echo"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(module.Echo, argv=list(options))
    return status, out.getvalue(), err.getvalue()


def _only(root):
    (run,) = root.glob("*/*")
    return run


def _rows(run):
    with open(run / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def _same_weights(one, other):
    for name in ("best.safetensors", f"{checkpoints(one)[-1].relative_to(one)}/weights.safetensors"):
        a, b = load_file(one / name), load_file(other / name)
        assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
def test_the_experiment_of_the_docs_page_runs(script, tmp_path):
    assert len(PAGE) == 1
    assert len(PAGE[0].splitlines()) < 80
    status, out, err = _run(script, *SMALL, "--iterations", "20", "--runs", str(tmp_path))
    assert status == 0, err
    assert "held out: cost / silent" in out
    run = _only(tmp_path)
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    checkpoint = {
        f"checkpoints/{step:08d}/{file}"
        for step in (0, 20)
        for file in ("weights.safetensors", "state.pt", "best.safetensors", "metrics.csv", "manifest.json")
    }
    assert names == checkpoint | {
        ".lock",
        "config.json",
        "metrics.csv",
        "log.txt",
        "best.safetensors",
        "summary.json",
        "report.html",
        "figures/readout.png",
        "figures/history.png",
    }
    about, summary = json.loads((run / "config.json").read_text()), json.loads((run / "summary.json").read_text())
    assert about["config"]["iterations"] == 20
    assert about["command"].startswith(f"python {script.name} --duration 40")
    assert summary["training"]["iterations"] == 20
    assert [row["iteration"] for row in _rows(run)] == ["0", "10", "20"]


@pytest.mark.slow
@pytest.mark.parametrize("averaging", ["0", "0.9"])
def test_a_killed_run_goes_on_to_the_bit(script, tmp_path, averaging):
    """Killed at a random moment, twice; the moments differ from test run to test run and the weights must not."""
    options = [*SMALL, "--iterations", "120", "--save-every", "7", "--averaging", averaging]
    status, _, err = _run(script, *options, "--runs", str(tmp_path / "whole"))
    assert status == 0, err
    process = _start(script, *options, "--runs", str(tmp_path / "killed"))
    while not list((tmp_path / "killed").glob("echo/*/checkpoints/0*")):
        time.sleep(0.01)
        assert process.poll() is None
    run = _only(tmp_path / "killed")
    for _ in range(2):
        time.sleep(random.uniform(0.0, 0.5))
        process.kill()
        process.communicate()
        process = _start(script, "--resume", str(run))
        time.sleep(random.uniform(0.5, 3.0))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    whole = _only(tmp_path / "whole")
    _same_weights(whole, run)
    assert _rows(whole) == _rows(run)
    assert (
        json.loads((whole / "summary.json").read_text())["held_out"]
        == json.loads((run / "summary.json").read_text())["held_out"]
    )
    again, out, _ = _run(script, "--resume", str(run))
    assert again == 0
    assert "is finished" in out


@pytest.mark.every(3)
@pytest.mark.parametrize("metrics", ["whole", "first line cut", "empty"])
def test_a_run_killed_before_its_first_step_was_saved(script, tmp_path, metrics):
    """It goes on from the start, which is judged once."""
    status, _, err = _here(script, *SMALL, "--iterations", "4", "--log-every", "2", "--runs", str(tmp_path))
    assert status == 0, err
    run = _only(tmp_path)
    rows, text = _rows(run), (run / "metrics.csv").read_text()
    assert [row["iteration"] for row in rows] == ["0", "2", "4"]
    shutil.rmtree(checkpoints(run)[-1])
    (run / "summary.json").unlink()
    (run / "metrics.csv").write_text({"whole": text, "first line cut": text[:9], "empty": ""}[metrics])
    status, _, err = _here(script, "--resume", str(run))
    assert status == 0, err
    assert _rows(run) == rows


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_its_last_step(script, tmp_path, number):
    process = _start(script, *SMALL, "--iterations", "100000", "--save-every", "100000", "--runs", str(tmp_path))
    while not list(tmp_path.glob("echo/*/log.txt")) or "step 10 " not in (_only(tmp_path) / "log.txt").read_text():
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert not _complaints(err)
    step = int(re.search(r"stopped after step (\d+)", out)[1])
    assert step >= 10
    assert int(checkpoints(_only(tmp_path))[-1].name) == step
    assert f"--resume {_only(tmp_path)}" in out


@pytest.mark.slow
@pytest.mark.parametrize("mean", ["of samples", "inside the cost"])
def test_two_processes_have_the_gradient_of_one(script, tmp_path, mean):
    """Costs, gradient norms, and the weights after three steps; predictive coding squares a mean over the batch."""
    options = [*SMALL, "--iterations", "3", "--dtype", "float64", "--log-every", "1"]
    if mean == "inside the cost":
        script = ROOT / "experiments" / "predictive_coding.py"
        small = ["--window", "20", "--held-out-window", "30", "--batch", "4", "--neurons", "8", "--activity-cost", "1"]
        options = [*small, *options[len(SMALL) :]]
    assert _run(script, *options, "--runs", str(tmp_path / "one"))[0] == 0
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(random.randint(20000, 60000))]
    status, _, err = _run(script, *options, "--runs", str(tmp_path / "two"), before=torchrun)
    assert status == 0, err
    one, two = (_rows(_only(tmp_path / name)) for name in ("one", "two"))
    for a, b in zip(one[1:], two[1:], strict=True):
        for name in ("train_cost", "gradient_norm", "cost", "min_speed_at_spike"):
            assert float(b[name]) == pytest.approx(float(a[name]), rel=1e-9)
    a, b = (load_file(checkpoints(_only(tmp_path / name))[-1] / "weights.safetensors") for name in ("one", "two"))
    for key in a:
        torch.testing.assert_close(b[key], a[key], rtol=1e-9, atol=1e-12)


def _finished(script, tmp_path):
    assert _here(script, *SMALL, "--iterations", "4", "--log-every", "2", "--save-every", "2", "--runs", str(tmp_path))[0] == 0
    return _only(tmp_path)


def _contents(run):
    return {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def test_what_cannot_be_resumed_is_told_and_left_alone(script, tmp_path):
    run = _finished(script, tmp_path)
    (run / "summary.json").unlink()
    weights = checkpoints(run)[-1] / "weights.safetensors"
    original = weights.read_bytes()

    def damage(change):
        other = tmp_path / "damaged"
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(run, other)
        change(other)
        return other

    def cut(other):
        (other / weights.relative_to(run)).write_bytes(original[:-4])

    def of_another(other):
        (other / "config.json").write_text(json.dumps(sealed({**read_about(other), "experiment": "yin_yang"})))

    def of_other_defaults(other):
        about = read_about(other)
        about["config"]["later"] = 21.0
        (other / "config.json").write_text(json.dumps(sealed(about)))

    cases = {
        "damaged weights.safetensors": cut,
        "cannot be read": lambda other: (other / weights.relative_to(run)).unlink(),
        "holds a run of 'yin_yang'": of_another,
        "later of its configuration": of_other_defaults,
        "no checkpoint": lambda other: shutil.rmtree(other / "checkpoints"),
        "is no run folder": lambda other: (other / "config.json").write_text("{"),
    }
    for message, change in cases.items():
        other = damage(change)
        before = _contents(other)
        status, _, err = _here(script, "--resume", str(other))
        assert status == 1
        assert message in err
        assert _contents(other) == before
    status, _, err = _here(script, "--resume", str(run), "--neurons", "9")
    assert status == 1
    assert "--resume alone" in err
    status, _, err = _here(script, "--resume", str(tmp_path / "nothing"))
    assert status == 1
    assert "is no run folder" in err


def test_a_run_in_use_is_left_alone(script, tmp_path):
    path = _finished(script, tmp_path)
    (path / "summary.json").unlink()
    run = RunFolder(path)
    status, _, err = _here(script, "--resume", str(path))
    run.close()
    assert status == 1
    assert "in use by another process" in err


@pytest.mark.slow
def test_a_full_disk_ends_with_a_message_and_keeps_what_is_saved(script, tmp_path):
    """A limit on the size of files stands for the full disk: a write fails with an OSError when metrics.csv has grown to it."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000))

    options = [*SMALL, "--iterations", "300", "--log-every", "1", "--save-every", "10", "--runs", str(tmp_path)]
    status, _, err = _run(script, *options, preexec_fn=limit)
    assert status == 1
    # Where the loops were not compiled before, their code does not fit on this disk either, and a warning says so first.
    assert re.search(r"^error: \[Errno 27\] File too large", err, re.MULTILINE)
    step = int(re.search(r"saved up to step (\d+)", err)[1])
    run = _only(tmp_path)
    assert 10 <= step == int(checkpoints(run)[-1].name) < 300
    assert not list(run.rglob("*partial*"))
    status, _, err = _run(script, "--resume", str(run))
    assert status == 0, err
    assert [row["iteration"] for row in _rows(run)] == [str(n) for n in range(301)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_asked_for_and_absent(script, tmp_path):
    status, _, err = _here(script, "--device", "cuda", "--runs", str(tmp_path))
    assert status == 1
    assert "torch finds none" in err
    assert not (tmp_path / "echo").exists()


class _Nothing(Experiment[TrainingConfig]):
    """The least of an experiment, with a cost to choose."""

    def network(self):
        return torch.nn.Linear(1, 1, bias=False)

    def batch(self, generator, step):
        return torch.randn(self.config.batch, 1, generator=generator)

    def cost(self, net, batch):
        return Cost(net(batch).square().mean(), None)

    def evaluate(self, net, split):
        return {"cost": float(net.weight.square().sum())}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--iterations", "0"], "iterations=0"),
        (["--learning-rate", "-1"], "learning_rate=-1"),
        (["--learning-rate", "nan"], "learning_rate=nan"),
        (["--clip", "-1"], "clip=-1"),
        (["--averaging", "1"], "averaging=1"),
        (["--save-every", "0"], "save_every=0"),
        (["--threads", "0"], "threads=0"),
    ],
)
def test_numbers_out_of_range(options, message, tmp_path, capsys):
    assert main(_Nothing, argv=[*options, "--runs", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_unknown_flag_ends_with_a_message(capsys):
    with pytest.raises(SystemExit) as caught:
        main(_Nothing, argv=["--learning-rat", "1"])
    assert caught.value.code != 0
    assert "learning-rat" in capsys.readouterr().err


class _Diverging(_Nothing):
    def cost(self, net, batch):
        return Cost(net(batch).square().mean() * float("inf"), None)


class _Steep(torch.autograd.Function):
    """Zero, with a gradient that overflows."""

    @staticmethod
    def forward(ctx, weight):
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent.new_full((1, 1), float("inf"))


class _Overflowing(_Nothing):
    """Every third gradient overflows."""

    every = 3

    def batch(self, generator, step):
        return torch.full((1, 1), float(step))

    def cost(self, net, batch):
        value = net(torch.ones_like(batch)).square().mean()
        return Cost(value + _Steep.apply(net.weight) if int(batch) % self.every == 0 else value, None)


def test_a_cost_that_is_not_finite_ends_the_run(tmp_path, capsys):
    assert main(_Diverging, argv=["--runs", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "cost inf" in err
    assert "step 1" in err
    assert "saved up to step 0" in err


def test_overflowing_gradients_are_skipped_and_counted(tmp_path, capsys):
    assert main(_Overflowing, argv=["--iterations", "30", "--runs", str(tmp_path)]) == 0
    (run,) = (
        (tmp_path / "overflowing").iterdir() if (tmp_path / "overflowing").exists() else (tmp_path / "_overflowing").iterdir()
    )
    assert [float(row["skipped_steps"]) for row in _rows(run)] == [0.0, 4.0, 3.0, 3.0]
    assert all(x.isfinite().all() for x in load_file(run / "best.safetensors").values())


class _Chaotic(_Overflowing):
    """Every third trial is so long that its gradient overflows, of which a solve warns elsewhere."""

    def network(self):
        return adjsnn.GatedSynapseNetwork(1, 4, 1, generator=torch.Generator().manual_seed(0))

    def cost(self, net, batch):
        sol = adjsnn.solve(net, torch.ones(200 if int(batch) % self.every == 0 else 20, 1, 1), dt=0.5)
        return Cost(sol.readout.square().mean(), sol)

    def evaluate(self, net, split):
        return {"cost": float(net.w_out.square().sum())}


def test_what_overflows_in_a_solve_is_counted_and_warned_of_by_nothing_else(tmp_path):
    """Warnings are errors here; when the training is over, they come again."""
    experiment = _Chaotic(TrainingConfig())
    for _ in range(2):
        cost = experiment.cost(experiment.network(), torch.zeros(1))
        with pytest.warns(adjsnn.NotFiniteWarning):
            cost.value.backward()
        if not list(tmp_path.iterdir()):
            assert main(_Chaotic, argv=["--iterations", "30", "--runs", str(tmp_path)]) == 0
    (run,) = next(tmp_path.iterdir()).iterdir()
    assert [float(row["skipped_steps"]) for row in _rows(run)] == [0.0, 4.0, 3.0, 3.0]


def test_a_gradient_that_always_overflows_ends_the_run(tmp_path, capsys):
    class Always(_Overflowing):
        every = 1

    assert main(Always, argv=["--iterations", "30", "--runs", str(tmp_path)]) == 1
    assert "step 11" in capsys.readouterr().err


def test_shares_of_a_batch():
    trains = adjsnn.SpikeTrains.from_list([[(1.0, 0)], [(2.0, 1)]], n_neurons=2, t_max=5.0)
    batch = (torch.arange(12.0).view(3, 2, 2), torch.tensor([5, 6]), trains)
    u, labels, x = share_of(batch, 1, 2)
    assert torch.equal(u, batch[0][:, 1:])
    assert labels.tolist() == [6]
    assert x.to_list() == [[(2.0, 1)]]
    assert samples_of(trains, torch.tensor([1, 1, 0])).to_list() == [[(2.0, 1)], [(2.0, 1)], [(1.0, 0)]]
    with pytest.raises(adjsnn.ConfigurationError, match="a multiple of the number of processes"):
        share_of(batch, 0, 3)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_report_opens_offline(script, tmp_path):
    """In a browser without a network, from a folder of its own: every picture has a size, and nothing else is asked for."""
    run = _finished(script, tmp_path / "runs")
    page = (run / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    probe = "<script>document.title = [...document.images].map(i => i.naturalWidth).join()</script></body>"
    alone = tmp_path / "report.html"
    alone.write_text(page.replace("</body>", probe))
    browser = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    found = subprocess.run([*browser, "--dump-dom", str(alone)], capture_output=True, text=True, check=True, timeout=60)
    widths = re.search(r"<title>([\d,]+)</title>", found.stdout)[1].split(",")
    assert len(widths) == len(list((run / "figures").glob("*.png")))
    assert min(map(int, widths)) > 100


def test_torch_keeps_its_threads_and_a_run_says_those_of_the_loops(script, tmp_path):
    before = torch.get_num_threads()
    status, _, err = _here(script, "--runs", str(tmp_path), "--iterations", "1", "--threads", "3")
    assert status == 0, err
    assert torch.get_num_threads() == before
    assert read_about(_only(tmp_path))["versions"]["threads"] == "3"


def test_a_run_that_was_stopped_is_finished_as_it_is_and_goes_on_later(script, tmp_path):
    flags = [*SMALL, "--iterations", "4", "--save-every", "2", "--log-every", "1", "--runs", str(tmp_path)]
    status, out, _ = _here(script, *flags)
    assert status == 0
    assert "nan" not in out
    run = _only(tmp_path)
    whole, rows = json.loads((run / "summary.json").read_text()), _rows(run)
    assert whole["stopped"] is False
    shutil.rmtree(run / "checkpoints" / "00000004")  # as if it had been killed after its last evaluation
    (run / "summary.json").unlink()

    status, out, err = _here(script, "--finish", str(run))
    assert (status, _complaints(err)) == (0, "")
    assert "stopped after step 2 of 4" in out
    partial = json.loads((run / "summary.json").read_text())
    assert partial["stopped"] is True
    assert partial["held_out"] == whole["held_out"]  # its best network is that of after the checkpoint
    assert "stopped after step 2 of 4" in (run / "report.html").read_text()
    assert "How the training went" in (run / "report.html").read_text()
    assert "is finished after 2 steps" in _here(script, "--finish", str(run))[1]

    assert _here(script, "--resume", str(run))[0] == 0
    again = json.loads((run / "summary.json").read_text())
    assert (again["stopped"], again["held_out"], _rows(run)) == (False, whole["held_out"], rows)
    assert "is finished" in _here(script, "--finish", str(run))[1]
    for others in (["--seed", "1"], ["--resume", str(run)]):
        status, _, err = _here(script, "--finish", str(run), *others)
        assert status == 1
        assert "alone" in err


def test_the_command_finishes_a_run_by_its_script(tmp_path, capsys, monkeypatch):
    run = tmp_path / "runs"
    with contextlib.closing(RunFolder.new(run, "echo", TrainingConfig(), "python echo.py", [])) as folder:
        place = folder.path
    monkeypatch.chdir(tmp_path)
    assert work(["finish", str(place)]) == 1
    assert "echo.py of" in capsys.readouterr().err
    (tmp_path / "echo.py").write_text("import sys; sys.exit(7 if sys.argv[1] == '--finish' else 0)")
    assert work(["finish", str(place)]) == 7
