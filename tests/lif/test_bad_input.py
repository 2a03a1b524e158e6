"""What cannot be right about a LIF network or its solve is refused with the value seen, what is accepted, and what to try."""

import pytest
import torch

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork, LIFState, SpikeTrains

X = SpikeTrains.from_list([[(1.0, 0), (2.0, 1)], []], n_neurons=2, t_max=10.0)
NAN = float("nan")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_in": 0}, "n_in=0"),
        ({"layers": ()}, "no layers"),
        ({"layers": (3, 0)}, r"layers\[1\]=0"),
        ({"layers": (3, True)}, r"layers\[1\]=True"),
        ({"n_out": 0}, "n_out=0"),
        ({"recurrent": (True,)}, "recurrent="),
        ({"recurrent": (1, 0)}, "recurrent="),
        ({"tau_mem": 0.0}, "tau_mem of layer 0"),
        ({"tau_syn": (5.0, -1.0)}, "tau_syn of layer 1"),
        ({"tau_mem": NAN}, "not finite"),
        ({"tau_mem": (20.0,)}, "1 entries"),
        ({"tau_mem": torch.ones(5)}, r"shape \(5,\) for layer 0"),
        ({"v_reset": 1.0}, "v_reset up to 1"),
        ({"v_th": (1.0, -0.5)}, "layer 1"),
        ({"refractory": -1.0}, "refractory of layer 0"),
        ({"delays": -1.0}, "delays from -1"),
        ({"delays": float("inf")}, "finite"),
        ({"delays": (torch.ones(2), torch.ones(2))}, r"delays of shape \(2,\) for layer 1"),
        ({"delays": (1.0,)}, "1 entries"),
        ({"rec_delays": (torch.ones(3), None)}, "not recurrent"),
        ({"learn": ("weight",)}, "learn names"),
        ({"learn": ("delays",)}, "delays=1.0"),
        ({"dtype": torch.float16}, "float16"),
        ({"tau_out": 0.0}, "tau_out=0.0"),
    ],
)
def test_networks_that_cannot_be(options, message):
    with pytest.raises(ConfigurationError, match=message):
        LIFNetwork(**({"n_in": 2, "layers": (3, 2)} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t_end": -1.0}, "t_end=-1.0"),
        ({"t_end": float("inf")}, "t_end=inf"),
        ({"t_end": True}, "t_end=True"),
        ({"ts": [1.0, 0.5]}, "sorted"),
        ({"ts": [[1.0]]}, r"shape \(1, 1\)"),
        ({"ts": [0.0, 11.0]}, "11 ms"),
        ({"ts": [-1.0]}, "-1"),
        ({"ts": [NAN]}, "ts"),
        ({"adjoint": adjsnn.DiscreteAdjoint()}, "EventAdjoint"),
        ({"kernels": "gpu"}, "kernels='gpu'"),
        ({"max_spikes": 0}, "max_spikes=0"),
        ({"max_spikes": 2.0}, "max_spikes=2.0"),
        ({"y0": []}, "LIFState for each layer"),
        ({"y0": [LIFState(torch.zeros(2, 2), torch.zeros(2, 3))]}, r"y0\[0\]\.v is \(2, 2\)"),
        (
            {"y0": [LIFState(torch.zeros(2, 3), torch.full((2, 3), NAN))]},
            r"y0\[0\]\.i has entries.* the first y0\[0\]\.i\[0, 0\] = nan",
        ),
        ({"y0": [LIFState(torch.eye(3)[:2], torch.zeros(2, 3))]}, r"y0\[0\]\.v\[0, 0\] = 1, at or above its threshold"),
        ({"dt": 0.1}, "dt for a LIF network without analog currents"),
        ({"currents": torch.zeros(20, 2, 2)}, "dt=None for analog currents"),
        ({"method": "rk4"}, "method for a LIF network"),
    ],
)
def test_solves_that_cannot_be(options, message):
    with pytest.raises(ConfigurationError, match=message):
        adjsnn.solve(LIFNetwork(2, (3,)), X, **({"t_end": 10.0} | options))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "type NoneType"),
        (SpikeTrains.from_list([[]], n_neurons=3, t_max=1.0), "3 neurons"),
        (SpikeTrains.from_list([], n_neurons=2, t_max=1.0), "empty batch"),
        (SpikeTrains(torch.tensor([[0]]), torch.tensor([[1.0]]), 2, 5.0, torch.tensor([[-1]])), "negative sign"),
    ],
)
def test_inputs_that_do_not_fit(inputs, message):
    with pytest.raises(ConfigurationError, match=message):
        adjsnn.solve(LIFNetwork(2, (3,)), inputs)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tau_mem", 0.0, r"tau_mem\[0\] from 0"),
        ("tau_syn", -1.0, r"tau_syn\[0\] from -1"),
        ("v_reset", 2.0, r"v_reset\[0\] from 2"),
        ("refractory", -0.1, r"refractory\[0\]"),
        ("delays", -0.1, r"delays\[0\]"),
        ("rec_delays", -0.1, r"rec_delays\[0\]"),
        ("w_in", NAN, r"w_in\[0\] has entries that are not finite"),
    ],
)
def test_parameters_that_training_has_led_astray(name, value, message):
    lif = LIFNetwork(2, (3,), recurrent=True, delays=1.0, rec_delays=1.0)
    getattr(lif, name)[0].data.fill_(value)
    with pytest.raises(ConfigurationError, match=message):
        adjsnn.solve(lif, X)


def test_layers_of_different_precision():
    lif = LIFNetwork(2, (3, 2))
    lif.w_in[1].data = lif.w_in[1].data.double()
    with pytest.raises(ConfigurationError, match=r"w_in\[1\] is torch.float64"):
        adjsnn.solve(lif, X)


def test_what_is_learnt_and_how_values_are_given():
    lif = LIFNetwork(2, (3, 4), recurrent=(True, False), tau_mem=(10.0, torch.arange(1.0, 5.0)), bias=True, delays=1.5)
    assert [tuple(x.shape) for x in (*lif.w_in, lif.w_rec[0], *lif.delays)] == [(3, 2), (4, 3), (3, 3), (2,), (3,)]
    assert lif.w_rec[1] is None
    assert lif.rec_delays[0] is None
    assert lif.tau_mem[1].tolist() == [1.0, 2.0, 3.0, 4.0]
    learnt = {name.split(".")[0] for name, p in lif.named_parameters() if p.requires_grad}
    assert learnt == {"w_in", "w_rec", "bias"}
    state = lif.state_dict()
    other = LIFNetwork(2, (3, 4), recurrent=(True, False), tau_mem=(10.0, torch.arange(1.0, 5.0)), bias=True, delays=1.5)
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(lif.parameters(), other.parameters(), strict=True))


def test_the_same_seed_gives_the_same_weights():
    a, b = (LIFNetwork(5, (7, 3), generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("whose", ["class", "instance"])
def test_a_start_of_ones_own_is_checked_too(whose):
    class Own(LIFNetwork):
        def initial_state(self, batch):
            return [LIFState(s.v + 1.5, s.i) for s in super().initial_state(batch)]

    lif = Own(2, 3) if whose == "class" else LIFNetwork(2, 3)
    if whose == "instance":
        lif.initial_state = lambda batch: LIFNetwork(2, 3).initial_state(batch + 1)
    with pytest.raises(ConfigurationError, match=r"y0\[0\]\.v"):
        adjsnn.solve(lif, X)
    lif.initial_state = lambda batch: None  # a forgotten return
    with pytest.raises(ConfigurationError, match=r"y0 of type NoneType"):
        adjsnn.solve(lif, X)


def test_a_threshold_at_rest_is_refused():
    lif = LIFNetwork(2, (3, 2), v_reset=-1.0)
    with torch.no_grad():
        lif.v_th[1][1] = 0.0
    with pytest.raises(ConfigurationError, match=r"y0\[1\]\.v\[0, 1\] = 0, at or above its threshold"):
        adjsnn.solve(lif, X)
