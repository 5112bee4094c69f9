# make demo and make test each work as the first command in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: setup demo demo-classify test check bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,export,classify]"
	touch $(STAMP)

# The whole path on simulated scans; ends with a report to open.
demo: $(STAMP)
	$(BIN)/medssl demo --out demo --overwrite

# The same for image classification.
demo-classify: $(STAMP)
	$(BIN)/medssl classify demo --out demo-images --overwrite

# One process a core, one thread a process.
test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu" --numprocesses auto --dist loadfile

# Only what a release needs: the bundle's printed commands and the wheel.
check: $(STAMP)
	$(BIN)/python -m pytest tests/bundles tests/test_wheel.py

# Every number of the documentation, made again (hours).
bench: $(STAMP)
	$(BIN)/python benchmarks/simulation_calibration.py --subjects 10 --json benchmarks/results/simulation_calibration.json
	$(BIN)/python benchmarks/simulation_gap.py --json benchmarks/results/simulation_gap.json
	$(BIN)/python benchmarks/inference.py --model bundles/infant_brain_segmentation --json benchmarks/results/inference.json
	$(BIN)/python benchmarks/margin.py --json benchmarks/results/margin.json
	$(BIN)/python benchmarks/scaling.py --json benchmarks/results/scaling.json
	$(BIN)/python benchmarks/training.py --json benchmarks/results/training.json
	$(BIN)/python benchmarks/ssl_step_cost.py --json benchmarks/results/ssl_step_cost.json
	$(BIN)/python benchmarks/performance_tables.py

clean:
	rm -rf $(VENV) demo demo-images build dist .pytest_cache .ruff_cache .import_linter_cache
