"""The page and figures of `compare_rules.py`, from its runs alone."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import numpy as np
from comparison import RULES, SLOPES, TASKS, Config, Found, by_clock, searched

from adjsnn import plotting
from adjsnn.rules import CATALOGUE
from adjsnn.training.compare import save_figure, spread, table

CLOCKS = """Cosines to the exact gradient on finer clocks, same weights and batch. The finer the clock, the fewer neurons spike
another number of times, and the more the cosine is that of the rule. But a voltage then spends more steps under σ′: with a
slope that stays, the gradient through each spike grows as the clock gets finer, and its cosine goes to 0. So slopes go as one
over the clock, and one that stays is beside them."""


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


def clock_tables(every: list[dict[str, dict[str, dict[str, float]]]]) -> str:
    """Cosines of rules on several clocks, at the start and the end of exact trainings, mean ± half width of the interval."""
    clocks, parts = list(every[0]["start"]), []
    for stage, name in (("start", "at the start"), ("end", "kept by exact trainings")):
        rows: dict[str, list[str]] = {}
        for row in every[0][stage][clocks[0]]:
            values = np.array([[seed[stage][clock][row] for clock in clocks] for seed in every])
            form, factor = (".1f", 100.0) if row == "other counts, %" else (".2f", 1.0)
            mean, error = mean_and_error(factor * values)
            rows[row] = [f"{m:{form}} ± {e:{form}}" for m, e in zip(mean, error, strict=True)]
        parts.append(table(rows, name, [f"{float(clock):g} ms" for clock in clocks]))
    return "\n\n".join(parts)


@plotting.style()
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


@plotting.style()
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
        finer = f"\n{CLOCKS}\n\n{clock_tables(by_clock(task, config, root))}\n" if TASKS[task].clocks else ""
        parts.append(f"## {TASKS[task].title}\n\n{told}\n\n{whole}\n\n{along}\n{finer}")
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
