"""Every learning rule on every task, beside the exact gradient: what it reaches, what it costs, and how far it points away.

    python experiments/compare_rules.py --page docs/credit_assignment.md

trains each task of `experiments/credit_assignment.py` by each rule that applies, with five seeds, and measures the angle of the
rule to the exact gradient of the same cost at the same weights on the same batch, in float64, at every evaluation. Along
trainings by the exact gradient the angles of all rules are measured, and of surrogates with slopes over two decades. Runs lie
in runs/compare_rules; what is finished there is not run again, so that a stopped comparison goes on. Page and figures are
written from the runs alone.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np

import adjsnn
from adjsnn import plotting
from adjsnn.rules import CATALOGUE
from adjsnn.training.compare import Finished, finished, save_figure, spread, table
from adjsnn.training.files import read_metrics
from adjsnn.training.ranges import Count, Seed, check_ranges

# isort: split
import tyro  # after adjsnn.training, which says what to install

HERE = Path(__file__).parent
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
    """A task: its rules, ways without a gradient, the number that counts, and those that tables show, with label and format."""

    title: str
    rules: tuple[str, ...]
    ways: tuple[str, ...]
    metric: str
    columns: Mapping[str, tuple[str, str]]


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


def without_gradient(run: Run, root: Path, generations: int) -> None:
    """One search without a gradient in a process of its own, unless it is done already.

    Raises:
        ConfigurationError: it failed.
    """
    into = run.folder(root) / "found.json"
    if into.exists():
        return
    given = {"task": run.task, "way": run.rule, "seed": run.seed, "generations": generations, "into": into}
    _started(run, "without_gradient.py", [str(x) for name, value in given.items() for x in (f"--{name}", value)])


def _started(run: Run, script: str, flags: Sequence[str]) -> None:
    command = [sys.executable, str(HERE / script), *flags]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        word = (ended.stderr.strip() or "no word").splitlines()[-1]
        raise adjsnn.ConfigurationError(f"{run} failed: {word}", "a training", " ".join(command))
    print(f"{run.task}, {RULES[run.rule].label}, seed {run.seed}: done", flush=True)


def train(run: Run, root: Path, flags: Sequence[str]) -> None:
    """One training in a process of its own, unless it is finished already.

    Raises:
        ConfigurationError: it failed.
    """
    if done(run, root) is not None:
        return
    given = {"task": run.task, "adjoint": run.rule, "seed": run.seed, "threads": 1, "device": "cpu", "runs": run.folder(root)}
    own = [str(x) for name, value in given.items() for x in (f"--{name}", value)]
    measured = ["--angles", *angles_of(run.task, run.rule)]
    _started(run, "credit_assignment.py", [*own, *measured, *FLAGS.get(run.rule, ()), *flags])


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


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over seeds, and the half width of its 95 % confidence interval by Student's t."""
    from scipy.stats import t  # noqa: PLC0415

    count = np.sum(np.isfinite(values), 0)
    width = np.where(count > 1, t.ppf(0.975, np.maximum(count - 1, 1)) * np.nanstd(values, 0, ddof=1) / np.sqrt(count), np.nan)
    return np.nanmean(values, 0), width


def stages(values: np.ndarray, form: str = ".2f") -> str:
    """A number at the start, in the middle and at the end of training, mean over seeds."""
    mean, _ = mean_and_error(values)
    return ", ".join(f"{mean[k]:{form}}" for k in (0, len(mean) // 2, -1))


def task_table(task: str, found: Mapping[str, Found], ways: Mapping[str, list[dict[str, float]]]) -> str:
    """What each rule reached, cost and pointed at, and what was found without a gradient."""
    rows = {}
    for rule, of in found.items():
        own = of.column(f"cosine_{rule}") if rule != "event" else None
        measured = rule != "event" and all(f"cosine_{rule}" in metrics for metrics in found["event"].metrics)
        along = found["event"].column(f"cosine_{rule}") if measured else None
        rows[RULES[rule].label] = [
            *(spread(of.numbers(name), form) for name, (_, form) in TASKS[task].columns.items()),
            spread(of.numbers("seconds"), ".1f"),
            spread(of.numbers("peak_mb"), ".0f"),
            "1" if own is None else stages(own),
            "" if own is None else stages(100.0 * of.column(f"miscounted_{rule}"), ".0f"),
            ("1" if rule == "event" else "") if along is None else stages(along),
            ", ".join(CATALOGUE[RULES[rule].row].knows),
        ]
    for way, numbers in ways.items():
        shown = [*((name, form) for name, (_, form) in TASKS[task].columns.items()), ("seconds", ".1f"), ("peak_mb", ".0f")]
        cells = [spread([each[name] for each in numbers], form) for name, form in shown]
        rows[RULES[way].label] = [*cells, "", "", "", ", ".join(CATALOGUE[RULES[way].row].knows)]
    labels = [label for label, _ in TASKS[task].columns.values()]
    return table(
        rows,
        "rule",
        [
            *labels,
            "training s",
            "peak MB",
            "cosine, own training",
            "other counts, %",
            "cosine, exact training",
            "what a synapse must know",
        ],
    )


def slope_table(found: Mapping[str, Found]) -> str:
    """Cosines of surrogates along trainings by the exact gradient, mean ± half width of the 95 % interval over seeds."""
    rows = {}
    for slope in SLOPES:
        mean, error = mean_and_error(found["event"].column(f"cosine_surrogate@{slope}"))
        rows[str(slope)] = [f"{mean[k]:.3f} ± {error[k]:.3f}" for k in (0, len(mean) // 2, -1)]
    return table(rows, "slope γ", ["start", "middle", "end"])


def draw_training(found: Mapping[str, Mapping[str, Found]]) -> plotting.Figure:
    """A row a task: what is reached through training, and the cosine of each rule through its own training."""
    figure = plotting.new_figure(7.0, 2.5 * len(found))
    grid = figure.subplots(len(found), 2, squeeze=False)
    for (left, right), (task, rules) in zip(grid, found.items(), strict=True):
        for number, (rule, of) in enumerate(rules.items()):
            colour, step = plotting.COLOURS[number % len(plotting.COLOURS)], np.array(of.metrics[0]["iteration"])
            style = ("-", "--")[number // len(plotting.COLOURS)]
            for axes, name in ((left, TASKS[task].metric), (right, f"cosine_{rule}")):
                if rule == "event" and axes is right:
                    continue
                mean, error = mean_and_error(of.column(name))
                axes.plot(step, mean, color=colour, ls=style, lw=1.4, label=RULES[rule].label)
                axes.fill_between(step, mean - error, mean + error, color=colour, alpha=0.15, lw=0)
        right.axhline(0.0, color=plotting.INK, lw=0.6, ls=":")
        left.set(xlabel="training step", ylabel=f"{TASKS[task].metric}, validation")
        right.set(xlabel="training step", ylabel="cosine to the exact gradient", ylim=(-1.0, 1.02))
        left.set_title(f"{TASKS[task].title}: what is reached", loc="left")
        right.set_title("where each rule points", loc="left")
        left.legend(fontsize=5.5)
    return figure


def draw_slopes(found: Mapping[str, Mapping[str, Found]]) -> plotting.Figure:
    """A panel a task: cosine against the slope of the surrogate, at the start, middle and end of exact trainings."""
    figure = plotting.new_figure(3.3 * len(found), 2.8)
    for axes, (task, rules) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        every = np.stack([rules["event"].column(f"cosine_surrogate@{slope}") for slope in SLOPES], -1)
        for number, (name, k) in enumerate((("start", 0), ("middle", every.shape[1] // 2), ("end", -1))):
            mean, error = mean_and_error(every[:, k])
            colour = plotting.COLOURS[number]
            axes.plot(SLOPES, mean, "o-", ms=3, color=colour, label=f"{name} of training")
            axes.fill_between(SLOPES, mean - error, mean + error, color=colour, alpha=0.15, lw=0)
        axes.axhline(0.0, color=plotting.INK, lw=0.6, ls=":")
        axes.set(
            xscale="log",
            xlabel="slope γ of the surrogate (1/threshold)",
            ylabel="cosine to the exact gradient",
            ylim=(-1, 1.02),
        )
        axes.set_title(TASKS[task].title, loc="left")
        axes.legend(fontsize=6, loc="lower center")
    return figure


def written(found: Mapping[str, Mapping[str, Found]], config: Config, root: Path, page: Path) -> None:
    """The page, and the figures beside it."""
    parts, first = [], next(iter(next(iter(found.values())).values())).runs[0]
    ways = {task: {way: searched(task, way, config, root) for way in TASKS[task].ways} for task in found}
    for task, rules in found.items():
        clock, slope = (rules["event"].runs[0].about["config"][name] for name in ("clock", "slope"))
        steps = {rule: of.runs[0].about["config"]["iterations"] for rule, of in rules.items()}
        others = [f", {n} for {RULES[rule].label}" for rule, n in steps.items() if n != steps["event"]]
        told = f"Clock {clock:g} ms, slope {slope:g}, {steps['event']} steps{''.join(others)}."
        whole = task_table(task, rules, ways[task])
        along = f"Cosine of surrogate BPTT along the exact trainings:\n\n{slope_table(rules)}"
        parts.append(f"## {TASKS[task].title}\n\n{told}\n\n{whole}\n\n{along}\n")
    names = {kind: page.with_name(f"{page.stem}_{kind}.png") for kind in ("training", "slopes")}
    save_figure(draw_training(found), names["training"])
    save_figure(draw_slopes(found), names["slopes"])
    versions, seeds = first.summary["versions"], f"{config.first_seed} to {config.first_seed + config.seeds - 1}"
    given = {"first-seed": config.first_seed, "seeds": config.seeds, "generations": config.generations}
    command = " ".join(["python experiments/compare_rules.py", *(f"--{name} {x}" for name, x in given.items())])
    command += f' "--flags={config.flags}"' if config.flags else ""
    text = f"""# Learning rules beside the exact gradient

Written by `{command}`: {versions["machine"]}, one thread a training, {config.parallel} at a time; torch {versions["torch"]};
{date.today()}. Seeds {seeds}; mean ± standard deviation over them on held-out trials. The same networks, costs, batches and
optimiser, whatever the rule, but for local errors, whose hidden layer has a cost of its own, and escape noise, which learns by
the likelihood of the target, without the remedy for silent neurons. Peak memory is that of the whole process.

Cosines are those of a rule's gradient of all parameters to the event adjoint's, of the same cost at the same weights on the
same batch, in float64, at the start, in the middle and at the end: of the rule's own training, and of trainings by the exact
gradient. A rule on a clock differentiates the network on that clock, whose spike times are off by half a step; a cosine is
that of both. Other counts are the share of neurons that spike more or less often there than without a clock: where they
are many, as in a recurrent network that magnifies every difference, it is another network whose gradient is compared. Of
rules with a cost of their own a cosine is that of the gradient of this cost to the exact one of the task's.

![What each rule reaches, and where it points]({names["training"].name})

![Cosine against the slope of the surrogate]({names["slopes"].name})

"""
    page.write_text(text + "\n".join(parts))


def main(argv: list[str] | None = None) -> int:
    config = tyro.cli(Config, args=argv)
    root = config.runs / "compare_rules"
    try:
        check_ranges(config)
        if unknown := [task for task in config.tasks if task not in TASKS]:
            raise adjsnn.ConfigurationError(f"--tasks {' '.join(unknown)}", f"of {', '.join(TASKS)}", "leaving it out")
        seeds = range(config.first_seed, config.first_seed + config.seeds)
        runs = [Run(task, rule, seed) for seed in seeds for task in config.tasks for rule in TASKS[task].rules]
        searches = [Run(task, way, seed) for seed in seeds for task in config.tasks for way in TASKS[task].ways]
        with ThreadPoolExecutor(config.parallel) as pool:
            waiting = [pool.submit(train, run, root, config.flags.split()) for run in runs]
            waiting += [pool.submit(without_gradient, run, root, config.generations) for run in searches]
            for result in waiting:
                result.result()
        page = config.page or root / "credit_assignment.md"
        written(collected(config, root), config, root, page)
    except (adjsnn.AdjsnnError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
