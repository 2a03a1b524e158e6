"""What NIR cannot say, what a program drops, and graphs that are no LIF network: each a typed error that says which."""

from itertools import pairwise

import nir
import numpy as np
import pytest
import torch

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork, Synapses
from adjsnn.interop import from_nir, to_nir

ONE = np.ones(2)
CUBA = {
    "tau_syn": 0.005 * ONE,
    "tau_mem": 0.02 * ONE,
    "r": ONE,
    "v_leak": 0.0 * ONE,
    "v_threshold": ONE,
    "v_reset": 0.0 * ONE,
    "w_in": ONE,
}
LIF = {"tau": 0.02 * ONE, "r": ONE, "v_leak": 0.0 * ONE, "v_threshold": ONE, "v_reset": 0.0 * ONE}
LI = {"tau": 0.02 * ONE, "r": ONE, "v_leak": 0.0 * ONE}
ROW = [("input", "w"), ("w", "n"), ("n", "output")]


def net(**options):
    return LIFNetwork(2, 2, **options)


def graph(nodes=None, edges=None, **metadata):
    whole = {
        "input": nir.Input({"input": np.array([2])}), "w": nir.Linear(np.eye(2)), "n": nir.CubaLIF(**CUBA),
        "output": nir.Output({"output": np.array([2])}),
    } | (nodes or {})  # fmt: skip
    return nir.NIRGraph(
        {k: x for k, x in whole.items() if x is not None}, ROW if edges is None else edges, metadata=metadata, type_check=False
    )


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (lambda: adjsnn.GatedSynapseNetwork(2, 3, 1), "GatedSynapseNetwork.*no node"),
        (lambda: torch.nn.Linear(2, 2), "net of type Linear"),
        (lambda: net(refractory=1.0), "refractory time in layer 0"),
        (lambda: net(receptors=2), "receptors in layer 0"),
        (lambda: net(reset="by"), "reset by a distance"),
        (lambda: net(tau_adapt=[50.0], jump_adapt=[-0.1]), "adaptation"),
        (lambda: net(tau_th=[50.0], jump_th=[0.1]), "threshold that moves"),
        (lambda: net(tau_follow=50.0, gain_follow=0.1), "threshold that moves"),
        (lambda: net(synapses=Synapses([0, 1], [1, 0])), "list of synapses"),
        (lambda: adjsnn.LIFConv2d((1, 4, 4), [adjsnn.Conv2d(2, 3)], recurrent=True), "recurrent weights of maps in layer 0"),
        (lambda: net(delays=torch.ones(2, 2)), "delays per synapse"),
        (lambda: net(recurrent=True, rec_delays=torch.ones(2, 2)), "recurrent delays per synapse"),
        (lambda: net(leak=False, bias=0.1), "bias without leak"),
    ],
)
def test_what_nir_cannot_say(made, match):
    with pytest.raises(ConfigurationError, match=match):
        to_nir(made())


@pytest.mark.parametrize(
    ("options", "words", "match"),
    [
        ({"delays": 1.0}, {"target": "norse"}, "delays in layer 0"),
        ({"recurrent": True, "rec_delays": 1.0}, {"target": "spikingjelly"}, "delays in layer 0"),
        ({"n_out": 1}, {"target": "norse"}, "readout"),
        ({"bias": 0.1}, {"target": "norse"}, "v_leak"),
        ({"v_reset": -0.1}, {"target": "norse"}, "v_reset"),
        ({"v_reset": -0.1}, {"target": "snntorch"}, "v_reset"),
        ({"v_reset": -0.1}, {"target": "rockpool"}, "v_reset"),
        ({"recurrent": True}, {"target": "snntorch"}, "recurrent weights"),
        ({"recurrent": True}, {"target": "rockpool"}, "recurrent weights"),
        ({"tau_mem": [10.0, 20.0]}, {"target": "snntorch"}, "unlike tau_mem"),
        ({"tau_syn": [3.0, 4.0]}, {"target": "spikingjelly"}, "unlike tau_syn"),
        ({"v_th": [1.0, 2.0]}, {"target": "snntorch"}, "unlike v_th"),
        ({"leak": False}, {"target": "norse"}, "no CubaLIF"),
        ({"v_th": 1e30}, {"target": "norse"}, "no CubaLIF"),
        ({"tau_syn": 0.05}, {"target": "rockpool"}, "tau_syn in layer 0 from 0.05"),
        ({}, {"target": "snntorch", "dt": 0.2}, "dt=0.2"),
        ({}, {"target": "norse", "dt": None}, "spike='sample' with dt=None"),
        ({}, {"target": "norse", "dt": None, "spike": "impulse"}, "samples of spikes"),
        ({}, {"target": "norse", "inputs": "currents"}, "samples of spikes"),
        ({}, {"target": "sinabs"}, "target='sinabs'"),
        ({}, {"target": "norse", "dt": -1.0}, "dt=-1.0"),
        ({}, {"target": "norse", "dt": float("nan")}, "dt=nan"),
        ({}, {"dt": 0.1}, "spike='impulse' with dt"),
        ({}, {"dt": None, "spike": "dirac"}, "spike='dirac'"),
        ({}, {"dt": None, "inputs": "voltages"}, "inputs='voltages'"),
        ({"recurrent": True}, {"dt": None, "inputs": "currents"}, "driven by currents"),
        ({"delays": 1.0}, {"dt": None, "inputs": "currents"}, "driven by currents"),
    ],
)
def test_what_a_program_would_drop_and_words_that_nobody_knows(options, words, match):
    with pytest.raises(ConfigurationError, match=match):
        to_nir(net(**options), **({"dt": 0.1} | words))


def test_numbers_that_are_not_finite_are_not_written():
    bad = net()
    with torch.no_grad():
        bad.w_in[0][0, 0] = float("nan")
    with pytest.raises(ConfigurationError, match="w_in.0. with entries that are not finite"):
        to_nir(bad)


def cycle():
    nodes = {"a": nir.Linear(np.eye(2)), "b": nir.Linear(np.eye(2))}
    return graph(nodes, [("input", "a"), ("b", "a"), ("a", "b"), ("a", "w"), *ROW[1:]])


def in_two_steps(**inner):
    """A subgraph in the place of the neurons."""
    nodes = {
        "i": nir.Input({"input": np.array([2])}),
        "l": nir.CubaLIF(**CUBA),
        "o": nir.Output({"output": np.array([2])}),
    } | inner
    edges = [("i", "l"), ("l", "o")]
    return nir.NIRGraph(nodes, edges, metadata={}, type_check=False)


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (lambda: graph({"n": nir.LIF(**LIF)}), "LIF node 'n'.*without a synapse"),
        (lambda: graph({"n": nir.IF(ONE, ONE, 0.0 * ONE)}), "IF node 'n'.*without a synapse"),
        (lambda: graph({"n": nir.Threshold(ONE)}), "'n' of type Threshold"),
        (lambda: graph({"f": nir.Flatten({"input": np.array([2])}, 0, -1)}), "nodes .'f'., which lead to no neuron"),
        (lambda: graph({"n": nir.I(ONE)}), "'n' of type I"),
        (cycle, "cycle through"),
        (lambda: graph(edges=ROW[1:]), "no edge into 'w'"),
        (lambda: graph(edges=ROW[:2]), "before its output"),
        (lambda: graph(edges=[*ROW, ("n", "gone")]), "edge .'n', 'gone'"),
        (lambda: graph(edges=[*ROW, ROW[0]]), "same edge twice"),
        (lambda: graph({"input": None}, ROW[1:]), "0 Input nodes"),
        (lambda: graph({"other": nir.Input({"input": np.array([2])})}, [*ROW, ("other", "w")]), "2 Input nodes"),
        (lambda: graph({"other": nir.Output({"output": np.array([2])})}, [*ROW, ("n", "other")]), "2 Output nodes"),
        (lambda: graph({"output": None}, ROW[:2]), "0 Output nodes"),
        (lambda: graph(edges=[*ROW, ("output", "w")]), "edge out of its Output"),
        (lambda: graph(edges=[*ROW, ("n", "input")]), "edge into its Input"),
        (lambda: graph({"w": nir.Linear(np.ones((3, 2)))}), r"tau_syn \(2,\) of 'n'"),
        (lambda: graph({"w": nir.Linear(np.ones((2, 5)))}), r"weight \(2, 5\) of 'w' on 2 values"),
        (lambda: graph({"w": nir.Affine(np.eye(2), np.ones(3))}), "bias"),
        (lambda: graph({"input": nir.Input({"input": np.array([1, 2, 2])})}), "on 1×2×2 values.*Flatten"),
        (lambda: graph({"w": nir.Linear(np.full((2, 2), np.nan))}), "weight of 'w'.*not finite"),
        (lambda: graph({"w": nir.Linear(np.array([["a", "b"], ["c", "d"]]))}), "weight of 'w'.*not finite"),
        (lambda: graph({"n": nir.CubaLIF(**CUBA | {"tau_mem": np.array([np.inf, 0.1])})}), "tau_mem of 'n'"),
        (lambda: graph({"n": nir.CubaLIF(**CUBA | {"tau_syn": np.array([-0.1, 0.1])})}), "tau_syn of 'n' from -0.1"),
        (lambda: graph({"n": nir.CubaLIF(**CUBA | {"v_reset": 2.0 * ONE})}), "v_reset up to 2"),
        (lambda: graph({"n": nir.CubaLIF(**CUBA | {"r": 0.0 * ONE, "v_threshold": -ONE})}), "v_reset up to 0"),
        (lambda: graph({"d": nir.Delay(-ONE)}, [("input", "d"), ("d", "w"), *ROW[1:]]), "delays of 'd'"),
        (lambda: graph({"w": nir.Affine(np.eye(2), ONE)}), "bias of an Affine node"),
        (lambda: graph({"idle": nir.Linear(np.eye(2))}, [*ROW, ("n", "idle")]), "idle"),
        (lambda: graph({"m": nir.CubaLIF(**CUBA)}, [*ROW, ("w", "m")]), "fed by 'input' alone"),
        (lambda: graph({"m": nir.CubaLIF(**CUBA)}, [*ROW[:2], ("n", "m"), ("w", "m"), ("m", "output")]), "layers in a row"),
        (lambda: graph({"m": nir.CubaLIF(**CUBA)}, [*ROW[:2], ("n", "m"), ("m", "n"), ("m", "output")]), "layers in a row"),
        (lambda: graph({"v": nir.Linear(np.eye(2))}, [*ROW[:2], ("n", "v"), ("v", "output")]), "before its output"),
        (lambda: graph({"n": None}, [("input", "w"), ("w", "output")]), "no neurons"),
        (lambda: graph({"n": nir.LI(**LI)}), "no neurons"),
        (lambda: graph({"s": nir.LI(**LI | {"v_leak": ONE}), "n": nir.LIF(**LIF)},
                       [("input", "w"), ("w", "s"), ("s", "n"), ROW[2]]), "v_leak of 's'"),
        (lambda: graph({"s": nir.LI(**LI), "n": nir.LIF(**LIF)}, [*ROW, ("w", "s"), ("s", "n")]), "one LI node"),
        (lambda: graph({"s": nir.LI(**LI)}, [("input", "w"), ("w", "s"), ("s", "n"), ROW[2]]), "LI node 's' before others"),
        (lambda: graph({"c": nir.CubaLI(**{k: v for k, v in CUBA.items() if k[:3] != "v_t" and k != "v_reset"})},
                       [("input", "w"), ("w", "c"), ("c", "n"), ROW[2]]), "CubaLI node 'c' before others"),
        (lambda: graph({"x": nir.LI(**LI | {"tau": np.array([0.1, 0.2])})}, [*ROW[:2], ("n", "x"), ("x", "output")]),
         "several tau"),
        (lambda: graph({"n": in_two_steps(o2=nir.Output({"output": np.array([2])}))}), "several or no Output"),
        (lambda: graph({"n": in_two_steps()}, [("input", "w"), ROW[2]]), "no edge into 'n.i'"),
        (lambda: graph({"n": in_two_steps(), "n.l": nir.Linear(np.eye(2))}), "both in a subgraph and beside it"),
        (lambda: graph(edges=[*ROW, None]), "an edge None"),
        (lambda: graph(edges=[*ROW, (["w"], "n")]), "an edge"),
        (lambda: graph({"w": nir.Linear(np.full((2, 2), 1e300))}), "w_in.0 has entries that are not finite"),
        (lambda: {"nodes": {}}, "graph of type dict"),
        (lambda: nir.CubaLIF(**CUBA), "graph of type CubaLIF"),
    ],
)  # fmt: skip
def test_graphs_that_are_no_lif_network(made, match):
    with pytest.raises(ConfigurationError, match=match):
        from_nir(made(), spike="jump")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({}, "does not say what a spike is"),
        ({"spike": "dirac"}, "spike='dirac'"),
        ({"spike": "sample"}, "dt=None"),
        ({"spike": "sample", "dt": 0.0}, "dt=0.0"),
        ({"spike": "jump", "dt": 0.1}, "spike='jump' with dt"),
        ({"spike": "jump", "inputs": "voltages"}, "inputs='voltages'"),
        ({"spike": "jump", "inputs": "currents"}, "currents into the synapse"),
        ({"spike": "jump", "affine_bias": "yes"}, "affine_bias='yes'"),
        ({"spike": "jump", "learn": ("colour",)}, "learn names"),
        ({"spike": "jump", "dtype": torch.float16}, "dtype"),
    ],
)
def test_words_of_the_way_in(words, match):
    with pytest.raises(ConfigurationError, match=match):
        from_nir(graph(), **words)


def test_metadata_and_arguments_that_differ():
    written = to_nir(net(), spike="sample", dt=0.5)
    for words in ({"spike": "impulse"}, {"dt": 0.1}, {"inputs": "currents"}):
        with pytest.raises(ConfigurationError, match="whose metadata say"):
            from_nir(written, **words)
    from_nir(written, spike="sample", dt=0.5, inputs="spikes")
    for said in (
        "nonsense",
        {"spike": np.zeros(3)},
        {"spike": "sample", "dt_ms": "x"},
        {"spike": "jump", "target": np.zeros(2)},
    ):
        written.metadata = {"adjsnn": said}
        if isinstance(said, dict) and said["spike"] is not None and "target" in said:
            from_nir(written)
        else:
            with pytest.raises(ConfigurationError):
                from_nir(written)


def test_files_that_hold_no_graph(tmp_path):
    good, path = tmp_path / "good.nir", tmp_path / "bad.nir"
    nir.write(good, to_nir(net()))
    whole = good.read_bytes()
    for content in (b"", b"not HDF5 at all", whole[: len(whole) // 2], whole[:600]):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match="no NIR graph in"):
            from_nir(path)
    with pytest.raises(ConfigurationError, match="no NIR graph in"):
        from_nir(tmp_path / "missing.nir")
    with pytest.raises(ConfigurationError, match="no NIR graph in"):
        from_nir(tmp_path)


@pytest.mark.parametrize(
    "gone", ["node/nodes/layer0/tau_mem", "node/nodes/layer0/type", "node/edges", "node", "node/nodes/input/shape"]
)
def test_files_that_lack_a_field(gone, tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "net.nir"
    nir.write(path, to_nir(net()))
    with h5py.File(path, "a") as file:
        del file[gone]
    with pytest.raises(ConfigurationError, match="no NIR graph in"):
        from_nir(path)


def test_a_file_with_a_node_of_the_future(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "net.nir"
    nir.write(path, to_nir(net()))
    with h5py.File(path, "a") as file:
        del file["node/nodes/layer0/type"]
        file["node/nodes/layer0/type"] = "Quantum"
    with pytest.raises(ConfigurationError, match="no NIR graph in"):
        from_nir(path)


def test_many_linear_nodes_in_a_row():
    names = ["input", *(f"w{k}" for k in range(3000)), "n", "output"]
    nodes = {name: nir.Linear(np.eye(2)) for name in names[1:-2]}
    with pytest.raises(ConfigurationError, match="too many nodes"):
        from_nir(graph(nodes | {"w": None}, [*pairwise(names)]), spike="jump")
