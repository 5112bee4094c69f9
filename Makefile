# make demo and make test each work as the first command in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# MONAI Label has an environment of its own: it needs older DICOM packages than medssl does.
LABEL_VENV := .venv-label
LABEL_BIN := $(LABEL_VENV)/bin
LABEL_STAMP := $(LABEL_VENV)/.installed
# What monailabel imports for our app; what it names besides (numpymaxflow, sam2, ninja, scikit-learn) is
# for scribbles and prompts, pins numpy 1 or builds torch anew.
LABEL_NEEDS := "monai[nibabel,ignite,fire,tqdm,pyyaml,skimage,pillow,psutil]" pynrrd fastapi uvicorn starlette pydantic \
	pydantic-settings python-dotenv python-multipart httpx schedule "dicomweb-client[gcp]" timeloop expiringdict \
	expiring_dict cachetools watchdog pydicom pynetdicom shapely requests requests-toolbelt pyjwt passlib bcrypt \
	filelock girder-client jsonschema pytest

.PHONY: setup demo demo-classify test label test-label check bench bench-simulation clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,export,classify,fast]"
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

# The environment of the server for 3D Slicer (medssl label serve).
label: $(LABEL_STAMP)

$(LABEL_STAMP): pyproject.toml constraints-label.txt
	$(PYTHON) -m venv $(LABEL_VENV)
	$(LABEL_BIN)/python -m pip install --quiet --constraint constraints-label.txt torch
	$(LABEL_BIN)/python -m pip install --quiet --constraint constraints-label.txt --no-deps torchvision
	$(LABEL_BIN)/python -m pip install --quiet --constraint constraints-label.txt $(LABEL_NEEDS) --editable ".[fast]"
	$(LABEL_BIN)/python -m pip install --quiet --constraint constraints-label.txt --no-deps monailabel pydicom-seg
	touch $(LABEL_STAMP)

# A real server, driven as 3D Slicer drives it. Not in .ci/run: with its environment it takes a quarter of an hour.
test-label: $(LABEL_STAMP)
	$(LABEL_BIN)/python -m pytest -W default::DeprecationWarning tests/label_app

# Only what a release needs: the bundle's printed commands and the wheel.
check: $(STAMP)
	$(BIN)/python -m pytest tests/bundles tests/test_wheel.py

# Numbers of the performance page, made again: an hour on two cores that do nothing else. The
# experiments name their own commands.
bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,export,classify,fast]" indexed-gzip isal
	$(BIN)/python benchmarks/inference.py --repeats 2 --model bundles/infant_brain_segmentation --json benchmarks/results/inference.json
	$(BIN)/python benchmarks/margin.py --repeats 1 --json benchmarks/results/margin.json
	$(BIN)/python benchmarks/deep_windows.py --crop 48 --json benchmarks/results/deep_windows.json
	$(BIN)/python benchmarks/scaling.py --repeats 2 --json benchmarks/results/scaling.json
	$(BIN)/python benchmarks/segment_profile.py --json benchmarks/results/segment_profile.json
	$(BIN)/python benchmarks/bfloat16_gate.py --json benchmarks/results/bfloat16_gate.json
	$(BIN)/python benchmarks/compression.py --json benchmarks/results/compression.json
	$(BIN)/python benchmarks/training.py --json benchmarks/results/training.json
	$(BIN)/python benchmarks/training_precision.py --json benchmarks/results/training_precision.json
	$(BIN)/python benchmarks/ssl_step_cost.py --json benchmarks/results/ssl_step_cost.json
	$(BIN)/python benchmarks/crop_profile.py --json benchmarks/results/crop_profile.json
	$(BIN)/python benchmarks/performance_tables.py
	$(BIN)/python benchmarks/classification_tables.py

# Numbers of the simulated cohort, made again; trains for hours.
bench-simulation: $(STAMP)
	$(BIN)/python benchmarks/simulation_calibration.py --subjects 10 --json benchmarks/results/simulation_calibration.json
	$(BIN)/python benchmarks/simulation_gap.py --json benchmarks/results/simulation_gap.json

clean:
	rm -rf $(VENV) $(LABEL_VENV) demo demo-images build dist .pytest_cache .ruff_cache .import_linter_cache
