"""What one step for a whole network costs against steps of each neuron's own.

    python benchmarks/own_steps.py [--write]

AdEx neurons over 100 ms, dopri5 at 1e-6, those of `hybrid_gradient.py` and some that fewer reach. `adjsnn.solve` takes one step
for all neurons of a sample, which ends at every event and arrival of any. Here each neuron is solved once more alone, by the
same control of steps, with what reached it and its own spikes at the times at which they were: steps that only its own error,
arrivals and spikes end. Both are counted in neuron-steps, attempts times neurons, and what one takes is timed, alternated. The
error of a step is a mean over states, so a neuron that spikes among N may have an error √N times larger than alone: "allowed"
gives it that alone, too. What a neuron is going to be sent is known for the shortest delay ahead, no further: "windows" ends
its steps there as well, as a solver must that goes on from one such window to the next.
"""

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from hybrid_gradient import ADEX, F64
from torch import Tensor

import adjsnn
from adjsnn.hybrid.adaptive import GROW, SAFETY, SHRINK, STRETCH
from adjsnn.numerics.machine import processor
from adjsnn.numerics.tableaus import TABLEAUS

DOPRI5, RTOL, ATOL, END = TABLEAUS["dopri5"], 1e-6, 1e-6, 100.0
RESULTS = Path(__file__).parent / "results"
PAGE = """# One step for a network, or one for each neuron

AdEx neurons, 100 ms, dopri5 at 1e-6. Steps are attempts; the ratio is that of neuron-steps, all of a network's over those of
neurons alone; allowed: each alone with the error that it may have in the network; windows: no further than the shortest
delay ahead.

| neurons | sources of each | spikes | packets | arrivals at one | steps | of one alone | most | ratio | allowed | windows |
|---|---|---|---|---|---|---|---|---|---|---|
{rows}

A neuron-step takes {within:.0f} ns in the network of 100 and {single:.0f} ns in a batch of single neurons, {times:.1f} times as
long; forward alone. {made}. Written by `benchmarks/own_steps.py`.
"""
G_L, E_L, SLOPE, V_T, C, A, TAU_W, B = 30.0, -70.6, 2.0, -50.4, 281.0, 4.0, 144.0, 80.5
State = tuple[float, float, float]
Arrivals = list[tuple[float, float]]


def network(n: int, sources: int) -> adjsnn.Equations:
    """The neurons of `hybrid_gradient.adex`, each reached by so many, with the same sum of weights."""
    random = torch.Generator().manual_seed(0)
    drive = 600.0 + 400.0 * torch.rand(n, generator=random, dtype=F64)
    weights = 0.2 * (100.0 / sources) * torch.rand(n * sources, generator=random, dtype=F64)
    delay = 0.5 + 2.0 * torch.rand(n, generator=random, dtype=F64)
    pre = torch.stack([torch.randperm(n, generator=random)[:sources] for _ in range(n)]).flatten()
    edges = adjsnn.Synapses(pre, torch.arange(n).repeat_interleave(sources))
    return adjsnn.Equations(
        ADEX,
        threshold="v > -40",
        reset="v = E_l; w += b",
        size=n,
        parameters={"I": drive, "W": weights, "delay": delay}
        | {"g_l": G_L, "E_l": E_L, "slope": SLOPE, "V_t": V_T, "C": C, "a": A, "tau_w": TAU_W, "b": B},
        synapses={"g": {"weight": "W", "delay": "delay", "edges": edges}},
        dtype=F64,
    )


def flow(y: Sequence[float], drive: float) -> State:
    v, w, g = y
    dv = (G_L * (E_L - v) + G_L * SLOPE * math.exp(min((v - V_T) / SLOPE, 700.0)) - w + drive - g * v) / C
    return dv, (A * (v - E_L) - w) / TAU_W, -g / 5.0


def tried(y: State, h: float, drive: float, loose: float) -> tuple[State, float]:
    """The state after a step, and the size of its error."""
    ks: list[State] = []
    for row in DOPRI5.a:
        ks.append(flow([x + h * sum(a * k[d] for a, k in zip(row, ks, strict=False)) for d, x in enumerate(y)], drive))
    new = [x + h * sum(b * k[d] for b, k in zip(DOPRI5.b, ks, strict=True)) for d, x in enumerate(y)]
    assert DOPRI5.b_error is not None
    total = 0.0
    for d in range(3):
        error = h * sum(b * k[d] for b, k in zip(DOPRI5.b_error, ks, strict=True))
        total += (error / (loose * (ATOL + RTOL * max(abs(y[d]), abs(new[d]))))) ** 2
    return (new[0], new[1], new[2]), math.sqrt(total / 3.0)


def alone(y: State, drive: float, arrivals: Arrivals, spikes: list[float], loose: float) -> int:
    """Attempts of one neuron, whose steps end at its arrivals and spikes alone."""
    stops = sorted([(t, g) for t, g in arrivals if t <= END] + [(t, math.nan) for t in spikes] + [(END, 0.0)])
    t, following, attempts = 0.0, 0.1, 0
    for stop, weight in stops:
        rejected = False
        while t < stop:
            reaches = following * STRETCH >= stop - t
            h = stop - t if reaches else following
            new, size = tried(y, h, drive, loose)
            attempts += 1
            factor = min(max(SAFETY * size**-0.2, SHRINK), GROW) if 0.0 < size < math.inf else (GROW if size == 0.0 else SHRINK)
            if size > 1.0 or math.isnan(size):
                rejected, following = True, h * min(factor, 1.0)
                continue
            proposed = h * (min(factor, 1.0) if rejected else factor)
            following, rejected = max(proposed, following) if reaches else proposed, False
            t, y = (stop if reaches else t + h), new
        v, w, g = y
        y = (E_L, w + B, g) if math.isnan(weight) else (v, w, g + weight)
    return attempts


def counted(n: int, sources: int) -> str:
    """A row of the table."""
    system = network(n, sources)
    v = -70.6 + 10.0 * torch.rand(n, generator=torch.Generator().manual_seed(1), dtype=F64)
    y0 = system.start(1, v=v, w=0.0, g=0.0)
    thin = adjsnn.DiscreteAdjoint(checkpoints="sqrt")
    sol: Any = adjsnn.solve(
        system, None, ts=[0.0, END], y0=y0, method="dopri5", rtol=RTOL, atol=ATOL, max_steps=10**7, adjoint=thin
    )
    steps, attempts = sol.stats.taken, int(sol.stats.accepted[0] + sol.stats.rejected[0])
    events, packets = int((steps.event >= 0).sum()), int((steps.packets.landed >= 0).sum())
    trains = [sol.event_times[0][sol.event_index[0] == unit].tolist() for unit in range(n)]
    (synapse,), weights, delays = system.synapses, system.get_buffer("W").tolist(), system.get_buffer("delay").tolist()
    assert synapse.edges is not None
    reached: list[Arrivals] = [[] for _ in range(n)]
    for number, (pre, post) in enumerate(zip(synapse.edges.pre.tolist(), synapse.edges.post.tolist(), strict=True)):
        reached[post] += [(t + delays[pre], weights[number]) for t in trains[pre]]
    drives = system.get_buffer("I").tolist()
    own = [
        [alone((float(v[k]), 0.0, 0.0), drives[k], reached[k], trains[k], loose) for k in range(n)]
        for loose in (1.0, math.sqrt(n))
    ]
    shortest = min(delays)
    windows = [(k * shortest, 0.0) for k in range(1, int(END / shortest) + 1)]
    own.append([alone((float(v[k]), 0.0, 0.0), drives[k], reached[k] + windows, trains[k], 1.0) for k in range(n)])
    ratios = [f"{n * attempts / sum(x):.1f}" for x in own]
    columns = n, sources, events, packets, round(statistics.mean(map(len, reached))), attempts, round(statistics.mean(own[0]))
    return f"| {' | '.join(map(str, (*columns, max(own[0]), *ratios)))} |"


def nanoseconds(system: adjsnn.Equations, y0: Tensor, neurons: int) -> float:
    """Of one neuron-step of a solve."""
    begin = time.perf_counter()
    with torch.no_grad():
        sol = adjsnn.solve(system, None, ts=[0.0, END], y0=y0, method="dopri5", rtol=RTOL, atol=ATOL, max_steps=10**7)
    assert sol.stats is not None
    return 1e9 * (time.perf_counter() - begin) / (neurons * int((sol.stats.accepted + sol.stats.rejected).sum()))


def timed(n: int = 100, rounds: int = 21) -> tuple[float, float]:
    """Nanoseconds of a neuron-step in a network and alone, in a batch of single neurons; medians."""
    net = network(n, n)
    v = -70.6 + 10.0 * torch.rand(n, generator=torch.Generator().manual_seed(1), dtype=F64)
    values: dict[str, Any] = {name: x for name, x in net.numbers.items() if name != "delay"} | {"I": net.get_buffer("I")}
    single = adjsnn.Equations(net.text, threshold="v > -40", reset="v = E_l; w += b", parameters=values, dtype=F64)
    both = (net, net.start(1, v=v, w=0.0, g=0.0), n), (single, single.start(n, v=v, w=0.0, g=0.0), 1)
    found = [[nanoseconds(*x) for x in both] for _ in range(rounds + 2)][2:]
    return statistics.median(x for x, _ in found), statistics.median(x for _, x in found)


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps of a whole network against those of each neuron's own.")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/results, which git keeps")
    torch.set_num_threads(1)
    rows = [counted(n, sources) for n, sources in ((100, 100), (100, 10), (1000, 10))]
    within, single = timed()
    table = PAGE.format(
        rows="\n".join(rows),
        within=within,
        single=single,
        times=single / within,
        made=f"{processor()}, 1 thread, torch {torch.__version__}, {date.today()}",
    )
    print(table)
    if parser.parse_args().write:
        (RESULTS / "own_steps.md").write_text(table)


if __name__ == "__main__":
    main()
