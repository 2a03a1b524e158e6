"""The hand-written adjoint against BPTT of the same program, against its own singles, and in float32."""

import copy

import pytest
import torch
from networks import DT, GATES, MEMBRANES, gradients, random_network, random_trial, relative
from torch import nn
from torch.nn.utils import parametrize

import adjsnn
from adjsnn import BPTT, DiscreteAdjoint, GatedState

SAME_PROGRAM = 1e-10  # only the order of float64 sums differs; typically 1e-15


@pytest.mark.every(5)
@pytest.mark.parametrize("tau_per_neuron", [False, True])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("neuron", MEMBRANES)
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_bptt(neuron, gate, tau_per_neuron, seed, kernels):
    """On bit-identical states: the fused loops are given those of plain operations."""
    net = random_network(MEMBRANES[neuron], GATES[gate], seed=seed, tau_per_neuron=tau_per_neuron)
    u, y0 = random_trial(net, seed=seed)
    assert adjsnn.solve(net, u, dt=DT, y0=y0, kernels=kernels).stats.spikes > 30
    expected = gradients(net, u, y0, BPTT())
    found = gradients(net, u, y0, DiscreteAdjoint(), kernels="plain" if kernels == "plain" else "backward")
    assert {"w_in", "w_rec", "bias", "w_out", "tau_fast", "tau_slow", "u", "v", "a_fast", "a_slow"} <= set(expected)
    for name, value in expected.items():
        assert value.norm() > 0, name
        assert relative(found[name], value) <= SAME_PROGRAM, name


@pytest.mark.every(5)
@pytest.mark.parametrize("part", ["readout", "v", "a_fast", "a_slow", "charge", "final_state"])
def test_each_output_alone_carries_its_gradient(part, kernels):
    net = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=3)
    u, y0 = random_trial(net, seed=3)

    def loss(sol):
        x = getattr(sol, part)
        return sum(y.square().sum() for y in x) if isinstance(x, tuple) else x.square().sum()

    expected = gradients(net, u, y0, BPTT(), loss)
    found = gradients(net, u, y0, DiscreteAdjoint(), loss, kernels=kernels)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=SAME_PROGRAM, atol=1e-12, msg=name)


@pytest.mark.every(7)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("neuron", MEMBRANES)
@pytest.mark.parametrize("method", ["euler", "heun", "rk4"])
def test_the_number_of_spikes_has_the_gradient_of_the_charge(method, neuron, gate, kernels):
    """It enters the sweep by a cotangent of its own, the charge of single steps by those of the states."""
    net = random_network(MEMBRANES[neuron], GATES[gate], seed=4)
    u, y0 = random_trial(net, seed=4)
    weights = torch.linspace(0.5, 1.5, net.n_hidden, dtype=torch.float64)

    def found_from(count, adjoint, kernels="auto"):
        counts = []

        def loss(sol):
            counts.append(count(sol))
            return (counts[-1] * weights).square().sum() + sol.readout.square().sum()

        return gradients(net, u, y0, adjoint, loss, method=method, kernels=kernels), counts[-1].detach()

    found, counted = found_from(lambda sol: sol.spike_charge, DiscreteAdjoint(), kernels)
    for count, adjoint, body in (
        (lambda sol: sol.charge.abs().sum(0), DiscreteAdjoint(), kernels),
        (lambda sol: sol.spike_charge, BPTT(), "auto"),
    ):
        expected, total = found_from(count, adjoint, body)
        torch.testing.assert_close(counted, total, rtol=1e-10, atol=1e-10)
        for name, value in expected.items():
            assert value.norm() > 0, name
            assert relative(found[name], value) <= 1e-8, name


@pytest.mark.parametrize("adjoint", [DiscreteAdjoint(), DiscreteAdjoint(checkpoints=2), BPTT()])
@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_at_rest_no_charge_is_released_not_even_a_rounding(method, adjoint):
    """Inside a zone of constant g |q| has a kink at 0, whose derivative is taken as 0, though synapses still decay."""
    net = adjsnn.GatedSynapseNetwork(
        1, 2, 1, neuron=adjsnn.NIF(), gate=adjsnn.RectangularGate(0.2), learn=("weights", "bias"), dtype=torch.float64
    )
    with torch.no_grad():
        for x in (net.w_in, net.w_rec, net.bias):
            x.zero_()
    a = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    y0 = GatedState(torch.tensor([[0.9, 0.1]], dtype=torch.float64), a, a)
    sol = adjsnn.solve(net, torch.zeros(40, 1, 1, dtype=torch.float64), dt=0.3, y0=y0, method=method, adjoint=adjoint)
    assert not bool(sol.spike_charge.any())
    wanted = [net.w_rec, net.bias]
    found = torch.autograd.grad(sol.spike_charge.sum(), wanted, allow_unused=True, materialize_grads=True)
    assert not any(bool(g.any()) for g in found)


def test_single_precision_adds_no_charge():
    net = adjsnn.GatedSynapseNetwork(1, 2, 1, neuron=adjsnn.LIF(), tau_slow=200.0)
    with torch.no_grad():
        net.w_rec.zero_()
        net.bias.zero_()
    y0 = GatedState(*(torch.tensor([[x, x]]) for x in (0.0, 1.0, 1.0)))
    sol = adjsnn.solve(net, torch.zeros(3000, 1, 1), dt=0.01, y0=y0)
    assert float(sol.a_slow[-1].detach().min()) > 0.5
    assert not bool(sol.charge.any())
    assert not bool(sol.spike_charge.any())


@pytest.mark.parametrize("method", ["euler", "heun", "rk4"])
def test_the_number_of_spikes_adds_up_step_after_step(method, kernels):
    net = random_network(MEMBRANES["nif"], GATES["raised_cosine"], seed=4)
    u, y0 = random_trial(net, seed=4)
    sol = adjsnn.solve(net, u, dt=DT, y0=y0, method=method, kernels=kernels)
    whole = sol.charge.detach().abs().sum(0)
    assert float(whole.min()) > 0.0
    found = sol.spike_charge
    torch.testing.assert_close(found.detach(), whole, rtol=1e-13, atol=1e-13)
    expected = found.detach().clone()
    found.detach().zero_()
    assert torch.equal(sol.spike_charge.detach(), expected)  # no name for it reaches the solution's
    kept = adjsnn.solve(net, u, dt=DT, y0=y0, method=method, kernels=kernels, adjoint=DiscreteAdjoint(checkpoints="sqrt"))
    assert torch.equal(kept.spike_charge.detach(), expected)  # units add to the same sums


@pytest.mark.parametrize("neuron", MEMBRANES)
def test_forward_is_the_same_program(neuron, kernels):
    net = random_network(MEMBRANES[neuron], GATES["raised_cosine"], seed=0)
    u, y0 = random_trial(net, seed=0)
    ours, theirs = (adjsnn.solve(net, u, dt=DT, y0=y0, adjoint=a, kernels=kernels) for a in (DiscreteAdjoint(), BPTT()))
    for name in ("v", "a_fast", "a_slow", "readout", "crossings"):  # fused loops round in another order; nets amplify that
        atol = 1e-14 if kernels == "plain" else 1e-12
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=0, atol=atol)


@pytest.mark.parametrize("neuron", MEMBRANES)
def test_batch_equals_its_samples_run_singly(neuron, kernels):
    """Products of other widths round otherwise, and longer trials of the QIF network are chaotic."""
    net = random_network(MEMBRANES[neuron], GATES["raised_cosine"], seed=1)
    u, y0 = random_trial(net, seed=1, steps=60)
    together = gradients(net, u, y0, None, lambda sol: sol.readout.square().sum(), kernels=kernels)
    total: dict[str, torch.Tensor] = {}
    for k in range(u.shape[1]):
        single_u = u.detach()[:, k : k + 1].clone().requires_grad_()
        single_y0 = GatedState(*(x.detach()[k : k + 1].clone().requires_grad_() for x in y0))
        single = gradients(net, single_u, single_y0, None, lambda sol: sol.readout.square().sum(), kernels=kernels)
        assert relative(single["u"], together["u"][:, k : k + 1]) <= SAME_PROGRAM
        for name in dict(net.named_parameters()):
            total[name] = total.get(name, 0) + single[name]
    for name, value in total.items():
        assert relative(together[name], value) <= SAME_PROGRAM, name


@pytest.mark.every(5)
@pytest.mark.parametrize("neuron", MEMBRANES)
def test_float32_agrees_with_float64(neuron, kernels):
    net = random_network(MEMBRANES[neuron], GATES["raised_cosine"], seed=2)
    u, y0 = random_trial(net, seed=2, steps=100)
    expected = gradients(net, u, y0, None, kernels=kernels)
    small = copy.deepcopy(net).float()
    u32 = u.detach().float().requires_grad_()
    y32 = GatedState(*(x.detach().float().requires_grad_() for x in y0))
    found = gradients(small, u32, y32, None, kernels=kernels)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        # 100 steps each round to 6e-8; these nets amplify a rounding error a few hundred times.
        assert relative(found[name].double(), value) <= 2e-3, name


def test_frozen_parameters_receive_nothing_and_cost_nothing_else(kernels):
    net = random_network(MEMBRANES["qif"], GATES["raised_cosine"], seed=0)
    u, _ = random_trial(net, seed=0)
    adjsnn.solve(net, u.detach(), dt=DT, kernels=kernels).readout.square().sum().backward()
    expected = net.w_in.grad.clone()
    net.zero_grad(set_to_none=True)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name == "w_in")
    adjsnn.solve(net, u.detach(), dt=DT, kernels=kernels).readout.square().sum().backward()
    assert torch.equal(net.w_in.grad, expected)
    assert all(p.grad is None for name, p in net.named_parameters() if name != "w_in")


def test_learn_chooses_what_requires_a_gradient():
    net = adjsnn.GatedSynapseNetwork(2, 5, 1, learn=("bias", "tau_v"))
    assert {name for name, p in net.named_parameters() if p.requires_grad} == {"bias", "tau_v"}


def test_without_any_gradient_wanted_nothing_is_differentiable(kernels):
    net = random_network(MEMBRANES["qif"], GATES["raised_cosine"], seed=0).requires_grad_(False)
    u, _ = random_trial(net, seed=0)
    assert not adjsnn.solve(net, u.detach(), dt=DT, kernels=kernels).readout.requires_grad


def test_shared_parameter_adds_up(kernels):
    first = random_network(MEMBRANES["qif"], GATES["raised_cosine"], seed=0)
    second = random_network(MEMBRANES["qif"], GATES["raised_cosine"], seed=1)
    u, _ = random_trial(first, seed=0)
    u = u.detach()
    parts = []
    for net in (first, second):
        with torch.no_grad():
            second.w_rec.copy_(first.w_rec)
        (part,) = torch.autograd.grad(adjsnn.solve(net, u, dt=DT, kernels=kernels).readout.square().sum(), net.w_rec)
        parts.append(part)
    second.w_rec = first.w_rec
    loss = sum(adjsnn.solve(net, u, dt=DT, kernels=kernels).readout.square().sum() for net in (first, second))
    (found,) = torch.autograd.grad(loss, first.w_rec)
    assert relative(found, parts[0] + parts[1]) <= 1e-12


def test_several_losses_of_one_solution_add_up(kernels):
    net = random_network(MEMBRANES["nif"], GATES["raised_cosine"], seed=0)
    u, _ = random_trial(net, seed=0)
    sol = adjsnn.solve(net, u.detach(), dt=DT, kernels=kernels)
    parts = [torch.autograd.grad(f, net.w_rec, retain_graph=True)[0] for f in (sol.readout.sum(), sol.v.square().sum())]
    (whole,) = torch.autograd.grad(sol.readout.sum() + sol.v.square().sum(), net.w_rec)
    assert relative(whole, parts[0] + parts[1]) <= 1e-12


class _OutsideDiagonal(nn.Module):
    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return w - torch.diag(torch.diag(w))


def test_parametrizations_are_seen_through(kernels):
    net = random_network(MEMBRANES["qif"], GATES["raised_cosine"], seed=0)
    u, _ = random_trial(net, seed=0)
    parametrize.register_parametrization(net, "w_rec", _OutsideDiagonal())
    adjsnn.solve(net, u.detach(), dt=DT, kernels=kernels).readout.square().sum().backward()
    gradient = net.parametrizations.w_rec.original.grad
    assert gradient.norm() > 0
    assert torch.equal(gradient.diagonal(), torch.zeros(net.n_hidden, dtype=torch.float64))


def test_state_dict_restores_the_network(kernels):
    net = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=0, tau_per_neuron=True)
    other = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=9, tau_per_neuron=True)
    other.load_state_dict(net.state_dict())
    u, _ = random_trial(net, seed=0)
    assert torch.equal(
        adjsnn.solve(net, u, dt=DT, kernels=kernels).readout, adjsnn.solve(other, u, dt=DT, kernels=kernels).readout
    )


def test_a_solution_keeps_its_numbers_when_others_follow(kernels):
    net = adjsnn.GatedSynapseNetwork(2, 64, 2, neuron=adjsnn.NIF(), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.w_rec.mul_(0.2)
    u = torch.randn(400, 64, 2, generator=torch.Generator().manual_seed(0)) * 0.1
    sol = adjsnn.solve(net, u, dt=0.5, kernels=kernels)  # large enough for recycled memory
    before = [x.detach().clone() for x in (sol.v, sol.a_fast, sol.a_slow)]
    view = sol.v.detach()[3:5, 0]
    for _ in range(3):
        adjsnn.solve(net, u + 0.1, dt=0.5, kernels=kernels)
    assert all(torch.equal(x, y) for x, y in zip((sol.v, sol.a_fast, sol.a_slow), before, strict=True))
    del sol
    adjsnn.solve(net, u + 0.1, dt=0.5, kernels=kernels)
    assert torch.equal(view, before[0][3:5, 0])


def test_changing_a_state_in_place_is_noticed(kernels):
    net = random_network(MEMBRANES["nif"], GATES["raised_cosine"], seed=0)
    u, _ = random_trial(net, seed=0)
    sol = adjsnn.solve(net, u.detach(), dt=DT, kernels=kernels)
    loss = sol.readout.sum()
    sol.a_fast.detach().add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_going_on_from_the_final_state_equals_one_long_trial(kernels):
    net = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=4)
    u, y0 = random_trial(net, seed=4)
    whole = adjsnn.solve(net, u, dt=DT, y0=y0, kernels=kernels)
    first = adjsnn.solve(net, u[:80], dt=DT, y0=y0, kernels=kernels)
    second = adjsnn.solve(net, u[80:], dt=DT, y0=first.final_state, kernels=kernels)
    torch.testing.assert_close(second.v, whole.v[80:], rtol=0, atol=1e-13)
    (expected,) = torch.autograd.grad(whole.readout[-1].sum(), net.w_rec, retain_graph=True)
    (found,) = torch.autograd.grad(second.readout[-1].sum(), net.w_rec)
    assert relative(found, expected) <= 1e-12


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_inputs_of_another_layout_get_the_same_gradient(method, kernels):
    net = random_network(MEMBRANES["lif"], GATES["raised_cosine"], seed=3)
    u, _ = random_trial(net, seed=3, steps=20)
    found = []
    for leaf in (u, u.detach().permute(2, 1, 0).contiguous().permute(2, 1, 0).requires_grad_()):
        sol = adjsnn.solve(net, leaf, dt=DT, kernels=kernels, method=method)
        found.append(torch.autograd.grad(sol.v.square().sum(), leaf)[0])
    assert relative(*found) <= 1e-14


def test_closed_form_one_neuron(kernels):
    """Without recurrence the charge released until T is G(v0 + T b) counted through all turns; its slope in b is T g(v(T))."""
    net = adjsnn.GatedSynapseNetwork(1, 1, 1, neuron=adjsnn.NIF(), gate=adjsnn.RaisedCosineGate(0.4), dtype=torch.float64)
    with torch.no_grad():
        net.w_rec.zero_()
        net.w_in.zero_()
        net.bias.fill_(0.0277)
    u = torch.zeros(1000, 1, 1, dtype=torch.float64)
    sol = adjsnn.solve(net, u, dt=0.1, kernels=kernels)
    charge = sol.charge.sum()
    end = 100 * 0.0277  # 2.77: two turns and a bit, 0.17/0.4 into the zone
    x = torch.tensor((end - 2 - 0.6) / 0.4, dtype=torch.float64)
    two_pi = 2 * torch.pi
    torch.testing.assert_close(charge, 2 + x - torch.sin(two_pi * x) / two_pi, rtol=1e-10, atol=0)
    (slope,) = torch.autograd.grad(charge, net.bias)
    torch.testing.assert_close(slope[0], 100 * (1 - torch.cos(two_pi * x)) / 0.4, rtol=1e-9, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("neuron", MEMBRANES)
def test_cuda_agrees_with_cpu(neuron, kernels):
    net = random_network(MEMBRANES[neuron], GATES["raised_cosine"], seed=0)
    u, y0 = random_trial(net, seed=0)
    expected = gradients(net, u, y0, None, kernels=kernels)
    device = copy.deepcopy(net).cuda()
    y0_device = GatedState(*(x.detach().cuda().requires_grad_() for x in y0))
    found = gradients(device, u.detach().cuda().requires_grad_(), y0_device, None, kernels=kernels)
    for name, value in expected.items():
        assert relative(found[name].cpu(), value) <= 1e-9, name
