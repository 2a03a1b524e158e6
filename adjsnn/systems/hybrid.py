"""The interface of a system that a user writes: a flow, a readout, and the seam for events."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from adjsnn.errors import ConfigurationError


class HybridSystem(nn.Module):
    """A system ẏ = f(t, y, u; θ), written by subclassing; θ are the registered parameters.

    Only `vector_field` must be given. It must be a function of its arguments and of the module's parameters and buffers alone:
    the backward pass evaluates it again. Samples of a batch are separate solutions, each of which may be at its own time, so
    row b of the result may depend on row b of the arguments only.
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
        """Functions whose upward zero crossings are events, (B, G); None, the default, for a smooth system."""
        del t, y
        return None

    def jump(self, t: Float[Tensor, "B 1"], y: Float[Tensor, "B D"], fired: Bool[Tensor, "B G"]) -> Float[Tensor, "B D"]:
        """State after an event, (B, D), given the state before it and which guards fired, (B, G); y by default."""
        del t, fired
        return y

    def readout(self, y: Float[Tensor, "R D"]) -> Float[Tensor, "R C"]:
        """What is read from the state: y, (rows, D), to (rows, C_out); y itself by default."""
        return y

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
