"""Subclasses of membranes and gates: what they override is what is solved and differentiated, whatever they inherit."""

import pytest
import torch
from networks import DT, gradients, random_network, random_trial, relative

import adjsnn
from adjsnn import ConfigurationError

GATE = adjsnn.RaisedCosineGate(0.2)
pytestmark = pytest.mark.usefixtures("unchecked_shapes")


class FastLIF(adjsnn.LIF):
    def flow(self, v, current, c):
        return 1.5 * super().flow(v, current, c)


class FasterLIF(FastLIF):
    """Overrides nothing more."""


class FastQIF(adjsnn.QIF):
    def flow(self, v, current, c):
        return 1.5 * super().flow(v, current, c)


class FastNIF(adjsnn.NIF):
    def flow(self, v, current, c):
        return 1.5 * super().flow(v, current, c)


class PreparedLIF(adjsnn.LIF):
    def prepare(self, c):
        return {**c, "tau_mem": c["tau_mem"] / 1.5}


class PreparedQIF(adjsnn.QIF):
    def prepare(self, c):
        return {**c, "rate": 1.5 * super().prepare(c)["rate"]}


class HalfFlowQIF(adjsnn.QIF):
    def _half_flow(self, v, current, c):
        return 1.5 * super()._half_flow(v, current, c)


class Mixin:
    def flow(self, v, current, c):
        return 1.5 * super().flow(v, current, c)


class MixedLIF(Mixin, adjsnn.LIF):
    pass


class LowLIF(adjsnn.LIF):
    threshold = 0.9


class TwoSidedLIF(adjsnn.LIF):
    two_sided = True


class OtherStepLIF(adjsnn.LIF):
    """Steps of the exponential Euler method: `advance` alone is another program."""

    def advance(self, v, current, c, h):
        return current + (v - current) * torch.exp(-h / c["tau_mem"])


class HigherResetLIF(adjsnn.LIF):
    def v_reset(self, c):
        return 0.5 * c["v_reset"]


class LeakyResetNIF(adjsnn.NIF):
    """A reset of its own on a membrane that wraps."""

    def reset(self, v, current, c, *, out=None, out_crossings=None):
        crossings = torch.trunc(v.detach())
        after = torch.where(crossings != 0, 0.5 * (v - crossings), v)
        if out is None:
            return after, crossings
        out_crossings.copy_(crossings)
        return out.copy_(after), out_crossings


def scratch(flow, *, wraps=False, two_sided=False, threshold=1.0, **constants):
    """A membrane written from nothing: its derivatives are autograd's."""
    body = {"flow": lambda _, v, i, c: flow(v, i, c), "wraps": wraps, "two_sided": two_sided, "threshold": threshold}
    return type("Scratch", (adjsnn.Membrane,), body)(**constants)


def leak(v, i, c):
    return (i - v) / c["tau_mem"]


def phase(v, i, c):
    return (1 + torch.cos(2 * torch.pi * v)) / c["tau_v"] + (1 - torch.cos(2 * torch.pi * v)) * i


def fast(flow):
    return lambda v, i, c: 1.5 * flow(v, i, c)


LEAKY, PHASE = {"tau_mem": 20.0, "v_reset": -0.2}, {"tau_v": 25.0}
NIF_LIKE = {"wraps": True, "two_sided": True}


def patched(neuron, **attributes):
    for name, value in attributes.items():
        setattr(neuron, name, value)
    return neuron


def on_the_object():
    neuron = adjsnn.LIF(20.0, -0.2)
    neuron.flow = lambda v, i, c: 1.5 * adjsnn.LIF.flow(neuron, v, i, c)
    return neuron


# A membrane that overrides something, and one written from nothing that should do the same.
PAIRS = {
    "flow of LIF": (FastLIF(20.0, -0.2), scratch(fast(leak), **LEAKY)),
    "inherited override": (FasterLIF(20.0, -0.2), scratch(fast(leak), **LEAKY)),
    "mixin": (MixedLIF(20.0, -0.2), scratch(fast(leak), **LEAKY)),
    "on the object": (on_the_object(), scratch(fast(leak), **LEAKY)),
    "prepare of LIF": (PreparedLIF(20.0, -0.2), scratch(fast(leak), **LEAKY)),
    "flow of QIF": (FastQIF(25.0), scratch(fast(phase), wraps=True, **PHASE)),
    "half flow of QIF": (HalfFlowQIF(25.0), scratch(fast(phase), wraps=True, **PHASE)),
    "prepare of QIF": (
        PreparedQIF(25.0),
        scratch(lambda v, i, c: phase(v, i, {"tau_v": c["tau_v"] / 1.5}), wraps=True, **PHASE),
    ),
    "flow of NIF": (FastNIF(), scratch(lambda v, i, c: 1.5 * i, **NIF_LIKE)),
    "threshold of the class": (LowLIF(20.0, -0.2), scratch(leak, threshold=0.9, **LEAKY)),
    "threshold of the object": (patched(adjsnn.LIF(20.0, -0.2), threshold=0.9), scratch(leak, threshold=0.9, **LEAKY)),
    "two_sided": (TwoSidedLIF(20.0, 0.0), scratch(leak, two_sided=True, tau_mem=20.0, v_reset=0.0)),
}


def _network(neuron, gate=GATE, seed=0, high=1.6):
    net = random_network(neuron, gate, seed=seed, n_hidden=6)
    with torch.no_grad():
        low, top = (0.05, 0.2) if neuron.wraps else (1.05, high)
        net.bias.copy_(low + (top - low) * torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    return net


@pytest.mark.every(5)
@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize("name", PAIRS)
def test_an_overridden_function_is_solved_and_differentiated(name, method):
    """FastLIF had the gradient of LIF; FastQIF's flow was not used at all."""
    results = []
    for neuron in PAIRS[name]:
        net = _network(neuron)
        u, y0 = random_trial(net, seed=0, steps=80)
        sol = adjsnn.solve(net, u, dt=DT, y0=y0, method=method)
        assert sol.stats.spikes > 10
        results.append((sol.v.detach(), [gradients(net, u, y0, a, method=method) for a in (None, adjsnn.BPTT())]))
    (v, (own, tape)), (v_expected, (expected, _)) = results
    torch.testing.assert_close(v, v_expected, rtol=1e-10, atol=1e-10)
    for key, g in own.items():
        assert relative(g, expected[key]) < 1e-9
        assert relative(g, tape[key]) < 1e-9


@pytest.mark.every(3)
@pytest.mark.parametrize(
    "neuron", [FastLIF(20.0, -0.2), FastQIF(25.0), OtherStepLIF(20.0, -0.2), HigherResetLIF(20.0, -0.2), LeakyResetNIF()],
    ids=lambda x: type(x).__name__,
)  # fmt: skip
def test_the_judges_see_the_users_own_functions(neuron):
    net = _network(neuron)
    u, y0 = random_trial(net, seed=0, steps=50)
    report = adjsnn.gradcheck(
        net, u, lambda sol: sol.readout.square().sum() + sol.v.sum(), dt=DT, y0=y0, entries=2, verbose=False
    )
    assert report.spikes >= 3


def test_a_flow_that_is_half_as_fast_again_is_a_shorter_time_constant():
    """1.5 (I - v)/τ is (I - v)/(τ/1.5), and its gradient by τ a factor 1.5 smaller: by the fused loops."""
    quick, built_in = _network(FastLIF(30.0, -0.2)), _network(adjsnn.LIF(20.0, -0.2))
    u, y0 = random_trial(quick, seed=0, steps=60)
    found, expected = gradients(quick, u, y0, None), gradients(built_in, u, y0, None, kernels="fused")
    for name, g in found.items():
        assert relative(g * (1.5 if name == "tau_mem" else 1.0), expected[name]) < 1e-9


def test_a_patch_of_a_class_is_noticed_and_undone(monkeypatch):
    net = _network(adjsnn.LIF(20.0, -0.2))
    u, y0 = random_trial(net, seed=0, steps=60)
    built_in, original = gradients(net, u, y0, None, kernels="fused"), adjsnn.LIF.flow
    with monkeypatch.context() as patch:
        patch.setattr(adjsnn.LIF, "flow", lambda self, v, i, c: 1.5 * original(self, v, i, c))
        found = gradients(net, u, y0, None)
        with pytest.raises(ConfigurationError, match="attributes of LIF were replaced"):
            adjsnn.solve(net, u, dt=DT, kernels="fused")
    expected = gradients(_network(FastLIF(20.0, -0.2)), u, y0, None)
    for name, g in gradients(net, u, y0, None, kernels="fused").items():
        assert torch.equal(g, built_in[name])
        assert relative(found[name], expected[name]) < 1e-9


@pytest.mark.parametrize("change", ["threshold", "flow", "width", "class"])
def test_the_fused_loops_refuse_what_they_do_not_know(change):
    net = _network(adjsnn.LIF(20.0, -0.2))
    if change == "threshold":
        net.neuron.threshold = 0.9
    elif change == "flow":
        net.neuron.flow = lambda v, i, c: i - v
    elif change == "width":
        net.gate = adjsnn.RaisedCosineGate(0.2)
        net.gate.vanishes_at_edges = False
    else:
        net.neuron.__class__ = FastLIF
    u, _ = random_trial(net, seed=0, steps=5)
    with pytest.raises(ConfigurationError, match='kernels="fused", but'):
        adjsnn.solve(net, u, dt=DT, kernels="fused")


def test_a_change_of_the_membrane_after_the_solve_changes_no_gradient():
    net = _network(adjsnn.LIF(20.0, -0.2))
    u, _ = random_trial(net, seed=0, steps=60)
    results = []
    for later in (None, 0.5):
        sol = adjsnn.solve(net, u, dt=DT, kernels="plain")
        if later is not None:
            net.neuron.threshold = later
        results.append(
            (*torch.autograd.grad(sol.readout.square().sum(), [net.bias, net.tau_mem]), sol.stats.min_speed_at_spike)
        )
    assert all(torch.equal(*(torch.as_tensor(x) for x in pair)) for pair in zip(*results, strict=True))


# Gates.


class Identity(adjsnn.Gate):
    def cumulative(self, x):
        return x


class View(adjsnn.Gate):
    def cumulative(self, x):
        return x.view(x.shape)

    def density(self, x):
        return torch.ones((), dtype=x.dtype).expand_as(x)


class Number(adjsnn.Gate):
    def cumulative(self, x):
        return x**1

    def density(self, x):
        return 1.0


class Scalar(adjsnn.Gate):
    kept = torch.ones((), dtype=torch.float64)

    def cumulative(self, x):
        return 1 * x

    def density(self, x):
        return self.kept


class InPlace(adjsnn.Gate):
    def cumulative(self, x):
        return x.mul_(1.0)


class FromCosine(adjsnn.RaisedCosineGate):
    """Inherits a density, and the word that it vanishes at the edges."""

    def cumulative(self, x):
        return x


class FromRectangular(adjsnn.RectangularGate):
    def cumulative(self, x):
        return 3 * x**2 - 2 * x**3


class Cubic(adjsnn.Gate):
    def cumulative(self, x):
        return 3 * x**2 - 2 * x**3


class ByIntegral(adjsnn.RectangularGate):
    """Overrides the integral as a whole."""

    def integral(self, v, *, threshold, two_sided):
        x = ((v - threshold) / self.width + 1.0).clamp(0.0, 1.0)
        return 3 * x**2 - 2 * x**3


GATES = {
    "identity": (Identity, adjsnn.RectangularGate),
    "view": (View, adjsnn.RectangularGate),
    "number": (Number, adjsnn.RectangularGate),
    "scalar": (Scalar, adjsnn.RectangularGate),
    "in place": (InPlace, adjsnn.RectangularGate),
    "of the cosine": (FromCosine, adjsnn.RectangularGate),
    "of the rectangle": (FromRectangular, Cubic),
    "integral": (ByIntegral, Cubic),
}


@pytest.mark.every(5)
@pytest.mark.parametrize("method", ["euler", "rk4"])
@pytest.mark.parametrize("name", GATES)
def test_a_gate_may_return_its_argument_a_view_a_number_and_inherit_anything(name, method):
    found, expected = [], []
    for kind, results in zip(GATES[name], (found, expected), strict=True):
        net = _network(adjsnn.LIF(20.0, -0.2), kind(0.3))
        u, y0 = random_trial(net, seed=0, steps=50)
        for adjoint in (None, adjsnn.BPTT()):
            results.append(gradients(net, u, y0, adjoint, method=method))
    for mine in found:
        for key, g in mine.items():
            assert relative(g, expected[0][key]) < 1e-9
    assert float(Scalar.kept) == 1.0  # nothing was written into it


class Drift(adjsnn.Membrane):
    """Its flow is a number, its partials are too."""

    def __init__(self):
        super().__init__(tau_mem=20.0, v_reset=0.0)

    def flow(self, v, current, c):
        return 0.03


class OwnPartials(adjsnn.Membrane):
    def __init__(self):
        super().__init__(tau_mem=20.0, v_reset=-0.2)

    def flow(self, v, current, c):
        return (current - v) / 20.0

    def flow_partials(self, v, current, c, wanted=()):
        return adjsnn.gated.membranes.Partials(-1 / 20.0, torch.tensor(1 / 20.0, dtype=v.dtype), dict.fromkeys(wanted, 0.0))


class Itself(adjsnn.Membrane):
    """Its flow is its argument."""

    def __init__(self):
        super().__init__(v_reset=0.0)

    def flow(self, v, current, c):
        return current


@pytest.mark.every(5)
@pytest.mark.parametrize("method", ["euler", "rk4"])
@pytest.mark.parametrize("kind", [Drift, OwnPartials, Itself])
def test_a_membrane_may_return_numbers_and_its_arguments(kind, method):
    net = _network(kind())
    with torch.no_grad():
        net.bias.mul_(0.05 if kind is Itself else 1.0)
    u, y0 = random_trial(net, seed=0, steps=80)
    assert adjsnn.solve(net, u, dt=DT, y0=y0, method=method).stats.spikes > 5
    own, tape = (gradients(net, u, y0, adjoint, method=method) for adjoint in (None, adjsnn.BPTT()))
    for key, g in own.items():
        assert relative(g, tape[key]) < 1e-9


# What a subclass says that is not so.


class SaysItWraps(adjsnn.QIF):
    def flow(self, v, current, c):
        return super().flow(v, current, c) - 0.01 * v


class SaysItVanishes(adjsnn.Gate):
    vanishes_at_edges = True

    def cumulative(self, x):
        return x


class TooLittle(adjsnn.Gate):
    def cumulative(self, x):
        return 0.9 * x


class Learning(adjsnn.LIF):
    def __init__(self):
        super().__init__()
        self.gain = torch.tensor(1.5, requires_grad=True)

    def flow(self, v, current, c):
        return self.gain * super().flow(v, current, c)


class WrongShape(adjsnn.LIF):
    def flow(self, v, current, c):
        return super().flow(v, current, c).sum(-1)[..., None].expand(*v.shape, 2)


class NoConstants(adjsnn.Membrane):
    def __init__(self):
        pass

    def flow(self, v, current, c):
        return current


class UnknownTime(adjsnn.Membrane):
    time_constants = ("tau",)

    def flow(self, v, current, c):
        return current


@pytest.mark.parametrize(
    ("neuron", "gate", "message"),
    [
        (SaysItWraps(25.0), GATE, "SaysItWraps.wraps"),
        (patched(adjsnn.QIF(25.0), threshold=0.9), GATE, "QIF.wraps with threshold 0.9"),
        (patched(adjsnn.LIF(25.0), wraps=True), GATE, "LIF.wraps with a flow"),
        (adjsnn.LIF(), SaysItVanishes(0.2), "vanishes_at_edges"),
        (adjsnn.LIF(), TooLittle(0.2), "from 0 to 0.9"),
        (Learning(), GATE, "requires a gradient"),
        (WrongShape(), GATE, "WrongShape.flow gave"),
        (NoConstants(), GATE, "NoConstants without constants"),
        (UnknownTime(), GATE, "time_constants"),
        ("lif", GATE, "of type str"),
        (adjsnn.LIF(), adjsnn.RaisedCosineGate, "of type"),
    ],
)
def test_a_membrane_or_gate_that_is_not_what_it_says_is_refused_at_the_door(neuron, gate, message):
    net = adjsnn.GatedSynapseNetwork(2, 4, 1, neuron=adjsnn.LIF() if getattr(neuron, "constants", None) else adjsnn.NIF())
    if hasattr(neuron, "constants"):
        net = adjsnn.GatedSynapseNetwork(2, 4, 1, neuron=neuron)
    net.neuron, net.gate = neuron, gate  # as a user may, after construction
    with pytest.raises(ConfigurationError, match=message):
        adjsnn.solve(net, torch.zeros(5, 1, 2), dt=0.5)


def test_what_a_solve_would_not_call_is_refused():
    class Louder(adjsnn.GatedSynapseNetwork):
        def readout(self, a_slow):
            return 2.0 * super().readout(a_slow)

    with pytest.raises(ConfigurationError, match="Louder.readout"):
        adjsnn.solve(Louder(2, 4, 1), torch.zeros(5, 1, 2), dt=0.5)
    net = _network(LeakyResetNIF())
    with pytest.raises(ConfigurationError, match="LeakyResetNIF.reset with method='heun'"):
        adjsnn.solve(net, random_trial(net, seed=0)[0], dt=DT, method="heun")
    with pytest.raises(ConfigurationError, match="LeakyResetNIF.reset"):
        adjsnn.ChargeForm(net)


@pytest.mark.slow
def test_the_charge_form_of_a_subclass_of_qif_is_that_of_the_same_membrane_from_nothing():
    y = []
    for neuron in PAIRS["flow of QIF"]:
        form = adjsnn.ChargeForm(_network(neuron))
        u, y0 = random_trial(form.net, seed=0, steps=40)
        sol = adjsnn.solve(form, u, dt=DT, y0=form.from_state(y0), method="dopri5")
        grads = torch.autograd.grad(sol.y.square().sum(), [form.net.bias, form.net.tau_v])
        y.append((sol.y.detach(), *grads))
    for a, b in zip(*y, strict=True):
        assert relative(a, b) < 1e-6
