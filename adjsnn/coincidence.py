"""How much two spike trains have in common: the coincidence factor, a metric without a gradient."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adjsnn.checks import Number, kind, positive
from adjsnn.errors import ConfigurationError
from adjsnn.spikes import SpikeTrains
from adjsnn.untraced import untraced


def matched(spikes: Tensor, target: Tensor, delta: float) -> tuple[Int[Tensor, " M"], Int[Tensor, " M"]]:
    """Pairs of spikes no more than delta apart, each spike in one of them at most, as many pairs as there can be.

    Args:
        spikes: sorted times, (K,), ms.
        target: sorted times, (L,), ms.
        delta: ms.

    Returns:
        numbers into `spikes` and into `target`, (M,) each.
    """
    own, other, k, m = spikes.tolist(), target.tolist(), 0, 0
    pairs: list[tuple[int, int]] = []
    while k < len(own) and m < len(other):  # the earlier of two that are too far apart has no partner left
        apart = own[k] - other[m]
        if abs(apart) <= delta:
            pairs.append((k, m))
        k, m = k + (apart <= delta), m + (apart >= -delta)
    rows = torch.tensor(pairs, dtype=torch.long, device=spikes.device).view(-1, 2)
    return rows[:, 0], rows[:, 1]


@untraced
def coincidence_factor(spikes: SpikeTrains, target: SpikeTrains, delta: Number = 2.0) -> Float[Tensor, "B N"]:
    """Coincidence factor Γ of spikes and target, of each sample and neuron: 1 for the same trains, 0 for chance.

        Γ = (N_c - 2 ν Δ N_target) / (½ (N_target + N)) / (1 - 2 ν Δ),   ν = N/t_max

    N_c counts pairs of spikes no more than Δ apart, each spike in one of them at most; 2 ν Δ N_target of them are expected of a
    Poisson train as fast as `spikes` (Kistler, Gerstner and van Hemmen 1997; Jolivet et al. 2006). It has no gradient: to learn
    by, take `adjsnn.losses.van_rossum`.

    Args:
        spikes: of a model.
        target: of what it is a model of, as many samples and neurons over the same time.
        delta: Δ, ms.

    Returns:
        Γ, (B, N), float64; nan where neither spikes.

    Raises:
        ConfigurationError: other numbers of samples or neurons, other lengths, delta not positive, or so many spikes that
            2 ν Δ ≥ 1, for which Γ has no meaning.
    """
    kind("spikes", spikes, SpikeTrains)
    kind("target", target, SpikeTrains)
    delta = positive("delta", delta, "a positive time in ms", "delta=2.0")
    for trains in (spikes, target):
        trains.check()
    if (target.batch, target.n_neurons, target.t_max) != (spikes.batch, spikes.n_neurons, spikes.t_max):
        raise ConfigurationError(
            f"{target!r} as a target of {spikes!r}", "as many samples and neurons, and the same t_max", "SpikeTrains.from_list"
        )
    own, other = spikes.counts().double(), target.counts().double()
    chance = 2.0 * delta * own / spikes.t_max if spikes.t_max else torch.zeros_like(own)
    if bool((chance >= 1.0).any()):
        raise ConfigurationError(
            f"{int(own.max())} spikes in {spikes.t_max:g} ms with delta={delta:g} ms",
            "2 delta below the mean interval of the spikes",
            f"delta={0.2 * spikes.t_max / float(own.max()):.2g}",
        )
    pairs = torch.zeros_like(own)
    for b in range(spikes.batch):
        for n in range(spikes.n_neurons):
            rows = [trains.time[b][trains.idx[b] == n].detach() for trains in (spikes, target)]
            pairs[b, n] = len(matched(rows[0], rows[1], delta)[0])
    return (pairs - chance * other) / (0.5 * (own + other)) / (1.0 - chance)
