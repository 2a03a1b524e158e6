"""Lean trajectories: Euler steps keep no synapses where none of their time constants is learnt, and find them when asked."""

import pytest
import torch
from networks import DT, GATES, MEMBRANES, random_loss, random_network, random_trial

import adjsnn
from adjsnn import BPTT, ConfigurationError, DiscreteAdjoint, GatedState

PARTS = ("readout", "v", "a_fast", "a_slow", "charge", "spike_charge", "final_state")


def both(neuron: str = "lif", gate: str = "raised_cosine", dtype: torch.dtype = torch.float64, **sizes: int):
    """Two networks of the same numbers, the first with learnt time constants, so that it keeps everything; and a trial."""
    nets = [random_network(MEMBRANES[neuron], GATES[gate], seed=6).to(dtype) for _ in range(2)]
    for tau in (nets[1].tau_fast, nets[1].tau_slow):
        tau.requires_grad_(False)
    u, y0 = random_trial(nets[0], seed=6, **sizes)
    return nets, u.detach().to(dtype).requires_grad_(), GatedState(*(x.detach().to(dtype).requires_grad_() for x in y0))


def found(net, u, y0, loss, **options):
    leaves = [u, *y0, net.w_in, net.w_rec, net.bias, net.w_out]
    sol = adjsnn.solve(net, u, dt=DT, y0=y0, **options)
    return sol, torch.autograd.grad(loss(sol), leaves, allow_unused=True, materialize_grads=True)


@pytest.mark.every(3)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("neuron", MEMBRANES)
def test_states_and_gradients_are_the_bits_of_what_keeps_everything(neuron, gate, dtype):
    nets, u, y0 = both(neuron, gate, dtype, batch=5)
    (whole, expected), (lean, gradients) = (found(net, u, y0, random_loss) for net in nets)
    for name in ("v", "a_fast", "a_slow", "readout", "charge", "crossings"):
        assert torch.equal(getattr(lean, name), getattr(whole, name)), name
    assert all(torch.equal(x, y) for x, y in zip(lean.final_state, whole.final_state, strict=True))
    assert all(torch.equal(x[-1], y) for x, y in zip((lean.v, lean.a_fast, lean.a_slow), lean.final_state, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(gradients, expected, strict=True))


@pytest.mark.parametrize("part", PARTS)
def test_each_output_alone_carries_its_gradient(part):
    def loss(sol):
        x = getattr(sol, part)
        return sum(y.square().sum() for y in x) if isinstance(x, tuple) else x.square().sum()

    (_, net), u, y0 = both()
    expected, gradients = (found(net, u, y0, loss, adjoint=adjoint)[1] for adjoint in (BPTT(), DiscreteAdjoint()))
    for value, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_trials(steps):
    nets, u, y0 = both(steps=steps)
    (whole, expected), (lean, gradients) = (found(net, u, y0, random_loss) for net in nets)
    assert torch.equal(lean.a_slow, whole.a_slow)
    assert all(torch.equal(x, y) for x, y in zip(gradients, expected, strict=True))


def test_nine_bytes_per_neuron_and_step_instead_of_seventeen():
    nets, u, y0 = both(dtype=torch.float32)
    whole, lean = (adjsnn.solve(net, u, dt=DT, y0=y0).stats.stored_bytes for net in nets)
    steps, batch, _ = u.shape
    assert whole - lean == 2 * 4 * (steps + 1 - 2) * batch * nets[0].n_hidden
    kept = [adjsnn.solve(net, u, dt=DT, y0=y0, adjoint=DiscreteAdjoint(checkpoints=1)).stats.stored_bytes for net in nets]
    assert kept[1] < kept[0]


def test_synapses_are_those_of_the_solve_whatever_is_learnt_meanwhile():
    (whole, net), u, y0 = both()
    expected = adjsnn.solve(whole, u, dt=DT, y0=y0).a_slow
    given = u.detach().clone()
    sol = adjsnn.solve(net, given, dt=DT, y0=y0)
    with torch.no_grad():
        for x in (*net.parameters(), given):
            x.add_(1.0)
    assert torch.equal(sol.a_slow, expected)
    assert sol.a_slow is sol.a_slow


def test_synapses_of_voltages_that_were_changed_are_refused():
    (_, net), u, y0 = both()
    sol = adjsnn.solve(net, u, dt=DT, y0=y0)
    sol.v.detach().add_(0.1)
    with pytest.raises(ConfigurationError, match=r"sol\.v, changed in place"):
        _ = sol.a_fast


def test_a_state_that_diverges_is_named_as_by_what_keeps_everything():
    nets, u, y0 = both("nif", steps=6)
    messages = []
    for net in nets:
        with torch.no_grad():
            net.w_rec.fill_(1e300)
        with pytest.raises(adjsnn.IntegrationError) as error:
            adjsnn.solve(net, u, dt=DT, y0=y0)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_without_gradients():
    nets, u, y0 = both()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            whole, lean = (adjsnn.solve(net, u, dt=DT, y0=y0) for net in nets)
            assert torch.equal(lean.a_fast, whole.a_fast)
            assert not lean.a_fast.requires_grad
