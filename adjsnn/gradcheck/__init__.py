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
    from adjsnn.gradcheck.foreign import judge
    from adjsnn.gradcheck.orders import Convergence, convergence
    from adjsnn.gradcheck.threshold import ThresholdBracket, threshold_bracket
    from adjsnn.gradcheck.verdict import JudgeReport, JudgeRow, SpikeErrors
    from adjsnn.gradcheck.yardstick import AngleReport, AngleRow, angle

__all__ = [
    "AngleReport",
    "AngleRow",
    "Convergence",
    "GradcheckReport",
    "GradcheckRow",
    "JudgeReport",
    "JudgeRow",
    "SpikeErrors",
    "ThresholdBracket",
    "angle",
    "convergence",
    "gradcheck",
    "judge",
    "threshold_bracket",
]
# No module here has the name of something that is loaded from it: once loaded it would stand in its place.
_HOME = {
    "AngleReport": "yardstick",
    "AngleRow": "yardstick",
    "angle": "yardstick",
    "JudgeReport": "verdict",
    "JudgeRow": "verdict",
    "SpikeErrors": "verdict",
    "judge": "foreign",
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


def _angle(*args: Any, **kwargs: Any) -> Any:
    """As `adjsnn.gradcheck.angle`, where the function of the package's name stands for the package."""
    from adjsnn.gradcheck.yardstick import angle  # noqa: PLC0415 - what few programs need

    return angle(*args, **kwargs)


vars(gradcheck)["angle"] = _angle
