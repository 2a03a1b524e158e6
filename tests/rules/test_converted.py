"""A ReLU network as rates: the closed-form rate of a neuron, errors that fall as 1/T, the accuracy of the ReLU network."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import adjsnn
from adjsnn import ConfigurationError, SpikeTrains
from adjsnn.rules import Converted, SurrogateBPTT

F64 = torch.float64


def model(*sizes: int, relu_last: bool = False, bias: bool = True, dtype: torch.dtype = F64) -> nn.Sequential:
    torch.manual_seed(0)
    parts = [part for n, m in pairwise(sizes) for part in (nn.Linear(n, m, bias), nn.ReLU())]
    return nn.Sequential(*(parts if relu_last else parts[:-1])).to(dtype)


def data(n: int = 40, width: int = 6, low: float = 0.0) -> Tensor:
    return low + (1.0 - low) * torch.rand(n, width, dtype=F64, generator=torch.Generator().manual_seed(1))


def slope(trials: list[float], errors: list[float]) -> float:
    return float(np.polyfit(np.log(trials), np.log(errors), 1)[0])


def relative_error(converted: Converted, net: nn.Sequential, x: Tensor, **options) -> float:
    with torch.no_grad():
        said = net(x)
    found = converted.outputs(converted.solve(x, **options))
    return float((found - said).norm() / said.norm())


@pytest.mark.parametrize("tau_mem", [20.0, 100.0, 2000.0])
def test_the_rate_of_a_neuron_is_that_of_the_closed_form(tau_mem):
    """Intervals between spikes are 1/rate to rounding, of drives from below one spike in 2 tau_mem, where it is silent."""
    one = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU()).to(F64)
    with torch.no_grad():
        one[0].weight.fill_(2.0)
    x = torch.tensor([[0.0], [0.01], [0.2], [0.5], [1.0], [3.0]], dtype=F64)
    converted = Converted(one, x[:5], rate=0.1, t_end=2000.0, tau_mem=tau_mem)
    rates = converted.rates(x / 1.0)
    sol = converted.solve(x)
    for k, rate in enumerate(rates[:, 0].tolist()):
        times = sol.layer_spikes[0][k].time[0]
        if rate == 0.0:
            assert len(times) == 0
        else:
            torch.testing.assert_close(times.diff(), torch.full_like(times[1:], 1.0 / rate), rtol=1e-10, atol=1e-10)
            assert abs(len(times) - 2000.0 * rate) <= 1.0
    # ρx to second order of 1/(ρ x τ): the first term of atanh that is left out is a twelfth of its square.
    drive = 0.1 * x[:, 0] * tau_mem
    strong = drive > 1.0
    off = (rates[:, 0] / (0.1 * x[:, 0]) - 1.0)[strong] * drive[strong].square() * 12.0
    assert bool(((off < -0.5) & (off > -2.0)).all())


@pytest.mark.parametrize(
    ("encode", "low", "expected", "within"),
    [("current", -1.0, -1.0, 0.15), ("regular", 0.0, -1.0, 0.15), ("poisson", 0.0, -0.5, 0.2)],
)
@pytest.mark.parametrize("relu_last", [False, True])
def test_errors_fall_with_the_length_of_a_trial(relu_last, encode, low, expected, within):
    """A rate is a count over T, off by about one spike whatever T: 1/T. Of Poisson inputs the counts themselves are: 1/√T."""
    net, x = model(6, 16, 12, 4, relu_last=relu_last), data(low=low)
    trials = [100.0 * 2.0**k for k in range(6)]
    errors = [
        relative_error(
            Converted(net, x, t_end=t, encode=encode), net, x, generator=torch.Generator().manual_seed(2), kernels="auto"
        )
        for t in trials
    ]
    assert slope(trials, errors) == pytest.approx(expected, abs=within), errors


def test_on_a_clock_the_reset_must_keep_what_steps_overshoot():
    net, x, trials = model(6, 16, 12, 4), data(), [200.0, 400.0, 800.0]
    errors = {
        reset: [relative_error(Converted(net, x, t_end=t), net, x, dt=0.5, adjoint=SurrogateBPTT(reset=reset)) for t in trials]
        for reset in ("by", "to")
    }
    exact = [relative_error(Converted(net, x, t_end=t), net, x) for t in trials]
    assert slope(trials, errors["by"]) < -0.8
    assert errors["to"][-1] > 2.0 * errors["by"][-1]
    assert exact[-1] < 1.2 * errors["by"][-1]


def test_the_readout_of_the_network_and_the_plain_loops_say_the_same():
    net, x = model(6, 16, 4, bias=False), data(5)
    converted = Converted(net, x, t_end=300.0)
    sol = converted.solve(x, ts=[300.0])
    # Its integral, with what the filter still holds at the end, is the count of spikes.
    integral = sol.readout_integral(torch.zeros(5, dtype=F64), torch.full((5,), 300.0, dtype=F64))
    whole = (integral + converted.net.tau_out * sol.readout[0]).detach()
    torch.testing.assert_close(whole / 300.0, converted.outputs(sol), rtol=1e-10, atol=1e-12)
    assert torch.equal(converted.outputs(converted.solve(x, kernels="plain")), converted.outputs(sol))
    for k in range(5):
        alone = converted.outputs(converted.solve(x[k : k + 1]))
        torch.testing.assert_close(alone, converted.outputs(sol)[k : k + 1], rtol=1e-12, atol=1e-14)


def test_regular_spikes_are_half_way_and_as_many_as_their_rate():
    net, x = model(3, 16, 2), torch.tensor([[0.0, 0.5, 1.0], [0.004, 0.25, 0.3]], dtype=F64)
    spikes = Converted(net, x, rate=0.1, t_end=100.0, encode="regular").inputs(x)
    assert isinstance(spikes, SpikeTrains)
    assert spikes.counts().tolist() == [[0, 5, 10], [0, 3, 3]]
    assert [t for t, k in spikes.to_list()[0] if k == 1] == pytest.approx([10.0, 30.0, 50.0, 70.0, 90.0])


def test_float32_and_outliers_and_the_global_generator():
    net, x = model(6, 16, 12, 4), data()
    state = torch.get_rng_state()
    exact = Converted(net, x, t_end=400.0)
    coarse = Converted(copy.deepcopy(net).float(), x.float(), t_end=400.0)
    assert torch.equal(torch.get_rng_state(), state)
    found = coarse.outputs(coarse.solve(x.float()))
    assert found.dtype == torch.float32
    # A spike more or less of a few neurons, each of a few thousandths.
    assert float((found - exact.outputs(exact.solve(x)).float()).norm() / found.norm()) < 0.02
    outlier = torch.cat([x, 50.0 * x[:1]])
    wide, narrow = (Converted(net, outlier, t_end=400.0, percentile=p) for p in (100.0, 97.0))
    assert relative_error(narrow, net, x) < 0.3 * relative_error(wide, net, x)
    assert narrow.scales[1] < 0.5 * wide.scales[1]


def test_digits_are_read_as_well_as_by_the_relu_network():
    """Of 397 digits that were not learnt, at most two percent fewer are right after 200 ms of 0.1 spikes/ms."""
    digits = load_digits()
    order = torch.randperm(len(digits.data), generator=torch.Generator().manual_seed(0))
    x, labels = torch.tensor(digits.data / 16.0)[order], torch.tensor(digits.target)[order]
    net = model(64, 32, 24, 10)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(120):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x[:1400]), labels[:1400]).backward()
        optimiser.step()
    converted = Converted(net, x[:1400], t_end=200.0)
    x, labels = x[1400:], labels[1400:]

    def right(outputs: Tensor) -> float:
        return float((outputs.argmax(1) == labels).double().mean())

    with torch.no_grad():
        of_model = right(net(x))
    assert of_model > 0.9
    assert right(converted.outputs(converted.solve(x))) >= of_model - 0.02


def test_it_learns_on_and_is_still_read_as_converted():
    net, x = model(6, 8, 3), data(8)
    converted = Converted(net, x, t_end=100.0)
    sol = converted.solve(x)
    said = converted.outputs(sol)
    sol.readout_integral(torch.zeros(8, dtype=F64), torch.full((8,), 100.0, dtype=F64)).square().sum().backward()
    assert bool(converted.net.w_in[0].grad.any())
    assert bool(converted.net.bias[0].grad.any())
    with torch.no_grad():
        for p in (*converted.net.parameters(), *net.parameters()):
            p.mul_(0.5)
    assert torch.equal(converted.outputs(sol), said)


def test_what_cannot_be_is_refused():
    net, x = model(6, 8, 3), data()
    for encode in ("current", "regular", "poisson"):
        with pytest.raises(ConfigurationError, match="t_end=400.0"):
            Converted(net, x, t_end=200.0, encode=encode).solve(x, t_end=400.0)
    for bad, message in (
        (nn.Linear(6, 3), "a model of type Linear"),
        (nn.Sequential(nn.Linear(6, 3)), "a model of 1 parts"),
        (nn.Sequential(), "a model of 0 parts"),
        (nn.Sequential(nn.Linear(6, 3), nn.Tanh()), "Tanh in place 1"),
        (nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Dropout()), "Dropout in place 2"),
        (nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), "Flatten in place 0"),
        (nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(4, 3)), "3 outputs into 4 inputs"),
        (copy.deepcopy(net).half(), "torch.float16"),
        (nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 2).double()), "torch.float64"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            Converted(bad, x)
    hooked = copy.deepcopy(net)
    hooked[1].register_forward_hook(lambda module, given, said: 2.0 * said)
    with pytest.raises(ConfigurationError, match="something else"):
        Converted(hooked, x)
    silent = copy.deepcopy(net)
    with torch.no_grad():
        silent[0].bias.fill_(-100.0)
    with pytest.raises(ConfigurationError, match="layer 0 whose largest activation"):
        Converted(silent, x)
    for options, message in (
        ({"rate": 0.0}, "rate=0.0"),
        ({"t_end": 0.0}, "t_end=0.0"),
        ({"encode": "latency"}, "encode='latency'"),
        ({"percentile": 0.0}, "percentile=0.0"),
        ({"percentile": 101}, "percentile=101"),
        ({"tau_mem": -1.0}, "tau_mem=-1.0"),
        ({"tau_syn": 0.0}, "tau_syn=0.0"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            Converted(net, x, **options)
    for bad, message in (
        (x[:, :5], r"shape \(40, 5\)"),
        (x[0], r"shape \(6,\)"),
        (x[:0], r"shape \(0, 6\)"),
        (x.float(), "torch.float32"),
        (x * float("nan"), "not finite"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            Converted(net, bad)
    with pytest.raises(ConfigurationError, match="as spikes"):
        Converted(net, -x, encode="regular")
    converted = Converted(net, x)
    with pytest.raises(ConfigurationError, match="a whole number of them"):
        converted.solve(x, dt=0.3)
    with pytest.raises(ConfigurationError, match="dt for input spikes"):
        Converted(net, x, encode="regular").inputs(x, dt=0.5)
    with pytest.raises(ConfigurationError, match="layer_counts"):
        converted.outputs(x)
    other = adjsnn.LIFNetwork(6, 5, dtype=F64)
    with pytest.raises(ConfigurationError, match="a solution of 5 neurons"):
        converted.outputs(adjsnn.solve(other, converted.inputs(x), dt=200.0))
