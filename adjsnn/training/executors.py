"""Where the runs of a sweep work: processes here, the workers of a Dask scheduler, or SLURM, behind one face, futures.

The engine starts a job, and starts it again elsewhere if the worker is lost; all that a job needs to know lies in the folder
of the sweep, which every worker must see at the same path.
"""

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import uuid4

from adjsnn.errors import ConfigurationError
from adjsnn.interop.units import package
from adjsnn.training.compare import leave_out
from adjsnn.training.files import checkpoints, lost_files, read_about, read_summary
from adjsnn.training.runs import TOGETHER
from adjsnn.training.stopping import PARENT

POLL = 0.2  # s between looks at a run, and whether its sweep goes on
CONNECT = 10.0  # s until a scheduler that does not answer is given up, or one that has no worker
STOPPED = 128 + signal.SIGTERM  # exit status of a run that saved and ended before its time


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where runs work.

    Attributes:
        executor: which engine starts them.
        address: of the Dask scheduler.
        slurm: parameters of submitit.
        parallel: runs at a time; None: as many as there are cores here, or places there.
    """

    executor: Literal["local", "dask", "slurm"] = "local"
    """processes on this machine, the workers of a Dask scheduler, or SLURM through submitit"""
    address: str = ""
    """of the Dask scheduler, for example tcp://127.0.0.1:8786"""
    slurm: tuple[str, ...] = ()
    """parameters of submitit, each name=value: timeout_min=120 slurm_partition=gpu cpus_per_task=1"""
    parallel: int | None = None
    """runs at a time; default as many as there are cores here, or places on the workers"""

    def check(self) -> None:
        """See that the parts fit.

        Raises:
            ConfigurationError: an address without Dask or Dask without one, parameters of SLURM that cannot be, or a number
                of runs at a time below 1 or for Dask, whose workers tell it.
        """
        if self.parallel is not None and self.parallel < 1:
            raise ConfigurationError(f"parallel={self.parallel}", "1 or more", "--parallel 2")
        if self.address and self.executor != "dask":
            raise ConfigurationError(f"--address {self.address} with --executor {self.executor}", "Dask", "--executor dask")
        if self.executor == "dask" and not self.address:
            raise ConfigurationError(
                "--executor dask without an address", "that of a scheduler", "--address tcp://127.0.0.1:8786"
            )
        if self.executor == "dask" and self.parallel is not None:
            raise ConfigurationError(
                f"--parallel {self.parallel} with --executor dask", "none", "as many workers, or threads of them, as wanted"
            )
        if self.slurm and self.executor != "slurm":
            raise ConfigurationError(f"--slurm with --executor {self.executor}", "SLURM", "--executor slurm")
        if self.executor == "slurm":
            self.submitit()

    def submitit(self) -> dict[str, Any]:
        """Parameters of submitit, numbers as numbers."""
        found = dict[str, Any]()
        for setting in self.slurm:
            name, equals, value = setting.partition("=")
            if not (name and equals and value):
                raise ConfigurationError(f"--slurm {setting}", "name=value", "--slurm timeout_min=120 slurm_partition=gpu")
            found[name] = _number(value)
        if "timeout_min" not in found and "slurm_time" not in found:
            raise ConfigurationError(
                "--executor slurm without timeout_min", "the longest time of a run in minutes", "--slurm timeout_min=120"
            )
        if several := [name for name in found if name.endswith(("nodes", "tasks_per_node")) and found[name] != 1]:
            raise ConfigurationError(f"--slurm {several[0]}={found[several[0]]}", "1, each run is one process", "cpus_per_task")
        return found

    def as_flags(self) -> str:
        """The flags that say the same; empty for processes here."""
        if self.executor == "local":
            return ""
        more = ["--address", self.address] if self.address else ["--slurm", *self.slurm]
        return f" --executor {self.executor} {shlex.join(more)}"


def _number(value: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


class SweepLock:
    """The lock on the folder of a sweep, and in its file the name of the process that goes on with it.

    It is how a job, on whatever machine, knows that it is still wanted: the file holds the name it was given, and is locked.

    Raises:
        ConfigurationError: another process holds it.
    """

    def __init__(self, root: Path) -> None:
        self.file = os.open(root / ".lock", os.O_RDWR | os.O_CREAT)
        self.name = uuid4().hex
        if not _taken(self.file):
            os.close(self.file)
            raise ConfigurationError(
                f"{root} is under way: its sweep, or runs that a killed one had started, still work in it",
                "a sweep that has ended",
                "again in a moment: runs save and end by themselves soon after their sweep is killed",
            )
        self._write(self.name)

    def stop(self) -> None:
        """Have the jobs save and end."""
        self._write(f"{self.name} stopped")

    def close(self) -> None:
        os.close(self.file)

    def _write(self, text: str) -> None:
        os.ftruncate(self.file, 0)
        os.pwrite(self.file, text.encode(), 0)
        os.fsync(self.file)


def _taken(file: int, how: int = fcntl.LOCK_EX) -> bool:
    """Whether the lock on an open file could be had."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass
class Job:
    """One run of a sweep, called on a worker: waits for what may be left of it elsewhere, and begins it or goes on with it.

    Attributes:
        root: folder of the sweep, absolute.
        number: of the run in its plan.
        script: of the experiment, as given in `folder`.
        arguments: of the script.
        folder: where the sweep was started.
        together: how many run at a time.
        sweep: name of the process that wants it.
        inherited: files that its process is to inherit; none on another machine.
    """

    root: Path
    number: int
    script: str
    arguments: list[str]
    folder: str
    together: int
    sweep: str
    inherited: tuple[int, ...] = ()
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False, repr=False)

    @property
    def output(self) -> Path:
        """What the run prints."""
        return self.root / f"{self.number:03d}.txt"

    @property
    def lock(self) -> Path:
        """Locked by the run's process."""
        return self.root / f".{self.number:03d}.lock"

    def __call__(self) -> int | ConfigurationError:
        """Run it to its end: the exit status, or why this worker cannot."""
        if (error := self._strange()) is not None:
            return error
        lock = os.open(self.lock, os.O_RDWR | os.O_CREAT)
        try:
            while not _taken(lock):  # a run whose worker was lost saves, and ends by itself
                if self._over():
                    return STOPPED
                time.sleep(POLL)
            command = self.command(runs_in(self.root))
            return STOPPED if self._over() else self._run(command, lock) if command else 0
        finally:
            os.close(lock)

    def at_work(self) -> bool:
        """Whether its process, wherever it is, holds its lock."""
        if not self.lock.exists():
            return False
        with open(self.lock) as lock:
            return not _taken(lock.fileno(), fcntl.LOCK_SH)

    def command(self, runs: dict[tuple[str, ...], Path]) -> list[str]:
        """What begins the run or goes on with it, given the run folders of the sweep; nothing if it is finished and whole."""
        run = runs.get(tuple(self.arguments))
        whole = run is not None and (run / "summary.json").exists() and not lost_files(run)
        if run is not None and whole and not read_summary(run).get("stopped"):
            return []
        saved = run is not None and checkpoints(run)
        return [sys.executable, self.script, *(["--resume", str(run)] if saved else self.arguments)]

    def checkpoint(self) -> Any:
        """What submitit calls when SLURM wants the place: the run saves and ends, and the job is queued again."""
        self._end()
        return package("submitit.helpers", "slurm").DelayedSubmission(replace(self))

    def _run(self, command: list[str], lock: int) -> int:
        with open(self.output, "ab") as file:
            # A session of its own: Ctrl-C on a terminal reaches it once, through this process.
            self.process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
                env={**os.environ, TOGETHER: str(self.together), PARENT: str(os.getpid())},
                pass_fds=[lock, *self.inherited],
            )
        try:
            while True:
                try:
                    return self.process.wait(POLL)
                except subprocess.TimeoutExpired:
                    if self._over():
                        self._end()
        finally:
            self._end()

    def _end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()

    def _strange(self) -> ConfigurationError | None:
        """Why runs cannot work here: another file system, or one whose locks are not those of the machine of the sweep."""
        state, machine = self._state(), os.uname().nodename
        if state == "unseen" or not Path(self.folder).is_dir():
            seen = self.root if state == "unseen" else self.folder
            return ConfigurationError(
                f"a worker on {machine} does not see {seen} as the sweep does",
                "workers that share its file system, with the same paths",
                "--runs in a folder that all of them mount",
            )
        if state == "gone":
            return ConfigurationError(
                f"a worker on {machine} does not see the lock on {self.root}",
                "a sweep under way, and a file system whose locks hold on all machines",
                "a mount with flock, such as NFS without local_lock",
            )
        return None

    def _state(self) -> Literal["under way", "stopped", "gone", "unseen"]:
        """What the lock of the sweep tells: a killed sweep is gone, one that another process goes on with is not seen."""
        try:
            with open(self.root / ".lock") as lock:
                name, _, word = lock.read().partition(" ")
                if name != self.sweep:
                    return "unseen"
                if word:
                    return "stopped"
                return "gone" if not self.inherited and _taken(lock.fileno(), fcntl.LOCK_SH) else "under way"
        except OSError:
            return "unseen"

    def _over(self) -> bool:
        return self._state() != "under way"


def runs_in(root: Path) -> dict[tuple[str, ...], Path]:
    """Run folders of a sweep by their arguments, of several the last; a damaged one is told and left out."""
    runs = dict[tuple[str, ...], Path]()
    for path in sorted(root.glob("*/*/config.json")):
        try:
            runs[tuple(read_about(path.parent)["arguments"])] = path.parent
        except ConfigurationError as error:
            leave_out(path.parent, error)
    return runs


class Future(Protocol):
    """What concurrent.futures, Dask and submitit have in common."""

    def done(self) -> bool: ...
    def result(self) -> Any: ...
    def cancel(self) -> Any: ...


@dataclass(frozen=True)
class Engine:
    """An engine that is ready.

    Attributes:
        places: how many runs it carries at a time; None: not known.
        submit: hands over all jobs.
    """

    places: int | None
    submit: Callable[[Sequence[Job]], Sequence[Future]]


@contextmanager
def engine(where: Where, root: Path) -> Iterator[Engine]:
    """The engine that was asked for; what it leaves lies in the sweep's folder.

    Raises:
        ConfigurationError: a scheduler that does not answer or has no worker, no SLURM, or parameters it does not have.
        MissingPackageError: distributed or submitit is not installed.
    """
    if where.executor == "dask":
        with _dask(where.address) as found:
            yield found
    elif where.executor == "slurm":
        yield _slurm(where, root / "slurm")
    else:
        parallel = where.parallel or os.cpu_count() or 1
        with ThreadPoolExecutor(parallel) as threads:
            yield Engine(parallel, lambda jobs: [threads.submit(job) for job in jobs])


@contextmanager
def _dask(address: str) -> Iterator[Engine]:
    distributed = package("distributed", "dask")
    try:
        client = distributed.Client(address, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"no Dask scheduler answers at {address}: {error}", "the address of one", "dask scheduler, which prints it"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT)
        except TimeoutError as error:
            raise ConfigurationError(
                f"the Dask scheduler at {address} has no worker", "one or more", f"dask worker {address}"
            ) from error
        yield Engine(
            sum(client.nthreads().values()),
            lambda jobs: [client.submit(job, key=f"adjsnn-{job.sweep}-{job.number}", pure=False) for job in jobs],
        )


def _slurm(where: Where, folder: Path) -> Engine:
    submitit = package("submitit", "slurm")
    parameters = where.submitit()
    cluster = parameters.pop("cluster", "slurm")
    if where.parallel:
        parameters["slurm_array_parallelism"] = where.parallel
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster)
        executor.update_parameters(**{"name": "adjsnn", **parameters})
    except (RuntimeError, ValueError, NameError, AssertionError, TypeError) as error:
        raise ConfigurationError(
            f"--slurm {' '.join(where.slurm)}: {error}", "SLURM, and parameters of submitit", "--slurm timeout_min=120"
        ) from error

    def submit(jobs: Sequence[Job]) -> Sequence[Future]:
        with executor.batch():
            return [executor.submit(job) for job in jobs]

    return Engine(where.parallel, submit)
