"""Feedback alignment and direct feedback alignment, equation (5.5)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from adjsnn.checks import Count, Number, count, flag, kind, positive
from adjsnn.errors import ConfigurationError
from adjsnn.lif.clocked import RESETS, Feedback, Reset
from adjsnn.lif.clocked_problem import Paths, solve_clocked
from adjsnn.lif.clocked_solution import ClockedSolution
from adjsnn.lif.problem import LIFProblem
from adjsnn.rules.matrices import fixed, gaussian, listed
from adjsnn.rules.stated import LAYER_ERROR, OUTPUT_ERROR, OWN, Stated
from adjsnn.rules.surrogates import FastSigmoid, Surrogate

Recurrent = Literal["exact", "random", "cut"]
RECURRENT = ("exact", "random", "cut")


@dataclass(frozen=True, eq=False)
class _ByMatrices(ABC):
    """Backpropagation with a surrogate, where errors go back through fixed matrices."""

    surrogate: Surrogate = field(default_factory=FastSigmoid)
    recurrent: Recurrent = "random"
    seed: Count = 0
    scale: Number = 1.0
    matrices: Sequence[Tensor] | None = None
    reset: Reset = "to"
    through_reset: bool = False

    clocked = adaptive = True  # solves in steps of dt, and layers that adapt

    def __post_init__(self) -> None:
        kind("surrogate", self.surrogate, Surrogate)
        for name, known in (("reset", RESETS), ("recurrent", RECURRENT)):
            if (value := getattr(self, name)) not in known:
                raise ConfigurationError(f"{name}={value!r}", f"one of {list(known)}", f'{name}="{known[0]}"')
        object.__setattr__(self, "seed", count("seed", self.seed, 0))
        object.__setattr__(self, "scale", positive("scale", self.scale, "a positive number", "scale=1.0"))
        object.__setattr__(self, "through_reset", flag("through_reset", self.through_reset))
        object.__setattr__(self, "matrices", listed(self.matrices))

    def run_lif(self, problem: LIFProblem) -> ClockedSolution:
        """Solve on the clock; gradients are the rule's."""
        layers, like = problem.layers, problem.layers[0].w_in
        own = self.shapes(problem)
        loops = [tuple(x.w_rec.shape) for x in layers if x.w_rec is not None] if self.recurrent == "random" else []
        found = self._found([*own, *loops], like)
        rest = iter(found[len(own) :])
        recurrent: list[Tensor | None] = [None] * len(layers)
        for k, layer in enumerate(layers):
            if layer.w_rec is not None and self.recurrent != "exact":
                recurrent[k] = next(rest) if self.recurrent == "random" else torch.zeros_like(layer.w_rec)
        paths = self.paths(problem, found[: len(own)], recurrent)
        return solve_clocked(problem, self.surrogate, self.reset, self.through_reset, paths)

    @abstractmethod
    def shapes(self, problem: LIFProblem) -> list[tuple[int, ...]]:
        """Of the matrices but those for recurrent weights, (to, from)."""

    @abstractmethod
    def paths(self, problem: LIFProblem, matrices: list[Tensor], recurrent: list[Tensor | None]) -> Paths:
        """How errors go back, given these, and what takes the place of the recurrent weights of each layer."""

    def _found(self, shapes: list[tuple[int, ...]], like: Tensor) -> list[Tensor]:
        """The matrices: the user's, or Gaussian ones, the same for a seed in any dtype."""
        return fixed(self.matrices, shapes, int(self.seed), gaussian(self.scale), like)


@dataclass(frozen=True, eq=False)
class FeedbackAlignment(_ByMatrices):
    """Backpropagation with a surrogate, through fixed random matrices instead of the weights (5.5).

    On the way back every W between layers, and w_out, is a matrix B of its shape that never changes. The gradient of W itself
    is taken as ever, from the spikes before it and the error after it. A synapse must know no weight but those of B.
    Lillicrap et al. 2016.

    Args:
        surrogate: σ′ (5.2).
        recurrent: what takes the place of W_rec: "random", "exact", W_rec itself, or "cut", nothing.
        seed: of the matrices, which are Gaussian; the same at every solve.
        scale: their standard deviation is scale/√N, N the neurons or channels that the error comes from.
        matrices: instead of random ones, each of the shape of what it replaces: one for w_in of each layer but the first, one
            for w_out where there is a readout, and with recurrent="random" one for w_rec of each recurrent layer.
        reset: as of `SurrogateBPTT`.
        through_reset: likewise.

    Raises:
        ConfigurationError: another kind of value; in a solve, matrices that do not fit the network.
    """

    stated: ClassVar[Stated] = Stated(
        "what surrogates drop, and the weights on the way back: fixed random matrices (5.5)",
        (OWN, LAYER_ERROR),
        "every step of every neuron, B T N",
        "B T (N + W)",
    )

    def shapes(self, problem: LIFProblem) -> list[tuple[int, ...]]:
        """As of the base."""
        between = [tuple(layer.w_in.shape) for layer in problem.layers[1:]]
        return between if problem.readout is None else [*between, tuple(problem.readout.w_out.shape)]

    def paths(self, problem: LIFProblem, matrices: list[Tensor], recurrent: list[Tensor | None]) -> Paths:
        """As of the base."""
        between = [None, *matrices[: len(problem.layers) - 1]]
        layers = [Feedback(*pair) for pair in zip(between, recurrent, strict=True)]
        return Paths(layers, None if problem.readout is None else matrices[-1])


@dataclass(frozen=True, eq=False)
class DirectFeedbackAlignment(_ByMatrices):
    """The error of the output goes straight to every hidden layer, through a fixed random matrix of its own (5.5).

    The output is the readout where there is one, else the last layer, whose error is that of the currents into its neurons.
    Nothing goes back from layer to layer: within a layer errors go back in time, by its neurons' own dynamics and, if asked
    for, its recurrent weights. Nøkland 2016.

    Args:
        surrogate: σ′ (5.2).
        recurrent: how errors go back within a layer: "cut", not through W_rec, "exact", through it, or "random".
        seed: of the matrices, which are Gaussian; the same at every solve.
        scale: their standard deviation is scale/√N, N the size of the output.
        matrices: instead of random ones, (N_out, N_l): one for each hidden layer, with a readout for every layer, and with
            recurrent="random" then one (N_l, N_l) for each recurrent layer.
        reset: as of `SurrogateBPTT`.
        through_reset: likewise.

    Raises:
        ConfigurationError: another kind of value; in a solve, matrices that do not fit the network.
    """

    recurrent: Recurrent = "cut"

    stated: ClassVar[Stated] = Stated(
        "that and the way through the layers between (5.5)",
        (OWN, OUTPUT_ERROR),
        "every step of every neuron, B T N",
        "B T (N + W)",
    )

    def shapes(self, problem: LIFProblem) -> list[tuple[int, ...]]:
        """As of the base."""
        layers, readout = problem.layers, problem.readout
        n_out = len(layers[-1].w_in) if readout is None else len(readout.w_out)
        return [(n_out, len(layer.w_in)) for layer in (layers[:-1] if readout is None else layers)]

    def paths(self, problem: LIFProblem, matrices: list[Tensor], recurrent: list[Tensor | None]) -> Paths:
        """As of the base."""
        between = [None, *(torch.zeros_like(layer.w_in) for layer in problem.layers[1:])]
        layers = [Feedback(*pair) for pair in zip(between, recurrent, strict=True)]
        readout = problem.readout
        return Paths(layers, None if readout is None else torch.zeros_like(readout.w_out), matrices)
