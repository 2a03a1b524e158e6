"""The typed errors of the library.

Every message has three parts: what was seen, what was expected, and what to try.
"""

import sys
import warnings

NOT_THE_USERS = ("adjsnn", "torch", "jaxtyping", "beartype")  # frames that no warning should point to


class AdjsnnError(Exception):
    """Base of all errors raised by adjsnn.

    Args:
        seen: what was found, with the offending value.
        expected: what would have been accepted.
        remedy: what the user can try.

    Attributes:
        sample: which sample of a batch it is about, where that is known.
    """

    sample: int | None = None

    def __init__(self, seen: str, expected: str, remedy: str) -> None:
        super().__init__(seen, expected, remedy)
        self.seen = seen
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.seen}; expected {self.expected}. Try: {self.remedy}."


class ConfigurationError(AdjsnnError, ValueError):
    """An argument, shape, dtype, device or combination of options that cannot be right."""


class NotKeptError(ConfigurationError, AttributeError):
    """A part of a solution that this kind of solve does not keep. Also an AttributeError, so that `hasattr` is False."""


class IntegrationError(AdjsnnError, RuntimeError):
    """The forward solution left the region where it means anything; names sample and time."""


class EventError(AdjsnnError, RuntimeError):
    """A spike or event that cannot be located or differentiated."""


class GradientCheckError(AdjsnnError, AssertionError):
    """A gradient disagrees with its judge by more than the stated tolerance."""


class MissingPackageError(AdjsnnError, ImportError):
    """A package of an extra that is not installed."""

    def __init__(self, package: str | None, extra: str) -> None:
        super().__init__(f"no package {package}", f"those of the extra {extra!r}", f'pip install "adjsnn[{extra}]"')


class StepTooLongWarning(UserWarning):
    """A step moved a neuron through more than one threshold, or a phase backward through its reset.

    The solution is still that of the stated program and its gradient exact, but the program is far from the continuous
    equations there. Turn it into an error with `warnings.simplefilter("error", adjsnn.StepTooLongWarning)`.
    """


class SilentWarning(UserWarning):
    """A loss reads spikes, or events of a HybridSystem, where there were none in any sample: the gradient is exactly zero.

    Training cannot leave such a state by itself. Told in the backward pass, once for each line that asks for it.
    """


class NotFiniteWarning(UserWarning):
    """A gradient with entries that are not finite, of a solution that is, and of a loss whose own derivatives are.

    Gradients of chaotic networks grow with every step backward, until the dtype holds them no longer: infinities, and NaN from
    their differences and their products with zero. A step of an optimiser along such a gradient loses the network. Told in the
    backward pass, by the line that asks for it. No number is changed, so whoever leaves such steps out may ignore it; an error
    by `warnings.simplefilter("error", adjsnn.NotFiniteWarning)`.
    """


class KernelCacheWarning(UserWarning):
    """Compiled loops could not be read from disk or kept there; they were compiled again, and results are not concerned."""


WAKE = (
    "adjsnn.start_from_data(net, x) before training, adjsnn.remedies.wake after each step, or adjsnn.remedies.voltage_gap "
    "added to the loss"
)


def warn_of_silence(seen: str, read: str = "spikes", remedy: str = WAKE) -> None:
    """Tell the line of the user's program that asked for a gradient that there is none, and the remedies.

    Args:
        seen: what did nothing in any sample, and its verb.
        read: what the loss reads.
        remedy: what to try.
    """
    _tell(
        f"{seen} in no sample, and the loss reads these {read}: the gradient through them is exactly zero; expected "
        f"{read} in some samples. Try: {remedy}.",
        SilentWarning,
    )


def warn_of_infinity(seen: str, wider: str | None) -> None:
    """Tell the line of the user's program that asked for a gradient that it is not finite.

    Args:
        seen: what is not finite, and where.
        wider: the name of a dtype that holds more, where there is one.
    """
    dtype = f"dtype={wider}; " if wider else ""
    _tell(
        f"{seen}; expected finite gradients, as the solution and the derivatives of the loss are finite. Try: shorter trials, "
        f"or pieces of one, each from the detached final_state of the one before; weaker recurrent weights; {dtype}"
        "in a system of one's own, slopes that are finite wherever it comes.",
        NotFiniteWarning,
    )


def _tell(text: str, category: type[Warning]) -> None:
    """Warn at the line of the user's program that called the library, directly or through torch."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in NOT_THE_USERS:
        frame = frame.f_back
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(text, category, frame.f_code.co_filename, frame.f_lineno, registry=registry)
