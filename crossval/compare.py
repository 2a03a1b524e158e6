"""adjsnn against the spikes and gradients of other simulators in the files beside this one: a table of both.

python crossval/compare.py            print it
python crossval/compare.py --write    write docs/crossvalidation.md
"""

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nest_layers import network as network_of
from torch import Tensor

import adjsnn
from adjsnn import LIFNetwork, LIFState, SpikeTrains

HERE = Path(__file__).parent
F64 = torch.float64
NEST = ("C_m", "tau_m", "tau_syn_ex", "tau_syn_in", "E_L", "V_th", "V_reset", "t_ref", "I_e")
BRIAN2 = {"tau_m": "tau_m", "tau_s": "tau_syn"} | {x: x for x in ("C_m", "E_L", "V_th", "V_reset", "t_ref", "I_e")}


def arrays(name: str) -> dict[str, Any]:
    with np.load(HERE / name) as file:
        return dict(file.items())


def trains(rows: Any, t_max: float) -> SpikeTrains:
    """One sample from the times of each neuron."""
    events = [(float(t), k) for k, row in enumerate(rows) for t in row]
    return SpikeTrains.from_list([events], n_neurons=len(rows), t_max=t_max, dtype=F64)


def by_neuron(spikes: SpikeTrains) -> tuple[np.ndarray, np.ndarray]:
    """Neuron and time of each spike of the first sample, sorted by both."""
    neuron, time = spikes.idx[0].numpy(), spikes.time[0].detach().numpy()
    order = np.lexsort((time, neuron))[(neuron < 0).sum() :]
    return neuron[order], time[order]


def nest_network(found: dict[str, Any], **options: Any) -> LIFNetwork:
    weights, delays = found["weights"].astype(float), found["delay_steps"] / 10.0
    parameters = {name: found[name] for name in NEST} | {name: options.pop(name) for name in NEST if name in options}
    return LIFNetwork.from_nest(
        parameters, weights.shape[1], len(weights), weights=weights, delays=delays, dtype=F64, **options
    )  # fmt: skip


def nest_precise() -> dict[str, Any]:
    """iaf_psc_exp_ps: all spikes of each neuron."""
    found = arrays("nest_exp.npz")
    end = float(found["duration"])
    sol = adjsnn.solve(nest_network(found), trains(found["inputs"], end), t_end=end)
    neuron, time = by_neuron(sol.layer_spikes[0])
    same = np.array_equal(neuron, found["neuron"])
    return {
        "neurons": len(found["first"]),
        "spikes": len(found["time"]),
        "same": same,
        "largest": float(np.abs(time - found["time"]).max()) if same else np.inf,
    }


def nest_grid() -> dict[str, Any]:
    """iaf_psc_exp: the first spike of each neuron, by its label; before later ones a reset was late by a part of a step."""
    found = arrays("nest_exp.npz")
    end, step = float(found["duration"]), float(found["step"])
    inputs = [np.unique(row) / 10.0 for row in found["grid"]]
    once = nest_network(found, t_ref=10.0 * end)
    neuron, time = by_neuron(adjsnn.solve(once, trains(inputs, end), t_end=end).layer_spikes[0].to_grid(step, "nest"))
    first = np.full(len(found["first"]), -1)
    first[neuron] = np.rint(time / step)
    return {"spikes": int((found["first"] >= 0).sum()), "other": int((first != found["first"]).sum())}


def nest_layers() -> dict[str, list[dict[str, Any]]]:
    """Networks as `to_nest` wrote them, in iaf_psc_exp_ps: all spikes of each layer."""
    found = json.loads((HERE / "nest_layers.json").read_text())
    end, rows = found["duration"], dict[str, list[dict[str, Any]]]()
    for name, case in found["cases"].items():
        sol = adjsnn.solve(network_of(case), trains(found["inputs"], end), t_end=end)
        pairs = [(list(zip(*by_neuron(x), strict=True)), y) for x, y in zip(sol.layer_spikes, case["spikes"], strict=True)]
        rows[name] = [_compare([pair]) for pair in pairs]
    return rows


def brian2_network(found: dict[str, Any], *layers: int) -> LIFNetwork:
    layers = layers or (0, 1, 2)
    parameters = tuple({ours: found[f"{name}_{k}"] for name, ours in BRIAN2.items()} for k in layers)
    weights, delays = (tuple(found[f"{name}_{k}"] for k in layers) for name in ("weights", "delays"))
    sizes = [len(w) for w in weights]
    return LIFNetwork.from_physical(
        parameters, weights[0].shape[1], sizes, weights=weights, delays=delays, dtype=F64
    )  # fmt: skip


def brian2_whole() -> list[dict[str, Any]]:
    """Three layers: all spikes of each layer, and their differences in steps."""
    found = arrays("brian2_layers.npz")
    end, step = float(found["duration"]), float(found["step"])
    sol = adjsnn.solve(
        brian2_network(found).rounded("brian2", step), trains(found["inputs"] / 1000.0, end), t_end=end
    )  # fmt: skip
    rows = []
    for k in range(3):
        neuron, time = by_neuron(sol.layer_spikes[k])
        order = np.lexsort((found[f"time_{k}"], found[f"neuron_{k}"]))
        same = np.array_equal(neuron, found[f"neuron_{k}"][order])
        off = (found[f"time_{k}"][order] - time) / step if same else np.array([np.inf])
        rows.append(
            {"spikes": len(order), "same": same, "median": float(np.median(np.abs(off))), "largest": float(np.abs(off).max())}
        )
    return rows


def brian2_intervals() -> dict[str, int]:
    """Each spike on its own, from the one before it in Brian2 and by Brian2's rules: is it in the step that Brian2 names?

    A spike of the step [t, t + h) resets at t + h and holds until t + t_ref; what arrives in a step acts from its end on, and
    spikes of the layer below are where Brian2 has them.
    """
    found = arrays("brian2_layers.npz")
    end, h = float(found["duration"]), float(found["step"])
    sources = [(row, t) for row, times in enumerate(found["inputs"] / 1000.0) for t in times]
    spikes = other = 0
    for k in range(3):
        net = brian2_network(found, k)
        own, labels = found[f"neuron_{k}"], found[f"time_{k}"]
        cases, starts = [], []
        for n in range(len(net.v_th[0])):
            mine = np.sort(labels[own == n])
            holds = np.floor(found[f"t_ref_{k}"][n] / h + 1e-3) * h
            starts += [(n, 0.0, 0.0), *((n, t + holds, float(net.v_reset[0][n])) for t in mine)]
            cases += [*mine, np.inf]
        begins, expected = np.array([t for _, t, _ in starts]), np.array(cases)
        first = begins + _first_spikes(net, found, k, sources, starts, end + h, h)
        none = np.isinf(expected)
        late = first - np.where(none, 0.0, expected)
        right = np.where(none, first > end, (late > -1e-9) & (late < h + 1e-9))
        spikes, other = spikes + len(labels), other + int((~right & (begins < end)).sum())
        sources = list(zip(own.tolist(), labels.tolist(), strict=True))
    return {"spikes": spikes, "other": other}


def _first_spikes(net: LIFNetwork, found: Any, k: int, sources: Any, starts: Any, end: float, h: float) -> np.ndarray:
    """Time of the first spike of neuron n from a state v at time t, for each (n, t, v) of `starts`; inf for none."""
    tau = net.tau_syn[0].detach().numpy()
    w, d = net.w_in[0].detach().numpy(), found[f"delays_{k}"]
    pre, time = np.array([m for m, _ in sources]), np.array([t for _, t in sources])
    i, v = np.zeros((len(starts), len(tau))), np.zeros((len(starts), len(tau)))
    events = []
    for b, (n, start, at) in enumerate(starts):
        arrives = time + h + d[n, pre] - start
        past = arrives < 0.0
        i[b, n], v[b, n] = (w[n, pre[past]] * np.exp(arrives[past] / tau[n])).sum(), at
        events.append([(t, m) for t, m in zip(arrives[~past].tolist(), pre[~past].tolist(), strict=True) if t <= end])
    plain = LIFNetwork(net.n_in, net.layers, dtype=F64, refractory=10.0 * end)
    state = {name: x for name, x in net.state_dict().items() if not name.startswith(("delays", "refractory"))}
    plain.load_state_dict(plain.state_dict() | state)
    x = SpikeTrains.from_list(events, n_neurons=net.n_in, t_max=end, dtype=F64)
    sol = adjsnn.solve(plain, x, t_end=end, y0=[LIFState(torch.from_numpy(v), torch.from_numpy(i))])
    first = sol.first_spike_times().detach().numpy()  # t_end where there is none
    first = np.where(sol.spike_counts().numpy() > 0, first, np.inf)
    return first[np.arange(len(starts)), [n for n, _, _ in starts]]


def _relative(ours: Tensor, theirs: Any) -> float:
    theirs = torch.tensor(theirs, dtype=F64)
    return float((ours - theirs).norm() / theirs.norm())


def _columns(found: dict[str, Any]) -> SpikeTrains:
    time = torch.tensor(found["inputs"], dtype=F64)
    return SpikeTrains(torch.tensor(found["neurons"]), time, len(found["w0"][0]), float(found["duration"]))


def _dense(found: dict[str, Any], **options: Any) -> LIFNetwork:
    net = LIFNetwork(len(found["w0"][0]), (len(found["w0"]), len(found["w1"])), dtype=F64, **options)
    with torch.no_grad():
        for k, w in enumerate(net.w_in):
            w.copy_(torch.tensor(found[f"w{k}"], dtype=F64))
    return net


def spikingjelly() -> dict[str, Any]:
    """timing_based.SRM: all spikes of both layers, and the gradient of the sum of squares of the output's."""
    found = json.loads((HERE / "spikingjelly_srm.json").read_text())
    net = _dense(found, leak=False, tau_syn=1e12)  # ms: a current that stays
    sol = adjsnn.solve(net, _columns(found), t_end=found["duration"], kernels="plain")
    gradients = torch.autograd.grad(sol.spike_times().square().sum(), list(net.w_in))
    figures = []
    for spikes, theirs in zip(sol.layer_spikes, (found["hidden"], found["out"]), strict=True):
        pairs = [
            (sorted((k, t) for t, k in a), sorted((k, t) for t, k in b)) for a, b in zip(spikes.to_list(), theirs, strict=True)
        ]
        figures.append(_compare(pairs))
    return {"layers": figures, "gradients": [_relative(g, found[f"d_w{k}"]) for k, g in enumerate(gradients)]}


def _compare(pairs: Any) -> dict[str, Any]:
    same = all([k for k, _ in a] == [k for k, _ in b] for a, b in pairs)
    off = [abs(x[1] - y[1]) for a, b in pairs for x, y in zip(a, b, strict=True)] if same else [np.inf]
    return {"spikes": sum(len(b) for _, b in pairs), "same": same, "largest": max(off)}


def jaxsnn() -> dict[str, Any]:
    """LIF layers: counts and first spikes of the outputs, and the gradient of the sum of squares of the latter."""
    found = json.loads((HERE / "jaxsnn_lif.json").read_text())
    net = _dense(found, **found["constants"])
    sol = adjsnn.solve(net, _columns(found), t_end=found["duration"])
    first = sol.first_spike_times()
    gradients = torch.autograd.grad(first.square().sum(), list(net.w_in))
    return {
        "spikes": int(np.sum(found["counts"])),
        "same": sol.spike_counts().tolist() == found["counts"],
        "largest": float((first.detach() - torch.tensor(found["first"], dtype=F64)).abs().max()),
        "gradients": [_relative(g, found[f"d_w{k}"]) for k, g in enumerate(gradients)],
    }


def eventax() -> dict[str, dict[str, Any]]:
    """LIF layers: all spikes of the outputs, and the gradient of the sum of squares of the first ones, by each solver."""
    found = json.loads((HERE / "eventax_lif.json").read_text())
    names = {"tmem": "tau_mem", "tsyn": "tau_syn", "thresh": "v_th"}
    net = _dense(found, **{names[name]: x for name, x in found["constants"].items()})
    time, idx = torch.tensor(found["inputs"], dtype=F64).sort(1)
    sol = adjsnn.solve(net, SpikeTrains(idx, time, net.n_in, found["duration"]), t_end=found["duration"])
    gradients = torch.autograd.grad(sol.first_spike_times().square().sum(), list(net.w_in))
    ours = [sorted((k, t) for t, k in row) for row in sol.layer_spikes[-1].to_list()]
    rows = {}
    for name, theirs in found["found"].items():
        listed = [[(k, t) for k, times in enumerate(sample) for t in sorted(times)] for sample in theirs["spikes"]]
        figures = _compare(list(zip(ours, listed, strict=True)))
        rows[name] = figures | {"gradients": [_relative(g, theirs[f"d_w{k}"]) for k, g in enumerate(gradients)]}
    return rows


def table() -> str:
    """The page of all comparisons."""
    nest, brian = arrays("nest_exp.npz"), arrays("brian2_layers.npz")
    tax, jax, srm = (json.loads((HERE / f"{x}.json").read_text()) for x in ("eventax_lif", "jaxsnn_lif", "spikingjelly_srm"))
    rows = []

    def row(name: str, files: str, what: str, spikes: object, same: object, off: str, gradients: Any = None) -> None:
        angle = "" if gradients is None else f"{max(gradients):.0e}"
        rows.append(f"| {name} | `{files}` | {what} | {spikes} | {same} | {off} | {angle} |")

    def yes(same: bool) -> str:
        return "all" if same else "not all"

    name, at = f"NEST {nest['nest']}, {nest['date']}", float(nest["step"])
    precise, grid = nest_precise(), nest_grid()
    what = f"`iaf_psc_exp_ps` at {at} ms, {precise['neurons']:,} random neurons, {float(nest['duration']):g} ms"
    row(name, "nest_exp", what, f"{precise['spikes']:,}", yes(precise["same"]), f"{precise['largest']:.0e} ms")
    what = f"`iaf_psc_exp` at {at} ms, the first spike of each neuron, by its label"
    row(name, "nest_exp", what, f"{grid['spikes']:,}", yes(grid["other"] == 0), "0")
    built = json.loads((HERE / "nest_layers.json").read_text())
    for case, layers in nest_layers().items():
        for k, one in enumerate(layers):
            what = f"`to_nest`, {case}, layer {k} of two{', recurrent' if k == 0 else ''}, {built['duration']:g} ms"
            off = f"{one['largest']:.0e} ms"
            row(f"NEST {built['nest']}, {built['date']}", "nest_layers", what, one["spikes"], yes(one["same"]), off)
    name = f"Brian2 {brian['brian2']}, {brian['date']}"
    for k, one in enumerate(brian2_whole()):
        off = f"{one['median']:.1f} steps, largest {one['largest']:.0f}"
        row(name, "brian2_layers", f"layer {k} of three at 1 µs", one["spikes"], yes(one["same"]), off)
    one = brian2_intervals()
    row(name, "brian2_layers", "each spike from the one before it", one["spikes"], yes(one["other"] == 0), "within its step")
    name, found = f"SpikingJelly {srm['spikingjelly']}, {srm['date']}", spikingjelly()
    for k, one in enumerate(found["layers"]):
        what, off = f"`timing_based.SRM`, layer {k} of two", f"{one['largest']:.0e} ms"
        row(name, "spikingjelly_srm", what, one["spikes"], yes(one["same"]), off, [found["gradients"][k]])
    one = jaxsnn()
    what, off = "LIF, τ_m = 2 τ_s; first spikes of the outputs", f"{one['largest']:.0e} ms"
    row(f"jaxsnn {jax['jaxsnn']}, {jax['date']}", "jaxsnn_lif", what, one["spikes"], yes(one["same"]), off, one["gradients"])
    for solver, one in eventax().items():
        what, off = f"LIF, outputs, {solver}", f"{one['largest']:.0e} ms"
        row(
            f"eventax {tax['eventax']}, {tax['date']}",
            "eventax_lif",
            what,
            one["spikes"],
            yes(one["same"]),
            off,
            one["gradients"],
        )
    return "\n".join([HEAD, *rows, FOOT, f"Compared {date.today()} with torch {torch.__version__}, in float64."]) + "\n"


HEAD = """# Beside other simulators

Written by `python crossval/compare.py --write`. Networks, spikes and gradients of the other simulators are in
[crossval/](../crossval/README.md), each made by the script beside it. "The same" says whether every neuron has as many spikes,
in the same order; then how far their times are from adjsnn's, and relatively the gradients, of the worse of two matrices.

| simulator | file | what | its spikes | the same | largest difference | gradients |
|---|---|---|---|---|---|---|"""
FOOT = """
Of Brian2 the median and the largest difference are given. A spike is late by a part of its step and of those of the spikes
before it, and by more where a threshold is barely reached; from one spike to the next, by the rules of
[simulators.md](simulators.md), each is in the step that Brian2 names. Euler steps of eventax are of 0.02 and 0.01 ms; Tsit5 has
a tolerance of 1e-10, and a root finder of 1e-12 in place of its default.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="adjsnn against recorded spikes of other simulators.")
    parser.add_argument("--write", action="store_true", help="write docs/crossvalidation.md")
    page = table()
    print(page)
    if parser.parse_args().write:
        (HERE.parent / "docs" / "crossvalidation.md").write_text(page)


if __name__ == "__main__":
    main()
