"""Many runs of one experiment: several seeds, a grid of settings, in parallel processes, here or on other machines."""

import itertools
import json
import os
import shlex
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import tyro

from adjsnn.errors import ConfigurationError
from adjsnn.training.compare import compare
from adjsnn.training.executors import POLL, STOPPED, Engine, Future, Job, SweepLock, Where, engine, runs_in
from adjsnn.training.files import State, read_sealed, sealed
from adjsnn.training.stopping import Stop, asked


@dataclass(frozen=True)
class Sweep(Where):
    """Run an experiment script with several seeds, and with each combination of settings of a grid."""

    script: tyro.conf.Positional[Path]
    """for example experiments/predictive_coding.py"""
    seeds: int = 5
    first_seed: int = 0
    grid: tuple[str, ...] = ()
    """settings to combine, each flag=value,value,... for example activity-cost=0.01,0.03 learning-rate=0.01"""
    flags: str = ""
    """further flags of every run; each has one thread unless they say otherwise"""
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
        ConfigurationError: a setting that is not flag=value,value, or a value twice.
    """
    axes = []
    for setting in grid:
        name, equals, values = setting.partition("=")
        if not (name and equals and values):
            raise ConfigurationError(f"--grid {setting}", "flag=value,value", "--grid activity-cost=0.01,0.03")
        several = values.split(",")
        if not all(several) or len({*several}) < len(several):
            raise ConfigurationError(f"--grid {setting}", "values that are there, each once", "--grid activity-cost=0.01,0.03")
        axes.append([[f"--{name.lstrip('-')}", value] for value in several])
    return [list(itertools.chain.from_iterable(choice)) for choice in itertools.product(*axes)]


def flags_of(settings: Sweep) -> list[str]:
    """The flags of every run.

    Raises:
        ConfigurationError: flags that cannot be read, or one that runs would be given twice: the last alone would count.
    """
    try:
        flags = shlex.split(settings.flags)
    except ValueError as error:
        raise ConfigurationError(
            f"--flags {settings.flags}: {error}", "flags of the script", '--flags "--threads 1"'
        ) from error
    grid = [f"--{setting.partition('=')[0].lstrip('-')}" for setting in settings.grid]
    given = [x.partition("=")[0] for x in (*flags, *grid) if x.startswith("--")]
    names = [x.replace("_", "-") for x in (*given, "--seed", "--runs")]
    if twice := sorted({x for x in names if names.count(x) > 1}):
        raise ConfigurationError(
            f"{' and '.join(twice)} twice for each run", "each flag once, of --flags, --grid, --seeds and --runs", "one of them"
        )
    return flags


def sweep(settings: Sweep) -> int:
    """Start the runs, tell when each ends, and compare those that finished.

    A run that fails is told with the end of its output and does not stop the others. Ctrl-C and SIGTERM are passed on to the
    running processes, wherever they are, which save and end.

    Returns:
        exit status: 0; 1 if a run failed; 128 + the signal's number after a stop.

    Raises:
        ConfigurationError: no script, flags or a grid that cannot be read or say something twice, numbers below 1, a scheduler
            that does not answer, or workers that do not share the folder of the sweep.
        MissingPackageError: the package of the executor is not installed.
    """
    if not settings.script.is_file():
        expected = "the script of an experiment, or a name that `adjsnn experiment` lists, to `adjsnn sweep`"
        raise ConfigurationError(f"{settings.script}: no such script", expected, "experiments/predictive_coding.py")
    if settings.seeds < 1:
        raise ConfigurationError(f"seeds={settings.seeds}", "1 or more", "--seeds 5")
    settings.check()
    every = flags_of(settings)
    started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    root = settings.runs / "sweeps" / f"{started}-{settings.script.stem}"
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    jobs = [
        [*every, *flags, "--seed", str(seed), "--runs", str(root)] for flags in combinations(settings.grid) for seed in seeds
    ]
    plan = {"script": str(settings.script), "parallel": settings.parallel, "jobs": jobs}
    try:
        root.mkdir(parents=True)
    except OSError as error:
        raise ConfigurationError(
            f"{root} cannot be made: {error}", "a new folder in a writable place", "another --runs folder, or again in a second"
        ) from error
    with ExitStack() as stack:
        try:
            ready = stack.enter_context(engine(settings, root))
        except BaseException:
            shutil.rmtree(root)  # nothing has begun
            raise
        partial = root / ".sweep.json.partial"
        partial.write_text(json.dumps(sealed(plan), indent=1) + "\n")
        partial.replace(root / "sweep.json")
        return _carry_out(root, plan, stack.enter_context(_locked(root)), settings, ready)


def resume(root: Path, where: Where | None = None) -> int:
    """Go on with a sweep that was stopped or killed: resume the runs that were under way, start those that were not.

    Args:
        root: its folder.
        where: where its runs are to work, be it elsewhere than before; None: here. Without a number of runs at a time those
            that work here are as many as before.

    Returns:
        exit status, as of `sweep`.

    Raises:
        ConfigurationError: no folder of a sweep, or one that is under way, be it that only its runs are; or as of `sweep`.
    """
    where = where or Where()
    where.check()
    try:
        plan = read_sealed(root / "sweep.json", ("script", "parallel", "jobs"))
    except (OSError, ValueError) as error:
        seen = "no sweep.json in it" if isinstance(error, OSError) else f"sweep.json: {error}"
        raise ConfigurationError(f"{root}: {seen}", "the folder of a sweep", "runs/sweeps/...") from error
    if where.executor == "local" and where.parallel is None:
        where = replace(where, parallel=plan["parallel"])
    with engine(where, root) as ready, _locked(root) as lock:
        return _carry_out(root, plan, lock, where, ready)


@contextmanager
def _locked(root: Path) -> Iterator[SweepLock]:
    """The lock on the folder of a sweep, which its runs on this machine inherit: held until the last of them has ended."""
    lock = SweepLock(root)
    try:
        yield lock
    finally:
        lock.close()


def _carry_out(root: Path, plan: State, lock: SweepLock, where: Where, engine: Engine) -> int:
    """Run the jobs of a plan that are not finished, or no longer whole, and compare all that are."""
    together = min(engine.places or len(plan["jobs"]), len(plan["jobs"]))
    inherited = (lock.file,) if where.executor == "local" else ()
    jobs = [
        Job(root.absolute(), number, plan["script"], arguments, os.getcwd(), together, lock.name, inherited)
        for number, arguments in enumerate(plan["jobs"])
    ]
    runs = runs_in(root)
    left = [(job, command) for job in jobs if (command := job.command(runs))]
    print(f"{len(left)} runs, {together} at a time, in {root}", flush=True)
    # No KeyboardInterrupt: it would come between two lines, or inside the engine, and what was handed over would be lost.
    with asked(signal.SIGINT, signal.SIGTERM) as stop:
        failed, stopped = _wait(left, engine.submit([job for job, _ in left]), lock, stop)
    ended = sorted(path.parent for path in root.glob("*/*/summary.json"))
    if ended:
        print()
        compare(ended, root / "compare.png")
    if stopped:
        print(f"\ngo on with\n  python -m adjsnn.training resume {root}{where.as_flags()}")
        return 128 + stopped
    return 1 if failed else 0


def _wait(left: Sequence[tuple[Job, list[str]]], futures: Sequence[Future], lock: SweepLock, stop: Stop) -> tuple[int, int]:
    """Until all are done: how many failed, and the signal that stopped them, or 0.

    Raises:
        ConfigurationError: a worker cannot carry runs of this sweep; those under way save and end.
    """
    waiting, failed, stopped = dict(enumerate(futures)), 0, 0
    strange: ConfigurationError | None = None
    while waiting:
        if stop and not stopped:
            stopped = stop.signal
            lock.stop()
        for number in [number for number, future in waiting.items() if future.done()]:
            found = _result(waiting.pop(number))
            if isinstance(found, ConfigurationError):
                strange = found
                lock.stop()
            elif not (stopped or strange) or found not in (STOPPED, None):
                failed += found != 0
                _tell(*left[number], found)
        if (stopped or strange) and not any(job.at_work() for job, _ in left):
            for future in waiting.values():  # not begun, and never to be
                future.cancel()
            break
        time.sleep(POLL)
    if strange is not None:
        raise strange
    return failed, stopped


def _result(future: Future) -> int | str | ConfigurationError | None:
    """Exit status of a run, or what went wrong in the engine; None: cancelled."""
    try:
        return future.result()
    except CancelledError:
        return None
    except Exception as error:  # each engine has its own for a worker that is lost for good
        return f"{type(error).__name__}: {error}"


def _tell(job: Job, command: list[str], found: int | str | None) -> None:
    """That a run has ended; if it failed, with the end of its output."""
    how = "ended" if found == 0 else f"FAILED ({'its worker is lost' if found is None else str(found).splitlines()[0]})"
    print(f"{how}: {shlex.join(command[1:])}", flush=True)
    if found != 0 and job.output.exists():
        print("".join(f"    {line}\n" for line in job.output.read_text().splitlines()[-5:]), end="", flush=True)
