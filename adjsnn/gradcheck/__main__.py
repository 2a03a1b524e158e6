"""The command `python -m adjsnn.gradcheck`: check the gradients of a built-in random network, or show how errors fall."""

import argparse
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from adjsnn.adjoints import DiscreteAdjoint
from adjsnn.errors import AdjsnnError
from adjsnn.gated.gates import RaisedCosineGate, RectangularGate
from adjsnn.gated.membranes import LIF, NIF, QIF
from adjsnn.gated.network import GatedState, GatedSynapseNetwork
from adjsnn.gated.solution import GatedSolution
from adjsnn.gradcheck import convergence, gradcheck
from adjsnn.gradcheck.built_in import LeakyNetwork, initial_states, lif_problem
from adjsnn.gradcheck.orders import Convergence, picture
from adjsnn.hybrid.continuous import ContinuousAdjoint
from adjsnn.hybrid.solution import HybridSolution
from adjsnn.lif.solution import LIFSolution


def built_in(
    neuron: str, gate: str, n_hidden: int, steps: int, batch: int, seed: int
) -> tuple[GatedSynapseNetwork, Tensor, GatedState]:
    """A random network that spikes, its input, and a random initial state, all float64: what the command checks."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    membrane = {"nif": NIF(), "lif": LIF(tau_mem=20.0, v_reset=-0.2), "qif": QIF(tau_v=25.0)}[neuron]
    shape = {"raised_cosine": RaisedCosineGate(0.2), "rectangular": RectangularGate(0.2)}[gate]
    net = GatedSynapseNetwork(
        2, n_hidden, 2, neuron=membrane, gate=shape, dtype=torch.float64, generator=generator,
        learn=("weights", "bias", "tau_fast", "tau_slow", *membrane.constants),
    )  # fmt: skip
    low, high = {"nif": (-0.3, 0.3), "lif": (1.05, 1.6), "qif": (0.05, 0.2)}[neuron]
    with torch.no_grad():
        net.bias.copy_(low + (high - low) * random(n_hidden))
        net.w_in.mul_(0.1)
        net.w_rec.mul_(0.4)
    u = torch.randn(steps, batch, 2, generator=generator, dtype=torch.float64)
    y0 = GatedState(0.5 * random(batch, n_hidden), 0.1 * random(batch, n_hidden), 0.1 * random(batch, n_hidden))
    return net, u, y0


def convergences(seed: int) -> list[Convergence]:
    """Errors of rk4 and dopri5 with the discrete and the continuous adjoint, on a leaky network of 6 units over 4 τ."""
    system, ts = LeakyNetwork(6, seed=seed), torch.linspace(0.0, 40.0, 9, dtype=torch.float64)

    def loss(sol: HybridSolution) -> Tensor:
        return sol.y.square().mean() + sol.y[-1].sum() * 0.1

    return [
        convergence(system, None, loss, adjoint=adjoint, ts=ts, method=method, y0=initial_states(3, 6, seed))
        for method in ("rk4", "dopri5")
        for adjoint in (DiscreteAdjoint(), ContinuousAdjoint(method=method))
    ]


def main(argv: Sequence[str] | None = None, prog: str = "python -m adjsnn.gradcheck") -> int:
    """The command, under the name `prog`; returns the exit status: 1 if a gradient disagrees."""
    parser = argparse.ArgumentParser(prog=prog, description="Check adjoint gradients against independent judges.")
    parser.add_argument("--family", choices=("gated", "lif"), default="gated", help="gated synapses, or LIF layers with jumps")
    parser.add_argument("--neuron", choices=("nif", "lif", "qif"), default="qif", help="of the gated family")
    parser.add_argument("--gate", choices=("raised_cosine", "rectangular"), default="raised_cosine")
    parser.add_argument("--hidden", type=int, default=12, help="number of neurons")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--dt", type=float, default=0.5, help="step, ms")
    parser.add_argument("--t-end", type=float, default=60.0, help="length of a trial of the lif family, ms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--convergence", action="store_true", help="errors against step and tolerance, on a smooth network")
    parser.add_argument("--picture", metavar="FILE", help="with --convergence: save a log–log picture; needs matplotlib")
    options = parser.parse_args(argv)
    if options.picture and not options.convergence:
        parser.error("--picture goes with --convergence")
    if options.convergence:
        reports = convergences(options.seed)
        print("leaky network of 6 units, tau 10 ms, 40 ms, float64; reference dopri5 at 1e-12")
        print("\n\n".join(str(one) for one in reports))
        if options.picture:
            picture(reports, options.picture)
        return 0
    try:
        (check_lif if options.family == "lif" else check_gated)(options)
    except AdjsnnError as error:
        print(error, file=sys.stderr)
        return 1
    print("the adjoint agrees with every judge")
    return 0


def check_gated(options: argparse.Namespace) -> None:
    """Check a gated network by Euler steps; prints the table, raises AdjsnnError."""
    net, u, y0 = built_in(options.neuron, options.gate, options.hidden, options.steps, options.batch, options.seed)

    def loss(sol: GatedSolution) -> Tensor:
        return sol.readout.square().mean() + sol.v.mean() * 0.1 + sol.charge.abs().sum() * 1e-3

    print(f"{options.neuron} network of {options.hidden} neurons, {options.steps} steps of {options.dt:g} ms, float64")
    gradcheck(net, u, loss, dt=options.dt, y0=y0, seed=options.seed)


def check_lif(options: argparse.Namespace) -> None:
    """Check a LIF network of everything; prints the table, raises AdjsnnError."""
    lif, x = lif_problem(options.hidden, options.batch, options.t_end, options.seed)
    t_end = options.t_end

    def loss(sol: LIFSolution) -> Tensor:
        late = sum((sol.spike_times(k).square().mean() / t_end**2 for k in range(2)), sol.v[0].mean() * 0.1)
        return late + sol.v[1].square().mean() + sol.i[1].mean()

    print(f"LIF layers of {options.hidden} recurrent and 3 neurons, {t_end:g} ms, event-exact, float64")
    gradcheck(lif, x, loss, t_end=t_end, ts=[0.3 * t_end, 0.6 * t_end, t_end], seed=options.seed)


if __name__ == "__main__":
    sys.exit(main())
