"""Cosines of learning rules to the exact gradient on several clocks, at the start and the end of an exact training.

    python experiments/compare_clocks.py --run runs/compare_rules/delayed_xor/event/seed-0/... --into found.json

A part of `compare_rules.py`, which runs it. Cost, batch and weights are the same on all clocks. Slopes grow as the clock gets
finer, so that a spike has as many steps under the surrogate; beside them is one that stays. The end is the network that the
training kept. Prints as JSON, by stage and by clock, the share of neurons that spike another number of times, and cosines.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from comparison import RULES, TASKS
from credit_assignment import KINDS

import adjsnn
from adjsnn.training.angles import angles
from adjsnn.training.files import read_about, unpacked
from adjsnn.training.main import parsed, variant_of
from adjsnn.training.ranges import Positive, check_ranges
from adjsnn.training.rules import BY_NAME

# isort: split
import tyro  # after adjsnn.training, which says what to install

NARROW = 6.0  # times the run's slope, of one more surrogate
Rows = dict[str, float]


@dataclass(frozen=True)
class Config:
    """One exact training, and the clocks to measure at."""

    run: Annotated[Path, tyro.conf.arg(help="folder of the finished training")]
    clocks: tuple[Positive, ...] = (1.0, 0.5, 0.25, 0.1)
    """ms"""
    into: Path | None = None
    """a file for what was found"""


def rows_of(task: str, slope: float, product: float, clock: float) -> dict[str, str]:
    """Rules with their slopes on a clock, by the names of their rows; `product` is slope times clock where it stays."""
    along = {
        f"{RULES[rule].label}, slope × clock {product:g}": f"{rule}@{product / clock!r}"
        for rule in TASKS[task].rules
        if rule != "event" and rule in BY_NAME
    }
    label = RULES["surrogate"].label
    return {
        f"{label}, slope {slope:g}": f"surrogate@{slope!r}",
        **along,
        f"{label}, slope × clock {NARROW * product:g}": f"surrogate@{NARROW * product / clock!r}",
    }


def measured(kind: Any, config: Any, weights: dict[str, torch.Tensor] | None, clock: float) -> Rows:
    """Other counts, in parts of one, and cosines, by row.

    Args:
        kind: the task.
        config: of the training.
        weights: of the network; None for its start.
        clock: ms.
    """
    rows = rows_of(config.task, config.slope, config.slope * config.clock, clock)
    experiment = kind(replace(config, clock=clock, angles=tuple(dict.fromkeys(rows.values()))))
    net = experiment.network()
    if weights is not None:
        net.load_state_dict(weights)
    found = angles(experiment, net)
    other = found[f"miscounted_{next(iter(rows.values()))}"]
    return {"other counts, %": other, **{name: found[f"cosine_{rule}"] for name, rule in rows.items()}}


def main(argv: list[str] | None = None) -> int:
    given = tyro.cli(Config, args=argv)
    try:
        check_ranges(given)
        torch.set_num_threads(1)
        about = read_about(given.run)
        kind = next(kind for kind in KINDS if variant_of(kind, "task") == about["config"]["task"])
        config = parsed(kind.config_type, about["arguments"])
        stages = {"start": None, "end": unpacked((given.run / "best.safetensors").read_bytes())}
        found = {
            stage: {f"{clock:g}": measured(kind, config, weights, clock) for clock in given.clocks}
            for stage, weights in stages.items()
        }
    except (adjsnn.AdjsnnError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = json.dumps(found, indent=1)
    print(text)
    if given.into is not None:
        given.into.parent.mkdir(parents=True, exist_ok=True)
        given.into.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
