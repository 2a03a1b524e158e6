"""Many runs of one experiment: several seeds, a grid of settings, in parallel processes."""

import fcntl
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

import tyro

from adjsnn.errors import ConfigurationError
from adjsnn.training.compare import compare, leave_out
from adjsnn.training.files import State, checkpoints, lost_files, read_about, read_sealed, read_summary, sealed
from adjsnn.training.runs import TOGETHER
from adjsnn.training.stopping import PARENT


@dataclass(frozen=True)
class Sweep:
    """Run an experiment script with several seeds, and with each combination of settings of a grid."""

    script: tyro.conf.Positional[Path]
    """for example experiments/predictive_coding.py"""
    seeds: int = 5
    first_seed: int = 0
    grid: tuple[str, ...] = ()
    """settings to combine, each flag=value,value,... for example activity-cost=0.01,0.03 learning-rate=0.01"""
    flags: str = ""
    """further flags of every run"""
    parallel: int = os.cpu_count() or 1
    """processes at a time; each has one thread unless --flags says otherwise"""
    runs: Path = Path("runs")
    """the sweep is collected in a new folder <runs>/sweeps/<utc>-<experiment>"""


def joined(arguments: Sequence[str]) -> list[str]:
    """Arguments in which `--flags "--x 1"` is `--flags=--x 1`: a value that begins with a dash is no flag of its own."""
    told = list(arguments)
    for k in range(len(told) - 2, -1, -1):
        if told[k] == "--flags":
            told[k : k + 2] = [f"--flags={told[k + 1]}"]
    return told


def combinations(grid: Sequence[str]) -> list[list[str]]:
    """Flags of each combination of a grid.

    Raises:
        ConfigurationError: a setting that is not flag=value,value.
    """
    axes = []
    for setting in grid:
        name, equals, values = setting.partition("=")
        if not (name and equals and values):
            raise ConfigurationError(f"--grid {setting}", "flag=value,value", "--grid activity-cost=0.01,0.03")
        axes.append([[f"--{name.lstrip('-')}", value] for value in values.split(",")])
    return [list(itertools.chain.from_iterable(choice)) for choice in itertools.product(*axes)]


def sweep(settings: Sweep) -> int:
    """Start the runs, tell when each ends, and compare those that finished.

    A run that fails is told with the end of its output and does not stop the others. Ctrl-C and SIGTERM are passed on to the
    running processes, which save and end.

    Returns:
        exit status: 0; 1 if a run failed; 128 + the signal's number after a stop.

    Raises:
        ConfigurationError: no script, a grid that cannot be read, or numbers below 1.
    """
    if not settings.script.is_file():
        raise ConfigurationError(f"{settings.script}: no such script", "an experiment", "experiments/predictive_coding.py")
    if settings.seeds < 1 or settings.parallel < 1:
        raise ConfigurationError(
            f"seeds={settings.seeds}, parallel={settings.parallel}", "1 or more of each", "--seeds 5 --parallel 2"
        )
    started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    root = settings.runs / "sweeps" / f"{started}-{settings.script.stem}"
    root.mkdir(parents=True)
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    jobs = [
        [*shlex.split(settings.flags), *flags, "--seed", str(seed), "--runs", str(root)]
        for flags in combinations(settings.grid)
        for seed in seeds
    ]
    plan = {"script": str(settings.script), "parallel": settings.parallel, "jobs": jobs}
    partial = root / ".sweep.json.partial"
    partial.write_text(json.dumps(sealed(plan), indent=1) + "\n")
    partial.replace(root / "sweep.json")
    with _locked(root) as lock:
        return _carry_out(root, plan, lock)


def resume(root: Path) -> int:
    """Go on with a sweep that was stopped or killed: resume the runs that were under way, start those that were not.

    Returns:
        exit status, as of `sweep`.

    Raises:
        ConfigurationError: no folder of a sweep, or one that is under way, be it that only its runs are.
    """
    try:
        plan = read_sealed(root / "sweep.json", ("script", "parallel", "jobs"))
    except (OSError, ValueError) as error:
        seen = "no sweep.json in it" if isinstance(error, OSError) else f"sweep.json: {error}"
        raise ConfigurationError(f"{root}: {seen}", "the folder of a sweep", "runs/sweeps/...") from error
    with _locked(root) as lock:
        return _carry_out(root, plan, lock)


@contextmanager
def _locked(root: Path) -> Iterator[int]:
    """A lock on the folder of a sweep, which its runs inherit: it is held until the last of them has ended.

    Raises:
        ConfigurationError: another process holds it.
    """
    lock = os.open(root / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(
                f"{root} is under way: its sweep, or runs that a killed one had started, still work in it",
                "a sweep that has ended",
                "again in a moment: runs save and end by themselves soon after their sweep is killed",
            ) from error
        yield lock
    finally:
        os.close(lock)


def _carry_out(root: Path, plan: State, lock: int) -> int:
    """Run the jobs of a plan that are not finished, or no longer whole, and compare all that are."""
    runs = {tuple(about["arguments"]): run for run, about in _runs_in(root)}
    left = []
    for number, arguments in enumerate(plan["jobs"]):
        run = runs.get(tuple(arguments))
        if run is None or not (run / "summary.json").exists() or lost_files(run) or read_summary(run).get("stopped"):
            saved = run is not None and checkpoints(run)
            left.append((number, [sys.executable, plan["script"], *(["--resume", str(run)] if saved else arguments)]))
    together = min(plan["parallel"], len(plan["jobs"]))
    pool = _Pool(root, together, lock)
    print(f"{len(left)} runs, {together} at a time, in {root}", flush=True)
    with ThreadPoolExecutor(plan["parallel"]) as threads:
        futures = [threads.submit(pool.run, number, job) for number, job in left]
        stopped = pool.wait(futures)
    failed = sum(future.result() != 0 for future in futures)
    ended = sorted(path.parent for path in root.glob("*/*/summary.json"))
    if ended:
        print()
        compare(ended, root / "compare.png")
    if stopped:
        print(f"\ngo on with\n  python -m adjsnn.training resume {root}")
        return 128 + stopped
    return 1 if failed else 0


def _runs_in(root: Path) -> list[tuple[Path, State]]:
    """Run folders of a sweep in order of their start, each with its config.json; a damaged one is told and left out."""
    runs = []
    for path in sorted(root.glob("*/*/config.json")):
        try:
            runs.append((path.parent, read_about(path.parent)))
        except ConfigurationError as error:
            leave_out(path.parent, error)
    return runs


class _Pool:
    """Processes under way, so that signals can be passed on."""

    def __init__(self, root: Path, together: int, lock: int) -> None:
        self._together, self._lock_of_all = str(together), lock
        self._root = root
        self._running, self._stopped = set[subprocess.Popen[bytes]](), 0
        self._lock = Lock()

    def run(self, number: int, job: list[str]) -> int:
        """Run one job to its end; its exit status."""
        output = self._root / f"{number:03d}.txt"
        with open(output, "ab") as file:
            with self._lock:
                if self._stopped:
                    return 128 + self._stopped
                # A session of its own: Ctrl-C on the terminal reaches it once, through this process.
                process = subprocess.Popen(
                    job,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**os.environ, TOGETHER: self._together, PARENT: str(os.getpid())},
                    pass_fds=[self._lock_of_all],
                )
                self._running.add(process)
            status = process.wait()
            with self._lock:
                self._running.discard(process)
        print(f"{'ended' if status == 0 else f'FAILED ({status})'}: {shlex.join(job[1:])}", flush=True)
        if status not in (0, 128 + self._stopped):
            print("".join(f"    {line}\n" for line in output.read_text().splitlines()[-5:]), end="", flush=True)
        return status

    def wait(self, futures: Sequence[object]) -> int:
        """Until all are done; the signal that stopped them, or 0."""
        while not all(future.done() for future in futures):  # type: ignore[attr-defined]
            try:
                time.sleep(0.2)
            except KeyboardInterrupt:
                self.stop(signal.SIGINT)
        return self._stopped

    def stop(self, number: int) -> None:
        with self._lock:
            self._stopped = number
            for process in self._running:
                process.send_signal(signal.SIGTERM)
