"""What `compare_rules.py` compares: rules, tasks, and the runs of both."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

import adjsnn
from adjsnn.training.compare import Finished, finished
from adjsnn.training.files import read_metrics
from adjsnn.training.ranges import Count, Seed

SLOPES = (1, 3, 10, 30, 100)  # of angles, times one over the threshold's distance from rest


class Rule(NamedTuple):
    """A rule as the page names it: its label, and its row in the table of what rules say of themselves."""

    label: str
    row: str


RULES = {
    "event": Rule("exact (event adjoint)", "EventAdjoint"),
    "surrogate": Rule("surrogate BPTT", "SurrogateBPTT"),
    "feedback_alignment": Rule("feedback alignment", "FeedbackAlignment"),
    "direct_feedback_alignment": Rule("direct feedback alignment", "DirectFeedbackAlignment"),
    "superspike": Rule("SuperSpike, symmetric", "SuperSpike"),
    "superspike_random": Rule("SuperSpike, random", "SuperSpike"),
    "superspike_uniform": Rule("SuperSpike, uniform", "SuperSpike"),
    "eprop": Rule("e-prop, symmetric", "EProp"),
    "eprop_random": Rule("e-prop, random", "EProp"),
    "local_errors": Rule("local errors", "LocalErrors"),
    "escape_noise": Rule("escape noise", "EscapeNoise"),
    "converted": Rule("converted ReLU network", "Converted"),
    "reservoir": Rule("reservoir, ridge readout", "Reservoir"),
    "evolution": Rule("evolution (CMA-ES)", "Evolution"),
}


# What one gradient takes far longer for: fewer steps, which the page tells.
FLAGS = {"escape_noise": ("--iterations", "150", "--log-every", "15")}


class Task(NamedTuple):
    """A task of the comparison.

    Attributes:
        title: of its part of the page.
        rules: that train it; the first is exact.
        ways: without a gradient.
        metric: the number that counts.
        columns: numbers that tables show, with label and format.
        clocks: steps at which rules are held against the exact gradient once more, ms; none for no such table.
    """

    title: str
    rules: tuple[str, ...]
    ways: tuple[str, ...]
    metric: str
    columns: Mapping[str, tuple[str, str]]
    clocks: tuple[float, ...] = ()


ALIGNED = ("event", "surrogate", "feedback_alignment", "direct_feedback_alignment")
TASKS = {
    "yin_yang": Task(
        "Yin-Yang",
        ("event", "surrogate", "feedback_alignment", "superspike", "local_errors"),  # one hidden layer: alignment is direct
        ("reservoir", "evolution", "converted"),
        "accuracy",
        {
            "accuracy": ("accuracy", ".3f"),
            "accuracy_exact": ("without a clock", ".3f"),
            "hidden_spikes": ("spikes per hidden neuron", ".2f"),
        },
    ),
    "delayed_xor": Task(
        "Delayed XOR",
        (*ALIGNED, "eprop", "eprop_random"),
        ("reservoir", "evolution"),
        "accuracy",
        {
            "accuracy": ("accuracy", ".3f"),
            "accuracy_exact": ("without a clock", ".3f"),
            "spikes_per_s": ("spikes/s per neuron", ".1f"),
        },
        clocks=(1.0, 0.5, 0.25, 0.1, 0.05),
    ),
    "patterns": Task(
        "Spike patterns",
        (*ALIGNED, "superspike", "superspike_random", "superspike_uniform", "escape_noise"),
        ("evolution",),
        "cost",
        {
            "cost": ("distance / silent", ".3f"),
            "exact_cost": ("without a clock", ".3f"),
            "spikes_per_s": ("spikes/s, output", ".1f"),
            "hidden_per_s": ("hidden", ".1f"),
        },
    ),
}


@dataclass(frozen=True)
class Config:
    """All rules side by side."""

    tasks: tuple[str, ...] = tuple(TASKS)
    seeds: Count = 5
    first_seed: Seed = 0
    parallel: Count = 2
    """trainings at a time, each of one thread"""
    generations: Count = 100
    """of evolution"""
    flags: str = ""
    """further flags of every training"""
    runs: Path = Path("runs")
    """runs go to a folder compare_rules in it"""
    page: Path | None = None
    """where the page goes; figures lie beside it. Default: into the folder of the runs"""


class Run(NamedTuple):
    """One training of the comparison."""

    task: str
    rule: str
    seed: int

    def folder(self, root: Path) -> Path:
        return root / self.task / self.rule / f"seed-{self.seed}"


def angles_of(task: str, rule: str) -> list[str]:
    """Rules whose angles a training by `rule` measures: its own, or by the exact gradient all of them and slopes."""
    if rule != "event":
        return [rule]
    return [*TASKS[task].rules[1:], *(f"surrogate@{slope}" for slope in SLOPES)]


def done(run: Run, root: Path) -> Finished | None:
    """The finished training, if there is one."""
    folder = run.folder(root)
    if not folder.exists():
        return None
    try:
        return finished([folder])[-1]
    except adjsnn.ConfigurationError:
        return None


class Found(NamedTuple):
    """The trainings of a task by a rule, and the columns of their metrics."""

    runs: list[Finished]
    metrics: list[dict[str, list[float]]]

    def numbers(self, name: str) -> list[float]:
        return [run.numbers[name] for run in self.runs]

    def column(self, name: str) -> np.ndarray:
        """(seeds, evaluations)."""
        return np.array([metrics[name] for metrics in self.metrics])


def collected(config: Config, root: Path) -> dict[str, dict[str, Found]]:
    """By task and rule, what all seeds found."""
    found: dict[str, dict[str, Found]] = {}
    for task in config.tasks:
        for rule in TASKS[task].rules:
            runs = [done(Run(task, rule, seed), root) for seed in range(config.first_seed, config.first_seed + config.seeds)]
            whole = [run for run in runs if run is not None]
            found.setdefault(task, {})[rule] = Found(whole, [read_metrics(run.path) for run in whole])
    return found


def searched(task: str, way: str, config: Config, root: Path) -> list[dict[str, float]]:
    """What searches without a gradient found, of all seeds."""
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    return [json.loads((Run(task, way, seed).folder(root) / "found.json").read_text())["numbers"] for seed in seeds]


def by_clock(task: str, config: Config, root: Path) -> list[dict[str, dict[str, dict[str, float]]]]:
    """Of all seeds, by stage of the exact training and by clock, what `compare_clocks.py` measured."""
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    return [json.loads((Run(task, "clocks", seed).folder(root) / "found.json").read_text()) for seed in seeds]
