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

from delayed_xor import LIF, LIFXor
from spike_patterns import Many, Neurons, SpikePatterns
from xor_trials import Trials, draw_trials
from yin_yang import Config as YinYangConfig
from yin_yang import YinYang

from adjsnn.training import Column, Split, main
from adjsnn.training.ranges import Count, NotNegative, Positive
from adjsnn.training.rules import Adjoint


@dataclass(frozen=True)
class YinYangTask(YinYangConfig):
    """Yin-Yang, told and answered by first spikes. Times in ms."""

    task: Literal["yin_yang"] = "yin_yang"
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
    adjoint: Adjoint = "default"
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


class XorByAnyRule(InContinuousTime, LIFXor):
    config_type = XorTask
    columns = {**LIFXor.columns, **EXACT}

    def batch_of(self, count: int) -> Trials:
        """Trials of all delays, for training."""
        return draw_trials(self.config, count, self.generator())


class PatternsByAnyRule(ByAnyRule, SpikePatterns[PatternsTask]):
    config_type = PatternsTask


if __name__ == "__main__":
    sys.exit(main(YinYangByAnyRule, XorByAnyRule, PatternsByAnyRule))
