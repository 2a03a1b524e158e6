"""Credit assignment without a gradient of what spikes: a frozen network, networks drawn and ranked, or a ReLU network's rates.

    python experiments/without_gradient.py --task delayed_xor --way reservoir
    python experiments/without_gradient.py --task yin_yang --way evolution
    python experiments/without_gradient.py --task yin_yang --way converted

The tasks and networks are those of `experiments/credit_assignment.py`, at the same random start. The reservoir of Yin-Yang is
its hidden layer, read by spike counts; that of delayed XOR is the network, whose own readout is fitted to the target. Evolution
ranks networks by the task's cost of a batch, another one in each generation. Prints what was found as JSON.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from credit_assignment import PatternsByAnyRule, PatternsTask, XorByAnyRule, XorTask, YinYangByAnyRule, YinYangTask
from torch import Tensor, nn

import adjsnn
from adjsnn.rules import Converted, Evolution, Reservoir
from adjsnn.training.main import peak_mb
from adjsnn.training.ranges import Count, Seed, check_ranges

# isort: split
import tyro  # after adjsnn.training, which says what to install

Found = dict[str, float]
TRIALS = 300  # of delayed XOR, that a readout is fitted to


@dataclass(frozen=True)
class Config:
    """One way without a gradient, on one task."""

    task: Literal["yin_yang", "delayed_xor", "patterns"] = "yin_yang"
    way: Literal["reservoir", "evolution", "converted"] = "reservoir"
    seed: Seed = 0
    generations: Count = 100
    """of evolution"""
    into: Path | None = None
    """a file for what was found"""


def yin_yang_reservoir(task: YinYangByAnyRule) -> Found:
    """A ridge classifier of how often each hidden neuron spikes."""
    whole, train, held_out = task.network(), task.data["train"], task.data["held_out"]
    hidden = adjsnn.LIFNetwork(5, (task.config.hidden,), tau_mem=task.config.tau_mem, tau_syn=task.config.tau_syn)
    with torch.no_grad():
        hidden.w_in[0].copy_(whole.w_in[0])
    reservoir = Reservoir(hidden, alpha=1.0, features="counts", intercept=True, t_end=task.config.t_end)
    accuracy = reservoir.fit(train.x, train.labels).score(held_out.x, held_out.labels)
    spikes = adjsnn.solve(hidden, held_out.x, t_end=task.config.t_end).stats.spikes[0]
    found = {"accuracy": accuracy, "accuracy_exact": accuracy}
    return {**found, "hidden_spikes": spikes / (held_out.x.batch * task.config.hidden)}


def yin_yang_converted(task: YinYangByAnyRule) -> Found:
    """A ReLU network of as many hidden units, trained on the coordinates by Adam, as rates of LIF neurons over 200 ms."""
    generator, train, held_out = torch.Generator().manual_seed(task.config.seed), task.data["train"], task.data["held_out"]

    def coordinates(points: Tensor) -> Tensor:
        return torch.cat([points, 1.0 - points], 1).float()

    with torch.random.fork_rng():
        torch.manual_seed(task.config.seed)
        model = nn.Sequential(nn.Linear(4, task.config.hidden), nn.ReLU(), nn.Linear(task.config.hidden, 3))
    x, optimiser = coordinates(train.points), torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        for part in torch.randperm(len(x), generator=generator).split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[part]), train.labels[part]).backward()
            optimiser.step()
    converted, shown = Converted(model, x, t_end=200.0), coordinates(held_out.points)
    with torch.no_grad():
        sol = converted.solve(shown)
        accuracy = float((converted.outputs(sol).argmax(1) == held_out.labels).double().mean())
    spikes = sol.stats.spikes[0] / (len(shown) * task.config.hidden)
    return {"accuracy": accuracy, "accuracy_exact": accuracy, "hidden_spikes": spikes}


def xor_reservoir(task: XorByAnyRule) -> Found:
    """The readout that is nearest to the target, in the least squares of its samples."""
    net, trials = task.network().to(task.dtype), task.place(task.batch_of(TRIALS))
    ts = torch.arange(len(trials.u) + 1, dtype=task.dtype) * task.config.dt
    Reservoir(net, alpha=1e-3, dt=task.config.dt, ts=ts).fit(trials.u, trials.target).write_()
    with torch.no_grad():
        return task.evaluate(net, "held_out")


def evolved(task: YinYangByAnyRule | XorByAnyRule | PatternsByAnyRule, generations: int) -> Found:
    """The mean of the last generation."""
    net, generator = task.network().to(task.dtype), task.generator()
    evolution = Evolution(net, sigma=0.1, seed=task.config.seed, keep="mean")
    with torch.no_grad():
        for step in range(generations):
            batch = task.place(task.batch(generator, step))
            evolution.step(lambda net, batch=batch: float(task.cost(net, batch).value))
        evolution.write_()
        return task.evaluate(net, "held_out")


def main(argv: list[str] | None = None) -> int:
    config = tyro.cli(Config, args=argv)
    try:
        check_ranges(config)
        torch.set_num_threads(1)
        task = {
            "yin_yang": lambda: YinYangByAnyRule(YinYangTask(seed=config.seed)),
            "delayed_xor": lambda: XorByAnyRule(XorTask(seed=config.seed)),
            "patterns": lambda: PatternsByAnyRule(PatternsTask(seed=config.seed)),
        }[config.task]()
        started = time.perf_counter()
        if config.way == "evolution":
            found = evolved(task, config.generations)
        elif isinstance(task, YinYangByAnyRule):
            found = yin_yang_converted(task) if config.way == "converted" else yin_yang_reservoir(task)
        elif isinstance(task, XorByAnyRule) and config.way == "reservoir":
            found = xor_reservoir(task)
        else:
            raise adjsnn.ConfigurationError(
                f"--way {config.way} of {config.task}", "yin_yang, or a reservoir of delayed_xor", "--way evolution"
            )
    except adjsnn.AdjsnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    numbers = {**found, "seconds": time.perf_counter() - started, "peak_mb": peak_mb(task.device)}
    text = json.dumps({"task": config.task, "way": config.way, "seed": config.seed, "numbers": numbers}, indent=1)
    print(text)
    if config.into is not None:
        config.into.parent.mkdir(parents=True, exist_ok=True)
        config.into.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
