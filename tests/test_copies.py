"""A deep copy of a solution, and one that was written to a file, holds its numbers, all of them, and no gradient."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lif_networks import random_lif, random_spikes
from reachable import overwrite, reachable
from test_mutation import CASES as SOLVED
from test_mutation import NAMES, Case, gradient, loss_of, same
from torch import nn

import adjsnn
from adjsnn import ConfigurationError, rules

F64 = torch.float64
pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def through_torch(sol: Any) -> Any:
    file = io.BytesIO()
    torch.save(sol, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda sol: pickle.loads(pickle.dumps(sol)),
    "torch.save": through_torch,
}


def clocked(adjoint: Any, **options: Any) -> Case:
    adaptive = {"tau_adapt": 30.0, "jump_adapt": -0.1} if "surrogate" in vars(adjoint) else {}
    net = random_lif(3, recurrent=True, layers=(6, 3)) if not adaptive else adjsnn.LIFNetwork(5, (6, 3), dtype=F64, **adaptive)
    net.requires_grad_(False).w_in.requires_grad_()
    net.n_out, net.w_out = 2, nn.Parameter(torch.randn(2, 3, generator=torch.Generator().manual_seed(5), dtype=F64))
    x = random_spikes(3, batch=2, count=8, t_end=25.0)
    return Case({"net": net}, adjsnn.solve(net, x, dt=0.5, adjoint=adjoint, **options))


TARGET = adjsnn.SpikeTrains.from_list([[(5.0, 0), (9.0, 2)], [(12.0, 1)]], n_neurons=3, t_max=25.0, dtype=F64)
ON_A_CLOCK: dict[str, Callable[[], Case]] = {
    "clocked": lambda: clocked(rules.SurrogateBPTT()),
    "clocked plain": lambda: clocked(rules.SurrogateBPTT(), kernels="plain"),
    "clocked drawn": lambda: clocked(rules.EscapeNoise(target=TARGET)),
    "clocked local": lambda: clocked(rules.LocalErrors()),
}
CASES = SOLVED | ON_A_CLOCK


@pytest.mark.every(5)
@pytest.mark.filterwarnings("ignore::adjsnn.BacksolveWarning")
@pytest.mark.parametrize("name", [*NAMES, *ON_A_CLOCK])
@pytest.mark.parametrize("way", WAYS)
def test_a_copy_has_all_numbers_no_gradient_and_memory_of_its_own(name: str, way: str):
    """Whether they were read before it was made or are found when the copy is asked for them; twice over, too."""
    case = CASES[name]()
    early = WAYS[way](case.sol)
    assert repr(early) == repr(case.sol)
    with pytest.raises(RuntimeError, match="does not require grad"):
        loss_of(Case({}, WAYS[way](early))).backward()
    loss = torch.zeros((), requires_grad=True) if "drawn" in name else loss_of(case)  # drawn spikes have no derivative
    expected, numbers = gradient(case, loss), {path: x.detach().clone() for path, x in reachable({"sol": case.sol}).items()}
    assert len(numbers) > 2
    for made in (early, WAYS[way](case.sol), WAYS[way](WAYS[way](early))):
        assert type(made) is type(case.sol)
        found = reachable({"sol": made})
        for path, x in numbers.items():
            assert torch.equal(found[path].nan_to_num(7.0), x.nan_to_num(7.0)), path
        assert not any(x.requires_grad for x in found.values())
        for x in found.values():
            overwrite(x)
    assert same(gradient(case, loss), expected)
    after = reachable({"sol": case.sol})
    assert all(torch.equal(after[path].detach().nan_to_num(7.0), x.nan_to_num(7.0)) for path, x in numbers.items())


def test_a_shallow_copy_is_another_name():
    sol: Any = SOLVED["lif feed-forward"]().sol
    other = copy.copy(sol)
    assert other.spike_times() is sol.spike_times()
    assert other.spike_times().requires_grad
    trains = copy.copy(sol.layer_spikes[0])
    assert trains.time is sol.layer_spikes[0].time


@pytest.mark.parametrize("way", WAYS)
def test_what_was_changed_before_stays_refused_and_what_is_changed_later_is(way: str):
    sol: Any = SOLVED["gated euler"]().sol
    fine = WAYS[way](sol)
    with torch.no_grad():
        sol.v.add_(0.1)
    broken = WAYS[way](sol)
    for one in (sol, broken):
        with pytest.raises(ConfigurationError, match=r"sol.v, changed in place"):
            _ = one.spikes
    fine.v.add_(0.1)
    with pytest.raises(ConfigurationError, match=r"sol.v, changed in place"):
        _ = fine.spikes


@pytest.mark.parametrize("way", WAYS)
def test_spike_times_that_are_learnt_stay_so_in_a_copy(way: str):
    """As torch copies leaves; times that a solve made have no gradient there."""
    learnt = adjsnn.SpikeTrains.latency(torch.rand(2, 4, dtype=F64), 20.0)
    learnt.time.requires_grad_()
    again = WAYS[way](learnt)
    assert again.time.requires_grad
    assert again.time.is_leaf
    assert torch.equal(again.time, learnt.time)
    assert again.time.data_ptr() != learnt.time.data_ptr()
    made = SOLVED["lif feed-forward"]().sol.layer_spikes[0]
    assert made.time.requires_grad
    assert not WAYS[way](made).time.requires_grad
    WAYS[way](made).check()
