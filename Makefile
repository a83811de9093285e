# Every target sets up what it needs by itself: all you need is Python 3.11 to 3.13 and make.
#   make demo    a mesh on this machine: it asks, checks and pays
#   make test    the tests             make bench    the measurements
#   make check   style, types, arrows  make clean    remove what make made
#   make spec    write again what spec/ takes from the code
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
MODELS := smollm2-135m-instruct minilm-l6 silero-vad text-direction

.PHONY: demo test ready check bench spec install bundles clean
.DEFAULT_GOAL := demo

demo: install
	@$(BIN)/fallow demo

test: ready
	@tools/test.sh $(BIN)

# Models and a mint, side by side. Without one of them (no network, say) the tests that need it are skipped, and say so.
ready: install
	@{ tools/cashu.sh build/cashu || echo "make: going on without an ecash mint; the reason stands above"; } & \
	for name in $(MODELS); do \
	    $(BIN)/fallow bundle build $$name || echo "make: going on without $$name; the reason stands above"; \
	done; \
	wait

check: install
	@tools/check.sh $(BIN)

bench: bundles
	@$(BIN)/python benchmarks/run.py

# The schema, the tables of the pages and the vectors; tests fail while they are stale.
spec: install
	@$(BIN)/python -m spec.generate
	@$(BIN)/python -m spec.vectors.make

install: $(INSTALLED)

# Building a bundle a second time only looks that it is there.
bundles: install
	@set -e; for name in $(MODELS); do $(BIN)/fallow bundle build $$name; done

$(INSTALLED): pyproject.toml constraints.txt tools/install.sh
	@tools/install.sh $(VENV)
	@touch $@

clean:
	rm -rf .venv build dist spec/verify-js/node_modules fallow.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
