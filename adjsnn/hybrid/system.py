"""The interface of a system that a user writes: a flow, guards and jumps, a readout."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from adjsnn.errors import ConfigurationError


class HybridSystem(nn.Module):
    """A system ẏ = f(t, y, u; θ), with jumps y⁺ = r(t, y⁻; θ) where φ(t, y; θ) rises through zero; written by subclassing.

    θ are the registered parameters.

    Only `vector_field` must be given. Every function must be one of its arguments and of the module's attributes alone: the
    backward pass evaluates it again, with the attributes as the forward pass found them, whatever has become of them since
    (tensors changed in place are torch's error). Other tensors that require a gradient are found by BPTT only, and refused
    elsewhere. A function may differentiate inside itself, by torch.func.grad or torch.autograd.grad(..., create_graph=True);
    the latter is slower, and not for ForwardSensitivity. Samples of a batch are separate solutions, each of which may be at
    its own time, so row b of the result may depend on row b of the arguments only.
    """

    def vector_field(
        self, t: Float[Tensor, "B 1"], y: Float[Tensor, "B D"], u: Float[Tensor, "B C"] | None
    ) -> Float[Tensor, "B D"]:
        """dy/dt.

        Args:
            t: time of each sample, (B, 1), ms.
            y: state, (B, D).
            u: input, (B, C), or None where the system is solved without one.

        Returns:
            dy/dt, (B, D), per ms.
        """
        raise NotImplementedError(f"{type(self).__name__}.vector_field")

    def guard(self, t: Float[Tensor, "B 1"], y: Float[Tensor, "B D"]) -> Float[Tensor, "B G"] | None:
        """Functions φ whose upward zero crossings are events, (B, G); None, the default, for a smooth system.

        They are looked at eight times in every step, and more closely where they bend so that they may be above zero between
        two looks; an event is then located on the step itself to rounding. One that turns back more than once between two looks
        can be missed, and wants output times or tolerances that keep steps short. An event ends a step, so guards
        need adaptive steps. Guards that reach zero in the same instant fire one after the other in it. At the start they have
        to be below zero, or on it and falling. One that is not a number is an error that names it. On a GPU every step of a
        system with guards waits for the answer whether one fired.
        """
        del t, y
        return None

    def jump(self, t: Float[Tensor, "B 1"], y: Float[Tensor, "B D"], fired: Bool[Tensor, "B G"]) -> Float[Tensor, "B D"]:
        """State after an event, (B, D), given the state before it and which guard fired, one True in a row of (B, G).

        Rows without a True are ignored. The jump must leave the guard that fired below zero, or on it to rounding: where it
        falls from there it is below, where it does not it fires again after it has been below. It must not raise another guard
        through zero. By default y.
        """
        del t, fired
        return y

    def readout(self, y: Float[Tensor, "R D"]) -> Float[Tensor, "R C"]:
        """What is read from the state: y, (rows, D), to (rows, C_out); y itself by default."""
        return y

    def check_start(self, t: Float[Tensor, "B 1"], y: Float[Tensor, "B D"], u: Float[Tensor, "B C"] | None) -> None:
        """Called once before every solve, with the time, the state and the input that it starts from.

        Raises:
            ConfigurationError: where an override refuses them; by default never.
        """
        del t, y, u

    def initial_state(self, batch: int) -> Float[Tensor, "B D"]:
        """State at the first time for `batch` samples, (B, D).

        Raises:
            ConfigurationError: unless overridden.
        """
        raise ConfigurationError(
            f"{type(self).__name__} without y0 and without an initial_state of its own",
            "a state to start from",
            f"y0=torch.zeros({batch}, D), or overriding initial_state(batch)",
        )
