"""A network that is silent says so, and can be made to spike: `start_from_data`, SilentWarning, remedies."""

import warnings
from typing import Any

import pytest
import torch
from torch.nn.utils import parametrize

import adjsnn
from adjsnn import ConfigurationError, SilentWarning, SpikeTrains, losses, remedies
from adjsnn.lif.structure import AdaptiveState

LABELS = torch.tensor([0, 1, 2, 1])


def network(scale=1.0, **options):
    lif = adjsnn.LIFNetwork(8, (20, 3), generator=torch.Generator().manual_seed(2), **options)
    with torch.no_grad():
        for w in lif.w_in:
            w.mul_(scale)
    return lif


def inputs(dtype=torch.float32):
    return SpikeTrains.poisson(torch.full((4, 8), 50.0, dtype=dtype), 60.0, generator=torch.Generator().manual_seed(5))


def shares(sol, layers):
    return [float((sol.layer_counts(k) > 0).double().mean()) for k in range(layers)]


@pytest.mark.every(5)
@pytest.mark.parametrize("scale", [0.02, 1.0, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_scaled_until_the_share_spikes(scale, dtype, lif_kernels):
    lif, x = network(scale, dtype=dtype), inputs(dtype)
    before = [w.detach().clone() for w in lif.w_in]
    found = adjsnn.start_from_data(lif, x, share=(0.5, 0.75), kernels=lif_kernels)
    got = shares(adjsnn.solve(lif, x, kernels=lif_kernels), 2)
    assert got == pytest.approx(list(found.share))
    for reached, wanted, pairs in zip(got, (0.5, 0.75), (80, 12), strict=True):
        assert wanted <= reached <= wanted + 2.0 / pairs  # the smallest scale, but for pairs that come together
    for w, old, by in zip(lif.w_in, before, found.scales, strict=True):
        torch.testing.assert_close(w.detach(), old * by)
    assert "input weights ×" in str(found)
    assert str(found).count("\n") == 1


def test_it_does_not_depend_on_the_scale_of_the_start_nor_on_chance():
    ends = []
    for scale, seed in ((0.02, 0), (1.0, 1), (1.0, 2)):
        torch.manual_seed(seed)
        lif = network(scale, dtype=torch.float64)
        adjsnn.start_from_data(lif, inputs(torch.float64))
        ends.append(lif.w_in[1].detach().clone())
    assert torch.equal(ends[1], ends[2])
    torch.testing.assert_close(ends[0], ends[1], rtol=2e-3, atol=0.0)  # bisection ends at a tenth of a percent


@pytest.mark.parametrize(
    "options",
    [
        {"recurrent": True},
        {"receptors": 2, "tau_syn": [3.0, 20.0], "tau_th": [15.0], "jump_th": [0.3]},
        {"delays": 2.0, "refractory": 2.0},
    ],
    ids=["recurrent", "generalised", "delays"],
)
def test_a_rate_of_other_layers(options):
    lif, x = network(0.05, **options), inputs()
    adjsnn.start_from_data(lif, x, rate=20.0)
    sol = adjsnn.solve(lif, x)
    for k in range(2):
        assert float(sol.layer_counts(k).double().mean()) / 0.06 == pytest.approx(20.0, rel=0.35)  # whole spikes of few neurons


def test_currents_and_gated_networks():
    u = adjsnn.signals.random_sinusoids(60, 4, 8, 1.0, generator=torch.Generator().manual_seed(0))
    lif = network(0.1)
    adjsnn.start_from_data(lif, u, dt=1.0, share=0.6)
    assert min(shares(adjsnn.solve(lif, u, dt=1.0), 2)) >= 0.6
    gated = adjsnn.GatedSynapseNetwork(8, 12, 2, neuron=adjsnn.LIF(), generator=torch.Generator().manual_seed(1))
    rec = gated.w_rec.detach().clone()
    found = adjsnn.start_from_data(gated, 0.01 * u, rate=25.0, dt=1.0, kernels="plain")
    assert len(found.scales) == 1
    assert found.rate[0] >= 25.0
    assert torch.equal(gated.w_rec.detach(), rec)


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (None, {"share": 0.5, "rate": 3.0}, "one of them"),
        (None, {"share": 1.5}, "up to 1"),
        (None, {"rate": 0.0}, "above 0"),
        (None, {"share": (0.5,)}, "one for each of 2"),
        (None, {"adjoint": None}, "no adjoint"),
        ("negative", {}, "0 % of neurons in a sample, not a share of 0.5"),
        ("bias", {}, "almost without input"),
        ("parametrized", {}, "computed from other parameters"),
    ],
)
def test_what_cannot_be_is_an_error_that_leaves_the_weights(change, options, said):
    lif = network(bias=2.0 if change == "bias" else False)
    if change == "negative":
        with torch.no_grad():
            lif.w_in[1].copy_(-lif.w_in[1].abs())
    if change == "parametrized":
        parametrize.register_parametrization(lif.w_in, "0", torch.nn.Softplus())
    before = [w.detach().clone() for w in lif.w_in]
    with pytest.raises(ConfigurationError, match=said):
        adjsnn.start_from_data(lif, inputs(), **options)
    assert all(torch.equal(w.detach(), old) for w, old in zip(lif.w_in, before, strict=True))


def test_inputs_without_spikes():
    with pytest.raises(ConfigurationError, match="receives no spikes"):
        adjsnn.start_from_data(network(), SpikeTrains.from_list([[], []], n_neurons=8, t_max=60.0))
    with pytest.raises(ConfigurationError, match="HybridSystem|type Linear"):
        adjsnn.start_from_data(torch.nn.Linear(2, 2), inputs())


LOSSES = {
    "first_spike_cross_entropy": lambda sol: losses.first_spike_cross_entropy(sol, LABELS),
    "first_spike_mse": lambda sol: losses.first_spike_mse(sol, torch.full((4, 3), 9.0)),
    "van_rossum": lambda sol: losses.van_rossum(sol, SpikeTrains.from_list([[(3.0, 1)]] * 4, n_neurons=3, t_max=60.0)).sum(),
    "own": lambda sol: sol.spike_times().sum(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_spikes_that_are_not_there_is_told(name, lif_kernels):
    lif = network(0.02)
    loss = LOSSES[name](adjsnn.solve(lif, inputs(), kernels=lif_kernels))
    with pytest.warns(SilentWarning, match="layer 1 of a LIF network.*start_from_data.*wake.*voltage_gap") as told:
        loss.backward()
    assert told[0].filename == __file__
    assert not any(w.grad is not None and w.grad.any() for w in lif.w_in)


def test_once_for_each_line():
    lif = network(0.02)
    with pytest.warns(SilentWarning):  # a module that is imported on the way makes Python forget what it has told
        LOSSES["own"](adjsnn.solve(lif, inputs())).backward()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(3):
            LOSSES["own"](adjsnn.solve(lif, inputs())).backward()
    assert len(told) == 1


def test_what_has_a_gradient_is_not_told():
    """Warnings are errors here."""
    x, silent = inputs(), network()
    adjsnn.start_from_data(silent, x)
    with torch.no_grad():
        silent.w_in[1].mul_(0.05)
    sol = adjsnn.solve(silent, x, ts=torch.tensor([30.0, 60.0]))
    (LOSSES["own"](sol) + sol.v[-1].sum()).backward()
    sol = adjsnn.solve(silent, x)
    assert int(sol.spike_counts().sum()) == 0
    (LOSSES["first_spike_cross_entropy"](sol) + remedies.voltage_gap(sol, LABELS)).backward()
    assert float(silent.w_in[1].grad.abs().max()) > 0.0
    dead = adjsnn.solve(network(0.02), x)  # its hidden neurons too: its voltages have no gradient either
    with pytest.warns(SilentWarning):
        (LOSSES["first_spike_cross_entropy"](dead) + remedies.voltage_gap(dead, LABELS)).backward()
    lif = network()
    adjsnn.start_from_data(lif, x, share=0.3)  # some outputs are silent in some samples
    LOSSES["first_spike_cross_entropy"](adjsnn.solve(lif, x)).backward()


@pytest.mark.parametrize(
    "adjoint", [adjsnn.DiscreteAdjoint(), adjsnn.DiscreteAdjoint(checkpoints="sqrt")], ids=["whole", "kept"]
)
def test_a_silent_gated_network_is_told(adjoint):
    gated = adjsnn.GatedSynapseNetwork(8, 12, 2, neuron=adjsnn.LIF(), generator=torch.Generator().manual_seed(1))
    u = adjsnn.signals.random_sinusoids(60, 4, 8, 1.0, generator=torch.Generator().manual_seed(0))
    sol = adjsnn.solve(gated, 1e-4 * u, dt=1.0, kernels="plain", adjoint=adjoint)
    with pytest.warns(SilentWarning, match="a gated network spiked in no sample.*wake") as told:
        losses.readout_mse(sol, torch.ones(61, 4, 2)).backward()
    assert told[0].filename == __file__
    sol = adjsnn.solve(gated, 10.0 * u, dt=1.0, kernels="plain", adjoint=adjoint)
    assert sol.stats.spikes > 0
    losses.readout_mse(sol, torch.ones(61, 4, 2)).backward()


class Neuron(adjsnn.HybridSystem):
    """v̇ = b - v up to 1, then 0; a trace of its spikes is its readout. Without guards its voltage alone."""

    def __init__(self, bias, fires=True):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.tensor(bias, dtype=torch.float64))
        self.jumped = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.fires = fires

    def vector_field(self, t, y, u):
        return torch.stack([self.bias - y[:, 0], -0.1 * y[:, 1]], 1)

    def guard(self, t, y):
        return y[:, :1] - 1.0 if self.fires else None

    def jump(self, t, y, fired):
        return torch.where(fired, torch.stack([0.0 * y[:, 0], y[:, 1] + self.jumped], 1), y)


def _over(neuron, read, adjoint=None):
    options = {} if adjoint is None else {"adjoint": adjoint}
    sol = adjsnn.solve(neuron, None, y0=torch.zeros(2, 2, dtype=torch.float64), ts=[0.0, 2.0, 5.0], method="dopri5", **options)
    (read(sol) - 1.0).square().sum().backward()


READ = {"times": lambda sol: sol.event_times.sum(), "trace": lambda sol: sol.y[:, :, 1], "voltage": lambda sol: sol.y[:, :, 0]}


@pytest.mark.every(2)
@pytest.mark.parametrize("adjoint", [None, adjsnn.DiscreteAdjoint(checkpoints="sqrt"), adjsnn.ContinuousAdjoint()])
def test_a_system_whose_guards_never_fire_is_told(adjoint):
    for read in ("times", "trace"):
        with pytest.warns(SilentWarning, match="guards of a HybridSystem fired in no sample.*these events.*y0") as told:
            _over(Neuron(0.5), READ[read], adjoint)
        assert told[0].filename == __file__
        _over(Neuron(1.5), READ[read], adjoint)  # warnings are errors
    _over(Neuron(0.5), READ["voltage"], adjoint)
    _over(Neuron(0.5, fires=False), READ["trace"], adjoint)  # smooth: none is expected
    _over(Neuron(0.5), lambda sol: 0.0 * READ["trace"](sol) + 1.0, adjoint)  # a loss that is at its best


def test_wake_raises_weights_of_silent_neurons_from_those_that_spiked():
    lif, x = network(), inputs()
    adjsnn.start_from_data(lif, x, share=(0.5, 0.4))
    sol, before = adjsnn.solve(lif, x), lif.w_in[1].detach().clone()
    remedies.wake(lif, sol, LABELS, 0.5)
    risen = lif.w_in[1].detach() - before
    for n in range(3):
        missed = [b for b in range(4) if LABELS[b] == n and sol.spike_counts()[b, n] == 0]
        by_hand = (sol.spike_counts(0)[missed] > 0).float().mean(0) if missed else torch.zeros(20)
        torch.testing.assert_close(risen[n], 0.5 * by_hand, rtol=1e-4, atol=1e-6)  # of a difference in float32
    mask, again = torch.nn.functional.one_hot(LABELS, 3).bool(), network()
    again.load_state_dict({**lif.state_dict(), "w_in.1": before})
    remedies.wake(again, sol, mask, 0.5, reduce=lambda sums: 2.0 * sums)
    assert torch.equal(again.w_in[1], lif.w_in[1])
    assert bool((risen > 0.0).any())


def test_the_gap_is_how_far_silent_neurons_stay_below():
    lif, x = network(dtype=torch.float64, learn=("weights", "v_th")), inputs(torch.float64)
    adjsnn.start_from_data(lif, x)
    with torch.no_grad():
        lif.w_in[1].mul_(0.05)
    sol = adjsnn.solve(lif, x)
    expected = sum(1.0 - float(sol.voltage_max().detach()[b, n]) for b, n in enumerate(LABELS.tolist())) / 4
    assert float(remedies.voltage_gap(sol, LABELS).detach()) == pytest.approx(expected, rel=1e-12)
    adjsnn.gradcheck(lif, x, lambda sol: remedies.voltage_gap(sol, LABELS), entries=2, verbose=False)
    loud = network(3.0)
    adjsnn.start_from_data(loud, inputs(), share=1.0)
    assert float(remedies.voltage_gap(adjsnn.solve(loud, inputs()), LABELS).detach()) == 0.0


@pytest.mark.parametrize("computed", ["parametrized", "pruned"])
def test_wake_does_not_raise_weights_that_are_computed_anew(computed):
    lif, x = network(), inputs()
    sol = adjsnn.solve(lif, x)
    if computed == "pruned":
        torch.nn.utils.prune.identity(lif.w_in, "1")
    else:
        torch.nn.utils.parametrize.register_parametrization(lif.w_in, "1", torch.nn.Softplus(), unsafe=True)
    with pytest.raises(ConfigurationError, match="weights of layer 1 that are computed"):
        remedies.wake(lif, sol, LABELS, 0.5)
    remedies.wake(network(), sol, LABELS, 0.5)


@pytest.mark.parametrize("moved", ["by the voltage", "from the start"])
def test_there_is_no_gap_to_a_threshold_that_moves_without_a_spike(moved):
    """A neuron at 1.5 below a threshold that has followed it to 1.0 + 0.8 * 1.5 is silent, and no more than half a spike."""
    follows: dict[str, Any] = (
        {"tau_follow": 5.0, "gain_follow": 0.8} if moved == "by the voltage" else {"tau_th": 1e6, "jump_th": 0.1}
    )
    lif = adjsnn.LIFNetwork(1, 2, bias=1.5, dtype=torch.float64, **follows)
    x = SpikeTrains.from_list([[]], n_neurons=1, t_max=60.0, dtype=torch.float64)
    raised = [AdaptiveState(*state[:3], state[3] + 0.8) for state in lif.initial_state(1)]
    sol = adjsnn.solve(lif, x, t_end=60.0, y0=raised)
    assert int(sol.spike_counts().sum()) == 0
    assert bool((sol.voltage_max() > 1.0).all())
    calls = (sol.voltage_gap, lambda: losses.surrogate_spike_count(sol), lambda: remedies.voltage_gap(sol, LABELS[:1] * 0))
    for call in calls:
        with pytest.raises(ConfigurationError, match="layer 0, which moves without a spike"):
            call()


def test_on_a_clock_the_gap_is_to_the_threshold_as_it_moves():
    lif = adjsnn.LIFNetwork(1, 2, bias=1.5, tau_th=100.0, jump_th=0.1, dtype=torch.float64)
    x = SpikeTrains.from_list([[]], n_neurons=1, t_max=20.0, dtype=torch.float64)
    raised = [AdaptiveState(*state[:3], state[3] + 0.8) for state in lif.initial_state(1)]
    sol = adjsnn.solve(lif, x, t_end=20.0, dt=0.5, y0=raised, adjoint=adjsnn.rules.SurrogateBPTT())
    assert int(sol.spike_counts().sum()) == 0
    torch.testing.assert_close(sol.voltage_gap(), (sol.threshold() - sol.v[0]).amin(0), rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("wanted", [LABELS[:2], LABELS + 2, LABELS.float(), torch.zeros(4, 2, dtype=torch.bool)])
def test_wanted_that_does_not_fit(wanted):
    lif = network()
    sol = adjsnn.solve(lif, inputs())
    for call in (lambda: remedies.wake(lif, sol, wanted, 0.1), lambda: remedies.voltage_gap(sol, wanted)):
        with pytest.raises(ConfigurationError, match="wanted"):
            call()
    with pytest.raises(ConfigurationError, match="a layer above another"):
        remedies.wake(lif, sol, torch.zeros(4, 20, dtype=torch.bool), 0.1, layer=0)
