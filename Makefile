# `make demo` and `make test` do all their set-up on a machine with Python 3.11 or 3.12, for which
# the locks are. They are tried by running them: a shim on the path may have nothing behind it.
FOUND := $(shell for python in python3.11 python3.12; do \
	$$python -c '' 2>/dev/null && echo $$python && break; done)
PYTHON ?= $(or $(FOUND),$(error needs Python 3.11 or 3.12: no python3.11 or python3.12 runs; name one with PYTHON=...))
UV := .cache/uv/bin/uv
TESTS ?= tests

.PHONY: demo machine test check lock docs clean

demo: .venv/ready
	.venv/bin/stream-judge demo

# Before anything is installed that cannot run here.
machine:
	@$(PYTHON) -m stream_judge.embedded.machine

test: .venv-dev/ready
	.venv-dev/bin/python -m pytest -q $(TESTS)

check: .venv-dev/ready
	.venv-dev/bin/ruff check .
	.venv-dev/bin/ruff format --check .
	.venv-dev/bin/mypy
	.venv-dev/bin/python -m stream_judge.docs --check

docs: .venv-dev/ready
	.venv-dev/bin/python -m stream_judge.docs

$(UV):
	$(PYTHON) -m venv .cache/uv
	.cache/uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.8'

.venv/ready: requirements/demo.txt pyproject.toml | machine $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip sync --quiet --require-hashes --python .venv/bin/python requirements/demo.txt
	$(UV) pip install --quiet --no-deps --python .venv/bin/python --editable .
	touch $@

.venv-dev/ready: requirements/dev.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv-dev
	$(UV) pip sync --quiet --require-hashes --python .venv-dev/bin/python requirements/dev.txt
	$(UV) pip install --quiet --no-deps --python .venv-dev/bin/python --editable .
	touch $@

COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock' pyproject.toml

lock: | $(UV)
	$(COMPILE) --extra embedded -o requirements/demo.txt
	$(COMPILE) --extra embedded --extra export --extra train --group dev -o requirements/dev.txt
	$(COMPILE) --extra gpu -o requirements/gpu.txt

clean:
	rm -rf .venv .venv-dev .cache/uv
