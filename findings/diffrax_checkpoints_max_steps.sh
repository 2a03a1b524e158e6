#!/bin/sh
# diffrax: the default adjoint's gradient of a solution saved at many times depends on max_steps, and is wrong for some of it.
#
# Expected: max_steps only bounds the number of steps. y' = -0.1 y by 200 Tsit5 steps of 1 from y = 1, saved at 0, 1 … 200, has
# the sum of squares Σ e^{-0.2 k} to 1e-8, and RecursiveCheckpointAdjoint is documented to give the derivative of the steps, as
# DirectAdjoint does: 2 Σ e^{-0.2 k} = 11.0333 for either and for every max_steps ≥ 200.
# Seen: the loss is the same for all of them, and so is DirectAdjoint's gradient. RecursiveCheckpointAdjoint's is off by 2e-6
# for max_steps = 200 and 201, by 2e-11 for 300, and right to rounding for 256, 512 and the default 4096. Nothing tells. Saved
# at the end alone (t1=True) it is right for all of them.
# Source: https://docs.kidger.site/diffrax/api/adjoints/, and the central difference below
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile \
    diffrax==0.7.2 equinox==0.13.8 optimistix==0.1.0 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$work"
JAX_ENABLE_X64=1 JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'EOF'
import diffrax
import equinox
import jax
import jax.numpy as jnp

def loss(y0, max_steps, adjoint, saveat):
    sol = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -0.1 * y), diffrax.Tsit5(), 0.0, 200.0, 1.0, y0, saveat=saveat, adjoint=adjoint,
        stepsize_controller=diffrax.ConstantStepSize(), max_steps=max_steps,
    )
    return jnp.square(sol.ys).sum()

many, end = diffrax.SaveAt(ts=jnp.arange(201.0)), diffrax.SaveAt(t1=True)
one, direct, recursive = jnp.asarray(1.0), diffrax.DirectAdjoint(), diffrax.RecursiveCheckpointAdjoint()
print("diffrax", diffrax.__version__, "equinox", equinox.__version__, "jax", jax.__version__)
difference = float(loss(one + 1e-5, 200, direct, many) - loss(one - 1e-5, 200, direct, many)) / 2e-5
print("central difference", difference)
off = {}
for n in (200, 201, 256, 300, 512, 4096):
    by_direct, by_recursive = (float(jax.grad(loss)(one, n, a, many)) for a in (direct, recursive))
    off[n] = abs(by_recursive / by_direct - 1)
    print(f"max_steps {n}: DirectAdjoint {by_direct:.9f}, RecursiveCheckpointAdjoint {by_recursive:.9f}, off by {off[n]:.1e}")
    assert abs(by_direct / difference - 1) < 1e-8
    at_end = [float(jax.grad(loss)(one, n, a, end)) for a in (direct, recursive)]
    assert abs(at_end[1] / at_end[0] - 1) < 1e-12
assert off[200] > 1e-7 and off[201] > 1e-7
assert off[256] < 1e-13 and off[512] < 1e-13 and off[4096] < 1e-13
EOF
