"""Check a gradient against its judges: backpropagation through time, forward sensitivities, central differences.

    python -m adjsnn.gradcheck --neuron qif
    python -m adjsnn.gradcheck --family lif

checks a built-in random network and prints the table; --convergence shows how the error falls with the step and the tolerance.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from adjsnn.gradcheck.check import gradcheck
from adjsnn.gradcheck.report import GradcheckReport, GradcheckRow

if TYPE_CHECKING:
    from adjsnn.gradcheck.orders import Convergence, convergence
    from adjsnn.gradcheck.threshold import ThresholdBracket, threshold_bracket

__all__ = [
    "Convergence",
    "GradcheckReport",
    "GradcheckRow",
    "ThresholdBracket",
    "convergence",
    "gradcheck",
    "threshold_bracket",
]
# No module here has the name of something that is loaded from it: once loaded it would stand in its place.
_HOME = {
    "Convergence": "orders",
    "convergence": "orders",
    "ThresholdBracket": "threshold",
    "threshold_bracket": "threshold",
}


def __getattr__(name: str) -> Any:  # what few programs need is loaded when first asked for
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value
