# make demo   the first run: 8 stories from the embedded model, side by side, one of them walked again
# make test   the same set-up with the development tools, then all tests
# make lint   format, lint and types, as .ci/run does
# make sanitize  the kernels' tests under the address and undefined-behaviour sanitizers (GCC, Linux)
# make clean  removes .venv and caches

PYTHON ?= python3
PYTEST_ARGS ?=
VENV := .venv
# The constraints choose the CPU build of torch. A machine with an NVIDIA driver takes what pip would take.
CONSTRAIN := $(if $(shell command -v nvidia-smi 2>/dev/null),,-c constraints.txt)
# Compiling all of torch and transformers takes most of an installation; what is used gets compiled when it is.
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile $(CONSTRAIN)
export PYTHONDONTWRITEBYTECODE :=
BUILT_FROM := pyproject.toml constraints.txt hatch_build.py $(wildcard src/stochroute/compiled/csrc/*)

.PHONY: demo test lint sanitize clean

demo: $(VENV)/installed
	$(VENV)/bin/stochroute generate --paths 8 --seed 7 --check-replay </dev/null

test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 $(PYTEST_ARGS)

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright

SANITIZED := build/sanitized
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g

# Leaks are not looked for: Python and torch have their own.
sanitize: $(VENV)/installed-dev
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check cmake ninja
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cmake -G Ninja -S src/stochroute/compiled/csrc -B $(SANITIZED) \
		-DCMAKE_CXX_COMPILER=g++ -DCMAKE_CXX_FLAGS="$(SANITIZERS)" -DCMAKE_INSTALL_PREFIX=$(SANITIZED)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cmake --build $(SANITIZED) --target install
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
		$(VENV)/bin/python tests/sanitized.py $(SANITIZED)/libstochroute_kernels.so

# Stamps inside .venv: a second run is fast; a changed pyproject.toml or kernel source installs again.
$(VENV)/created:
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(BUILT_FROM) | $(VENV)/created
	@echo "Installing stochroute with torch and transformers into $(VENV): a minute or two"
	@$(PIP) -e .
	@touch $@

$(VENV)/installed-dev: $(BUILT_FROM) | $(VENV)/created
	@echo "Installing stochroute with the development tools into $(VENV): a minute or two"
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist
