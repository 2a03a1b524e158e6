"""An experiment as a command: flags from its configuration, a run folder, training, figures, a report."""

import argparse
import contextlib
import resource
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import torch
import tyro

from adjsnn.errors import AdjsnnError, ConfigurationError, NotFiniteWarning
from adjsnn.numerics.threads import loops_alone
from adjsnn.training.angles import check_angles
from adjsnn.training.curves import draw
from adjsnn.training.experiment import Curve, Experiment, TrainingConfig
from adjsnn.training.files import State, checkpoints, digest_of, digests_of, lost_files, read_about, read_summary, sealed
from adjsnn.training.loop import Training, new_training, rehearse, train
from adjsnn.training.processes import Processes, processes
from adjsnn.training.ranges import check_ranges
from adjsnn.training.report import write_report
from adjsnn.training.runs import RunFolder, settings_of, versions
from adjsnn.training.stopping import Stop, stopping

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = type[Experiment[Any]]


def main(*kinds: Kind, argv: Sequence[str] | None = None) -> int:
    """Run an experiment from the command line.

    Args:
        kinds: the experiment; where it has variants, several, told apart by a field `network` or `task` of their
            configurations. The first is the default.
        argv: the arguments; default those of this process.

    Returns:
        exit status: 0; 1 after an error, told on stderr; 128 + the signal's number after a stop by Ctrl-C or SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    run: RunFolder | None = None
    try:
        kind = _chosen(kinds, arguments)
        config = parsed(kind.config_type, arguments)
        resumed = config.resume if config.finish is None else config.finish
        finishing = config.finish is not None
        if resumed is not None:
            kind, config = _earlier(kinds, resumed, arguments)
        check(config)
        experiment = kind(config)
        # What overflows is counted, and ends the training where it comes too often: see `train`.
        told = warnings.catch_warnings(action="ignore", category=NotFiniteWarning)
        with loops_alone(config.threads) as share, processes(experiment.device) as team, stopping() as stop, told:
            experiment.device = team.device
            check_angles(experiment, team.count)
            training = new_training(experiment)
            if resumed is not None:
                run = _opened(kind, resumed, training, team, as_it_is=finishing)
            if finishing:
                if run is not None and not _is_finished(training, run, finishing=True):
                    _finish(experiment, training, run, team)
                return 0
            if training.done < config.iterations and rehearse(experiment, training, team) == "plain":
                share()
            if resumed is None and team.first:
                run = RunFolder.new(config.runs, kind.name(), config, command=f"python {_script(kind)}", arguments=arguments)
            return _run(experiment, training, run, team, stop)
    except (AdjsnnError, OSError) as error:
        _fail(error, run)
        return 1
    finally:
        if run is not None:
            run.close()


def _run(experiment: Experiment[Any], training: Training, run: RunFolder | None, team: Processes, stop: Stop) -> int:
    if team.agree(int(run is not None and _is_finished(training, run))):
        return 0
    train(experiment, training, run, team, stop)
    if run is None:
        return 128 + stop.signal if stop else 0
    if stop:
        run.note(f"stopped by signal {stop.signal} after step {training.done}")
        script = _script(type(experiment))
        print(f"stopped after step {training.done}, which is saved; go on with\n  python {script} --resume {run.path}")
        return 128 + stop.signal
    _finish(experiment, training, run, team)
    return 0


def _is_finished(training: Training, run: RunFolder, *, finishing: bool = False) -> bool:
    """Whether nothing is left to do, which is told. What a finished run has lost is told too: it is finished again."""
    stopped = training.done < training.experiment.config.iterations
    if (stopped and not finishing) or not (run.path / "summary.json").exists():
        return False
    if stopped and _earlier_summary(training, run.path) is None:  # it has gone on since
        return False
    if lost := lost_files(run.path):
        run.tell(f"{run.path} has lost {', '.join(lost)}; made again")
        return False
    print(f"{run.path} is finished after {training.done} steps")
    return True


def _finish(experiment: Experiment[Any], training: Training, run: RunFolder, team: Processes) -> None:
    """Judge the kept network on held-out trials, draw it, and write report and summary, which is last: it says finished."""
    net = training.net
    run.load_best(net)
    from adjsnn import plotting  # noqa: PLC0415  matplotlib takes a second to load

    with torch.no_grad():
        metrics = run.metrics()
        summary = _earlier_summary(training, run.path) or _judged(experiment, training, team, metrics)
        with plotting.style():
            history = {"history": plotting.history(metrics)}
            for name, figure in {**experiment.figures(net), **_drawn_curves(summary["curves"]), **history}.items():
                run.save_figure(name, figure)
    write_report(run.path, summary)
    run.write_json("summary.json", sealed({**summary, "files": digests_of(run.path)}))
    run.note(f"finished after {training.done} steps")
    numbers = {**summary["held_out"], **summary["training"]}
    told = [f"{label} {numbers[name]:{form}}" for name, (label, form) in summary["columns"].items() if name in numbers]
    print(f"\n{experiment.title}, held out: {', '.join(told)}")
    if summary["stopped"]:
        print(f"the best network of a run that was stopped after step {training.done} of {experiment.config.iterations}")
    print(f"trained in {training.seconds:.0f} s, without compiling and evaluations; report with all figures:")
    print(f"  {run.path / 'report.html'}")


def _earlier_summary(training: Training, path: Path) -> State | None:
    """summary.json of a run finished at this step that has lost other files than its best network."""
    try:
        summary = read_summary(path)
    except ConfigurationError:
        return None
    same = summary.get("files", {}).get("best.safetensors") == digest_of(path / "best.safetensors")
    return {"stopped": False, **summary} if same and summary["training"].get("iterations") == training.done else None


def _judged(experiment: Experiment[Any], training: Training, team: Processes, metrics: dict[str, list[float]]) -> State:
    """The summary of a finished training, whose network is the one that is kept."""
    held_out = experiment.evaluate(training.net, "held_out")
    return {
        "experiment": experiment.name(),
        "title": experiment.title,
        "stopped": training.done < experiment.config.iterations,
        "held_out": held_out,
        "training": {
            "iterations": training.done,
            "seconds": training.seconds,
            "processes": team.count,
            "peak_mb": peak_mb(experiment.device),
            **experiment.summary(metrics),
        },
        "captions": dict(experiment.captions),
        "columns": experiment.columns or {name: (name.replace("_", " "), ".4g") for name in held_out},
        "curves": {name: curve._asdict() for name, curve in experiment.curves(training.net).items()},
        "versions": versions(),
    }


def _drawn_curves(curves: dict[str, State]) -> "dict[str, Figure]":
    return {name: draw({"": [Curve(**curve)]}) for name, curve in curves.items()}


def _chosen(kinds: Sequence[Kind], arguments: Sequence[str]) -> Kind:
    """The variant that --network or --task names; an unknown name is left to the parser, which lists the known."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{variant_field(kinds)}", dest="name")
    name = parser.parse_known_args(arguments)[0].name
    return next((kind for kind in kinds if variant_of(kind, variant_field(kinds)) == name), kinds[0])


def variant_field(kinds: Sequence[Kind]) -> str:
    """The field that tells variants apart: "task" where their configurations have different ones, else "network"."""
    return "task" if len({variant_of(kind, "task") for kind in kinds}) > 1 else "network"


def variant_of(kind: Kind, name: str) -> object:
    """Default of a field of its configuration; None without one."""
    return next((field.default for field in fields(kind.config_type) if field.name == name), None)


def _earlier(kinds: Sequence[Kind], path: Path, arguments: Sequence[str]) -> tuple[Kind, TrainingConfig]:
    """Kind and configuration of a run that is resumed.

    Raises:
        ConfigurationError: other flags, no run, one of another experiment, or one whose configuration means something else now.
    """
    alone = ("--resume", "--finish")
    given = [argument for argument in arguments if argument.startswith("--")]
    others = [argument for argument in given if not argument.startswith(alone)]
    if others or len(given) > 1:
        name = next(name for name in alone if any(argument.startswith(name) for argument in given))
        others = others or [argument for argument in given if not argument.startswith(name)]
        raise ConfigurationError(
            f"{name} with {' '.join(others)}", f"{name} alone", "a new run with these flags; a resumed one keeps its own"
        )
    about = read_about(path)
    if about["experiment"] != kinds[0].name():
        raise ConfigurationError(
            f"{path} holds a run of {about['experiment']!r}", f"one of {kinds[0].name()!r}", "the script that made it"
        )
    name = variant_field(kinds)
    kind = next((kind for kind in kinds if variant_of(kind, name) == about["config"].get(name)), kinds[0])
    config = parsed(kind.config_type, about["arguments"])
    now = settings_of(config)
    changed = [name for name in {*now, *about["config"]} if now.get(name) != about["config"].get(name)]
    if changed:
        raise ConfigurationError(
            f"{path}: {', '.join(sorted(changed))} of its configuration mean something else in this version",
            "the version that made the run",
            f"commit {about.get('source', {}).get('commit', 'unknown')}",
        )
    return kind, config


def _opened(kind: Kind, path: Path, training: Training, team: Processes, *, as_it_is: bool) -> RunFolder | None:
    """The folder of a run that goes on, and the training at its last checkpoint; nothing in it changes if either cannot be.

    One that is taken as it is keeps a better network, and rows, of after that checkpoint, where they are whole.
    """
    run = RunFolder.existing(path, kind.name()) if team.first else None  # locked first: another process may save the next step
    try:
        training.load(path)
    except BaseException:
        if run is not None:
            run.close()
        raise
    if run is not None:
        if not (as_it_is and run.is_whole(training.net)):
            run.go_back(training.done)
        run.note("is finished as it is" if as_it_is else f"goes on after step {training.done}")
    return run


class Settled(Protocol):
    """A configuration with flags that stand for several others."""

    def settled(self) -> Self: ...


C = TypeVar("C", bound=Settled)


def parsed(kind: type[C], arguments: Sequence[str] | None) -> C:
    """The configuration that flags ask for: those that stand for several others first, and over them what is given by hand."""
    asked = tyro.cli(kind, args=arguments, description=kind.__doc__)
    given = vars(asked)
    others = {name: value for name, value in vars(asked.settled()).items() if value != given[name]}
    if not others:
        return asked
    return tyro.cli(kind, args=arguments, description=kind.__doc__, default=kind(**others))


def check(config: TrainingConfig) -> None:
    """See that a configuration can be trained with.

    Raises:
        ConfigurationError: a number out of its range, or CUDA asked for and absent.
    """
    check_ranges(config)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("--device cuda, and torch finds none", "a CUDA device", "--device cpu")


def peak_mb(device: torch.device) -> float:
    """Largest memory of this process so far, on the GPU if it computes there, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _script(kind: Kind) -> str:
    """The file that defines the experiment, relative to the working directory where it can be."""
    path = Path(sys.modules[kind.__module__].__file__ or sys.argv[0]).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _fail(error: Exception, run: RunFolder | None) -> None:
    """Tell an error in one line, and what is saved; the traceback goes to log.txt."""
    print(f"error: {error}", file=sys.stderr)
    if run is None:
        return
    with contextlib.suppress(OSError):  # the disk may be full
        run.note("".join(traceback.format_exception(error)))
    saved = checkpoints(run.path)
    if saved:
        print(f"saved up to step {int(saved[-1].name)}; go on from there with --resume {run.path}", file=sys.stderr)
