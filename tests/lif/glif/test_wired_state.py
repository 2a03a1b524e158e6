"""What state_dicts know of lists of synapses, leak and reset."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork, Synapses
from adjsnn.training.files import packed

E = 40


def synapses(seed: int, shared: bool = False) -> Synapses:
    generator = torch.Generator().manual_seed(seed)
    pre, post, receptor, number = (torch.randint(n, (E,), generator=generator) for n in (5, 6, 2, 7))
    number[0] = 6  # as many weights, whatever is drawn
    return Synapses(pre, post, receptor, number if shared else None)


def network(seed: int = 0, shared: bool = False, weights: int = 1) -> LIFNetwork:
    """Lists into the first layer and within the second."""
    inside = Synapses([0, 1, 2], [1, 2, seed % 3])
    generator = torch.Generator().manual_seed(weights)
    lif = LIFNetwork(5, (6, 3), receptors=(2, None), synapses=(synapses(seed, shared), None), rec_synapses=(None, inside),
                     generator=generator)  # fmt: skip
    with torch.no_grad():
        lif.w_in[0].mul_(3.0)
    return lif


def spikes(lif: nn.Module) -> Tensor:
    x = adjsnn.SpikeTrains.latency(torch.linspace(0.1, 0.9, 10).view(2, 5), 20.0)
    return adjsnn.solve(lif, x, t_end=40.0).spike_times(0).detach()


def through_torch(net: nn.Module) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


WAYS = [lambda net: net.state_dict(), through_torch, lambda net: safetensors.torch.load(packed(net))]


@pytest.mark.parametrize("way", WAYS, ids=["itself", "torch.save", "checkpoint"])
@pytest.mark.parametrize("shared", [False, True])
def test_there_and_back(way: Callable[[nn.Module], dict[str, Any]], shared: bool):
    """Also inside another module, and into a network that is built from the state alone."""
    lif = network(shared=shared)
    expected, state = spikes(lif), way(lif)
    assert len(expected) > 5
    other = network(shared=shared, weights=2)
    assert not torch.equal(spikes(other), expected)
    other.load_state_dict(state)
    assert torch.equal(spikes(other), expected)
    outer = nn.ModuleDict({"snn": network(shared=shared, weights=3)})
    outer.load_state_dict({f"snn.{key}": x for key, x in state.items()})
    assert torch.equal(spikes(outer["snn"]), expected)
    assert state.keys() == way(other).keys()  # which loading has left alone
    lists = (Synapses(*state["wiring.0.synapses"]), None), (None, Synapses(*state["wiring.1.rec_synapses"]))
    again = LIFNetwork(5, (6, 3), receptors=(2, None), synapses=lists[0], rec_synapses=lists[1])
    again.load_state_dict(state)
    assert torch.equal(spikes(again), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"])
def test_copies_hold_their_own(copied: Callable[[LIFNetwork], LIFNetwork]):
    lif = network()
    again = copied(lif)
    again.load_state_dict(lif.state_dict())
    with pytest.raises(ConfigurationError, match="wiring"):
        again.load_state_dict(network(1).state_dict())


@pytest.mark.parametrize("strict", [True, False])
def test_weights_of_other_wiring_are_refused(strict: bool):
    lif, other = network(0), network(1)
    before = [p.clone() for p in lif.parameters()]
    with pytest.raises(ConfigurationError, match=r'"wiring.0.synapses" for a network that has other synapses, 40 of them'):
        lif.load_state_dict(other.state_dict(), strict=strict)
    assert all(torch.equal(p, q) for p, q in zip(lif.parameters(), before, strict=True))
    state = lif.state_dict()
    state["wiring.1.rec_synapses"] = other.state_dict()["wiring.1.rec_synapses"]
    with pytest.raises(ConfigurationError, match=r"wiring.1.rec_synapses.*3 of them"):
        lif.load_state_dict(state, strict=strict)
    dense = LIFNetwork(5, (6, 3), recurrent=(False, True))
    with pytest.raises(ConfigurationError, match="no such list"):
        dense.load_state_dict(lif.state_dict(), strict=strict)
    with pytest.raises(ConfigurationError, match="no such list"):
        lif.load_state_dict(lif.state_dict() | {"wiring.7.synapses": torch.zeros(3, 2)}, strict=strict)
    with pytest.raises(ConfigurationError, match=r"Try: .*Synapses\(\*state"):
        lif.load_state_dict(network(0, shared=True).state_dict() | {"w_in.0": lif.w_in[0]}, strict=strict)


def test_a_convolution_of_another_orientation_is_refused():
    """Shapes of all parameters are equal."""
    lying, standing = (
        adjsnn.LIFConv2d((1, 4, 4), [adjsnn.Conv2d(2, k, padding=p), 3]) for k, p in (((1, 3), (0, 1)), ((3, 1), (1, 0)))
    )
    assert [p.shape for p in lying.parameters()] == [p.shape for p in standing.parameters()]
    lying.load_state_dict(lying.state_dict())
    with pytest.raises(ConfigurationError, match="stack of a LIFConv2d"):
        standing.load_state_dict(lying.state_dict())


def test_states_of_earlier_versions_are_loaded():
    lif, other = network(0), network(0, weights=2)
    other.load_state_dict({key: x for key, x in lif.state_dict().items() if "wiring" not in key})
    assert torch.equal(spikes(other), spikes(lif))
    assert not any("wiring" in key for key in LIFNetwork(3, (4, 2), recurrent=True).state_dict())


def test_many_neurons_need_wide_numbers():
    lif = LIFNetwork(3_000_000_000, (2,), synapses=Synapses([2_999_999_999], [1]))
    assert lif.state_dict()["wiring.0.synapses"].flatten().tolist() == [2_999_999_999, 1, 0]
    assert network().state_dict()["wiring.0.synapses"].dtype == torch.int32


KINDS = ({}, {"leak": False}, {"reset": "by"}, {"reset": (0.25, "to")}, {"leak": (True, False), "reset": "by"})


@pytest.mark.parametrize("way", WAYS, ids=["itself", "torch.save", "checkpoint"])
@pytest.mark.parametrize("strict", [True, False])
def test_weights_of_other_neurons_are_refused(way: Callable[[nn.Module], dict[str, Any]], strict: bool):
    """All parameters have the same names and shapes. What has no metadata cannot tell a network of the usual neurons from one
    of an earlier version, and is loaded."""
    for k, of_saved in enumerate(KINDS):
        saved = LIFNetwork(3, (4, 2), **of_saved)
        for j, of_loaded in enumerate(KINDS):
            loaded, state = LIFNetwork(3, (4, 2), **of_loaded), way(saved)
            if k == j or (k == 0 and getattr(state, "_metadata", None) is None):
                loaded.load_state_dict(state, strict=strict)
                assert torch.equal(loaded.w_in[0], saved.w_in[0])
                continue
            with pytest.raises(ConfigurationError, match=r"a state of leak=(True|False), reset=\S+ for layer [01]"):
                loaded.load_state_dict(state, strict=strict)
            assert not torch.equal(loaded.w_in[0], saved.w_in[0])


def test_entries_of_neurons_that_cannot_be_are_refused():
    lif = LIFNetwork(3, (4, 2), reset="by")
    state = lif.state_dict()
    with pytest.raises(ConfigurationError, match="neurons of layer 5"):
        lif.load_state_dict(state | {"neuron.5": torch.ones(2)})
    for wrong in (torch.ones(3), torch.tensor(1.0), "by", None):
        with pytest.raises(ConfigurationError, match="a state of "):
            lif.load_state_dict(state | {"neuron.1": wrong})


def test_usual_neurons_have_no_entry():
    assert not any("neuron" in key for key in LIFNetwork(3, (4, 2), recurrent=True).state_dict())
    lif = LIFNetwork(3, (4, 2), reset="by", leak=(True, False))
    before = {key: x for key, x in lif.state_dict().items() if "neuron" not in key}  # of an earlier version
    lif.load_state_dict(before)
    outer = nn.Sequential(lif)
    outer.load_state_dict(outer.state_dict())
    with pytest.raises(ConfigurationError, match="layer 0"):
        outer.load_state_dict(nn.Sequential(LIFNetwork(3, (4, 2))).state_dict())
