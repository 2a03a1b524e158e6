"""Loops for a GPU give what the plain code gives: on the machine's GPU where there is one, else in numba's simulator."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from networks import DT, GATES, MEMBRANES, random_loss, random_network, random_trial, relative
from torch import Tensor

import adjsnn
from adjsnn import ConfigurationError, DiscreteAdjoint, GatedState, IntegrationError, NotFiniteWarning
from adjsnn.gated import engine
from adjsnn.gated.cuda import run, shared
from adjsnn.gated.engine import Engine
from adjsnn.gated.euler import GatedEuler
from adjsnn.numerics import device
from adjsnn.signals import Stream

pytestmark = pytest.mark.usefixtures("simulator")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
METHODS = ("euler", "heun", "rk4")
HIDDEN, STEPS, BATCH = 5, 12, 2  # neurons are no multiple of the simulator's two threads
ROUNDING = 1e-12  # a dozen float64 steps in another order; typically 1e-15
STATES = ("v", "a_fast", "a_slow", "readout", "crossings")


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    """Several segments even of few neurons; on a GPU the number stands in compiled code."""
    if DEVICE == "cpu":
        monkeypatch.setattr(shared, "SEGMENT", 2)


def case(neuron: str, gate: str = "raised_cosine", *, steps: int = STEPS, batch: int = BATCH, **options):
    """A network that spikes within a few steps, and its trial."""
    net = random_network(MEMBRANES[neuron], GATES[gate], seed=7, n_hidden=HIDDEN, **options)
    with torch.no_grad():
        net.bias.mul_(2.0)
        net.w_rec.mul_(0.2)
        net.w_in.mul_(0.2)
    u, y0 = random_trial(net, seed=7, steps=steps, batch=batch)
    with torch.no_grad():  # some neurons in their zone from the beginning, some beyond it soon, and of two zones in both
        y0.v.add_(torch.linspace(0.0, 0.45, HIDDEN, dtype=torch.float64))
        if neuron == "nif":
            side = 2.0 * (torch.arange(HIDDEN) % 2) - 1.0
            y0.v.mul_(side)
            net.bias.copy_(0.3 * side)
    return net, u, y0


def results(net, u: Tensor | Stream, y0: GatedState, kernels: str, loss=random_loss, **options) -> dict[str, Tensor]:
    """Everything stored, and gradients of the loss by everything, on the CPU."""
    where = DEVICE if kernels == "cuda" else "cpu"
    net = net.to(where)
    y0 = GatedState(*(x.detach().to(where, copy=True).requires_grad_() for x in y0))  # in the same layout
    leaves = {f"d {name}": x for name, x in (dict(net.named_parameters()) | y0._asdict()).items()}
    if isinstance(u, Tensor):
        leaves["d u"] = u = u.detach().to(where, copy=True).requires_grad_()
    sol = adjsnn.solve(net, u, dt=DT, y0=y0, kernels=kernels, **options)
    assert sol.stats.kernel == kernels
    grads = torch.autograd.grad(loss(sol), list(leaves.values()), allow_unused=True, materialize_grads=True)
    stored = {name: getattr(sol, name) for name in STATES if hasattr(sol, name)}
    return {name: x.detach().cpu() for name, x in (stored | dict(zip(leaves, grads, strict=True))).items()}


def agree(found: dict[str, Tensor], expected: dict[str, Tensor], most: float = ROUNDING) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype), name
        assert relative(found[name].double(), value.double()) <= most, name


@pytest.mark.every(17)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("neuron", MEMBRANES)
@pytest.mark.parametrize("method", METHODS)
def test_they_agree_with_the_plain_code(method, neuron, copied, gate, monkeypatch):
    """With W_rec in the memory of each block, and in that of all."""
    if not copied:
        monkeypatch.setattr(run, "COPIED", 0)
    trial = case(neuron, gate)
    expected, found = (results(*trial, kernels, method=method) for kernels in ("plain", "cuda"))
    assert expected["crossings"].abs().sum() >= (1 if neuron == "nif" else 4)
    assert all(value.abs().max() > 0 for name, value in expected.items())
    agree(found, expected)


@pytest.mark.every(7)
@pytest.mark.parametrize("part", ["readout", "v", "a_fast", "a_slow", "charge"])
@pytest.mark.parametrize("method", ["heun", "euler"])
def test_each_output_alone_carries_its_gradient(method, part):
    trial = case("lif")

    def loss(sol):
        return getattr(sol, part)[4:].square().sum()

    expected, found = (results(*trial, kernels, loss, method=method) for kernels in ("plain", "cuda"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, in the simulator
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("adjoint", [None, DiscreteAdjoint(checkpoints=2)], ids=["whole", "kept"])
def test_a_gradient_that_is_not_finite_is_told(adjoint, method):
    net, u, y0 = case("lif")
    with torch.no_grad():
        net.w_out.mul_(1000.0)
    net, u, y0 = net.to(DEVICE), u.detach().to(DEVICE), GatedState(*(x.detach().to(DEVICE) for x in y0))
    sol = adjsnn.solve(net, u, dt=DT, y0=y0, kernels="cuda", method=method, adjoint=adjoint)
    loss = sol.readout[-1].sum()
    (1e300 * loss).backward(retain_graph=True)  # warnings are errors
    assert all(x.grad.isfinite().all() for x in net.parameters())
    with pytest.warns(NotFiniteWarning, match="costate grew beyond what it holds by t = .* ms.*first in sample 0"):
        (1e308 * loss).backward()


def test_one_gradient_alone():
    net, u, _ = case("lif")
    for name in ("w_out", "tau_fast", "tau_mem"):
        found = []
        for kernels in ("plain", "cuda"):
            net = net.to(DEVICE if kernels == "cuda" else "cpu")
            for other, parameter in net.named_parameters():
                parameter.requires_grad_(other == name)
            sol = adjsnn.solve(net, u.detach().to(net.bias.device), dt=DT, kernels=kernels)
            found.append(torch.autograd.grad(sol.readout.square().sum(), [getattr(net, name)])[0].cpu())
        assert relative(*reversed(found)) <= ROUNDING, name


@pytest.mark.every(2)
@pytest.mark.parametrize("method", ["euler", "rk4"])
@pytest.mark.parametrize("width", [8, 4, 2])
def test_neurons_share_threads_or_have_one_each(width, method, monkeypatch):
    """Each sum has one order, that of the neurons, however many threads there are."""
    trial = case("qif", steps=6)
    expected = results(*trial, "cuda", method=method)
    for name in ("WIDTH", "WARP"):
        monkeypatch.setattr(run, name, width if DEVICE == "cpu" else 32)
    found = results(*trial, "cuda", method=method)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.every(2)
@pytest.mark.parametrize("method", ["euler", "heun"])
def test_a_batch_is_its_samples(method):
    net, u, y0 = case("lif")

    def loss(sol):
        return sol.readout.square().sum() + sol.v.sin().sum()

    whole = results(net, u, y0, "cuda", loss, method=method)
    parts = [
        results(net, u[:, b : b + 1], GatedState(*(x[b : b + 1] for x in y0)), "cuda", loss, method=method) for b in (0, 1)
    ]
    of_samples = dict.fromkeys((*STATES, "d u"), 1) | dict.fromkeys(("d v", "d a_fast", "d a_slow"), 0)
    joined = {
        name: torch.cat([part[name] for part in parts], of_samples[name])
        if name in of_samples
        else parts[0][name] + parts[1][name]
        for name in whole
    }
    agree(whole, joined, 1e-13)  # products of matrices of other sizes, and sums of samples


@pytest.mark.every(11)
@pytest.mark.parametrize("checkpoints", [1, 3, "sqrt"])
@pytest.mark.parametrize("neuron", MEMBRANES)
@pytest.mark.parametrize("method", ["euler", "heun"])
def test_checkpointed_gradients_are_the_same_bits(method, neuron, checkpoints, monkeypatch):
    monkeypatch.setattr(run, "NEURON_STEPS", 5 * BATCH * HIDDEN * (1 if method == "euler" else 2))  # 5, 5 and 2 steps
    trial, launches, launch = case(neuron), [], run.launch
    monkeypatch.setattr(
        run, "launch", lambda kernel, *given, **options: (launches.append(kernel), launch(kernel, *given, **options))
    )

    def loss(sol):
        return sol.readout.square().sum()

    stored = results(*trial, "cuda", loss, method=method)
    assert len(launches) == 3 + 3
    again = results(*trial, "cuda", loss, method=method, adjoint=DiscreteAdjoint(checkpoints=checkpoints))
    assert all(torch.equal(again[name], stored[name]) for name in again)


@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize("neuron", ["nif", pytest.param("lif", marks=pytest.mark.slow)])
def test_what_a_solve_with_checkpoints_gives_carries_its_gradient(neuron, method, monkeypatch):
    """A stream, the last state and the number of spikes, whose cotangents enter by another way than those of states.

    Some neurons of NIF take charge back, which counts as much.
    """
    monkeypatch.setattr(run, "NEURON_STEPS", 5 * BATCH * HIDDEN * (1 if method == "euler" else 2))
    net, u, y0 = case(neuron)

    def loss(sol):
        return sum(x.square().sum() for x in sol.final_state) + adjsnn.losses.firing_rate(sol).square().mean()

    def read(start, stop):
        return u.detach()[start:stop]

    stream, adjoint = Stream(read, steps=STEPS), DiscreteAdjoint(checkpoints=2)
    expected, found = (results(net, stream, y0, kernels, loss, method=method, adjoint=adjoint) for kernels in ("plain", "cuda"))
    agree(found, expected, 1e-10)  # at the edge of a zone the sign of a charge is rounding, and g is not quite 0


@pytest.mark.every(3)
@pytest.mark.parametrize("method", METHODS)
def test_float32_is_as_accurate_as_the_plain_code(method):
    net, u, y0 = case("qif", steps=8)
    exact = results(net, u, y0, "plain", method=method)
    net, u, y0 = net.float(), u.float(), GatedState(*(x.float() for x in y0))
    usual, found = (results(net, u, y0, kernels, method=method) for kernels in ("plain", "cuda"))
    for name, value in exact.items():
        assert found[name].dtype == usual[name].dtype, name
        error = relative(found[name].double(), value.double())
        # One draw of rounding beside another; 1e-5 where plain is lucky.
        assert error <= 5 * relative(usual[name].double(), value.double()) + 1e-5, name


def said(net, u: Tensor, kernels: str, **options) -> str:
    """What a solve raises or warns of."""
    where = DEVICE if kernels == "cuda" else "cpu"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            adjsnn.solve(net.to(where), u.to(where), dt=DT, kernels=kernels, **options)
        except IntegrationError as error:
            return str(error)
    return " ".join(str(x.message) for x in caught if issubclass(x.category, adjsnn.StepTooLongWarning))


@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize(
    ("neuron", "step", "size", "words"),
    [
        ("nif", 3, 5.0, "3 steps were too long, the first for sample 1, neuron 0"),
        ("nif", 3, -5.0, "back through its reset"),
        ("nif", 3, 1e4, "runaway: one step ran through"),
        ("nif", 3, -1e300, "through 127 or more thresholds"),
        ("lif", 3, 150.0, "ran through 1 thresholds and on to v"),
        ("lif", 3, float("inf"), "the state diverged at sample 1, neuron 0"),
    ],
)
def test_what_goes_wrong_is_said_as_by_the_other_loops(neuron, step, size, words, method, monkeypatch):
    monkeypatch.setattr(
        run, "NEURON_STEPS", 2 * BATCH * HIDDEN * (1 if method == "euler" else 2)
    )  # in the second of three units
    net, u, _ = case(neuron, steps=6)
    with torch.no_grad():
        net.w_in.zero_()
        net.w_in[:3, 0] = 1.0
        net.bias.zero_()
    u = torch.zeros_like(u)
    u[step, 1, 0] = min(size, torch.finfo(u.dtype).max)
    if size == float("inf"):
        u[step, 1, 1] = u[step, 1, 0]
        with torch.no_grad():
            net.w_in[:3, 1] = 1.0  # a sum that overflows
    expected, found = (said(net, u, kernels, method=method) for kernels in ("fused", "cuda"))
    assert found == expected
    assert words in expected


def test_a_sweep_changes_nothing_that_it_is_given():
    net, u, y0 = case("lif")
    net = net.to(DEVICE)
    u, y0 = u.detach().to(DEVICE), GatedState(*(x.detach().to(DEVICE) for x in y0))
    sol = adjsnn.solve(net, u, dt=DT, y0=y0, kernels="cuda")
    given = [sol.v, sol.a_fast, sol.a_slow, sol._trajectory.current, sol.crossings, u, *y0, *net.parameters()]
    before = [x.detach().clone() for x in given]
    weight = torch.randn_like(sol.v)
    kept = weight.clone()
    (weight * sol.v).sum().backward(retain_graph=True)
    first = net.w_rec.grad.clone()
    net.zero_grad()
    (weight * sol.v).sum().backward()
    assert torch.equal(net.w_rec.grad, first)
    assert torch.equal(weight, kept)
    assert all(torch.equal(x.detach(), y) for x, y in zip(given, before, strict=True))


@pytest.mark.every(2)
@pytest.mark.parametrize("method", ["euler", "heun"])
def test_whatever_way_tensors_lie_in_memory(method):
    net, u, y0 = case("lif", steps=8)

    def turned(x):
        return x.detach().permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim())))

    def loss(sol):
        return sum((x.sin() + x).sum() for x in (sol.readout, sol.v, sol.a_fast, sol.a_slow))

    def turned_loss(sol):
        whole = 0.0
        for x in (sol.readout, sol.v, sol.a_fast, sol.a_slow):
            x = x.permute(2, 1, 0).contiguous()
            whole = whole + (x.sin() + x).sum()
        return whole

    expected = results(net, u, y0, "cuda", loss, method=method)
    found = results(net, turned(u), GatedState(*map(turned, y0)), "cuda", turned_loss, method=method)
    agree(found, expected, 1e-14)


def test_where_weights_are_copied_and_how_much_memory_a_block_has():
    copied, ints, size = shared.layout(64, 4, run.COPIED)
    assert (copied, ints, size) == (True, 2 * 64 + 64 * 64, 4 * (2 * 64 + 64 * 64 + 64 + -(-64 // shared.SEGMENT)))
    assert not shared.layout(65, 4, run.COPIED)[0]
    assert not shared.layout(64, 8, run.COPIED)[0]
    assert shared.layout(3, 8, 0)[1:] == (12, 4 * (12 + 3 + -(-3 // shared.SEGMENT)))
    assert max(shared.layout(n, item, run.COPIED)[2] for n in range(1, 1025) for item in (4, 8)) <= 48 * 1024  # without asking


def on_gpu(kind: str = "cuda", size: int = 3, tau: Tensor | None = None) -> SimpleNamespace:
    """Tensors as far as the engine looks at them, on a GPU that need not be there."""
    w = SimpleNamespace(device=torch.device(kind), is_cuda=kind == "cuda", shape=(size, size))
    tau = torch.tensor(5.0) if tau is None else tau
    return SimpleNamespace(w_rec=w, tau_fast=tau, tau_slow=tau, constants={"tau_v": None})


def an_engine(kernels: str = "auto") -> Engine:
    return Engine(GatedEuler(MEMBRANES["qif"], GATES["raised_cosine"], DT), kernels)


def test_a_network_on_a_gpu_is_solved_there(monkeypatch):
    monkeypatch.setattr(device, "unusable", lambda: None)
    assert an_engine().ran(on_gpu()) == ("cuda", "the cuda loops cover this network")
    assert an_engine("plain").ran(on_gpu()) == ("plain", 'kernels="plain"')
    assert an_engine("backward").loops(on_gpu()) == "cuda"


def test_without_what_it_takes_torch_solves_it_there_and_says_why(monkeypatch):
    monkeypatch.setattr(device, "SIMULATED", False)
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    device.unusable.cache_clear()
    kernel, why = an_engine().ran(on_gpu())
    device.unusable.cache_clear()
    assert kernel == "plain"
    assert why.startswith("numba-cuda is not installed (pip install")
    monkeypatch.setattr(device, "unusable", lambda: None)
    assert an_engine().ran(on_gpu(tau=torch.ones(3))) == ("plain", "tau_fast and tau_slow differ between neurons")
    assert an_engine().ran(on_gpu(size=1025)) == ("plain", "1025 neurons are more than 1024")


def test_what_cannot_run_there_is_refused(monkeypatch):
    net, u, y0 = case("lif", tau_per_neuron=True)
    with pytest.raises(ConfigurationError, match='kernels="cuda", but tau_fast and tau_slow differ between neurons.*Try'):
        adjsnn.solve(net, u, dt=DT, y0=y0, kernels="cuda")
    assert an_engine("cuda").obstacle(on_gpu("meta")) == "the network is on the device meta, not on a CUDA device"
    net, u, y0 = case("lif")
    monkeypatch.setattr(device, "SIMULATED", False)
    with pytest.raises(ConfigurationError, match='kernels="cuda", but the network is on the CPU, not on a CUDA device'):
        adjsnn.solve(net.cpu(), u, dt=DT, y0=y0, kernels="cuda")


def test_a_network_on_the_cpu_is_not_solved_in_a_simulator_unasked():
    net, u, y0 = case("lif")
    stats = adjsnn.solve(net.cpu(), u, dt=DT, y0=y0).stats
    assert (stats.kernel, stats.kernel_reason) == ("fused", "the fused loops cover this network")


def test_the_bodies_are_known_by_name():
    assert set(engine.KERNELS) == {"auto", "plain", "backward", *engine.LOOPS}
    assert {name: loops.body for name, loops in engine.LOOPS.items()}["fused"].name == "fused"
    assert run.CudaGated.name == "cuda"


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")
@pytest.mark.parametrize("n_hidden", [128, 300])
@pytest.mark.parametrize("method", METHODS)
def test_the_same_bits_every_time_on_any_stream(method, n_hidden):
    net = random_network(MEMBRANES["qif"], GATES["raised_cosine"], seed=7, n_hidden=n_hidden)
    with torch.no_grad():
        net.w_rec.mul_(0.2)
    trial = net, *random_trial(net, seed=7, steps=40, batch=64)
    first = results(*trial, "cuda", method=method)
    with torch.cuda.stream(torch.cuda.Stream()):
        again = results(*trial, "cuda", method=method)
    assert all(torch.equal(again[name], value) for name, value in first.items())
    agree(first, results(*trial, "plain", method=method), 1e-10)
    assert adjsnn.solve(net.to(DEVICE), trial[1].to(DEVICE), dt=DT).stats.kernel == "cuda"
