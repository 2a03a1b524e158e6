"""Truncations of the adjoint of gated networks: exact where nothing is truncated, and elsewhere the tape of a program in which
the same ways back are replaced one by one."""

import copy

import pytest
import torch
from networks import DT, GATES, MEMBRANES, random_loss, random_network, random_trial, relative
from torch.overrides import TorchFunctionMode

import adjsnn
from adjsnn import BPTT, ConfigurationError, DiscreteAdjoint
from adjsnn.gradcheck import angle
from adjsnn.rules import ThreeFactors

RECURRENT = ("cut", "random", "own")
STEPS = 120


def setup(membrane="lif", gate="raised_cosine", seed=0, tau=False, **trial):
    """A network that spikes, with everything learnt; without its synapses' time constants, so that compiled loops go back."""
    net = random_network(MEMBRANES[membrane], GATES[gate], seed=seed)
    with torch.no_grad():
        net.w_rec.mul_(4.0)
    for p in (net.tau_fast, net.tau_slow):
        p.requires_grad_(tau)
    u, y0 = random_trial(net, seed=seed, **{"steps": STEPS} | trial)
    return net, u, y0


def replacements(rule, net):
    """What stands in for w_rec and w_out on the way back, written out again."""
    given = list(rule.matrices or ())
    generator = torch.Generator().manual_seed(rule.seed)

    def fixed(w):
        if given:
            return given.pop(0)
        return (torch.randn(w.shape, generator=generator, dtype=torch.float64) * rule.scale / len(w) ** 0.5).to(w)

    w_rec, w_out = net.w_rec.detach(), net.w_out.detach()
    eye = torch.eye(len(w_rec), dtype=w_rec.dtype)
    back_rec = {"cut": lambda: 0.0 * w_rec, "own": lambda: w_rec * eye, "random": lambda: fixed(w_rec)}[rule.recurrent]()
    return back_rec, fixed(w_out) if rule.readout == "random" else w_out


class Through(torch.autograd.Function):
    """a Wᵀ, whose cotangent goes back to a through B instead of W."""

    @staticmethod
    def forward(ctx, a, w, b):
        ctx.save_for_backward(a, b)
        return a @ w.T

    @staticmethod
    def backward(ctx, *cotangents):
        a, b = ctx.saved_tensors
        c = cotangents[0]
        return c @ b, c.flatten(0, -2).T @ a.flatten(0, -2), None


def by_hand(net, u, y0, back_rec, back_out):
    """(1.6) on torch's tape, step by step, with these on the way back. Returns what a loss reads."""
    neuron, gate, t = net.neuron, net.gate, net.tensors()
    c = neuron.prepare(t.constants)

    def level(v):
        return gate.integral(v, threshold=neuron.threshold, two_sided=neuron.two_sided)

    v, a_fast, a_slow = y0
    states, charge = [y0], []
    for drive in (u @ t.w_in.T + t.bias).unbind():
        current = drive + Through.apply(a_fast, t.w_rec, back_rec)
        after, crossed = neuron.reset(v + DT * neuron.flow(v, current, c), current, c)
        q = level(after) - level(v) + crossed.detach()
        v, a_fast, a_slow = after, a_fast + (q - DT * a_fast) / t.tau_fast, a_slow + (q - DT * a_slow) / t.tau_slow
        states.append((v, a_fast, a_slow))
        charge.append(q)
    v, a_fast, a_slow = (torch.stack(column) for column in zip(*states, strict=True))
    return Read(v, a_fast, a_slow, Through.apply(a_slow, t.w_out, back_out), torch.stack(charge))


class Read:
    def __init__(self, v, a_fast, a_slow, readout, charge):
        self.v, self.a_fast, self.a_slow, self.readout, self.charge = v, a_fast, a_slow, readout, charge


def hand_gradients(net, u, y0, rule, loss=random_loss):
    leaves = dict(net.named_parameters()) | {"u": u} | y0._asdict()
    leaves = {name: x for name, x in leaves.items() if x.requires_grad}
    value = loss(by_hand(net, u, y0, *replacements(rule, net)))
    return dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))


def rule_gradients(net, u, y0, rule, loss=random_loss, **options):
    leaves = dict(net.named_parameters()) | {"u": u} | y0._asdict()
    leaves = {name: x for name, x in leaves.items() if x.requires_grad}
    value = loss(adjsnn.solve(net, u, dt=DT, y0=y0, adjoint=rule, **options))
    return dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))


def assert_close(found, expected, tolerance=1e-10):
    """‖found - expected‖/‖expected‖; the sums differ in their order alone, of some hundred steps."""
    assert found.keys() == expected.keys()
    off = {name: relative(found[name], expected[name]) for name in expected}
    assert max(off.values()) < tolerance, off


@pytest.mark.parametrize("tau", [False, True])
@pytest.mark.parametrize("method", ["euler", "rk4"])
@pytest.mark.parametrize("membrane", MEMBRANES)
def test_through_the_weights_themselves_it_is_the_exact_gradient(membrane, method, tau, kernels):
    net, u, y0 = setup(membrane, tau=tau, steps=60)
    rule = ThreeFactors("random", "random", matrices=[net.w_rec, net.w_out])
    # Without the charge: the exact sweep finds that of Σ|q| itself, a rule by way of sol.v.
    found, exact = (
        rule_gradients(net, u, y0, adjoint, states_alone, method=method, kernels=kernels)
        for adjoint in (rule, DiscreteAdjoint())
    )
    if (method == "euler" and not tau) or kernels == "plain":  # the same sweep
        assert all(torch.equal(found[name], exact[name]) for name in exact)
    assert_close(found, exact)


def states_alone(sol):
    return sol.readout.square().sum() + (sol.v * sol.a_fast).sum() + sol.a_slow.square().sum()


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_where_there_is_no_recurrence_a_cut_drops_nothing(method, kernels):
    net, u, y0 = setup("qif")
    with torch.no_grad():
        net.w_rec.zero_()
    exact = rule_gradients(net, u, y0, DiscreteAdjoint(), states_alone, method=method, kernels=kernels)
    for recurrent in ("cut", "own"):
        found = rule_gradients(net, u, y0, ThreeFactors(recurrent), states_alone, method=method, kernels=kernels)
        if method == "euler" or kernels == "plain":
            assert all(torch.equal(found[name], exact[name]) for name in exact)
        assert_close(found, exact)
    assert bool(exact["w_rec"].any())  # what is zero may still be learnt


@pytest.mark.every(5)
@pytest.mark.parametrize("tau", [False, True])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("membrane", MEMBRANES)
@pytest.mark.parametrize("recurrent", RECURRENT)
def test_it_is_the_tape_of_a_program_with_other_ways_back(recurrent, membrane, gate, tau, kernels):
    net, u, y0 = setup(membrane, gate, seed=1, tau=tau)
    rule = ThreeFactors(recurrent, "random" if gate == "rectangular" else "exact", seed=3)
    found, expected = rule_gradients(net, u, y0, rule, kernels=kernels), hand_gradients(net, u, y0, rule)
    assert_close(found, expected)
    exact = rule_gradients(net, u, y0, DiscreteAdjoint(), kernels=kernels)
    assert relative(found["bias"], exact["bias"]) > 1e-2  # and it is another gradient


class OtherWayBack(TorchFunctionMode):
    """Matrix products with two given matrices send their cotangents back through others."""

    def __init__(self, replaced):
        super().__init__()
        self.replaced = replaced

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.matmul, torch.Tensor.__matmul__, torch.matmul):
            for w_t, back in self.replaced:
                if args[1].shape == w_t.shape and torch.equal(args[1].detach(), w_t.detach()):
                    return Through.apply(args[0], args[1].T, back)
        return func(*args, **(kwargs or {}))


@pytest.mark.every(5)
@pytest.mark.parametrize("method", ["heun", "rk4"])
@pytest.mark.parametrize(("membrane", "recurrent"), list(zip(MEMBRANES, RECURRENT, strict=True)))
def test_runge_kutta_steps_are_the_tape_with_other_ways_back_at_every_stage(membrane, recurrent, method, kernels):
    """Stages are computed again from the network's own weights, whatever the error goes through."""
    net, u, y0 = setup(membrane, seed=2, tau=True, steps=50)
    rule = ThreeFactors(recurrent, "random", seed=1)
    found = rule_gradients(net, u, y0, rule, method=method, kernels=kernels)
    back = replacements(rule, net)
    with OtherWayBack(list(zip((net.w_rec.T, net.w_out.T), back, strict=True))):
        expected = rule_gradients(net, u, y0, BPTT(), method=method)
    assert_close(found, expected)
    assert relative(found["bias"], rule_gradients(net, u, y0, BPTT(), method=method)["bias"]) > 1e-2


def test_own_differs_from_cut_by_synapses_onto_oneself_alone(kernels):
    net, u, y0 = setup("qif")
    cut, own = (rule_gradients(net, u, y0, ThreeFactors(way), kernels=kernels) for way in ("cut", "own"))
    assert relative(own["w_in"], cut["w_in"]) > 1e-3
    with torch.no_grad():
        net.w_rec.fill_diagonal_(0.0)
    cut, own = (rule_gradients(net, u, y0, ThreeFactors(way), kernels=kernels) for way in ("cut", "own"))
    assert all(torch.equal(own[name], cut[name]) for name in cut)
    with torch.no_grad():  # without synapses onto others it is exact
        net.w_rec.copy_(torch.linspace(-1.0, 1.0, net.n_hidden).double().diag())
    own, exact = (rule_gradients(net, u, y0, a, kernels=kernels) for a in (ThreeFactors("own"), DiscreteAdjoint()))
    assert_close(own, exact)


def test_what_a_random_readout_replaces(kernels):
    """Gradients of w_out itself stay exact: it hears its own error."""
    net, u, y0 = setup("nif")
    exact, random = (
        rule_gradients(net, u, y0, a, lambda sol: sol.readout.square().sum(), kernels=kernels)
        for a in (DiscreteAdjoint(), ThreeFactors(readout="random"))
    )
    torch.testing.assert_close(random["w_out"], exact["w_out"], rtol=1e-12, atol=1e-12)
    assert relative(random["w_in"], exact["w_in"]) > 0.1


@pytest.mark.parametrize("recurrent", RECURRENT)
def test_a_batch_is_its_samples(recurrent, kernels):
    net, u, y0 = setup("lif", seed=4)
    rule = ThreeFactors(recurrent, "random")
    whole = rule_gradients(net, u, y0, rule, states_alone, kernels=kernels)
    singles = []
    for k, one in enumerate(u.split(1, 1)):
        start = type(y0)(*(x[k : k + 1].detach().requires_grad_() for x in y0))
        singles.append(rule_gradients(net, one.detach().requires_grad_(), start, rule, states_alone, kernels=kernels))
    summed = {name: torch.stack([g[name] for g in singles]).sum(0) for name in whole if name not in ("u", *y0._fields)}
    assert_close({name: whole[name] for name in summed}, summed)
    assert_close({"u": whole["u"]}, {"u": torch.cat([g["u"] for g in singles], 1)})


@pytest.mark.parametrize("recurrent", RECURRENT)
def test_single_precision_has_the_same_matrices(recurrent, kernels):
    net, u, y0 = setup("lif", seed=5, steps=60)
    rule = ThreeFactors(recurrent, "random")
    double = rule_gradients(net, u, y0, rule, states_alone, kernels=kernels)
    single = rule_gradients(
        copy.deepcopy(net).float(),
        u.detach().float().requires_grad_(),
        type(y0)(*(x.detach().float().requires_grad_() for x in y0)),
        rule,
        states_alone,
        kernels=kernels,
    )
    for name in double:  # rounding of 60 steps, amplified by resets
        assert single[name].dtype == torch.float32
        assert relative(single[name].double(), double[name]) < 2e-3, name


def test_the_state_of_the_network_after_the_solve_does_not_matter(kernels):
    net, u, y0 = setup("lif", steps=60)
    rule = ThreeFactors("own", matrices=None)
    expected = rule_gradients(net, u, y0, rule, kernels=kernels)
    value = random_loss(adjsnn.solve(net, u, dt=DT, y0=y0, adjoint=rule, kernels=kernels))
    with torch.no_grad():
        net.w_rec.mul_(2.0)
        net.w_out.mul_(2.0)
    value.backward()
    assert torch.equal(net.w_in.grad, expected["w_in"])


def test_batches_of_cotangents():
    net, u, y0 = setup("nif", steps=40)
    sol = adjsnn.solve(net, u, dt=DT, y0=y0, adjoint=ThreeFactors("random"))
    cotangents = torch.randn(2, *sol.readout.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (together,) = torch.autograd.grad(sol.readout, net.w_rec, cotangents, is_grads_batched=True, retain_graph=True)
    for value, cotangent in zip(together, cotangents, strict=True):
        (one,) = torch.autograd.grad(sol.readout, net.w_rec, cotangent, retain_graph=True)
        torch.testing.assert_close(value, one)


def test_the_angle_to_the_exact_gradient():
    """Zero without recurrence, and not with it, for what lies before the recurrent weights; w_out hears its error as ever."""
    net, u, _ = setup("qif", seed=6)
    rules = {way: ThreeFactors(way) for way in RECURRENT}
    report = angle(net, u.detach(), lambda sol: sol.readout.square().mean(), rules, dt=DT)
    for way in RECURRENT:
        assert report.row(way, "w_rec").cosine < 0.999
        assert report.row(way, "w_out").cosine == pytest.approx(1.0, abs=1e-12)
        assert report.losses[way] == report.loss
        assert report.miscounted[way] == 0.0
    with torch.no_grad():
        net.w_rec.zero_()
    report = angle(net, u.detach(), lambda sol: sol.readout.square().mean(), rules, dt=DT)
    for way in ("cut", "own"):
        assert report.row(way).cosine == pytest.approx(1.0, abs=1e-12)
        assert report.row(way).ratio == pytest.approx(1.0, abs=1e-12)


class Kicked(adjsnn.HybridSystem):
    def vector_field(self, t, y, u):
        return 1.0 - y


def lif_solve(**options):
    lif = adjsnn.LIFNetwork(2, 3, dtype=torch.float64)
    x = adjsnn.SpikeTrains.from_list([[(1.0, 0)]], n_neurons=2, t_max=5.0, dtype=torch.float64)
    return adjsnn.solve(lif, x, adjoint=ThreeFactors(), **options)


def gated_solve(rule, inputs=None):
    net, u, y0 = setup(steps=5)
    return adjsnn.solve(net, u if inputs is None else inputs, dt=DT, y0=y0, adjoint=rule)


NAN = torch.full((10, 10), torch.nan)
BAD = {
    "recurrent": (lambda: ThreeFactors("exact"), r"recurrent='exact'.*one of \['cut', 'random', 'own'\]"),
    "readout": (lambda: ThreeFactors(readout="cut"), "readout='cut'"),
    "seed": (lambda: ThreeFactors(seed=-1), "seed"),
    "scale": (lambda: ThreeFactors(scale=0.0), "scale"),
    "no list": (lambda: ThreeFactors("random", matrices=torch.eye(10)), "matrices of type Tensor"),
    "not finite": (lambda: ThreeFactors("random", matrices=[NAN]), r"matrices\[0\] has entries that are not finite"),
    "complex": (lambda: ThreeFactors("random", matrices=[torch.eye(10) * 1j]), "complex"),
    "a shape": (lambda: gated_solve(ThreeFactors("random", matrices=[torch.eye(9)])), r"\[\(10, 10\)\]"),
    "too many": (lambda: gated_solve(ThreeFactors("cut", matrices=[torch.eye(10)])), r"expected \[\]"),
    "too few": (lambda: gated_solve(ThreeFactors("random", "random", matrices=[torch.eye(10)])), r"\(3, 10\)"),
    "a stream": (
        lambda: gated_solve(ThreeFactors(), adjsnn.signals.Stream(torch.zeros(5, 3, 2, dtype=torch.float64).numpy())),
        "checkpoints",
    ),
    "a LIF network": (lif_solve, "LIF network.*GatedSynapseNetwork.*EProp"),
    "a LIF network with dt": (lambda: lif_solve(dt=0.5), "LIF network.*GatedSynapseNetwork.*EProp"),
    "a system": (
        lambda: adjsnn.solve(Kicked(), None, y0=torch.zeros(1, 1, dtype=torch.float64), ts=[0.0, 1.0], adjoint=ThreeFactors()),
        "HybridSystem.*GatedSynapseNetwork",
    ),
    "a charge form": (
        lambda: adjsnn.solve(
            adjsnn.ChargeForm(setup()[0]), torch.zeros(5, 3, 2, dtype=torch.float64), dt=DT, adjoint=ThreeFactors()
        ),
        "HybridSystem.*GatedSynapseNetwork",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    call, message = BAD[case]
    with pytest.raises(ConfigurationError, match=message):
        call()
