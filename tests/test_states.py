"""What tools of torch do with the whole state of a network: functional calls, ensembles, averages, checkpoints, devices."""

import copy
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.func import functional_call, stack_module_state
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn, get_swa_multi_avg_fn

import adjsnn
from adjsnn import ConfigurationError, LIFNetwork, Synapses

F64 = torch.float64
RING = Synapses([0, 1, 2, 3, 0], [1, 2, 3, 0, 2])
BACK = Synapses([1, 2, 3, 0, 2], [0, 1, 2, 3, 0])
X = adjsnn.SpikeTrains.latency(torch.linspace(0.1, 0.9, 8, dtype=F64).view(2, 4), 20.0)


class Solved(nn.Module):
    """A network that is called, as torch's tools call modules; the result has a gradient by every spike."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self) -> Tensor:
        if isinstance(self.net, LIFNetwork):
            return adjsnn.solve(self.net, X, t_end=60.0).spike_times()
        if isinstance(self.net, adjsnn.GatedSynapseNetwork):
            return adjsnn.solve(self.net, torch.ones(20, 2, 2, dtype=F64), dt=0.5).readout
        y0 = torch.linspace(0.0, 0.9, 8, dtype=F64).view(1, 8)
        return adjsnn.solve(self.net, None, ts=[0.0, 12.0], method="dopri5", y0=y0).event_times


def lif(seed: int, **options: Any) -> LIFNetwork:
    net = LIFNetwork(4, 4, dtype=F64, generator=torch.Generator().manual_seed(seed), **options)
    with torch.no_grad():
        net.w_in[0].mul_(4.0)
    return net


def conv(seed: int, kernel: tuple[int, int] = (1, 2)) -> LIFNetwork:
    generator = torch.Generator().manual_seed(seed)
    net = adjsnn.LIFConv2d((1, 2, 2), [adjsnn.Conv2d(3, kernel), 3], dtype=F64, generator=generator, reset=0.3)
    with torch.no_grad():
        for w in net.w_in:
            w.mul_(4.0)
    return net


def equations(seed: int, edges: Synapses = RING) -> adjsnn.Equations:
    weights = torch.rand(5, dtype=F64, device="cpu", generator=torch.Generator().manual_seed(seed))
    return adjsnn.Equations(
        "dv/dt = (1.3 - v + g)/4\ndg/dt = -g/5", threshold="v > 1", reset="v = 0", size=4, learn=("W",), dtype=F64,
        parameters={"W": weights, "d": 1.0}, synapses={"g": {"weight": "W", "delay": "d", "edges": edges}},
    )  # fmt: skip


def gated(seed: int) -> nn.Module:
    return adjsnn.GatedSynapseNetwork(2, 5, 2, dtype=F64, generator=torch.Generator().manual_seed(seed))


MADE: dict[str, Callable[[int], nn.Module]] = {
    "lif": lif,
    "neurons": lambda seed: lif(seed, reset=0.3),
    "wired": lambda seed: lif(seed, leak=False, rec_synapses=RING),
    "conv": conv,
    "equations": equations,
    "gated": gated,
}
OTHERS: dict[str, Callable[[int], nn.Module]] = {  # whose parameters have the same names and shapes
    "neurons": lambda seed: lif(seed, reset=0.4),
    "wired": lambda seed: lif(seed, leak=False, rec_synapses=BACK),
    "conv": lambda seed: conv(seed, (2, 1)),
    "equations": lambda seed: equations(seed, BACK),
}


def quick(names: Iterable[str]) -> list[Any]:
    """Names as parameters of a test; equations, whose loops each test would compile, are slow."""
    return [pytest.param(name, marks=pytest.mark.slow) if name == "equations" else name for name in names]


OTHER_ERROR = r"a state (of leak=True, reset=0.4|with \"wiring.0(.rec_synapses|.synapses)?\") for"


def alike(net: nn.Module, other: nn.Module) -> None:
    """The same results, and the same state to the bit."""
    assert torch.equal(Solved(net)(), Solved(other)())
    one, two = net.state_dict(), other.state_dict()
    assert [*one] == [*two]
    for name in one:
        assert (one[name].dtype, one[name].device) == (two[name].dtype, two[name].device)
        assert torch.equal(one[name], two[name])


def test_every_entry_of_a_state_is_a_parameter_or_a_buffer():
    for name, make in MADE.items():
        net = make(0)
        known = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        assert [*net.state_dict()] == [*known]
        assert any(key.startswith(("wiring", "neuron")) for key in known) == (name in OTHERS)


@pytest.mark.parametrize("name", quick(MADE))
def test_a_functional_call_with_a_state_solves_the_network_of_that_state(name: str):
    """Value and gradient, also where the module that is called is a copy without numbers."""
    called, wanted = Solved(MADE[name](1)), Solved(MADE[name](2))
    expected = wanted()
    assert expected.numel() > 3
    assert not torch.equal(called(), expected)
    learnt = [key for key, p in wanted.named_parameters() if p.requires_grad]
    for module in (called, copy.deepcopy(called).to("meta")):
        state: dict[str, Any] = {key: x.clone().requires_grad_(key in learnt) for key, x in wanted.state_dict().items()}
        out = functional_call(module, state, ())
        assert torch.equal(out, expected)
        found = torch.autograd.grad(out.square().sum(), [state[key] for key in learnt])
        judged = torch.autograd.grad(expected.square().sum(), [wanted.get_parameter(key) for key in learnt], retain_graph=True)
        assert any(bool(x.any()) for x in judged)
        assert all(torch.equal(x, y) for x, y in zip(found, judged, strict=True))


@pytest.mark.parametrize("name", quick(OTHERS))
def test_a_functional_call_with_the_state_of_another_network_is_refused(name: str):
    module, other = Solved(MADE[name](1)), Solved(OTHERS[name](1))
    before = module()
    with pytest.raises(ConfigurationError, match=OTHER_ERROR):
        functional_call(module, other.state_dict(), ())
    assert torch.equal(module(), before)  # what was put there is gone


@pytest.mark.parametrize("name", quick(MADE))
def test_members_of_an_ensemble_are_solved_one_by_one(name: str):
    """By `stack_module_state`, of which vmap would be a transform, which a solve refuses."""
    members = [Solved(MADE[name](seed)) for seed in range(3)]
    state, buffers = stack_module_state(members)  # type: ignore[arg-type]
    base = copy.deepcopy(members[0]).to("meta")
    for k, member in enumerate(members):
        own = tuple({key: x[k] for key, x in part.items()} for part in (state, buffers))
        assert torch.equal(functional_call(base, own, ()), member())
    with pytest.raises(ConfigurationError, match="vmap"):
        torch.vmap(lambda p, b: functional_call(base, (p, b), ()))(state, buffers)
    with pytest.raises(ConfigurationError, match=r"torch.autograd.grad"):
        torch.func.grad(lambda p: functional_call(members[0], p, ()).sum())(dict(members[0].named_parameters()))


AVERAGES: dict[str, dict[str, Any]] = {
    "mean": {},
    "mean of buffers": {"use_buffers": True},
    "swa": {"multi_avg_fn": get_swa_multi_avg_fn()},
    "ema": {"multi_avg_fn": get_ema_multi_avg_fn(0.9)},
    "ema of buffers": {"multi_avg_fn": get_ema_multi_avg_fn(0.9), "use_buffers": True},
    "ema of buffers, one by one": {"avg_fn": get_ema_avg_fn(0.9), "use_buffers": True},
}


@pytest.mark.parametrize("name", quick(MADE))
def test_averaged_networks_are_solved_saved_and_loaded(name: str):
    """An average of all buffers rounds whole numbers down: what is saved is still the network's."""
    for how in AVERAGES.values():
        net = MADE[name](0)
        average = AveragedModel(net, **how)
        for seed in (1, 2, 3):
            net.load_state_dict(MADE[name](seed).state_dict())
            average.update_parameters(net)
        other = MADE[name](7)
        other.load_state_dict(average.module.state_dict())
        alike(other, average.module)
        assert not torch.equal(Solved(other)(), Solved(net)())
        again = AveragedModel(MADE[name](8), **how)
        again.load_state_dict(average.state_dict())
        alike(again.module, other)


@pytest.mark.filterwarnings("ignore:.*in a single process:UserWarning")
@pytest.mark.parametrize("name", quick(MADE))
@pytest.mark.parametrize("by_model", [False, True], ids=["state_dict", "model"])
def test_distributed_checkpoints_there_and_back(name: str, by_model: bool, tmp_path):
    net, other = MADE[name](0), MADE[name](1)
    dcp.save(get_model_state_dict(net) if by_model else net.state_dict(), checkpoint_id=tmp_path, no_dist=True)
    state = get_model_state_dict(other) if by_model else other.state_dict()
    dcp.load(state, checkpoint_id=tmp_path, no_dist=True)
    if by_model:
        set_model_state_dict(other, state)
    else:
        other.load_state_dict(state)
    alike(other, net)
    if name not in OTHERS:
        return
    wrong = OTHERS[name](1)
    state = wrong.state_dict()
    dcp.load(state, checkpoint_id=tmp_path, no_dist=True)
    with pytest.raises(ConfigurationError, match=r"for (layer|a network|equations)"):
        wrong.load_state_dict(state)


@pytest.mark.parametrize("how", [{}, {"strict": False}, {"assign": True}], ids=["strict", "not strict", "assign"])
@pytest.mark.parametrize("name", quick(MADE))
def test_states_are_loaded_and_those_of_other_networks_refused(name: str, how: dict[str, Any]):
    """Alone and within another module; with the entries of earlier versions, or without them; and what else is missing is
    told as torch tells it."""
    net = MADE[name](0)
    parameters = {key: x for key, x in net.state_dict().items() if not key.startswith(("wiring", "neuron"))}
    wide = {key: x if x.is_floating_point() else x.long() for key, x in net.state_dict().items()}
    for state in (net.state_dict(), OrderedDict(net.state_dict()), parameters, wide):
        other = MADE[name](1)
        assert other.load_state_dict(state, **how) == ([], [])
        alike(other, net)
        outer = nn.ModuleList([MADE[name](2)])
        assert outer.load_state_dict({f"0.{key}": x for key, x in state.items()}, **how) == ([], [])
        alike(outer[0], net)
        shared = other.state_dict()["wiring.0" if name == "equations" else "wiring.0.rec_synapses"] if name == "wired" else None
        if shared is not None:
            shared.zero_()  # a state that is changed does not change what is loaded next
            alike(other, net)
    first, *rest = parameters
    lacking = {key: parameters[key] for key in rest}
    if how.get("strict", True):
        with pytest.raises(RuntimeError, match=f'Missing key.*"{first}"'):
            MADE[name](1).load_state_dict(lacking, **how)
        with pytest.raises(RuntimeError, match='Unexpected key.*"more"'):
            MADE[name](1).load_state_dict(net.state_dict() | {"more": torch.ones(1)}, **how)
    else:
        assert MADE[name](1).load_state_dict(lacking, **how) == ([first], [])
        assert MADE[name](1).load_state_dict(net.state_dict() | {"more": torch.ones(1)}, **how) == ([], ["more"])
    if name in OTHERS:
        with pytest.raises(ConfigurationError, match=OTHER_ERROR):
            net.load_state_dict(OTHERS[name](1).state_dict(), **how)


@pytest.mark.parametrize("name", quick(OTHERS))
def test_casts_and_copies_leave_what_a_network_is(name: str):
    """ρ = 0.3 is no number of float16, and an index beyond 2048 none either."""
    net = MADE[name](0)
    expected = net.state_dict()
    own = {key: x for key, x in expected.items() if key.startswith(("wiring", "neuron"))}
    for changed in (net.half().double(), copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.to_empty(device="cpu")):
        state = changed.state_dict()
        assert all(state[key].dtype == x.dtype and torch.equal(state[key], x) for key, x in own.items())
    net.load_state_dict(MADE[name](0).state_dict())
    alike(net, MADE[name](0))


@pytest.mark.parametrize("name", quick(MADE))
def test_networks_made_without_numbers_get_those_of_a_state(name: str):
    """By `assign`, or in the memory that `to_empty` gives; before that a solve is refused."""
    wanted = MADE[name](1)
    with torch.device("meta"):
        nets = MADE[name](0), MADE[name](0)
    empty = [net.to("meta") for net in nets]  # equations take numbers, which are on the host
    with pytest.raises(ConfigurationError, match="on the device meta, which holds no numbers"):
        Solved(empty[0])()
    nets[0].load_state_dict(wanted.state_dict(), assign=True)
    nets[1].to_empty(device="cpu").load_state_dict(wanted.state_dict())
    for net in nets:
        alike(net, wanted)


def test_what_is_made_where_there_are_no_numbers():
    """All of a network lies there; and with a device of its own on that, with the same numbers as elsewhere."""
    options: dict[str, Any] = {"recurrent": True, "delays": 1.0, "n_out": 2, "tau_follow": 3.0, "gain_follow": 0.1}
    options |= {"tau_adapt": [10.0, 20.0], "jump_adapt": -0.1, "tau_th": 4.0, "jump_th": 0.1, "receptors": 2}
    makers: list[Callable[..., nn.Module]] = [
        lambda **to: LIFNetwork(4, (6, 3), **options, **to),
        lambda **to: LIFNetwork(4, 6, leak=False, reset="by", synapses=RING, **to),
        lambda **to: adjsnn.LIFConv2d((1, 4, 4), [adjsnn.Conv2d(2, 3, padding=1), adjsnn.Pool2d(2), 3], **to),
        lambda **to: adjsnn.GatedSynapseNetwork(2, 4, 2, tau_fast=[1.0, 2.0, 3.0, 4.0], learn=("weights", "tau_v"), **to),
        lambda **to: LIFNetwork.from_nest({"t_ref": 1.0}, 2, 3, weights=1.0, **to),
    ]
    for make in makers:
        expected = make(generator=torch.Generator().manual_seed(0))
        with torch.device("meta"):
            on_meta, on_host = make(), make(device="cpu", generator=torch.Generator(device="cpu").manual_seed(0))
        assert all(x.is_meta for x in on_meta.state_dict().values())
        for name, x in on_host.state_dict().items():
            assert torch.equal(x, expected.state_dict()[name])
            assert on_meta.state_dict()[name].shape == x.shape
    with torch.device("meta"):
        assert len(adjsnn.Conv2d(2, 3).wiring((1, 4, 4))[0]) == 72
        form = adjsnn.ChargeForm(adjsnn.GatedSynapseNetwork(2, 4, 2))
        systems = [getattr(adjsnn.models, name)() for name in adjsnn.models.__all__ if name != "glif"]
    assert all(x.is_meta for x in form.state_dict().values())
    assert not any(x.is_meta for system in systems for x in system.state_dict().values())


def test_numbers_are_asked_for_where_there_are_none():
    net, fine = (LIFNetwork(4, 6, delays=1.0, refractory=1.0, device=device) for device in ("meta", "cpu"))
    asked: list[Callable[[], object]] = [
        lambda: adjsnn.solve(net, X, t_end=9.0),
        lambda: adjsnn.start_from_data(net, X, share=0.5, t_end=9.0),
        lambda: net.rounded("brian2"),
        net.to_nest,
        lambda: adjsnn.rules.Evolution(net),
        lambda: adjsnn.solve(equations(0), None, ts=[0.0, 1.0], method="dopri5", y0=torch.zeros(1, 8, device="meta")),
        lambda: adjsnn.solve(equations(0).to("meta"), None, ts=[0.0, 1.0], y0=torch.zeros(1, 8, dtype=F64), method="dopri5"),
    ]
    for ask in asked:
        with pytest.raises(ConfigurationError, match="meta"):
            ask()
    with pytest.raises(ConfigurationError, match=r"y0\[0\].v is .*meta"):
        adjsnn.solve(fine, adjsnn.SpikeTrains.latency(torch.rand(2, 4), 9.0), t_end=9.0, y0=net.initial_state(2))
