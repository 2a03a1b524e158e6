"""Random networks that the tests share."""

import torch
from torch import Tensor

import adjsnn
from adjsnn import GatedState, GatedSynapseNetwork

MEMBRANES = {"nif": adjsnn.NIF(), "lif": adjsnn.LIF(tau_mem=20.0, v_reset=-0.2), "qif": adjsnn.QIF(tau_v=25.0)}
GATES = {"rectangular": adjsnn.RectangularGate(0.2), "raised_cosine": adjsnn.RaisedCosineGate(0.2)}
BIAS = {"NIF": (-0.3, 0.3), "LIF": (1.05, 1.6), "QIF": (0.05, 0.2)}  # ranges in which each membrane spikes
DT = 0.5


def random_network(
    neuron: adjsnn.Membrane, gate: adjsnn.Gate, *, seed: int, n_hidden: int = 10, tau_per_neuron: bool = False
) -> GatedSynapseNetwork:
    """A float64 network with everything learnable, biased so that it spikes."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    net = GatedSynapseNetwork(
        2,
        n_hidden,
        3,
        neuron=neuron,
        gate=gate,
        tau_fast=uniform(3.0, 6.0, n_hidden) if tau_per_neuron else 5.0,
        tau_slow=uniform(15.0, 25.0, n_hidden) if tau_per_neuron else 20.0,
        learn=("weights", "bias", "tau_fast", "tau_slow", *neuron.constants),
        generator=generator,
        dtype=torch.float64,
    )
    with torch.no_grad():
        net.bias.copy_(uniform(*BIAS.get(type(neuron).__name__, (0.05, 0.2)), n_hidden))
        net.w_in.mul_(0.1)
        net.w_rec.mul_(0.4)
    return net


def random_trial(net: GatedSynapseNetwork, *, seed: int, steps: int = 200, batch: int = 3) -> tuple[Tensor, GatedState]:
    """Input and initial state that require gradients."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(steps, batch, 2, generator=generator, dtype=torch.float64)
    scales = (0.5, 0.1, 0.1)
    y0 = (s * torch.rand(batch, net.n_hidden, generator=generator, dtype=torch.float64) for s in scales)
    return u.requires_grad_(), GatedState(*(x.requires_grad_() for x in y0))


def random_loss(sol: adjsnn.GatedSolution, seed: int = 0) -> Tensor:
    """A loss of everything: readout, all states and the charge, with random weights."""
    generator = torch.Generator().manual_seed(seed)
    total = sol.charge.square().mean()
    for x in (sol.readout, sol.v, sol.a_fast, sol.a_slow):
        weight = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
        total = total + (weight * (x + x.square())).mean()
    return total


def gradients(
    net: GatedSynapseNetwork, u: Tensor, y0: GatedState, adjoint: object, loss=random_loss, **options: object
) -> dict[str, Tensor]:
    """Gradients of the loss with respect to all parameters, the input and the initial state."""
    leaves = dict(net.named_parameters()) | {"u": u} | y0._asdict()
    sol = adjsnn.solve(net, u, dt=DT, y0=y0, adjoint=adjoint, **options)
    found = torch.autograd.grad(loss(sol), list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def relative(found: Tensor, expected: Tensor) -> float:
    """‖found - expected‖/‖expected‖."""
    size = float(expected.norm())
    return float((found - expected).norm()) / size if size > 0 else float(found.norm())
