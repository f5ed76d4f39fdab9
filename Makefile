# make demo    a whole federation on this machine, from nothing to a report
# make test    lint, types and every test
# make docs    the documentation as pages, build/docs/index.html
# make evidence   every measured table of README and docs, made again (REAL=DIR: those of real sets too; ONLY=name)
# make golden     the committed figures of the shipped configs, made again: after new weights, or a change that is meant
# make flower  the demo on Flower's own engine (it leaves Flower's local SuperLink running)
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo

# No calling home, no installing at run time, whatever starts Flower.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: demo test flower docs evidence golden lint types tests clean

demo: .venv/installed
	$(BIN)/fed-fsad simulate configs/demo.yaml --out $(DEMO) --resume auto

flower: export FLWR_HOME := $(CURDIR)/.flower
flower: export PATH := $(CURDIR)/$(BIN):$(PATH)
flower: .venv/installed
	flwr run . --stream --federation-config 'num-supernodes=4 client-resources-num-cpus=1' \
	  --run-config 'config="$(CURDIR)/configs/demo.yaml" out="$(CURDIR)/runs/flower" resume="auto"'

docs: .venv/installed
	$(BIN)/mkdocs build --strict --quiet

evidence: .venv/installed
	$(BIN)/python -m benchmarks.evidence $(if $(REAL),--real '$(REAL)') $(if $(ONLY),--only '$(ONLY)')

golden: .venv/installed
	$(BIN)/python -m tests.golden

test: lint types tests

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy fed_fsad server clients simulations pretraining benchmarks

tests: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadscope

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fed_fsad needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv
