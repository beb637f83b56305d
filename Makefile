# make simulate   solvated uracil with the shipped model, in a new folder under runs/
# make test       the whole test suite
# Both make the virtual environment first, once; it is made again when pyproject.toml changes.

VENV ?= .venv
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do command -v $$python && break; done)
EXTRAS ?= torchforce,xtb,pyscf,plots,native,dev
STEPS ?= 2000
# Test processes, one thread each: more threads than cores make every one of them slow.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 4 ] && echo 4 || echo $$n)
ONE_THREAD = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENMM_CPU_THREADS=1

BIN = $(VENV)/bin
INSTALLED = $(VENV)/.ampmm-installed

.PHONY: help install simulate test lint benchmark plugin clean

help:
	@sed -n '1,2p' Makefile | cut -c3-
	@echo "make lint       ruff: style and imports"
	@echo "make benchmark  milliseconds per MD step, and ampmm's own share of them"
	@echo "make install    only the virtual environment, in $(VENV), and the native operators where there is a compiler"
	@echo "make plugin     the native operators again: after an update of ampmm or torch, or with another compiler"
	@echo "make clean      removes $(VENV) and caches; runs/ stays"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "ampmm needs Python 3.11 or newer; found: $$("$(PYTHON)" --version 2>/dev/null || echo none)."; \
	  echo "Install python3.11, or name another interpreter: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; fi
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: its venv module is missing."; \
	  echo "Install it (Debian and Ubuntu: apt-get install python3-venv), then run make again."; exit 1; }
	@echo "Installing ampmm into $(VENV); the first time this downloads about 3 GB (torch with its CUDA libraries) and takes some minutes."
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $(INSTALLED)
	@$(BIN)/python plugin/build.py || true  # some minutes, where there is a compiler; models run without

# The box comes equilibrated at 300 K, so the run starts from it as it is.
simulate: $(INSTALLED)
	@n=1; while folder=runs/uracil-$$(printf %03d $$n); [ -e $$folder ]; do n=$$((n + 1)); done; \
	$(BIN)/ampmm simulate uracil --steps $(STEPS) --minimize 0 --output $$folder $(ARGS)

test: $(INSTALLED)
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .

plugin: $(INSTALLED)
	$(BIN)/python plugin/build.py --force $(ARGS)

benchmark: $(INSTALLED)
	$(BIN)/python benchmarks/step_time.py $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
