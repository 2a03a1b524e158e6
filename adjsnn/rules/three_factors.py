"""Three factors: the exact gradient of a gated network without the ways of its error that no synapse knows, equation (5.10)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NoReturn

import torch
from torch import Tensor

from adjsnn.checks import Count, Number, count, positive
from adjsnn.errors import ConfigurationError
from adjsnn.gated.autograd import attach, exact
from adjsnn.gated.engine import Engine, Sweep
from adjsnn.gated.euler import GatedEuler
from adjsnn.gated.euler_adjoint import EulerSweep
from adjsnn.gated.network import GatedTensors
from adjsnn.gated.problem import GatedProblem
from adjsnn.gated.runge_kutta import GatedRungeKutta
from adjsnn.gated.runge_kutta_adjoint import RungeKuttaSweep
from adjsnn.gated.solution import GatedSolution
from adjsnn.rules.matrices import fixed, gaussian, listed
from adjsnn.rules.stated import OUTPUT_ERROR, OWN, Stated

WAYS = {"recurrent": ("cut", "random", "own"), "readout": ("exact", "random")}


@dataclass(frozen=True, eq=False)
class ThreeFactors:
    """Presynaptic activity times postsynaptic gain times an error of the postsynaptic neuron, truncated (5.10).

    For gated networks, by Euler, Heun and RK4 steps. The gradient (1.10) of a weight is already such a product, a_f of the one
    neuron, ∂_I f and p_v of the other; what a synapse cannot know is how p_v comes about, through the weights of all others.
    Here it comes about otherwise. Only the costate changes, states are the network's own. After Huh and Sejnowski 2018.

    Args:
        recurrent: what takes the place of W_rec in the costate equation (1.8). "cut", nothing: a neuron does not hear what its
            spikes do to any neuron. "own", the diagonal of W_rec: it hears what they do to itself through its synapse onto
            itself, which is "cut" where that has no weight. "random", a fixed Gaussian matrix.
        readout: how the error of the readout comes to the neurons: "exact", through W_out, or "random".
        seed: of the matrices; they are the same at every solve.
        scale: their standard deviation is scale/√N, N the neurons or channels that the error comes from.
        matrices: instead of random ones: with recurrent="random" one for W_rec, (N, N), then with readout="random" one for
            W_out, (C_out, N).

    Raises:
        ConfigurationError: another kind of value; in a solve, matrices that do not fit the network, a stream of inputs, or a
            network that has no gated synapses.
    """

    recurrent: Literal["cut", "random", "own"] = "cut"
    readout: Literal["exact", "random"] = "exact"
    seed: Count = 0
    scale: Number = 1.0
    matrices: Sequence[Tensor] | None = None

    clocked = True  # takes dt, so that a LIF network is refused for what it is
    stated: ClassVar[Stated] = Stated(
        "of gated networks, the error's way through W_rec: cut, random, or a neuron's onto itself alone (5.10)",
        (OWN, OUTPUT_ERROR),
        "every step of every neuron, B T N",
        "B T (N + W)",
    )

    def __post_init__(self) -> None:
        for name, known in WAYS.items():
            if (value := getattr(self, name)) not in known:
                raise ConfigurationError(f"{name}={value!r}", f"one of {list(known)}", f'{name}="{known[0]}"')
        object.__setattr__(self, "seed", count("seed", self.seed, 0))
        object.__setattr__(self, "scale", positive("scale", self.scale, "a positive number", "scale=1.0"))
        object.__setattr__(self, "matrices", listed(self.matrices))

    def run_gated(self, problem: GatedProblem) -> GatedSolution:
        """Solve; gradients are the rule's."""
        w_rec, w_out = problem.tensors.w_rec, problem.tensors.w_out
        replaced = [w for w, way in ((w_rec, self.recurrent), (w_out, self.readout)) if way == "random"]
        shapes = [tuple(w.shape) for w in replaced]
        found = fixed(self.matrices, shapes, int(self.seed), gaussian(self.scale), w_rec)

        def start(
            engine: Engine,
            tensors: GatedTensors,
            shape: tuple[int, int, int],
            wanted: frozenset[str],
            last: Sequence[Tensor | None],
        ) -> Sweep:
            matrices = iter(found)
            back_rec, back_out = torch.zeros_like(tensors.w_rec), tensors.w_out
            if self.recurrent != "cut":
                back_rec = next(matrices) if self.recurrent == "random" else tensors.w_rec.diagonal().diag()
            if self.readout == "random":
                back_out = next(matrices)
            return _sweep(engine, tensors, (back_rec, back_out), shape, wanted, last)

        return attach(problem, start)

    def run_lif(self, problem: object) -> NoReturn:
        """Refused.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "ThreeFactors for a LIF network, whose synapses have no gate",
            "a GatedSynapseNetwork",
            "adjsnn.rules.EProp(), which truncates the same way for one layer, or FeedbackAlignment(recurrent='cut')",
        )

    def run_hybrid(self, problem: object) -> NoReturn:
        """Refused.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "ThreeFactors for a HybridSystem, which does not say what its recurrent weights are",
            "a GatedSynapseNetwork itself",
            "adjsnn.solve(net, u, dt=..., adjoint=ThreeFactors()), or adjoint=adjsnn.DiscreteAdjoint()",
        )


def _sweep(
    engine: Engine,
    tensors: GatedTensors,
    back: tuple[Tensor, Tensor],
    shape: tuple[int, int, int],
    wanted: frozenset[str],
    last: Sequence[Tensor | None],
) -> Sweep:
    """The exact sweep with other matrices in place of w_rec and w_out where the costate goes through them, and only there.

    Runge–Kutta sweeps compute stages from the weights again, and compiled loops the gradients of τ from W_rec a_f and W_out a_s
    as they were: there the plain sweeps run, which tell the two uses apart.
    """
    program, replaced = engine.program, tensors._replace(w_rec=back[0], w_out=back[1])
    if isinstance(program, GatedRungeKutta):
        return RungeKuttaSweep(program, tensors, shape, wanted, last, back=back)
    if isinstance(program, GatedEuler) and not wanted.isdisjoint(("tau_fast", "tau_slow")):
        return EulerSweep(program, replaced, shape, wanted, last)
    return exact(engine, replaced, shape, wanted, last)
