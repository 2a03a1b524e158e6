"""Which body solves a hybrid system: torch's operations, or compiled loops where a system brings some."""

from typing import Protocol, runtime_checkable

from adjsnn.adjoints import DiscreteAdjoint
from adjsnn.bodies import Ran
from adjsnn.errors import ConfigurationError
from adjsnn.hybrid.problem import HybridProblem
from adjsnn.hybrid.solution import HybridSolution

KERNELS = ("auto", "plain", "fused", "cuda")


class Body(Protocol):
    """Compiled loops of one system."""

    def obstacle(self, problem: HybridProblem, adjoint: DiscreteAdjoint) -> str | None:
        """Why these loops do not cover a solve; None where they do."""
        ...

    def kernel(self, problem: HybridProblem) -> str:
        """Which loops run: "fused" or, on a GPU, "cuda"."""
        ...

    def run(self, problem: HybridProblem, adjoint: DiscreteAdjoint, ran: Ran) -> HybridSolution:
        """Solve the problem; gradients by the discrete adjoint of the steps that were taken."""
        ...


@runtime_checkable
class Compiled(Protocol):
    """A system that brings compiled loops."""

    @property
    def needs_loops(self) -> str | None:
        """Why nothing else can solve the system; None where torch's operations can, too."""
        ...

    def compiled_body(self) -> Body:
        """The loops of this system."""
        ...


def check_kernels(kernels: object) -> None:
    """Raise ConfigurationError for what names no body."""
    if not isinstance(kernels, str) or kernels not in KERNELS:
        raise ConfigurationError(f"kernels={kernels!r}", f"one of {list(KERNELS)}", 'kernels="auto"')


def refuse_fused(kernels: str, why: str) -> None:
    """Raise ConfigurationError where compiled loops were asked for that cannot run."""
    if kernels in ("fused", "cuda"):
        raise ConfigurationError(f'kernels="{kernels}", but {why}', "a solve that compiled loops cover", 'kernels="auto"')


def needs_loops(system: object) -> str | None:
    """Why nothing but compiled loops can solve a system; None where torch's operations can, too."""
    return system.needs_loops if isinstance(system, Compiled) else None


def refuse_plain(system: object, why: str, remedy: str = 'adjoint=None and kernels="auto"') -> None:
    """Raise ConfigurationError where a system needs compiled loops and they do not run."""
    if (needed := needs_loops(system)) is not None:
        raise ConfigurationError(f"{needed}, and {why}", "what they cover", remedy)


def choose(problem: HybridProblem, adjoint: DiscreteAdjoint) -> tuple[Body | None, Ran]:
    """The loops that run, None for torch's operations; and what is said of it."""
    if problem.kernels == "plain":
        refuse_plain(problem.program.system, 'kernels="plain"')
        return None, Ran("plain", 'kernels="plain"')
    system = problem.program.system
    if not isinstance(system, Compiled):
        why = f"{type(system).__name__} is written in Python; adjsnn.Equations are compiled"
    else:
        body = system.compiled_body()
        why = body.obstacle(problem, adjoint)
        if why is None:
            return body, Ran(body.kernel(problem), "equations are compiled")
    refuse_fused(problem.kernels, why)
    refuse_plain(system, why)
    return None, Ran("plain", why)
