# Every target makes its own environment when it is missing. PYTHON=python3.12 chooses another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Containers set it to write nothing; but without bytecode each of the many processes below compiles all of torch's Python.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-slow ptx simulate fuzz check wheel docs format bench findings crossval clean

demo: $(VENV)/ready
	$(BIN)/python experiments/predictive_coding.py --quick

test: $(VENV)/ready
	$(BIN)/python tests/compile_loops.py
	$(BIN)/python -m pytest -n auto -m "not slow"

test-slow: $(VENV)/ready
	$(BIN)/python -m pytest -m slow

# What is asked of all bodies of LIF and gated networks, of the loops for a GPU in numba's simulator. A step of a gated network
# takes it some milliseconds, so of those the adjoints alone, without long trials and large batches.
simulate: $(VENV)/ready
	ADJSNN_LIF_KERNELS=cuda $(BIN)/python -m pytest -n auto -m "not slow" -k cuda -rs tests/lif
	$(BIN)/python -m pytest -n auto tests/gated/test_cuda.py
	ADJSNN_GATED_KERNELS=cuda $(BIN)/python -m pytest -n auto -m "not slow" -rs \
		-k "cuda and (agree or carries or same_program or singly or wanted or adds_up or add_up)" \
		tests/gated/test_discrete_adjoint.py tests/gated/test_runge_kutta.py

# GPU kernels as machine code, with registers and spills, without a GPU: some 300 MB of NVIDIA's compiler join the environment.
ptx: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt numba-cuda nvidia-nvvm nvidia-cuda-nvcc
	$(BIN)/python -m pytest -rP tests/test_cuda_ptx.py

fuzz: $(VENV)/ready
	ADJSNN_FUZZ=10000 $(BIN)/python -m pytest -n auto tests/fuzz --hypothesis-show-statistics

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The documentation site, docs/_build/docs/index.html: every program on its pages runs, and warnings are errors.
docs: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	rm -rf docs/_build docs/jupyter_execute
	$(BIN)/sphinx-build --fail-on-warning --keep-going -q -c docs . docs/_build
	@echo docs/_build/docs/index.html

# What users install: built, installed alone into an environment of its own, and tried.
wheel:
	PYTHON="$(PYTHON)" sh tests/wheel.sh

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/ready
	$(BIN)/python benchmarks/gated_gradient.py --widths --write
	$(BIN)/python benchmarks/gated_gradient.py --method heun --rounds 3 --repeats 3 --write
	$(BIN)/python benchmarks/gated_gradient.py --method rk4 --rounds 3 --repeats 3 --write
	$(BIN)/python benchmarks/long_trial.py --write
	$(BIN)/python benchmarks/lif_gradient.py --write
	$(BIN)/python benchmarks/generalised_lif.py --write
	$(BIN)/python benchmarks/roofline.py --write
	$(BIN)/python benchmarks/peers.py --write
	$(BIN)/python benchmarks/peers_judged.py --write

# What other libraries do (findings/README.md): each script installs what it needs in a temporary folder.
findings:
	@changed=; \
	for script in findings/*.sh; do \
		echo "== $$script"; \
		if PYTHON="$(PYTHON)" sh "$$script"; then echo "as described"; else echo "NOT AS DESCRIBED"; changed="$$changed $$script"; fi; \
	done; \
	if [ -n "$$changed" ]; then echo "not as described:$$changed"; exit 1; fi

# Spike times and gradients of independent simulators, each in an environment of its own, and the page that compares them.
crossval: $(VENV)/ready
	for script in crossval/*.sh; do PYTHON="$(PYTHON)" ADJSNN="$(CURDIR)/$(BIN)/python" sh "$$script" || exit 1; done
	$(BIN)/python crossval/compare.py --write

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed; make PYTHON=..."'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
