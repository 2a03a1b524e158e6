"""The field's learning rules, each a value of `adjoint=` in `adjsnn.solve`; the exact gradient is their yardstick."""

from adjsnn.rules.surrogate_bptt import SurrogateBPTT
from adjsnn.rules.surrogates import Arctangent, Boxcar, Exponential, FastSigmoid, RectifiedLinear, Surrogate, Triangle

__all__ = ["Arctangent", "Boxcar", "Exponential", "FastSigmoid", "RectifiedLinear", "Surrogate", "SurrogateBPTT", "Triangle"]
