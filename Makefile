# `make help` lists what can be made. PYTHON is the interpreter that .venv is built from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SWEEP ?= rate-distortion
PAPER ?= frey mnist mnist-samples likelihood
DATA ?= data
WITHOUT_DATA = test "$(origin DATA)" != "command line" || { echo "error: DATA is for make paper alone; expected SET=prepare.root=FOLDER (with MNIST/raw), or SET=prepare.path=FILE for frey"; exit 1; }

export MLFLOW_DISABLE_TELEMETRY := true
# Empty is unset: .venv is installed uncompiled, and modules that are not kept compiled are compiled in every process.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help repro test gpu check format results sweep paper demo ui clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/make \1\t\2/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: Python is %d.%d; expected 3.11 or newer (make PYTHON=python3.11 ...)" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@

repro: $(READY)  ## run the pipeline: prepare, train, evaluate, export (only what has changed)
	@$(BIN)/python -m pipeline.params
	@PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro

test: $(READY)  ## run all tests, a file at a time in each of a few processes
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

gpu: $(READY)  ## on a machine with a GPU: the tests that need one, and the training benchmark (MNIST=ROOT PYTHAE=FOLDER)
	@$(BIN)/python -c 'import sys, torch; torch.cuda.is_available() or sys.exit("error: no CUDA device was found; make gpu needs one")'
	@$(BIN)/python -m pytest -m gpu
	@$(BIN)/python bench/train.py $(if $(MNIST),--mnist $(MNIST) --epochs 3) $(if $(PYTHAE),--pythae $(PYTHAE))
	@$(BIN)/python bench/train.py --network conv --epochs 4

check: $(READY)  ## lint, format check and type check
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY)  ## mend what the linter and the formatter can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

results: $(READY)  ## reproduce a recipe and hold it to its target: make results RECIPE=paper-mnist SET=prepare.root=FOLDER
	@$(WITHOUT_DATA)
	@test -n "$(RECIPE)" || { echo "error: RECIPE is empty; expected one of: $(basename $(notdir $(wildcard recipes/*.yaml)))"; exit 1; }
	@PATH="$(CURDIR)/$(BIN):$$PATH" python -m pipeline.recipe recipes/$(RECIPE).yaml $(SET)

sweep: $(READY)  ## run a grid of experiments and draw it: make sweep SWEEP=rate-distortion
	@$(WITHOUT_DATA)
	@PATH="$(CURDIR)/$(BIN):$$PATH" python -m pipeline.sweep recipes/sweeps/$(SWEEP).yaml reports/sweeps $(SET)

paper: $(READY)  ## redraw the paper's experiments: make paper DATA=folder of MNIST/raw and frey_face.npz PAPER='frey mnist'
	@$(BIN)/python -m pipeline.paper models/paper reports/paper $(PAPER:%=recipes/paper/%.yaml) \
		--set prepare.root=$(abspath $(DATA)) prepare.path=$(abspath $(DATA))/frey_face.npz $(SET)

demo: $(READY)  ## renew the sampler that ships with the package, from models/export
	@$(BIN)/python -m pipeline.graphs.demo models/export pipeline/runtime/demo

ui: $(READY)  ## compare runs in the MLflow UI on loopback, port 5000
	@$(BIN)/mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" --host 127.0.0.1 --port 5000

clean:  ## remove the environment; data, models and runs stay
	rm -rf $(VENV)
