"""Work with runs.

python -m adjsnn.training sweep experiments/predictive_coding.py --seeds 5      several seeds, in parallel
python -m adjsnn.training sweep experiments/predictive_coding.py --grid activity-cost=0.01,0.03
python -m adjsnn.training sweep experiments/... --executor dask --address tcp://...   on the workers of a Dask scheduler
python -m adjsnn.training resume runs/sweeps/...                                 go on with a sweep that was stopped
python -m adjsnn.training finish runs/predictive_coding/...                  judge and report a run as it is
python -m adjsnn.training compare runs/predictive_coding                         mean ± sd, and curves
python -m adjsnn.training results runs/sweeps/... --page experiments/RESULTS.md  into a page of results
python -m adjsnn.training report runs/predictive_coding/...                      report.html again
"""

import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Annotated

import tyro

from adjsnn.errors import AdjsnnError, ConfigurationError
from adjsnn.training.compare import compare
from adjsnn.training.executors import Where
from adjsnn.training.files import read_about
from adjsnn.training.report import write_report
from adjsnn.training.results import record
from adjsnn.training.sweep import Sweep, joined, resume, sweep


@dataclass(frozen=True)
class Resume(Where):
    """Go on with a sweep that was stopped or killed."""

    sweep: tyro.conf.Positional[Path]
    """its folder"""


@dataclass(frozen=True)
class Finish:
    """Judge the best network that a run has found on held-out trials, and report it, also of a run that was stopped."""

    run: tyro.conf.Positional[Path]


@dataclass(frozen=True)
class Compare:
    """Print a table of finished runs, mean ± sd over seeds, and draw their curves over each other."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """run folders, or folders of them"""
    figure: Path = Path("compare.png")


@dataclass(frozen=True)
class Results:
    """Add finished runs to a page of results."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """run folders, or folders of them"""
    page: Path = Path("RESULTS.md")
    """written again, with the records in the folder of its name beside it"""
    heading: str = ""
    """what is special about these runs"""


@dataclass(frozen=True)
class Report:
    """Write the report.html of a finished run again."""

    run: tyro.conf.Positional[Path]


Command = (
    Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Resume, tyro.conf.subcommand("resume")]
    | Annotated[Finish, tyro.conf.subcommand("finish")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Results, tyro.conf.subcommand("results")]
    | Annotated[Report, tyro.conf.subcommand("report")]
)


def main(
    argv: list[str] | None = None, prog: str = "python -m adjsnn.training", scripts: Mapping[str, Path] | None = None
) -> int:
    """The command; returns the exit status. A sweep may name one of `scripts` where there is no such file."""
    arguments = joined(sys.argv[1:] if argv is None else argv)
    command = tyro.cli(Command, args=arguments, prog=prog, description=__doc__)  # type: ignore[arg-type]
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        match command:
            case Sweep():
                named = None if command.script.is_file() else (scripts or {}).get(str(command.script))
                return sweep(replace(command, script=named or command.script))
            case Resume():
                return resume(command.sweep, command)
            case Finish():
                return finish(command.run)
            case Compare():
                compare(command.runs, command.figure)
            case Results():
                record(command.runs, command.page, command.heading)
                print(command.page)
            case Report():
                print(write_report(command.run))
    except (AdjsnnError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def finish(run: Path) -> int:
    """Have the script of a run finish it.

    Returns:
        exit status of the script.

    Raises:
        ConfigurationError: no run folder, or its script is not here.
    """
    program, script, *_ = shlex.split(read_about(run)["command"])
    if not Path(script).is_file():
        raise ConfigurationError(
            f"{script} of {run}: no such file here", f"the script that made the run, {program} {script}", "its folder, by cd"
        )
    return subprocess.run([sys.executable, script, "--finish", str(run)], check=False).returncode


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
