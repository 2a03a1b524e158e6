"""Runs side by side: a table of mean ± sd over seeds, and their curves over each other."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from adjsnn.colours import COLOURS
from adjsnn.errors import ConfigurationError
from adjsnn.training.files import State, digest_of, read_about, read_metrics, read_summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

APART = ("seed", "runs", "resume", "threads", "tensorboard")  # settings that make no other experiment


class Finished(NamedTuple):
    """A finished run: its folder, config.json and summary.json."""

    path: Path
    about: State
    summary: State

    @property
    def numbers(self) -> dict[str, float]:
        return {**self.summary["held_out"], **self.summary["training"]}


class Group(NamedTuple):
    """Runs that differ in their seed alone, one for each seed, and what tells them from the other groups.

    Attributes:
        label: what tells them from the other groups.
        runs: by their seeds; of a seed run several times the last.
        again: the others of those seeds.
    """

    label: str
    runs: list[Finished]
    again: Sequence[Finished] = ()


def finished(paths: Iterable[Path]) -> list[Finished]:
    """The finished runs among folders; a folder that holds runs stands for all of them.

    A run whose config.json or summary.json is damaged is told on stderr and left out.

    Raises:
        ConfigurationError: a folder without a run, or none finished.
    """
    folders: list[Path] = []
    for path in paths:
        inside = [path] if (path / "config.json").exists() else sorted(p.parent for p in path.glob("**/config.json"))
        if not inside:
            raise ConfigurationError(f"{path}: no run in it", "a run folder or a folder of runs", "runs/predictive_coding")
        folders += [run for run in inside if run.resolve() not in {other.resolve() for other in folders}]
    done, damaged = [], 0
    for path in folders:
        if not (path / "summary.json").exists():
            continue
        try:
            done.append(Finished(path, read_about(path), read_summary(path)))
        except ConfigurationError as error:
            damaged += 1
            leave_out(path, error)
    if not done:
        raise ConfigurationError(
            f"{len(folders)} runs, none of them finished{f' and whole, {damaged} damaged' if damaged else ''}",
            "a finished run",
            "--resume to finish one",
        )
    return done


def leave_out(path: Path, error: Exception) -> None:
    """Tell on stderr that a run, or a part of it, is left out."""
    print(f"warning: {path} is left out: {error}", file=sys.stderr)


def grouped(runs: Sequence[Finished]) -> list[Group]:
    """Groups of runs that differ in their seed alone; the label has the settings in which the groups differ.

    A seed that was run several times counts once, by its last run; that is told on stderr, and whether the others are the same.
    """
    groups: dict[str, list[Finished]] = {}
    for run in runs:
        settings = {name: value for name, value in run.about["config"].items() if name not in APART}
        groups.setdefault(json.dumps([run.about["experiment"], settings], sort_keys=True), []).append(run)
    configs = [members[0].about["config"] for members in groups.values()]
    names = sorted({name for config in configs for name in config if name not in APART})
    differing = [name for name in names if len({json.dumps(config.get(name)) for config in configs}) > 1]
    experiments = {members[0].about["experiment"] for members in groups.values()}
    labels = []
    for members in groups.values():
        config = members[0].about["config"]
        told = [f"{name}={_shown(config[name])}" for name in differing if name in config]
        several = [members[0].about["experiment"]] if len(experiments) > 1 else []
        labels.append(" ".join([*several, *told]) or members[0].summary["title"])
    return [_one_of_each_seed(label, members) for label, members in zip(labels, groups.values(), strict=True)]


def same_numbers(one: Finished, other: Finished) -> bool:
    """Whether two runs have reached the same on held-out trials."""
    return json.dumps(one.summary["held_out"], sort_keys=True) == json.dumps(other.summary["held_out"], sort_keys=True)


def _one_of_each_seed(label: str, runs: Sequence[Finished]) -> Group:
    seeds: dict[int, list[Finished]] = {}
    for run in sorted(runs, key=lambda run: (run.about["config"].get("seed", 0), run.about.get("started", ""), run.path)):
        seeds.setdefault(run.about["config"].get("seed", 0), []).append(run)
    for seed, (*again, last) in seeds.items():
        if again:
            same = all(same_numbers(run, last) for run in again)
            told = "all the same, counted once" if same else f"of different numbers; only the last counts, {last.path}"
            print(f"warning: {label}: {len(again) + 1} runs of seed {seed}, {told}", file=sys.stderr)
    return Group(label, [each[-1] for each in seeds.values()], [run for *again, _ in seeds.values() for run in again])


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation, or the value of a single one; of those that are numbers, and how many, where not all are."""
    numbers = [x for x in values if not np.isnan(x)] or values
    told = format(np.mean(numbers), form) + (f" ± {np.std(numbers, ddof=1):{form}}" if len(numbers) > 1 else "")
    return told if len(numbers) == len(values) else f"{told} ({len(numbers)} of {len(values)})"


def shown_columns(runs: Sequence[Finished]) -> dict[str, tuple[str, str]]:
    """Label and format of the numbers that all these runs show, and of the seconds of training."""
    first = runs[0].summary["columns"]
    shared = {name: tuple(column) for name, column in first.items() if all(name in run.numbers for run in runs)}
    return {**shared, "seconds": ("training s", ".0f")}


def table(rows: Mapping[str, Sequence[str]], corner: str, labels: Sequence[str]) -> str:
    """A Markdown table."""
    lines = [f"| {corner} | " + " | ".join(labels) + " |", "|" + "---|" * (len(labels) + 1)]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return "\n".join(lines)


def compare(paths: Sequence[Path], figure: Path | None = None) -> None:
    """Print the table of finished runs, mean ± sd over seeds, and draw their curves over each other.

    Raises:
        ConfigurationError: no finished runs.
    """
    groups = grouped(finished(paths))
    columns = shown_columns([run for group in groups for run in group.runs])
    rows = {
        group.label: [
            str(len(group.runs)),
            *(spread([run.numbers[name] for run in group.runs], form) for name, (_, form) in columns.items()),
        ]
        for group in groups
    }
    print(table(rows, "runs", ["seeds", *(label for label, _ in columns.values())]))
    if figure is not None:
        save_figure(draw(groups, list(columns)), figure)
        print(f"\ncurves: {figure}")


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure in the format that the file's name tells.

    Raises:
        ConfigurationError: a format that cannot be written.
        OSError: a place that cannot be written to.
    """
    from adjsnn import plotting  # noqa: PLC0415  matplotlib takes a second to load

    try:
        with plotting.style():
            figure.savefig(path)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}", "a picture", f"{path.with_suffix('.png')}") from error


def draw(groups: Sequence[Group], names: Sequence[str]) -> "Figure":
    """Validation curves: thin lines for runs, a thick one for the mean of each group; at most four numbers."""
    from adjsnn import plotting  # noqa: PLC0415  matplotlib takes a second to load

    metrics: dict[Path, dict[str, list[float]]] = {}
    for run in (run for group in groups for run in group.runs):
        try:
            metrics[run.path] = _curves_of(run)
        except ConfigurationError as error:
            leave_out(run.path / "metrics.csv", error)
    names = [name for name in names if name != "seconds" and all(name in columns for columns in metrics.values())][:4]
    names = names or ["train_cost"]
    with plotting.style():
        return _drawn(groups, names, metrics)


def _drawn(groups: Sequence[Group], names: Sequence[str], metrics: Mapping[Path, dict[str, list[float]]]) -> "Figure":
    from adjsnn import plotting  # noqa: PLC0415  as above

    figure = plotting.new_figure(3.2 * len(names), 2.8)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        positive = all(min(columns[name]) > 0.0 for columns in metrics.values())
        for number, group in enumerate(groups):
            colour = COLOURS[number % len(COLOURS)]
            curves = [metrics[run.path] for run in group.runs if run.path in metrics]
            if not curves:
                continue
            for curve in curves:
                axes.plot(curve["iteration"], curve[name], color=colour, lw=0.5, alpha=0.5)
            length = min(len(curve["iteration"]) for curve in curves)
            mean = np.mean([curve[name][:length] for curve in curves], axis=0)
            axes.plot(curves[0]["iteration"][:length], mean, color=colour, lw=1.6, label=group.label)
        if positive and "cost" in name:
            axes.set_yscale("log")
        axes.set(xlabel="step", ylabel=f"{name.replace('_', ' ')}, validation")
    if len(groups) > 1 and metrics:
        figure.axes[0].legend(fontsize=6)
    return figure


def _curves_of(run: Finished) -> dict[str, list[float]]:
    """Columns of metrics.csv.

    Raises:
        ConfigurationError: none, or a damaged one.
    """
    metrics = read_metrics(run.path)
    digest = run.summary.get("files", {}).get("metrics.csv")  # runs of earlier versions do not tell
    if not metrics.get("iteration") or "train_cost" not in metrics or digest not in (None, digest_of(run.path / "metrics.csv")):
        raise ConfigurationError(
            "it is not what was written", "the rows of the training", f"--resume {run.path}, which writes them again"
        )
    return metrics


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
