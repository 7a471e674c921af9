# Everything a fresh machine needs: `make demo` and `make test` set themselves up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The release of torch that is tested. On Linux, to leave out the CUDA packages:
#   make test PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
PIP_FLAGS ?=

# On a shared machine, threads that spin while they wait cost a neighbour dearly.
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test lint parity bench mutants teacher study study-render study-smoke worlds pythons adapters docs clean

demo: $(VENV)/.ready
	$(BIN)/tutelage demo

# ALFWorld's rules and grammar, for the tests of its files, come with the alfworld of the parity
# environment. The shell finds them when the tests run: that environment may not be there before.
ALFWORLD_FILES ?= $$(realpath $(VENV)-parity/lib/python*/site-packages/alfworld/data)

# Fast tests first; then the same games in TextWorld and here.
test: $(VENV)/.ready-dev $(VENV)-parity/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	ALFWORLD_FILES="$(ALFWORLD_FILES)" \
		$(BIN)/python -m pytest --ignore=tests/parity --durations=10
	$(VENV)-parity/bin/python -m pytest tests/parity -p no:cacheprovider

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

parity: $(VENV)-parity/.ready
	PYTHONPATH=src:tests $(VENV)-parity/bin/python -m parity.run --report docs/parity.md

# ONLY="step generation" names benchmarks, ARGS are for the one that is named (ONLY=generation
# ARGS=--full). TRL=PYTHON has trl==1.16.0 and VLLM=PYTHON has vllm, to be measured beside. TextWorld
# is built for the household alone.
ONLY ?=
ARGS ?=
TRL ?=
VLLM ?=
BESIDE := $(if $(ONLY),$(filter household,$(ONLY)),household)
bench: $(VENV)/.ready-dev $(if $(BESIDE),$(VENV)-parity/.ready)
	$(BIN)/python benchmarks/run.py $(ONLY) $(if $(BESIDE),--textworld $(VENV)-parity/bin/python) \
		--trl "$(TRL)" --vllm "$(VLLM)" $(if $(ARGS),-- $(ARGS))

mutants: $(VENV)/.ready-dev
	$(BIN)/python tests/mutants.py

# The comparison of docs/studies/household.md: hours; it goes on after any interruption.
JOBS ?= 2
study: $(VENV)/.ready
	$(BIN)/python -m studies.household run --jobs $(JOBS)

study-render: $(VENV)/.ready
	$(BIN)/python -m studies.household render

study-smoke: $(VENV)/.ready
	$(BIN)/python -m studies.household smoke

# A few training steps in every world: for a nightly run, minutes. Curves: python -m studies.worlds run
worlds: $(VENV)/.ready-dev
	$(BIN)/python -m studies.worlds smoke

# The worlds in other Pythons, each with numpy alone: those of PYTHONS that are installed.
PYTHONS ?= python3.12 python3.13
pythons: $(VENV)/.ready-dev
	for python in $(PYTHONS); do $$python -c "" 2>/dev/null || continue; \
		$$python -m venv $(VENV)-$$python && \
		$(VENV)-$$python/bin/pip install -q numpy || exit 1; done
	TUTELAGE_PYTHONS="$$(ls -d $(VENV)-python3*/bin/python 2>/dev/null | tr '\n' ' ')" \
		$(BIN)/python -m pytest -rs tests/worlds/test_every_python.py

# Each adapter beside the library that it adapts, whose packages do not all go together. As resolved
# on 2026-11-21: gymnasium 1.4.0, gem-llm 0.1.0 (Python 3.11 only), openenv 0.10.0, verifiers 0.4.0.
ADAPTERS ?= gymnasium gem openenv verifiers
adapters: $(VENV)/.ready-dev
	for name in $(ADAPTERS); do \
		$(PYTHON) -m venv $(VENV)-adapter-$$name && \
		$(VENV)-adapter-$$name/bin/pip install -q $(PIP_FLAGS) "$(TORCH)" && \
		$(VENV)-adapter-$$name/bin/pip install -q $(PIP_FLAGS) \
			-e ".[$$name]" "pytest>=8.3" "hypothesis>=6.120" && \
		$(VENV)-adapter-$$name/bin/python -m pytest -rs tests/envs/test_adapters.py || exit 1; done

# The documentation site, in site/: no warning is let through, nothing is loaded from elsewhere.
docs: $(VENV)/.ready-docs
	$(BIN)/python scripts/write_docs.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

teacher: $(VENV)/.ready
	$(BIN)/python scripts/build_assets.py

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(PIP_FLAGS) "$(TORCH)"
	touch $@

$(VENV)/.ready: $(VENV)/.made pyproject.toml
	$(BIN)/pip install -q $(PIP_FLAGS) -e .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.made pyproject.toml
	$(BIN)/pip install -q $(PIP_FLAGS) -e ".[dev]"
	touch $(VENV)/.ready $@

$(VENV)/.ready-docs: $(VENV)/.ready pyproject.toml
	$(BIN)/pip install -q $(PIP_FLAGS) -e ".[docs]"
	touch $(VENV)/.ready $@

# TextWorld lives apart: it compiles a planner (g++, make, cmake), wants Python 3.11 or 3.12, and
# no torch. alfworld is taken for two files of rules; what else it depends on is not needed.
$(VENV)-parity/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)-parity
	$(VENV)-parity/bin/pip install -q "textworld[pddl]==1.7.0" "pytest>=8.3"
	$(VENV)-parity/bin/pip install -q --no-deps "alfworld==0.4.2"
	$(VENV)-parity/bin/pip install -q --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-parity $(VENV)-python3* $(VENV)-adapter-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
