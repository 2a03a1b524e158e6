"""The gated network in JAX as a user would write it: Euler steps in `lax.scan`, differentiated by `jax.grad`, jitted."""

from math import pi
from typing import Any

import protocol


def build(case: protocol.Case) -> protocol.Run:
    jax = protocol.jax_of(case)
    np = jax.numpy
    names = ("w_in", "w_rec", "bias", "w_out")
    weights = {name: np.asarray(case[name]) for name in names}
    u = np.asarray(case["u"])
    dt, tau_v, width, fast, slow = (case.number(name) for name in ("dt", "tau_v", "width", "tau_fast", "tau_slow"))

    def charge(v: Any) -> Any:
        x = np.clip((v - (1.0 - width)) / width, 0.0, 1.0)
        return x - np.sin(2 * pi * x) / (2 * pi)

    def loss(weights: dict[str, Any], u: Any) -> Any:
        w_rec_t = weights["w_rec"].T

        def step(state: Any, drive: Any) -> Any:
            v, level, a_fast, a_slow = state
            current = drive + a_fast @ w_rec_t
            cosine = np.cos(2 * pi * v)
            moved = v + dt * ((1 + cosine) / tau_v + (1 - cosine) * current)
            reached = charge(moved)
            q = reached - level
            a_fast = (1 - dt / fast) * a_fast + q / fast
            a_slow = (1 - dt / slow) * a_slow + q / slow
            spiked = moved >= 1.0
            state = np.where(spiked, moved - 1.0, moved), np.where(spiked, 0.0, reached), a_fast, a_slow
            return state, a_slow

        rest = np.zeros((u.shape[1], len(w_rec_t)), u.dtype)
        drive = u @ weights["w_in"].T + weights["bias"]
        _, a_slow = jax.lax.scan(step, (rest, charge(rest), rest, rest), drive)
        readout = np.concatenate([rest[None], a_slow]) @ weights["w_out"].T
        return np.square(readout).mean()

    gradient = jax.jit(jax.grad(loss))

    def run() -> protocol.Results:
        found = jax.block_until_ready(gradient(weights, u))
        return {f"d_{name}": found[name] for name in names}

    return run


if __name__ == "__main__":
    protocol.serve(["jax"], build)
