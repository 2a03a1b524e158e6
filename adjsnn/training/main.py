"""An experiment as a command: flags from its configuration, a run folder, training, figures, a report."""

import argparse
import contextlib
import math
import resource
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import tyro

from adjsnn.errors import AdjsnnError, ConfigurationError
from adjsnn.training.curves import draw
from adjsnn.training.experiment import Curve, Experiment, TrainingConfig
from adjsnn.training.loop import Training, new_training, train
from adjsnn.training.processes import Processes, processes
from adjsnn.training.report import write_report
from adjsnn.training.runs import RunFolder, checkpoints, read_about, settings_of, versions
from adjsnn.training.stopping import Stop, stopping

Kind = type[Experiment[Any]]


def main(*kinds: Kind, argv: Sequence[str] | None = None) -> int:
    """Run an experiment from the command line.

    Args:
        kinds: the experiment; where it has variants, several, told apart by a field `network` of their configurations. The
            first is the default.
        argv: the arguments; default those of this process.

    Returns:
        exit status: 0; 1 after an error, told on stderr; 128 + the signal's number after a stop by Ctrl-C or SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    run: RunFolder | None = None
    try:
        kind = _chosen(kinds, arguments)
        config = tyro.cli(kind.config_type, args=arguments, description=kind.config_type.__doc__).settled()
        resumed = config.resume
        if resumed is not None:
            kind, config = _earlier(kinds, resumed, arguments)
        check(config)
        torch.set_num_threads(config.threads)
        experiment = kind(config)
        with processes(experiment.device) as team, stopping() as stop:
            experiment.device = team.device
            training = new_training(experiment)
            if resumed is not None:
                training.load(resumed)
            if team.first:
                run = _folder(kind, config, resumed, arguments, training)
            return _run(experiment, training, run, team, stop)
    except (AdjsnnError, OSError) as error:
        _fail(error, run)
        return 1
    finally:
        if run is not None:
            run.close()


def _run(experiment: Experiment[Any], training: Training, run: RunFolder | None, team: Processes, stop: Stop) -> int:
    config = experiment.config
    if training.done == config.iterations and run is not None and (run.path / "summary.json").exists():
        print(f"{run.path} is finished after {training.done} steps")
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


def _finish(experiment: Experiment[Any], training: Training, run: RunFolder, team: Processes) -> None:
    """Judge the kept network on held-out trials, draw it, and write summary and report."""
    net = training.net
    run.load_best(net)
    with torch.no_grad():
        found = experiment.evaluate(net, "held_out")
        metrics = run.metrics()
        columns = experiment.columns or {name: (name.replace("_", " "), ".4g") for name in found}
        summary = {
            "experiment": experiment.name(),
            "title": experiment.title,
            "held_out": found,
            "training": {
                "iterations": training.done,
                "seconds": training.seconds,
                "processes": team.count,
                "peak_mb": peak_mb(experiment.device),
                **experiment.summary(metrics),
            },
            "columns": columns,
            "curves": {name: curve._asdict() for name, curve in experiment.curves(net).items()},
            "versions": versions(),
        }
        figures = {**experiment.figures(net), **_drawn_curves(summary["curves"]), **_history(metrics)}
    for name, figure in figures.items():
        run.save_figure(name, figure)
    run.write_json("summary.json", summary)
    write_report(run.path)
    run.note("finished")
    numbers = {**found, **summary["training"]}
    told = [f"{label} {numbers[name]:{form}}" for name, (label, form) in columns.items() if name in numbers]
    print(f"\n{experiment.title}, held out: {', '.join(told)}")
    print(f"trained in {training.seconds:.0f} s; report with all figures:\n  {run.path / 'report.html'}")


def _drawn_curves(curves: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: draw({"": [Curve(**curve)]}) for name, curve in curves.items()}


def _history(metrics: dict[str, list[float]]) -> dict[str, Any]:
    from adjsnn import plotting  # noqa: PLC0415  matplotlib takes a second to load

    return {"history": plotting.history(metrics)}


def _chosen(kinds: Sequence[Kind], arguments: Sequence[str]) -> Kind:
    """The variant that --network names; an unknown name is left to the parser, which lists the known."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--network")
    name = parser.parse_known_args(arguments)[0].network
    return next((kind for kind in kinds if network_of(kind) == name), kinds[0])


def network_of(kind: Kind) -> Any:
    """Default of the field `network` of its configuration; None without one."""
    return next((field.default for field in fields(kind.config_type) if field.name == "network"), None)


def _earlier(kinds: Sequence[Kind], path: Path, arguments: Sequence[str]) -> tuple[Kind, TrainingConfig]:
    """Kind and configuration of a run that is resumed.

    Raises:
        ConfigurationError: other flags, no run, one of another experiment, or one whose configuration means something else now.
    """
    others = [argument for argument in arguments if argument.startswith("--") and not argument.startswith("--resume")]
    if others:
        raise ConfigurationError(
            f"--resume with {' '.join(others)}", "--resume alone", "a new run with these flags; a resumed one keeps its own"
        )
    about = read_about(path)
    if about["experiment"] != kinds[0].name():
        raise ConfigurationError(
            f"{path} holds a run of {about['experiment']!r}", f"one of {kinds[0].name()!r}", "the script that made it"
        )
    kind = next((kind for kind in kinds if network_of(kind) == about["config"].get("network")), kinds[0])
    config = tyro.cli(kind.config_type, args=about["arguments"]).settled()
    now = settings_of(config)
    changed = [name for name in {*now, *about["config"]} if now.get(name) != about["config"].get(name)]
    if changed:
        raise ConfigurationError(
            f"{path}: {', '.join(sorted(changed))} of its configuration mean something else in this version",
            "the version that made the run",
            f"commit {about.get('source', {}).get('commit', 'unknown')}",
        )
    return kind, config


def _folder(
    kind: Kind, config: TrainingConfig, resumed: Path | None, arguments: Sequence[str], training: Training
) -> RunFolder:
    if resumed is None:
        return RunFolder.new(config.runs, kind.name(), config, command=f"python {_script(kind)}", arguments=arguments)
    run = RunFolder.existing(resumed, kind.name())
    run.keep_rows_up_to(training.done or -1)  # before the first step the start is judged again
    run.note(f"goes on after step {training.done}")
    return run


def check(config: TrainingConfig) -> None:
    """See that a configuration can be trained with.

    Raises:
        ConfigurationError: a number out of its range, or CUDA asked for and absent.
    """
    for name in ("iterations", "batch", "log_every", "save_every", "threads"):
        if getattr(config, name) < 1:
            raise ConfigurationError(f"{name}={getattr(config, name)}", "1 or more", f"--{name.replace('_', '-')} 1")
    if not 0.0 < config.learning_rate < math.inf or not config.clip >= 0.0:
        seen = f"learning_rate={config.learning_rate}, clip={config.clip}"
        raise ConfigurationError(seen, "a positive rate, and a clip that is positive or 0", "--learning-rate 0.01 --clip 1")
    if not 0.0 <= config.averaging < 1.0:
        raise ConfigurationError(f"averaging={config.averaging}", "0 ≤ averaging < 1", "--averaging 0.98")
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
