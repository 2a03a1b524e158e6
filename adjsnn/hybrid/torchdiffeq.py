"""Smooth systems through torchdiffeq, behind the same arguments: a second opinion on every solution and gradient."""

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

from adjsnn.errors import ConfigurationError, IntegrationError
from adjsnn.hybrid.steps import HybridProgram

PREFIX = "torchdiffeq:"


def solve_by_torchdiffeq(
    program: HybridProgram,
    y0: Tensor,
    u: Tensor | None,
    method: str,
    leaves: tuple[Tensor, ...] | None = None,
) -> Tensor:
    """States at the output times, (T+1, B, D), by torchdiffeq's odeint, or its odeint_adjoint where `leaves` are given.

    Where inputs are held, every interval is a call of its own, so that no step runs across an edge.

    Args:
        program: system, output times and tolerances; its tableau is not used.
        y0: (B, D).
        u: held inputs (T, B, C) or None.
        method: torchdiffeq's name of the method.
        leaves: what odeint_adjoint differentiates by.

    Raises:
        ConfigurationError: torchdiffeq does not know the method.
        IntegrationError: torchdiffeq gave up.
    """
    import torchdiffeq  # noqa: PLC0415 - it loads scipy

    if any(unpack_dual(x).tangent is not None for x in (y0, *program.system.parameters(), *(() if u is None else (u,)))):
        raise ConfigurationError(
            "forward-mode differentiation through torchdiffeq", "reverse mode", "a method of this library with adjoint=BPTT()"
        )
    options = {"method": method, "rtol": program.rtol, "atol": program.atol}
    ts = program.ts.to(y0.dtype)
    spans = [(ts, None)] if u is None else [(ts[n : n + 2], u[n]) for n in range(len(u))]
    states = [y0.unsqueeze(0)]
    for span, held in spans:
        field = _Field(program, held)
        try:
            if leaves is not None:
                extra = () if held is None or not held.requires_grad else (held,)
                part = torchdiffeq.odeint_adjoint(field, states[-1][-1], span, adjoint_params=(*leaves, *extra), **options)
            else:
                part = torchdiffeq.odeint(field, states[-1][-1], span, **options)
        except ValueError as error:
            raise ConfigurationError(
                f'method="{PREFIX}{method}", to which torchdiffeq says: {error}', "a method that it has", "torchdiffeq:dopri5"
            ) from error
        except AssertionError as error:
            raise IntegrationError(
                f"torchdiffeq's {method} gave up between t = {float(span[0]):g} and {float(span[-1]):g} ms: {error}",
                "a solution that can be followed to this tolerance",
                "a looser tolerance, or one of this library's methods, which name the sample",
            ) from error
        states.append(part[1:])  # pyright: ignore[reportIndexIssue, reportArgumentType, reportCallIssue]
    return torch.cat(states)


class _Field(nn.Module):
    """f(t, y) with a scalar time, as torchdiffeq calls it."""

    def __init__(self, program: HybridProgram, held: Tensor | None) -> None:
        super().__init__()
        self.program, self.held = program, held

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.program.field(t.to(y.dtype).expand(len(y), 1), y, self.held)
