"""The smooth system of `hybrid_gradient.py`, τ ẏ = -y + tanh(W y + b), in libraries of ordinary differential equations.

The loss is the mean square of the states at all output times; the gradient is by the first state and all parameters. With the
option "adjoint" one library has several rows.
"""

from importlib import import_module
from typing import Any

import numpy as np
import protocol

NAMES = ("y0", "w", "b", "tau")


def _torch(case: protocol.Case) -> tuple[Any, Any, Any]:
    """torch, the output times, and the system as a module whose parameters are leaves; y0 is one too."""
    torch = import_module("torch")
    y0, w, b, tau = case.torch(torch, *NAMES)

    class Units(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.y0 = y0
            self.w, self.b, self.tau = (torch.nn.Parameter(x.detach()) for x in (w, b, tau))

        def forward(self, t: Any, y: Any) -> Any:
            del t
            return (torch.tanh(y @ self.w.T + self.b) - y) / self.tau

    return torch, torch.from_numpy(case["ts"]), Units()


def _named(gradients: Any) -> protocol.Results:
    return {f"d_{name}": g for name, g in zip(NAMES, gradients, strict=True)}


def torchdiffeq(case: protocol.Case) -> protocol.Run:
    torch, ts, system = _torch(case)
    module = import_module("torchdiffeq")
    solve = module.odeint if case.options["adjoint"] == "tape" else module.odeint_adjoint
    options: dict[str, Any] = {"method": case.options["method"]}
    if options["method"] == "dopri5":
        options |= {"rtol": case.number("rtol"), "atol": case.number("atol")}

    def run() -> protocol.Results:
        y = solve(system, system.y0, ts, **options)
        found = torch.autograd.grad(y.square().mean(), [system.y0, *system.parameters()])
        return _named(found) | {"y": y[-1].detach()}

    return run


def torchode(case: protocol.Case) -> protocol.Run:
    torch, ts, system = _torch(case)
    module = import_module("torchode")
    term = module.ODETerm(system)
    method = module.Dopri5(term=term)
    control = module.IntegralController(atol=case.number("atol"), rtol=case.number("rtol"), term=term)
    on_tape = case.options["adjoint"] == "tape"
    solver = module.AutoDiffAdjoint(method, control) if on_tape else module.JointBacksolveAdjoint(term, method, control)
    times = ts.expand(len(system.y0), -1)

    def run() -> protocol.Results:
        sol = solver.solve(module.InitialValueProblem(y0=system.y0, t_eval=times))
        found = torch.autograd.grad(sol.ys.square().mean(), [system.y0, *system.parameters()])
        return _named(found) | {"y": sol.ys[:, -1].detach()}

    return run


def diffrax(case: protocol.Case) -> protocol.Run:
    """Steps chosen for each sample, or with the option "joint" for all samples together.

    `max_steps` is 256 because the default of 4096 costs time, and with 200 and as many output times the gradient of diffrax
    0.7.2 is wrong.
    """
    jax, module = protocol.jax_of(case), import_module("diffrax")
    jnp = jax.numpy
    ts = jnp.asarray(case["ts"])
    args = {name: jnp.asarray(case[name]) for name in NAMES}
    fixed = case.options["method"] == "rk4"
    if fixed:
        solver, step = _classical(module), float(case["ts"][1] - case["ts"][0])
        control = module.ConstantStepSize()
    else:
        solver, step = module.Dopri5(), None
        control = module.PIDController(rtol=case.number("rtol"), atol=case.number("atol"))

    def field(t: Any, y: Any, args: dict[str, Any]) -> Any:
        del t
        return (jnp.tanh(y @ args["w"].T + args["b"]) - y) / args["tau"]

    def solution(y0: Any, args: dict[str, Any]) -> Any:
        saved, adjoint = module.SaveAt(ts=ts), module.RecursiveCheckpointAdjoint()
        return module.diffeqsolve(
            module.ODETerm(field), solver, ts[0], ts[-1], step, y0, args, saveat=saved, stepsize_controller=control,
            adjoint=adjoint, max_steps=256,
        ).ys  # fmt: skip

    solve = solution if case.options.get("joint") or fixed else jax.vmap(solution, (0, None), 1)

    def loss(args: dict[str, Any]) -> Any:
        y = solve(args["y0"], args)
        return jnp.square(y).mean(), y[-1]

    gradient = jax.jit(jax.grad(loss, has_aux=True))

    def run() -> protocol.Results:
        found, y = jax.block_until_ready(gradient(args))
        return _named(found[name] for name in NAMES) | {"y": y}

    return run


def _classical(module: Any) -> Any:
    """diffrax has no classical method of order 4, but it takes tableaus."""
    lower = tuple(np.array(row) for row in ([0.5], [0.0, 0.5], [0.0, 0.0, 1.0]))
    weights, nodes = np.array([1 / 6, 1 / 3, 1 / 3, 1 / 6]), np.array([0.5, 0.5, 1.0])
    members = {
        "tableau": module.ButcherTableau(a_lower=lower, b_sol=weights, b_error=np.zeros(4), c=nodes),
        "interpolation_cls": module.ThirdOrderHermitePolynomialInterpolation.from_k,  # for nothing: outputs are ends of steps
        "order": lambda self, terms: 4,
    }
    return type("Classical", (module.AbstractERK,), members)()


def gradsolve(case: protocol.Case) -> protocol.Run:
    """Its record and replay by Tsitouras' method of order 5; parameters are a vector for each sample.

    "replay" takes the gradient anew by steps that were recorded once: no solve with error control is in its time.
    """
    jax, module = protocol.jax_of(case), import_module("gradsolve")
    jnp = jax.numpy
    samples, n = case["y0"].shape
    vector = jnp.concatenate([jnp.asarray(case[name]).reshape(-1) for name in NAMES[1:]])
    y0 = jnp.asarray(case["y0"])
    bounds = (n * n, n * n + n)

    class Units:
        name, dim, is_stiff = "units", n, False
        t0, t1 = float(case["ts"][0]), float(case["ts"][-1])

        def f_jax(self, t: Any, y: Any, p: Any) -> Any:
            del t
            w, b, tau = jnp.split(p, bounds)
            return (jnp.tanh(w.reshape(n, n) @ y + b) - y) / tau

    system, options = Units(), {"rtol": case.number("rtol"), "atol": case.number("atol"), "device": "cpu"}

    def closure() -> Any:
        each = jnp.broadcast_to(vector, (samples, len(vector)))
        return module.grad_closure(system, y0, each, wrt=("y0", "params"), **options)

    def gradient(final: Any) -> Any:
        def loss(y0: Any, vector: Any) -> Any:
            y = final(y0, jnp.broadcast_to(vector, (samples, len(vector))))
            return (jnp.square(y).mean() + jnp.square(y0).mean()) / 2, y  # the outputs are the first state and the last

        return jax.grad(loss, argnums=(0, 1), has_aux=True)

    replay = jax.jit(gradient(closure())) if case.options["adjoint"] == "replay" else None

    def run() -> protocol.Results:
        (d_y0, d_vector), y = jax.block_until_ready((replay or gradient(closure()))(y0, vector))
        d_w, d_b, d_tau = jnp.split(d_vector, bounds)
        return _named((d_y0, d_w.reshape(n, n), d_b, d_tau)) | {"y": y}

    return run


LIBRARIES = {"torchdiffeq": torchdiffeq, "torchode": torchode, "diffrax": diffrax, "gradsolve": gradsolve}
ALSO = {"torchdiffeq": "torch", "torchode": "torch", "diffrax": "jax", "gradsolve": "jax"}

if __name__ == "__main__":
    library = protocol.arguments().options["library"]
    protocol.serve([library, ALSO[library]], LIBRARIES[library])
