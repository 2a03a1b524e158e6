"""The field's learning rules, each a value of `adjoint=` in `adjsnn.solve`; the exact gradient is their yardstick."""

from adjsnn.rules.alignment import DirectFeedbackAlignment, FeedbackAlignment
from adjsnn.rules.eprop import EProp
from adjsnn.rules.rtrl import RTRL
from adjsnn.rules.surrogate_bptt import SurrogateBPTT
from adjsnn.rules.surrogates import Arctangent, Boxcar, Exponential, FastSigmoid, RectifiedLinear, Surrogate, Triangle

__all__ = [
    "RTRL",
    "Arctangent",
    "Boxcar",
    "DirectFeedbackAlignment",
    "EProp",
    "Exponential",
    "FastSigmoid",
    "FeedbackAlignment",
    "RectifiedLinear",
    "Surrogate",
    "SurrogateBPTT",
    "Triangle",
]
