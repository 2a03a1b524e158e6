"""What the importers of other programs would drop or read otherwise, refused before it is written. Measured: docs/nir.md."""

from collections.abc import Sequence

import numpy as np

from adjsnn.errors import ConfigurationError
from adjsnn.interop.nir_numbers import Numbers

TARGETS = ("equation", "norse", "snntorch", "spikingjelly", "rockpool")
SNNTORCH_STEP = 0.1  # ms, written into its importer


def check_target(target: str, layers: Sequence[Numbers], readout: bool, dt: float) -> None:
    """Refuse a network of which the importer of `target` would make another one.

    Raises:
        ConfigurationError: says what would be dropped.
    """
    if target == "snntorch" and dt != SNNTORCH_STEP:
        raise _refused(target, f"dt={dt:g}", f"{SNNTORCH_STEP} ms, its own", f"dt={SNNTORCH_STEP}")
    if readout:
        raise _refused(target, "a filtered readout, an LI node", "a network without one", "n_out=None")
    for k, x in enumerate(layers):
        where = f"in layer {k}"
        if x.part is not None:
            raise _refused(target, f"maps {where}, which have not been tried there", "dense layers", 'target="equation"')
        if x.tau_mem is None or x.tau_syn is None or x.silent:
            raise _refused(target, f"neurons {where} that are no CubaLIF", "CubaLIF nodes alone", 'target="equation"')
        if x.delays is not None or x.rec_delays is not None:
            raise _refused(target, f"delays {where}", "none, since it takes no Delay node", "delays=None")
        if bool(x.bias.any()):
            raise _refused(target, f"a bias {where}, which is v_leak", "zero", "a threshold and reset lower by the bias")
        if target != "spikingjelly" and bool(x.v_reset.any()):
            raise _refused(target, f"v_reset {where} other than 0, which it does not read", "0", 'target="spikingjelly"')
        if target in ("snntorch", "rockpool") and x.w_rec is not None:
            raise _refused(target, f"recurrent weights {where}", "none, since it misplaces them", 'target="spikingjelly"')
        for name in ("tau_mem", "tau_syn"):
            if bool((getattr(x, name) <= dt).any()):
                raise _refused(
                    target, f"{name} {where} from {getattr(x, name).min():g} ms", f"more than dt={dt:g}", "a smaller dt"
                )
        uniform = {"snntorch": ("tau_mem", "tau_syn", "v_th"), "spikingjelly": ("tau_mem", "tau_syn", "v_th", "v_reset")}
        for name in uniform.get(target, ()):
            if len(np.unique(getattr(x, name))) > 1:
                raise _refused(target, f"unlike {name} {where}", "one value a layer", 'target="norse"')


def _refused(target: str, seen: str, expected: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"{seen}, for target={target!r}", expected, remedy)
