"""Sweeps elsewhere: on the workers of a Dask scheduler, one of which is killed, and through submitit, beside processes here."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from adjsnn.training import executors
from adjsnn.training.__main__ import main
from adjsnn.training.executors import STOPPED, Job, SweepLock
from training.test_sweep import LINE

ROOT = Path(__file__).parents[2]
# A run without torch: the first of a seed stays until it is told to stop, or its worker is gone; the next one ends.
STAY = """
import os, signal, sys, time
from pathlib import Path
seed, root = sys.argv[sys.argv.index("--seed") + 1], Path(sys.argv[sys.argv.index("--runs") + 1])
saved, begun, worker, stops = root / f"{seed}.saved", root / f"{seed}.begun", int(os.environ["ADJSNN_SWEEP"]), []
signal.signal(signal.SIGTERM, lambda number, frame: stops.append(number))
first = not begun.exists()
with open(begun, "a") as file:
    file.write(f"{worker}\\n")
if not first:
    assert saved.exists()  # else two at a time
elif "ENDS" not in os.environ:
    end = time.monotonic() + 60
    while not stops and os.getppid() == worker and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.3)
    saved.touch()
    sys.exit(143)
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Workers of a busy machine answer late."""
    monkeypatch.setattr(executors, "CONNECT", 200.0)


@pytest.fixture
def job(tmp_path):
    """The first job of a sweep on another machine, and the sweep's lock."""
    script = tmp_path / "hello.py"
    script.write_text("print('hello')")
    lock = SweepLock(tmp_path)
    yield Job(tmp_path, 0, str(script), [], str(tmp_path), 1, lock.name), lock
    lock.close()


@contextmanager
def _cluster(workers):
    """A scheduler and workers on loopback, each a process. Its dashboard takes any port: another's has the usual one, and a
    warning of that is an error here."""
    from distributed import LocalCluster  # noqa: PLC0415  a second

    path = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))), "OMP_NUM_THREADS": "1"}
    with LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1", env=path
    ) as cluster:
        yield cluster


def _until(condition, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _sweep(script, *options):
    return main(["sweep", str(script), "--runs", str(script.parent / "runs"), *options])


def _root(script):
    (root,) = (script.parent / "runs" / "sweeps").iterdir()
    return root


def _weights(root):
    """The last weights of each seed."""
    return {
        re.search(r"-s(\d+)-", path.parents[2].name)[1]: path.read_bytes()
        for path in sorted(root.glob("line/*/checkpoints/*/weights.safetensors"))
    }


def test_a_job_runs_its_script_in_the_place_of_the_sweep(job):
    job, _ = job
    assert job() == 0
    assert job.output.read_text() == "hello\n"
    assert not job.at_work()


def test_a_worker_with_another_file_system_is_told(job, tmp_path):
    job, _ = job
    assert "does not see" in str(replace(job, root=tmp_path / "elsewhere")())
    assert "does not see" in str(replace(job, folder=str(tmp_path / "elsewhere"))())
    assert "does not see" in str(replace(job, sweep="another")())
    assert not job.output.exists()


def test_a_job_whose_sweep_is_over_does_not_begin(job):
    job, lock = job
    lock.stop()
    assert job() == STOPPED
    lock.close()
    lock.file = os.open(os.devnull, os.O_RDONLY)  # of the fixture
    (job.root / ".lock").write_text(job.sweep)  # killed
    assert "does not see the lock" in str(job())
    assert not job.output.exists()


def test_a_job_waits_for_what_is_left_of_it_elsewhere(job):
    job, lock = job
    with open(job.lock, "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        found = []
        thread = threading.Thread(target=lambda: found.append(job()))
        thread.start()
        time.sleep(3 * executors.POLL)
        assert job.at_work()
        assert not job.output.exists()
        other.close()
        thread.join(10)
    assert found == [0]
    with open(job.lock, "w") as other:  # and ends if its sweep is stopped meanwhile
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: found.append(job()))
        thread.start()
        time.sleep(2 * executors.POLL)
        lock.stop()
        thread.join(10)
    assert found == [0, STOPPED]


def test_a_run_ends_when_the_sweep_is_killed(job):
    """Nobody can tell it then: its job sees that the lock is free."""
    job, lock = job
    Path(job.script).write_text("import time; time.sleep(60)")
    found = []
    thread = threading.Thread(target=lambda: found.append(job()))
    thread.start()
    _until(job.at_work)
    os.dup2(os.open(os.devnull, os.O_RDONLY), lock.file)
    thread.join(10)
    assert found == [-signal.SIGTERM]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--executor", "dask"], "without an address"),
        (["--executor", "dask", "--address", "tcp://127.0.0.1:9"], "no Dask scheduler answers at tcp://127.0.0.1:9"),
        (["--executor", "dask", "--address", "nowhere://"], "no Dask scheduler answers"),
        (["--address", "tcp://127.0.0.1:8786"], "--address tcp://127.0.0.1:8786 with --executor local"),
        (["--executor", "dask", "--address", "tcp://127.0.0.1:9", "--parallel", "2"], "--parallel 2 with --executor dask"),
        (["--slurm", "timeout_min=5"], "--slurm with --executor local"),
        (["--executor", "slurm"], "without timeout_min"),
        (["--executor", "slurm", "--slurm", "timeout_min"], "name=value"),
        (["--executor", "slurm", "--slurm", "timeout_min=5", "nodes=2"], "--slurm nodes=2"),
        (["--executor", "slurm", "--slurm", "timeout_min=5", "cluster=local", "colour=red"], "colour"),
        (["--executor", "slurm", "--slurm", "timeout_min=soon", "cluster=local"], "timeout_min"),
        (["--executor", "slurm", "--slurm", "timeout_min=5", "cluster=moon"], "moon"),
        (["--parallel", "0"], "parallel=0"),
    ],
)
def test_what_cannot_be_is_told_and_leaves_nothing(options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(executors, "CONNECT", 0.3)
    script = tmp_path / "hello.py"
    script.touch()
    assert _sweep(script, *options) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/sweeps/*"))


@pytest.mark.parametrize(
    ("package", "options"),
    [
        ("distributed", ["--executor", "dask", "--address", "tcp://127.0.0.1:9"]),
        ("submitit", ["--executor", "slurm", "--slurm", "timeout_min=5"]),
    ],
)
def test_a_missing_package_is_told(package, options, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    script = tmp_path / "hello.py"
    script.touch()
    assert _sweep(script, *options) == 1
    assert f"no package {package}" in capsys.readouterr().err


def test_a_scheduler_without_workers_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(executors, "CONNECT", 1.0)
    script = tmp_path / "hello.py"
    script.touch()
    with _cluster(0) as cluster:
        assert _sweep(script, "--executor", "dask", "--address", cluster.scheduler_address) == 1
    assert "has no worker" in capsys.readouterr().err


def _meanwhile(action):
    thread = threading.Thread(target=action)
    thread.start()
    return thread


@pytest.mark.slow  # workers start, and are waited for
def test_the_run_of_a_lost_worker_begins_elsewhere_when_the_first_has_ended(tmp_path, capsys):
    script = tmp_path / "stay.py"
    script.write_text(STAY)

    def kill():
        _until(lambda: any(path.read_text().endswith("\n") for path in tmp_path.glob("runs/sweeps/*/0.begun")))
        os.kill(int((_root(script) / "0.begun").read_text()), signal.SIGKILL)

    with _cluster(2) as cluster:
        thread = _meanwhile(kill)
        assert _sweep(script, "--seeds", "1", "--executor", "dask", "--address", cluster.scheduler_address) == 0
        thread.join()
    assert len(set((_root(script) / "0.begun").read_text().split())) == 2
    assert "ended: " in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_that_comes_while_jobs_are_handed_over(number, tmp_path, capsys, monkeypatch):
    """It is met after the last of them, which all know of it."""
    script, states = tmp_path / "hello.py", []
    script.touch()

    class Waiting(Future):
        def cancel(self):
            states.append(self.job._state())
            return super().cancel()

    def submit(jobs):
        futures = []
        for job in jobs:
            futures.append(Waiting())
            futures[-1].job = job
            if len(futures) == 1:
                os.kill(os.getpid(), number)
        return futures

    @contextmanager
    def engine(where, root):
        yield executors.Engine(1, submit)

    monkeypatch.setattr(sys.modules["adjsnn.training.sweep"], "engine", engine)
    before = signal.getsignal(signal.SIGINT)
    assert _sweep(script, "--seeds", "3") == 128 + number
    assert signal.getsignal(signal.SIGINT) is before
    assert states == ["stopped"] * 3
    assert f"resume {_root(script)}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_stopped_sweep_stops_its_runs_there_and_goes_on_here(tmp_path, capsys, monkeypatch):
    script = tmp_path / "stay.py"
    script.write_text(STAY)

    def stop():
        _until(lambda: list(tmp_path.glob("runs/sweeps/*/*.begun")))
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    with _cluster(1) as cluster:
        where = ["--executor", "dask", "--address", cluster.scheduler_address]
        thread = _meanwhile(stop)
        assert _sweep(script, "--seeds", "3", *where) == 128 + signal.SIGINT
        thread.join()
        root = _root(script)
        assert f"resume {root} {' '.join(where)}" in capsys.readouterr().out
        time.sleep(0.5)
    assert len(list(root.glob("*.begun"))) == len(list(root.glob("*.saved"))) == 1
    monkeypatch.setenv("ENDS", "1")
    assert main(["resume", str(root), "--parallel", "1"]) == 0
    assert len(list(root.glob("*.begun"))) == 3


@pytest.mark.slow
def test_a_job_that_slurm_preempts_is_queued_again(tmp_path, capsys):
    """Through submitit's own executor on this machine: SIGUSR2 is what SLURM sends before it takes the place."""
    script = tmp_path / "stay.py"
    script.write_text(STAY)

    def preempt():
        _until(lambda: any(path.read_text().endswith("\n") for path in tmp_path.glob("runs/sweeps/*/0.begun")))
        os.kill(int((_root(script) / "0.begun").read_text()), signal.SIGUSR2)

    thread = _meanwhile(preempt)
    assert _sweep(script, "--seeds", "1", "--executor", "slurm", "--slurm", "timeout_min=5", "cluster=local") == 0
    thread.join()
    assert len((_root(script) / "0.begun").read_text().split()) == 2
    assert "ended: " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 8])
def test_a_sweep_that_loses_a_worker_ends_as_one_here(count, tmp_path, capsys):
    """Same weights to the bit: what the killed worker had begun goes on from its checkpoint on the other."""
    here, there = tmp_path / "here" / "line.py", tmp_path / "there" / "line.py"
    flags = ["--seeds", str(count), "--flags=--iterations 6000 --log-every 3000 --save-every 500"]
    for script in (here, there):
        script.parent.mkdir()
        script.write_text(LINE)
    assert _sweep(here, *flags, "--parallel", "2") == 0
    lost = []

    def kill():
        _until(lambda: list(tmp_path.glob("there/runs/sweeps/*/line/*/checkpoints/00000500")))
        (saved, *_) = tmp_path.glob("there/runs/sweeps/*/line/*/checkpoints/00000500")
        run = saved.parents[1]
        seed = re.search(r"-s(\d+)-", run.name)[1]
        listed = subprocess.run(["ps", "-ww", "-eo", "ppid,args"], capture_output=True, text=True, check=True).stdout
        (worker,) = re.findall(rf"^ *(\d+) \S+ {there} .*--seed {seed} ", listed, re.MULTILINE)
        os.kill(int(worker), signal.SIGKILL)
        lost.append(run)

    with _cluster(2) as cluster:
        thread = _meanwhile(kill)
        status = _sweep(there, *flags, "--executor", "dask", "--address", cluster.scheduler_address)
        thread.join()
    assert status == 0, capsys.readouterr().out
    assert "goes on after step" in (lost[0] / "log.txt").read_text()
    whole = _weights(_root(here))
    assert len(whole) == count
    assert _weights(_root(there)) == whole


@pytest.mark.slow
def test_a_sweep_through_submitit_ends_as_one_here(tmp_path, capsys):
    here, there = tmp_path / "here" / "line.py", tmp_path / "there" / "line.py"
    for script in (here, there):
        script.parent.mkdir()
        script.write_text(LINE)
    flags = ["--seeds", "2", "--flags=--iterations 300 --log-every 100"]
    assert _sweep(here, *flags) == 0
    assert _sweep(there, *flags, "--executor", "slurm", "--slurm", "timeout_min=5", "cluster=local") == 0
    assert _weights(_root(there)) == _weights(_root(here))
    assert len(_weights(_root(here))) == 2
