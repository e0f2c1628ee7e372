# The commands of this project; each works from a fresh clone. PYTHON chooses the interpreter of the environment.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
JOBS ?= 2

.PHONY: setup demo test test-slow check bench clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: setup
	$(BIN)/codeweft run toy

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check codeweft
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_docs.py tests/test_paper_map.py

test: check
	$(BIN)/python -m pytest -n $(JOBS) -m 'not slow'

test-slow: setup
	$(BIN)/python -m pytest -n $(JOBS) -m slow

bench: setup
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

clean:
	rm -rf .venv runs
