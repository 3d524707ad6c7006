# make demo    eight noises of two photos, plain above fixed, as one sheet under out/demo
# make test    the fast tests, about five minutes on two cores
# make check    everything else that a change must pass
# make comfyui-test    the nodes in ComfyUI itself
# make figures    the pictures and figures of the documentation that come from nano; COMFYUI=URL makes those of that page too
# make site    the documentation, into out/site
# make benchmark    the evidence again, written into README.md and docs/evidence.md
# Each makes .venv first. PYTHON=python3.12 picks another interpreter, ARGS is handed to pytest.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

.PHONY: help demo figures test check slow typed comfyui-test site lint types contracts format nano nano-seeds benchmark clean
.DELETE_ON_ERROR:

help:
	@echo "make demo | figures | test | check | comfyui-test | site | lint | types | contracts | format | nano | nano-seeds | benchmark | clean"

demo: .venv/.evaluate
	$(BIN)/python examples/demo.py out/demo

# Needs Chromium. COMFYUI is the address of a running ComfyUI that has the pack. The tables are `make benchmark`'s.
figures: .venv/.dev
	$(BIN)/python examples/demo.py out/demo && cp out/demo/demo.webp docs/demo.webp
	rm -rf out/gallery && $(BIN)/python docs/gallery.py
	$(if $(COMFYUI),$(BIN)/python docs/comfyui.py $(COMFYUI))

PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
test: .venv/.dev
	$(PYTEST) -m "not slow" $(ARGS)

check: lint types contracts slow typed

# What is left out of `make test`: matrices, fuzzing, the site, and every test that takes more than five seconds.
slow: .venv/.dev
	$(PYTEST) -m slow $(ARGS)

# Every signature of the package checked at run time; the tower lets an int stand for a float, as mypy does.
typed: .venv/.dev
	$(PYTEST) -m "not slow" --jaxtyping-packages="unleak,beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))" $(ARGS) \
		tests/core tests/data tests/stats tests/measure tests/families tests/golden tests/train

site: .venv/.docs
	$(BIN)/mkdocs build --strict
	@echo "The site is out/site/index.html"

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev
	$(BIN)/mypy

contracts: .venv/.dev
	$(BIN)/lint-imports

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The shipped model from scratch: hours on two cores. PHOTOS names folders that the packages of recipes/nano/photos.yaml
# were unpacked into (dpkg -x); by default they are looked for where they install, under /usr/share. Stopped, it goes on.
PHOTOS ?= /usr/share
nano: .venv/.dev
	$(BIN)/python recipes/nano/photos.py out/nano/photos $(PHOTOS)
	test -d out/nano/init || $(BIN)/python -m unleak.families.nano.build out/nano/photos out/nano/init
	for stage in base together naive timenoise; do \
		$(BIN)/python recipes/nano/fill_cache.py recipes/nano/$$stage.yaml && \
		$(BIN)/unleak train recipes/nano/$$stage.yaml || exit; done
	$(BIN)/python recipes/nano/moments.py recipes/nano/naive.yaml out/nano/naive/pipeline/moments.safetensors
	@echo "The model is out/nano/naive/pipeline: unleak generate examples/photo.jpg --model out/nano/naive/pipeline"

# The last stages again from another seed, for the intervals of the tables over training seeds.
nano-seeds: nano
	for stage in naive timenoise; do \
		$(BIN)/unleak train recipes/nano/$$stage.yaml --set seed=3 --set output=out/nano/$$stage-seed3 || exit; done

# The evidence, into README.md and docs/evidence.md, from the shipped weights: hours on two cores; ARGS=--quick is the protocol's small size. Stopped,
# it goes on; `make benchmark ARGS=--clips=64` adds to what is there.
BENCH := OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.evidence
benchmark: .venv/.benchmark
	$(BIN)/python recipes/nano/photos.py out/nano/photos $(PHOTOS)
	$(BENCH) out/nano/photos/test $(ARGS) --worker 1/2 & $(BENCH) out/nano/photos/test $(ARGS) --worker 0/2 && wait
	$(BENCH) report --write .
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed out/nano/photos/test

# unleak's nodes in ComfyUI itself, in an environment of its own. Where that cannot be had, its tests are skipped and say so.
comfyui-test: .venv/.dev
	$(BIN)/python tests/comfyui/engine/environment.py .venv-comfyui; case $$? in \
	0) UNLEAK_COMFYUI=.venv-comfyui $(BIN)/python -m pytest tests/comfyui $(ARGS);; 3) ;; *) exit 1;; esac

clean:
	rm -rf .venv .venv-comfyui .pytest_cache .ruff_cache .mypy_cache .import_linter_cache dist
	find src tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

# .venv/.EXTRA says that the package is installed with that extra, as pyproject.toml and constraints.txt now ask.
.venv/.%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into .venv; the first time takes minutes, most of them for PyTorch."
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[$*]'
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "unleak needs Python 3.11 or newer; $(PYTHON) was not found: install it, or make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "unleak needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1): try make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv .venv
