"""Gates and membranes: unit integrals, derivatives against autograd, and what a newcomer has to write."""

import pytest
import torch
from networks import DT, random_loss, random_network, random_trial
from scipy.integrate import quad

import adjsnn
from adjsnn.gated.membranes import Membrane


class CubicGate(adjsnn.Gate):
    """A newcomer's gate: only the integral; the density comes from autograd."""

    def cumulative(self, x):
        return 3 * x**2 - 2 * x**3


class ExponentialIF(adjsnn.Membrane):
    """A newcomer's membrane, the exponential integrate-and-fire neuron: only constants and flow."""

    time_constants = ("tau_mem",)

    def __init__(self):
        super().__init__(tau_mem=15.0, v_reset=-0.1, sharpness=0.3)

    def flow(self, v, current, c):
        return (c["sharpness"] * torch.exp((v - 0.8) / c["sharpness"]) - v + current) / c["tau_mem"]


GATES = [adjsnn.RectangularGate(0.3), adjsnn.RaisedCosineGate(0.3), CubicGate(0.3)]
MEMBRANES: list[Membrane] = [adjsnn.NIF(), adjsnn.LIF(18.0, -0.4), adjsnn.QIF(22.0), ExponentialIF()]


def _name(x):
    return type(x).__name__


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("gate", GATES, ids=_name)
def test_a_gate_has_unit_integral_and_g_is_the_slope_of_its_integral(gate, two_sided):
    def slope(v: float) -> float:
        return float(gate.slope(torch.tensor(v, dtype=torch.float64), threshold=1.0, two_sided=two_sided))

    def integral(v: float) -> float:
        return float(gate.integral(torch.tensor(v, dtype=torch.float64), threshold=1.0, two_sided=two_sided))

    assert quad(slope, 0.0, 1.2, points=[0.7, 1.0])[0] == pytest.approx(1.0, abs=1e-10)
    assert quad(slope, -1.2, 0.0, points=[-1.0, -0.7])[0] == pytest.approx(1.0 if two_sided else 0.0, abs=1e-10)
    assert integral(0.7) == pytest.approx(0.0, abs=1e-14)
    assert integral(1.0) == pytest.approx(1.0, abs=1e-14)
    assert integral(1.5) == pytest.approx(1.0, abs=1e-14)
    assert integral(-1.5) == pytest.approx(-1.0 if two_sided else 0.0, abs=1e-14)
    for v in (0.75, 0.86, 0.99, 0.3, -0.8):  # not in the middle of the zone, where a gate may have a kink
        centred = (integral(v + 1e-6) - integral(v - 1e-6)) / 2e-6
        assert slope(v) == pytest.approx(centred, abs=1e-7)


@pytest.mark.parametrize("v", [0.0, -0.0])
@pytest.mark.parametrize(("width", "slope"), [(1.0, 1.0), (0.5, 0.0)])
def test_mirrored_zones_that_meet_at_zero_have_one_slope_there(v, width, slope):
    """G(v) = v for a constant gate over 0 … θ = 1 and its mirror image: nothing is special about v = 0, where neurons rest."""
    gate, at = adjsnn.RectangularGate(width), torch.tensor([v], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(gate.integral(at, threshold=1.0, two_sided=True).sum(), at)
    assert found.item() == gate.slope(at.detach(), threshold=1.0, two_sided=True).item() == slope


@pytest.mark.parametrize("method", ["euler", "heun", "rk4"])
def test_neurons_at_rest_between_zones_that_meet_have_one_gradient(method):
    net = adjsnn.GatedSynapseNetwork(1, 1, 1, neuron=adjsnn.NIF(), gate=adjsnn.RectangularGate(1.0), dtype=torch.float64)
    torch.nn.init.zeros_(net.bias)
    torch.nn.init.ones_(net.w_in)
    u = torch.zeros(3, 1, 1, dtype=torch.float64, requires_grad=True)
    found = []
    for options in ({"kernels": "fused"}, {"kernels": "plain"}, {"adjoint": adjsnn.BPTT()}):
        sol = adjsnn.solve(net, u, dt=1.0, method=method, **options)
        found.append(torch.autograd.grad(sol.a_fast.sum() + sol.charge.sum(), u)[0])
    eps = 1e-6
    up, down = (adjsnn.solve(net, torch.full_like(u, x), dt=1.0, method=method) for x in (eps, -eps))
    difference = (up.a_fast.sum() + up.charge.sum() - down.a_fast.sum() - down.charge.sum()) / (2.0 * eps)
    for g in found:
        torch.testing.assert_close(g.sum(), difference.detach(), rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("gate", [adjsnn.RectangularGate(0.3), adjsnn.RaisedCosineGate(0.3)], ids=_name)
def test_hand_written_density_equals_autograd(gate):
    x = torch.linspace(0.01, 0.99, 37, dtype=torch.float64)
    torch.testing.assert_close(gate.density(x), adjsnn.Gate.density(gate, x), rtol=1e-13, atol=1e-13)


def _operating_points(membrane, generator):
    v = torch.rand(200, generator=generator, dtype=torch.float64) * 0.9
    current = torch.rand(200, generator=generator, dtype=torch.float64) + 1.2
    c = {name: torch.tensor(value, dtype=torch.float64) for name, value in membrane.constants.items()}
    return v, current, c


@pytest.mark.parametrize("membrane", MEMBRANES, ids=_name)
def test_hand_written_partials_equal_autograd(membrane):
    v, current, c = _operating_points(membrane, torch.Generator().manual_seed(0))
    found, expected = membrane.flow_partials(v, current, c, tuple(c)), Membrane.flow_partials(membrane, v, current, c)
    torch.testing.assert_close(found.d_v, expected.d_v, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found.d_current, expected.d_current, rtol=1e-12, atol=1e-13)
    assert set(found.d_constants) == set(membrane.constants)
    for name, slope in expected.d_constants.items():
        torch.testing.assert_close(found.d_constants[name].expand_as(slope), slope, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("membrane", [adjsnn.NIF(), adjsnn.QIF(22.0)], ids=_name)
def test_a_wrapping_membrane_flows_alike_at_threshold_and_reset(membrane):
    """`wraps` promises f(θ, I) = f(v_r, I), which makes ρ = 1 and the general reset a translation."""
    _, current, c = _operating_points(membrane, torch.Generator().manual_seed(0))
    top, bottom = torch.ones_like(current), torch.zeros_like(current)
    c = membrane.prepare(c)
    torch.testing.assert_close(membrane.flow(top, current, c), membrane.flow(bottom, current, c), rtol=0, atol=1e-14)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("tau_per_neuron", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "gate", [pytest.param(CubicGate(0.2), marks=pytest.mark.slow), adjsnn.RaisedCosineGate(0.2)], ids=_name
)
def test_a_newcomers_gate_and_membrane_pass_the_judges(gate, tau_per_neuron):
    net = random_network(ExponentialIF(), gate, seed=0, tau_per_neuron=tau_per_neuron)
    with torch.no_grad():
        net.bias.uniform_(0.9, 1.3, generator=torch.Generator().manual_seed(0))
    u, y0 = random_trial(net, seed=0)
    report = adjsnn.gradcheck(net, u, random_loss, dt=DT, y0=y0, entries=2, verbose=False)
    assert report.spikes > 20
    assert {"tau_mem", "v_reset", "sharpness", "tau_fast", "tau_slow"} <= {row.name for row in report.rows}


def test_sizes_and_repr_tell_what_a_network_is():
    net = adjsnn.GatedSynapseNetwork(2, 4, 3)
    assert (net.w_in.shape, net.w_rec.shape, net.bias.shape, net.w_out.shape) == ((4, 2), (4, 4), (4,), (3, 4))
    assert "QIF(tau_v=25.0)" in repr(net)
    assert "RaisedCosineGate(width=0.1)" in repr(net)


def test_same_seed_same_network():
    first, second = (adjsnn.GatedSynapseNetwork(2, 4, 3, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
