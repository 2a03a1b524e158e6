"""The judge of others' layers: it passes what is exact, and tells what is wrong, late, missing, or another program."""

import functools
import math

import pytest
import torch
from lif_networks import T_END, random_lif, random_spikes

import adjsnn
from adjsnn import ConfigurationError, SpikeTrains
from adjsnn.gradcheck.verdict import by_neuron, spike_errors

pytestmark = pytest.mark.usefixtures("unchecked_shapes")
NAMES = ("w_in.0", "bias.0", "tau_mem.1")


def squares(spikes):
    """Σ t² of the spikes there are, in units of the trial."""
    times = spikes if isinstance(spikes, torch.Tensor) else spikes.time
    return times[times.isfinite()].square().sum() / T_END**2


class Solved:
    """Our own solve as if it were another's layer; `wrong` multiplies the gradient of one parameter."""

    def __init__(self, net, *, first=False, wrong=None, factor=1.0, **changed):
        self.net, self.first, self.wrong, self.factor = net, first, wrong, factor
        self.leaves = {name: net.get_parameter(name).detach().clone().requires_grad_() for name in NAMES}
        self.changed = changed

    def __call__(self, x):
        values = dict(self.leaves)
        if self.wrong is not None:
            w = values[self.wrong]
            values[self.wrong] = w.detach() + self.factor * (w - w.detach())
        sol = torch.func.functional_call(Solving(self.net), {f"net.{k}": v for k, v in (values | self.changed).items()}, (x,))
        return sol.first_spike_times() if self.first else sol.layer_spikes[-1]


class Solving(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return adjsnn.solve(self.net, x, t_end=T_END)


def problem(dtype=torch.float64):
    return random_lif(3, recurrent=False, delayed=False).to(dtype), random_spikes(3, batch=2).to(dtype=dtype)


def judged(layer, net, x, **options):
    return adjsnn.judge(layer, net, x, squares, **({"parameters": layer.leaves, "t_end": T_END, "entries": 2} | options))


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_exact_layer_passes(first, dtype):
    net, x = problem(dtype)
    layer = Solved(net, first=first)
    before = {name: leaf.detach().clone() for name, leaf in layer.leaves.items()}
    report = judged(layer, net, x)
    fine = dtype == torch.float64
    assert report.spikes.missed == report.spikes.surplus == report.spikes.miscounted == 0
    assert report.spikes.exact == report.spikes.spikes > (5 if first else 20)
    assert report.spikes.largest <= (1e-12 if fine else 1e-3)  # float32 times near 60 ms, as steep as the spikes are
    assert {row.parameter for row in report.rows} == {*NAMES}
    for row in report.rows:
        assert row.verdict == "exact", row
        assert abs(row.cosine - 1.0) <= (1e-12 if fine else 1e-5)
        assert abs(row.ratio - 1.0) <= (1e-10 if fine else 1e-3)
        assert row.signs == 1.0
        assert row.probed > 0
        assert row.differences <= (1e-6 if fine else 2e-2)
    assert all(torch.equal(leaf, before[name]) and leaf.grad is None for name, leaf in layer.leaves.items())
    assert str(report).count("exact") > 3
    assert "Numbers of spikes differ" not in str(report)


@pytest.mark.parametrize(("name", "factor"), [("w_in.0", 1.01), ("bias.0", -1.0), ("tau_mem.1", 0.0)])
def test_a_wrong_gradient_is_caught_by_differences(name, factor):
    net, x = problem()
    report = judged(Solved(net, wrong=name, factor=factor), net, x)
    assert {row.parameter: row.verdict for row in report.rows} == dict.fromkeys(NAMES, "exact") | {name: "wrong"}
    row = report.row(name)
    assert row.differences == pytest.approx(abs(factor - 1.0), rel=0.02)  # of the larger of r and the differences
    assert row.ratio == pytest.approx(abs(factor))
    assert math.isnan(row.cosine) if factor == 0.0 else row.cosine == pytest.approx(math.copysign(1.0, factor))
    assert "not the derivative of what the layer itself computes" in str(report)


def test_a_gradient_that_is_wrong_in_one_entry_is_caught_where_it_is_furthest_from_the_exact_one():
    net, x = problem()
    layer = Solved(net)
    weight = layer.leaves["w_in.0"]
    exact = torch.autograd.grad(squares(layer(x)), weight)[0].flatten()
    k = int(exact.abs().argsort()[len(exact) // 2])  # not the one that is always probed

    def other(x):
        w = layer.leaves["w_in.0"]
        without = torch.ones_like(w).flatten().index_fill(0, torch.tensor([k]), 0.0).view_as(w)
        layer.leaves = layer.leaves | {"w_in.0": w.detach() + without * (w - w.detach())}
        try:
            return layer(x)
        finally:
            layer.leaves = layer.leaves | {"w_in.0": w}

    report = adjsnn.judge(other, net, x, squares, parameters={"w_in.0": weight}, t_end=T_END, entries=1)
    assert report.row("w_in.0").verdict == "wrong"
    assert report.row("w_in.0").probed == 2


def test_it_differentiates_where_the_caller_does_not():
    net, x = problem()
    with torch.no_grad():
        assert {row.verdict for row in judged(Solved(net), net, x).rows} == {"exact"}


def test_another_program_that_misses_spikes_is_told_from_a_wrong_derivative():
    net, x = problem()
    report = judged(Solved(net, **{"v_th.1": net.v_th[1].detach() + 0.15}), net, x)
    assert report.spikes.missed > 0
    assert report.spikes.missed - report.spikes.surplus == report.spikes.exact - report.spikes.spikes
    assert report.spikes.median > 0.0
    assert {row.verdict for row in report.rows} == {"another program"}
    assert all(row.differences <= 1e-3 < row.error for row in report.rows)
    assert "Numbers of spikes differ" in str(report)


class Step(torch.autograd.Function):
    """A spike on a clock, with SuperSpike's derivative in place of none."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v >= 0.0).to(v)

    @staticmethod
    def backward(ctx, g):
        return g / (1.0 + 10.0 * ctx.saved_tensors[0].abs()) ** 2


def on_a_clock(w, tau_mem, tau_syn, dt=0.5):
    """Time-stepped LIF neurons; the first spike is at the end of the first step with one."""

    def layer(x):
        i, v, silent, first = (torch.zeros(x.batch, len(w), dtype=w.dtype) for _ in range(4))
        silent = silent + 1.0
        for n, arrived in enumerate(x.to_dense(dt)):
            v = v + dt / tau_mem * (i - v)
            i = i * math.exp(-dt / tau_syn) + arrived @ w.T
            spike = silent * Step.apply(v - 1.0)
            first, silent = first + (n + 1) * dt * spike, silent - spike
        return torch.where(silent > 0.5, torch.inf, first)

    return layer


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_surrogate_on_a_clock_is_told(dtype):
    net = adjsnn.LIFNetwork(5, (4,), tau_mem=20.0, tau_syn=5.0, generator=torch.Generator().manual_seed(1), dtype=dtype)
    with torch.no_grad():
        net.w_in[0].mul_(2.0)
    w, x = net.w_in[0].detach().clone().requires_grad_(), random_spikes(1, batch=2).to(dtype=dtype)
    report = adjsnn.judge(on_a_clock(w, 20.0, 5.0), net, x, squares, parameters={"w_in.0": w}, t_end=T_END, entries=2)
    row = report.row("w_in.0")
    assert report.layer == "layer"
    assert row.verdict == "surrogate"
    assert row.probed > 0
    assert row.cosine < 0.999
    assert 0.0 < report.spikes.median < 1.0
    assert "stand still" in str(report)


def test_a_tensor_that_the_layer_does_not_compute_with_is_told():
    net, x = problem()
    layer = Solved(net)
    report = judged(layer, net, x, parameters=layer.leaves | {"w_in.1": net.w_in[1].detach().clone().requires_grad_()})
    assert [row.verdict for row in report.rows] == ["exact"] * len(NAMES) + ["unused"]


NO_LEAK = 1e9  # ms


def non_leaky(w):
    """First spikes without a leak in closed form, Σ w (t - t_i) = 1 over those before; the last column of w is no input's."""

    def layer(x):
        time, each = x.time.unsqueeze(1), w[:, :-1].T[x.idx].transpose(1, 2)  # (B, N, K)
        rates, charge = each.cumsum(2), (each * time).cumsum(2)
        at = (1.0 + charge) / rates
        after = torch.cat([time[..., 1:], torch.full_like(time[..., :1], torch.inf)], 2)
        right = (rates > 0.0) & (at >= time) & (at < after)
        return torch.where(right, at, torch.inf).amin(2)

    return layer


def test_a_closed_form_passes_by_a_transform():
    generator = torch.Generator().manual_seed(0)
    w = (
        0.02 + 0.01 * torch.rand(3, 5, generator=generator, dtype=torch.float64)
    ).requires_grad_()  # the last column: no input's
    net, x = adjsnn.LIFNetwork(4, (3,), tau_mem=NO_LEAK, tau_syn=NO_LEAK, dtype=torch.float64), random_spikes(2, n_in=4)
    with torch.no_grad():
        net.w_in[0].copy_(NO_LEAK * w[:, :-1])
    pairs = {"w_in.0": (w, lambda w: NO_LEAK * w[:, :-1])}
    report = adjsnn.judge(non_leaky(w), net, x, squares, parameters=pairs, entries=12)
    row = report.row("w_in.0")
    assert report.spikes.exact == report.spikes.spikes > 4
    assert report.spikes.largest < 1e-5  # what time constants of 10⁹ ms change
    assert row.verdict == "exact"
    assert row.error < 1e-6
    assert row.differences < 1e-6
    assert row.probed + row.skipped <= 12  # none of the column that the transform leaves out


def test_spikes_are_matched_by_neuron_in_order():
    own = SpikeTrains.from_list([[(1.0, 0), (2.0, 1), (4.0, 0)], [(3.0, 1)]], n_neurons=2, t_max=9.0, dtype=torch.float64)
    exact = SpikeTrains.from_list([[(1.5, 0), (2.0, 1), (5.0, 1)], []], n_neurons=2, t_max=9.0, dtype=torch.float64)
    inf = math.inf
    assert by_neuron(own).tolist() == [[[1.0, 4.0], [2.0, inf]], [[inf, inf], [3.0, inf]]]
    errors = spike_errors(by_neuron(own), by_neuron(exact))
    assert (errors.spikes, errors.exact, errors.missed, errors.surplus) == (4, 3, 1, 2)
    assert (errors.miscounted, errors.neurons) == (3, 4)
    assert (errors.median, errors.largest) == (0.25, 0.5)


@functools.cache
def _small():
    net = adjsnn.LIFNetwork(2, (2,), bias=2.0, dtype=torch.float64)
    layer = Solving(net)
    w = net.w_in[0]
    x = SpikeTrains.from_list([[(1.0, 0)]], n_neurons=2, t_max=60.0, dtype=torch.float64)
    return {
        "layer": lambda x: layer(x).first_spike_times(), "network": net, "inputs": x, "loss": squares,
        "parameters": {"w_in.0": w},
    }  # fmt: skip


def not_a_number(x):
    case = _small()
    w = case["network"].w_in[0]
    return case["layer"](x) + (w.detach() - w).sqrt().sum()


class Forgetful:
    calls = 0.0

    def __call__(self, x):
        self.calls += 1.0
        return _small()["layer"](x) * self.calls


OUTPUTS = {
    "of type NoneType|of NoneType": lambda x: None,
    "output spikes of": lambda x: torch.ones(1, 3, dtype=torch.float64),
    "below 0 or NaN": lambda x: torch.full((1, 2), math.nan, dtype=torch.float64),
    "0 output spikes of the layer": lambda x: torch.full((1, 2), math.inf, dtype=torch.float64),
    "of the layer without gradient": lambda x: torch.ones(1, 2, dtype=torch.float64),
    "answers otherwise": Forgetful(),
    "gradient of w_in.0 has entries that are not finite": not_a_number,
}
CASES = {message: {"layer": layer} for message, layer in OUTPUTS.items()} | {
    "a loss of inf": {"loss": lambda t: t.sum() * math.inf},
    "a loss without exact gradient": {"loss": lambda t: (t * 0.0).sum()},
    "one number": {"loss": lambda t: t},
    "one of .*'w_in.0'": {"parameters": {"weight": torch.ones(2, 2, requires_grad=True)}},
    "the layer's tensors by": {"parameters": {}},
    "a leaf tensor": {"parameters": {"w_in.0": torch.ones(2, 2)}},
    r"of shape \(3, 2\)": {"parameters": {"w_in.0": torch.ones(3, 2, requires_grad=True)}},
    "the same numbers": {"parameters": {"w_in.0": torch.full((2, 2), 50.0, requires_grad=True)}},
    "a transform of type": {"parameters": {"w_in.0": (torch.ones(2, 2, requires_grad=True), 2)}},
    "network of type": {"network": torch.nn.Linear(2, 2)},
    "inputs of type": {"inputs": torch.ones(1, 2)},
    "two functions": {"layer": 3},
    "entries=0": {"entries": 0},
}


@pytest.mark.parametrize("message", CASES)
def test_what_cannot_be_judged_is_refused(message):
    with pytest.raises(ConfigurationError, match=message):
        adjsnn.judge(**_small() | CASES[message])
