"""Rows of metrics.csv tell of the trials that were solved, with the network as it was then."""

import csv
import math

import pytest
import torch
from networks import MEMBRANES

import adjsnn
from adjsnn.training import Cost, Experiment, TrainingConfig, main


class _Told(Experiment[TrainingConfig]):
    """A network that learns fast; what its solutions say is noted at once, from a second solve that nobody else sees."""

    method = "euler"
    noted: list[dict[str, float]]

    def network(self):
        net = adjsnn.GatedSynapseNetwork(
            2, 6, 1, neuron=MEMBRANES["lif"], learn=("weights", "bias", "tau_mem", "tau_slow"), generator=self.generator()
        )
        with torch.no_grad():
            net.bias.fill_(1.5)
        return net

    def batch(self, generator, step):
        return torch.randn(80, self.config.batch, 2, generator=generator)

    def solved(self, net, u):
        return adjsnn.solve(net, u, dt=0.5, method=self.method)

    def value(self, sol):
        return (sol.readout - 0.3).square().mean() + 1e-4 * adjsnn.losses.firing_rate(sol).mean()

    def cost(self, net, batch):
        sol, other = self.solved(net, batch), self.solved(net, batch)
        self.noted.append({"speed": self.speed(other), "cost": float(self.value(other).detach())})
        return Cost(self.value(sol), sol)

    def speed(self, sol):
        return sol.stats.min_speed_at_spike

    def after_step(self, net, batch, cost, rate):
        assert cost.sol.stats.min_speed_at_spike == self.noted[-1]["speed"]

    def evaluate(self, net, split):
        with torch.no_grad():
            return {"cost": float(self.value(self.solved(net, self.batch(self.generator(7), 0))))}


class _ToldRK4(_Told):
    method = "rk4"


class _ToldLIF(_Told):
    def network(self):
        return adjsnn.LIFNetwork(
            2, (6,), bias=1.5, n_out=1, learn=("weights", "bias", "tau_mem", "v_th"), generator=self.generator()
        )

    def solved(self, net, u):
        return adjsnn.solve(net, u, dt=0.5, ts=torch.linspace(0.0, 40.0, 9))

    def value(self, sol):
        return super().value(sol) + sol.voltage_integral().square().mean() * 1e-4


@pytest.mark.parametrize(
    ("kind", "averaging"),
    [(_Told, "0"), (_Told, "0.5"), pytest.param(_ToldRK4, "0", marks=pytest.mark.slow), (_ToldLIF, "0.5")],
)
def test_rows_belong_to_the_trials_that_were_solved(kind, averaging, tmp_path):
    noted = kind.noted = []
    options = ["--iterations", "6", "--log-every", "2", "--batch", "3", "--learning-rate", "0.1", "--averaging", averaging]
    assert main(kind, argv=[*options, "--runs", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*/*/metrics.csv")
    with open(path, newline="") as file:
        first, *rows = [{name: float(x) for name, x in row.items()} for row in csv.DictReader(file)]
    assert math.isnan(first["min_speed_at_spike"])
    noted = noted[-6:]  # before them, what the loop solves to have its loops compiled
    assert len({entry["speed"] for entry in noted}) == 6
    for k, row in enumerate(rows):
        steps = noted[2 * k : 2 * k + 2]
        assert row["min_speed_at_spike"] == pytest.approx(steps[-1]["speed"], rel=1e-12)
        assert row["train_cost"] == pytest.approx(sum(entry["cost"] for entry in steps) / 2, rel=1e-6)
