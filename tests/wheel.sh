#!/bin/sh
# The wheel, built from the source distribution and installed alone: its command, its experiments and README's programs run.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"${PYTHON:-python3}" -m venv "$work/venv"
pip() { "$work/venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install build==1.5.0
"$work/venv/bin/python" -m build --outdir "$work/dist" "$here" >"$work/build.txt" 2>&1 || { cat "$work/build.txt"; exit 1; }
pip uninstall --yes build
pip install --no-compile -c "$here/constraints.txt" "$(echo "$work"/dist/adjsnn-*.whl)[experiments]"
cd "$work"
"$work/venv/bin/adjsnn" --version
"$work/venv/bin/python" - "$here/README.md" <<'PROGRAM'
import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import adjsnn

assert not re.search(r"\]\((?!https?:)", metadata("adjsnn").get_payload()), "relative links for PyPI"
assert Path(adjsnn.__file__).is_relative_to(sys.prefix), adjsnn.__file__
programs = re.findall(r"^```python\n(.*?)^```", Path(sys.argv[1]).read_text(), re.DOTALL | re.MULTILINE)
assert programs
for program in programs:
    print(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout[-300:])
PROGRAM
"$work/venv/bin/adjsnn" doctor
"$work/venv/bin/adjsnn" experiment temporal_xor --help >/dev/null
"$work/venv/bin/adjsnn" demo
ls "$work"/dist
