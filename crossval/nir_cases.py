"""Networks that NIR carries to other programs, and what they made of them, beside adjsnn.

python crossval/nir_cases.py graphs FOLDER    writes the graphs, their input and what is known of them
python crossval/nir_cases.py table            writes the table of docs/nir.md from crossval/nir_peers.json
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch

import adjsnn
from adjsnn.interop import to_nir

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "nir.md"
BEGIN, END = "<!-- written by crossval/nir_cases.py -->", "<!-- end -->"
T_END = 100.0  # ms
PROGRAMS = ("norse", "snntorch", "spikingjelly", "rockpool")
STEPS = (0.1, 0.02, 0.005)
# Options of LIFNetwork, and the programs that take such a network.
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "one layer": ({"layers": [8]}, PROGRAMS),
    "two layers": ({"layers": [8, 4]}, PROGRAMS),
    "recurrent": ({"layers": [8], "recurrent": True}, ("norse", "spikingjelly")),
    "reset to -0.5": ({"layers": [8], "v_reset": -0.5}, ("spikingjelly",)),
    "unlike neurons": (
        {"layers": [6], "tau_mem": [8.0, 12.0, 16.0, 20.0, 24.0, 28.0], "tau_syn": [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]},
        ("norse", "rockpool"),
    ),
}
GAINS = np.geomspace(1e-3, 1e4, 701)  # of weights of as many neurons that get one spike: the first to fire tells a factor


def network(case: str, state: dict[str, Any] | None = None) -> adjsnn.LIFNetwork:
    """A network of CASES, with its weights from `state`, or drawn."""
    options, _ = CASES[case]
    net = adjsnn.LIFNetwork(3, dtype=torch.float64, generator=torch.Generator().manual_seed(5), **options)
    if state is not None:
        net.load_state_dict({name: torch.tensor(x, dtype=torch.float64) for name, x in state.items()})
    return net


def one_spike() -> adjsnn.LIFNetwork:
    """A neuron for each of GAINS, in units of the weight whose one spike just makes a neuron fire."""
    net = adjsnn.LIFNetwork(1, [len(GAINS)], dtype=torch.float64)
    with torch.no_grad():
        net.w_in[0].copy_(torch.from_numpy(GAINS)[:, None] * critical())
    return net


def critical() -> float:
    """The weight that lifts v by 1, τ 20 and 5 ms: 1/K of (2.3) at its maximum."""
    return float(4.0 ** (4.0 / 3.0))


def spikes(net: adjsnn.LIFNetwork, events: list[Any]) -> list[list[float]]:
    """Spike times of the last layer, of each neuron, ms. All start at their reset, as SpikingJelly has it."""
    x = adjsnn.SpikeTrains.from_list([events], n_neurons=net.n_in, t_max=T_END, dtype=torch.float64)
    rest = net.initial_state(1)
    y0 = [state._replace(v=state.v + reset.detach()) for state, reset in zip(rest, net.v_reset, strict=True)]
    rows = adjsnn.solve(net, x, t_end=T_END, y0=y0).layer_spikes[-1].to_list()[0]
    return [[float(t) for t, n in rows if n == k] for k in range(net.layers[-1])]


def plain_graph(net: adjsnn.LIFNetwork) -> nir.NIRGraph:
    """The same weights with r = w_in = 1, as a graph that was made by hand."""
    n = len(GAINS)
    one, none = np.ones(n), np.zeros(n)
    neuron = nir.CubaLIF(tau_syn=0.005 * one, tau_mem=0.02 * one, r=one, v_leak=none, v_threshold=one, v_reset=none, w_in=one)
    nodes = {
        "input": nir.Input({"input": np.array([1])}),
        "weight": nir.Linear(net.w_in[0].detach().numpy()),
        "neuron": neuron,
        "output": nir.Output({"output": np.array([n])}),
    }
    return nir.NIRGraph(nodes, [("input", "weight"), ("weight", "neuron"), ("neuron", "output")], metadata={})


def write_graphs(folder: Path) -> None:
    generator = torch.Generator().manual_seed(7)
    ticks = torch.randint(10, 900, (3, 9), generator=generator)  # of 0.1 ms, on every grid
    events = sorted([round(0.1 * int(k), 1), m] for m in range(3) for k in ticks[m])
    known: dict[str, Any] = {"t_end": T_END, "events": events, "networks": {}, "runs": []}
    for case, (_, programs) in CASES.items():
        net = network(case)
        known["networks"][case] = {name: x.tolist() for name, x in net.state_dict().items()}
        for target in programs:
            for dt in STEPS if target != "snntorch" else STEPS[:1]:
                add(folder, known, case, target, dt, to_nir(net, target=target, dt=dt))
    for target in PROGRAMS:
        add(folder, known, "one spike", target, 0.1, to_nir(one_spike(), target=target, dt=0.1))
        add(folder, known, "one spike, r = w_in = 1", target, 0.1, plain_graph(one_spike()))
    (folder / "cases.json").write_text(json.dumps(known))


def add(folder: Path, known: dict[str, Any], case: str, target: str, dt: float, graph: nir.NIRGraph) -> None:
    name = f"{len(known['runs'])}.nir"
    nir.write(folder / name, graph)
    known["runs"].append({"file": name, "case": case, "target": target, "dt": dt, "digest": digest(graph)})


def digest(graph: nir.NIRGraph) -> str:
    """Of all numbers of a graph."""
    numbers = hashlib.sha256()
    for name, node in sorted(graph.nodes.items()):
        for field, x in sorted(vars(node).items()):
            if isinstance(x, np.ndarray):
                numbers.update(f"{name}.{field}".encode() + x.tobytes())
    return numbers.hexdigest()[:16]


def compared(run: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Ours beside theirs: numbers of spikes, and how far apart spikes of neurons are that fire as often in both."""
    ours = spikes(network(run["case"], found["networks"][run["case"]]), found["events"])
    theirs = [[k * run["dt"] for k in row] for row in run["spikes"]]
    alike = [(a, b) for a, b in zip(ours, theirs, strict=True) if len(a) == len(b)]
    first = [abs(a[0] - b[0]) for a, b in zip(ours, theirs, strict=True) if a and b]
    apart = [abs(s - t) for a, b in alike for s, t in zip(a, b, strict=True)]
    return {
        "ours": sum(map(len, ours)),
        "theirs": sum(map(len, theirs)),
        "alike": len(alike),
        "neurons": len(ours),
        "first": max(first, default=0.0) / run["dt"],
        "median": float(np.median(apart)) if apart else None,
        "apart": max(apart, default=None),
    }


def factor(run: dict[str, Any]) -> str:
    """By how much the effect of a spike is larger than here."""
    if "refused" in run:
        return "refused"
    return f"{1.0 / GAINS[run['fired']]:.2g}" if run["fired"] is not None else "< 1e-4"


def table(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        f"{versions}; {found['date']}. First spikes of all neurons; all spikes of neurons that fire as often in both.",
        "",
        "| network | program | step | spikes, theirs and ours | neurons that fire as often | first spikes apart, largest "
        "| all spikes apart, median and largest |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in found["runs"]:
        if run["case"] in CASES:
            head = f"| {run['case']} | {run['target']} | {run['dt']:g} ms |"
            if "refused" in run:
                lines.append(f"{head} refused: {run['refused']} | | | |")
                continue
            x = compared(run, found)
            counts = f"{x['theirs']}, {x['ours']} | {x['alike']} of {x['neurons']}"
            apart = "" if x["apart"] is None else f"{x['median']:.3f}, {x['apart']:.2f} ms"
            lines.append(f"{head} {counts} | {x['first']:.1f} steps | {apart} |")
    lines += [
        "",
        "What one spike does to a neuron (τ_m 20 ms, τ_s 5 ms) at a step of 0.1 ms, in units of what the same weight does "
        "here, to 2 %:",
        "",
        "| graph | " + " | ".join(PROGRAMS) + " |",
        "|---|" + "---|" * len(PROGRAMS),
    ]
    for case in ("one spike", "one spike, r = w_in = 1"):
        runs = {run["target"]: run for run in found["runs"] if run["case"] == case}
        name = "`to_nir(net, target=..., dt=0.1)`" if case == "one spike" else "the same weights with r = w_in = 1"
        lines.append(f"| {name} | " + " | ".join(factor(runs[target]) for target in PROGRAMS) + " |")
    return "\n".join(lines)


def page() -> str:
    """The page with the table that the results give."""
    before, rest = PAGE.read_text().split(BEGIN)
    return f"{before}{BEGIN}\n\n{table(json.loads((HERE / 'nir_peers.json').read_text()))}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["graphs"]:
        write_graphs(Path(sys.argv[2]))
    else:
        PAGE.write_text(page())
