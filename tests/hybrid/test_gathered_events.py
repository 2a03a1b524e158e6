"""Samples with an event wait for those behind them, so that many events are located at once; nothing else changes by it."""

import pytest
import torch

import adjsnn
from adjsnn import IntegrationError
from adjsnn.hybrid.events import Watch

F64 = torch.float64
TS = torch.tensor([0.0, 10.0, 18.0], dtype=F64)
Y0 = torch.linspace(-5.0, 5.0, 16, dtype=F64)[:, None]


class Quadratic(adjsnn.HybridSystem):
    """Quadratic integrate-and-fire neurons, v̇ = v²/20 + a, each sample at its own rate."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.linspace(0.5, 3.0, 16, dtype=F64)[:, None].clone())
        self.rows = slice(None)

    def vector_field(self, t, y, u):
        return y * y / 20.0 + self.a[self.rows]

    def guard(self, t, y):
        return y - 30.0

    def jump(self, t, y, fired):
        return torch.where(fired, -5.0 - 0.0 * y, y)


def solved(system, rows=slice(None), **options):
    system.rows = rows
    return adjsnn.solve(system, None, y0=Y0[rows], ts=TS, method="dopri5", rtol=1e-6, atol=1e-6, **options)


def gradient(system, sol):
    loss = sol.y.square().sum() + sol.event_times.nan_to_num(posinf=0.0).sum()
    return torch.autograd.grad(loss, system.a)[0]


def test_events_are_located_together_and_are_those_of_each_sample_alone(monkeypatch):
    rounds, polish = [], Watch._polish

    def counted(self, wanted, *rest):
        rounds.append(int(wanted.sum()))
        return polish(self, wanted, *rest)

    monkeypatch.setattr(Watch, "_polish", counted)
    system = Quadratic()
    together = solved(system)
    assert sum(rounds) == int((together.event_index >= 0).sum()) > 25
    assert 2 * len(rounds) < sum(rounds)
    of_all = gradient(system, together)
    for b in (0, 7, 15):
        alone = solved(system, slice(b, b + 1))
        events = alone.event_times.shape[1]
        assert torch.equal(alone.event_index[0], together.event_index[b, :events])
        assert (together.event_index[b, events:] < 0).all()
        assert (alone.stats.accepted[0], alone.stats.rejected[0]) == (together.stats.accepted[b], together.stats.rejected[b])
        torch.testing.assert_close(alone.event_times[0], together.event_times[b, :events], rtol=1e-13, atol=0.0)
        torch.testing.assert_close(alone.y[:, 0], together.y[:, b], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(gradient(system, alone)[b], of_all[b], rtol=1e-10, atol=0.0)


def test_who_waits_loses_none_of_its_attempts():
    """The limit counts the steps that a sample tries, not how often the others do meanwhile."""
    stats = solved(Quadratic()).stats
    tries = stats.accepted + stats.rejected
    most, sample = int(tries.max()), int(tries.argmax())
    solved(Quadratic(), max_steps=most)
    with pytest.raises(IntegrationError, match=rf"sample {sample} .* max_steps={most - 1} attempts"):
        solved(Quadratic(), max_steps=most - 1)


class Thrown(adjsnn.HybridSystem):
    """A ball thrown up from -1 and reflected at 0, where `seen` is a guard."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def vector_field(self, t, y, u):
        return torch.stack([y[:, 1], -1.0 + 0.0 * y[:, 0]], 1)

    def guard(self, t, y):
        return self.seen(y[:, :1])

    def jump(self, t, y, fired):
        return torch.where(fired, torch.stack([y[:, 0] - 1.0, y[:, 1]], 1), y)


@pytest.mark.parametrize(
    ("seen", "most"),
    [(lambda x: x, 1), (lambda x: x + x**3, 3), (lambda x: torch.tanh(50.0 * x), 3), (lambda x: (1e3 * x).clamp(-1.0, 1.0), 3)],
    ids=["a parabola", "curved", "steep", "cut off"],
)
def test_a_crossing_takes_few_evaluations_of_the_step(seen, most, monkeypatch):
    """Where it is a parabola along the step, one: what it tells is where it is."""
    reached, reach = [], Watch._reach
    monkeypatch.setattr(Watch, "_reach", lambda self, *given: (reached.append(1), reach(self, *given))[1])
    y0 = torch.tensor([[-1.0, 2.0]], dtype=F64)
    sol = adjsnn.solve(Thrown(seen), None, y0=y0, ts=torch.tensor([0.0, 1.0], dtype=F64), method="dopri5")
    assert 1 <= len(reached) <= most
    torch.testing.assert_close(sol.event_times[0], torch.tensor([2.0 - 2.0**0.5], dtype=F64), rtol=1e-14, atol=0.0)
