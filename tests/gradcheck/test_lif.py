"""The gradient check of LIF networks: it passes what is right, and fails a wrong sign or a missing term."""

import math

import pytest
import torch
from lif_networks import RATIOS, T_END, random_lif, random_spikes

import adjsnn
from adjsnn import ConfigurationError, GradientCheckError, LIFState, SpikeTrains
from adjsnn.gradcheck import threshold_bracket
from adjsnn.gradcheck.__main__ import main
from adjsnn.lif import plain_adjoint
from adjsnn.lif.engine import BODIES

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def times(sol):
    """Σ t² of every spike, in units of the trial."""
    return sum(sol.spike_times(k).square().sum() for k in range(len(sol.layer_spikes))) / T_END**2


def check(lif, x, **options):
    return adjsnn.gradcheck(lif, x, times, **({"t_end": T_END, "entries": 3, "verbose": False} | options))


@pytest.mark.every(7)
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("ratio", RATIOS)
def test_what_is_right_passes(ratio, recurrent, capsys):
    lif, x = random_lif(3, ratio=ratio, recurrent=recurrent).float(), random_spikes(3, batch=2)
    before = [p.clone() for p in lif.parameters()]
    x = SpikeTrains(x.idx, x.time.float(), x.n_neurons, x.t_max)
    report = check(lif, x, verbose=True)
    assert report.spikes > 20
    names = {name for name, _ in lif.named_parameters()} | {"time", "y0[0].v", "y0[1].i"}
    assert names <= {row.name for row in report.rows}
    for row in report.rows:
        assert row.plain is not None
        assert row.plain <= 1e-9, row
        assert row.finite_difference <= 1e-6, row
        assert row.bptt is None
    printed = capsys.readouterr().out
    assert f"{report.spikes} spikes" in printed
    assert "vs plain" in printed
    assert "vs BPTT" not in printed
    assert all(p.dtype == torch.float32 and torch.equal(p, old) for p, old in zip(lif.parameters(), before, strict=True))


@pytest.mark.slow
def test_a_state_of_ones_own_and_the_plain_code():
    lif, x = random_lif(3, layers=(4,)), random_spikes(3, batch=2, count=6)
    y0 = [LIFState(torch.full((2, 4), 0.2), torch.full((2, 4), 0.5))]
    report = check(lif, x, y0=y0, kernels="plain", entries=2, t_end=40.0)
    assert all(row.plain <= 1e-9 and row.finite_difference <= 1e-6 for row in report.rows)


WRONG = {
    "v_th": lambda layer: layer._replace(v_th=-layer.v_th),
    "delays": lambda layer: layer._replace(delays=torch.zeros_like(layer.delays)),
    "bias": lambda layer: layer._replace(bias=layer.bias * (1.0 + 1e-4)),
}


@pytest.mark.every(5)
@pytest.mark.parametrize("kernels", ["fused", "plain"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_gradient_is_caught_by_differences(monkeypatch, name, kernels):
    right = BODIES[kernels]

    def wrong(*arguments):
        found = right.backward(*arguments)
        return found._replace(layer=WRONG[name](found.layer))

    monkeypatch.setitem(BODIES, kernels, right._replace(backward=wrong))
    lif, x = random_lif(3, recurrent=False, per_synapse=False, layers=(6,)), random_spikes(3, batch=1)
    with pytest.raises(GradientCheckError, match=rf"{name}\.0: .* from central differences, allowed 1e-06"):
        check(lif, x, against=("finite_difference",), kernels=kernels, t_end=30.0)


def test_a_missing_jump_of_the_costate_is_caught(monkeypatch):
    """Of an arrival the weight's gradient alone: delays and all that comes before the spike that arrives are wrong."""
    right = plain_adjoint._arrival
    monkeypatch.setattr(plain_adjoint, "_arrival", lambda *arguments: 0.0 * right(*arguments))
    lif, x = random_lif(3), random_spikes(3, batch=1, count=6)
    for judge, words in (("finite_difference", "central differences"), ("plain", "the other engine")):
        with pytest.raises(GradientCheckError, match=rf"w_in\.0: .* from {words}"):
            check(lif, x, against=(judge,), kernels="plain", t_end=40.0, entries=1)


def test_a_gradient_that_is_wrongly_zero_is_caught(monkeypatch):
    right = BODIES["fused"]

    def silent(*arguments):
        found = right.backward(*arguments)
        return found._replace(time=0.0 * found.time)

    monkeypatch.setitem(BODIES, "fused", right._replace(backward=silent))
    with pytest.raises(GradientCheckError, match=r"time: 1\.0e\+00 from central differences"):
        check(random_lif(3, layers=(6,)), random_spikes(3, batch=2), against=("finite_difference",))


def test_a_zero_gradient_is_looked_at_along_all_entries(monkeypatch):
    """One input of five hardly spikes: entries alone would have to be lucky to find the delay that matters."""

    right = BODIES["fused"]

    def wrong(*arguments):
        found = right.backward(*arguments)
        return found._replace(layer=WRONG["delays"](found.layer))

    monkeypatch.setitem(BODIES, "fused", right._replace(backward=wrong))
    lif, x = random_lif(3, recurrent=False), random_spikes(3, batch=1, count=6)
    with pytest.raises(GradientCheckError, match=r"delays\.0: 1\.0e\+00 from central differences"):
        check(lif, x, against=("finite_difference",), t_end=30.0, entries=1)


@pytest.mark.slow
def test_silence_is_no_failure():
    """Nothing spikes, nothing has a gradient, and every quotient is exactly zero."""
    lif, x = random_lif(3), random_spikes(3, batch=2)
    with torch.no_grad():
        for w in (*lif.w_in, *lif.w_rec):
            w.mul_(1e-3)
    report = check(lif, x)
    assert report.spikes == 0
    assert all(row.norm == 0.0 and row.finite_difference == 0.0 and row.probed > 0 for row in report.rows)


@pytest.mark.slow
def test_input_spikes_that_cannot_move_are_skipped():
    """Both at one instant: whichever moves, one way the order would be lost."""
    lif = random_lif(3, layers=(6,))
    x = SpikeTrains.from_list([[(5.0, 0), (5.0, 1), (9.0, 2)]], n_neurons=5, t_max=T_END, dtype=torch.float64)
    report = check(lif, x, against=("finite_difference",), entries=10)
    row = next(row for row in report.rows if row.name == "time")
    assert (row.probed, row.skipped) == (1, 2)
    pair = SpikeTrains(x.idx[:, :2], x.time[:, :2], 5, T_END)
    with pytest.raises(GradientCheckError, match="time: none of 2 entries could be judged"):
        check(lif, pair, against=("finite_difference",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"against": ("bptt",)}, "LIF network"),
        ({"against": ("forward",)}, "LIF network"),
        ({"inputs": None}, "inputs of type NoneType"),
        ({"dt": 0.1}, "dt"),
    ],
)
def test_refused(options, message):
    inputs = options.pop("inputs", random_spikes(3))
    with pytest.raises(ConfigurationError, match=message):
        check(random_lif(3), inputs, **options)


def test_the_other_engine_is_for_lif_networks_only():
    net = adjsnn.GatedSynapseNetwork(2, 4, 1)
    with pytest.raises(ConfigurationError, match="LIF networks only"):
        adjsnn.gradcheck(net, torch.zeros(5, 2, 2), lambda sol: sol.readout.sum(), dt=0.1, against=("plain",))


@pytest.mark.every(3)
@pytest.mark.parametrize("ratio", RATIOS)
def test_the_critical_weight_of_a_single_spike(ratio, lif_kernels):
    """Peak of the response to a weight of one: exp(-q log(q)/(q-1)) with q = τ_m/τ_s."""
    critical = math.exp(ratio * math.log(ratio) / (ratio - 1.0)) if ratio != 1.0 else math.exp(1.0)
    lif = adjsnn.LIFNetwork(1, (2,), tau_mem=5.0 * ratio, dtype=torch.float64)
    with torch.no_grad():
        lif.w_in[0].copy_(torch.tensor([[0.5], [3.0]]))
    x = SpikeTrains.from_list([[(2.0, 0)], []], n_neurons=1, t_max=80.0, dtype=torch.float64)
    before = lif.w_in[0].clone()
    for neuron, start in enumerate((0.5, 3.0)):
        bracket = threshold_bracket(lif, x, neuron=neuron, kernels=lif_kernels)
        assert bracket.silent < bracket.fires <= bracket.silent * (1.0 + 1e-12)
        # The peak is flat, so v reaches the threshold there to a few units of rounding in v.
        assert start * bracket.silent == pytest.approx(critical, rel=2e-12)
        for factor, count in ((bracket.silent, 0), (1.001 * bracket.silent, 1), (bracket.fires / 1.001, 0)):
            with torch.no_grad():
                lif.w_in[0][neuron] = factor * start
            sol = adjsnn.solve(lif, x, kernels=lif_kernels)
            assert sol.spike_counts()[:, neuron].tolist() == [count, 0]
            with torch.no_grad():
                lif.w_in[0].copy_(before)


def test_a_neuron_further_up_is_bracketed_too():
    lif, x = random_lif(3, recurrent=False), random_spikes(3)
    with torch.no_grad():
        lif.w_in[1].abs_()
        lif.bias[1].zero_()
    silent, fires = threshold_bracket(lif, x, -1, 2, rtol=1e-9)
    row = lif.w_in[1].detach()[2].clone()
    for factor, expected in ((silent, False), (1.001 * silent, True), (fires, True)):
        with torch.no_grad():
            lif.w_in[1][2] = factor * row
        assert bool(adjsnn.solve(lif, x).spike_counts(1)[:, 2].any()) is expected


@pytest.mark.parametrize(
    ("place", "bias", "weight", "message"),
    [
        ((0, 9), 0.0, 1.0, "neuron 9 of layer 0"),
        ((3, 0), 0.0, 1.0, "layer 3"),
        ((0, 0), 1.5, 1.0, "fires without input"),
        ((0, 0), 0.0, -1.0, "silent with"),
    ],
)
def test_neurons_without_a_critical_weight(place, bias, weight, message):
    lif = adjsnn.LIFNetwork(1, (2,), bias=bias, dtype=torch.float64)
    with torch.no_grad():
        lif.w_in[0].fill_(weight)
    x = SpikeTrains.from_list([[(2.0, 0)]], n_neurons=1, t_max=60.0)
    with pytest.raises(ConfigurationError, match=message):
        threshold_bracket(lif, x, *place)


def test_the_command(capsys):
    assert main(["--family", "lif", "--hidden", "4", "--batch", "1", "--t-end", "40"]) == 0
    printed = capsys.readouterr().out
    assert "the adjoint agrees with every judge" in printed
    assert "rec_delays.0" in printed
    assert main(["--family", "lif", "--t-end", "-1"]) == 1
    assert "t_max=-1.0" in capsys.readouterr().err
