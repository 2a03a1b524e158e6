"""Convolutions and pooling to and from NIR. What a graph means is judged by torch's conv2d and pooling, as dense weights."""

from itertools import pairwise

import nir
import numpy as np
import pytest
import torch
from torch.nn import functional

from adjsnn import ConfigurationError, Conv2d, LIFConv2d, LIFNetwork, Pool2d, SpikeTrains, solve
from adjsnn.interop import from_nir, to_nir

F64 = torch.float64
SYNAPSES = Conv2d(2, 2).wiring((1, 3, 3))[0]
CASES = {
    "as usual": ((1, 6, 6), [Conv2d(3, 3), Pool2d(2), 4], {}, {}),
    "unlike sides": ((2, 7, 6), [Conv2d(3, (3, 2), stride=(2, 1), padding=(1, 0)), Pool2d((2, 3), stride=1)], {}, {}),
    "pooling first": ((2, 4, 4), [Pool2d(2), Conv2d(2, 2, padding=1), 3, 2], {"recurrent": [False, False, True, False]}, {}),
    "all else": (
        (1, 5, 5), [Conv2d(2, 3), 3],
        {"delays": (0.37, 1.3), "bias": 0.13, "v_reset": -0.31, "v_th": (0.9, 1.3), "tau_mem": (7.7, [3.1, 9.7, 12.9]),
         "n_out": 2},
        {},
    ),
    "delays of axons": ((1, 3, 3), [Conv2d(2, 2)], {"delays": torch.arange(9.0)[SYNAPSES.pre]}, {}),
    "readout of maps": ((1, 4, 4), [Conv2d(2, 3)], {"n_out": 2, "tau_out": 17.3}, {"spike": "sample", "dt": 0.7}),
    "dense first": ((1, 3, 3), [4], {"delays": 0.3}, {}),
    "no leak": ((1, 4, 4), [Conv2d(2, 2, stride=2), Pool2d(2)], {"leak": False}, {"spike": "jump"}),
    "currents": ((1, 4, 4), [Conv2d(2, 3), 3], {"bias": 0.2}, {"inputs": "currents"}),
    "unlike neurons": (
        (1, 4, 4), [Conv2d(2, 3)], {"v_th": [0.5 + 0.1 * k for k in range(8)], "tau_syn": [5.1 + k for k in range(8)]}, {},
    ),
}  # fmt: skip


def network(case, dtype=F64):
    shape, stack, options, words = CASES[case]
    return LIFConv2d(shape, stack, dtype=dtype, generator=torch.Generator().manual_seed(3), **options), words


def same_networks(a, b):
    one, two = a.state_dict(), b.state_dict()
    assert one.keys() == two.keys()
    for name, x in one.items():
        assert x.dtype == two[name].dtype
        assert torch.equal(x, two[name]), name
    assert (a.shape, a.stack, a.shapes) == (b.shape, b.stack, b.shapes)
    assert (a.recurrent, a.n_out, a.tau_out) == (b.recurrent, b.n_out, b.tau_out)


@pytest.mark.parametrize("dtype", [F64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_a_network_of_maps_comes_back_to_the_bit(case, dtype, tmp_path):
    net, words = network(case, dtype)
    graph = to_nir(net, **words)
    graph.check_types()
    nir.write(tmp_path / "net.nir", graph)
    same_networks(net, from_nir(graph))
    same_networks(net, from_nir(tmp_path / "net.nir"))
    if case != "unlike sides":  # nir itself takes kernels to be square, and does not read its file
        same_networks(net, from_nir(nir.read(tmp_path / "net.nir")))


def matrix(function, shape):
    """Weights (N, M) of a linear function of maps (1, C, H, W), column by column."""
    inputs = torch.eye(int(np.prod(shape)), dtype=F64).view(-1, 1, *shape)
    return torch.stack([function(x).flatten() for x in inputs], 1)


def trains(n, seed=4, t_max=40.0):
    generator = torch.Generator().manual_seed(seed)
    events = [(float(t), k) for k in range(n) for t in torch.rand(6, generator=generator) * t_max]
    return SpikeTrains.from_list([events], n_neurons=n, t_max=t_max, dtype=F64)


def same_spikes(net, weights, least=20):
    """As of a network of these dense weights; sums of equal weights in another order are off by rounding."""
    dense = LIFNetwork(weights[0].shape[1], [len(w) for w in weights], tau_mem=net.tau_mem[0][0].item(), dtype=F64)
    with torch.no_grad():
        for own, w in zip(dense.w_in, weights, strict=True):
            own.copy_(w)
    x = trains(weights[0].shape[1])
    one, two = (solve(lif, x, t_end=50.0) for lif in (net, dense))
    for a, b in zip(one.layer_spikes, two.layer_spikes, strict=True):
        assert len(a) > least
        assert torch.equal(a.idx, b.idx)
        torch.testing.assert_close(a.time, b.time, rtol=0.0, atol=1e-10)


def cuba(*shape, tau_mem=0.02):
    one = np.ones(shape)
    times = {"tau_mem": tau_mem * one, "tau_syn": 0.005 * one}
    return nir.CubaLIF(**times, r=one, v_leak=0.0 * one, v_threshold=one, v_reset=0.0 * one, w_in=one)


def row_of(first, *nodes, last):
    """A graph of nodes in a row."""
    named = {"input": nir.Input({"input": np.array(first)})} | {f"n{k}": x for k, x in enumerate(nodes)}
    named["output"] = nir.Output({"output": np.array(last)})
    return nir.NIRGraph(named, [*pairwise(named)], type_check=False)


def conv(weight, stride=1, padding=0, bias=None, dilation=1, groups=1, shape=None):
    bias = np.zeros(len(weight)) if bias is None else bias
    return nir.Conv2d(shape, np.asarray(weight), stride, padding, dilation, groups, bias)


def drawn(*shape, seed=0, mean=0.5):
    return mean + torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def pool(size=2, stride=None, padding=0, kind=nir.SumPool2d):
    return kind(np.array([size, size]), np.array([stride or size] * 2), np.array([padding] * 2))


@pytest.mark.parametrize(
    ("stride", "padding", "given"), [(1, 0, "valid"), (2, 1, 1), (1, 1, "same"), ((2, 1), (0, 1), (0, 1)), (1, 0, 0)]
)
def test_a_convolution_is_that_of_torch(stride, padding, given):
    w = drawn(3, 2, 3, 3)
    by_torch = matrix(lambda x: functional.conv2d(x, w, stride=stride, padding=padding), (2, 5, 4))
    maps = functional.conv2d(torch.zeros(1, 2, 5, 4, dtype=F64), w, stride=stride, padding=padding).shape[1:]
    net = from_nir(row_of((2, 5, 4), conv(w, stride, given), cuba(*maps), last=maps), spike="jump", dtype=F64)
    assert isinstance(net.stack[0], Conv2d)
    assert torch.equal(net.kernels(0), w)
    same_spikes(net, [by_torch])


@pytest.mark.parametrize("kind", [nir.SumPool2d, nir.AvgPool2d])
@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 1), (2, 3)])
def test_pooling_into_neurons_is_a_layer(kind, size, stride):
    scale = np.array([3.0, 5.0])[:, None, None]
    mean = 1.0 if kind is nir.AvgPool2d else size**2
    by_torch = matrix(lambda x: torch.from_numpy(scale) * mean * functional.avg_pool2d(x, size, stride), (2, 5, 6))
    maps = functional.avg_pool2d(torch.zeros(1, 2, 5, 6), size, stride).shape[1:]
    nodes = pool(size, stride, kind=kind), nir.Scale(np.broadcast_to(scale, maps).copy()), cuba(*maps)
    net = from_nir(row_of((2, 5, 6), *nodes, last=maps), spike="jump", dtype=F64)
    assert net.stack == (Pool2d(size, None if size == stride else stride),)
    same_spikes(net, [by_torch])


@pytest.mark.parametrize("padding", [0, 1])
def test_a_graph_as_other_programs_write_it(padding):
    """Pooling without neurons of its own: before a convolution it is a larger one, before a Linear node a larger matrix."""
    w0, w1 = drawn(2, 1, 3, 3, mean=0.4), drawn(3, 2, 2, 2, seed=1, mean=0.3)
    maps = functional.conv2d(torch.zeros(1, 2, 4, 4, dtype=F64), w1, padding=padding).shape[1:]
    flat, w2 = nir.Flatten({"input": np.array(maps)}, 0, -1), drawn(4, int(np.prod(maps)), seed=2, mean=0.2)
    nodes = (
        conv(w0, shape=(10, 10)), cuba(2, 8, 8), pool(), conv(w1, padding=padding), cuba(*maps),
        flat, nir.Linear(w2.numpy()), cuba(4),
    )  # fmt: skip
    net = from_nir(row_of((1, 10, 10), *nodes, last=(4,)), spike="jump", dtype=F64)
    assert net.shapes == ((2, 8, 8), tuple(maps), (4,))
    pooled = matrix(lambda x: functional.conv2d(4.0 * functional.avg_pool2d(x, 2), w1, padding=padding), (2, 8, 8))
    first = matrix(lambda x: functional.conv2d(x, w0), (1, 10, 10))
    same_spikes(net, [first, pooled, w2])


def test_pooling_before_a_linear_node_is_multiplied_out():
    w = drawn(3, 8)
    nodes = pool(), nir.Flatten({"input": np.array([2, 2, 2])}, 0, -1), nir.Linear(w.numpy()), cuba(3)
    net = from_nir(row_of((2, 4, 4), *nodes, last=(3,)), spike="jump", dtype=F64)
    same_spikes(net, [w @ matrix(lambda x: 4.0 * functional.avg_pool2d(x, 2), (2, 4, 4))])


def test_numbers_for_all_neurons_and_neurons_behind_neurons():
    one = cuba(1)
    net = from_nir(row_of((1, 4, 4), conv(drawn(2, 1, 3, 3)), one, cuba(2, 2, 2), last=(2, 2, 2)), spike="jump", dtype=F64)
    assert net.stack == (Conv2d(2, 3), Pool2d(1))
    assert net.w_in[1].tolist() == [1.0, 1.0]


def test_a_bias_of_currents():
    node = {"tau": 0.01, "r": 1.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0}
    lif = nir.LIF(**{k: np.full((2, 2, 2), v) for k, v in node.items()})
    graph = row_of((1, 3, 3), conv(drawn(2, 1, 2, 2), bias=np.array([0.3, -0.2])), lif, last=(2, 2, 2))
    net = from_nir(graph, spike="jump", inputs="currents", dtype=F64)
    assert net.bias[0].tolist() == [0.3] * 4 + [-0.2] * 4


W = drawn(2, 2, 3, 3).numpy()
REFUSED = {
    "dilation": ((conv(W, dilation=2), cuba(2, 1, 1)), "dilation .2, 2. and groups 1 of 'n0'"),
    "groups": ((conv(W[:, :1], groups=2), cuba(2, 3, 3)), r"dilation .1, 1. and groups 2 of 'n0'"),
    "groups of one": ((conv(W, groups=2), cuba(2, 3, 3)), "groups 2"),
    "same, even": ((conv(W[..., :2, :2], padding="same"), cuba(2, 5, 5)), "'same' of 'n0' with a kernel of .2, 2."),
    "padded pooling": ((pool(padding=1), cuba(2, 3, 3)), "padding .1 1. of the pooling 'n0'"),
    "padded mean": ((pool(padding=1, kind=nir.AvgPool2d), cuba(2, 3, 3)), "padding .1 1. of the pooling"),
    "another input": ((conv(W, shape=(7, 7)), cuba(2, 3, 3)), "for maps of .7, 7., which get .5, 5."),
    "two convolutions": ((conv(W), conv(W), cuba(2, 1, 1)), "'n1' behind another Conv"),
    "overlap": ((pool(2, 1), conv(W), cuba(2, 2, 2)), "pooling of .2, 2. in steps of .1, 1."),
    "an edge left out": ((pool(), conv(W, padding=1), cuba(2, 2, 2)), "windows side by side"),
    "no room": ((conv(drawn(1, 2, 6, 6)), cuba(1, 1, 1)), "a window of 6 × 6 on 5 × 5"),
    "no window": ((nir.SumPool2d(np.array([0, 2]), np.array([2, 2]), np.zeros(2, int)), cuba(2, 2, 2)), "kernel_size"),
    "no Flatten": ((nir.Linear(np.ones((3, 5))), cuba(3)), "on 2×5×5 values.*Flatten"),
    "half flat": (
        (nir.Flatten({"input": np.array([2, 5, 5])}), nir.Linear(np.ones((3, 50))), cuba(3)), "2×25 values.*start_dim=0"
    ),
    "neurons in a row": ((conv(W), cuba(18)), r"\(18,\) of 'n1'"),
    "a delay behind": ((conv(W), nir.Delay(np.ones((2, 3, 3))), cuba(2, 3, 3)), "a Delay behind"),
    "a scale in a map": ((conv(W), nir.Scale(np.arange(1.0, 19).reshape(2, 3, 3)), cuba(2, 3, 3)), "one factor for each map"),
    "a bias": ((conv(W, bias=np.ones(2)), cuba(2, 3, 3)), "a bias of an Affine node before the synapse"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_maps_of_ours_are_not(case):
    nodes, match = REFUSED[case]
    with pytest.raises(ConfigurationError, match=match):
        from_nir(row_of((2, 5, 5), *nodes, last=(2, 3, 3)), spike="jump", dtype=F64)


def test_what_is_not_written():
    net = LIFConv2d((1, 4, 4), [Conv2d(2, 3)], tau_mem=[20.0] * 7 + [10.0])
    assert isinstance(to_nir(net).nodes["layer0_weight"], nir.Conv2d)  # r and w_in do without τ_m
    with pytest.raises(ConfigurationError, match="maps in layer 0, which have not been tried there"):
        to_nir(net, target="norse", dt=0.1)
    with pytest.raises(ConfigurationError, match="delays per synapse in layer 0"):
        to_nir(LIFConv2d((1, 3, 3), [Conv2d(2, 2)], delays=torch.arange(float(len(SYNAPSES)))))
    with pytest.raises(ConfigurationError, match="a bias of pooled maps"):
        to_nir(LIFConv2d((1, 4, 4), [Pool2d(2)], bias=0.1, leak=False), inputs="currents")
