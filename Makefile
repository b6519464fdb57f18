# make run      serve examples/domains on this machine (PORT=8000)
# make test     all tests; does its own set-up
# make check    formatting, lints, types, documentation, dependency rules
# make bench    criterion benches
# make wheel    the wheel as it is shipped, into dist/
# make bench-load   Hawksbill beside other servers, into benches/RESULTS.md (LOAD="--quick --only hello")
# make bench-reload what deploys and deaths cost the clients, ours and others' (RELOAD="--quick --only changes")
#
# CARGO_TARGET_DIR is honoured; PYTHON chooses the interpreter.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SILENT:
.DEFAULT_GOAL := run

PYTHON ?= python3
PORT ?= 8000
export PORT PYTHON

PIP := -m pip --disable-pip-version-check --quiet
EXAMPLE := examples/domains
SOURCES := Cargo.toml Cargo.lock python/pyproject.toml \
	$(shell find crates python/src python/hawksbill -name '*.rs' -o -name '*.py' -o -name '*.pyi' -o -name Cargo.toml)

.PHONY: run test test-rust test-python check bench bench-load bench-reload wheel clean

run: .venv/ready
	cd $(EXAMPLE)
	"$(CURDIR)/.venv/bin/python" manage.py prepare
	exec "$(CURDIR)/.venv/bin/hawksbill" run

# What a user installs, and nothing that only tests need.
.venv/ready: $(SOURCES) $(EXAMPLE)/requirements.txt
	.ci/need cargo cc venv
	echo "Building Hawksbill and installing it into .venv; the first time takes some minutes."
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) install -r $(EXAMPLE)/requirements.txt
	.venv/bin/python $(PIP) install --force-reinstall --no-deps ./python
	touch $@

test: test-rust test-python

test-rust:
	.ci/need cargo cc venv libpython
	cargo test --workspace --quiet

test-python:
	.ci/need cargo cc venv chromium curl h2load redis-server systemd-socket-activate tmux
	.ci/test-python "$(PYTHON)"

check:
	.ci/need cargo cc venv libpython
	.ci/check "$(PYTHON)"

bench:
	cargo bench -p hawksbill-benches -p hawksbill-hosting-benches

wheel:
	.ci/need cargo cc venv
	.ci/wheel "$(PYTHON)"

# Peers that need a compiler are left out where there is none; wrk and h2load are used where they are there.
bench-load:
	.ci/need cargo cc
	cd benches
	exec $(PYTHON) -m load $(LOAD)

bench-reload:
	.ci/need cargo cc
	cd benches
	exec $(PYTHON) -m reload $(RELOAD)

clean:
	rm -rf .venv .venvs
	cargo clean
