"""RMaxProp against the formula that defines it."""

import copy
import math

import pytest
import torch

from adjsnn import ConfigurationError
from adjsnn.rules import RMaxProp

GRADIENTS = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_steps_are_those_of_the_formula():
    w = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
    optimiser, expected, m = RMaxProp([w], lr=0.01), [1.0] * 4, [0.0] * 4
    for g in GRADIENTS:
        w.grad = g.clone()
        optimiser.step()
        for k, x in enumerate(g.tolist()):
            m[k] = max(math.exp(-0.5 / 30.0) * m[k], x * x)
            expected[k] -= 0.01 * x / math.sqrt(m[k])
    assert w.tolist() == pytest.approx(expected, rel=1e-13)  # some roundings a step


def test_a_restored_state_goes_on_the_same():
    w = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
    optimiser = RMaxProp([{"params": [w], "lr": 0.1}], decay=0.5)
    for n, g in enumerate(GRADIENTS):
        if n == 10:
            other = torch.nn.Parameter(w.detach().clone())
            resumed = RMaxProp([other])
            resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
        for p, of in [(w, optimiser)] + ([(other, resumed)] if n >= 10 else []):
            p.grad = g.clone()
            of.step()
    assert torch.equal(w, other)


def test_no_gradient_is_no_step_and_a_tiny_one_a_whole_one():
    w = torch.nn.Parameter(torch.ones(3))
    optimiser = RMaxProp([w], lr=0.5)
    optimiser.step()  # without any
    w.grad = torch.tensor([0.0, 1e-30, -1e-30])  # whose square underflows
    optimiser.step()
    assert w.tolist() == [1.0, 0.5, 1.5]


def test_it_takes_a_closure():
    w = torch.nn.Parameter(torch.ones(3))

    def closure():
        loss = w.square().sum()
        loss.backward()
        return loss.detach()

    assert float(RMaxProp([w], lr=0.5).step(closure)) == 3.0
    assert w.tolist() == [0.5] * 3


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"lr": "x"}, {"decay": 1.5}, {"decay": 0.0}, {"decay": float("nan")}])
def test_what_cannot_be_is_refused(bad):
    with pytest.raises(ConfigurationError):
        RMaxProp([torch.nn.Parameter(torch.ones(1))], **bad)
    with pytest.raises(ConfigurationError):
        RMaxProp([{"params": [torch.nn.Parameter(torch.ones(1))], **bad}])
