# What a person types: `make run`, `make test`, `make lint`, `make e2e`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# --- make run ---------------------------------------------------------------------------------------------------
# These are the names of the environment variables; the shell's values are taken when they are set.
PORT ?= 8080
PROXY_MODE ?= transparent
LISTEN_ADDR ?= 127.0.0.1:$(PORT)
FS_ROOT ?= $(CURDIR)/var/cache
CONFIG ?=

# What the file says stands, unless the same is said on make's command line: `make run CONFIG=file PORT=9000`.
in_file = $(if $(CONFIG),$(shell grep -E '^$(1)[[:space:]]*:' '$(CONFIG)' 2>/dev/null))
said = $(filter command line,$(foreach name,$(1),$(origin $(name))))
option = $(if $(and $(call in_file,$(2)),$(if $(call said,$(4)),,yes)),,--$(1) '$(3)')
RUN_OPTIONS = $(if $(CONFIG),--config '$(CONFIG)') \
	$(call option,mode,mode,$(PROXY_MODE),PROXY_MODE) \
	$(call option,listen,listen,$(LISTEN_ADDR),LISTEN_ADDR PORT) \
	$(call option,fs-root,fs_root,$(FS_ROOT),FS_ROOT)

# --- make test --------------------------------------------------------------------------------------------------
# All packages and modules under tests/ but tests.e2e; `make test TESTS=tests.oci` runs a part.
TESTS ?= $(subst /,.,$(patsubst %/__init__.py,%,$(filter-out tests/e2e/%,$(wildcard tests/*/__init__.py))) \
	$(basename $(wildcard tests/test_*.py)))
# With bcrypt there, Twisted's plugins import its SSH server, which imports this module of Python's.
TRIAL = $(BIN)/python -W error -W "ignore:'spwd' is deprecated:DeprecationWarning" -m twisted.trial

.PHONY: run test lint format e2e coverage install clean

run: $(VENV)/.installed
	$(BIN)/twistd -n --pidfile= ociproxy $(strip $(RUN_OPTIONS))

test: $(VENV)/.installed-dev
	$(TRIAL) --temp-directory=_trial_temp_test $(TESTS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Needs real clients and what is around them (.ci/run installs the packages); the tests find what it built in .tools/bin.
e2e: $(VENV)/.installed-dev
	$(TRIAL) --temp-directory=_trial_temp_e2e tests.e2e

coverage: $(VENV)/.installed-dev
	$(BIN)/coverage run -m twisted.trial --temp-directory=_trial_temp_coverage $(TESTS)
	$(BIN)/coverage report

install: $(VENV)/.installed

$(BIN)/python:
	$(PYTHON) -m venv '$(VENV)'

# A plain `-e` would import well, but twistd would not see the plugin: that needs the compat mode.
$(VENV)/.installed: setup.py txociproxy/__init__.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e . --config-settings editable_mode=compat
	touch '$@'

$(VENV)/.installed-dev: setup.py txociproxy/__init__.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' --config-settings editable_mode=compat
	touch '$(VENV)/.installed' '$@'

clean:
	rm -rf '$(VENV)' build dist *.egg-info _trial_temp* .mypy_cache .ruff_cache .hypothesis .coverage
