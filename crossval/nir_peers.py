"""Runs graphs of NIR in norse, snnTorch, SpikingJelly and Rockpool; for nir_peers.sh, in an environment that has them.

python nir_peers.py FOLDER RESULT.json
"""

# pyright: reportMissingImports=false
import contextlib
import datetime
import io
import json
import logging
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import nir
import norse.torch
import numpy as np
import rockpool.nn.modules.torch.nir as rockpool_nir
import snntorch.import_nir as snntorch_nir
import torch
from spikingjelly.activation_based import nir_exchange

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
torch.set_num_threads(1)


def stepped(net, x, first=()):
    """A network that takes one step and its state; `first` stands for the state before the first step."""
    state, out = first, []
    for row in x:
        z, state = net(row[None], *(state if state == () else (state,)))
        out.append(z[0].numpy().copy())
    return np.stack(out)


def by_norse(graph, x, dt):
    return stepped(norse.torch.from_nir(graph, dt=dt), x, None)


def by_snntorch(graph, x, dt):
    return stepped(snntorch_nir.import_from_nir(graph), x)


def by_spikingjelly(graph, x, dt):
    return stepped(nir_exchange.import_from_nir(graph, dt=dt), x, None)


def by_rockpool(graph, x, dt):
    out = rockpool_nir.from_nir(graph)(x[None])
    return (out[0] if isinstance(out, tuple) else out)[0].numpy()


PROGRAMS = {"norse": by_norse, "snntorch": by_snntorch, "spikingjelly": by_spikingjelly, "rockpool": by_rockpool}


def main(folder, result):
    known = json.loads((folder / "cases.json").read_text())
    for run in known["runs"]:
        graph, dt = nir.read(folder / run.pop("file")), run["dt"]
        one = run["case"].startswith("one spike")
        x = torch.zeros(round(known["t_end"] / dt), 1 if one else 3)
        for time, neuron in [(1.0, 0)] if one else known["events"]:
            x[round(time / dt), neuron] += 1.0
        try:
            with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
                z = PROGRAMS[run["target"]](graph, x, dt / 1e3)
            if one:
                run["fired"] = int(z.any(0).argmax()) if z.any() else None  # the first of neurons whose weights rise
                continue
            assert set(np.unique(z)) <= {0.0, 1.0}, "several spikes in a step"
            run["spikes"] = [np.flatnonzero(z[:, k]).tolist() for k in range(z.shape[1])]
        except (ValueError, AssertionError, NotImplementedError) as error:
            run["refused"] = str(error)
    known["versions"] = {name: version(name) for name in (*PROGRAMS, "nir", "nirtorch", "torch")}
    known["date"] = datetime.date.today().isoformat()
    result.write_text(json.dumps(known) + "\n")
    for run in known["runs"]:
        what = run.get("refused") or run.get("fired", sum(map(len, run.get("spikes", []))))
        print(run["case"], run["target"], run["dt"], what)


main(Path(sys.argv[1]), Path(sys.argv[2]))
