"""Predictive coding: a spiking network learns to represent its input, low-passed, with as few spikes as it can.

    python experiments/predictive_coding.py                          train, about a minute
    python experiments/predictive_coding.py --quick                  half of that
    python experiments/predictive_coding.py --signal my_recording.npy --signal-dt 1.0

The readout o must follow τ_s ȯ_d = -o_d + u. The cost is ∫‖o - o_d‖² over that of a silent network, plus λ times the mean
over neurons of (charge released per second / 60)². Everything starts random; the solution is known (docs/equations.md, 1.13).
"""

import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

import adjsnn
from adjsnn import plotting
from adjsnn.losses import firing_rate, normalised_cost
from adjsnn.signals import load_signal, lowpass, random_sinusoids
from adjsnn.training.runs import RunFolder

TRIALS_HELD_OUT = 16


@dataclass(frozen=True)
class Config:
    """Predictive coding with non-leaky integrate-and-fire neurons. Times in ms."""

    seed: int = 0
    neurons: int = 30
    tau_fast: float = 1.0
    tau_slow: float = 10.0
    gate_width: float = 0.3
    dt: float = 0.1
    window: float = 100.0
    """length of a training trial"""
    held_out_window: float = 300.0
    """length of a validation or held-out trial"""
    batch: int = 32
    iterations: int = 200
    learning_rate: float = 0.015
    """of Adam, decayed to 1 % by a half cosine"""
    activity_cost: float = 0.024
    """λ"""
    clip: float = 1.0
    """largest norm of the gradient"""
    w_in_start: float = 1.0
    """standard deviations of the random start"""
    w_out_start: float = 0.014
    w_rec_start: float = 0.02
    signal: Path | None = None
    """.npy or .csv recording, one row per time; default: random sums of sinusoids"""
    signal_dt: float = 1.0
    """time between the recording's samples"""
    runs: Path = Path("runs")
    """where run folders are made"""
    log_every: int = 10
    threads: int = 1
    """torch threads; the arrays of one step are too small to share out"""
    quick: bool = False
    """stop after a short training that already shows a learnt readout"""


class Signals:
    """Training trials without end, and fixed validation and held-out trials, from other seeds or another part of the file."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.generator = torch.Generator().manual_seed(config.seed)
        self.recording: Tensor | None = None
        if config.signal is None:
            self.channels = 2
            self.validation, self.held_out = (
                self._random(config.held_out_window, TRIALS_HELD_OUT, torch.Generator().manual_seed(config.seed + offset))
                for offset in (1_000_000, 2_000_000)
            )
            return
        recording = load_signal(config.signal, config.signal_dt, config.dt)
        self.channels = recording.shape[1]
        cut, end = int(0.7 * len(recording)), int(0.85 * len(recording))
        self.recording = recording[:cut]
        self.validation, self.held_out = self._tail(recording[cut:end]), self._tail(recording[end:])

    def training(self) -> Tensor:
        """A new batch of trials, (T, B, C)."""
        config = self.config
        if self.recording is None:
            return self._random(config.window, config.batch, self.generator)
        steps = min(round(config.window / config.dt), len(self.recording))
        starts = torch.randint(len(self.recording) - steps + 1, (config.batch,), generator=self.generator)
        return torch.stack([self.recording[s : s + steps] for s in starts.tolist()], dim=1)

    def _random(self, duration: float, batch: int, generator: torch.Generator) -> Tensor:
        return random_sinusoids(round(duration / self.config.dt), batch, 2, self.config.dt, generator=generator)

    def _tail(self, part: Tensor) -> Tensor:
        steps = round(self.config.held_out_window / self.config.dt)
        if len(part) < steps:
            needed = self.config.held_out_window / 0.15
            raise adjsnn.ConfigurationError(
                f"{self.config.signal}: {len(part) * self.config.dt:g} ms in each held-out part of the recording",
                f"at least one held-out trial of {self.config.held_out_window:g} ms, so about {needed:g} ms in all",
                "a longer recording or a smaller --held-out-window",
            )
        return torch.stack(part[: len(part) // steps * steps].split(steps)[:TRIALS_HELD_OUT], dim=1)


def new_network(config: Config, channels: int) -> adjsnn.GatedSynapseNetwork:
    """Random start: independent Gaussian weights.

    Input weights near their final size and readout weights near zero make the gradient of w_out point along w_inᵀ from the
    first step; recurrent weights start small because the cost hardly sees, and so never removes, what noise they begin with.
    """
    generator = torch.Generator().manual_seed(config.seed)
    net = adjsnn.GatedSynapseNetwork(
        channels,
        config.neurons,
        channels,
        neuron=adjsnn.NIF(),
        gate=adjsnn.RaisedCosineGate(config.gate_width),
        tau_fast=config.tau_fast,
        tau_slow=config.tau_slow,
    )
    starts = {"w_in": config.w_in_start, "w_out": config.w_out_start, "w_rec": config.w_rec_start}
    with torch.no_grad():
        for name, deviation in starts.items():
            weight = getattr(net, name)
            weight.copy_(deviation * torch.randn(weight.shape, generator=generator))
    return net


@torch.no_grad()
def evaluate(net: adjsnn.GatedSynapseNetwork, u: Tensor, config: Config) -> dict[str, float]:
    """Cost, spikes per second and neuron, and the correlations of the learnt weights with their known solution."""
    sol = adjsnn.solve(net, u, dt=config.dt)
    seconds = float(sol.ts[-1]) / 1000.0 * u.shape[1] * config.neurons
    off_diagonal = ~torch.eye(config.neurons, dtype=torch.bool)
    predicted = -net.w_in @ net.w_out
    rec = torch.corrcoef(torch.stack([net.w_rec[off_diagonal], predicted[off_diagonal]]))[0, 1]
    ends = torch.corrcoef(torch.stack([net.w_out.flatten(), net.w_in.T.flatten()]))[0, 1]
    return {
        "cost": float(normalised_cost(sol, lowpass(u, config.dt, config.tau_slow))),
        "spikes_per_s": sol.stats.spikes / seconds,
        "corr_rec": float(rec),
        "corr_in_out": float(ends),
        "overlong_steps": sol.stats.overlong_steps,
    }


def train(net: adjsnn.GatedSynapseNetwork, signals: Signals, config: Config, run: RunFolder) -> float:
    """Train, log, keep the best network by its validation objective; returns the seconds taken."""
    optimiser = torch.optim.Adam(net.parameters(), lr=config.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * i / config.iterations))
    )
    best, started = math.inf, time.perf_counter()
    progress = tqdm(range(config.iterations + 1), unit="it", file=sys.stdout, mininterval=0.5)
    for iteration in progress:
        u = signals.training()
        sol = adjsnn.solve(net, u, dt=config.dt)
        cost = normalised_cost(sol, lowpass(u, config.dt, config.tau_slow))
        activity = (firing_rate(sol).mean(0) / 60.0).square().mean()
        optimiser.zero_grad()
        (cost + config.activity_cost * activity).backward()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip)
        if iteration % config.log_every == 0 or iteration == config.iterations:
            found = evaluate(net, signals.validation, config)
            objective = found["cost"] + config.activity_cost * (found["spikes_per_s"] / 60.0) ** 2
            if objective < best:
                best = objective
                run.save_best(net)
            row = {"iteration": iteration, "train_cost": cost.item(), "gradient_norm": norm.item(), **found}
            run.log({**row, "seconds": time.perf_counter() - started})
            progress.set_description(f"cost {found['cost']:.4f}  {found['spikes_per_s']:.0f} spikes/s  loss {cost.item():.4f}")
        optimiser.step()
        schedule.step()
    return time.perf_counter() - started


@torch.no_grad()
def draw(net: adjsnn.GatedSynapseNetwork, signals: Signals, config: Config, run: RunFolder) -> list[Path]:
    """The figures of the run."""
    u = signals.held_out
    sol = adjsnn.solve(net, u, dt=config.dt)
    target = lowpass(u, config.dt, config.tau_slow)
    figures = {}

    figure = figures["readout"] = plotting.new_figure(7.0, 5.4)
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(1.2, 1.0, 1.3))
    plotting.readout(top, sol, target)
    top.set_title("held-out signal: readout against target", loc="left")
    planar = net.n_out == 2
    angle = torch.atan2(net.w_out[1], net.w_out[0]) if planar else net.w_out[0]
    neuron = int(net.w_in.norm(dim=1).argmax())
    plotting.balanced_currents(middle, net, sol, u, neuron)
    plotting.raster(bottom, sol, order=torch.argsort(angle))
    bottom.set_ylabel("neuron, by direction of w_out" if planar else "neuron, by w_out")
    for axes in (top, middle):
        axes.set_xlabel("")

    figure = figures["weights"] = plotting.new_figure(7.0, 3.6)
    left, right = figure.subplots(1, 2)
    off_diagonal = ~torch.eye(config.neurons, dtype=torch.bool)
    predicted = -net.w_in @ net.w_out
    plotting.learnt_against_predicted(
        left, net.w_rec[off_diagonal], predicted[off_diagonal], "learnt $W_{rec}$ (off-diagonal)", "$-W_{in} W_{out}$"
    )
    scale = net.w_out.norm() / net.w_in.norm()
    plotting.learnt_against_predicted(
        right, net.w_out, net.w_in.T * scale, "learnt $W_{out}$", rf"$W_{{in}}^T$ scaled by {float(scale):.2f}"
    )

    figure = figures["learning"] = plotting.new_figure(7.0, 2.6)
    left, middle, right = figure.subplots(1, 3)
    metrics = run.metrics()
    plotting.learning_curves(left, metrics, {"cost": "validation", "train_cost": "training"}, ylabel="cost / cost of silence")
    plotting.learning_curves(middle, metrics, {"spikes_per_s": "per neuron"}, ylabel="spikes/s")
    plotting.learning_curves(
        right, metrics, {"corr_rec": "$W_{rec}$, $-W_{in}W_{out}$", "corr_in_out": "$W_{out}$, $W_{in}^T$"},
        ylabel="correlation", log=False,
    )  # fmt: skip
    paths = []
    for name, figure in figures.items():
        paths.append(run.path / "figures" / f"{name}.png")
        figure.savefig(paths[-1])
    return paths


def main(argv: list[str] | None = None) -> int:
    config = tyro.cli(Config, args=argv)
    torch.set_num_threads(config.threads)
    if config.quick:
        config = quick(config)
    try:
        signals = Signals(config)
        net = new_network(config, signals.channels)
        run = RunFolder(config.runs, "predictive_coding", config, sys.argv if argv is None else argv)
        seconds = math.nan
        try:
            seconds = train(net, signals, config, run)
        except KeyboardInterrupt:
            print("\nstopped; going on with the best network so far")
        run.load_best(net)
    except adjsnn.AdjsnnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    result = evaluate(net, signals.held_out, config)
    run.write_json("summary.json", {"held_out": result, "training_seconds": seconds, "iterations": config.iterations})
    paths = draw(net, signals, config, run)
    print(
        f"\nheld-out signals: cost {result['cost']:.4f} of a silent network's, {result['spikes_per_s']:.0f} spikes/s per neuron"
        f"\nlearnt weights: correlation of W_rec with -W_in W_out {result['corr_rec']:.2f}, of W_out with W_in^T "
        f"{result['corr_in_out']:.2f}\ntrained in {seconds:.0f} s; pictures:"
    )
    for path in paths:
        print(f"  {path}")
    return 0


def quick(config: Config) -> Config:
    """A training of about twenty seconds."""
    return replace(config, iterations=100)


if __name__ == "__main__":
    sys.exit(main())
