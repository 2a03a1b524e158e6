"""Check a gradient against its judges: backpropagation through time, forward sensitivities, central differences.

    python -m adjsnn.gradcheck --neuron qif
    python -m adjsnn.gradcheck --family lif

checks a built-in random network and prints the table; --convergence shows how the error falls with the step and the tolerance.
"""

from adjsnn.gradcheck.check import gradcheck
from adjsnn.gradcheck.convergence import Convergence, convergence
from adjsnn.gradcheck.report import GradcheckReport, GradcheckRow
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
