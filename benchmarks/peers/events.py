"""Bouncing balls and Izhikevich neurons of `hybrid_gradient.py` in libraries that locate events.

The loss is the mean square of the states at the start and the end, and 0.01 times the sum of all event times. Where a library
is too slow for all samples it takes the first few; the loss is still that of all, and so the gradients by y0 are the same.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import protocol

NUDGE = 1e-7  # of the height


class System(NamedTuple):
    """In terms of one sample's state, (2,), of parameters by name, and of a function that stacks two numbers."""

    names: tuple[str, ...]
    field: Callable[[Any, dict[str, Any], Callable[..., Any]], Any]
    guard: Callable[[Any, dict[str, Any]], Any]  # an event where it rises through zero
    jump: Callable[[Any, dict[str, Any], Callable[..., Any]], Any]


BALLS = System(
    ("gravity", "bounce", "floor"),
    lambda y, p, stack: stack(y[1], -p["gravity"] + 0.0 * y[0]),
    lambda y, p: p["floor"] - y[0],
    lambda y, p, stack: stack(y[0], -p["bounce"] * y[1]),
)
IZHIKEVICH = System(
    ("a", "b", "c", "d", "drive"),
    lambda y, p, stack: stack(0.04 * y[0] * y[0] + 5.0 * y[0] + 140.0 - y[1] + p["drive"], p["a"] * (p["b"] * y[0] - y[1])),
    lambda y, p: y[0] - 30.0,
    lambda y, p, stack: stack(p["c"] + 0.0 * y[0], y[1] + p["d"]),
)


def system_of(case: protocol.Case) -> System:
    return BALLS if "gravity" in case.arrays else IZHIKEVICH


def torchdiffeq(case: protocol.Case) -> protocol.Run:
    """`odeint_event` from event to event, one sample after the other: of a batch the first event would end all.

    An event function that starts at zero fires at once, so a ball starts again `NUDGE` above the floor, as in the library's
    example. The end of the trial is an event too, and times of events are only as exact as the tolerance.
    """
    torch, system = import_module("torch"), system_of(case)
    module = import_module("torchdiffeq")
    y0, *values = case.torch(torch, "y0", *system.names)
    parameters = dict(zip(system.names, values, strict=True))
    end = torch.tensor(float(case["ts"][-1]), dtype=y0.dtype)
    options = {"method": "dopri5", "rtol": case.number("rtol"), "atol": case.number("atol")}

    def stack(*numbers: Any) -> Any:
        return torch.stack(numbers)

    class Field(torch.nn.Module):
        def forward(self, t: Any, y: Any) -> Any:
            del t
            return system.field(y, parameters, stack)

    def event(t: Any, y: Any) -> Any:
        return torch.stack([system.guard(y, parameters), t - end])

    field = Field()

    def one(start: Any) -> tuple[Any, Any, int]:
        """The last state, the sum of the event times and their number."""
        t, y, total, count = torch.zeros((), dtype=start.dtype), start, 0.0, 0
        while True:
            t, states = module.odeint_event(field, y, t, event_fn=event, odeint_interface=module.odeint, **options)
            y = states[-1]
            if t.item() >= end.item() - 2 * options["atol"]:
                return y, total, count
            y = system.jump(y, parameters, stack)
            y = stack(parameters["floor"] + NUDGE, y[1]) if system is BALLS else y
            total, count = total + t, count + 1

    def run() -> protocol.Results:
        few = y0[: case.samples()]
        found = [one(start) for start in few]
        last = torch.stack([y for y, _, _ in found])
        loss = (few.square().sum() + last.square().sum()) / (2 * y0.numel()) + 0.01 * sum(total for _, total, _ in found)
        gradients = torch.autograd.grad(loss, [y0, *values], allow_unused=True)
        return {"d_y0": gradients[0][: len(few)], "y": last.detach(), "events": np.array([n for _, _, n in found])}

    return run


def diffrax(case: protocol.Case) -> protocol.Run:
    """`diffeqsolve` with a terminating event, as often as a sample has events, all samples at once by `vmap`, jitted."""
    jax, module = protocol.jax_of(case), import_module("diffrax")
    newton = import_module("optimistix").Newton(1e-10, 1e-10)
    jnp, system = jax.numpy, system_of(case)
    parameters = {name: jnp.asarray(case[name]) for name in system.names}
    y0, end = jnp.asarray(case["y0"]), float(case["ts"][-1])
    control = module.PIDController(rtol=case.number("rtol"), atol=case.number("atol"))

    def stack(*numbers: Any) -> Any:
        return jnp.stack(numbers)

    term = module.ODETerm(lambda t, y, p: system.field(y, p, stack))
    event = module.Event(lambda t, y, args, **_: system.guard(y, args), newton, direction=True)

    def one(y: Any, p: Any) -> tuple[Any, Any, Any]:
        t, total, count = jnp.zeros(()), 0.0, 0
        for _ in range(int(case["most"]) + 1):
            sol = module.diffeqsolve(
                term, module.Dopri5(), t, end, None, y, p, event=event, stepsize_controller=control,
                max_steps=512,  # the default of 4096 takes several times as long
            )  # fmt: skip
            assert sol.ts is not None
            fired = sol.event_mask & (sol.ts[-1] < end)
            t, y = sol.ts[-1], jnp.where(fired, system.jump(sol.ys[-1], p, stack), sol.ys[-1])
            total, count = total + jnp.where(fired, t, 0.0), count + fired
        return y, total, count

    def loss(y0: Any, p: Any) -> Any:
        last, totals, counts = jax.vmap(one, (0, None))(y0, p)
        value = (jnp.square(y0).sum() + jnp.square(last).sum()) / (2 * y0.size) + 0.01 * totals.sum()
        return value, (last, counts)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))

    def run() -> protocol.Results:
        (d_y0, d_p), (last, counts) = jax.block_until_ready(gradient(y0, parameters))
        return {"d_y0": d_y0, "y": last, "events": counts} | {f"d_{name}": g for name, g in d_p.items()}

    return run


def sundials(case: protocol.Case) -> protocol.Run:
    """scikit-sundae's CVODE (Adams) from event to event, one sample after the other, the forward run alone."""
    solver = import_module("sksundae").cvode.CVODE
    system, parameters = system_of(case), {}
    parameters = {name: case.number(name) for name in system.names}
    end = float(case["ts"][-1])

    def pair(*numbers: float) -> tuple[float, ...]:
        return numbers

    def field(t: float, y: Any, into: Any) -> None:
        del t
        into[0], into[1] = system.field(y, parameters, pair)

    def event(t: float, y: Any, into: Any) -> None:
        del t
        into[0] = system.guard(y, parameters)

    vars(event).update(terminal=[True], direction=[1])
    cvode = solver(
        field, method="Adams", rtol=case.number("rtol"), atol=case.number("atol"), eventsfn=event, num_events=1
    )  # fmt: skip

    def one(y: Any) -> tuple[Any, int]:
        t, count = 0.0, 0
        while True:
            found = cvode.solve(np.array([t, end]), y)
            t, y = float(found.t[-1]), found.y[-1]
            if found.t_events is None or len(found.t_events) == 0 or t >= end:
                return y, count
            y, count = np.array(system.jump(y, parameters, pair)), count + 1

    def run() -> protocol.Results:
        found = [one(y.copy()) for y in case["y0"][: case.samples()]]
        return {"y": np.stack([y for y, _ in found]), "events": np.array([n for _, n in found])}

    return run


LIBRARIES = {"torchdiffeq": torchdiffeq, "diffrax": diffrax, "scikit-sundae": sundials}
ALSO = {"torchdiffeq": "torch", "diffrax": "jax", "scikit-sundae": "numpy"}

if __name__ == "__main__":
    library = protocol.arguments().options["library"]
    protocol.serve([library, ALSO[library]], LIBRARIES[library])
