"""What the adjoints of all gated methods form from a loss and from their costates."""

from collections.abc import Callable, Iterable

from jaxtyping import Float
from torch import Tensor

from adjsnn.errors import warn_of_silence
from adjsnn.gated.program import GatedProgram, GatedTrajectory


def charge_sources(
    program: GatedProgram, trajectory: GatedTrajectory, start: int, stop: int, c_charge: Tensor
) -> tuple[Tensor, Tensor]:
    """What a loss of Σ|q| adds to the cotangents of the voltages of a block, q = G(v⁺) - G(v) + crossings.

    Returns:
        of the voltages before each step, (steps, B, N), and of the last one, (B, N).
    """
    v, crossings = trajectory.v[start : stop + 1], trajectory.crossings[start:stop]
    level, slope = program.charge_level(v), program.gate_slope(v)
    signed = (level[1:] - level[:-1] + crossings).sign() * c_charge
    before = -slope[:-1] * signed
    before[1:] += slope[1:-1] * signed[:-1]
    return before, slope[-1] * signed[-1]


def outer(left: Float[Tensor, "T B I"], right: Float[Tensor, "T B J"]) -> Float[Tensor, "I J"]:
    """Σ over time and batch of left ⊗ right, as one matrix product; faster with the narrow factor first."""
    left, right = left.flatten(0, 1), right.flatten(0, 1)
    return (right.T @ left).T if right.shape[1] < left.shape[1] else left.T @ right


def tell_silence(crossings: Callable[[], Tensor], gradients: Iterable[Tensor | None]) -> None:
    """Warn where nothing has a gradient and no neuron spiked.

    Args:
        crossings: gives those of every step, or how many there were, (..., B, N).
        gradients: of all that needs one; the smallest are asked first.
    """
    found = sorted((g for g in gradients if g is not None), key=Tensor.numel)
    if found and not any(bool(g.any()) for g in found) and not bool(crossings().any()):
        warn_of_silence("a gated network spiked")


def lost(d_u: Float[Tensor, "T B C"], dt: float, start: int = 0) -> str:
    """Words on where a costate ceased to be finite on its way back, found by the gradient of the input; none where it did not.

    Args:
        d_u: of steps start … start + T - 1.
        dt: ms.
        start: the first of these steps.
    """
    broken = (~d_u.isfinite().all(2)).nonzero()
    if not len(broken):
        return ""
    step, sample = (int(k) for k in broken[broken[:, 0] == broken[-1, 0]][0])
    return (
        f": the costate grew beyond what it holds by t = {(start + step) * dt:g} ms on its way back, first in sample {sample}"
    )
