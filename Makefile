# make demo   sets everything up, then runs the whole experiment at mini scale (no GPU needed)
# make rehearsal   trains, evaluates and tabulates a few steps of a model of the 3B's shape, on one GPU
# make test   sets everything up, then runs the tests
# make ui     opens what the runs logged to MLflow
#
# PYTHON=python3.12 chooses the interpreter of .venv; VENV=0 uses that interpreter as it is.

PYTHON ?= python3
VENV ?= .venv
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export TOKENIZERS_PARALLELISM := false

ifeq ($(VENV),0)
BIN := $(dir $(shell $(PYTHON) -c 'import sys; print(sys.executable)'))
READY :=
else
BIN := $(CURDIR)/$(VENV)/bin/
READY := $(VENV)/ready
endif
export PATH := $(BIN):$(PATH)

TORCH := $(shell grep -oE 'torch==[0-9.]+' pyproject.toml | head -n 1)
PROFILE := --workflow-profile config/profiles/local
RESULTS := results/mini
DATA ?= data
REHEARSED ?= [invert4tvg-main]

.PHONY: setup demo rehearsal test ui

setup: $(READY)

# torch first: a resolver that starts from nothing may take gigabytes of another build
$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

# MLflow is filled while the demo runs; what the follower says goes to its log
demo: $(READY)
	@nice -n 10 tvg track --results $(RESULTS) --follow --parent $$$$ --log $(RESULTS)/logs/track/follow.log 2>/dev/null & \
	follower=$$!; \
	snakemake demo $(PROFILE) --config scale=mini; status=$$?; \
	kill $$follower; wait $$follower; \
	if [ $$status -eq 0 ]; then tvg show demo --results $(RESULTS); fi; \
	exit $$status

# The true 3B layout with random weights, written once, then downloaded from a hub on this machine as the real one would be.
# HF_HOME: the user's own cache keeps no weights that mean nothing
rehearsal: $(READY)
	tvg replica $(DATA)/hub
	HF_HOME=$(abspath $(DATA))/huggingface tvg hub $(DATA)/hub --for \
	  snakemake tables $(PROFILE) --config scale=rehearsal experiments='$(REHEARSED)' data_root=$(DATA)

test: $(READY)
	python -m pytest --numprocesses=auto --dist=loadfile $(PYTEST)

ui: $(READY)
	@tvg ui --results $(RESULTS)
