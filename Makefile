# make demo | test | check | check-slow | bench. Each sets itself up first: once, in a few minutes; after that at once.
# Options, each with its default: PYTHON=<the first Python 3.11 or newer found>  VENV=.venv  WORKERS=2
VENV ?= .venv
WORKERS ?= 2
BENCH ?= --contestants 8 --rows 1000 --rounds 1 --ways trainer,trainer_two,local,lanes
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
# One thread per worker: more of them only get into each other's way. No test may reach a hub. Files come in the order of
# tests/conftest.py: xdist would begin with those of the most tests, which take the least time.
PYTEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help demo test check check-slow check-cluster bench clean

help:
	@echo "make demo        full fine-tuning or PEFT, on a small real model and real data; ends with report.html"
	@echo "make test        the tests"
	@echo "make check       style, types and import layers"
	@echo "make check-slow  the evidence that takes minutes: calibration of the verdicts, fifty kills and resumes, trainings over two processes"
	@echo "make check-cluster  the Ray engine on a real cluster of two nodes on this machine (brings ray, 270 MB)"
	@echo "make bench       one sweep by peft + Trainer and by ours, some ten minutes: time, memory, accuracy; BENCH='--rows 300' sets options"
	@echo "make clean       remove $(VENV) and caches"

demo: $(VENV)/.demo-installed
	@$(BIN)/deltaproof demo

test: $(VENV)/.dev-installed
	@$(PYTEST)

check: $(VENV)/.dev-installed
	$(BIN)/ruff check src tests docs benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

check-slow: $(VENV)/.dev-installed
	@$(PYTEST) -m slow

check-cluster: $(VENV)/.cluster-installed
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/experiments/test_ray_engine.py

bench: $(VENV)/.dev-installed
	@HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/sweep.py $(BENCH)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "deltaproof needs Python 3.11 or newer with the modules venv and ensurepip, found none;" \
		"install it (on Debian: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version), once ..." >&2
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# torch goes first and pinned, so that pip does not change its mind about it while it resolves the rest.
$(VENV)/.demo-installed: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing deltaproof and what it needs: a minute or two ..." >&2
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.demo-installed
	@echo "Installing the tools for tests and checks ..." >&2
	@$(PIP) -e '.[demo,dev]'
	@touch $@

$(VENV)/.cluster-installed: $(VENV)/.dev-installed
	@$(PIP) -e '.[demo,dev,cluster]'
	@touch $@
