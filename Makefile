# The commands of this project. Each is a few lines that can be typed by hand.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo run test lint format bench clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' Makefile

setup: $(VENV)/installed ## Python packages, tables, starter models; demo and run do it themselves
	$(BIN)/python manage.py setup

demo: $(VENV)/installed ## a catalogue of rendered packs, recognised; prints the figures
	$(BIN)/python manage.py demo

run: $(VENV)/installed ## the site on http://127.0.0.1:8000, with its workers
	$(BIN)/python manage.py run

test: $(VENV)/installed-dev ## the whole suite, with real servers and workers
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(VENV)/installed-dev ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	# The type checker reads the settings; with these two set it starts no server for that.
	DATABASE_URL=postgres://lint REDIS_URL=redis://lint SHITU_SECRET_KEY=lint $(BIN)/mypy recognition shitu_site

format: $(VENV)/installed-dev ## repair what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/installed-dev ## measure; figures go to output/
	$(BIN)/python bench/search.py --sizes 10000 --json output/bench-search.json
	$(BIN)/python -m bench.overhead --json output/bench-overhead.json
	$(BIN)/python -m bench.ingest --json output/bench-ingest.json
	$(BIN)/python -m bench.start --json output/bench-start.json
	$(BIN)/python -m bench.scale --json output/bench-scale.json
	# Against PaddleX's own server, which wants a Python of its own: bench/serving.py says how.
	if [ -x var/bench-paddlex/bin/python ]; then $(BIN)/python -m bench.serving --json output/bench-serving.json; fi

clean: ## remove environment, servers' data, models and pictures: var/ too
	rm -rf $(VENV) var output

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	touch $@
