"""Local errors: each layer has a fixed random readout and learns from the error of that alone, equation (5.6)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from adjsnn.checks import Count, Number, count, flag, kind, positive
from adjsnn.errors import ConfigurationError
from adjsnn.lif.clocked import RESETS, Feedback, Reset
from adjsnn.lif.clocked_problem import Paths, solve_clocked
from adjsnn.lif.clocked_solution import ClockedSolution
from adjsnn.lif.problem import LIFProblem
from adjsnn.rules.matrices import fixed, listed
from adjsnn.rules.stated import LAYER_ERROR, OWN, Stated
from adjsnn.rules.surrogates import FastSigmoid, Surrogate


@dataclass(frozen=True, eq=False)
class LocalErrors:
    """Each layer is read by a fixed random matrix, and learns from the error of what is read there (5.6).

    `sol.local_readout(l)` is y = G S of layer l, of its spikes as they are, not filtered; `losses.local_errors` is a loss of
    those of all layers. An error stays in its layer: it goes back in time by the neurons' own dynamics, which are traces at the
    synapses, and to no layer below. So a loss of the network's output reaches the last layer alone (and w_out). Of DECOLLE,
    Kaiser, Mostafa and Neftci 2020, who take a step of the optimiser at every step of time; here it is one gradient for all.

    Args:
        surrogate: σ′ (5.2).
        classes: C, the channels of each local readout; default those of `matrices`, else of the network's readout, or without
            one the neurons of its last layer.
        seed: of the matrices; the same at every solve.
        scale: their entries are uniform in ±scale/√N, N the neurons of the layer.
        matrices: instead of random ones, G of each layer, (C, N_l).
        recurrent: how errors go back through W_rec within a layer: "cut", not at all, or "exact", through it.
        reset: as of `SurrogateBPTT`.
        through_reset: likewise.

    Raises:
        ConfigurationError: another kind of value; in a solve, matrices that do not fit the network.
    """

    surrogate: Surrogate = field(default_factory=FastSigmoid)
    classes: Count | None = None
    seed: Count = 0
    scale: Number = 0.5
    matrices: Sequence[Tensor] | None = None
    recurrent: Literal["cut", "exact"] = "cut"
    reset: Reset = "to"
    through_reset: bool = False

    clocked = adaptive = True  # solves in steps of dt, and layers that adapt
    stated: ClassVar[Stated] = Stated(
        "what surrogates drop, and the errors of all other layers: each has a loss of its own (5.6)",
        (OWN, LAYER_ERROR),
        "every step of every neuron, B T N",
        "B T (N + W)",
    )

    def __post_init__(self) -> None:
        kind("surrogate", self.surrogate, Surrogate)
        for name, known in (("reset", RESETS), ("recurrent", ("cut", "exact"))):
            if (value := getattr(self, name)) not in known:
                raise ConfigurationError(f"{name}={value!r}", f"one of {list(known)}", f'{name}="{known[0]}"')
        if self.classes is not None:
            object.__setattr__(self, "classes", count("classes", self.classes))
        object.__setattr__(self, "seed", count("seed", self.seed, 0))
        object.__setattr__(self, "scale", positive("scale", self.scale, "a positive number", "scale=0.5"))
        object.__setattr__(self, "through_reset", flag("through_reset", self.through_reset))
        object.__setattr__(self, "matrices", listed(self.matrices))

    def run_lif(self, problem: LIFProblem) -> ClockedSolution:
        """Solve on the clock; gradients are the rule's."""
        layers, readout = problem.layers, problem.readout
        output = layers[-1].w_in if readout is None else readout.w_out
        if self.classes is not None:
            classes = int(self.classes)
        else:
            classes = max(len(x) if x.dim() == 2 else 0 for x in self.matrices or (output,))

        def draw(shape: tuple[int, ...], **options: Any) -> Tensor:
            return (2.0 * torch.rand(shape, **options) - 1.0) * (float(self.scale) / shape[1] ** 0.5)

        shapes = [(classes, len(layer.w_in)) for layer in layers]
        local = fixed(self.matrices, shapes, int(self.seed), draw, layers[0].w_in.detach())
        cut = self.recurrent == "cut"
        paths = [
            Feedback(
                None if k == 0 else torch.zeros_like(layer.w_in),
                torch.zeros_like(layer.w_rec) if cut and layer.w_rec is not None else None,
            )
            for k, layer in enumerate(layers)
        ]
        sol = solve_clocked(problem, self.surrogate, self.reset, self.through_reset, Paths(paths))
        return replace(sol, _local=local)
