"""Random layers of generalised LIF neurons, as arrays, with inputs, initial states and trials in which they spike."""

import numpy as np

from adjsnn.lif.glif.arrays import GLIF, GLIFState, Neurons, Wiring
from adjsnn.lif.layer import Events, Trial

Solvable = tuple[GLIF, Events, GLIFState, Trial]  # what forward takes


def random_layer(
    rng: np.random.Generator,
    n: int = 3,
    m: int = 3,
    receptors: int = 2,
    adaptation: int = 1,
    thresholds: int = 1,
    leak: bool = True,
    reset: str = "to",
    recurrent: bool = True,
    delays: str = "synapse",
    refractory: float = 0.0,
    batch: int = 2,
    t_end: float = 50.0,
    driven: bool = False,
    scaled: bool = True,
    follows: bool = False,
) -> Solvable:
    """A layer of n neurons fed by m sources, each of which spikes about every 4 ms.

    Args:
        rng: what draws it.
        n: neurons.
        m: sources.
        receptors: K.
        adaptation: J, currents that make the next spike later as a rule.
        thresholds: H.
        leak: with time constants of 5 … 20 ms, or without.
        reset: "to", "by", or "mixed".
        recurrent: whether it projects to itself.
        delays: "none", "axon" (of all synapses of a source) or "synapse"; of those some are alike.
        refractory: the longest refractory time, ms; half of the neurons have one.
        batch: samples.
        t_end: ms.
        driven: whether a drive changes every tenth of the trial.
        scaled: whether the own currents and thresholds are also scaled at a spike.
        follows: whether a part of the threshold follows the voltage, upward or downward.
    """
    mu = 1.0 / rng.uniform(5.0, 20.0, n) if leak else np.zeros(n)
    size = 1.0 if leak else 0.08  # of currents
    factor = {"to": np.zeros(n), "by": np.ones(n), "mixed": (np.arange(n) % 2).astype(float)}[reset]
    rate = 1.0 / np.concatenate([rng.uniform(1.0, 8.0, (receptors, n)), rng.uniform(5.0, 30.0, (adaptation, n))])
    neurons = Neurons(
        leak_rate=mu,
        gain=mu if leak else np.ones(n),
        bias=size * rng.uniform(-0.1, 0.4, n),
        v_th=rng.uniform(0.9, 1.1, n),
        v_reset=rng.uniform(-0.2, 0.1, n),
        reset_factor=factor,
        refractory=refractory * rng.uniform(0.3, 1.0, n) * (rng.permutation(n) % 2 == 0),
        rate=rate,
        jump=-size * rng.uniform(-0.1, 0.4, (adaptation, n)),
        scale=rng.uniform(0.6, 1.0, (adaptation, n)) if scaled else np.ones((adaptation, n)),
        th_rate=1.0 / rng.uniform(3.0, 30.0, (thresholds, n)),
        th_jump=rng.uniform(-0.05, 0.3, (thresholds, n)),
        th_scale=rng.uniform(0.5, 1.0, (thresholds, n)) if scaled else np.ones((thresholds, n)),
        follow=np.zeros((0, n)),
    )
    incoming = random_wiring(rng, m, n, receptors, delays, size * rng.uniform(-0.6, 2.2, 4 * m * n * receptors))
    own = size * rng.uniform(-1.2, 0.8, 4 * n * n * receptors)
    wired = random_wiring(rng, n if recurrent else 0, n, receptors, delays, own)
    layer = GLIF(neurons, incoming, wired)
    times = [np.sort(rng.uniform(0.0, t_end, max(1, int(m * t_end / 4.0)))) for _ in range(batch)]
    first = np.cumsum([0, *map(len, times)])
    inputs = Events(first, np.concatenate(times), rng.integers(0, m, first[-1]))
    currents = size * np.concatenate(
        [rng.uniform(0.0, 0.8, (batch, receptors, n)), rng.uniform(-0.2, 0.0, (batch, adaptation, n))], 1
    )
    start = GLIFState(rng.uniform(-0.2, 0.5, (batch, n)), currents, rng.uniform(0.0, 0.2, (batch, thresholds, n)))
    probes = np.concatenate([[0.0], np.sort(rng.uniform(0.0, t_end, 3)), [t_end]])
    drive = size * rng.uniform(-0.2, 0.4, (10, batch, n)) if driven else np.zeros((0, batch, n))
    if follows:
        q = 1.0 / rng.uniform(3.0, 40.0, (1, n))
        layer = layer._replace(neurons=following(neurons, q, q * rng.uniform(-0.3, 0.6, (1, n))))
        start = start._replace(h=np.concatenate([start.h, rng.uniform(-0.1, 0.2, (batch, 1, n))], 1))
    edges = t_end * np.arange(1, 10) / 10.0 if driven else np.zeros(0)
    return layer, inputs, start, Trial(0, t_end, probes, 200, drive, edges)


def following(neurons: Neurons, q: np.ndarray, kappa: np.ndarray) -> Neurons:
    """The same with one more part of the threshold, which follows the voltage; q and κ (1, N)."""
    rows = [np.concatenate([x, y]) for x, y in zip(neurons[-4:-1], (q, 0.0 * q, 0.0 * q + 1.0), strict=True)]
    return Neurons(*neurons[:-4], *rows, kappa)


def random_wiring(
    rng: np.random.Generator, m: int, n: int, receptors: int, delays: str, weights: np.ndarray, density: float = 0.5
) -> Wiring:
    """Synapses of m sources to n neurons, some of them doubled, with the first of the weights."""
    synapses: list[tuple[int, float, int, int]] = []
    for source in range(m):
        axon = rng.uniform(0.1, 3.0)
        for post in range(n):
            for receptor in range(receptors):
                for _ in range(rng.binomial(2, density / receptors)):
                    one = float(rng.choice([rng.uniform(0.1, 3.0), 1.0, 2.0]))
                    synapses.append((source, {"none": 0.0, "axon": axon, "synapse": one}[delays], post, receptor))
    return wiring_of(m, synapses, weights[: len(synapses)])


def wiring_of(m: int, synapses: list[tuple[int, float, int, int]], weights: np.ndarray) -> Wiring:
    """From (source, delay, post, receptor) of each synapse; those of one source and delay become a group."""
    order = sorted(range(len(synapses)), key=lambda e: synapses[e][:2])
    starts = [k for k, e in enumerate(order) if k == 0 or synapses[order[k - 1]][:2] != synapses[e][:2]]
    sources = [synapses[order[k]][0] for k in starts]
    return Wiring(
        np.searchsorted(np.array(sources, np.int64), np.arange(m + 1)),
        np.array([synapses[order[k]][1] for k in starts], float),
        np.array([*starts, len(order)], np.int64),
        np.array([synapses[e][2] for e in order], np.int64),
        np.array([synapses[e][3] for e in order], np.int64),
        np.array(weights, float)[order],
    )


def split(wiring: Wiring) -> Wiring:
    """The same with each synapse in a group of its own, in the same order."""
    lengths = np.diff(wiring.edge)
    first = wiring.edge[wiring.first]
    return wiring._replace(first=first, delay=np.repeat(wiring.delay, lengths), edge=np.arange(len(wiring.post) + 1))
