# make quickstart   a real sweep on the embedded model and images, a few minutes on two cores
# make test         lint, types and tests
# make slow         further sweeps: full size, buckets, MLflow's page, other attacks, images of one's own; long
# make hosts        a cluster of three hosts on this machine; as root, with iproute2, openssh-server and rsync
# make docs         these pages as HTML in docs/_build/html; warnings are errors
# make audit        are there known vulnerabilities? needs the network
# All make .venv first, from nothing but Python 3.10+ and a package index.

PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin

.PHONY: quickstart test lint tests slow hosts docs audit lock clean

quickstart: .venv/ready
	$(BIN)/sweeper run search_spaces/quickstart.yaml

# Side by side, as a type checker uses one core.
test: .venv/ready
	$(MAKE) --jobs 2 lint tests

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

tests: .venv/ready
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not hosts and not slow"

slow: .venv/ready
	$(BIN)/pytest -m slow

hosts: .venv/ready
	$(BIN)/pytest -m hosts

docs: .venv/ready
	$(BIN)/python docs/generate.py
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html

# Known vulnerabilities of what is pinned, from a service on the network; fails where that can't be reached.
audit: .venv/ready
	$(BIN)/uv tool run pip-audit==2.9.0 --requirement requirements.txt --no-deps --disable-pip

# Exact versions, installed without resolving: torchattacks' pin of requests can't be resolved.
.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

# Resolves requirements.txt anew; pyproject.toml holds the constraints and the one override.
lock: .venv/ready
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 \
	  --no-header --no-annotate --no-emit-index-url --upgrade --output-file requirements.txt

clean:
	rm -rf .venv
