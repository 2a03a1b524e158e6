"""What spikes buy: R² of autoencoding runs against their firing rate, one point for each price λ of activity.

    python -m adjsnn.training sweep experiments/autoencoding.py --seeds 3 --grid activity-cost=0.003,0.01,0.03,0.1,0.3
    python experiments/rate_distortion.py runs/sweeps/...-autoencoding

prints a table and draws rate_distortion.png. With --page experiments/RESULTS.md both become a section of that page.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import adjsnn
from adjsnn import plotting
from adjsnn.training.compare import Group, finished, grouped, save_figure, spread, table
from adjsnn.training.results import add_section

# isort: split
import tyro  # after adjsnn.training, which says what to install


@dataclass(frozen=True)
class Config:
    """Rate–distortion curve of finished runs."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """run folders, or folders of them"""
    figure: Path = Path("rate_distortion.png")
    page: Path | None = None
    """a page of results to put table and figure into"""


@plotting.style()
def main(argv: list[str] | None = None) -> int:
    config = tyro.cli(Config, args=argv)
    try:
        groups = grouped(finished(config.runs))
        check(groups)
    except adjsnn.AdjsnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    groups.sort(key=lambda group: group.runs[0].about["config"]["activity_cost"])
    figure = plotting.new_figure(4.2, 3.2)
    axes, rows = figure.subplots(), {}
    for number, kind in enumerate(sorted({kind_of(group.runs[0].about["config"]) for group in groups})):
        rates, missing = [], []
        for group in groups:
            settings = group.runs[0].about["config"]
            if kind_of(settings) != kind:
                continue
            rate, lost = ([run.numbers[name] for run in group.runs] for name in ("spikes_per_s", "r2"))
            rows[f"{kind}, λ = {settings['activity_cost']:g}"] = [str(len(rate)), spread(rate, ".1f"), spread(lost, ".4f")]
            rates.append(np.mean(rate))
            missing.append(1.0 - np.mean(lost))
            axes.annotate(
                f"{settings['activity_cost']:g}",
                (rates[-1], missing[-1]),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7,
            )
        axes.plot(rates, missing, "o-", ms=4, lw=1.0, color=plotting.COLOURS[number], label=kind)
    axes.set(xlabel="spikes/s per neuron", ylabel="1 - R², held out", yscale="log")
    axes.set_title("points: λ, the price of activity", loc="left")
    axes.legend(fontsize=7)
    text = table(rows, "runs", ["seeds", "spikes/s per neuron", "R²"])
    print(text)
    if config.page is None:
        try:
            save_figure(figure, config.figure)
        except (adjsnn.AdjsnnError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(f"\n{config.figure}")
        return 0
    picture = config.page.with_suffix("") / "rate-distortion.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)
    about = f"`experiments/autoencoding.py` at several prices λ of activity, held out, mean ± sd. {_made(groups)}"
    link = f"![rate-distortion curve]({picture.relative_to(config.page.parent)})"
    add_section(config.page, "Rate and distortion", f"{about}\n\n{link}\n\n{text}")
    print(f"\n{config.page}")
    return 0


def check(groups: list[Group]) -> None:
    """See that these are runs of autoencoding.

    Raises:
        ConfigurationError: they lack what the curve is drawn of.
    """
    for run in (run for group in groups for run in group.runs):
        lacking = {"activity_cost", "data", "network"} - run.about["config"].keys() | {
            "spikes_per_s",
            "r2",
        } - run.numbers.keys()
        if lacking:
            raise adjsnn.ConfigurationError(
                f"{run.path}: no {', '.join(sorted(lacking))}", "runs of autoencoding", "a sweep of experiments/autoencoding.py"
            )


def _made(groups: list[Group]) -> str:
    """On what and when."""
    runs = [run for group in groups for run in group.runs]
    versions = runs[0].summary["versions"]
    day = max(run.about["started"] for run in runs)[:8]
    return f"{versions['machine']}; torch {versions['torch']}; {day[:4]}-{day[4:6]}-{day[6:]}."


def kind_of(settings: dict) -> str:
    return f"{settings['data']}, {settings['network']}"


if __name__ == "__main__":
    sys.exit(main())
