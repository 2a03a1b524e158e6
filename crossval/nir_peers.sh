#!/bin/sh
# What norse, snnTorch, SpikingJelly and Rockpool make of graphs that adjsnn.interop.to_nir writes for each: their spikes, into
# nir_peers.json beside this file. The graphs are written by adjsnn in its own environment (ADJSNN, default .venv of this
# checkout), run in another, and the table of docs/nir.md is written from the result.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
ours=${ADJSNN:-$here/../.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
PYTHONPATH="$here/.." "$ours" "$here/nir_cases.py" graphs "$work"
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.13.0 numpy==2.4.6 nir==1.0.8 \
	nirtorch==2.6 norse==1.1.0 snntorch==1.0.0 spikingjelly==2.0.0 rockpool==3.1.0
(cd "$work" && "$work/venv/bin/python" "$here/nir_peers.py" "$work" "$here/nir_peers.json")
PYTHONPATH="$here/.." "$ours" "$here/nir_cases.py" table
