"""Networks to and from NIR. What a graph means is judged by a simulation of its nodes by their equations, in small steps."""

from pathlib import Path

import nir
import numpy as np
import pytest
import torch

from adjsnn import LIFNetwork, SpikeTrains, solve
from adjsnn.interop import from_nir, to_nir

CASES = {
    "layers": ({}, {}),
    "all": (
        {"recurrent": (True, False), "n_out": 2, "tau_out": 17.3, "delays": (0.37, None), "rec_delays": (1.23, None),
         "tau_mem": ([3.1, 7.7, 12.9, 20.3, 33.3], [9.1, 8.3, 21.7]), "bias": 0.13, "v_reset": -0.31, "v_th": (0.9, 1.3)},
        {},
    ),
    "no leak": ({"leak": False, "recurrent": True, "tau_syn": 6.1}, {"spike": "jump"}),
    "currents": ({"bias": 0.2, "leak": (False, True)}, {"inputs": "currents"}),
    "currents, leak": ({"bias": 0.2, "tau_mem": 7.3}, {"inputs": "currents"}),
    "only integrates": ({"v_th": (1.0, 1e30)}, {"spike": "sample", "dt": 0.7}),
    "norse": ({"tau_mem": ([3.1, 7.7, 12.9, 20.3, 33.3], 9.7), "recurrent": True}, {"target": "norse", "dt": 0.3}),
    "snntorch": ({"v_th": (1.1, 0.7)}, {"target": "snntorch", "dt": 0.1}),
    "spikingjelly": ({"recurrent": True, "v_reset": -0.7}, {"target": "spikingjelly", "dt": 0.13}),
    "rockpool": ({"tau_syn": 3.7}, {"target": "rockpool", "dt": 0.1}),
}  # fmt: skip


def network(dtype=torch.float64, **options):
    return LIFNetwork(4, (5, 3), dtype=dtype, generator=torch.Generator().manual_seed(3), **options)


def trains(n=4, t_max=40.0):
    generator = torch.Generator().manual_seed(4)
    events = [(float(t), k) for k in range(n) for t in torch.rand(8, generator=generator) * t_max]
    return SpikeTrains.from_list([events], n_neurons=n, t_max=t_max, dtype=torch.float64)


def same_networks(a, b):
    one, two = a.state_dict(), b.state_dict()
    assert one.keys() == two.keys()
    for name, x in one.items():
        assert x.dtype == two[name].dtype
        assert torch.equal(x, two[name]), name
    assert (a.n_in, a.layers, a.recurrent, a.structure, a.n_out) == (b.n_in, b.layers, b.recurrent, b.structure, b.n_out)
    if a.n_out is not None:
        assert a.tau_out == b.tau_out


def same_graphs(a, b):
    assert {*a.edges} == {*b.edges}
    assert a.nodes.keys() == b.nodes.keys()
    for name, node in a.nodes.items():
        one, two = node.to_dict(), b.nodes[name].to_dict()
        one.pop("metadata", None), two.pop("metadata", None)
        assert one.keys() == two.keys()
        for field, x in one.items():
            assert np.array_equal(x, two[field]), (name, field)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_a_network_comes_back_to_the_bit_from_memory_and_file(case, dtype, tmp_path):
    options, words = CASES[case]
    net = network(dtype, **options)
    graph = to_nir(net, **words)
    path = tmp_path / "net.nir"
    nir.write(path, graph)
    same_networks(net, from_nir(graph))
    same_networks(net, from_nir(path))
    same_networks(net, from_nir(str(path)))
    same_graphs(graph, to_nir(from_nir(path), **words))


@pytest.mark.parametrize("seed", range(3))
def test_any_float64_comes_back(seed, tmp_path):
    """Where a quotient or a time in s does not give the number back, it is kept beside."""
    generator = torch.Generator().manual_seed(seed)
    tau = tuple((torch.rand(n, generator=generator, dtype=torch.float64) * 30.0 + 2.0) for n in (40, 30))
    net = LIFNetwork(20, (40, 30), True, tau, delays=(torch.rand(20, generator=generator).double(), None), n_out=2,
                     tau_out=float(tau[0][0]), dtype=torch.float64, generator=generator)  # fmt: skip
    nir.write(tmp_path / "a.nir", to_nir(net, spike="sample", dt=0.37))
    same_networks(net, from_nir(tmp_path / "a.nir"))


def test_spikes_of_a_network_that_comes_back_are_the_same():
    net = network(**CASES["all"][0])
    with torch.no_grad():
        for w in net.w_in:
            w.mul_(3.0)
    one, two = (solve(x, trains(), t_end=40.0) for x in (net, from_nir(to_nir(net))))
    for a, b in zip(one.layer_spikes, two.layer_spikes, strict=True):
        assert len(a) > 10
        assert torch.equal(a.time, b.time)
        assert torch.equal(a.idx, b.idx)


def test_a_network_without_random_numbers_leaves_those_of_torch():
    state = torch.random.get_rng_state()
    from_nir(to_nir(network()))
    assert torch.equal(state, torch.random.get_rng_state())


def simulated(graph, inputs, t_end, h, spike, dt=None, currents=None):
    """Every node by its own equation, Euler steps of h s; spikes of nodes, (time in ms, neuron), and v of the last step."""
    nodes = graph.nodes
    before = {name: [a for a, b in graph.edges if b == name] for name in nodes}
    size = {name: len(np.atleast_1d(node.r)) for name, node in nodes.items() if hasattr(node, "r")}
    v, current = ({name: np.zeros(n) for name, n in size.items()} for _ in "vi")
    given = {name: [] for name in nodes}  # what each neuron gave, by step
    fired = {name: [] for name in nodes}
    n_in = int(nodes["input"].input_type["input"][0])
    rows = np.zeros((round(t_end / h), n_in))
    for t, k in inputs:
        rows[round(t / 1e3 / h), k] += 1.0

    def value(name, step):
        """Spikes of this step as counts, through linear nodes; constants of biases beside."""
        node = nodes[name]
        if name == "input":
            row = rows[step] if 0 <= step < len(rows) else np.zeros(n_in)
            return (row, np.zeros(n_in)) if currents is None else (np.zeros(n_in), currents)
        if name in size:
            out = given[name][step] if 0 <= step < len(given[name]) else np.zeros(size[name])
            return out, np.zeros(size[name])
        if isinstance(node, nir.Delay):
            shifts = np.round(node.delay / h).astype(int)
            parts = [received(name, step - d) for d in shifts]
            return tuple(np.array([part[k][n] for n, part in enumerate(parts)]) for k in range(2))
        s, c = received(name, step)
        if isinstance(node, nir.Scale):
            return node.scale * s, node.scale * c
        return node.weight @ s, node.weight @ c + (node.bias if isinstance(node, nir.Affine) else 0.0)

    def received(name, step):
        parts = [value(x, step) for x in before[name]]
        return sum(x for x, _ in parts), sum(c for _, c in parts)

    def jump(tau):
        return {"impulse": 1.0 / tau, "jump": np.ones_like(tau), "sample": (dt or 0.0) / 1e3 / tau}[spike]

    for step in range(len(rows)):
        news = {}
        for name, n in size.items():
            node = nodes[name]
            tau = getattr(node, "tau_mem", getattr(node, "tau", None))
            feeding = [x for x in before[name] if isinstance(nodes[x], nir.LI)]
            if hasattr(node, "tau_syn"):
                s, c = received(name, step - 1)
                current[name] += h / node.tau_syn * (node.w_in * c - current[name]) + node.w_in * jump(node.tau_syn) * s
                drive = node.r * current[name]
            elif feeding:
                drive = node.r * v[feeding[0]]
            else:
                s, c = received(name, step - 1)
                drive = node.r * c
                v[name] += node.r * jump(tau) * s if tau is not None else 0.0
            leak = drive if tau is None else (node.v_leak - v[name] + drive) / tau
            v[name] = v[name] + h * leak
            z = v[name] > node.v_threshold if hasattr(node, "v_threshold") else np.zeros(n, bool)
            if z.any():
                v[name] = np.where(z, node.v_reset, v[name])
                fired[name] += [(1e3 * h * step, int(k)) for k in np.flatnonzero(z)]
            news[name] = z.astype(float)
        for name, z in news.items():
            given[name].append(z)
    return fired, v


def spikes_agree(sol, layer, fired, ms, least=5):
    ours = sorted((k, t) for t, k in sol.layer_spikes[layer].to_list()[0])
    theirs = sorted((k, t) for t, k in fired)
    assert len(ours) >= least
    assert [k for k, _ in ours] == [k for k, _ in theirs]
    assert max(abs(a - b) for (_, a), (_, b) in zip(ours, theirs, strict=True)) < ms


@pytest.mark.parametrize(
    "spike", ["impulse", pytest.param("jump", marks=pytest.mark.slow), pytest.param("sample", marks=pytest.mark.slow)]
)
def test_a_graph_means_what_its_equations_say(spike):
    """r, w_in, v_leak, v_reset and thresholds of any value; recurrent, with delays. Euler steps of 20 µs: 0.5 ms is
    what late spikes add up to, and a wrong factor changes their number."""
    dt = 0.5 if spike == "sample" else None
    r, w_in = np.array([2.0, 0.7, 1.3]), np.array([0.5, 1.9, 1.1])
    tau_syn, tau_mem = np.array([4e-3, 6e-3, 5e-3]), np.array([15e-3, 20e-3, 11e-3])
    scale = {"impulse": tau_syn, "jump": np.ones(3), "sample": tau_syn / 5e-4}[spike] / (r * w_in)
    weight = np.array([[2.9, 1.2, 0.8, 1.1], [0.7, 3.1, 1.4, 0.9], [1.3, 0.4, 2.7, 1.8]]) * scale[:, None]
    neuron = nir.CubaLIF(
        tau_syn, tau_mem, r, np.array([0.2, -0.1, 0.05]), np.array([1.0, 0.8, 1.2]), np.array([-0.3, 0.1, 0.0]), w_in
    )
    nodes = {
        "late": nir.Delay(np.array([1.2e-3, 0.0, 2e-3, 0.4e-3])), "z": nir.Output({"output": np.array([3])}), "a": neuron,
        "w": nir.Linear(weight), "back": nir.Linear(-0.4 * scale[:, None] * (1.0 - np.eye(3))),
        "input": nir.Input({"input": np.array([4])}),
    }  # fmt: skip
    edges = [("a", "z"), ("back", "a"), ("a", "back"), ("w", "a"), ("late", "w"), ("input", "late")]
    graph = nir.NIRGraph(nodes, edges, metadata={})
    net = from_nir(graph, spike=spike, dt=dt, dtype=torch.float64)
    x = trains()
    fired, _ = simulated(graph, x.to_list()[0], 0.04, 2e-5, spike, dt)
    spikes_agree(solve(net, x, t_end=40.0), 0, fired["a"], 0.5)
    assert net.bias[0].tolist() == [0.2, -0.1, 0.05]
    assert net.v_reset[0].tolist() == [-0.3, 0.1, 0.0]


def test_no_leak_and_a_readout_mean_what_their_equations_say():
    """The readout is off by what spikes are off over τ_out, some percent of it."""
    net = LIFNetwork(
        4, 3, leak=False, n_out=2, tau_out=9.0, tau_syn=4.0, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        net.w_in[0].abs_().mul_(1.5)
    graph = to_nir(net)
    assert {type(x).__name__ for x in graph.nodes.values()} == {"Input", "Linear", "LI", "IF", "Output"}
    x = trains()
    fired, v = simulated(graph, x.to_list()[0], 0.04, 1e-5, "impulse")
    sol = solve(net, x, t_end=40.0, ts=torch.tensor([0.0, 40.0]))
    spikes_agree(sol, 0, fired["layer0"], 0.5)
    np.testing.assert_allclose(v["readout"], sol.readout[-1, 0].detach(), rtol=0.1)


@pytest.mark.parametrize("leak", [True, False])
def test_currents_mean_what_their_equations_say(leak):
    """Constant currents; the bias is v_leak, or that of an Affine node without leak."""
    net = LIFNetwork(2, 3, leak=leak, bias=[0.3, 0.1, 0.2] if leak else [0.03, 0.01, 0.02], tau_mem=8.0, dtype=torch.float64)
    with torch.no_grad():
        net.w_in[0].copy_(torch.tensor([[1.0, 0.8], [0.9, 1.3], [2.0, 0.5]]) * (1.0 if leak else 0.1))
    graph = to_nir(net, inputs="currents")
    u = np.array([1.13, 0.7])
    fired, _ = simulated(graph, [], 0.04, 2e-5, "impulse", currents=u)
    sol = solve(from_nir(graph), torch.from_numpy(np.tile(u, (40, 1, 1))), dt=1.0)
    spikes_agree(sol, 0, fired["layer0"], 0.5, least=10)


def cuba(n=2, kind=nir.CubaLIF, **other):
    one = np.ones(n)
    values = {"tau_syn": 0.005 * one, "tau_mem": 0.02 * one, "r": one, "v_leak": 0.0 * one, "w_in": one}
    values |= {"v_threshold": one, "v_reset": 0.0 * one} if kind is nir.CubaLIF else {}
    return kind(**(values | other))


def graph_of(nodes, edges, n_in=2, n_out=2):
    ends = {"input": nir.Input({"input": np.array([n_in])}), "output": nir.Output({"output": np.array([n_out])})}
    return nir.NIRGraph(ends | nodes, edges, metadata={}, type_check=False)


def test_one_spike_lifts_one_neuron_as_known():
    """r = w_in = 1, τ 20 and 5 ms: 0.1575 where a spike is a jump of 1; an impulse of 1 s is 200 times as much."""
    graph = graph_of(
        {"w": nir.Linear(np.eye(2)), "n": cuba(v_threshold=np.full(2, 1e3))}, [("input", "w"), ("w", "n"), ("n", "output")]
    )
    x = SpikeTrains.from_list([[(1.0, 0)]], n_neurons=2, t_max=60.0, dtype=torch.float64)
    for words, peak in (({"spike": "jump"}, 0.1575), ({"spike": "impulse"}, 31.5), ({"spike": "sample", "dt": 0.1}, 0.00315)):
        sol = solve(from_nir(graph, dtype=torch.float64, **words), x, t_end=60.0)
        assert sol.voltage_max()[0, 0].item() == pytest.approx(peak, rel=1e-3)


def test_a_bias_before_a_synapse_rises_or_is_there_from_the_start():
    """It is refused without a word; what it is in the long run is the bias, and i(0) minus it is the graph from I = 0."""
    w, c = np.array([[3.0, 1.0], [0.5, 2.0]]), np.array([1.4, 1.2])
    graph = graph_of(
        {"w": nir.Affine(w, c), "n": cuba(w_in=np.array([1.0, 1.5]))}, [("input", "w"), ("w", "n"), ("n", "output")]
    )
    net = from_nir(graph, spike="jump", affine_bias="steady", dtype=torch.float64)
    assert net.bias[0].tolist() == pytest.approx([1.4, 1.8])
    start = net.initial_state(1)
    start = [start[0]._replace(i=start[0].i - net.bias[0].detach())]
    x = trains(2)
    fired, _ = simulated(graph, x.to_list()[0], 0.04, 2e-5, "jump")
    spikes_agree(solve(net, x, t_end=40.0, y0=start), 0, fired["n"], 0.5)


def test_subgraphs_and_linear_nodes_in_a_row():
    """A recurrent layer in a graph of its own, as snnTorch and nirtorch write it; scales and delays on the way."""
    inner = nir.NIRGraph(
        {"in": nir.Input({"input": np.array([2])}), "lif": cuba(), "rec": nir.Linear(np.array([[0.0, -1.0], [-2.0, 0.0]])),
         "out": nir.Output({"output": np.array([2])})},
        [("in", "lif"), ("lif", "rec"), ("rec", "lif"), ("lif", "out")], metadata={}, type_check=False,
    )  # fmt: skip
    nodes = {
        "a": nir.Linear(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])), "s": nir.Scale(np.array([10.0, 100.0])),
        "d": nir.Delay(np.array([1e-3, 2e-3])), "e": nir.Delay(np.array([5e-4, 0.0, 0.0])), "layer": inner,
    }  # fmt: skip
    edges = [("input", "e"), ("e", "a"), ("a", "s"), ("s", "d"), ("d", "layer"), ("layer", "output")]
    net = from_nir(graph_of(nodes, edges, n_in=3), spike="jump", dtype=torch.float64)
    assert net.w_in[0].tolist() == [[10.0, 20.0, 30.0], [400.0, 500.0, 600.0]]
    assert net.w_rec[0].tolist() == [[0.0, -1.0], [-2.0, 0.0]]
    np.testing.assert_allclose(net.delays[0].detach(), [[1.5, 1.0, 1.0], [2.5, 2.0, 2.0]], rtol=1e-15)


def test_two_ways_add_up_and_edges_without_weights_are_ones():
    nodes = {
        "a": nir.Linear(np.array([[1.0, 2.0], [3.0, 4.0]])),
        "b": nir.Linear(np.eye(2)),
        "n": cuba(),
        "li": cuba(kind=nir.CubaLI),
    }
    edges = [("input", "a"), ("input", "b"), ("a", "n"), ("b", "n"), ("n", "li"), ("li", "output")]
    net = from_nir(graph_of(nodes, edges), spike="jump", dtype=torch.float64)
    assert net.w_in[0].tolist() == [[2.0, 2.0], [3.0, 5.0]]
    assert net.w_in[1].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert net.v_th[1].tolist() == [1e30] * 2


def test_parameters_of_one_number_are_those_of_every_neuron():
    one = {"tau_syn": 0.005, "tau_mem": 0.02, "r": 1.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": -0.5}
    for shape in ((), (1,)):
        neuron = nir.CubaLIF(**{name: np.full(shape, x) for name, x in one.items()})
        net = from_nir(
            graph_of({"w": nir.Linear(np.eye(2)), "n": neuron}, [("input", "w"), ("w", "n"), ("n", "output")]), spike="jump"
        )
        assert net.layers == (2,)
        assert net.v_reset[0].tolist() == [-0.5, -0.5]


def test_a_layer_that_only_integrates():
    """CubaLI: v of the last layer, without spikes."""
    net = network(v_th=(0.5, 1e30))
    with torch.no_grad():
        net.w_in[1].copy_(torch.linspace(-1.0, 1.0, 15, dtype=torch.float64).view(3, 5))  # they start in units of the threshold
    graph = to_nir(net)
    assert type(graph.nodes["layer1"]) is nir.CubaLI
    x = trains()
    sol = solve(from_nir(graph), x, t_end=40.0, ts=torch.tensor([0.0, 40.0]))
    fired, v = simulated(graph, x.to_list()[0], 0.04, 2e-5, "impulse")
    spikes_agree(sol, 0, fired["layer0"], 0.5)
    np.testing.assert_allclose(v["layer1"], sol.v[1][-1, 0].detach(), rtol=0.01, atol=0.01)


def test_numbers_that_were_kept_yield_to_a_graph_that_was_changed():
    net = network(n_out=1)
    graph = to_nir(net, target="equation", spike="sample", dt=0.37)
    graph.nodes["layer0_weight"].weight = 2.0 * graph.nodes["layer0_weight"].weight
    assert torch.allclose(from_nir(graph).w_in[0], 2.0 * net.w_in[0], rtol=1e-14, atol=0.0)
    for node in graph.nodes.values():
        node.metadata = {"adjsnn": {"w_in": "nonsense", "tau_mem": np.zeros(1), "v_th": np.full(5, np.nan)}}
    assert torch.allclose(from_nir(graph).w_in[0], 2.0 * net.w_in[0], rtol=1e-14, atol=0.0)


def test_what_a_program_reads_is_always_written(tmp_path):
    path = Path(tmp_path / "net.nir")
    nir.write(path, to_nir(network(), target="norse", dt=0.2))
    graph = nir.read(path)
    neuron = graph.nodes["layer0"]
    np.testing.assert_allclose((neuron.r[0], neuron.w_in[0], neuron.v_reset[0]), (100.0, 25.0, 0.0), rtol=1e-15)
    said = graph.metadata["adjsnn"]
    assert (said["unit_of_time"], said["spike"], float(said["dt_ms"]), said["target"]) == ("s", "sample", 0.2, "norse")


def test_the_example_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "nir.md").read_text()
    names = {}
    exec(page.split("```{code-cell}\n")[1].split("```")[0], names)
    same_networks(names["lif"], names["again"])
    assert nir.read("for_norse.nir").metadata["adjsnn"]["target"] == "norse"
