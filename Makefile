# Two commands do everything: `make study` measures this machine, `make test` checks this project.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TARGETS := .venv-targets
# CUDA wheels where a driver answers; those of CUDA 13 need driver 580 or newer.
DRIVER := $(shell nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1 | cut -d. -f1)
CUDA := $(if $(DRIVER),$(shell [ "$(DRIVER)" -ge 580 ] 2>/dev/null && echo cuda13 || echo cuda12))
STUDY ?= demo
# A GPU's trials train for 128 times as many env-steps as a CPU's, by default.
BUDGET ?= $(if $(DRIVER),15m,5m)
# Half the default budget of a CPU, so that five minutes are worth a dozen configs.
FLAGS ?= $(if $(DRIVER),,--env-steps 262144)
comma := ,

.PHONY: help setup setup-dev targets study pictures test test-long test-targets format clean

help:
	@echo "make study      measure this machine: a study named $(STUDY), about $(BUDGET)"
	@echo "make test       everything that must pass"
	@echo "make test-long  what takes longer than that; make test-targets  what needs make targets"
	@echo "make targets    what compiles for GPUs that are not here (about 200 MB), into $(TARGETS)"
	@echo "make pictures   those of the documentation anew, from a study as make study runs it"
	@echo "make setup      only install, into $(VENV)"

setup: $(VENV)/.installed

setup-dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tuner needs Python 3.11 or newer, but $(PYTHON) is `$(PYTHON) -V 2>&1`; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@echo "installing tuner into $(VENV)$(if $(CUDA), with $(CUDA) wheels)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -e ".$(if $(CUDA),[$(CUDA)])"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests need"
	@$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev,postgres,grpc,brax$(if $(CUDA),$(comma)$(CUDA))]"
	@touch $@

# The compiler must have jaxlib's version; everything else is the main environment's own.
targets: setup
	@version=`$(BIN)/python -c 'from importlib.metadata import version; print(version("jaxlib"))'`; \
	[ -e $(TARGETS)/.installed-$$version ] || { \
	echo "installing the CUDA compiler of jaxlib $$version into $(TARGETS)"; \
	$(BIN)/python -m venv $(TARGETS) && \
	$(TARGETS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "jax-cuda12-pjrt==$$version" "nvidia-cuda-nvcc-cu12>=12.9,<13" && \
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' > `$(TARGETS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'`/main-environment.pth && \
	rm -f $(TARGETS)/.installed-* && touch $(TARGETS)/.installed-$$version; }

test-targets: setup-dev targets
	$(BIN)/pytest -s tests/tuner/targets

study: setup
	@if [ -e runs/$(STUDY)/study.db ] && $(BIN)/tuner status $(STUDY) >/dev/null 2>&1; then $(BIN)/tuner resume $(STUDY); else $(BIN)/tuner start $(STUDY) --budget $(BUDGET) $(FLAGS); fi

pictures: setup-dev
	$(BIN)/python -m docs.take_pictures --budget $(BUDGET) $(FLAGS)

test: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m "not long" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-long: setup-dev
	$(BIN)/pytest -m long -s

format: setup-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(TARGETS) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
