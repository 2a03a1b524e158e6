"""Networks of generalised LIF neurons as users build them: what they start from, special cases, and wiring in lists."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse
import torch
from lif_networks import random_spikes
from torch import Tensor

import adjsnn
from adjsnn import AdaptiveState, ConfigurationError, LIFNetwork, LIFState, Synapses
from adjsnn.rules import SurrogateBPTT

F64 = torch.float64
RICH = {
    "receptors": 2,
    "tau_syn": [3.0, 12.0],
    "tau_adapt": [60.0],
    "jump_adapt": [-0.2],
    "scale_adapt": [0.9],
    "tau_th": [15.0, 100.0],
    "jump_th": [0.1, 0.05],
    "reset": "by",
}
T_END = 40.0


def rich(layers: tuple[int, ...] = (6, 3), gain: float = 2.0, **options) -> LIFNetwork:
    generator = torch.Generator().manual_seed(0)
    lif = LIFNetwork(5, layers, **({**RICH, "generator": generator, "dtype": F64} | options))
    with torch.no_grad():
        for w in lif.w_in:
            w.mul_(gain)
    return lif


def trains(batch: int = 2) -> adjsnn.SpikeTrains:
    return random_spikes(3, batch=batch, count=8, t_end=25.0)


def everything(sol: adjsnn.LIFSolution) -> Tensor:
    """All spike times and recorded states in a row."""
    states = [x for k in range(len(sol.v)) for x in (sol.v[k], sol.i[k], sol.a[k], sol.h[k]) if x is not None]
    return torch.cat([x.reshape(-1) for x in (*(sol.spike_times(k) for k in range(len(sol.v))), *states)])


def gradients(lif: LIFNetwork, x: adjsnn.SpikeTrains, **options) -> tuple[Tensor, dict[str, Tensor]]:
    sol = adjsnn.solve(lif, x, t_end=T_END, ts=[11.3, 29.9], **options)
    found = everything(sol)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    leaves = {name: p for name, p in lif.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(weights @ found.double(), list(leaves.values()))
    return found.detach(), dict(zip(leaves, grads, strict=True))


def close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    for name, g in expected.items():
        assert float((found[name] - g).norm()) <= tolerance * float(g.norm()), name


def test_shapes_and_states():
    lif = rich(recurrent=(True, False))
    shapes = {name: tuple(p.shape) for name, p in lif.named_parameters()}
    assert shapes["w_in.0"] == (2, 6, 5)
    assert shapes["w_rec.0"] == (2, 6, 6)
    assert shapes["tau_syn.1"] == (2, 3)
    assert shapes["jump_adapt.0"] == (1, 6)
    assert shapes["tau_th.1"] == (2, 3)
    assert "scale_th.0" not in shapes
    state = lif.initial_state(4)[0]
    assert [tuple(x.shape) for x in state] == [(4, 6), (4, 2, 6), (4, 1, 6), (4, 2, 6)]
    sol = adjsnn.solve(lif, trains(), t_end=T_END, ts=[10.0, 20.0])
    assert isinstance(sol.final_state[0], AdaptiveState)
    assert sol.i[0].shape == (2, 2, 2, 6)
    assert sol.a[1].shape == (2, 2, 1, 3)
    torch.testing.assert_close(sol.threshold(0), 1.0 + sol.h[0].sum(2))
    torch.testing.assert_close(sol.currents(0), sol.i[0].sum(2) + sol.a[0].sum(2))
    mixed = LIFNetwork(5, (4, 3), receptors=(2, None), tau_adapt=([60.0], None), jump_adapt=([-0.2], None))
    assert [type(s) for s in mixed.initial_state(1)] == [AdaptiveState, LIFState]
    assert mixed.w_in[1].shape == (3, 4)


@pytest.mark.parametrize("kernels", ["fused", pytest.param("plain", marks=pytest.mark.slow)])
def test_every_gradient_against_central_differences(kernels):
    learn = ("weights", "bias", "tau_mem", "tau_syn", "v_th", "v_reset", "refractory", "delays")
    learn += ("tau_adapt", "jump_adapt", "scale_adapt", "tau_th", "jump_th", "scale_th")
    lif = rich((3, 2), recurrent=(True, False), refractory=1.0, bias=0.1, delays=1.5, scale_th=0.95, learn=learn)
    report = adjsnn.gradcheck(
        lif, trains(1), lambda sol: everything(sol).sin().sum(), against=("finite_difference",), ts=[11.3, 29.9],
        t_end=T_END, kernels=kernels, entries=2,
    )  # fmt: skip
    names = {row.name for row in report.rows}
    assert {f"{name}.0" for name in ("tau_adapt", "scale_adapt", "scale_th", "w_rec")} | {"y0[0].a", "y0[0].h"} <= names


def test_one_receptor_is_an_ordinary_layer_to_the_bit():
    x = trains()
    ordinary = rich(receptors=None, tau_syn=4.0, tau_adapt=None, jump_adapt=None, scale_adapt=None, tau_th=None, jump_th=None,
                    reset="to", recurrent=True, gain=1.0)  # fmt: skip
    one = rich(receptors=1, tau_syn=4.0, tau_adapt=None, jump_adapt=None, scale_adapt=None, tau_th=None, jump_th=None,
               reset="to", recurrent=True, gain=1.0)  # fmt: skip
    (plain, g), (found, g_one) = gradients(ordinary, x), gradients(one, x)
    assert torch.equal(plain, found)
    for name, expected in g.items():
        assert torch.equal(g_one[name].reshape(expected.shape), expected), name
    assert adjsnn.solve(one, x, ts=[1.0]).i[0].shape == (1, 2, 1, 6)


def test_without_leak_is_an_endless_time_constant():
    x, tau = trains(), 1e13
    options = {"tau_adapt": None, "jump_adapt": None, "scale_adapt": None, "gain": 1.0}
    leakless, slow = rich(leak=False, **options), rich(tau_mem=tau, **options)
    with torch.no_grad():
        for w, v in zip(slow.w_in, leakless.w_in, strict=True):
            w.copy_(v * tau)
    sols = [adjsnn.solve(net, x, t_end=T_END) for net in (leakless, slow)]
    assert min(sols[0].stats.spikes) > 5
    for k in (0, 1):
        torch.testing.assert_close(sols[0].spike_times(k), sols[1].spike_times(k), rtol=0.0, atol=1e-9)
    g, g_slow = (
        torch.autograd.grad(sum(s.spike_times(k).square().sum() for k in (0, 1)), list(net.w_in))
        for net, s in zip((leakless, slow), sols, strict=True)
    )
    for k in (0, 1):
        close({"w_in": tau * g_slow[k]}, {"w_in": g[k]}, 1e-8)


def test_single_spikes_in_closed_form_without_leak():
    x = trains(4)
    generator = torch.Generator().manual_seed(2)
    lif = LIFNetwork(5, (7, 3), leak=False, refractory=T_END, generator=generator, dtype=F64, learn=("weights", "v_th"))
    exact, closed = (adjsnn.solve(lif, x, t_end=T_END, adjoint=a) for a in (None, adjsnn.rules.SingleSpike()))
    assert exact.stats.spikes == closed.stats.spikes
    assert exact.stats.spikes[1] > 2
    torch.testing.assert_close(exact.spike_times(1), closed.spike_times(1), rtol=0.0, atol=1e-10)
    both = [torch.autograd.grad(s.spike_times(1).square().sum(), [*lif.w_in, *lif.v_th]) for s in (exact, closed)]
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(exact.spike_speeds(0), closed.spike_speeds(0), rtol=1e-9, atol=1e-10)


def dense_and_listed(shuffle: bool = True) -> tuple[LIFNetwork, LIFNetwork]:
    """The same network twice: a weight for each pair, and the same pairs as lists in any order, with delays of each."""
    rng = np.random.default_rng(0)
    delays = (torch.as_tensor(rng.uniform(0.0, 4.0, (6, 5))), torch.as_tensor(rng.uniform(0.0, 4.0, (3, 6))))
    rec_delays = (torch.as_tensor(rng.uniform(0.5, 3.0, (6, 6))), None)
    learn = ("weights", "delays", "tau_syn")
    dense = rich(recurrent=(True, False), delays=delays, rec_delays=rec_delays, learn=learn)
    lists, orders = [], []
    for n, m in ((6, 5), (3, 6), (6, 6)):
        k, post, pre = (torch.as_tensor(x.ravel()) for x in np.indices((2, n, m)))
        order = torch.as_tensor(rng.permutation(2 * n * m) if shuffle else np.arange(2 * n * m))
        lists.append(Synapses(pre[order], post[order], k[order]))
        orders.append(order)
    late = [x.expand(2, *x.shape).reshape(-1)[o] for x, o in zip((*delays, rec_delays[0]), orders, strict=True)]
    listed = rich(
        synapses=(lists[0], lists[1]), rec_synapses=(lists[2], None), delays=(late[0], late[1]), rec_delays=(late[2], None),
        learn=learn,
    )  # fmt: skip
    with torch.no_grad():
        for w, v, o in zip((*listed.w_in, listed.w_rec[0]), (*dense.w_in, dense.w_rec[0]), orders, strict=True):
            w.copy_(v.reshape(-1)[o])
    return dense, listed


@pytest.mark.parametrize("kernels", ["fused", "plain"])
def test_lists_of_synapses_are_the_same_network(kernels):
    dense, listed = dense_and_listed()
    (expected, g), (found, g_listed) = gradients(dense, trains(), kernels=kernels), gradients(listed, trains(), kernels=kernels)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-11)
    for name in ("w_in.0", "w_in.1", "w_rec.0"):
        ordered = g[name].reshape(-1).sort().values
        torch.testing.assert_close(g_listed[name].sort().values, ordered, rtol=1e-10, atol=1e-10)
    close(g_listed, {name: g[name] for name in ("tau_syn.0", "tau_syn.1")}, 1e-11)
    # A delay of the dense network is that of both receptors.
    torch.testing.assert_close(g_listed["delays.0"].sum(), g["delays.0"].sum(), rtol=1e-10, atol=1e-10)
    assert listed.recurrent == (True, False)


def test_synapses_that_join_the_same_neurons_add_up():
    pre, post = torch.tensor([0, 0, 1, 3]), torch.tensor([0, 0, 1, 1])
    lif = LIFNetwork(5, 2, synapses=Synapses(pre, post), dtype=F64)
    dense = LIFNetwork(5, 2, dtype=F64)
    with torch.no_grad():
        lif.w_in[0].copy_(torch.tensor([4.0, 7.0, 9.0, 12.0]))
        dense.w_in[0].zero_()
        dense.w_in[0][0, 0], dense.w_in[0][1, 1], dense.w_in[0][1, 3] = 11.0, 9.0, 12.0
    sols = [adjsnn.solve(net, trains()) for net in (lif, dense)]
    assert sols[0].stats.spikes[0] > 2
    torch.testing.assert_close(sols[0].spike_times(), sols[1].spike_times(), rtol=0.0, atol=1e-11)
    g, expected = (
        torch.autograd.grad(s.spike_times().sum(), net.w_in[0])[0] for s, net in zip(sols, (lif, dense), strict=True)
    )
    wanted = torch.stack([expected[0, 0], expected[0, 0], expected[1, 1], expected[1, 3]])
    torch.testing.assert_close(g, wanted, rtol=1e-9, atol=1e-12)


def test_shared_weights_get_the_sum_of_their_gradients():
    pre, post, shared = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    lif = LIFNetwork(5, 2, synapses=Synapses(pre, post, shared=shared), dtype=F64)
    own = LIFNetwork(5, 2, synapses=Synapses(pre, post), dtype=F64)
    assert lif.w_in[0].shape == (2,)
    with torch.no_grad():
        lif.w_in[0].copy_(torch.tensor([9.0, 12.0]))
        own.w_in[0].copy_(lif.w_in[0][shared])
    g, each = (torch.autograd.grad(adjsnn.solve(net, trains()).spike_times().sum(), net.w_in[0])[0] for net in (lif, own))
    assert bool((each != 0.0).all())
    torch.testing.assert_close(g, torch.zeros(2, dtype=F64).index_add(0, shared, each), rtol=1e-12, atol=0.0)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_sparse_matrices_become_lists():
    matrix = scipy.sparse.random_array((4, 6), density=0.4, rng=np.random.default_rng(0))
    for given in (
        matrix,
        matrix.tocsr(),
        torch.as_tensor(matrix.toarray()).to_sparse(),
        torch.as_tensor(matrix.toarray()).to_sparse_csr(),
    ):
        listed, weights = Synapses.from_csr(given, receptor=1)
        made = torch.zeros(4, 6, dtype=F64).index_put((listed.post, listed.pre), weights)
        np.testing.assert_array_equal(made, matrix.toarray())
        assert bool((listed.receptor == 1).all())


def test_convolution_is_that_of_torch():
    lif = adjsnn.LIFConv2d(
        (2, 7, 6), [adjsnn.Conv2d(3, (3, 2), stride=(2, 1), padding=(1, 0)), adjsnn.Pool2d(2, 1), 4], dtype=F64
    )
    assert lif.shapes == ((3, 4, 5), (3, 3, 4), (4,))
    x = torch.rand(1, 2, 7, 6, generator=torch.Generator().manual_seed(0), dtype=F64)
    wired = lif.structure[0].synapses
    summed = torch.zeros(60, dtype=F64).index_add(0, wired.post, lif.w_in[0].detach()[wired.shared] * x.flatten()[wired.pre])
    expected = torch.nn.functional.conv2d(x, lif.kernels(0).detach(), stride=(2, 1), padding=(1, 0))
    torch.testing.assert_close(summed, expected.flatten(), rtol=0.0, atol=1e-14)
    wired = lif.structure[1].synapses
    summed = torch.zeros(36, dtype=F64).index_add(0, wired.post, expected.flatten()[wired.pre])
    torch.testing.assert_close(summed, 4.0 * torch.nn.functional.avg_pool2d(expected, 2, 1).flatten())
    currents = adjsnn.solve(lif, x.reshape(1, 1, -1).repeat(3, 1, 1), dt=1.0, ts=[0.5])
    torch.testing.assert_close(currents.v[0][0, 0], expected.flatten() * (1.0 - np.exp(-0.5 / 20.0)), rtol=1e-6, atol=1e-9)


def test_batch_against_singles_and_float32():
    lif, x = rich(), trains(3)
    sol = adjsnn.solve(lif, x, t_end=T_END)
    for b in range(3):
        alone = adjsnn.solve(lif, adjsnn.SpikeTrains(x.idx[b : b + 1], x.time[b : b + 1], x.n_neurons, x.t_max), t_end=T_END)
        assert torch.equal(alone.layer_spikes[1].time[0].isfinite().sum(), sol.layer_spikes[1].time[b].isfinite().sum())
        times = sol.layer_spikes[1].time[b]
        assert torch.equal(times[times.isfinite()], alone.spike_times(1))
    small = copy.deepcopy(lif).float()
    assert adjsnn.solve(small, x.to(dtype=torch.float32), t_end=T_END).spike_times(0).dtype == torch.float32


def test_copies_and_saved_parameters():
    lif = rich(recurrent=(True, False))
    expected = adjsnn.solve(lif, trains()).spike_times()
    for again in (copy.deepcopy(lif), pickle.loads(pickle.dumps(lif))):
        assert torch.equal(adjsnn.solve(again, trains()).spike_times(), expected)
    other = rich(recurrent=(True, False), generator=torch.Generator().manual_seed(5))
    other.load_state_dict(lif.state_dict())
    assert torch.equal(adjsnn.solve(other, trains()).spike_times(), expected)


def test_projection_keeps_time_constants_positive():
    lif = rich(learn=("tau_adapt", "tau_th"))
    with torch.no_grad():
        lif.tau_adapt[0].fill_(-1.0)
        lif.tau_th[1].fill_(0.0)
    with pytest.raises(ConfigurationError, match=r"tau_adapt\[0\] from -1"):
        adjsnn.solve(lif, trains())
    lif.project_(tau_min=0.5)
    assert lif.tau_adapt[0].min().item() == lif.tau_th[1].max().item() == 0.5
    adjsnn.solve(lif, trains())


ALLEN = {
    "El": 0.0, "R_input": 2e8, "C": 1e-10, "th_inf": 0.02, "dt": 5e-5, "spike_cut_length": 40,
    "asc_amp_array": [-1e-11, -5e-11], "asc_tau_array": [0.1, 0.01],
    "AScurrent_reset_method": {"name": "sum", "params": {"r": [1.0, 0.9]}},
    "voltage_reset_method": {"name": "v_before", "params": {"a": 0.3, "b": 0.002}},
    "threshold_dynamics_method": {"name": "three_components_exact", "params": {
        "a_spike": 0.005, "b_spike": 30.0, "a_voltage": 4.0, "b_voltage": 20.0,
    }},
}  # fmt: skip


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_glif_levels_against_runge_kutta(level):
    lif = LIFNetwork.glif(level, ALLEN, dtype=F64)
    sol = adjsnn.solve(lif, torch.full((300, 1, 1), 220.0, dtype=F64), dt=1.0)
    times = sol.spike_times().tolist()
    assert len(times) > 8
    expected = by_scipy(level, np.zeros(5), 220e-12, 300.0)
    np.testing.assert_allclose(times, expected, rtol=0.0, atol=1e-8)


def by_scipy(level: int, y: np.ndarray, current: float, t_end: float) -> list[float]:
    """Spike times, ms, of the same neuron by an adaptive method of order 8 from spike to spike, in SI units."""
    from scipy.integrate import solve_ivp  # noqa: PLC0415

    cut, now, times = 2e-3, 0.0, []

    def flow(_t: float, y: np.ndarray) -> list[float]:
        v, i1, i2, theta, w = y
        asc = i1 + i2 if level > 2 else 0.0
        return [(current + asc - v / 2e8) / 1e-10, -i1 / 0.1, -i2 / 0.01, -30.0 * theta, 4.0 * v - 20.0 * w]

    def reached(_t: float, y: np.ndarray) -> float:
        return y[0] - 0.02 - (y[3] if level in (2, 4, 5) else 0.0) - (y[4] if level == 5 else 0.0)

    reached.terminal, reached.direction = True, 1.0  # pyright: ignore[reportFunctionMemberAccess]
    while now < t_end / 1e3:
        run = solve_ivp(
            flow, (now, t_end / 1e3), y, "DOP853", events=reached, rtol=1e-13, atol=[1e-15, 1e-24, 1e-24, 1e-15, 1e-15]
        )
        if not len(run.t_events[0]):
            break
        now, (v, i1, i2, theta, w) = float(run.t_events[0][0]), run.y_events[0][0]
        times.append(1e3 * now)
        now += cut
        v = 0.3 * v + 0.002 if level in (2, 4, 5) else 0.0
        y = np.array(
            [v, i1 * np.exp(-cut / 0.1) - 1e-11, 0.9 * i2 * np.exp(-cut / 0.01) - 5e-11, theta * np.exp(-30 * cut) + 0.005, w]
        )
    return times


PAIR = Synapses(torch.tensor([0]), torch.tensor([0]))
BAD = [
    ({"receptors": 0}, "receptors=0"),
    ({"receptors": True}, "receptors=True"),
    ({"receptors": (2, 2, 2)}, "receptors with 3 entries"),
    ({"receptors": 2, "tau_syn": [1.0, 2.0, 3.0]}, "tau_syn of shape"),
    ({"receptors": 2, "tau_syn": [1.0, -2.0]}, "tau_syn of layer 0 from -2"),
    ({"tau_adapt": [60.0]}, "tau_adapt of layer 0 without jump_adapt"),
    ({"jump_th": [60.0]}, "jump_th of layer 0 without tau_th"),
    ({"scale_th": [0.5]}, "scale_th of layer 0 without tau_th"),
    ({"tau_adapt": [0.0], "jump_adapt": [0.1]}, "tau_adapt of layer 0 from 0"),
    ({"tau_adapt": [1.0, 2.0], "jump_adapt": [0.1, 0.1, 0.1]}, "jump_adapt of shape"),
    ({"tau_adapt": [1.0], "jump_adapt": [float("nan")]}, "jump_adapt of layer 0 is not finite"),
    ({"tau_follow": 50.0}, "tau_follow of layer 0 without gain_follow"),
    ({"gain_follow": (None, 0.2)}, "gain_follow of layer 1 without tau_follow"),
    ({"tau_follow": (50.0, 0.0), "gain_follow": 0.1}, "tau_follow of layer 1 from 0"),
    ({"tau_follow": [1.0, 2.0], "gain_follow": 0.1}, "tau_follow of shape"),
    ({"tau_follow": 1.0, "gain_follow": float("inf")}, "gain_follow of layer 0 is not finite"),
    ({"learn": ("gain_follow",)}, "gain_follow"),
    ({"leak": 1}, "leak=1"),
    ({"leak": False, "learn": ("tau_mem",)}, "tau_mem"),
    ({"learn": ("tau_adapt",)}, "tau_adapt"),
    ({"reset": "down"}, "reset='down'"),
    ({"reset": 1.5}, "reset=1.5"),
    ({"reset": True}, "reset=True"),
    ({"synapses": PAIR}, "synapses of one layer for 2"),
    ({"synapses": (torch.eye(3), None)}, "synapses of type Tensor"),
    ({"synapses": (Synapses(torch.tensor([5]), torch.tensor([0])), None)}, r"synapses\[0\].pre up to 5"),
    ({"synapses": (Synapses(torch.tensor([0]), torch.tensor([4])), None)}, r"synapses\[0\].post up to 4"),
    ({"synapses": (Synapses(torch.tensor([0]), torch.tensor([0]), 1), None)}, r"synapses\[0\].receptor up to 1"),
    ({"synapses": (PAIR, None), "delays": (torch.ones(5), None)}, "delays of shape"),
]


@pytest.mark.parametrize(("options", "seen"), BAD)
def test_impossible_networks(options, seen):
    with pytest.raises(ConfigurationError, match=seen):
        LIFNetwork(5, (4, 3), **options)


@pytest.mark.parametrize("kernels", ["fused", "plain"])
def test_one_number_for_all_components(kernels):
    """Of a parameter that was replaced: the state has as many rows as there are time constants."""
    lif, other = rich(receptors=None, tau_syn=4.0), rich(receptors=None, tau_syn=4.0)
    for shape in ((), (1,)):
        for name, value in (("jump_th", 0.1), ("jump_adapt", -0.2), ("scale_adapt", 0.9), ("v_th", 1.0)):
            for k in (0, 1):
                getattr(lif, name)[k] = torch.nn.Parameter(torch.full(shape, value, dtype=F64))
        with torch.no_grad():
            for k in (0, 1):
                other.jump_th[k].fill_(0.1)
        found, expected = (adjsnn.solve(net, trains(), t_end=T_END, ts=[20.0], kernels=kernels) for net in (lif, other))
        assert torch.equal(everything(found), everything(expected))
        found.spike_times().sum().backward()
        assert lif.jump_th[0].grad.shape == shape


def test_endless_currents_lose_no_spike():
    """The bound of a response of 20 ms to a current of 1e18 ms."""
    x = adjsnn.SpikeTrains.from_list([[(1.0, 0)]], n_neurons=1, t_max=200.0)
    lif = LIFNetwork(1, 1, receptors=2, tau_syn=[1e18, 5.0], dtype=F64)
    ordinary = LIFNetwork(1, 1, tau_syn=1e18, dtype=F64)
    with torch.no_grad():
        lif.w_in[0].copy_(torch.tensor([[[2.0]], [[0.0]]]))
        ordinary.w_in[0].fill_(2.0)
    times = [adjsnn.solve(net, x).spike_times() for net in (lif, ordinary)]
    assert len(times[0]) == 14
    torch.testing.assert_close(*times, rtol=1e-12, atol=0.0)


def test_lists_that_change_afterwards():
    listed = Synapses(torch.tensor([0, 1]), torch.tensor([0, 1]))
    lif = LIFNetwork(5, 2, synapses=listed)
    for column in (listed.pre, listed.post, listed.receptor):
        for value in (10**7, -1):
            before = column[0].clone()
            column[0] = value
            with pytest.raises(ConfigurationError, match=r"synapses\[0\]"):
                adjsnn.solve(lif, trains())
            column[0] = before
    adjsnn.solve(lif, trains())
    assert repr(listed) == "Synapses(2 synapses)"


def test_the_resting_potential_of_glif_levels():
    """Voltages of a file are absolute, and a factor on a and b is one of level 5's threshold."""
    rest = 0.005
    reset = ALLEN["voltage_reset_method"]["params"]
    moved = {
        **ALLEN, "El": rest, "th_inf": ALLEN["th_inf"] + rest, "coeffs": {"a": 2.0, "b": 0.5},
        "voltage_reset_method": {"params": {"a": reset["a"], "b": reset["b"] + rest * (1.0 - reset["a"])}},
    }  # fmt: skip
    rates = ALLEN["threshold_dynamics_method"]["params"]
    followed = {**rates, "a_voltage": rates["a_voltage"] / 2.0, "b_voltage": rates["b_voltage"] / 0.5}
    moved["threshold_dynamics_method"] = {"params": followed}
    u = torch.full((1, 1, 1), 220.0, dtype=F64)
    for level in (2, 4, 5):
        times = [adjsnn.solve(LIFNetwork.glif(level, c, dtype=F64), u, dt=200.0).spike_times() for c in (ALLEN, moved)]
        torch.testing.assert_close(*times, rtol=0.0, atol=1e-9)
    assert LIFNetwork.glif(1, moved).v_reset[0].item() == pytest.approx(-5.0)  # to zero


WRONG = [
    {"coeffs": None},
    {"coeffs": {"G": 0.0}},
    {"coeffs": {"th_inf": "a"}},
    {"asc_amp_array": 3.0},
    {"asc_amp_array": []},
    {"asc_tau_array": [1e-6, 0.1]},
    {"AScurrent_reset_method": None},
    {"AScurrent_reset_method": {"params": {"r": 1.0}}},
]


@pytest.mark.parametrize("change", WRONG)
def test_impossible_glif_parameters(change):
    with pytest.raises(ConfigurationError):
        LIFNetwork.glif(4, ALLEN | change)


def test_impossible_stacks():
    for shape, stack in (((1, 4, 4), 3), ((1, 4), [3]), ((1, 4, 4), [adjsnn.Conv2d(2, 5)]), ((1, 4, 4), [3, adjsnn.Pool2d(2)])):
        with pytest.raises(ConfigurationError):
            adjsnn.LIFConv2d(shape, stack)
    lif = adjsnn.LIFConv2d(np.array([1, 4, 4]), [adjsnn.Conv2d(2, [3, 3]), 3])
    assert lif.kernels(-2).shape == (2, 1, 3, 3)
    for layer in (1, 5):
        with pytest.raises(ConfigurationError):
            lif.kernels(layer)


def test_impossible_lists():
    for columns in (([0.5], [0]), ([0, 1], [0]), ([-1], [0]), ([[0]], [[0]])):
        with pytest.raises(ConfigurationError):
            Synapses(torch.tensor(columns[0]), torch.tensor(columns[1]))
    with pytest.raises(ConfigurationError, match="shared"):
        Synapses(torch.tensor([0, 1]), torch.tensor([0, 1]), shared=torch.tensor([0]))
    three = scipy.sparse.coo_array((np.ones(2), (np.array([0, 1]), np.array([0, 1]), np.array([0, 1]))))
    for given in (np.eye(3), torch.eye(3), three, torch.eye(3).to_sparse(1), scipy.sparse.csr_array(1j * np.eye(3))):
        with pytest.raises(ConfigurationError):
            Synapses.from_csr(given)
    assert len(Synapses([], [])) == 0


def test_what_generalised_layers_do_not_have():
    lif, x = rich(), trains()
    with pytest.raises(ConfigurationError, match="layer 0 with receptors.*SurrogateBPTT"):
        adjsnn.solve(lif, x, t_end=T_END, dt=1.0, adjoint=SurrogateBPTT())
    with pytest.raises(ConfigurationError, match="more than a leak away"):
        adjsnn.solve(rich(refractory=T_END), x, t_end=T_END, adjoint=adjsnn.rules.SingleSpike())
    with pytest.raises(ConfigurationError, match=r"y0\[0\] of type LIFState"):
        adjsnn.solve(lif, x, y0=[LIFState(s.v, s.i) for s in lif.initial_state(2)])
    with pytest.raises(ConfigurationError, match="level=6"):
        LIFNetwork.glif(6, ALLEN)
    with pytest.raises(ConfigurationError, match="a_voltage"):
        LIFNetwork.glif(5, {**ALLEN, "threshold_dynamics_method": {"params": {"a_spike": 0.005, "b_spike": 30.0}}})
    with pytest.raises(ConfigurationError, match="without asc_tau_array"):
        LIFNetwork.glif(3, {k: v for k, v in ALLEN.items() if k != "asc_tau_array"})


def test_thresholds_of_the_start():
    lif = rich()
    state = lif.initial_state(2)
    raised = [s._replace(v=s.v + 1.2, h=s.h + 0.3) for s in state]
    adjsnn.solve(lif, trains(), y0=raised)
    with pytest.raises(ConfigurationError, match="at or above its threshold"):
        adjsnn.solve(lif, trains(), y0=[s._replace(v=s.v + 0.9, h=s.h - 0.1) for s in state])
