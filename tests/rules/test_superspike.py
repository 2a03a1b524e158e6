"""SuperSpike: its online form in plain loops, and backpropagation with the same surrogate where it drops nothing."""

import pytest
import torch
from test_clocked import F64, network, spikes

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork, SpikeTrains
from adjsnn.rules import DirectFeedbackAlignment, EProp, FastSigmoid, SuperSpike, SurrogateBPTT, Triangle

SHAPE, DT = FastSigmoid(3.0), 0.5
ROUNDING = {"rtol": 1e-10, "atol": 1e-11}  # sums of some hundred terms of order 1
OPTIONS = {
    "usual": {},
    "refractory": {"refractory": 1.5},
    "delays": {"delays": 1.2, "rec_delays": 2.0},
    "per synapse": {
        "delays": (torch.linspace(0.0, 3.0, 60).view(12, 5), torch.linspace(0.0, 2.0, 36).view(3, 12)),
        "rec_delays": (torch.linspace(0.5, 4.0, 144).view(12, 12), 1.0),
        "refractory": (torch.linspace(0.0, 3.0, 12), 0.0),
    },
    "tau": {"tau_mem": (torch.linspace(8.0, 25.0, 12), 12.0), "tau_syn": 5.0},
}


def net_of(layers=(12, 3), recurrent: bool = True, **options) -> LIFNetwork:
    options = {"bias": 0.4, "learn": ("weights", "bias"), "dtype": F64} | options
    if not recurrent:
        options.pop("rec_delays", None)
    return LIFNetwork(5, layers, recurrent, generator=torch.Generator().manual_seed(0), **options)


def gradients(net, x, rule, loss=lambda sol: filtered_error(sol)[0], dt=DT, kernels="auto"):
    leaves = {name: p for name, p in net.named_parameters() if p.requires_grad}
    sol = adjsnn.solve(net, x, dt=dt, adjoint=rule, kernels=kernels)
    found = torch.autograd.grad(loss(sol), list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def double_exponential(x: torch.Tensor) -> torch.Tensor:
    """A∗x, A a difference of two exponentials, forward in time."""
    slow, fast, rows = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
    for row in x:
        slow, fast = 0.95 * slow + row, 0.9 * fast + row
        rows.append(slow - fast)
    return torch.stack(rows)


def wanted(s: torch.Tensor) -> torch.Tensor:
    """Target spikes on the grid."""
    target = torch.zeros_like(s)
    target[10::37, :, 0], target[25::30, :, 1], target[5::21, :, 2] = 1.0, 1.0, 1.0
    return target


def filtered_error(sol):
    """½ Σ (A∗(S - Ŝ))² within the trial, and the error."""
    s = sol.spikes_on_grid()
    error = double_exponential(s - wanted(s))
    return 0.5 * error.square().sum(), error.detach()


def online(net: LIFNetwork, x: SpikeTrains, sol, backs):
    """Every synapse carries its trace, of it times σ′ another one filtered by A, and meets the error of its time."""
    _, output_error = filtered_error(sol)
    found, steps = {}, len(output_error)
    arriving = torch.zeros(steps, x.batch, net.n_in, dtype=F64)
    for b in range(x.batch):
        for t, n in zip(x.time[b].tolist(), x.idx[b].tolist(), strict=True):
            if n >= 0:
                arriving[round(t / DT), b, n] += 1.0
    sent = arriving
    for k, size in enumerate(net.layers):
        s, error = sol.spikes_on_grid(k).detach(), output_error @ backs[k]
        tau_m, tau_s = net.tau_mem[k].detach()[:, None], net.tau_syn[k].detach()[:, None]
        alpha, beta = torch.exp(-DT / tau_s), torch.exp(-DT / tau_m)
        kappa = tau_s / (tau_m - tau_s) * (beta - alpha)
        hold = (net.refractory[k].detach() / DT).round().long()
        v = sol._runs[k].peak.detach()
        for name, w, pre, delays, least in (
            ("w_in", net.w_in[k], sent, net.delays[k], 0 if k == 0 else 1),
            ("w_rec", net.w_rec[k], s, net.rec_delays[k], 1),
            ("bias", net.bias[k][:, None], None, None, 0),
        ):
            if w is None:
                continue
            delays = torch.zeros(()) if delays is None else delays.detach()
            lags = (delays.expand(w.shape) / DT).round().long().clamp(min=least)
            for b in range(x.batch):
                i, eps, slow, fast, total = (torch.zeros(w.shape, dtype=F64) for _ in range(5))
                left = torch.zeros(size, dtype=torch.long)
                for n in range(steps):
                    if pre is not None:
                        for row in range(size):
                            for column in range(w.shape[1]):
                                if n >= lags[row, column]:
                                    i[row, column] += pre[n - lags[row, column], b, column]
                    slope = SHAPE.derivative(v[n, b] - net.v_th[k].detach()) * (left == 0)
                    trace = slope[:, None] * eps
                    slow, fast = 0.95 * slow + trace, 0.9 * fast + trace
                    total += error[n, b][:, None] * (slow - fast)
                    left = torch.where(s[n, b] > 0, hold, (left - 1).clamp(min=0))
                    eps = beta * eps + (kappa * i if pre is not None else 1.0 - beta)
                    i = alpha * i
                found[f"{name}.{k}"] = found.get(f"{name}.{k}", 0.0) + (total if pre is not None else total[:, 0])
        sent = s
    return found


@pytest.mark.parametrize("name", ["per synapse", pytest.param("tau", marks=pytest.mark.slow)])
def test_it_is_the_sum_of_traces_that_go_forward_with_the_trial(name):
    net, x = net_of(**OPTIONS[name]), spikes(batch=2, t_max=30.0)
    rule = SuperSpike(SHAPE, feedback="random")
    sol = adjsnn.solve(net, x, dt=DT, adjoint=rule)
    assert min(sol.stats.spikes) > 10
    b = torch.randn(3, 12, generator=torch.Generator().manual_seed(0), dtype=F64)
    expected = online(net, x, sol, [b, torch.eye(3, dtype=F64)])
    found = gradients(net, x, rule)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert bool(value.any())
        torch.testing.assert_close(found[key], value, **ROUNDING, msg=key)


@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("name", OPTIONS)
def test_without_resets_one_layer_is_backpropagation(name, silent, kernels):
    """Where no neuron reaches its threshold; and where a spike sets it down by a fixed amount, which gradients pass."""
    options = {key: x[0] if isinstance(x, tuple) else x for key, x in OPTIONS[name].items()}
    if not silent:
        options.pop("refractory", None)  # which holds a voltage that backpropagation knows of
    net, x, reset = net_of((12,), False, **options), spikes(), "to" if silent else "by"
    if silent:
        quieten(net)
    expected = gradients(net, x, SurrogateBPTT(SHAPE, reset=reset), weighted, kernels=kernels)
    found = gradients(net, x, SuperSpike(SHAPE, reset=reset), weighted, kernels=kernels)
    assert bool(adjsnn.solve(net, x).stats.spikes[0]) != silent
    for key, value in expected.items():
        assert bool(value.any())
        torch.testing.assert_close(found[key], value, **ROUNDING, msg=key)


def quieten(net):
    with torch.no_grad():
        net.w_in[0].mul_(0.05)


def weighted(sol):
    s = sol.spikes_on_grid().flatten()
    return torch.cos(torch.arange(len(s), dtype=s.dtype)) @ s


def test_what_it_drops_makes_a_difference():
    net, x = net_of(), spikes()
    found, whole = gradients(net, x, SuperSpike(SHAPE)), gradients(net, x, SurrogateBPTT(SHAPE))
    for key, value in whole.items():
        assert not torch.allclose(found[key], value, rtol=1e-2)


def test_with_a_readout_errors_are_those_of_direct_feedback():
    """Through the same matrices and with no way back through W_rec, where gradients know of no reset."""
    net, x = net_of((12, 4), n_out=2), spikes()
    assert min(adjsnn.solve(net, x).stats.spikes) > 50
    loss = lambda sol: (sol.readout - 0.3).square().sum()  # noqa: E731
    matrices = [net.w_out.detach() @ net.w_in[1].detach(), net.w_out.detach()]
    found = gradients(net, x, SuperSpike(SHAPE, reset="by"), loss)
    expected = gradients(net, x, DirectFeedbackAlignment(SHAPE, matrices=matrices, reset="by"), loss)
    for key in ("w_in.0", "w_rec.0", "bias.0", "w_in.1", "w_rec.1", "bias.1"):
        assert bool(found[key].any())
        torch.testing.assert_close(found[key], expected[key], **ROUNDING, msg=key)
    torch.testing.assert_close(found["w_out"], gradients(net, x, SurrogateBPTT(reset="by"), loss)["w_out"], **ROUNDING)
    one = net_of((12,), n_out=2)
    found = gradients(one, x, SuperSpike(SHAPE, reset="by"), loss)
    for key, value in gradients(one, x, EProp(SHAPE, reset="by"), loss).items():
        torch.testing.assert_close(found[key], value, **ROUNDING, msg=key)


def test_feedback():
    net, x = net_of((12, 6, 3)), spikes()
    assert adjsnn.solve(net, x).stats.spikes[2] > 20
    found = {name: gradients(net, x, SuperSpike(SHAPE, feedback=name)) for name in ("symmetric", "random", "uniform")}
    for name in ("random", "uniform"):
        assert torch.equal(found[name]["w_in.2"], found["symmetric"]["w_in.2"])
        assert not torch.allclose(found[name]["w_in.0"], found["symmetric"]["w_in.0"], rtol=1e-2)
    assert torch.equal(gradients(net, x, SuperSpike(SHAPE, feedback="random"))["w_in.0"], found["random"]["w_in.0"])
    other = gradients(net, x, SuperSpike(SHAPE, feedback="random", seed=1))
    assert not torch.allclose(other["w_in.0"], found["random"]["w_in.0"], rtol=1e-2)
    twice = gradients(net, x, SuperSpike(SHAPE, feedback="uniform", scale=2.0))
    torch.testing.assert_close(twice["w_in.1"], 2.0 * found["uniform"]["w_in.1"], **ROUNDING)
    with torch.no_grad():  # in place of b, weights of 1 from the first layer to the output
        net.w_in[1].fill_(0.5)
        net.w_in[2].fill_(1.0 / 3.0)
    for key in ("w_in.0", "w_rec.0"):
        even = [gradients(net, x, SuperSpike(SHAPE, feedback=name))[key] for name in ("symmetric", "uniform")]
        torch.testing.assert_close(*even, **ROUNDING)


def test_losses_of_spikes():
    net, x = net_of(), spikes()
    target = SpikeTrains.from_list([[(20.0, 0), (30.0, 2)]] * 4, n_neurons=3, t_max=60.0, dtype=F64)
    for loss in (
        lambda sol: adjsnn.losses.van_rossum(sol, target, tau=10.0, tau_rise=5.0).mean(),
        lambda sol: adjsnn.losses.first_spike_mse(sol, torch.full((4, 3), 20.0, dtype=F64)),
        lambda sol: sol.spike_count(0).sum(),
    ):
        found = gradients(net, x, SuperSpike(SHAPE), loss)
        assert bool(found["w_in.0"].any())
    assert not bool(found["w_in.1"].any())  # of the hidden layer alone
    both = lambda sol: filtered_error(sol)[0] + sol.spike_count(0).sum()  # noqa: E731
    total = gradients(net, x, SuperSpike(SHAPE), both)["w_in.0"]
    torch.testing.assert_close(total, found["w_in.0"] + gradients(net, x, SuperSpike(SHAPE))["w_in.0"], **ROUNDING)


def test_currents_are_those_of_backpropagation_where_nothing_is_reset():
    net, generator = net_of((12,), False), torch.Generator().manual_seed(0)
    u = (0.5 * torch.rand(120, 4, 5, generator=generator, dtype=F64)).requires_grad_()

    def found(rule):
        sol = adjsnn.solve(net, u, dt=DT, adjoint=rule)
        assert sol.stats.spikes[0] > 20
        return torch.autograd.grad(weighted(sol), [u, net.w_in[0], net.bias[0]])

    for g, h in zip(*(found(rule) for rule in (SuperSpike(SHAPE, reset="by"), SurrogateBPTT(SHAPE, reset="by"))), strict=True):
        assert bool(h.any())
        torch.testing.assert_close(g, h, **ROUNDING)


def test_a_kernel_of_its_own():
    """That of the neuron's own constants is the rule itself; another one is not, and the network stays."""
    net, x = net_of(), spikes()
    own = gradients(net, x, SuperSpike(SHAPE))
    for key, value in gradients(net, x, SuperSpike(SHAPE, kernel=(5.0, 20.0))).items():
        torch.testing.assert_close(value, own[key], **ROUNDING)
    other = gradients(net, x, SuperSpike(SHAPE, kernel=(5.0, 10.0)))
    assert not torch.allclose(other["w_in.0"], own["w_in.0"], rtol=1e-2)


def test_bodies_batches_and_single_precision():
    net, x = net_of(**OPTIONS["per synapse"]), spikes()
    whole = gradients(net, x, SuperSpike(SHAPE))
    plain = gradients(net, x, SuperSpike(SHAPE), kernels="plain")
    single = [gradients(net, x[b], SuperSpike(SHAPE)) for b in range(4)]
    for key, value in whole.items():
        torch.testing.assert_close(plain[key], value, **ROUNDING)
        torch.testing.assert_close(sum(one[key] for one in single), value, **ROUNDING)
    narrow = gradients(net.float(), x.to(dtype=torch.float32), SuperSpike(SHAPE))
    for key, value in narrow.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), whole[key], rtol=1e-3, atol=1e-3 * float(whole[key].abs().max()))
    sol = adjsnn.solve(net.double(), x, dt=DT, adjoint=SuperSpike())
    assert sol.stats.kernel == "fused"
    s = sol.spikes_on_grid()
    seeds = torch.eye(s.numel(), dtype=F64).view(-1, *s.shape)[::900]
    many = torch.autograd.grad(s, net.w_in[0], seeds, is_grads_batched=True, retain_graph=True)[0]
    for one, given in zip(many, seeds, strict=True):
        torch.testing.assert_close(one, torch.autograd.grad(s, net.w_in[0], given, retain_graph=True)[0])


def test_a_later_step_of_the_optimiser_does_not_change_the_gradient():
    net, x = net_of(), spikes()
    expected = gradients(net, x, SuperSpike(SHAPE))["w_in.0"]
    loss, _ = filtered_error(adjsnn.solve(net, x, dt=DT, adjoint=SuperSpike(SHAPE)))
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(0.9)
    assert torch.equal(torch.autograd.grad(loss, net.w_in[0])[0], expected)


def test_what_it_does_not_cover_is_refused():
    x = spikes()
    for options, message in (
        ({"learn": ("weights", "tau_mem")}, "gradients of tau_mem"),
        ({"learn": ("weights", "v_th", "v_reset")}, "gradients of v_th, v_reset"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            adjsnn.solve(net_of(**options), x, dt=DT, adjoint=SuperSpike())
    y0 = [adjsnn.LIFState(*(torch.zeros(4, n, dtype=F64, requires_grad=True) for _ in range(2))) for n in (12, 3)]
    with pytest.raises(ConfigurationError, match="initial states"):
        adjsnn.solve(net_of(), x, y0=y0, dt=DT, adjoint=SuperSpike())
    sol = adjsnn.solve(net_of(), x, dt=DT, adjoint=SuperSpike())
    for value in (
        sol.v[0].sum(),
        sol.i[1].sum() + sol.spike_count().sum(),
        sol.voltage_max(0).sum(),
        sol.final_state[0].v.sum(),
    ):
        with pytest.raises(ConfigurationError, match="a loss of voltages or currents"):
            value.backward(retain_graph=True)
    bad = [{"feedback": "none"}, {"reset": "up"}, {"seed": -1}, {"scale": 0.0}, {"surrogate": "x"}]
    for options in [*bad, {"kernel": 5.0}, {"kernel": (5.0,)}, {"kernel": (5.0, -1.0)}]:
        with pytest.raises(ConfigurationError):
            SuperSpike(**options)
    with pytest.raises(ConfigurationError, match="no dt"):
        adjsnn.solve(net_of(), x, adjoint=SuperSpike())
    with pytest.raises(ConfigurationError, match="create_graph"):
        torch.autograd.grad(sol.spike_count().sum(), net_of_leaves(sol), create_graph=True)


def net_of_leaves(sol):
    return [sol._layers[0].w_in]


def test_the_yardstick_takes_it():
    net, x = network(True, seed=1, learn=("weights", "bias"), n_out=None), spikes(1)
    found = adjsnn.solve(network(True, seed=5, n_out=None), x).layer_spikes[1]
    target = SpikeTrains(found.idx, found.time.detach(), 3, 60.0)
    loss = lambda sol: adjsnn.losses.van_rossum(sol, target, tau_rise=5.0).mean()  # noqa: E731
    report = adjsnn.gradcheck.angle(net, x, loss, [SuperSpike(Triangle(2.0))], dt=0.1)
    assert -1.0 < report.row("SuperSpike").cosine < 1.0
