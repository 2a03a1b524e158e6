"""Sweeps elsewhere: on the workers of a Dask scheduler, one of which is killed, and through submitit, beside processes here."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from adjsnn.errors import ConfigurationError
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
first = not (root / f"{seed}.first").exists()
with open(root / f"{seed}.first", "a") as file:
    file.write(f"{os.environ['ADJSNN_SWEEP']}\\n")
if first and seed != os.environ.get("ENDS"):
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    while os.getppid() == int(os.environ["ADJSNN_SWEEP"]):
        time.sleep(0.05)
    time.sleep(0.3)  # saving
    (root / f"{seed}.saved").touch()
elif first is False:
    assert (root / f"{seed}.saved").exists()  # else two at a time
"""


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
    """A scheduler and workers on loopback, each a process."""
    from distributed import LocalCluster  # noqa: PLC0415  a second

    path = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))), "OMP_NUM_THREADS": "1"}
    with LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1", env=path
    ) as cluster:
        yield cluster


def _until(condition, seconds=60):
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


def test_the_run_of_a_lost_worker_begins_elsewhere_when_the_first_has_ended(tmp_path, capsys):
    script = tmp_path / "stay.py"
    script.write_text(STAY)
    found = []
    with _cluster(2) as cluster:
        options = ["--seeds", "1", "--executor", "dask", "--address", cluster.scheduler_address]
        thread = threading.Thread(target=lambda: found.append(_sweep(script, *options)))
        thread.start()
        _until(lambda: any(path.read_text().endswith("\n") for path in tmp_path.glob("runs/sweeps/*/0.first")))
        first = _root(script) / "0.first"
        os.kill(int(first.read_text()), signal.SIGKILL)
        thread.join(60)
    assert found == [0]
    assert len(set(first.read_text().split())) == 2
    assert "ended: " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 8])
def test_a_sweep_that_loses_a_worker_ends_as_one_here(count, tmp_path, capsys):
    """Same weights to the bit: what the killed worker had begun goes on from its checkpoint on the other."""
    here, there = tmp_path / "here" / "line.py", tmp_path / "there" / "line.py"
    flags = ["--seeds", str(count), "--flags=--iterations 12000 --log-every 4000 --save-every 1000"]
    for script in (here, there):
        script.parent.mkdir()
        script.write_text(LINE)
    assert _sweep(here, *flags, "--parallel", "2") == 0
    found = []
    with _cluster(2) as cluster:
        options = [*flags, "--executor", "dask", "--address", cluster.scheduler_address]
        thread = threading.Thread(target=lambda: found.append(_sweep(there, *options)))
        thread.start()
        _until(lambda: list(tmp_path.glob("there/runs/sweeps/*/line/*/checkpoints/00001000")))
        from distributed import Client  # noqa: PLC0415

        (saved, *_) = tmp_path.glob("there/runs/sweeps/*/line/*/checkpoints/00001000")
        with Client(cluster, set_as_default=False) as client:
            pids = client.run(os.getpid).values()
        parents = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
        seed = re.search(r"-s(\d+)-", saved.parents[1].name)[1]
        (worker,) = {int(line.split()[0]) for line in parents if f"{there} --seed {seed} " in line.replace("  ", " ")} & set(pids)
        os.kill(worker, signal.SIGKILL)
        thread.join(300)
    assert found == [0], capsys.readouterr().out
    assert "goes on after step" in (saved.parents[1] / "log.txt").read_text()
    whole = _weights(_root(here))
    assert len(whole) == count
    assert _weights(_root(there)) == whole
