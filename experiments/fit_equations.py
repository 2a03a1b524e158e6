"""Fit a neuron that is written as text to the spikes of a Hodgkin–Huxley neuron: `fit_neuron.py --task equations`.

Every constant of the text learns from the exact gradient of its spike times, in trials from rest under currents of their own.
The cost is the van Rossum distance per recorded spike. It moves spikes, and knows nothing of one that is missing, or of one too
many. So before any step, without a gradient, each constant of `--scan` becomes the best of some values around its own.

A text is "adex", "exponential_if" of `adjsnn.models`, "adex_refractory", which is AdEx held for a while after a spike, or a
file in TOML with what `adjsnn.Equations` takes of text: `text`, `threshold`, `reset`, tables `parameters` and `initial`,
`inputs`, one, and `learn`. Without a refractory time AdEx fires a second spike after most strong ones, and Γ stays near 0.64.
"""

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from hodgkin_huxley import NEURONS, random_current, record
from torch import Tensor

import adjsnn
from adjsnn import models, plotting
from adjsnn.coincidence import coincidence_factor
from adjsnn.losses import van_rossum
from adjsnn.plotting import Figure
from adjsnn.training import Column, Cost, Experiment, Split, TrainingConfig, main
from adjsnn.training.ranges import Count, NotNegative, Positive, Range

# Starts in µA/cm², mS/cm² and mV, of neurons whose leak and threshold are about those of a cortical cell.
ADEX = {"c_m": 1.0, "g_l": 0.1, "e_l": -67.0, "v_t": -55.0, "delta_t": 2.0, "a": 0.01, "tau_w": 100.0, "b": 0.2, "v_r": -67.0}
STARTS: dict[str, dict[str, float]] = {
    "adex": ADEX,
    "adex_refractory": {**ADEX, "refractory": 3.0},
    "exponential_if": {
        "c_m": 1.0, "g_l": 0.1, "e_l": -67.0, "v_t": -55.0, "delta_t": 2.0, "v_r": -67.0, "refractory": 3.0,
    },
}  # fmt: skip
REFRACTORY: dict[str, Any] = {
    "text": """
        dv/dt = (1 - held)*(-g_l*(v - e_l) + g_l*delta_t*exp((v - v_t)/delta_t) - w + I)/c_m
        dw/dt = (a*(v - e_l) - w)/tau_w
        dheld/dt = 0  # 1 while refractory
        dclock/dt = held  # ms since the spike
    """,
    "threshold": {"spike": "v > v_t + 10*delta_t", "release": "clock > refractory"},
    "reset": {"spike": "v = v_r; w += b; held = 1; clock = 0", "release": "held = 0; clock = 0"},
    "initial": {"v": "e_l", "w": 0.0, "held": 0.0, "clock": 0.0},
    "inputs": ("I",),
}
SCANS = {
    "adex": ("v_t", "b", "v_r", "v_t"),
    "adex_refractory": ("v_t", "b", "v_r", "v_t"),
    "exponential_if": ("v_t", "v_r", "refractory", "v_t"),
}
SHARES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0, 2.8, 4.0)  # of a constant, where it is scanned
SHIFTS = (-10.0, -7.0, -4.0, -2.0, 0.0, 2.0, 4.0, 7.0, 10.0)  # mV, of a voltage
VOLTAGES = ("e_", "v_")  # what names of voltages begin with
KEPT = 0.1  # of the size that a constant has at the start, it keeps at least, and its sign


@dataclass(frozen=True)
class EquationsFit(TrainingConfig):
    """Fit equations to a Hodgkin–Huxley neuron. Times in ms, currents in µA/cm²."""

    task: Literal["equations"] = "equations"
    model: str = "adex_refractory"
    """adex, adex_refractory, exponential_if, or a .toml file"""
    scan: tuple[str, ...] | None = None
    """constants that are scanned before the first step, one after the other; none where a file is the model"""
    neuron: Literal["adapting", "traub_miles", "squid"] = "adapting"
    mean: float = 1.0
    """of the current"""
    sd: NotNegative = 3.0
    tau_current: Positive = 3.0
    """correlation time of the current"""
    dt: Positive = 0.2
    """step of the current"""
    duration: Positive = 500.0
    """of a trial"""
    trials: Count = 20
    """to fit, and of each of two other sets to judge by"""
    tau: Positive = 5.0
    """of the distance"""
    rtol: Annotated[float, Range(0.0, above=True)] = 1e-5
    delta: Positive = 2.0
    """spikes that are no further apart coincide"""
    iterations: Count = 150
    batch: Count = 10
    """trials of a step"""
    learning_rate: Positive = 0.02
    """in units of each constant's size at the start, 10 mV of voltages; falls by a half cosine"""
    log_every: Count = 10
    dtype: Literal["float32", "float64"] = "float64"


class Trials(NamedTuple):
    """Currents (T, B, 1) and spikes."""

    u: Tensor
    spikes: adjsnn.SpikeTrains


def equations(model: str) -> adjsnn.Equations:
    """A neuron by its name or file, every constant learnt, or those that the file says."""
    if model == "adex_refractory":
        return adjsnn.Equations(**REFRACTORY, parameters=STARTS[model], learn=tuple(STARTS[model]), dtype=torch.float64)
    if model in STARTS:
        return getattr(models, model)(learn=tuple(STARTS[model]), dtype=torch.float64, **STARTS[model])
    path = Path(model)
    if path.suffix != ".toml" or not path.is_file():
        raise adjsnn.ConfigurationError(f"model={model}", f"one of {', '.join(STARTS)}, or a .toml file that is there", "adex")
    given = tomllib.loads(path.read_text())
    known = {"text", "threshold", "reset", "parameters", "initial", "inputs", "learn"}
    if "text" not in given or given.keys() - known:
        raise adjsnn.ConfigurationError(f"{path} with {sorted(given)}", f"text, and of {sorted(known)}", 'text = "dv/dt = ..."')
    learn = given.pop("learn", list(given.get("parameters", {})))
    return adjsnn.Equations(given.pop("text"), learn=learn, dtype=torch.float64, **given)


class FitEquations(Experiment[EquationsFit]):
    config_type = EquationsFit
    captions = {"held_out": "Spikes of the neuron, black, and of its fit, blue, in held-out trials."}
    columns = {
        "gamma": Column("Γ", ".3f"),
        "cost": Column("cost", ".3f"),
        "spikes_per_s": Column("spikes/s", ".1f"),
        "recorded_per_s": Column("recorded", ".1f"),
    }

    def __init__(self, config: EquationsFit) -> None:
        super().__init__(config)
        offsets = {"train": 0, "validation": 1_000_000, "held_out": 2_000_000}
        self.sets: dict[str, Trials] = {name: self.place(self.recorded(offset)) for name, offset in offsets.items()}

    @classmethod
    def name(cls) -> str:
        return "fit_neuron"

    def recorded(self, offset: int) -> Trials:
        """Trials with currents from a seed of their own."""
        config, generator = self.config, self.generator(offset)
        steps = max(1, round(config.duration / config.dt))
        noise = config.mean, config.sd, config.tau_current
        u = [random_current(steps, config.dt, *noise, generator) for _ in range(config.trials)]
        events = [[(float(t), 0) for t in record(NEURONS[config.neuron], x.numpy(), config.dt)[1]] for x in u]
        trains = adjsnn.SpikeTrains.from_list(events, n_neurons=1, t_max=steps * config.dt, dtype=torch.float64)
        if not len(trains):
            raise adjsnn.ConfigurationError(f"mean={config.mean:g}, sd={config.sd:g}: no spike", "spikes to fit", "--mean 2")
        return Trials(torch.stack(u, 1).unsqueeze(-1), trains)

    def network(self) -> adjsnn.Equations:
        """The text, the scanned constants at values of a low cost."""
        net, config = equations(self.config.model), self.config
        learnt = dict(net.named_parameters())
        for name in SCANS.get(config.model, ()) if config.scan is None else config.scan:
            if name not in learnt:
                seen = f"scan={name} of {config.model}"
                raise adjsnn.ConfigurationError(seen, f"of {', '.join(learnt)}", f"--scan {next(iter(learnt))}")
            self.scanned(net, learnt[name], voltage=name.startswith(VOLTAGES))
        return net

    @torch.no_grad()
    def scanned(self, net: adjsnn.Equations, constant: Tensor, *, voltage: bool) -> None:
        """Give a constant the value of the lowest cost in all trials to fit."""
        start, train = constant.clone(), self.sets["train"]
        tried = [start + shift for shift in SHIFTS] if voltage else [start * share for share in SHARES]
        costs = []
        for value in tried:
            constant.copy_(value)
            costs.append(float(self.distance(self.solve(net.to(train.u), train)[1], train.spikes)))
        constant.copy_(tried[costs.index(min(costs))])

    def sizes(self, net: adjsnn.Equations) -> dict[str, float | Tensor]:
        return {
            name: 10.0 if name.startswith(VOLTAGES) else float(p.detach().abs()) or 1.0
            for name, p in equations(self.config.model).named_parameters()
        }

    def solve(self, net: adjsnn.Equations, trials: Trials) -> tuple[Any, adjsnn.SpikeTrains]:
        """The solution, and its spikes: the first of the events."""
        config = self.config
        sol = adjsnn.solve(
            net, trials.u, dt=config.dt, method="dopri5", rtol=config.rtol, atol=config.rtol, max_steps=1_000_000,
            adjoint=self.adjoint(),
        )  # fmt: skip
        sample, column = (sol.event_index == 0).nonzero(as_tuple=True)
        columns = sample, torch.zeros_like(sample), sol.event_times[sample, column], torch.ones_like(sample)
        batch, end = trials.u.shape[1], config.dt * len(trials.u)
        return sol, adjsnn.SpikeTrains.from_events(*columns, batch=batch, n_neurons=1, t_max=end)

    def distance(self, spikes: adjsnn.SpikeTrains, target: adjsnn.SpikeTrains) -> Tensor:
        """The van Rossum distance per recorded spike."""
        return van_rossum(spikes, target, self.config.tau).sum() / max(len(target), 1)

    def batch(self, generator: torch.Generator, step: int) -> Tensor:
        return torch.randperm(self.config.trials, generator=generator)[: self.config.batch]

    def cost(self, net: adjsnn.Equations, batch: Tensor) -> Cost:
        train = self.sets["train"]
        some = Trials(train.u[:, batch], train.spikes[batch])
        sol, spikes = self.solve(net, some)
        return Cost(self.distance(spikes, some.spikes), sol)

    @torch.no_grad()
    def after_step(self, net: adjsnn.Equations, batch: Tensor, cost: Cost, rate: float) -> None:
        """Constants keep their sign, and a part of their size."""
        for name, start in equations(self.config.model).to(self.sets["train"].u).named_parameters():
            p, least = getattr(net, name), KEPT * start.abs()
            p.copy_(torch.where(start > 0.0, torch.maximum(p, least), torch.where(start < 0.0, torch.minimum(p, -least), p)))

    def objective(self, found: dict[str, float]) -> float:
        return 1.0 - found["gamma"]

    @torch.no_grad()
    def evaluate(self, net: adjsnn.Equations, split: Split) -> dict[str, float]:
        """Γ, the mean of the trials, and the cost."""
        config, trials = self.config, self.sets[split]
        _, spikes = self.solve(net, trials)
        seconds = 0.001 * config.duration * config.trials
        return {
            "gamma": self.gamma(spikes, trials.spikes),
            "cost": float(self.distance(spikes, trials.spikes)),
            "spikes_per_s": len(spikes) / seconds,
            "recorded_per_s": len(trials.spikes) / seconds,
        }

    def gamma(self, spikes: adjsnn.SpikeTrains, target: adjsnn.SpikeTrains) -> float:
        """The mean Γ of trials, 0 of those with so many spikes that it has no meaning."""
        some = (2.0 * self.config.delta * spikes.counts()[:, 0] < spikes.t_max).nonzero()[:, 0]
        if not len(some):
            return 0.0
        found = coincidence_factor(spikes[some], target[some], self.config.delta)
        return float(found.nansum() / (spikes.batch - found.isnan().sum()).clamp(min=1))

    @torch.no_grad()
    def figures(self, net: adjsnn.Equations) -> dict[str, Figure]:
        trials = self.sets["held_out"]
        _, spikes = self.solve(net, trials)
        figure = plotting.new_figure(7.0, 0.6 + 0.25 * self.config.trials)
        axes = figure.subplots()
        axes.set_yticks(range(0, self.config.trials, 5))
        for b in range(self.config.trials):
            for trains, low, colour in ((trials.spikes, 0.0, plotting.INK), (spikes, 0.4, plotting.COLOURS[0])):
                times = trains.time[b][trains.idx[b] >= 0].cpu()
                axes.vlines(times, b + low - 0.4, b + low, color=colour, lw=1.0)
        gamma = self.gamma(spikes, trials.spikes)
        axes.set(xlabel="time (ms)", ylabel="trial", title=f"held out, Γ = {gamma:.3f} at ±{self.config.delta:g} ms")
        return {"held_out": figure}


if __name__ == "__main__":
    sys.exit(main(FitEquations))
