"""Thin trajectories: Euler steps keep currents and a few voltages where no time constant of the synapses is learnt, and find
voltages, crossings and synapses again when asked."""

import contextlib
import copy
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from networks import DT, GATES, MEMBRANES, random_loss, random_network, random_trial

import adjsnn
from adjsnn import BPTT, ConfigurationError, DiscreteAdjoint, GatedState
from adjsnn.gated import program
from adjsnn.gated.cpu import loops
from adjsnn.gated.limits import KEPT
from adjsnn.numerics.memory import fresh

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
    (whole, expected), (thin, gradients) = (found(net, u, y0, random_loss) for net in nets)
    for name in ("v", "a_fast", "a_slow", "readout", "charge", "crossings"):
        assert torch.equal(getattr(thin, name), getattr(whole, name)), name
    assert all(torch.equal(x, y) for x, y in zip(thin.final_state, whole.final_state, strict=True))
    assert all(torch.equal(x[-1], y) for x, y in zip((thin.v, thin.a_fast, thin.a_slow), thin.final_state, strict=True))
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


@pytest.mark.parametrize("steps", [1, 2, 3, KEPT - 1, KEPT, KEPT + 1, 2 * KEPT])
def test_short_trials(steps):
    nets, u, y0 = both(steps=steps)
    (whole, expected), (thin, gradients) = (found(net, u, y0, random_loss) for net in nets)
    assert torch.equal(thin.a_slow, whole.a_slow)
    assert all(torch.equal(x, y) for x, y in zip(gradients, expected, strict=True))


@pytest.mark.parametrize("unit", [1, 7, KEPT, 2 * KEPT + 3])
def test_units_of_any_length(monkeypatch, unit):
    nets, u, y0 = both(steps=100, batch=3)
    monkeypatch.setattr(loops, "NEURON_STEPS", unit * 3 * nets[0].n_hidden)
    (whole, expected), (thin, gradients) = (found(net, u, y0, random_loss) for net in nets)
    for name in ("v", "a_fast", "crossings", "readout"):
        assert torch.equal(getattr(thin, name), getattr(whole, name)), name
    torch.testing.assert_close(thin.spike_charge, whole.spike_charge, rtol=1e-13, atol=0)
    assert all(torch.equal(x, y) for x, y in zip(gradients, expected, strict=True))
    kept = thin._trajectory.v
    assert len(kept) == sum(-(-min(unit, 100 - start) // KEPT) for start in range(0, 100, unit)) + 1
    assert torch.equal(kept[-1], thin.v[-1])


def test_four_bytes_and_a_quarter_per_neuron_and_step_instead_of_seventeen():
    nets, u, y0 = both(dtype=torch.float32)
    whole, thin = (adjsnn.solve(net, u, dt=DT, y0=y0).stats.stored_bytes for net in nets)
    steps, batch, _ = u.shape
    readout = 4 * (steps + 1) * batch * 3
    synapses, voltages = 2 * 4 * 2, 4 * (-(-steps // KEPT) + 1)
    assert thin == (4 * steps + voltages + synapses) * batch * nets[0].n_hidden + readout
    assert whole == (17 * steps + 3 * 4) * batch * nets[0].n_hidden + readout
    kept = [adjsnn.solve(net, u, dt=DT, y0=y0, adjoint=DiscreteAdjoint(checkpoints=1)).stats.stored_bytes for net in nets]
    assert kept[1] < kept[0]


@pytest.mark.parametrize("method", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize("unit", [1, 7, KEPT, 100])
def test_a_price_on_spikes_has_the_same_gradient_with_checkpoints(monkeypatch, unit, learnt, method):
    """To the bit, as the price is no sum of Σ|q|: that has to be the same, in units of whatever length."""
    nets, u, y0 = both(steps=100)
    monkeypatch.setattr(loops, "NEURON_STEPS", unit * 3 * nets[0].n_hidden)
    net = nets[not learnt]
    stored, kept = (
        found(net, u, y0, lambda sol: sol.spike_charge.square().sum(), adjoint=adjoint, method=method)
        for adjoint in (DiscreteAdjoint(), DiscreteAdjoint(checkpoints=2))
    )
    assert torch.equal(kept[0].spike_charge, stored[0].spike_charge)
    assert all(torch.equal(x, y) for x, y in zip(kept[1], stored[1], strict=True))


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize(("steps", "unit"), [(1, 1), (2, 2), (16, 5), (100, 1), (100, 7), (100, 100)])
def test_a_memory_budget_is_kept_to_the_byte(monkeypatch, steps, unit, learnt):
    """However many rows short units and short trials have beside those of their steps."""
    nets, u, y0 = both(steps=steps)
    monkeypatch.setattr(loops, "NEURON_STEPS", unit * 3 * nets[0].n_hidden)
    net = nets[not learnt]
    needed = adjsnn.solve(net, u, dt=DT, y0=y0).stats.stored_bytes
    fits = adjsnn.solve(net, u, dt=DT, y0=y0, adjoint=DiscreteAdjoint(memory_mb=needed / 1e6))
    assert isinstance(fits, adjsnn.GatedSolution)
    budget = (needed - 1) / 1e6
    with contextlib.suppress(ConfigurationError):  # where not even one block of steps and one state fit
        tight = adjsnn.solve(net, u, dt=DT, y0=y0, adjoint=DiscreteAdjoint(memory_mb=budget))
        assert isinstance(tight, adjsnn.CheckpointedSolution)
        assert tight.stats.stored_bytes <= budget * 1e6


@pytest.mark.parametrize(
    "name", ["v", "a_slow", "crossings", "charge", "spike_charge", "final_state", "spike_speeds", "spikes"]
)
def test_figures_are_those_of_the_solve_whatever_is_learnt_meanwhile(name):
    (_, net), u, y0 = both()
    expected = getattr(adjsnn.solve(net, u, dt=DT, y0=y0), name)
    given, y0 = u.detach().clone(), GatedState(*(x.detach().clone() for x in y0))
    sol = adjsnn.solve(net, given, dt=DT, y0=y0)
    with torch.no_grad():
        for x in (*net.parameters(), given, *y0):
            x.add_(1.0)
    value = getattr(sol, name)
    if name == "spikes":
        value, expected = value.time, expected.time
    pairs = zip(value, expected, strict=True) if isinstance(value, GatedState) else [(value, expected)]
    assert all(torch.equal(x, y) for x, y in pairs)


def test_what_was_found_is_kept():
    (_, net), u, y0 = both()
    sol = adjsnn.solve(net, u, dt=DT, y0=y0)
    assert sol.v is sol.v
    assert sol.a_slow is sol.a_slow
    assert sol.crossings is sol.crossings


def test_synapses_of_voltages_that_were_changed_are_refused():
    (_, net), u, y0 = both()
    sol = adjsnn.solve(net, u, dt=DT, y0=y0)
    expected = sol.spike_charge
    sol.v.detach().add_(0.1)
    for name in ("a_fast", "charge", "spikes", "stats"):
        with pytest.raises(ConfigurationError, match=r"sol\.v, changed in place"):
            getattr(sol, name)
    with pytest.raises(ConfigurationError, match=r"sol\.v, changed in place"):
        _ = copy.deepcopy(sol).charge
    assert torch.equal(sol.spike_charge, expected)  # from what no one else holds


def test_gradients_of_the_readout_are_right_after_voltages_were_changed():
    (_, net), u, y0 = both()
    (expected,) = torch.autograd.grad(adjsnn.solve(net, u, dt=DT, y0=y0).readout.square().sum(), net.w_rec)
    sol = adjsnn.solve(net, u, dt=DT, y0=y0)
    sol.v.detach().fill_(0.5)
    assert torch.equal(torch.autograd.grad(sol.readout.square().sum(), net.w_rec)[0], expected)


def test_another_name_for_the_solution_finds_the_same_tensors():
    """Else a change of the one's voltages would be taken for no change, or for one of the other's."""
    (_, net), u, y0 = both()
    sol = adjsnn.solve(net, u, dt=DT, y0=y0)
    other = copy.copy(sol)
    assert sol.crossings is other.crossings
    assert sol.v.data_ptr() == other.v.data_ptr()
    sol.v.detach().add_(0.1)
    for name in (sol, other):
        with pytest.raises(ConfigurationError, match=r"sol\.v, changed in place"):
            _ = name.charge


def test_threads_that_ask_at_once_get_the_same_tensors():
    (_, net), u, y0 = both()
    sol = adjsnn.solve(net, u, dt=DT, y0=y0)
    together = threading.Barrier(4)

    def ask(_):
        together.wait()
        return sol.crossings, sol.v, sol.a_fast

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert all(x is y for each in found for x, y in zip(each, found[0], strict=True))


@pytest.mark.parametrize("part", [*PARTS, "crossings", "spike_speeds"])
def test_what_is_first_asked_for_in_a_transform_of_torch_func(part):
    """Is a number there as elsewhere, and after it what it would have been without."""

    def numbers(sol):
        x = getattr(sol, part)
        return x.v if part == "final_state" else x

    (_, net), u, y0 = both()
    other, sol, again = (adjsnn.solve(net, u, dt=DT, y0=y0) for _ in range(3))
    expected = numbers(other)
    slope = torch.func.grad(lambda x: (x * numbers(sol).detach()).sum())(torch.tensor(2.0, dtype=u.dtype))
    torch.testing.assert_close(slope, expected.detach().sum().to(u.dtype))
    scaled = torch.vmap(lambda x: (x * numbers(again).detach()).sum())(torch.ones(2, dtype=u.dtype))
    torch.testing.assert_close(scaled, slope.expand(2))
    for found in (numbers(sol), numbers(again)):
        assert torch.equal(found, expected)
        if expected.requires_grad:
            slopes = (torch.autograd.grad(x.square().sum(), net.w_in)[0] for x in (found, numbers(other)))
            assert torch.equal(*slopes)
            other = adjsnn.solve(net, u, dt=DT, y0=y0)


def test_a_copy_holds_the_numbers():
    (_, net), u, y0 = both()
    sol = adjsnn.solve(net, u, dt=DT, y0=y0)
    other = copy.deepcopy(sol)
    for name in ("v", "a_fast", "crossings", "charge"):
        assert torch.equal(getattr(other, name), getattr(sol, name)), name
        assert not getattr(other, name).requires_grad
    assert torch.equal(other.spikes.time, sol.spikes.time)


@pytest.mark.parametrize("hidden", [10, 200])
def test_the_first_step_that_diverges_is_named_whichever_sample_it_is_in(hidden):
    """Samples of later tiles are solved after earlier ones, some steps at a time."""
    net = adjsnn.GatedSynapseNetwork(1, hidden, 1, neuron=adjsnn.NIF(), dtype=torch.float64)
    u = torch.zeros(40, 130, 1, dtype=torch.float64)
    with torch.no_grad():
        net.w_in.fill_(1.0)
    for sample, step in ((2, 30), (70, 27), (129, 25)):  # all within KEPT steps
        u[step:, sample] = 1e30
    messages = []
    for kernels in ("plain", "fused"):
        with pytest.raises(adjsnn.IntegrationError) as error:
            adjsnn.solve(net, u, dt=0.1, kernels=kernels)
        messages.append(str(error.value))
    assert all("sample 129, neuron 0, t = 2.6 ms" in message for message in messages)


def test_steps_that_are_too_long_are_told_as_by_what_keeps_everything():
    nets, u, y0 = both("qif", steps=60)
    told = []
    for net in nets:
        with torch.no_grad():
            net.bias.fill_(1.5)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            adjsnn.solve(net, u, dt=1.0, y0=y0)
        told.append([str(w.message) for w in caught if w.category is adjsnn.StepTooLongWarning])
    assert told[0] == told[1] != []


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


def message_of(net, u, **options):
    with pytest.raises(adjsnn.IntegrationError) as error:
        adjsnn.solve(net, u, dt=0.1, **options)
    return str(error.value)


@pytest.mark.parametrize("step", [0, KEPT - 1, KEPT, 2 * KEPT - 1, 39])
@pytest.mark.parametrize("unit", [1, 7, 40])
def test_the_state_of_a_broken_step_is_that_of_the_step(monkeypatch, unit, step):
    """Not that of the step before, which a broken one left where the next stored voltage belongs."""
    net = adjsnn.GatedSynapseNetwork(1, 10, 1, neuron=adjsnn.NIF(), dtype=torch.float64)
    monkeypatch.setattr(loops, "NEURON_STEPS", unit * 3 * net.n_hidden)
    u = torch.full((40, 3, 1), 0.5, dtype=torch.float64)
    with torch.no_grad():
        net.w_in.fill_(1.0)
    u[step:, 1] = 1111.0
    messages = {message_of(net, u, kernels=kernels) for kernels in ("plain", "fused")}
    assert len(messages) == 1


@pytest.mark.parametrize(("method", "learnt"), [("euler", False), ("euler", True), ("heun", False)])
def test_currents_that_overflow_are_told_from_no_memory_that_was_never_written(monkeypatch, method, learnt):
    """Samples of later tiles take the step at which an earlier one breaks, too: their row is asked as well."""
    monkeypatch.setattr(program, "fresh", lambda *args, **options: fresh(*args, **options).fill_(126))
    net = adjsnn.GatedSynapseNetwork(1, 300, 1, neuron=adjsnn.LIF(tau_mem=5.0), dtype=torch.float32)
    u = torch.zeros(20, 12, 1)
    with torch.no_grad():
        net.w_in.fill_(1.0)
    net.tau_fast.requires_grad_(learnt)
    u[5, 0] = -1e37  # finite voltages far below the threshold; of a tile, currents beyond float32
    assert message_of(net, u, method=method).startswith("the currents overflowed by t = 0.6 ms")


def test_without_gradients():
    nets, u, y0 = both()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            whole, thin = (adjsnn.solve(net, u, dt=DT, y0=y0) for net in nets)
            assert torch.equal(thin.a_fast, whole.a_fast)
            assert not thin.a_fast.requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_what_was_found_without_a_tape_has_a_gradient_with_one(context):
    (_, net), u, y0 = both()
    _, expected = found(net, u, y0, random_loss)
    sol = adjsnn.solve(net, u, dt=DT, y0=y0)
    with context():
        assert not sol.v.requires_grad
        _ = sol.stats, sol.a_fast, sol.spike_charge
    leaves = [u, *y0, net.w_in, net.w_rec, net.bias, net.w_out]
    gradients = torch.autograd.grad(random_loss(sol), leaves, allow_unused=True, materialize_grads=True)
    assert all(torch.equal(x, y) for x, y in zip(gradients, expected, strict=True))
