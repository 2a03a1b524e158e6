"""Random equations: loops are torch's operations, products with cotangents are derivatives, spoilt texts are refused."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from equations_cases import F64, EquationCase, Written, equation_cases, spoilt, write
from fuzzing import fuzz, gradients_agree, largest, time_limit
from hypothesis import event, given
from torch import Tensor

import adjsnn
from adjsnn.equations import link
from adjsnn.errors import AdjsnnError, ConfigurationError

STATES = 1e-12  # relative, of states and times: a few roundings of sums in another order
GRADIENTS = 1e-9


@pytest.fixture(autouse=True)
def _interpreted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("compiled") is None:
        monkeypatch.setattr(link, "INTERPRETED", True)


def solved(case: Written, system: adjsnn.Equations, kernels: Any) -> tuple[str, Any, dict[str, Tensor]]:
    """The error, or the solution and the gradients of a loss of states and event times."""
    y0 = case.y0.clone().requires_grad_()
    u = None if case.u is None else case.u.clone().requires_grad_()
    try:
        sol = adjsnn.solve(system, u, y0=y0, kernels=kernels, **case.options)
    except AdjsnnError as error:
        return type(error).__name__, None, {}
    w = torch.cos(torch.arange(sol.y.numel(), dtype=F64)).view_as(sol.y)
    times = sol.event_times[sol.event_index >= 0]
    total = (w * (sol.y + sol.y.square())).sum() + (times + 0.1 * times.square()).sum()
    leaves = {**dict(system.named_parameters()), "y0": y0, **({} if u is None else {"u": u})}
    try:
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    except AdjsnnError as error:
        return type(error).__name__, None, {}
    return "", sol, dict(zip(leaves, found, strict=True))


def bodies_agree(case: Written, system: adjsnn.Equations, tries: int = 4) -> str:
    """Functions such as tanh round otherwise in torch, for which one in a thousand step lengths, of 20 bits, is another.

    Then the same with another tolerance.
    """
    error, ours, gradients = solved(case, system, "fused")
    other, theirs, expected = solved(case, system, "plain")
    assert error == other
    if error:
        return error
    lengths = [x.stats.taken.lengths for x in (ours, theirs)]
    if tries and (lengths[0].shape != lengths[1].shape or largest(lengths[0] - lengths[1]) > 1e-11) and "rtol" in case.options:
        again = replace(case, options={**case.options, "rtol": 1.3 * case.options["rtol"]})
        return f"{bodies_agree(again, system, tries - 1)}, after steps that parted"
    assert torch.equal(ours.event_index, theirs.event_index)
    assert torch.equal(ours.stats.rejected, theirs.stats.rejected)
    slowest = 1.0 if theirs.stats.slowest_event is None else min(1.0, float(theirs.stats.slowest_event.min()))
    assert largest(ours.y.detach() - theirs.y.detach()) <= STATES * (1.0 + largest(theirs.y.detach())) / slowest
    real = theirs.event_index >= 0
    assert largest((ours.event_times - theirs.event_times).detach()[real]) <= STATES / slowest
    leaves = {**dict(system.named_parameters()), "y0": case.y0, **({} if case.u is None else {"u": case.u})}
    gradients_agree(leaves, expected, gradients, [], GRADIENTS / slowest)
    return f"{min(int(real.sum()), 3)} events"


def functions(system: adjsnn.Equations) -> dict[str, Any]:
    bound = dict(link.functions_of(True))
    exec(system.source, bound)  # what was written from expressions of sympy
    return bound


def slots(system: adjsnn.Equations, row: int) -> tuple[np.ndarray, np.ndarray, list[tuple[str, Any]]]:
    """p and q of one sample, and what each entry of them is the value of."""
    layout = system.layout
    p, q = np.zeros(layout.shared), np.zeros(layout.own)
    places = []
    for name in system.model.parameters:
        matrix = layout.matrices.get(name)
        array, first, size = ("p", matrix[0], matrix[1] * matrix[2]) if matrix else layout.slots[name]
        x = torch.tensor(system.numbers[name], dtype=F64) if name in system.numbers else getattr(system, name).detach()
        x = x[min(row, len(x) - 1)] if array == "q" else (x.T if matrix else x)
        (q if array == "q" else p)[first : first + size] = x.reshape(-1).numpy()
        if name not in system.numbers:
            places.append((name, (array, first, size, matrix)))
    return p, q, places


def products_are_derivatives(case: Written, system: adjsnn.Equations, seed: int) -> None:
    """Of f, each guard and each jump: products with a cotangent beside autograd's, at a random point."""
    random = np.random.default_rng(seed)
    of, numbers = functions(system), system.model
    row, t = int(random.integers(len(case.y0))), 0.3
    p, q, places = slots(system, row)
    y = random.uniform(-1.0, 1.0, numbers.width)
    u = np.zeros(0) if case.u is None else case.u[0, row].numpy().copy()
    leaf = torch.from_numpy(y.copy())[None].requires_grad_()
    held = None if case.u is None else torch.from_numpy(u.copy())[None].requires_grad_()
    time = torch.full((1, 1), t, dtype=F64)
    one = adjsnn.Equations(**_of_sample(case.arguments, row))
    values = dict(one.named_parameters())

    def check(out: Tensor, call: Any) -> None:
        bar = torch.from_numpy(random.uniform(-1.0, 1.0, out.shape))
        leaves = [leaf, *([] if held is None else [held]), *values.values()]
        expected = torch.autograd.grad(out, leaves, bar, allow_unused=True, materialize_grads=True, retain_graph=True)
        yb, ub, pb, qb = np.zeros(len(y)), np.zeros(len(u)), np.zeros(len(p)), np.zeros(len(q))
        call(bar.numpy()[0].copy(), yb, ub, pb, qb)
        found = [yb, *([] if held is None else [ub])]
        for name in values:
            array, first, size, matrix = dict(places)[name]
            x = (qb if array == "q" else pb)[first : first + size]
            found.append(x.reshape(matrix[2], matrix[1]).T if matrix else x)
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine.reshape(-1), theirs.numpy().reshape(-1), rtol=1e-9, atol=1e-11)

    room = of["ROOM"]
    w, wb = np.zeros(room), np.zeros(room)
    flow = one.vector_field(time, leaf, held)
    dy = np.zeros(len(y))
    of["field"](t, y, u, p, q, w, dy)
    np.testing.assert_allclose(dy, flow.detach()[0].numpy(), rtol=1e-13, atol=1e-14)
    check(flow, lambda bar, yb, ub, pb, qb: of["pull_field"](t, y, u, p, q, w, wb, bar, yb, ub, pb, qb))
    differences(lambda z: _field(of, t, z, u, p, q, w), of, (t, y, u, p, q, w, wb), random)
    levels = one.guard(time, leaf)
    if levels is None:
        return
    found = np.zeros(levels.shape[1])
    of["levels_of"](t, y, p, q, w, found)
    np.testing.assert_allclose(found, levels.detach()[0].numpy(), rtol=1e-13, atol=1e-14)
    for g in range(levels.shape[1]):
        assert of["level_of"](g, t, y, p, q, w) == pytest.approx(found[g], rel=1e-13, abs=1e-14)
        level = levels[:, g : g + 1]
        check(level, lambda bar, yb, ub, pb, qb, g=g: of["pull_level"](g, t, y, p, q, w, wb, bar[0], yb, pb, qb))
        fired = torch.arange(levels.shape[1])[None] == g
        after = one.jump(time, leaf, fired)
        plus = np.zeros(len(y))
        of["jump"](g, t, y, p, q, w, plus)
        np.testing.assert_allclose(plus, after.detach()[0].numpy(), rtol=1e-13, atol=1e-14)
        check(after, lambda bar, yb, ub, pb, qb, g=g: of["pull_jump"](g, t, y, p, q, w, wb, bar, yb, pb, qb))


def _of_sample(arguments: dict[str, Any], row: int) -> dict[str, Any]:
    """The same equations with the parameters of one sample."""
    return {**arguments, "parameters": {**arguments["parameters"], "s": arguments["parameters"]["s"][row : row + 1]}}


def _field(of: dict[str, Any], t: float, y: np.ndarray, u: Any, p: Any, q: Any, w: Any) -> np.ndarray:
    dy = np.zeros(len(y))
    of["field"](t, y, u, p, q, w, dy)
    return dy


def differences(f: Any, of: dict[str, Any], arguments: tuple[Any, ...], random: np.random.Generator) -> None:
    """Central differences of f by the state; where two lengths disagree there is a kink between."""
    t, y, u, p, q, w, wb = arguments
    bar, direction = random.uniform(-1.0, 1.0, len(y)), random.uniform(-1.0, 1.0, len(y))
    yb, ub, pb, qb = np.zeros(len(y)), np.zeros(len(u)), np.zeros(len(p)), np.zeros(len(q))
    of["pull_field"](t, y, u, p, q, w, wb, bar, yb, ub, pb, qb)
    long, short = (bar @ (f(y + h * direction) - f(y - h * direction)) / (2.0 * h) for h in (1e-5, 5e-6))
    if abs(long - short) <= 1e-7 * (1.0 + abs(long)):
        assert yb @ direction == pytest.approx(short, rel=1e-5, abs=1e-6)


def test_loops_are_torchs_operations_and_products_are_derivatives():
    @fuzz("equations")
    @given(equation_cases())
    def examples(case: EquationCase) -> None:
        with time_limit(case):
            written = write(case)
            system = written.system()
            event(bodies_agree(written, system))
            with np.errstate(all="ignore"):  # of what stands in a branch that is not chosen
                products_are_derivatives(written, system, case.seed)

    examples()


def test_spoilt_texts_are_accepted_or_refused_in_words():
    @fuzz("spoilt")
    @given(spoilt())
    def examples(texts: tuple[str, str, str]) -> None:
        text, threshold, reset = texts
        with time_limit(texts, 10.0):
            try:
                system = adjsnn.Equations(
                    text,
                    threshold=threshold,
                    reset=reset,
                    parameters=dict.fromkeys(("a", "b", "k", "s", "tau"), 0.5) | {"W": torch.ones(2, 2)},
                    inputs=("I",),
                )
                functions(system)
                y = torch.full((1, system.model.width), 0.1)
                system.vector_field(torch.zeros(1, 1), y, torch.zeros(1, 1))
                system.jump(torch.zeros(1, 1), y, system.guard(torch.zeros(1, 1), y) > 0)  # pyright: ignore[reportOptionalOperand]
            except ConfigurationError:
                event("refused")
            else:
                event("accepted")

    examples()


def compiled_seeds() -> Iterator[EquationCase]:
    random = np.random.default_rng(7)
    for seed in range(int(os.environ.get("ADJSNN_FUZZ_COMPILED", "40"))):
        methods = ("dopri5", "tsit5", "rk4")
        events = int(random.integers(0, 3))
        method = methods[int(random.integers(2 if events else 3))]
        yield EquationCase(
            seed, int(random.integers(1, 5)), bool(random.integers(2)), events, 2, 2, 2, method, bool(random.integers(2))
        )


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("case", list(compiled_seeds()), ids=lambda case: str(case.seed))
def test_compiled_loops_are_torchs_operations(case: EquationCase):
    written = write(case)
    bodies_agree(written, written.system())
