"""The field's learning rules, each a value of `adjoint=` in `adjsnn.solve`; the exact gradient is their yardstick."""

from adjsnn.rules.alignment import DirectFeedbackAlignment, FeedbackAlignment
from adjsnn.rules.eprop import EProp
from adjsnn.rules.rmaxprop import RMaxProp
from adjsnn.rules.rtrl import RTRL
from adjsnn.rules.stated import EVENT_ADJOINT, Stated
from adjsnn.rules.superspike import SuperSpike
from adjsnn.rules.surrogate_bptt import SurrogateBPTT
from adjsnn.rules.surrogates import Arctangent, Boxcar, Exponential, FastSigmoid, RectifiedLinear, Surrogate, Triangle

# What each says of itself, in the order of the docs: `python -m adjsnn.rules` prints it.
CATALOGUE: dict[str, Stated] = {
    "EventAdjoint": EVENT_ADJOINT,
    "SurrogateBPTT": SurrogateBPTT.stated,
    "RTRL": RTRL.stated,
    "SuperSpike": SuperSpike.stated,
    "EProp": EProp.stated,
    "FeedbackAlignment": FeedbackAlignment.stated,
    "DirectFeedbackAlignment": DirectFeedbackAlignment.stated,
}

__all__ = [
    "CATALOGUE",
    "RTRL",
    "Arctangent",
    "Boxcar",
    "DirectFeedbackAlignment",
    "EProp",
    "Exponential",
    "FastSigmoid",
    "FeedbackAlignment",
    "RMaxProp",
    "RectifiedLinear",
    "SuperSpike",
    "Surrogate",
    "SurrogateBPTT",
    "Triangle",
]
