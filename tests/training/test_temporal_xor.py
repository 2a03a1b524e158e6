"""Temporal XOR: its trials, its cost, and the same gradient in closed form as event by event."""

import json
import sys
from pathlib import Path

import pytest
import torch

from adjsnn.training import main
from adjsnn.training.optimiser import SizedAdam

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from temporal_xor import CASES, Config, TemporalXor, make_trials  # noqa: E402  the folder of scripts is not a package


def experiment(**options) -> TemporalXor:
    return TemporalXor(Config(**{"trials": 20, "batch": 16} | options))


def test_trials_are_what_they_should_be():
    config = Config()
    x, labels = make_trials(config, torch.arange(4), None)
    assert labels.tolist() == [0, 0, 1, 1]
    both = torch.zeros(4, 2, dtype=x.time.dtype).scatter(1, x.idx, x.time)
    assert torch.equal(both, torch.where(torch.tensor(CASES) == 1, config.late, config.early).double())
    x, labels = experiment(trials=4000).data["held_out"]
    both = torch.zeros(4000, 2, dtype=x.time.dtype).scatter(1, x.idx, x.time)
    late = both > 0.5 * (config.early + config.late)
    assert torch.equal(late[:, 0] ^ late[:, 1], labels == 1)
    assert labels.double().mean() == 0.5
    off = both - torch.where(late, config.late, config.early)
    assert 0.95 * config.jitter < off.abs().max() <= config.jitter
    assert abs(float(off.mean())) < 4 * config.jitter / 3**0.5 / 8000**0.5  # 4 standard errors


@pytest.mark.parametrize("seed", range(3))
def test_both_adjoints_give_the_same_cost_and_gradient(seed):
    found = {}
    for adjoint in ("single_spike", "event"):
        task = experiment(seed=seed, adjoint=adjoint)
        net = task.network().double()
        with torch.no_grad():
            net.w_in[0].mul_(0.8)  # so that a few neurons are silent
        cost = task.cost(net, task.batch(torch.Generator().manual_seed(0), 0))
        cost.value.backward()
        units = task.sizes(net)
        found[adjoint] = [cost.value.detach(), *(p.grad * units[name] for name, p in net.named_parameters() if name in units)]
    for a, b in zip(found["single_spike"], found["event"], strict=True):
        assert bool(b.any())
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * float(b.abs().max()))


def test_what_weights_lack_is_a_cost():
    task = experiment(hidden=3)
    net = task.network().double()
    unit = task.sizes(net)["w_in.0"]
    with torch.no_grad():
        net.w_in[0].copy_(unit * torch.tensor([[0.6, 0.6], [1.0, -1.0], [2.0, 0.0]]))
        net.w_in[1].fill_(unit)
    assert task.lack(net).item() == pytest.approx(1.2 / 5)


def test_a_tie_and_silence_are_wrong():
    task = experiment(hidden=3)
    net = task.network().double()
    for weight in (0.0, task.sizes(net)["w_in.0"]):  # both silent, both at once
        with torch.no_grad():
            net.w_in[1].fill_(weight)
        assert task.evaluate(net, "validation")["accuracy"] == 0.0


def test_a_short_run_learns(tmp_path):
    for adjoint in ("single_spike", "event"):
        argv = ["--iterations", "3", "--batch", "8", "--trials", "20", "--adjoint", adjoint, "--runs", str(tmp_path / adjoint)]
        assert main(TemporalXor, argv=argv) == 0
        (run,) = (tmp_path / adjoint / "temporal_xor").iterdir()
        assert {path.stem for path in (run / "figures").iterdir()} == {"cases", "answers", "history"}
        held_out = json.loads((run / "summary.json").read_text())["held_out"]
        assert 0.0 <= held_out["accuracy"] <= 1.0


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e13])
def test_steps_do_not_depend_on_the_unit(size):
    """A thousand small ones, in float32, where what is added to 1e13 by itself is lost."""
    x = torch.tensor([0.5, -2.0, 1.0], requires_grad=True)
    p = torch.tensor([0.5, -2.0, 1.0]).mul(size).requires_grad_()
    plain, sized = torch.optim.Adam([x], lr=1e-3, betas=(0.9, 0.99)), SizedAdam({p: size}, lr=1e-3, betas=(0.9, 0.99))
    for _ in range(1000):
        for leaf, unit, optimiser in ((x, 1.0, plain), (p, size, sized)):
            optimiser.zero_grad()
            (leaf / unit - 0.1).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(p.detach() / size, x.detach(), rtol=0, atol=2e-5)
    assert float((x.detach() - torch.tensor([0.5, -2.0, 1.0])).abs().min()) > 0.3


def test_a_closure_is_of_the_parameters_themselves():
    p, seen = torch.tensor([4.0, 2.0], requires_grad=True), []
    optimiser, expected = SizedAdam({p: torch.tensor([4.0, 0.1])}, lr=1e-3), p.detach().clone().requires_grad_()

    def closure():
        optimiser.zero_grad()
        seen.append(p.detach().clone())
        p.square().sum().backward()
        return float(p.detach().square().sum())

    assert optimiser.step(closure) == 20.0
    assert seen[0].tolist() == [4.0, 2.0]
    other = SizedAdam({expected: torch.tensor([4.0, 0.1])}, lr=1e-3)
    expected.square().sum().backward()
    other.step()
    assert torch.equal(p, expected)


def test_times_that_cannot_be(tmp_path, capsys):
    assert main(TemporalXor, argv=["--early", "12", "--runs", str(tmp_path)]) == 1
    assert "early ≤ late" in capsys.readouterr().err
