"""Losses. Each sees only the face of a solution (`adjsnn.solutions`); what it differentiates is found by the adjoint that made
it."""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.checks import Number, duration, index, kind, number, positive, real, steps_in, tensor
from adjsnn.errors import ConfigurationError
from adjsnn.numerics.pair_sums import pair_sums
from adjsnn.solutions import FirstSpikeSolution, LocalSolution, ReadoutSolution, SpikingSolution, check_face, target_of
from adjsnn.spikes import SpikeTrains
from adjsnn.untraced import untraced

MS_PER_SECOND = 1000.0
SOLUTIONS, SPIKING, FIRST_SPIKE = "those of networks and systems", "those of networks", "those of LIF networks"
TAU1, SHORT_TRIAL = 6.4, 60.0  # ms: the wish for early spikes, and the longest trial that it suits


@untraced
def readout_mse(sol: ReadoutSolution, target: Float[Tensor, "T1 B C"]) -> Float[Tensor, ""]:
    """Mean of (o - o_d)² over times, samples and channels.

    Args:
        sol: the solution.
        target: o_d at the times sol.ts, (T+1, B, C_out).

    Raises:
        ConfigurationError: target and readout differ in shape.
    """
    check_face(sol, "squared_errors", SOLUTIONS)
    return (sol.readout - target_of(sol.readout, target)).square().mean()


@untraced
def normalised_cost(sol: ReadoutSolution, target: Float[Tensor, "T1 B C"]) -> Float[Tensor, ""]:
    """∫‖o - o_d‖² dt / ∫‖o_d‖² dt over the whole batch: 0 is perfect, 1 is a silent network.

    For gated networks and systems a sum over the times sol.ts. For LIF networks the exact integral with o_d linear between
    them, since a sum would not see spikes pass the samples (2.17).

    Args:
        sol: the solution.
        target: o_d at the times sol.ts, (T+1, B, C_out).

    Raises:
        ConfigurationError: target and readout differ in shape, or the target is zero throughout.
    """
    check_face(sol, "squared_errors", SOLUTIONS)
    error, size = sol.squared_errors(target)
    if not bool(size > 0.0):
        raise ConfigurationError("a target that is zero throughout", "one to measure the error by", "losses.readout_mse")
    return error / size


@untraced
def spike_count(sol: SpikingSolution, layer: int = -1) -> Float[Tensor, "B N"]:
    """Number of spikes of each neuron.

    For gated networks Σ|q|, the absolute charge released: differentiable. A full crossing of the active zone counts 1, a
    partial one its part (equation 1.4). The located spikes themselves, a whole number whose derivative is zero, are in
    sol.spikes. For LIF networks it is that whole number, of one layer, and passes no gradient; `surrogate_spike_count` does.
    """
    check_face(sol, "spike_count", SPIKING)
    return sol.spike_count(layer)


@untraced
def firing_rate(sol: SpikingSolution, layer: int = -1) -> Float[Tensor, "B N"]:
    """Firing rate of each neuron in spikes/s: spike_count over the length of the trial."""
    check_face(sol, "spike_count", SPIKING)
    if not sol.t_end > 0.0:
        raise ConfigurationError("a rate over a trial of 0 ms", "a trial that lasts", "t_end=60.0")
    return spike_count(sol, layer) * (MS_PER_SECOND / sol.t_end)


@untraced
def voltage_max(sol: FirstSpikeSolution, layer: int = -1) -> Float[Tensor, "B N"]:
    """Largest voltage of each neuron over the trial, the threshold for one that spikes; differentiable.

    The way to a silent neuron: its spike times have no gradient, its voltage has.
    """
    check_face(sol, "voltage_max", FIRST_SPIKE)
    return sol.voltage_max(layer)


@untraced
def surrogate_spike_count(sol: FirstSpikeSolution, layer: int = -1) -> Float[Tensor, "B N"]:
    """A differentiable stand-in for the number of spikes of each LIF neuron, which has no derivative (2.20).

    Σ_k (1 - t_k/t_end) over its spikes, the mean over the trial of the number of spikes so far; of a silent neuron
    max v - v_th, below 0. It is a surrogate: a spike counts the less the later it comes. The derivative of the surrogate
    itself is exact, through all spike times and the largest voltage, and is that of the count nowhere.

    Args:
        sol: the solution of a LIF network.
        layer: its number; default the last.

    Raises:
        ConfigurationError: a solution by a rule on a clock, whose `spike_count` is differentiable; a trial of 0 ms; a layer
            whose thresholds move without a spike, as `voltage_gap` of its solution says.
    """
    check_face(sol, "voltage_gap", FIRST_SPIKE)
    if hasattr(type(sol), "weighted_spikes"):
        raise ConfigurationError(
            "the surrogate count of spikes on a clock", "a solution without a grid", "losses.spike_count, which has a gradient"
        )
    if not sol.t_end > 0.0:
        raise ConfigurationError("a count over a trial of 0 ms", "a trial that lasts", "t_end=60.0")
    spikes = sol.layer_spikes[index("layer", layer, len(sol.layer_spikes))]
    earliness = torch.where(spikes.idx >= 0, 1.0 - spikes.time / sol.t_end, 0.0)
    silence = sol.voltage_gap(layer)
    return torch.zeros_like(silence).scatter_add(1, spikes.idx.clamp(min=0), earliness.to(silence)) - silence


@untraced
def spike_count_cross_entropy(
    sol: SpikingSolution, labels: Int[Tensor, " B"], *, scale: Number = 1.0, layer: int = -1
) -> Float[Tensor, ""]:
    """Mean over samples of -log softmax_label(scale · c), c the spikes of each neuron: the class by the most spikes.

    For gated networks c is `spike_count`, the charge released, and the gradient exact. On a clock c is the count, with the
    gradient of the rule. For event-exact LIF networks c is `surrogate_spike_count`, which decides otherwise than the count
    where spikes come late: judge by `sol.layer_counts()`.

    Args:
        sol: the solution.
        labels: class of each sample, one per neuron of the layer.
        scale: how much a spike more counts.
        layer: its number; default the last.

    Raises:
        ConfigurationError: labels of another number or outside the classes.
    """
    check_face(sol, "spike_count", SPIKING)
    scale = positive("scale", scale, "a positive number", "scale=1.0")
    surrogate = hasattr(type(sol), "voltage_gap") and not hasattr(type(sol), "weighted_spikes")
    count = surrogate_spike_count(sol, layer) if surrogate else spike_count(sol, layer)  # pyright: ignore[reportArgumentType]
    return torch.nn.functional.cross_entropy(scale * count, _classes(labels, count))


@untraced
def readout_max_cross_entropy(sol: ReadoutSolution, labels: Int[Tensor, " B"], *, scale: Number = 1.0) -> Float[Tensor, ""]:
    """Mean over samples of -log softmax_label(scale · max_t o), the largest readout of each channel over the times sol.ts.

    For gated networks and systems these are all times, and the gradient is that of the computed cost. A LIF network's readout
    jumps at spikes and decays between: of it this is the largest of the values at `ts`, which is smaller than the largest of
    all, and whose gradient does not see a spike pass one of these times. Take `ts` close beside tau_out.

    Args:
        sol: the solution; of a LIF network with n_out, solved with ts.
        labels: class of each sample, one per channel.
        scale: how much a difference of readouts counts.

    Raises:
        ConfigurationError: labels of another number or outside the classes, or no readout.
    """
    check_face(sol, "squared_errors", SOLUTIONS)
    scale = positive("scale", scale, "a positive number", "scale=1.0")
    largest = sol.readout.amax(0)
    return torch.nn.functional.cross_entropy(scale * largest, _classes(labels, largest))


@untraced
def first_spike_cross_entropy(
    sol: FirstSpikeSolution,
    labels: Int[Tensor, " B"],
    *,
    tau0: Number = 0.5,
    alpha: Number = 0.003,
    tau1: Number | None = None,
    layer: int = -1,
) -> Float[Tensor, ""]:
    """Mean over samples of -log softmax_label(-t/τ_0) + α (exp(t_label/τ_1) - 1), t the first spike times (2.14).

    The earlier the neuron of the right class spikes before the others, the smaller. A silent neuron counts as spiking at t_end:
    a constant, so it gets no gradient, but the others still do.

    Args:
        sol: the solution.
        labels: class of each sample, one per neuron of the layer.
        tau0: how far apart first spikes should be, ms.
        alpha: α, weight of the wish for early ones.
        tau1: τ_1, its time constant, ms; default 6.4 ms in trials of up to 60 ms and t_end · 6.4/60 in longer ones, so that a
            silent neuron costs at most as much as there: α (e^{60/6.4} - 1) = 35.
        layer: its number; default the last.

    Raises:
        ConfigurationError: labels of another number or outside the classes, or a τ_1 so short that exp(t_end/τ_1) overflows.
    """
    check_face(sol, "first_spike_times", FIRST_SPIKE)
    tau0, alpha = positive("tau0", tau0), number("alpha", alpha)
    tau1 = TAU1 * max(1.0, sol.t_end / SHORT_TRIAL) if tau1 is None else positive("tau1", tau1)
    first = sol.first_spike_times(layer)
    if not sol.t_end / tau1 < math.log(torch.finfo(first.dtype).max):
        raise ConfigurationError(
            f"tau1={tau1:g} ms in a trial of {sol.t_end:g} ms, whose exponential overflows {first.dtype}",
            f"a tau1 of about a tenth of the trial, {TAU1 / SHORT_TRIAL * sol.t_end:.3g} ms",
            "tau1=None",
        )
    time = torch.where(first.isinf(), sol.t_end, first)
    classes = _classes(labels, first)
    right = time.gather(1, classes[:, None])
    return torch.nn.functional.cross_entropy(time / -tau0, classes) + alpha * torch.expm1(right / tau1).mean()


@untraced
def first_spike_mse(sol: FirstSpikeSolution, target: Float[Tensor, "B N"], layer: int = -1) -> Float[Tensor, ""]:
    """Mean of (t - t_d)² of first spike times, ms², over finite entries of `target`; a silent neuron counts as t_end.

    Args:
        sol: the solution.
        target: t_d, (B, N), ms; inf or NaN where any time will do.
        layer: its number; default the last.

    Raises:
        ConfigurationError: targets of another shape.
    """
    check_face(sol, "first_spike_times", FIRST_SPIKE)
    target = real("target", target, "first spike times in ms, (B, N)", "torch.as_tensor(target)")
    first = sol.first_spike_times(layer)
    if target.shape != first.shape:
        raise ConfigurationError(f"targets of shape {tuple(target.shape)}", f"{tuple(first.shape)}", "inf where none is wanted")
    wanted = target.isfinite()
    time = torch.where(first.isinf(), sol.t_end, first)
    return (time - target)[wanted].square().sum() / max(int(wanted.sum()), 1)


@untraced
def van_rossum(
    sol: SpikingSolution | SpikeTrains,
    target: SpikeTrains,
    tau: Number = 10.0,
    layer: int = -1,
    *,
    tau_rise: Number | None = None,
) -> Float[Tensor, " B"]:
    """van Rossum distance of the spikes of a layer to `target`, summed over neurons, for each sample.

    A distance to learn by where the times are differentiable, as those of LIF networks, or the spikes on a grid by a learning
    rule; to judge by elsewhere.

    (1/τ) ∫ (Σ_k e^{-(t-t_k)/τ} - Σ_l e^{-(t-t_l)/τ})² dt over all times, each sum over the spikes before t. That is
    ½ Σ e^{-|t_k-t_l|/τ} over all pairs of the two trains, with sign + within a train and - across (2.15). A spike too many or
    too few costs ½, and two spikes much further apart than τ cost 1.

    With `tau_rise` the kernel is e^{-t/τ} - e^{-t/τ_r}, as SuperSpike has it, in such units that ½ and 1 stay: a pair counts
    (τ e^{-|t_k-t_l|/τ} - τ_r e^{-|t_k-t_l|/τ_r})/(τ - τ_r).

    Args:
        sol: the solution, or spike trains.
        target: spikes of as many samples and neurons.
        tau: τ, ms.
        layer: of the solution, its number; default the last.
        tau_rise: τ_r, ms, shorter than τ; None for a kernel that jumps.

    Raises:
        ConfigurationError: another number of samples or neurons, tau or tau_rise not positive, or tau_rise no shorter than tau.
    """
    kind("target", target, SpikeTrains)
    if isinstance(sol, SpikeTrains):
        spikes = sol
    else:
        check_face(sol, "spike_count", f"{SPIKING}, or SpikeTrains")
        spikes = sol.layer_spikes[index("layer", layer, len(sol.layer_spikes))]
    if (target.batch, target.n_neurons) != (spikes.batch, spikes.n_neurons):
        raise ConfigurationError(
            f"{target!r} as a target of {spikes!r}", "as many samples and neurons", "SpikeTrains.from_list"
        )
    tau = positive("tau", tau, remedy="tau=10.0")
    rise = None if tau_rise is None else positive("tau_rise", tau_rise, remedy="tau_rise=5.0")
    if rise is not None and not rise < tau:
        raise ConfigurationError(f"tau_rise={rise:g} ms of tau={tau:g} ms", "a shorter one", f"tau_rise={0.5 * tau:g}")
    spikes.check(ordered=False)
    target.check(ordered=False)
    on_grid = getattr(type(sol), "weighted_spikes", None)
    own = _columns(spikes, 1.0) if on_grid is None else on_grid(sol, layer)
    group, time, sign = (torch.cat(x) for x in zip(own, _columns(target, -1.0), strict=True))
    order = time.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]
    groups = spikes.batch * spikes.n_neurons
    first = torch.cat([group.new_zeros(1), torch.bincount(group, minlength=groups).cumsum(0)])
    sorted_time, weight = time[order].double(), sign[order].double()[:, None]
    distances = pair_sums(sorted_time, weight, first, tau)
    if rise is not None:
        distances = (tau * distances - rise * pair_sums(sorted_time, weight, first, rise)) / (tau - rise)
    return distances.view(spikes.batch, spikes.n_neurons).sum(1).to(spikes.time.dtype)


@untraced
def local_errors(
    sol: LocalSolution, target: Tensor, kind: Literal["smooth_l1", "squared"] = "smooth_l1", *, burn_in: Number = 0.0
) -> Float[Tensor, ""]:
    """Σ_l Σ_n Σ_c ℓ(y_l[n] - ŷ[n]) of the local readouts y_l of all layers, mean over samples (5.6).

    ℓ(x) is "squared", ½ x², or "smooth_l1", the same for |x| < 1 and |x| - ½ beyond. The target is one for all layers.

    Args:
        sol: a solution by `adjsnn.rules.LocalErrors`.
        target: ŷ, (B, C), such as one-hot classes, the same at all times; or at the times 0, h, … t_end, (T+1, B, C).
        kind: "smooth_l1" or "squared".
        burn_in: the errors before this time are left out, ms.

    Raises:
        ConfigurationError: a solution by another rule, a target of another shape, or a burn-in longer than the trial.
    """
    check_face(sol, "local_readout", "that by adjsnn.rules.LocalErrors")
    if kind not in ("smooth_l1", "squared"):
        raise ConfigurationError(f"kind={kind!r}", "'smooth_l1' or 'squared'", 'kind="smooth_l1"')
    read = [sol.local_readout(layer) for layer in range(len(sol.v))]
    target = real("target", target, "what local readouts should be, (B, C) or (T+1, B, C)", "torch.as_tensor(target)")
    if target.shape not in (read[0].shape, read[0].shape[1:]):
        raise ConfigurationError(
            f"a target of shape {tuple(target.shape)} for local readouts of {tuple(read[0].shape)}",
            f"{tuple(read[0].shape[1:])}, or one at each time of the grid",
            "torch.nn.functional.one_hot(labels, classes) of labels",
        )
    first, whole = steps_in(duration("burn_in", burn_in, remedy="burn_in=0.0"), sol.dt, 1e-7)
    first += not whole
    if first >= len(read[0]):
        raise ConfigurationError(f"burn_in={burn_in!r} ms, the whole trial", "a part of it", "burn_in=0.0")
    wanted = target.to(read[0]).expand(read[0].shape)[first:]
    if kind == "squared":
        return torch.stack([0.5 * (y[first:] - wanted).square().sum() / y.shape[1] for y in read]).sum()
    error = torch.nn.functional.smooth_l1_loss
    return torch.stack([error(y[first:], wanted, reduction="sum") / y.shape[1] for y in read]).sum()


def _classes(labels: object, scores: Tensor) -> Tensor:
    """Labels (B,), int64, of scores (B, N).

    Raises:
        ConfigurationError: of another number, or outside the classes.
    """
    classes = tensor("labels", labels, "the class of each sample, (B,)", "labels.long(), one per sample")
    outside = classes.is_floating_point() or classes.is_complex()
    if not outside:
        numbers = classes.numpy(force=True)
        outside = bool(((numbers < 0) | (numbers >= scores.shape[1])).any())
    if classes.shape != scores.shape[:1] or outside:
        raise ConfigurationError(
            f"labels of {classes.dtype} and shape {tuple(classes.shape)}",
            f"({len(scores)},) classes 0 … {scores.shape[1] - 1}",
            "labels.long(), one per sample",
        )
    return classes.long().to(scores.device)


def _columns(trains: SpikeTrains, sign: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sample · N + neuron, time and sign of each spike."""
    sample, k = (trains.idx >= 0).nonzero(as_tuple=True)
    time = trains.time[sample, k]
    return sample * trains.n_neurons + trains.idx[sample, k], time, torch.full_like(time, sign)
