"""The yardstick: a rule's gradient beside the exact one of the same loss."""

import math

import pytest
import torch
from test_clocked import network, spikes

import adjsnn
from adjsnn import ConfigurationError, EventAdjoint
from adjsnn.gradcheck import angle
from adjsnn.gradcheck.yardstick import compared
from adjsnn.lif.autograd import attach
from adjsnn.rules import FastSigmoid, SurrogateBPTT, Triangle


class Turned:
    """The exact gradient of the weights into the first layer, turned round and twice as long; of all else half."""

    def run_lif(self, problem):
        def back(trial, layer, inputs, start, of_layer, run, cotangents, wanted):
            found = trial.body.backward(layer, inputs, start, of_layer, run, cotangents, wanted)
            share = -2.0 if of_layer.layer == 0 else 0.5
            return found._replace(layer=type(found.layer)._make(None if x is None else share * x for x in found.layer))

        return attach(problem, back)


def target(x):
    found = adjsnn.solve(network(True, seed=5), x).layer_spikes[1]
    return adjsnn.SpikeTrains(found.idx, found.time.detach(), 3, 60.0)


def test_numbers_of_a_row():
    g, r = torch.tensor([3.0, -4.0, 0.0, 1.0]), torch.tensor([6.0, 8.0, 1.0, 2.0])
    row = compared("rule", "w", r, g)
    assert row.cosine == pytest.approx((18.0 - 32.0 + 2.0) / (math.sqrt(26.0) * math.sqrt(105.0)))
    assert row.ratio == pytest.approx(math.sqrt(105.0 / 26.0))
    assert (row.signs, row.entries) == (2 / 3, 3)
    assert row.degrees == pytest.approx(math.degrees(math.acos(row.cosine)))
    nothing = compared("rule", "w", torch.zeros(4), g)
    assert math.isnan(nothing.cosine)
    assert math.isnan(nothing.degrees)
    assert nothing.ratio == 0.0
    assert math.isnan(compared("rule", "w", r, torch.zeros(4)).signs)


def test_the_exact_gradient_is_at_no_angle_and_another_at_its_own():
    net, x = network(True, seed=1, learn=("weights", "bias"), dtype=torch.float32), spikes(1)
    before = [p.clone() for p in net.parameters()]
    wanted = target(x)
    report = angle(net, x, lambda sol: adjsnn.losses.van_rossum(sol, wanted).mean(), [EventAdjoint(), Turned()])
    for row in report.rows:
        if row.rule == "EventAdjoint" and row.parameter != "w_out":
            assert row.cosine == pytest.approx(1.0, abs=1e-12)
            assert (row.ratio, row.signs) == (pytest.approx(1.0), 1.0)
    for name, cosine, ratio in (("w_in.0", -1.0, 2.0), ("w_rec.0", -1.0, 2.0), ("w_in.1", 1.0, 0.5), ("bias.1", 1.0, 0.5)):
        row = report.row("Turned", name)
        assert (row.cosine, row.ratio) == (pytest.approx(cosine), pytest.approx(ratio))
        assert row.signs == (0.0 if cosine < 0 else 1.0)
    assert report.miscounted == {"EventAdjoint": 0.0, "Turned": 0.0}
    assert all(loss == report.loss for loss in report.losses.values())
    assert "w_rec.1" in str(report)
    assert all(p.grad is None and torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_rules_on_a_clock_are_held_against_the_event_exact_network():
    net, x = network(False, seed=2, learn=("weights",), n_out=None), spikes(2, batch=8, rate=40.0)
    wanted = target(x)
    rules = {"steep": SurrogateBPTT(FastSigmoid(100.0), through_reset=True), "flat": SurrogateBPTT(FastSigmoid(1.0))}
    report = angle(net, x, lambda sol: adjsnn.losses.van_rossum(sol, wanted).mean(), rules, dt=0.1)
    assert {row.rule for row in report.rows} == set(rules)
    assert all(math.isfinite(row.cosine) and row.ratio > 0.0 for row in report.rows)
    assert report.losses["steep"] == report.losses["flat"] == pytest.approx(report.loss, rel=0.2)
    assert report.miscounted["steep"] < 0.2


def test_it_is_found_as_an_attribute_of_gradcheck_too():
    net, x = network(False, seed=3, learn=("weights",), n_out=None), spikes(3)
    report = adjsnn.gradcheck.angle(net, x, lambda sol: adjsnn.losses.voltage_max(sol, 0).sum(), [SurrogateBPTT()], dt=0.5)
    assert report.row("SurrogateBPTT").entries > 0


def test_gated_networks():
    net = adjsnn.GatedSynapseNetwork(1, 6, 1, generator=torch.Generator().manual_seed(0))
    report = angle(net, 0.1 * torch.ones(40, 2, 1), lambda sol: sol.readout.square().mean(), [adjsnn.BPTT()], dt=0.5)
    assert report.row("BPTT").cosine == pytest.approx(1.0, abs=1e-10)


BAD = {
    "system": (lambda net, x: angle(torch.nn.Linear(1, 1), x, lambda s: s, [EventAdjoint()]), "system"),
    "no rules": (lambda net, x: angle(net, x, lambda s: s, []), "no rules"),
    "two of one name": (lambda net, x: angle(net, x, lambda s: s, [SurrogateBPTT(), SurrogateBPTT()]), "two rules"),
    "no list": (lambda net, x: angle(net, x, lambda s: s, SurrogateBPTT()), "rules of type"),
    "frozen": (lambda net, x: angle(net.requires_grad_(False), x, lambda s: s, [EventAdjoint()]), "nothing learns"),
    "adjoint": (lambda net, x: angle(net, x, lambda s: s, [EventAdjoint()], adjoint=EventAdjoint()), "adjoint in angle"),
    "no scalar": (lambda net, x: angle(net, x, lambda s: s.final_state[0].v, [EventAdjoint()]), "a loss"),
    "a count": (lambda net, x: angle(net, x, lambda s: s.spike_count().sum(), [SurrogateBPTT()], dt=0.5), "exact gradient"),
    "not a rule": (lambda net, x: angle(net, x, lambda s: s.final_state[0].v.sum(), ["exact"]), "adjoint"),
    "dt": (lambda net, x: angle(net, x, lambda s: s.final_state[0].v.sum(), [SurrogateBPTT()], dt=0.0), "dt"),
    "row": (lambda net, x: angle(net, x, lambda s: s.final_state[0].v.sum(), [EventAdjoint()]).row("x"), "one of"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    call, message = BAD[case]
    with pytest.raises(ConfigurationError, match=message):
        call(network(), spikes())


def one_spike(weight=7.0):
    """A neuron that spikes once, sooner the larger its input weight, and a readout of it; and its input."""
    net = adjsnn.LIFNetwork(1, (1,), n_out=1, tau_out=20.0, dtype=torch.float64)
    with torch.no_grad():
        net.w_in[0].fill_(weight)  # 6.35 just reaches the threshold
        net.w_out.fill_(1.0)
    x = adjsnn.SpikeTrains.from_list([[(2.0, 0)]], n_neurons=1, t_max=60.0, dtype=torch.float64)
    assert adjsnn.solve(net, x, t_end=60.0).stats.spikes == (1,)
    return net, x


END = torch.full((1,), 60.0, dtype=torch.float64)
READ = {
    "integral": lambda sol: sol.readout_integral(torch.zeros_like(END), END).sum(),
    "last": lambda sol: sol.readout[-1].sum(),
}


@pytest.mark.parametrize("slope", [1.0, 10.0, 100.0])
def test_a_surrogate_takes_an_earlier_spike_for_one_more(slope):
    """An earlier spike has a larger integral, but has decayed more by the end; more of a spike would raise both.

    So the surrogate has the exact sign of the integral, and the wrong one of the last value.
    """
    net, x = one_spike()
    for name, cosine in (("integral", 1.0), ("last", -1.0)):
        report = angle(net, x, READ[name], [SurrogateBPTT(FastSigmoid(slope))], dt=0.25, t_end=60.0, ts=END)
        assert report.row("SurrogateBPTT", "w_in.0").cosine == pytest.approx(cosine)


def test_a_gradient_through_a_spike_stays_where_the_slope_grows_as_the_clock_gets_finer():
    """By 5 %, of the sum over steps for the integral over time. Of a slope that stays it grows with the number of steps."""
    net, x = one_spike(10.0)

    def ratio(dt, slope):
        report = angle(net, x, READ["integral"], [SurrogateBPTT(Triangle(slope))], dt=dt, t_end=60.0)
        return report.row("SurrogateBPTT", "w_in.0").ratio

    assert ratio(0.05, 80.0) == pytest.approx(ratio(0.1, 40.0), rel=0.05)
    assert ratio(0.025, 160.0) == pytest.approx(ratio(0.1, 40.0), rel=0.05)
    assert ratio(0.05, 40.0) > 1.5 * ratio(0.1, 40.0)
