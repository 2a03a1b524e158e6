"""Credit assignment: one task, trained by the exact gradient or by any learning rule of the field.

    python experiments/credit_assignment.py                                           Yin-Yang by the exact gradient
    python experiments/credit_assignment.py --adjoint surrogate --angles surrogate    by surrogate gradients, and their angle
    python experiments/credit_assignment.py --task delayed_xor --adjoint eprop
    python experiments/credit_assignment.py --task patterns --adjoint superspike
    python -m adjsnn.training sweep experiments/credit_assignment.py --grid adjoint=event,surrogate,feedback_alignment

Network, cost, batches and optimiser are the same whatever the rule, so that what differs is the gradient alone. A rule on a
clock is also judged in continuous time, by the event-exact network of the weights it has found: "accuracy without a clock".
`experiments/compare_rules.py` runs all of it and writes the page.
"""

import copy
import sys
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from delayed_xor import LIF, LIFXor
from spike_patterns import Many, Neurons, Pattern, SpikePatterns
from torch.nn.functional import cross_entropy
from xor_trials import Trials, draw_trials
from yin_yang import Config as YinYangConfig
from yin_yang import Points, YinYang

import adjsnn
from adjsnn.rules import EscapeNoise, FastSigmoid, LocalErrors, score_function
from adjsnn.training import Column, Cost, Split, main
from adjsnn.training.ranges import Count, NotNegative, Positive
from adjsnn.training.rules import BY_NAME, Adjoint


@dataclass(frozen=True)
class YinYangTask(YinYangConfig):
    """Yin-Yang, told and answered by first spikes. Times in ms."""

    task: Literal["yin_yang"] = "yin_yang"
    adjoint: Literal[Adjoint, "local_errors"] = "default"  # pyright: ignore[reportIncompatibleVariableOverride]
    """as of other experiments; local_errors: hidden neurons learn from a random readout of their own layer"""
    hidden: Count = 120
    iterations: Count = 1872
    clock: Positive = 0.25
    slope: Positive = 20.0
    log_every: Count = 312
    tau0: Positive = 1.0
    """of the loss, not much below the clock"""


@dataclass(frozen=True)
class XorTask(LIF):
    """Delayed-memory XOR with short delays, 40 recurrent LIF neurons, half of them with slow synapses. Times in ms."""

    task: Literal["delayed_xor"] = "delayed_xor"
    neurons: Count = 40
    delay: tuple[NotNegative, NotNegative] = (0.0, 30.0)
    gap: tuple[NotNegative, NotNegative] = (10.0, 30.0)
    validation_trials: Count = 250
    held_out_trials: Count = 1000
    iterations: Count = 600
    log_every: Count = 60
    save_every: Count = 100
    clock: Positive = 1.0
    slope: Positive = 5.0


@dataclass(frozen=True)
class PatternsTask(Many):
    """Spike patterns: 100 frozen inputs, 60 hidden neurons, 20 trains of 5 spikes each. Times in ms."""

    task: Literal["patterns"] = "patterns"  # pyright: ignore[reportIncompatibleVariableOverride]
    adjoint: Literal[Adjoint, "escape_noise"] = "default"  # pyright: ignore[reportIncompatibleVariableOverride]
    """as of other experiments; escape_noise: the likelihood of the trains, in a network whose spikes are drawn"""
    draws: Count = 8
    """of escape_noise, in each step"""
    escape_rate: Positive = 0.1
    """of escape_noise at the threshold, 1/ms"""
    escape_width: Positive = 0.2
    """of escape_noise, in thresholds"""
    inputs: Count = 100
    hidden: Neurons = 60
    outputs: Count = 20
    iterations: Count = 400
    clock: Positive = 0.5
    log_every: Count = 40


class ByAnyRule:
    """What all tasks share: one folder of runs."""

    config: Any

    @classmethod
    def name(cls) -> str:
        return "credit_assignment"

    @property
    def title(self) -> str:
        return f"Credit assignment, {self.config.task.replace('_', ' ')}"


class InContinuousTime(ByAnyRule):
    """What is learnt on a clock is judged without one too."""

    def evaluate(self, net: Any, split: Split) -> dict[str, float]:
        found = super().evaluate(net, split)  # type: ignore[misc]
        if not self.clock():  # type: ignore[attr-defined]
            return {**found, "accuracy_exact": found["accuracy"]}
        exact = copy.copy(self)
        exact.config = replace(self.config, adjoint="default")
        return {**found, "accuracy_exact": exact.evaluate(net, split)["accuracy"]}


EXACT = {"accuracy_exact": Column("accuracy without a clock", ".4f")}


class YinYangByAnyRule(InContinuousTime, YinYang):
    config_type = YinYangTask
    columns = {**YinYang.columns, **EXACT}
    adjoints = {**BY_NAME, "local_errors": lambda slope, seed: LocalErrors(FastSigmoid(slope), classes=3, seed=seed)}

    def cost(self, net: Any, batch: Points) -> Cost:
        """By local errors the task's cost reaches the output alone; hidden neurons have that of their layer's readout."""
        cost = super().cost(net, batch)
        if self.config.adjoint != "local_errors":
            return cost
        return Cost(cost.value + cross_entropy(cost.sol.local_readout(0).sum(0), batch.labels), cost.sol)


class XorByAnyRule(InContinuousTime, LIFXor):
    config_type = XorTask
    columns = {**LIFXor.columns, **EXACT}

    def batch_of(self, count: int) -> Trials:
        """Trials of all delays, for training."""
        return draw_trials(self.config, count, self.generator())


class PatternsByAnyRule(ByAnyRule, SpikePatterns[PatternsTask]):
    config_type = PatternsTask
    adjoints = {**BY_NAME, "escape_noise": lambda slope, seed: EscapeNoise()}

    def cost(self, net: Any, batch: Pattern) -> Cost:
        """By escape noise minus the log-likelihood of the target, of a spike; hidden spikes are drawn."""
        config = self.config
        if config.adjoint != "escape_noise":
            return super().cost(net, batch)
        copies = torch.zeros(config.draws, dtype=torch.long, device=self.device)
        rule = EscapeNoise(config.escape_rate, config.escape_width, target=batch.target.samples(copies))
        sol: Any = adjsnn.solve(net, batch.x.samples(copies), t_end=config.t_end, adjoint=rule, dt=config.clock)
        surprise = -sol.log_likelihood / (config.spikes * config.outputs)
        return Cost(score_function(surprise, sol), sol)

    def solve(self, net: Any, x: adjsnn.SpikeTrains) -> Any:
        """What escape noise has taught is judged without noise."""
        if self.config.adjoint == "escape_noise":
            return adjsnn.solve(net, x, t_end=self.config.t_end)
        return super().solve(net, x)

    def after_step(self, net: Any, batch: Pattern, cost: Cost, rate: float) -> None:
        """The likelihood knows of missing spikes: nothing is woken."""
        if self.config.adjoint != "escape_noise":
            super().after_step(net, batch, cost, rate)


KINDS = (YinYangByAnyRule, XorByAnyRule, PatternsByAnyRule)

if __name__ == "__main__":
    sys.exit(main(*KINDS))
