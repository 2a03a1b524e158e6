"""Delayed-memory XOR: do two pulses that came long ago have different signs? Answered when a go cue comes.

    python experiments/delayed_xor.py                                80 QIF neurons with gated synapses
    python experiments/delayed_xor.py --network lif                  60 LIF neurons that jump, half of them with slow synapses
    python experiments/delayed_xor.py --network lif --slow-share 0   none with slow synapses
    python experiments/delayed_xor.py --network lif --adaptation     120 LIF neurons, none with slow synapses; half adapt

Channel 1 carries two pulses of either sign with a variable delay between them, channel 2 a go cue some time later. After the
cue the readout makes a positive pulse if the signs differed, a negative one if they were equal, and stays at zero if only one
pulse came, which happens in 20 % of trials. Before the cue it stays at zero. The slots of both pulses and of the cue are drawn
before it is drawn whether a pulse is missing, so that no time in the trial tells the class.

Without slow synapses nothing remembers for longer than some tens of ms: the first pulse has to be kept in the activity of the
network.

Remedies for chaotic stretches of gated networks, outside the gradient: neurons start alike, driven and hardly coupled; where
gradients are steep, steps get shorter in proportion, or else the network is driven into chaos once it has learnt the task;
where it becomes chaotic all the same, it goes back to what it was some hundred steps before; a gradient larger than `outlier`
counts less the larger it is. With LIF neurons delays start short and get longer while most answers are right.
"""

import math
import sys
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from xor_trials import THRESHOLD, DelayedXor, TaskConfig, Trials, decide, draw_trials

import adjsnn
from adjsnn.training import Cost, main
from adjsnn.training.processes import mean_over_processes
from adjsnn.training.ranges import Count, NotNegative, Positive, Share


@dataclass(frozen=True)
class Gated(TaskConfig):
    """Delayed-memory XOR with gated synapses and quadratic integrate-and-fire neurons. Times in ms."""

    network: Literal["gated"] = "gated"
    tau_v: Positive = 25.0
    tau_fast: Positive = 5.0
    tau_slow: Positive = 20.0
    gate_width: Positive = 0.3
    dt: Positive = 0.5
    lead: NotNegative = 10.0
    delay: tuple[NotNegative, NotNegative] = (0.0, 100.0)
    gap: tuple[NotNegative, NotNegative] = (5.0, 30.0)
    rest: NotNegative = 10.0
    iterations: Count = 3000
    batch: Count = 64
    log_every: Count = 100
    save_every: Count = 100
    learning_rate: Positive = 0.0005
    """for w_rec and bias, 1/ms"""
    in_rate: Positive = 3.0
    """learning rate of w_in over that"""
    out_rate: Positive = 6.0
    """learning rate of w_out over that"""
    outlier: NotNegative = 30.0
    """norm beyond which a gradient is cut further than to `clip`, to clip · outlier / norm; 0: never"""
    steep: NotNegative = 8.0
    retreat: NotNegative = 30.0
    rest_weight: NotNegative = 0.5
    """weight of the readout's mean square outside the answer, beside that of its error in the answer"""
    ceiling: Positive = 150.0
    """spikes/s; a neuron that releases charge faster costs the square of its relative excess"""
    bias_start: float = 0.1
    """mean of the bias, 1/ms: neurons that fire about 125 spikes/s without input"""
    bias_spread: NotNegative = 0.002
    """standard deviations of the random start, those of w_rec and w_out times √neurons"""
    w_in_start: NotNegative = 0.05
    w_rec_start: NotNegative = 0.02
    w_out_start: NotNegative = 1.0


@dataclass(frozen=True)
class LIF(TaskConfig):
    """Delayed-memory XOR with LIF neurons that jump. Times in ms."""

    network: Literal["lif"] = "lif"
    neurons: Count = 60
    tau_mem: Positive = 20.0
    tau_out: Positive = 20.0
    tau_syn: Positive = 20.0
    tau_slow: Positive = 150.0
    """of slow synapses"""
    slow_share: Share | None = None
    """share of the neurons whose synapses are slow; 0: none; default: half of them, none with --adaptation"""
    adaptation: bool = False
    """spikes hold their own neuron back, by a current or a higher threshold that lasts for some hundred ms; settings that are
    not given take those of ADAPTIVE then"""
    tau_adapt: tuple[Positive, Positive] = (300.0, 300.0)
    """shortest and longest time constant of that, spread evenly in logarithm over the neurons; alike they are solved faster"""
    adaptive_share: Share = 0.5
    """share of the neurons that adapt"""
    jump_adapt: float = 0.0
    """what a spike adds to the current; 0: no such current"""
    jump_th: NotNegative = 0.05
    """what a spike adds to the threshold; 0: one that stays"""
    learn_adaptation: bool = False
    """learn these jumps and time constants too; thresholds are not lowered by spikes"""
    dt: Positive = 2.0
    """step of the input; spikes are located inside"""
    learning_rate: Positive = 0.01
    """in units of the standard deviations of the random start"""
    sharpness: Positive = 10.0
    """of the softmax over classes, one over the readout"""
    error_weight: NotNegative = 1.0
    """weight of the readout's square error, integrated over the trial and divided by the length of the answer"""
    activity_cost: NotNegative = 0.1
    """weight of the mean over neurons of (rate / 60)²"""
    mastered: Share = 0.85
    """share of right answers in training (a running mean) from which delays and gaps get longer, from the shortest on"""
    slipped: Share = 0.0
    """share of right answers below which they get shorter again"""
    longer: NotNegative = 0.02
    """by how much of their range in each step"""
    activity_tau: Positive = 50.0
    """filter of the rate that the price of activity is on"""
    bias_start: float = 1.0
    bias_spread: Positive = 0.3
    """mean and standard deviation of the bias: about half of the neurons fire without input"""
    w_in_start: Positive = 1.5
    w_out_start: Positive = 0.3
    charge_start: Positive = 20.0
    """standard deviation of ∫ i dt of a recurrent spike, times √neurons"""
    slow_charge: Positive = 2.0
    """the same of slow synapses, over that of fast ones"""

    def settled(self) -> Self:
        return replace(self, **ADAPTIVE) if self.adaptation else self


ADAPTIVE: dict[str, Any] = {
    "neurons": 120,
    "iterations": 1000,
    "averaging": 0.95,
    "learning_rate": 0.006,
    "mastered": 0.9,
    "slipped": 0.8,
    "longer": 0.01,
    "activity_cost": 0.03,
    "bias_start": 1.3,
    "w_in_start": 3.0,
    "charge_start": 30.0,
    "steep": 0.6,
}
"""Other defaults with adaptation, which holds a network back: it is larger and starts stronger, and its delays get
longer more slowly. Before (80 neurons, 800 steps, commit 51bbbaf) the accuracies of five seeds were 0.64 to 0.97."""


SHORTEST = 1.0  # ms, of learnt time constants


class GatedXor(DelayedXor[Gated]):
    config_type = Gated

    def network(self) -> adjsnn.GatedSynapseNetwork:
        """Random start: neurons that all fire fast by themselves, nearly in step, and are hardly coupled.

        A pulse then shifts a neuron's phase for good, a memory to start learning from, and gradients stay small. Strong random
        coupling, or a bias near the onset of firing, makes single samples exponentially sensitive: a QIF neuron that an
        inhibitory current of -I holds near its unstable point leaves it at the rate 4π√(I/τ_v).
        """
        config, generator = self.config, self.generator()
        net = adjsnn.GatedSynapseNetwork(
            2,
            config.neurons,
            1,
            neuron=adjsnn.QIF(tau_v=config.tau_v),
            gate=adjsnn.RaisedCosineGate(config.gate_width),
            tau_fast=config.tau_fast,
            tau_slow=config.tau_slow,
        )
        starts = {
            "w_in": config.w_in_start,
            "w_rec": config.w_rec_start / config.neurons**0.5,
            "w_out": config.w_out_start / config.neurons**0.5,
            "bias": config.bias_spread,
        }
        with torch.no_grad():
            for name, deviation in starts.items():
                parameter = net.get_parameter(name)
                parameter.copy_(deviation * torch.randn(parameter.shape, generator=generator))
            net.bias.add_(config.bias_start)
        return net

    def optimiser(self, net: adjsnn.GatedSynapseNetwork) -> torch.optim.Optimizer:
        config = self.config
        rates = {(net.w_rec, net.bias): 1.0, (net.w_in,): config.in_rate, (net.w_out,): config.out_rate}
        groups = [{"params": list(group), "lr": config.learning_rate * factor} for group, factor in rates.items()]
        return torch.optim.Adam(groups, betas=(0.9, 0.99))

    def schedule(self, progress: float) -> float:
        """A half cosine down to 1 %, less where gradients are steep."""
        return self.shortened_step() * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * progress)))

    def limit_gradient(self, net: adjsnn.GatedSynapseNetwork) -> float:
        """To the norm `clip`; one of a norm beyond `outlier` to less, the less the larger it was."""
        norm = super().limit_gradient(net)
        if 0.0 < self.config.outlier < norm < math.inf:
            for parameter in net.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.config.outlier / norm)
        return norm

    def solve(self, net: adjsnn.GatedSynapseNetwork, trials: Trials) -> Any:
        """By Euler steps, or for the continuous adjoint by RK4 steps of the same length in the charge form."""
        if self.in_charge_form:
            return adjsnn.solve(adjsnn.ChargeForm(net), trials.u, dt=self.config.dt, method="rk4", adjoint=self.adjoint())
        return adjsnn.solve(net, trials.u, dt=self.config.dt, adjoint=self.adjoint())

    def means(self, sol: Any, trials: Trials) -> Tensor:
        inside = trials.window.to(sol.readout.dtype)
        return ((sol.readout * inside).sum(0) / inside.sum(0)).squeeze(1)

    def each(self, sol: Any, trials: Trials) -> Tensor:
        """Mean square error in the answer window, and `rest_weight` times that outside, of each sample, (B,)."""
        error, inside = (sol.readout - trials.target).square(), trials.window.to(sol.readout.dtype)
        answer = (error * inside).sum(0) / inside.sum(0)
        outside = (error * (1.0 - inside)).sum(0) / (1.0 - inside).sum(0)
        return (answer + self.config.rest_weight * outside).squeeze(1)

    def price(self, sol: Any) -> Tensor | float:
        """Mean over neurons and trials of the square of the relative excess over the ceiling."""
        if self.in_charge_form:  # whose solution does not count charge
            return 0.0
        return torch.relu(adjsnn.losses.firing_rate(sol) / self.config.ceiling - 1.0).square().mean()


class LIFXor(DelayedXor[LIF]):
    """Costs are exact integrals of the readout: sums over its samples would have another gradient."""

    config_type = LIF

    def __init__(self, config: LIF) -> None:
        super().__init__(config)
        self.part, self.right = 0.0, 0.0  # of the range of delays, and running mean of right answers
        if config.adaptation and not (config.jump_adapt or config.jump_th):
            raise adjsnn.ConfigurationError("jump_adapt=0 and jump_th=0 with adaptation", "one of them", "--jump-th 0.05")
        if config.learn_adaptation and not config.adaptation:
            raise adjsnn.ConfigurationError("learn_adaptation without adaptation", "both", "--adaptation --learn-adaptation")
        if config.tau_adapt[0] > config.tau_adapt[1]:
            seen = f"tau_adapt={config.tau_adapt[0]:g} {config.tau_adapt[1]:g}"
            raise adjsnn.ConfigurationError(seen, "shortest ≤ longest", "--tau-adapt 150 600")

    def batch(self, generator: torch.Generator, step: int) -> Trials:
        """Delays and gaps from their shortest up to the part of their range that has been reached."""
        return draw_trials(self.shortened(), self.config.batch, generator)

    def shortened(self) -> TaskConfig:
        def cut(bounds: tuple[float, float]) -> tuple[float, float]:
            steps = round((bounds[0] + self.part * (bounds[1] - bounds[0])) / self.config.dt)
            return bounds[0], steps * self.config.dt

        return replace(self.config, delay=cut(self.config.delay), gap=cut(self.config.gap))

    def after_step(self, net: Any, batch: Trials, cost: Cost, rate: float) -> None:
        """Make delays and gaps longer while most answers are right, shorter again where they no longer are."""
        super().after_step(net, batch, cost, rate)
        right = decide(self.means(cost.sol, batch)) == batch.labels
        self.right = 0.9 * self.right + 0.1 * float(mean_over_processes(right.double().mean()))
        if self.right > self.config.mastered:
            self.part = min(1.0, self.part + self.config.longer)
        elif self.right < self.config.slipped:
            self.part = max(0.0, self.part - self.config.longer)
        if self.config.learn_adaptation:
            net.project_(tau_min=SHORTEST)
            with torch.no_grad():
                for jump in net.jump_th:
                    jump.clamp_(min=0.0)

    def state(self) -> dict[str, Any]:
        return super().state() | {"part": self.part, "right": self.right}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.part, self.right = state["part"], state["right"]

    def network(self) -> adjsnn.LIFNetwork:
        """Random start. Slow synapses come first, so that neighbours share their time constant and the loops exponentials.

        Recurrent weights start strong enough for the network to carry on by itself: from weaker ones nothing of the first pulse
        is left when the cue comes, and there is no gradient towards remembering it.
        """
        config, generator = self.config, self.generator()
        net = adjsnn.LIFNetwork(
            2,
            (config.neurons,),
            recurrent=True,
            tau_mem=config.tau_mem,
            tau_syn=torch.where(self.slow, config.tau_slow, config.tau_syn),
            bias=True,
            learn=("weights", "bias", *(self.adapting if config.learn_adaptation else ())),
            n_out=1,
            tau_out=config.tau_out,
            **self.adapting,
        )
        with torch.no_grad():
            for name, size in self.sizes(net).items():
                if name.removesuffix(".0") in self.adapting:
                    continue
                parameter = net.get_parameter(name)
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
            net.bias[0].add_(config.bias_start)
        return net

    @property
    def adapting(self) -> dict[str, Any]:
        """What spikes trigger in their own neuron, (1, N) each by the name of its parameter."""
        config = self.config
        if not config.adaptation:
            return {}
        low, high = (math.log(tau) for tau in config.tau_adapt)
        n = config.neurons
        drawn = torch.exp(low + (high - low) * torch.rand(n, generator=self.generator(4_000_000)))
        tau = drawn.clamp(*config.tau_adapt)  # but for rounding they lie there
        adapts = torch.arange(n) < round(config.adaptive_share * n)
        given = dict[str, Any]()
        for kind, jump in (("adapt", config.jump_adapt), ("th", config.jump_th)):
            if jump:
                given |= {f"tau_{kind}": tau[None], f"jump_{kind}": torch.where(adapts, jump, 0.0)[None]}
        return given

    @property
    def slow(self) -> Tensor:
        """Which neurons have slow synapses, (N,)."""
        config = self.config
        share = (0.0 if config.adaptation else 0.5) if config.slow_share is None else config.slow_share
        return torch.arange(config.neurons) < round(share * config.neurons)

    def sizes(self, net: adjsnn.LIFNetwork) -> dict[str, float | Tensor]:
        """Standard deviations of the random start; of what spikes trigger the means."""
        config = self.config
        charge = config.charge_start / config.neurons**0.5 * torch.where(self.slow, config.slow_charge, 1.0)
        rec = (charge / torch.where(self.slow, config.tau_slow, config.tau_syn))[:, None]
        return {
            "w_in.0": config.w_in_start,
            "w_out": config.w_out_start,
            "w_rec.0": rec.to(net.bias[0]),
            "bias.0": config.bias_spread,
            **{f"{name}.0": value.abs().mean().item() for name, value in self.adapting.items()},
        }

    def solve(self, net: adjsnn.LIFNetwork, trials: Trials) -> adjsnn.LIFSolution:
        u, dt, finer = trials.u, self.config.dt, self.finer()
        ts = torch.arange(len(u) + 1, device=u.device, dtype=u.dtype) * dt
        return adjsnn.solve(net, u.repeat_interleave(finer, 0), dt=dt / finer, ts=ts, adjoint=self.adjoint())

    def finer(self) -> int:
        """Steps of a clock in one of the input; 1 without a clock."""
        step = self.clock().get("dt", self.config.dt)
        finer = max(1, round(self.config.dt / step))
        if abs(finer * step - self.config.dt) > 1e-6 * self.config.dt:
            raise adjsnn.ConfigurationError(
                f"clock={step:g} with dt={self.config.dt:g}", "whole steps in one of the input", "--clock 0.5"
            )
        return finer

    def means(self, sol: adjsnn.LIFSolution, trials: Trials) -> Tensor:
        start = trials.starts[:, 2] + self.config.reaction
        return sol.readout_integral(start, start + self.config.answer)[:, 0] / self.config.answer

    def each(self, sol: adjsnn.LIFSolution, trials: Trials) -> Tensor:
        """Cost of each sample, (B,): cross-entropy of the mean answer, and the readout's error throughout.

        The scores m, -m and the threshold make the class decided on the likeliest. The error alone has a plateau where the
        readout is zero, which trainings do not leave for a thousand steps.
        """
        mean = self.means(sol, trials)
        scores = torch.stack([mean, -mean, torch.full_like(mean, THRESHOLD)], dim=1)
        wrong = cross_entropy(self.config.sharpness * scores, trials.labels, reduction="none")
        return wrong + self.config.error_weight * sol.readout_error(trials.target) / self.config.answer

    def price(self, sol: adjsnn.LIFSolution) -> Tensor | float:
        return self.config.activity_cost * (sol.squared_rate(self.config.activity_tau) / 60.0**2).mean()

    def schedule(self, progress: float) -> float:
        """Rising over the first twentieth, then a half cosine down to 5 %, less where gradients are steep."""
        rising = min(1.0, 20.0 * progress + 0.05)
        return self.shortened_step() * rising * (0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * progress)))


if __name__ == "__main__":
    sys.exit(main(GatedXor, LIFXor))
