"""Runs side by side: a table of mean ± sd over seeds, and their curves over each other."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adjsnn.errors import ConfigurationError
from adjsnn.training.runs import read_about, read_metrics

APART = ("seed", "runs", "resume", "threads", "tensorboard")  # settings that make no other experiment


class Finished(NamedTuple):
    """A finished run: its folder, config.json and summary.json."""

    path: Path
    about: dict[str, Any]
    summary: dict[str, Any]

    @property
    def numbers(self) -> dict[str, float]:
        return {**self.summary["held_out"], **self.summary["training"]}


class Group(NamedTuple):
    """Runs that differ in their seed alone, and what tells them from the other groups."""

    label: str
    runs: list[Finished]


def finished(paths: Iterable[Path]) -> list[Finished]:
    """The finished runs among folders; a folder that holds runs stands for all of them.

    Raises:
        ConfigurationError: a folder without a run, or none finished.
    """
    found = []
    for path in paths:
        inside = [path] if (path / "config.json").exists() else sorted(p.parent for p in path.glob("**/config.json"))
        if not inside:
            raise ConfigurationError(f"{path}: no run in it", "a run folder or a folder of runs", "runs/predictive_coding")
        found += inside
    done = [
        Finished(path, read_about(path), json.loads((path / "summary.json").read_text()))
        for path in found
        if (path / "summary.json").exists()
    ]
    if not done:
        raise ConfigurationError(f"{len(found)} runs, none of them finished", "a finished run", "--resume to finish one")
    return done


def grouped(runs: Sequence[Finished]) -> list[Group]:
    """Groups of runs that differ in their seed alone; the label has the settings in which the groups differ."""
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
    ordered = [sorted(members, key=lambda run: run.about["config"].get("seed", 0)) for members in groups.values()]
    return [Group(label, members) for label, members in zip(labels, ordered, strict=True)]


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation, or the value of a single one."""
    if len(values) == 1:
        return format(values[0], form)
    return f"{np.mean(values):{form}} ± {np.std(values, ddof=1):{form}}"


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
        draw(groups, list(columns)).savefig(figure)
        print(f"\ncurves: {figure}")


def draw(groups: Sequence[Group], names: Sequence[str]) -> Any:
    """Validation curves: thin lines for runs, a thick one for the mean of each group; at most four numbers."""
    from adjsnn import plotting  # noqa: PLC0415  matplotlib takes a second to load

    metrics = {run.path: read_metrics(run.path) for group in groups for run in group.runs}
    names = [name for name in names if name != "seconds" and all(name in found for found in metrics.values())][:4]
    names = names or ["train_cost"]
    figure = plotting.new_figure(3.2 * len(names), 2.8)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        positive = all(min(found[name]) > 0.0 for found in metrics.values())
        for number, group in enumerate(groups):
            colour = plotting.COLOURS[number % len(plotting.COLOURS)]
            curves = [metrics[run.path] for run in group.runs]
            for curve in curves:
                axes.plot(curve["iteration"], curve[name], color=colour, lw=0.5, alpha=0.5)
            length = min(len(curve["iteration"]) for curve in curves)
            mean = np.mean([curve[name][:length] for curve in curves], axis=0)
            axes.plot(curves[0]["iteration"][:length], mean, color=colour, lw=1.6, label=group.label)
        if positive and "cost" in name:
            axes.set_yscale("log")
        axes.set(xlabel="step", ylabel=f"{name.replace('_', ' ')}, validation")
    if len(groups) > 1:
        figure.axes[0].legend(fontsize=6)
    return figure


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
