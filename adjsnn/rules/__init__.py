"""The field's learning rules; the exact gradient is their yardstick.

Most are values of `adjoint=` in `adjsnn.solve`. `Reservoir`, `Evolution` and `Converted` find no gradient of what spikes: they
train the same networks themselves.
"""

from adjsnn.rules.alignment import DirectFeedbackAlignment, FeedbackAlignment
from adjsnn.rules.converted import Converted
from adjsnn.rules.eprop import EProp
from adjsnn.rules.escape_noise import DrawnSolution, EscapeNoise, score_function
from adjsnn.rules.evolution import Evolution
from adjsnn.rules.local_errors import LocalErrors
from adjsnn.rules.reservoir import Reservoir
from adjsnn.rules.rmaxprop import RMaxProp
from adjsnn.rules.rtrl import RTRL
from adjsnn.rules.single_spike import SingleSpike
from adjsnn.rules.stated import EVENT_ADJOINT, Stated
from adjsnn.rules.superspike import SuperSpike
from adjsnn.rules.surrogate_bptt import SurrogateBPTT
from adjsnn.rules.surrogates import Arctangent, Boxcar, Exponential, FastSigmoid, RectifiedLinear, Surrogate, Triangle
from adjsnn.rules.three_factors import ThreeFactors

# What each says of itself, in the order of the docs: `python -m adjsnn.rules` prints it.
CATALOGUE: dict[str, Stated] = {
    "EventAdjoint": EVENT_ADJOINT,
    "SurrogateBPTT": SurrogateBPTT.stated,
    "RTRL": RTRL.stated,
    "EProp": EProp.stated,
    "SuperSpike": SuperSpike.stated,
    "FeedbackAlignment": FeedbackAlignment.stated,
    "DirectFeedbackAlignment": DirectFeedbackAlignment.stated,
    "LocalErrors": LocalErrors.stated,
    "SingleSpike": SingleSpike.stated,
    "EscapeNoise": EscapeNoise.stated,
    "ThreeFactors": ThreeFactors.stated,
    "Reservoir": Reservoir.stated,
    "Evolution": Evolution.stated,
    "Converted": Converted.stated,
}

__all__ = [
    "CATALOGUE",
    "RTRL",
    "Arctangent",
    "Boxcar",
    "Converted",
    "DirectFeedbackAlignment",
    "DrawnSolution",
    "EProp",
    "EscapeNoise",
    "Evolution",
    "Exponential",
    "FastSigmoid",
    "FeedbackAlignment",
    "LocalErrors",
    "RMaxProp",
    "RectifiedLinear",
    "Reservoir",
    "SingleSpike",
    "SuperSpike",
    "Surrogate",
    "SurrogateBPTT",
    "ThreeFactors",
    "Triangle",
    "score_function",
]
