"""Parameters put into a network after construction: one number for a layer is spread, another shape is refused at the door."""

import copy

import pytest
import torch
from networks import DT, gradients, random_network, random_trial, relative
from torch import nn
from torch.nn.utils import parametrize

import adjsnn
from adjsnn import ConfigurationError, GatedSynapseNetwork, LIFNetwork, LIFState, SpikeTrains

N, M = 5, 3
X = SpikeTrains.from_list([[(1.0, 0), (2.0, 1), (6.0, 2)], [(3.0, 2), (4.0, 0)]], n_neurons=M, t_max=60.0)
LEARN = ("weights", "bias", "tau_mem", "tau_syn", "v_th", "v_reset", "refractory", "delays")


def lif(recurrent: bool = False, **options) -> LIFNetwork:
    """A float64 network that spikes, all of its constants learnt and equal over its neurons."""
    values = {"bias": 1.3, "refractory": 2.0, "delays": 1.5, "rec_delays": 2.5 if recurrent else None, "learn": LEARN} | options
    net = LIFNetwork(M, (N,), recurrent, **values, n_out=2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.w_in[0].mul_(0.3)
    return net


def lif_loss(net: LIFNetwork, kernels: str, y0=None) -> torch.Tensor:
    sol = adjsnn.solve(net, X, t_end=60.0, kernels=kernels, ts=[20.0, 60.0], y0=y0)
    assert min(sol.stats.spikes) > 10
    times = sol.spike_times()
    return (times * torch.linspace(0.1, 1.0, len(times), dtype=torch.float64)).sum() + sol.v[0].sum() + sol.readout.sum()


LIF_CONSTANTS = ("bias", "tau_mem", "tau_syn", "v_th", "v_reset", "refractory", "delays", "rec_delays")


@pytest.mark.every(7)
@pytest.mark.parametrize("shape", [(), (1,)], ids=["()", "(1,)"])
@pytest.mark.parametrize("recurrent", [False, True], ids=["feed-forward", "recurrent"])
@pytest.mark.parametrize("name", LIF_CONSTANTS)
def test_one_constant_for_a_lif_layer_is_that_of_each_neuron_and_its_gradient_the_sum(name, recurrent, shape, lif_kernels):
    if name == "rec_delays" and not recurrent:
        pytest.skip("no recurrent connections")
    whole = lif(recurrent)
    single = copy.deepcopy(whole)
    constants = getattr(single, name)
    constants[0] = nn.Parameter(constants[0].detach()[0].reshape(shape).clone())
    for net in (whole, single):
        lif_loss(net, lif_kernels).backward()
    for (label, one), other in zip(single.named_parameters(), whole.parameters(), strict=True):
        expected = other.grad.sum().reshape(shape) if label == f"{name}.0" else other.grad
        torch.testing.assert_close(one.grad, expected, rtol=1e-12, atol=1e-13)


def test_one_constant_for_five_neurons_spikes_as_five():
    """The input of the fault: [[1, 0, 0, 0, 0]] spikes for [[1, 1, 1, 1, 1]]."""
    net = LIFNetwork(M, (N,), tau_mem=20.0)
    net.bias[0] = nn.Parameter(torch.tensor([2.0]))
    with torch.no_grad():
        net.w_in[0].zero_()
    for kernels in ("auto", "plain"):
        assert adjsnn.solve(net, X, t_end=20.0, kernels=kernels).spike_counts().tolist() == [[1] * N] * 2


def test_a_view_and_an_expanded_tensor_are_constants_too(lif_kernels):
    expected = lif_loss(lif(), lif_kernels)
    for value in (torch.tensor(1.3, dtype=torch.float64).expand(N), torch.full((2 * N,), 1.3, dtype=torch.float64)[::2]):
        net = lif()
        net.bias[0] = nn.Parameter(value)
        assert torch.equal(lif_loss(net, lif_kernels), expected)


LEAKY, PHASE = adjsnn.LIF(20.0, -0.2), adjsnn.QIF(25.0)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("method", "neuron", "kernels", "shape"),
    [
        *(("euler", neuron, kernels, (1,)) for neuron in (LEAKY, PHASE) for kernels in ("auto", "backward", "plain")),
        *(("euler", LEAKY, kernels, ()) for kernels in ("auto", "plain")),
        *(("heun", LEAKY, kernels, (1,)) for kernels in ("auto", "plain")),
    ],
)
def test_one_constant_for_a_gated_network_is_that_of_each_neuron(method, neuron, kernels, shape):
    whole = random_network(neuron, adjsnn.RaisedCosineGate(0.2), seed=1)
    names = ("bias", "tau_fast", "tau_slow", *neuron.constants)
    with torch.no_grad():
        whole.bias.fill_(1.3 if "tau_mem" in neuron.constants else 0.15)
    single = copy.deepcopy(whole)
    for name in names:
        value = getattr(whole, name).detach()
        setattr(single, name, nn.Parameter(value.flatten()[0].reshape(shape).clone()))
    u, y0 = random_trial(whole, seed=1, steps=100)
    for adjoint in (None, adjsnn.BPTT()) if kernels == "auto" else (None,):
        expected, found = (gradients(net, u, y0, adjoint, method=method, kernels=kernels) for net in (whole, single))
        for name, g in found.items():
            assert g.shape == (shape if name in names else expected[name].shape)
            assert relative(g.sum() if name in names else g, expected[name].sum() if name in names else expected[name]) < 1e-11


def test_one_constant_with_checkpoints_and_in_the_charge_form():
    whole = random_network(adjsnn.LIF(20.0), adjsnn.RaisedCosineGate(0.2), seed=1)
    with torch.no_grad():
        whole.bias.fill_(1.3)
    single = copy.deepcopy(whole)
    single.bias = nn.Parameter(torch.tensor([1.3], dtype=torch.float64))
    u, y0 = random_trial(whole, seed=1, steps=60)
    runs = (
        lambda net: adjsnn.solve(net, u, dt=DT, y0=y0, adjoint=adjsnn.DiscreteAdjoint(checkpoints=2)),
        lambda net: adjsnn.solve(
            adjsnn.ChargeForm(net), u[:20], dt=DT, y0=adjsnn.ChargeForm(net).from_state(y0), method="dopri5", rtol=1e-5
        ),
    )
    for run in runs:
        for net in (whole, single):
            net.zero_grad()
            run(net).readout.square().sum().backward()
        torch.testing.assert_close(single.bias.grad, whole.bias.grad.sum()[None], rtol=1e-10, atol=1e-12)


def test_gradcheck_of_constants_for_whole_layers():
    net = lif(True)
    for name in LIF_CONSTANTS:
        getattr(net, name)[0] = nn.Parameter(getattr(net, name)[0].detach()[:1].clone())
    report = adjsnn.gradcheck(net, X, lambda sol: sol.spike_times().square().mean(), t_end=30.0, entries=1, verbose=False)
    assert {f"{name}.0" for name in LIF_CONSTANTS} <= {row.name for row in report.rows}


WRONG_LIF = [
    ("w_in", (N, M - 1)), ("w_in", (N, M + 2)), ("w_in", (N - 1, M)), ("w_in", (M, N)), ("w_in", (N * M,)), ("w_in", ()),
    ("w_rec", (N, N - 1)), ("w_rec", (N - 1, N)), ("w_rec", (1,)), ("bias", (N - 1,)), ("bias", (N + 1,)), ("bias", (N, 1)),
    ("bias", (0,)), ("bias", (1, N)), ("tau_mem", (2,)), ("tau_syn", (N, N)), ("v_th", (1, 1)), ("v_reset", (N + 600,)),
    ("refractory", (3,)), ("delays", (M + 1,)), ("delays", (N,)), ("delays", (N, 1)), ("delays", (1, M)), ("delays", (M, N)),
    ("rec_delays", (M,)), ("rec_delays", (N, N + 1)), ("w_out", (2, N - 1)), ("w_out", (3, N)), ("w_out", (N,)),
]  # fmt: skip


@pytest.mark.parametrize("kernels", ["auto", "plain"])
@pytest.mark.parametrize(("name", "shape"), WRONG_LIF, ids=str)
def test_another_shape_in_a_lif_network_is_refused_before_any_loop(name, shape, kernels):
    net = lif(True)
    wrong = nn.Parameter(torch.ones(shape, dtype=torch.float64))
    if name == "w_out":
        net.w_out = wrong
    else:
        getattr(net, name)[0] = wrong
    with pytest.raises(ConfigurationError, match=rf"{name}.*of shape {str(shape).replace('(', '.').replace(')', '.')}"):
        adjsnn.solve(net, X, t_end=20.0, kernels=kernels)


WRONG_GATED = [
    ("w_in", (N, 1)), ("w_in", (N, 3)), ("w_in", (N - 1, 2)), ("w_in", (2, N)), ("w_rec", (N, N - 1)),
    ("w_rec", (N - 1, N - 1)), ("w_rec", (N, N, 1)), ("w_rec", (1, N)), ("bias", (N - 1,)), ("bias", (N, 1)),
    ("bias", (1, N)), ("bias", (2, N)), ("bias", (0,)), ("w_out", (3, N - 1)), ("w_out", (4, N)), ("w_out", (N,)),
    ("tau_fast", (2,)), ("tau_fast", (N, N)), ("tau_slow", (1, N)), ("tau_mem", (N + 1,)), ("v_reset", (2, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shape"), WRONG_GATED, ids=str)
def test_another_shape_in_a_gated_network_is_refused_before_any_loop(name, shape):
    net = GatedSynapseNetwork(2, N, 3, neuron=adjsnn.LIF(20.0))
    setattr(net, name, nn.Parameter(torch.ones(shape)))
    u, message = torch.zeros(10, N, 2), rf"{name} of shape {str(shape).replace('(', '.').replace(')', '.')}"
    for options in ({}, {"kernels": "plain"}, {"method": "heun"}, {"adjoint": adjsnn.BPTT()}):
        with pytest.raises(ConfigurationError, match=message):
            adjsnn.solve(net, u, **({"dt": 0.5} | options))
    form = adjsnn.ChargeForm(net)
    with pytest.raises(ConfigurationError, match=message):
        adjsnn.solve(form, u, dt=0.5, y0=torch.zeros(N, 3 * N), method="dopri5")
    with pytest.raises(ConfigurationError, match=message):
        adjsnn.gradcheck(net, u, lambda sol: sol.readout.sum(), dt=0.5, verbose=False)


def test_six_hundred_neurons_with_one_constant_spike_alike_and_with_too_few_are_refused():
    """Read beyond their end, and corrupted the heap."""
    net = LIFNetwork(M, (600,), bias=2.0)
    with torch.no_grad():
        net.w_in[0].zero_()
    net.tau_mem[0] = nn.Parameter(torch.tensor([10.0]))
    assert torch.equal(adjsnn.solve(net, X, t_end=20.0).spike_counts(), torch.full((2, 600), 2))  # every 10 ln 2 ms
    net.tau_syn[0] = nn.Parameter(torch.full((599,), 5.0))
    for kernels in ("auto", "plain"):
        with pytest.raises(ConfigurationError, match=r"tau_syn\[0\] of shape \(599,\)"):
            adjsnn.solve(net, X, t_end=20.0, kernels=kernels)


class Sparse(nn.Module):
    def forward(self, x):
        return x.to_sparse()


class Shorter(nn.Module):
    def forward(self, x):
        return x[:-1]


class Same(nn.Module):
    """A parametrization by one number."""

    def forward(self, x):
        return x.mean().reshape(1)


@pytest.mark.parametrize(("rule", "message"), [(Shorter(), "bias.* of shape"), (Sparse(), "bias.* layout torch.sparse")])
def test_what_a_parametrization_gives_is_checked_too(rule, message):
    gated, events = GatedSynapseNetwork(2, N, 3), lif()
    parametrize.register_parametrization(gated, "bias", rule, unsafe=True)
    parametrize.register_parametrization(events.bias, "0", rule, unsafe=True)
    with pytest.raises(ConfigurationError, match=message):
        adjsnn.solve(gated, torch.zeros(10, 1, 2), dt=0.5)
    with pytest.raises(ConfigurationError, match=message):
        adjsnn.solve(events, X, t_end=20.0)


def test_a_parametrization_by_one_number_is_spread(lif_kernels):
    whole, single = lif(), lif()
    parametrize.register_parametrization(single.bias, "0", Same(), unsafe=True)
    for net in (whole, single):
        lif_loss(net, lif_kernels).backward()
    mean = whole.bias[0].grad.mean().expand(N)
    torch.testing.assert_close(single.bias.parametrizations["0"].original.grad, mean, rtol=1e-12, atol=1e-13)


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64, torch.float64])
def test_networks_turned_into_another_dtype_are_refused(dtype):
    """In 16 bits 13.875 came for 13.863, without a word."""
    message = {torch.float64: "inputs of torch.float32"}.get(dtype, str(dtype))
    gated = GatedSynapseNetwork(2, N, 3).to(dtype)
    for options in ({}, {"kernels": "plain"}, {"method": "rk4"}):
        with pytest.raises(ConfigurationError, match=message):
            adjsnn.solve(gated, torch.zeros(10, 1, 2), dt=0.5, **options)
    if dtype != torch.float64:
        with pytest.raises(ConfigurationError, match=message):
            adjsnn.solve(gated, torch.zeros(10, 1, 2, dtype=dtype), dt=0.5)
        with pytest.raises(ConfigurationError, match=message):
            adjsnn.solve(
                adjsnn.ChargeForm(gated), torch.zeros(10, 1, 2, dtype=dtype), dt=0.5, y0=torch.zeros(1, 15, dtype=dtype)
            )
        for kernels in ("auto", "plain"):
            with pytest.raises(ConfigurationError, match=message):
                adjsnn.solve(LIFNetwork(M, (N,), tau_mem=20.0, bias=2.0).to(dtype), X, t_end=20.0, kernels=kernels)


class Decay(adjsnn.HybridSystem):
    def vector_field(self, t, y, u):
        return -y


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64, torch.int64])
def test_a_system_of_ones_own_is_refused_in_another_dtype(dtype):
    y0, u, ts = torch.ones(1, 1).to(dtype), torch.zeros(3, 1, 1).to(dtype), torch.linspace(0.0, 1.0, 4)
    for method in ("rk4", "dopri5"):
        with pytest.raises(ConfigurationError, match=str(dtype)):
            adjsnn.solve(Decay(), None, y0=y0, ts=ts, method=method)
        with pytest.raises(ConfigurationError, match=str(dtype)):
            adjsnn.solve(Decay(), u, y0=torch.ones(1, 1), ts=ts, method=method)


@pytest.mark.parametrize("where", ["gated", "lif"])
@pytest.mark.parametrize("kind", ["None", "meta", "sparse", "int", "other dtype"])
def test_a_parameter_that_holds_no_usable_numbers_is_refused(kind, where):
    values = {
        "None": (None, "NoneType"),
        "meta": (nn.Parameter(torch.empty(N, device="meta")), "meta"),
        "sparse": (nn.Parameter(torch.ones(N).to_sparse()), "sparse"),
        "int": (nn.Parameter(torch.ones(N, dtype=torch.int64), requires_grad=False), "int64"),
        "other dtype": (nn.Parameter(torch.ones(N, dtype=torch.float64)), "float64"),
    }
    value, message = values[kind]
    if where == "gated":
        net = GatedSynapseNetwork(2, N, 3)
        net.bias = value
        with pytest.raises(ConfigurationError, match=f"bias.*{message}"):
            adjsnn.solve(net, torch.zeros(10, 1, 2), dt=0.5)
        return
    events = LIFNetwork(M, (N,))
    events.bias[0] = value
    with pytest.raises(ConfigurationError, match=rf"bias\[0\].*{message}"):
        adjsnn.solve(events, X, t_end=20.0)


def test_whole_networks_on_meta_or_without_a_layers_constant_are_refused():
    with pytest.raises(ConfigurationError, match="meta"):
        adjsnn.solve(LIFNetwork(M, (N,), device="meta"), X, t_end=20.0)
    with pytest.raises(ConfigurationError, match="meta"):
        adjsnn.solve(GatedSynapseNetwork(2, N, 3).to("meta"), torch.zeros(10, 1, 2), dt=0.5)
    net = LIFNetwork(M, (N, 2))
    net.bias = nn.ParameterList([net.bias[0]])
    with pytest.raises(ConfigurationError, match="bias with 1 entries"):
        adjsnn.solve(net, X, t_end=20.0)
    for name in ("w_rec", "w_in", "w_out", "tau_fast", "tau_v"):
        gated = GatedSynapseNetwork(2, N, 3)
        setattr(gated, name, None)
        with pytest.raises(ConfigurationError, match=f"{name} is NoneType"):
            adjsnn.solve(gated, torch.zeros(10, 1, 2), dt=0.5)


def test_a_readout_time_constant_that_asks_for_a_gradient_is_refused():
    net = lif()
    net.tau_out = nn.Parameter(torch.tensor(20.0))  # would have received a part of its gradient
    with pytest.raises(ConfigurationError, match="tau_out"):
        adjsnn.solve(net, X, t_end=20.0)


def test_effective_tensors_of_a_subclass_are_the_ones_that_are_solved_and_checked():
    class Positive(LIFNetwork):
        def tensors(self):
            return [layer._replace(w_in=layer.w_in.abs()) for layer in super().tensors()]

    class Broken(LIFNetwork):
        def tensors(self):
            return [layer._replace(w_in=layer.w_in[:, :-1]) for layer in super().tensors()]

    class Excitatory(GatedSynapseNetwork):
        def tensors(self):
            return super().tensors()._replace(w_out=self.w_out.abs())

    plain, positive = lif(), Positive(M, (N,), bias=1.3, refractory=2.0, delays=1.5, learn=LEARN, n_out=2, dtype=torch.float64)
    with torch.no_grad():
        plain.w_in[0].abs_()
    positive.load_state_dict({name: -x if name == "w_in.0" else x for name, x in plain.state_dict().items()})
    for net in (plain, positive):
        lif_loss(net, "auto").backward()
    torch.testing.assert_close(positive.w_in[0].grad, -plain.w_in[0].grad)
    with pytest.raises(ConfigurationError, match=r"w_in\[0\] of shape"):
        adjsnn.solve(Broken(M, (N,)), X, t_end=20.0)
    net = Excitatory(2, N, 3)
    sol = adjsnn.solve(net, torch.ones(50, 1, 2), dt=0.1)
    torch.testing.assert_close(sol.readout, net.readout(sol.a_slow))


def test_initial_states_of_one_number_or_another_shape_are_refused():
    for shape in ((), (1,), (2, 1), (N,), (1, N)):
        with pytest.raises(ConfigurationError, match="y0"):
            adjsnn.solve(
                lif(), X, y0=[LIFState(torch.zeros(shape, dtype=torch.float64), torch.zeros(2, N, dtype=torch.float64))]
            )
        state = adjsnn.GatedState(torch.zeros(2, N), torch.zeros(shape), torch.zeros(2, N))
        with pytest.raises(ConfigurationError, match="y0"):
            adjsnn.solve(GatedSynapseNetwork(2, N, 3), torch.zeros(10, 2, 2), dt=0.5, y0=state)


def test_expanded_and_transposed_matrices_inputs_and_states_give_the_gradients_of_copies():
    net = random_network(adjsnn.QIF(25.0), adjsnn.RaisedCosineGate(0.2), seed=3, n_hidden=N)
    u = torch.randn(2, 3, 80, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).transpose(0, 2)
    zero = torch.zeros(1, 1, dtype=torch.float64).expand(3, N)
    y0 = adjsnn.GatedState(zero, zero, zero)
    strided = copy.deepcopy(net)
    strided.w_rec = nn.Parameter(net.w_rec.detach().T.contiguous().T)
    strided.w_in = nn.Parameter(net.w_in.detach().repeat(1, 2)[:, :2])
    results = []
    for system, x in ((net, u.contiguous()), (strided, u)):
        for kernels in ("auto", "plain"):
            system.zero_grad()
            adjsnn.solve(system, x, dt=DT, y0=y0, kernels=kernels).readout.square().sum().backward()
            results.append([p.grad.clone() for p in system.parameters()])
    for found in results[1:]:
        for a, b in zip(found, results[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_network_without_inputs_and_a_single_neuron_solve():
    for tau in (5.0, [5.0]):
        generator = torch.Generator().manual_seed(0)  # a strong weight would run away
        net = GatedSynapseNetwork(0, 1, 1, tau_fast=tau, dtype=torch.float64, generator=generator)
        net.bias = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))
        adjsnn.solve(net, torch.zeros(100, 1, 0, dtype=torch.float64), dt=0.5, kernels="fused").readout.sum().backward()
        assert net.bias.grad.shape == ()
        assert net.bias.grad != 0
