"""Synapses in lists, and several kinds of them on one state: against matrices with zeros, and central differences."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import adjsnn
from tests.equations.test_synapses import OPTIONS, loss_of, random

F64 = torch.float64
N = 4


def edges(pre: list[int], post: Any, **given: Any) -> adjsnn.Synapses:
    return adjsnn.Synapses(torch.tensor(pre), torch.tensor(post), **given)


EDGES = edges([2, 0, 3, 1, 0, 3, 2], [0, 1, 2, 2, 3, 0, 3])  # no pair twice, each unit sends
E = len(EDGES)
Y0 = 0.5 * random(1, 3 * N, seed=5)


def network(synapses: Any, **values: Any) -> adjsnn.Equations:
    values = {name: x.clone() if isinstance(x, Tensor) else x for name, x in values.items()}
    return adjsnn.Equations(
        "dv/dt = (b - v + g)/tau\ndg/dt = -g/5\ndw/dt = -w/20",
        threshold="v > 1 + w",
        reset="v = 0; w += 0.1",
        size=N,
        parameters={"b": 1.2 + random(N), "tau": 10.0, **values},
        learn=("b", "tau", *values),
        synapses=synapses,
        dtype=F64,
    )


def matrix(values: Tensor) -> Tensor:
    return torch.zeros(N, N, dtype=F64).index_put((EDGES.post, EDGES.pre), values)


def solved(system: adjsnn.Equations, y0: Tensor = Y0, **options: Any) -> Any:
    sol = adjsnn.solve(system, None, **{**OPTIONS, **options}, y0=y0)
    loss_of(sol).backward()
    return sol


def grad(system: adjsnn.Equations, name: str) -> Tensor:
    found = system.get_parameter(name).grad
    assert found is not None
    return found


WEIGHTS = 0.6 * random(E, seed=1) - 0.1


@pytest.mark.parametrize("kind", ["list", pytest.param("compiled", marks=[pytest.mark.compiled, pytest.mark.slow])])
@pytest.mark.parametrize("delay", [1.5, 1.0 + random(N)], ids=["one", "sources"])
def test_the_bits_of_a_matrix_with_zeros(delay: Any, kind: str):
    """Where one packet brings all that a unit sends: the same steps, and on the synapses the same gradient."""
    del kind
    entry = {"weight": "W", "delay": "d"}
    few, all_pairs = (
        network({"g": entry | {"edges": EDGES}}, W=WEIGHTS, d=delay),
        network({"g": entry}, W=matrix(WEIGHTS), d=delay),
    )
    one, other = solved(few), solved(all_pairs)
    assert one.event_times.shape[1] > 15
    assert torch.equal(one.y, other.y)
    assert torch.equal(one.event_times, other.event_times)
    assert torch.equal(grad(few, "W"), grad(all_pairs, "W")[EDGES.post, EDGES.pre])
    for name in ("b", "d", "tau"):
        assert torch.equal(grad(few, name), grad(all_pairs, name))


def test_a_delay_for_each_synapse():
    """A matrix of delays has packets of zeros, too, which end steps: its numbers are others, to the tolerance of steps."""
    entry, delays = {"weight": "W", "delay": "d"}, 0.5 + 2.0 * random(E, seed=2)
    few = network({"g": entry | {"edges": EDGES}}, W=WEIGHTS, d=delays)
    all_pairs = network({"g": entry}, W=matrix(WEIGHTS), d=1.0 + matrix(delays - 1.0))
    one, other = solved(few), solved(all_pairs)
    assert one.stats.accepted[0] < other.stats.accepted[0]
    torch.testing.assert_close(one.event_times, other.event_times, rtol=0.0, atol=1e-7)
    for name in ("W", "d"):
        of_pairs = grad(all_pairs, name)[EDGES.post, EDGES.pre]
        torch.testing.assert_close(grad(few, name), of_pairs, rtol=1e-6, atol=1e-6)


def check_differences(system: adjsnn.Equations) -> None:
    y0 = Y0.clone().requires_grad_()
    sol = solved(system, y0)
    assert sol.event_times.shape[1] > 12
    for x in (y0, *system.parameters()):
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=F64)
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                x += sign * 1e-6 * direction
                other = adjsnn.solve(system, None, **OPTIONS, y0=y0)
                x -= sign * 1e-6 * direction
            assert torch.equal(other.event_index, sol.event_index)
            values.append(float(loss_of(other)))
        assert x.grad is not None
        assert x.grad.any()
        assert float((x.grad * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-6, rel=2e-6, abs=1e-5)


SHARED = edges([2, 0, 3, 1, 0], [0, 1, 2, 2, 1], shared=torch.tensor([1, 0, 0, 2, 1]))  # 0 projects to 1 twice


@pytest.mark.every(3)
@pytest.mark.parametrize("delays", [5, 1, N], ids=["each", "one", "sources"])
def test_differences_of_shared_weights(delays: int):
    entry = {"weight": "W", "delay": "d", "edges": SHARED}
    check_differences(network({"g": entry}, W=0.5 * random(3, seed=1), d=0.5 + 2.0 * random(delays, seed=2)))


KINDS = [
    {"weight": "W", "delay": "d"},
    {"weight": "J", "delay": "c", "edges": EDGES},
    {"weight": "J", "delay": "d", "edges": EDGES},  # a weight and a delay of two kinds
]


def several_kinds() -> adjsnn.Equations:
    values = {"W": 0.3 * random(N, N, seed=4), "d": 0.5 + random(N, seed=6), "J": -WEIGHTS, "c": 0.5 + 2.0 * random(E, seed=2)}
    return network({"g": KINDS, "w": {"weight": "K", "delay": "d"}}, K=0.1 * random(N, N, seed=7), **values)


def test_differences_of_several_kinds_on_one_state():
    check_differences(several_kinds())


TWINS = {
    "kinds": several_kinds,
    "one": lambda: network({"g": {"weight": "W", "delay": "d", "edges": SHARED}}, W=0.5 * random(3, seed=1), d=1.5),
    "each": lambda: network({"g": KINDS[0]}, W=0.3 * random(N, N, seed=4), d=0.5 + 2.0 * random(N, N, seed=6)),
}


@pytest.mark.parametrize("kind", TWINS)
def test_the_same_steps_by_torch(kind: str):
    """With two samples, whose packets are others."""
    system, y0 = TWINS[kind](), 0.5 * random(2, 3 * N, seed=5)
    options = OPTIONS | {"ts": [0.0, 12.0], "rtol": 1e-6}
    sol: Any = adjsnn.solve(system, None, **options, y0=y0)
    assert (sol.stats.taken.packets.landed >= 0).sum() >= 8
    twin: Any = adjsnn.solve(system, None, **options, y0=y0, adjoint=adjsnn.BPTT(sol.stats.taken))
    assert (sol.stats.kernel, twin.stats.kernel) == ("fused", "plain")
    torch.testing.assert_close(twin.y, sol.y, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(twin.event_times, sol.event_times, rtol=1e-13, atol=0.0)
    adjsnn.gradcheck(system, None, loss_of, ("bptt",), verbose=False, **options, y0=y0)


@pytest.mark.slow
def test_gradcheck():
    """Differences on the steps that were taken, whose ends move with delays and events."""
    options = OPTIONS | {"ts": [0.0, 10.0], "rtol": 1e-6}
    report = adjsnn.gradcheck(TWINS["one"](), None, loss_of, entries=1, verbose=False, **options, y0=Y0)
    assert {row.name for row in report.rows} == {"b", "tau", "W", "d", "y0"}
    assert not any(row.skipped for row in report.rows)


def test_kinds_add():
    """A matrix in two parts, of sources whose delays differ, is the matrix with these delays."""
    whole = 0.5 * random(N, N, seed=1) - 0.2
    former = torch.arange(N) < 2
    both = network(
        {"g": [{"weight": "W", "delay": "c"}, {"weight": "V", "delay": "d"}]},
        W=torch.where(former, whole, 0.0), V=torch.where(former, 0.0, whole), c=1.0, d=2.5,
    )  # fmt: skip
    one = network({"g": {"weight": "W", "delay": "d"}}, W=whole, d=torch.where(former, 1.0, 2.5).to(F64))
    first, second = solved(both), solved(one)
    torch.testing.assert_close(first.event_times, second.event_times, rtol=0.0, atol=1e-7)
    weights, delays = torch.where(former, grad(both, "W"), grad(both, "V")), torch.stack([grad(both, "c"), grad(both, "d")])
    torch.testing.assert_close(weights, grad(one, "W"), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(delays, grad(one, "d").view(2, 2).sum(1), rtol=1e-6, atol=1e-6)


def test_units_without_targets_send_nothing():
    """And a list of synapses is no square: from two units to three."""
    system = adjsnn.Equations(
        "dv/dt = 1 + 0*v\ndg/dt = 0*g",
        threshold="v > 1",
        reset="v = 0",
        size={"v": 2, "g": 3},
        parameters={"W": [2.0, 3.0], "d": 0.25},
        synapses={"g": {"weight": "W", "delay": "d", "edges": edges([1, 1], [2, 0])}},
        dtype=F64,
    )
    y0 = torch.tensor([[0.0, 0.5, 0.0, 0.0, 0.0]], dtype=F64)
    sol: Any = adjsnn.solve(system, None, ts=[0.0, 2.0], y0=y0, method="dopri5")
    assert sol.event_index.tolist() == [[1, 0, 1]]
    assert system.of(sol.y, "g")[-1, 0].tolist() == [6.0, 0.0, 4.0]
    assert not bool((sol.stats.taken.times == 1.25).any())  # when what unit 0 sends would arrive


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"edges": edges([0, N], [0, 1])}, r"edges of synapses\['g'\].pre up to 4"),
        ({"edges": edges([0, 1], [0, N])}, "post up to 4"),
        ({"edges": edges([0, 1], [0, 1], receptor=1)}, "receptor up to 1"),
        ({"edges": edges([], [])}, "no synapse"),
        ({"edges": ([0, 1], [0, 1])}, r"type tuple.*adjsnn.Synapses\(pre, post\)"),
        ({"edges": edges([0, 1], [0, 1])}, r"W of \(7,\).*\(2,\): of the list"),
        ({"delay": "W2"}, r"W2 of \(4, 4\).*\(7,\)"),
        ({"weight": "W2"}, r"W2 of \(4, 4\).*\(7,\)"),
        ({"delay": ["d"]}, "a parameter"),
        ({"between": EDGES}, "edges where they are few"),
    ],
)  # fmt: skip
def test_lists_that_cannot_be(changed: dict[str, Any], match: str):
    entry = {"weight": "W", "delay": "d", "edges": EDGES} | changed
    with pytest.raises(adjsnn.ConfigurationError, match=match):
        network({"g": entry}, W=WEIGHTS, d=1.0, W2=torch.ones(N, N, dtype=F64))
    with pytest.raises(adjsnn.ConfigurationError, match=match.replace(r"\['g'\]", r"\['g'\]\[1\]")):
        network({"g": [KINDS[1] | {"weight": "W", "delay": "d"}, entry]}, W=WEIGHTS, d=1.0, W2=torch.ones(N, N, dtype=F64))


def test_what_else_cannot_be():
    values = {"W": WEIGHTS[:4].abs(), "d": 1.0 + random(4)}
    network({"g": {"weight": "W", "delay": "d", "edges": edges([0, 1, 2, 3], [1, 2, 3, 0])}}, **values)
    with pytest.raises(adjsnn.ConfigurationError, match="as many sources as synapses"):
        network({"g": {"weight": "W", "delay": "d", "edges": edges([0, 1, 2, 2], [1, 2, 3, 0])}}, **values)
    with pytest.raises(adjsnn.ConfigurationError, match="without an entry"):
        network({"g": []})


def test_a_state_dict_knows_what_its_weights_join():
    """And pickles and copies of the system, too."""
    made = [
        network({"g": [KINDS[0], KINDS[1] | {"edges": x}]}, W=torch.eye(N), d=1.0, J=WEIGHTS, c=1.0) for x in (EDGES, EDGES)
    ]
    state = made[0].state_dict()
    assert torch.equal(adjsnn.Synapses(*state["wiring.1"]).post, EDGES.post)
    made[1].load_state_dict(state)
    for copied in (copy.deepcopy(made[0]), pickle.loads(pickle.dumps(made[0]))):
        copied.load_state_dict(state)
        assert torch.equal(solved(copied).y, solved(made[0]).y)
    other = network(
        {"g": [KINDS[0], KINDS[1] | {"edges": edges([0] * E, [0, 1, 2, 3, 0, 1, 2])}]}, W=torch.eye(N), d=1.0, J=WEIGHTS, c=1.0
    )
    with pytest.raises(adjsnn.ConfigurationError, match="for equations with other synapses"):
        other.load_state_dict(state)
    with pytest.raises(adjsnn.ConfigurationError, match="no such synapses"):
        network({"g": KINDS[0]}, W=torch.eye(N), d=1.0).load_state_dict(state)
    del state["wiring.1"]
    other.load_state_dict(state)


def test_steps_that_are_changed_change_no_gradient():
    """What `stats.taken` shows of one sample is a copy."""
    system, y0 = several_kinds(), Y0.clone().requires_grad_()
    sol: Any = adjsnn.solve(system, None, **OPTIONS | {"ts": [0.0, 6.0, 12.0]}, y0=y0)
    loss, inputs = loss_of(sol), (y0, *system.parameters())
    before = torch.autograd.grad(loss, inputs, retain_graph=True)
    taken = sol.stats.taken
    for x in (taken.times, taken.lengths, taken.interval, taken.output, taken.rows, taken.event):
        x.zero_()
    for x in (taken.packets.landed, taken.packets.rows, taken.packets.what):
        x.zero_()
    for one, other in zip(before, torch.autograd.grad(loss, inputs), strict=True):
        assert torch.equal(one, other)


def test_known_steps_of_other_synapses():
    entry = {"weight": "W", "delay": "d"}
    sol: Any = solved(network({"g": [entry | {"edges": EDGES}] * 2}, W=WEIGHTS, d=1.5 + random(E)))
    fewer = edges([0, 2], [1, 3])
    others = [
        network({"g": [entry | {"edges": fewer}] * 2}, W=WEIGHTS[:2], d=1.5 + random(2)),
        network({"g": entry | {"edges": EDGES}}, W=WEIGHTS, d=1.5 + random(E)),
    ]
    for other in others:
        with pytest.raises(adjsnn.ConfigurationError, match="packets of other synapses"):
            adjsnn.solve(other, None, **OPTIONS, y0=Y0, adjoint=adjsnn.BPTT(sol.stats.taken))
