# make demo   a whole federation on this machine, from nothing to a report
# make test   lint, types and every test
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo

.PHONY: demo test lint types tests clean

demo: .venv/installed
	$(BIN)/fed-fsad simulate configs/demo.yaml --out $(DEMO) $(if $(wildcard $(DEMO)/config.yaml),--resume)

test: lint types tests

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy fed_fsad server clients simulations pretraining

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
