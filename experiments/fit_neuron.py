"""Fit a generalised LIF neuron to the spikes of another neuron under the same current, by the exact gradient.

    python experiments/fit_neuron.py                              a cortical cell's Hodgkin–Huxley model, driven by noise
    python experiments/fit_neuron.py --neuron squid --mean 5 --sd 5                  the squid axon's
    python experiments/fit_neuron.py --level lif                  without adaptation and without a moving threshold
    python experiments/fit_neuron.py --cost matched               by squared differences of matched spike times
    python experiments/fit_neuron.py --optimiser cma              the same parameters and cost by CMA-ES, without a gradient
    python experiments/fit_neuron.py --task file --current current.csv --dt 0.1 --spikes spikes.csv        your recording
    python experiments/fit_neuron.py --task file --current sweep.nwb --dt 0.2   stimulus and spike times of an NWB file, in pA
    python experiments/fit_neuron.py --task equations --model adex         a neuron written as text, in fit_equations.py

What learns, of one neuron with threshold 1, (6.1) and (6.2): the weight of the current, b, τ_m, reset and refractory time; by
`--level` also size and τ of currents that its spikes trigger, of what they add to the threshold, or of both; and how much later
than the threshold is crossed a spike is recorded. It is judged by the coincidence factor Γ, `adjsnn.coincidence_factor`, on a
current that no fit has seen, through which it runs by itself.

The cost is the van Rossum distance of model and recording in pieces of the recording, each from the state that the recorded
spikes before it imply. Its gradient by EventAdjoint is exact, that state included. It moves spikes, and knows nothing of one
that is missing; one too many can only be moved.

Remedy, outside that gradient: the first `likelihood` steps have another cost, minus the log-likelihood of the recorded spikes.
v, own currents and threshold are those of the same neuron if it spiked when the recorded one did, no more and no less, which is
a closed form, and it spikes at a rate of e^{(v - θ)/softness} per ms (Paninski 2004; Mensi et al. 2012). So v is drawn to the
threshold where a spike is recorded, and kept below it elsewhere. The gradient is exact for that cost, a sum over a grid.
`--likelihood 0` leaves it out.
"""

import math
import sys
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from fit_equations import FitEquations
from forced_spikes import (
    DelayedNeuron,
    Part,
    Pieces,
    Recording,
    crossings,
    filtered,
    forced,
    log_likelihood,
    spikes_within,
)
from hodgkin_huxley import NEURONS, random_current, record
from nwb_sweep import read_sweep
from torch import Tensor

import adjsnn
from adjsnn import plotting
from adjsnn.coincidence import coincidence_factor, matched
from adjsnn.losses import van_rossum
from adjsnn.plotting import Figure
from adjsnn.rules import Evolution
from adjsnn.signals import read_columns
from adjsnn.training import Column, Cost, Experiment, Metrics, Split, TrainingConfig, main
from adjsnn.training.ranges import Count, NotNegative, Positive, Range

LEVELS = {"lif": (), "adaptation": ("adapt",), "threshold": ("th",), "both": ("adapt", "th")}
FAILED = 1e3  # cost of a network that cannot be solved, for CMA-ES
WARM = 20  # steps
BELOW = 1e-3  # how far below the threshold a piece begins at least


@dataclass(frozen=True)
class Fit(TrainingConfig):
    """Fit a generalised LIF neuron. Times in ms."""

    network: Literal["lif"] = "lif"
    dt: Positive = 0.2
    """step of the current"""
    level: Literal["lif", "adaptation", "threshold", "both"] = "both"
    """what spikes leave behind: nothing, currents, parts of the threshold, or both"""
    tau_adapt: tuple[float, ...] = (20.0, 150.0)
    """where time constants of spike-triggered currents start"""
    tau_th: tuple[float, ...] = (10.0, 100.0)
    """where those of the threshold start"""
    cost: Literal["van_rossum", "matched"] = "van_rossum"
    """distance, or squared differences of the times of matched spikes"""
    tau: Positive = 5.0
    """of the distance; and how far apart matched spikes may be"""
    likelihood: Annotated[int, Range(0)] = 75
    """steps by the likelihood of the recorded spikes, before those by the exact gradient of spike times"""
    softness: Positive = 0.1
    """of the threshold there; it sets the unit of v"""
    optimiser: Literal["adam", "cma"] = "adam"
    derivative_free_cost: Literal["distance", "gamma"] = "distance"
    """what CMA-ES minimises: the same distance, or 1 - Γ, on the recording to fit"""
    sigma: Positive = 0.3
    """of CMA-ES at its start, in units of each parameter"""
    piece: Positive = 1000.0
    """length of the pieces"""
    delta: Positive = 2.0
    """spikes that are no further apart coincide"""
    reach: float = 0.8
    """Γ on validation whose time is told"""
    iterations: Count = 225
    """of CMA-ES: generations"""
    batch: Count = 20
    """pieces of a step"""
    learning_rate: Positive = 0.02
    """in units of each parameter's size at the start; falls by a half cosine"""
    first_rate: Positive = 2.5
    """learning rate of the steps by the likelihood, over that; it falls likewise before the others begin"""
    clip: NotNegative = 10.0
    log_every: Count = 5
    save_every: Count = 500
    dtype: Literal["float32", "float64"] = "float64"


@dataclass(frozen=True)
class HodgkinHuxleyFit(Fit):
    """Fit a generalised LIF neuron to a Hodgkin–Huxley neuron. Times in ms, currents in µA/cm²."""

    task: Literal["hodgkin_huxley"] = "hodgkin_huxley"
    neuron: Literal["adapting", "traub_miles", "squid"] = "adapting"
    mean: float = 1.0
    """of the current"""
    sd: NotNegative = 3.0
    tau_current: Positive = 3.0
    """correlation time of the current"""
    duration: Positive = 20_000.0
    """of the recording to fit, and of each of two others to judge by"""


@dataclass(frozen=True)
class FileFit(Fit):
    """Fit a generalised LIF neuron to a recording in files. Times in ms, currents in the file's unit."""

    task: Literal["file"] = "file"
    current: Path | None = None
    """the current, one number for each step of dt; .csv or .npy; or .nwb, which has the spikes too"""
    spikes: Path | None = None
    """spike times in ms from the beginning of the current; .csv or .npy"""
    stimulus: str | None = None
    """of a .nwb file: the series of its stimulus, where there are several"""
    unit: Annotated[int, Range(0)] = 0
    """of a .nwb file: the row of its Units whose spike times these are; none are detected in a voltage"""
    validation: Annotated[float, Range(0.0, 1.0, above=True, below=True)] = 0.2
    """share of the recording by which the network is chosen, before the last part"""
    held_out: Annotated[float, Range(0.0, 1.0, above=True, below=True)] = 0.2
    """share of the recording, its last part, by which it is judged"""


class Generations(torch.optim.Optimizer):
    """CMA-ES in the place of an optimiser: a step is a generation. Gradients are not looked at."""

    def __init__(self, evolution: Evolution, cost: Callable[[Any], Tensor | float]) -> None:
        super().__init__([p for p in evolution.net.parameters() if p.requires_grad], {"lr": 1.0})
        self.evolution, self.cost = evolution, cost

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One generation; the network then holds the best parameters so far."""
        self.evolution.step(self.cost)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "evolution": self.evolution.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.evolution.load_state_dict(state_dict["evolution"])
        super().load_state_dict({name: x for name, x in state_dict.items() if name != "evolution"})


@torch.no_grad()
def project(net: DelayedNeuron) -> None:
    """Parameters that a solve accepts; a threshold that spikes lowered could be below the reset."""
    net.project_(tau_min=0.5)
    net.delay.clamp_(min=0.0)
    for jump in net.jump_th:
        if jump is not None:
            jump.clamp_(min=0.0)


C = TypeVar("C", bound=Fit)


class FitNeuron(Experiment[C]):
    captions = {
        "held_out": "Spikes of the neuron and of its fit on held-out current.",
    }
    columns = {
        "gamma": Column("Γ", ".3f"),
        "missing": Column("spikes missing", ".1%"),
        "surplus": Column("surplus", ".1%"),
        "spikes_per_s": Column("spikes/s", ".1f"),
        "recorded_per_s": Column("recorded", ".1f"),
        "seconds_to_reach": Column("s to Γ ≥ --reach", ".1f"),
        "seconds": Column("training s", ".0f"),
    }

    def __init__(self, config: C) -> None:
        super().__init__(config)
        self.voltage: np.ndarray | None = None  # of the held-out recording, mV
        self.parts: dict[str, Part] = {name: self.place(part) for name, part in self.recorded().items()}
        for name, part in self.parts.items():
            if part.stop - part.start < self.steps or not len(spikes_within(part, config.dt)):
                raise adjsnn.ConfigurationError(
                    f"{name}: {(part.stop - part.start) * config.dt:g} ms with {len(spikes_within(part, config.dt))} spikes",
                    f"at least a piece of {config.piece:g} ms, and spikes in it",
                    "a longer recording, or --piece",
                )
        self.learnt: list[list[float]] = []

    @classmethod
    def name(cls) -> str:
        return "fit_neuron"

    @property
    def steps(self) -> int:
        """Steps of the current in a piece."""
        return max(1, round(self.config.piece / self.config.dt))

    @property
    def unit(self) -> str:
        """Of the current."""
        return "unit of the file"

    @abstractmethod
    def recorded(self) -> dict[str, Part]:
        """The parts "train", "validation" and "held_out"."""

    def network(self) -> DelayedNeuron:
        """One neuron, whose voltage without spikes would reach the threshold at its mean and a standard deviation."""
        config, triggered = self.config, {}
        for kind in LEVELS[config.level]:
            tau = {"adapt": config.tau_adapt, "th": config.tau_th}[kind]
            sign = {"adapt": -1.0, "th": 1.0}[kind]
            triggered |= {f"tau_{kind}": list(tau), f"jump_{kind}": [0.1 * sign] * len(tau)}
        own = ("weights", "bias", "tau_mem", "v_reset", "refractory")
        net = DelayedNeuron(tau_mem=10.0, refractory=2.0, bias=True, learn=(*own, *triggered), dtype=torch.float64, **triggered)
        part = self.parts["train"]
        x = filtered(part.recording.u[part.start : part.stop], torch.exp(-torch.tensor(config.dt / 10.0)))
        with torch.no_grad():
            net.w_in[0].fill_(1.0 / float(x.abs().mean() + x.std()))
        return net

    def sizes(self, net: DelayedNeuron) -> dict[str, float | Tensor]:
        sizes: dict[str, float | Tensor] = {"w_in.0": float(self.network().w_in[0].detach())}
        sizes |= {name: p.detach().clone() for name, p in self.network().named_parameters() if "tau" in name}
        return {**sizes, "refractory.0": 2.0}

    def optimiser(self, net: DelayedNeuron) -> torch.optim.Optimizer:
        config = self.config
        if config.optimiser == "adam":
            self.adam = super().optimiser(net)
            return self.adam
        return Generations(Evolution(net, config.sigma, seed=config.seed, project=project), self.rank)

    def schedule(self, progress: float) -> float:
        """A half cosine down to 1 % for each of the two costs; the second begins with small steps, as Adam's are all alike."""
        config = self.config
        done, first = round(progress * config.iterations), min(config.likelihood, config.iterations)
        if done < first:
            return config.first_rate * super().schedule(done / first)
        warm = min(1.0, (done - first + 1) / WARM) if first else 1.0
        return warm * super().schedule((done - first) / max(config.iterations - first, 1))

    def batch(self, generator: torch.Generator, step: int) -> Pieces:
        part, config = self.parts["train"], self.config
        first = part.start + self.steps * torch.arange((part.stop - part.start) // self.steps)
        if config.batch < len(first):
            first = first[torch.randperm(len(first), generator=generator)[: config.batch]]
        likelihood = config.optimiser == "adam" and step < config.likelihood
        return Pieces(first, torch.full(first.shape, likelihood))

    def solve(
        self, net: DelayedNeuron, recording: Recording, first: Tensor, steps: int, ts: Tensor | None = None
    ) -> tuple[Any, adjsnn.SpikeTrains]:
        """Solution of pieces from the states that recorded spikes imply, and the recorded spikes in them."""
        dt, due = self.config.dt, crossings(net, recording)
        u = recording.u[first[:, None] + torch.arange(steps, device=first.device)].T[..., None]
        start = dt * first.to(due.spikes)
        state = forced(net, due, dt, start)
        (y0,) = net.initial_state(len(first))
        y0 = y0._replace(
            v=torch.minimum(state.v, state.threshold - BELOW)[:, None]
        )  # it spiked there, but the recorded did not
        if isinstance(y0, adjsnn.AdaptiveState):
            y0 = y0._replace(a=state.a[..., None], h=state.h[..., None])
        since = due.spikes - start[:, None]
        sample, spike = ((since > 0.0) & (since <= steps * dt)).nonzero(as_tuple=True)
        columns = sample, torch.zeros_like(sample), since[sample, spike], torch.ones_like(sample)
        target = adjsnn.SpikeTrains.from_events(*columns, batch=len(first), n_neurons=1, t_max=steps * dt)
        return adjsnn.solve(net, u, dt=dt, ts=ts, y0=[y0], adjoint=self.adjoint()), target

    def distance(self, spikes: adjsnn.SpikeTrains, target: adjsnn.SpikeTrains) -> Tensor:
        """The cost of `--cost`, per recorded spike."""
        config, number = self.config, max(len(target), 1)
        if config.cost == "van_rossum":
            return van_rossum(spikes, target, config.tau).sum() / number
        total, alone = spikes.time.new_zeros(()), 0
        for b in range(target.batch):
            own, other = (x.time[b][x.idx[b] >= 0] for x in (spikes, target))
            k, m = matched(own.detach(), other, config.tau)
            total = total + ((own[k] - other[m]) / config.tau).square().sum()
            alone += len(own) + len(other) - 2 * len(k)
        return (total + 0.5 * alone) / number

    def cost(self, net: DelayedNeuron, batch: Pieces) -> Cost:
        config, train = self.config, self.parts["train"]
        if config.optimiser == "cma":  # which ranks networks by `rank`
            with torch.no_grad():
                sol, target = self.solve(net, train.recording, batch.first, self.steps)
                value = self.distance(sol.layer_spikes[0], target)
            return Cost(value + 0.0 * sum(p.sum() for p in net.parameters()), sol)
        if bool(batch.likelihood.all()):
            return Cost(-log_likelihood(net, train, config.dt, config.softness), None)
        sol, target = self.solve(net, train.recording, batch.first, self.steps)
        return Cost(self.distance(sol.layer_spikes[0], target), sol)

    def rank(self, net: DelayedNeuron) -> float:
        """What CMA-ES goes by, on the recording to fit."""
        try:
            if self.config.derivative_free_cost == "gamma":
                sol, target = self.whole(net, "train")
                return 1.0 - float(coincidence_factor(sol.layer_spikes[0], target, self.config.delta))
            first = self.place(self.batch(self.generator(), 0)).first
            sol, target = self.solve(net, self.parts["train"].recording, first, self.steps)
            return float(self.distance(sol.layer_spikes[0], target))
        except adjsnn.AdjsnnError:  # a runaway, or so many spikes that Γ has no meaning
            return FAILED

    def whole(self, net: DelayedNeuron, name: str, ts: Tensor | None = None) -> tuple[Any, adjsnn.SpikeTrains]:
        """A part from its beginning to its end."""
        part = self.parts[name]
        return self.solve(net, part.recording, torch.tensor([part.start], device=self.device), part.stop - part.start, ts)

    def after_step(self, net: DelayedNeuron, batch: Pieces, cost: Cost, rate: float) -> None:
        project(net)
        self.learnt.append([x for p in net.parameters() if p.requires_grad for x in p.flatten().tolist()])
        if len(self.learnt) == self.config.likelihood and self.config.optimiser == "adam":
            self.adam.state.clear()  # gradients of the other cost are smaller by far: their steps would be

    def state(self) -> dict[str, Any]:
        return {"learnt": self.learnt}

    def load_state(self, state: dict[str, Any]) -> None:
        self.learnt = state["learnt"]

    def objective(self, found: dict[str, float]) -> float:
        return 1.0 - found["gamma"]

    @torch.no_grad()
    def evaluate(self, net: DelayedNeuron, split: Split) -> dict[str, float]:
        """Γ and the cost of the neuron that runs by itself; shares of missing recorded spikes, and of its own too many."""
        config, part = self.config, self.parts[split]
        sol, target = self.whole(net, split)
        spikes, seconds = sol.layer_spikes[0], 0.001 * config.dt * (part.stop - part.start)
        pairs = len(matched(spikes.time[0], target.time[0], config.delta)[0])
        many = 2.0 * config.delta * len(spikes) >= spikes.t_max
        return {
            "gamma": 0.0 if many else float(coincidence_factor(spikes, target, config.delta)),
            "cost": float(self.distance(spikes, target)),
            "missing": 1.0 - pairs / len(target),
            "surplus": 1.0 - pairs / max(len(spikes), 1),
            "spikes_per_s": len(spikes) / seconds,
            "recorded_per_s": len(target) / seconds,
        }

    def summary(self, metrics: Metrics) -> dict[str, float]:
        """Γ on validation, and how long training took to bring it to `reach`, s; inf where it did not."""
        there = [s for s, gamma in zip(metrics["seconds"], metrics["gamma"], strict=True) if gamma >= self.config.reach]
        return {"best_validation_gamma": max(metrics["gamma"]), "seconds_to_reach": there[0] if there else math.inf}

    @torch.no_grad()
    def figures(self, net: DelayedNeuron) -> dict[str, Figure]:
        figures = {"held_out": self.side_by_side(net)}
        if self.learnt:
            figures["parameters"] = self.along_training(net)
        return figures

    def side_by_side(self, net: DelayedNeuron) -> Figure:
        """Voltages, threshold, spikes and currents of the second piece of the held-out recording."""
        dt, part, steps = self.config.dt, self.parts["held_out"], self.steps
        first = min(steps, part.stop - part.start - steps)
        ts = dt * torch.arange(first, first + steps + 1, dtype=torch.float64)
        sol, target = self.whole(net, "held_out", ts)
        low, high, time = float(ts[0]), float(ts[-1]), ts.numpy()
        figure = plotting.new_figure(8.0, 5.6)
        heights = [2, 2, 0.7, 1.4] if self.voltage is not None else [2, 0.7, 1.4]
        panels = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
        if self.voltage is not None:
            axes = panels.pop(0)
            axes.plot(time, self.voltage[first : first + steps + 1], color=plotting.INK, lw=0.8)
            axes.set(ylabel="recorded v (mV)")
        voltage, trains, currents = panels
        voltage.plot(time, sol.v[-1][:, 0, 0].cpu(), color=plotting.COLOURS[0], lw=0.8, label="fitted v")
        voltage.plot(time, sol.threshold()[:, 0, 0].cpu(), color=plotting.COLOURS[1], lw=0.8, label="its threshold")
        voltage.set(ylabel="v, threshold\n(resting threshold: 1)")
        voltage.legend(fontsize=7, **plotting.ABOVE, ncols=2)
        for row, (spikes, colour) in enumerate(((target, plotting.INK), (sol.layer_spikes[0], plotting.COLOURS[0]))):
            at = (spikes.time[0] + net.delay).cpu()
            trains.vlines(at[(at >= low) & (at <= high)], 0.6 - row, 1.4 - row, color=colour, lw=1.2)
        trains.set(yticks=[1, 0], yticklabels=["recorded", "fitted"], ylim=(-0.6, 1.6))
        weight = float(net.w_in[0])
        currents.plot(
            time[:-1], part.recording.u[part.start :][first : first + steps].cpu(), color=plotting.INK, lw=0.6, label="input"
        )
        if "adapt" in LEVELS[self.config.level]:
            own = sol.currents()[:, 0, 0].cpu() / weight
            currents.plot(time, own, color=plotting.COLOURS[2], lw=1.0, label="that of its own spikes")
            currents.legend(fontsize=7, **plotting.ABOVE, ncols=2)
        currents.set(xlabel="time (ms)", ylabel=f"current\n({self.unit})", xlim=(low, high))
        gamma = self.evaluate(net, "held_out")["gamma"]
        figure.suptitle(f"held out, Γ = {gamma:.3f} at ±{self.config.delta:g} ms", fontsize=9, x=0.02, ha="left")
        return figure

    def along_training(self, net: DelayedNeuron) -> Figure:
        """Values of what learns after each step; the dotted line is where steps by the likelihood end."""
        rows = np.asarray(self.learnt)
        learns = [(name.removesuffix(".0"), p.numel()) for name, p in net.named_parameters() if p.requires_grad]
        figure = plotting.new_figure(8.0, 1.7 * math.ceil(len(learns) / 4))
        panels = figure.subplots(math.ceil(len(learns) / 4), 4).ravel()
        column = 0
        for axes, (name, size) in zip(panels, learns, strict=False):
            for k in range(size):
                axes.plot(np.arange(1, len(rows) + 1), rows[:, column + k], lw=1.0, color=plotting.COLOURS[k % 6])
            in_ms = "tau" in name or name in ("delay", "refractory")
            axes.set_ylabel(f"{name} ({'ms' if in_ms else f'1/({self.unit})' if name == 'w_in' else '1'})")
            if 0 < self.config.likelihood < len(rows) and self.config.optimiser == "adam":
                axes.axvline(self.config.likelihood, color=plotting.INK, lw=0.6, ls=":")
            axes.set_xlabel("step")
            column += size
        for axes in panels[len(learns) :]:
            axes.set_visible(False)
        return figure


class FitHodgkinHuxley(FitNeuron[HodgkinHuxleyFit]):
    config_type = HodgkinHuxleyFit

    @property
    def unit(self) -> str:
        return "µA/cm²"

    def recorded(self) -> dict[str, Part]:
        """Three recordings with currents from seeds of their own; the voltage of the last is kept for figures."""
        config, steps = self.config, max(1, round(self.config.duration / self.config.dt))
        parts = {}
        for name, offset in (("train", 0), ("validation", 1_000_000), ("held_out", 2_000_000)):
            noise = config.mean, config.sd, config.tau_current
            u = random_current(steps, config.dt, *noise, self.generator(offset))
            self.voltage, spikes = record(NEURONS[config.neuron], u.numpy(), config.dt)
            parts[name] = Part(Recording(u, torch.from_numpy(spikes)), 0, steps)
        return parts


class FitFile(FitNeuron[FileFit]):
    config_type = FileFit

    @property
    def unit(self) -> str:
        return super().unit if self.config.spikes is not None else "pA"

    def recorded(self) -> dict[str, Part]:
        """Parts of the one recording, one after the other."""
        config = self.config
        nwb = config.current is not None and config.current.suffix == ".nwb"
        if config.current is None or (config.spikes is None) != nwb:
            raise adjsnn.ConfigurationError(
                f"current={config.current}, spikes={config.spikes}",
                "a file of each, or a .nwb file of both",
                "--current u.csv --dt 0.1 --spikes spikes.csv",
            )
        if config.validation + config.held_out >= 1.0:
            raise adjsnn.ConfigurationError(
                f"validation={config.validation:g}, held_out={config.held_out:g}", "shares that leave some to fit", "0.2 each"
            )
        if config.spikes is None:
            u, times = read_sweep(config.current, config.dt, config.stimulus, config.unit)
        else:
            u, times = (column_of(path) for path in (config.current, config.spikes))
        end, times = len(u) * config.dt, np.sort(times)
        if times[0] < 0.0 or times[-1] > end:
            raise adjsnn.ConfigurationError(
                f"{config.spikes}: spikes from {times[0]:g} to {times[-1]:g} ms",
                f"times within the {len(u)} steps of {config.dt:g} ms, {end:g} ms, of {config.current}",
                "times in ms, and --dt of the current in ms",
            )
        if np.diff(times).min() <= 0.0:
            raise adjsnn.ConfigurationError(f"{config.spikes}: two spikes at once", "one neuron's spikes", "leaving one out")
        recording = Recording(torch.from_numpy(u), torch.from_numpy(times))
        stops = [0, *(round(len(u) * (1.0 - x)) for x in (config.validation + config.held_out, config.held_out)), len(u)]
        return {name: Part(recording, stops[k], stops[k + 1]) for k, name in enumerate(("train", "validation", "held_out"))}


def column_of(path: Path) -> np.ndarray:
    """The one column of a .csv or .npy file."""
    values = read_columns(path)
    if values.shape[1] != 1:
        raise adjsnn.ConfigurationError(f"{path}: {values.shape[1]} columns", "one", "a file of one column")
    return values[:, 0].copy()


KINDS = (FitHodgkinHuxley, FitFile, FitEquations)

if __name__ == "__main__":
    sys.exit(main(*KINDS))
