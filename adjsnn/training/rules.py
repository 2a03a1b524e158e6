"""Adjoints and learning rules by the names that `--adjoint` and `--angles` take."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import adjsnn
from adjsnn import rules
from adjsnn.errors import ConfigurationError

Adjoint = Literal[
    "default",
    "discrete",
    "continuous",
    "bptt",
    "event",
    "surrogate",
    "rtrl",
    "superspike",
    "superspike_random",
    "superspike_uniform",
    "eprop",
    "eprop_random",
    "feedback_alignment",
    "direct_feedback_alignment",
    "three_factors",
    "three_factors_random",
    "single_spike",
]
# Of the slope of the surrogate, a fast sigmoid, and the seed of random matrices.
Known = Mapping[str, Callable[[float, int], Any]]
BY_NAME: Known = {
    "discrete": lambda slope, seed: adjsnn.DiscreteAdjoint(),
    "continuous": lambda slope, seed: adjsnn.ContinuousAdjoint(),
    "bptt": lambda slope, seed: adjsnn.BPTT(),
    "event": lambda slope, seed: adjsnn.EventAdjoint(),
    "surrogate": lambda slope, seed: rules.SurrogateBPTT(rules.FastSigmoid(slope)),
    "rtrl": lambda slope, seed: rules.RTRL(rules.FastSigmoid(slope)),
    "superspike": lambda slope, seed: rules.SuperSpike(rules.FastSigmoid(slope)),
    "superspike_random": lambda slope, seed: rules.SuperSpike(rules.FastSigmoid(slope), feedback="random", seed=seed),
    "superspike_uniform": lambda slope, seed: rules.SuperSpike(rules.FastSigmoid(slope), feedback="uniform"),
    "eprop": lambda slope, seed: rules.EProp(rules.FastSigmoid(slope)),
    "eprop_random": lambda slope, seed: rules.EProp(rules.FastSigmoid(slope), feedback="random", seed=seed),
    "feedback_alignment": lambda slope, seed: rules.FeedbackAlignment(rules.FastSigmoid(slope), seed=seed),
    "direct_feedback_alignment": lambda slope, seed: rules.DirectFeedbackAlignment(rules.FastSigmoid(slope), seed=seed),
    "three_factors": lambda slope, seed: rules.ThreeFactors(),
    "three_factors_random": lambda slope, seed: rules.ThreeFactors("random", seed=seed),
    "single_spike": lambda slope, seed: rules.SingleSpike(),
}


def adjoint_of(name: str, slope: float, seed: int, known: Known = BY_NAME) -> Any:
    """The adjoint or rule of a name, for `adjsnn.solve(..., adjoint=...)`; None for the solver's own choice.

    Args:
        name: one of those that are known, or "default".
        slope: of a surrogate, 1/voltage.
        seed: of random matrices.
        known: adjoints and rules by their names.

    Raises:
        ConfigurationError: another name.
    """
    if name == "default":
        return None
    if name not in known:
        raise ConfigurationError(f"a learning rule {name!r}", f"one of {', '.join(known)}", "surrogate, or surrogate@100")
    return known[name](slope, seed)


def named(rule: str, slope: float, known: Known = BY_NAME) -> tuple[str, float]:
    """Name and slope of a rule such as `surrogate@100`; `slope` where it gives none.

    Raises:
        ConfigurationError: an unknown name, or a slope that is no positive number.
    """
    name, at, given = rule.partition("@")
    try:
        found = float(given) if at else slope
    except ValueError:
        found = -1.0
    if name not in known or not 0.0 < found < float("inf"):
        raise ConfigurationError(
            f"a learning rule {rule!r}", f"one of {', '.join(known)}, with @ and a slope or without", "surrogate@100"
        )
    return name, found
