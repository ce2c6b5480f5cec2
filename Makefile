# Every command of this repository. `make figures` and `make test` set up everything they need by themselves.
# Needed: Linux, Python 3.11 (with venv), make, a GL library.  `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

SCALE ?= smoke
PYTHON ?=
TORCH_INDEX ?=
ARGS ?=
export PYTHON TORCH_INDEX

PROFILE := workflows/profiles/$(SCALE)
# One environment, first on the path; nothing of the caller's Python leaks in.
IN_ENV := unset PYTHONPATH PYTHONHOME; export VIRTUAL_ENV="$(CURDIR)/.venv" PATH="$(CURDIR)/.venv/bin:$$PATH";

.PHONY: help env gl scale figures report preview dry cost status bench test mutants lint clean-env \
    diff diff-numbers published rliable

help:  ## this list
	@echo "make TARGET [SCALE=smoke|laptop|paper] [ARGS='more options for snakemake or pytest']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Set-up: PYTHON=/path/to/python3.11   TORCH_INDEX=URL of an index with a smaller torch (CPU only)"

figures: env scale gl cost  ## train what is missing at SCALE, draw the figures, write the report
	@$(IN_ENV) workflows/scripts/run.sh $(SCALE) $(ARGS)

report: env scale  ## the HTML page alone, from figures that exist
	@$(IN_ENV) snakemake --profile $(PROFILE) --report results/$(SCALE)/report.html $(ARGS)

preview: env scale  ## draw whatever exists at SCALE, partial runs included; trains nothing
	@$(IN_ENV) python -m workflows.scripts.preview --scale $(PROFILE)/scale.yaml $(ARGS)

dry: env scale  ## list the jobs that `make figures` would run
	@$(IN_ENV) snakemake --profile $(PROFILE) --dry-run $(ARGS)

cost: env scale  ## runs, env steps, updates and hours of SCALE, from measured speeds
	@$(IN_ENV) python -m workflows.scripts.cost --scale $(PROFILE)/scale.yaml

status: env  ## write the status table of README.md from results/evidence, print that of results/
	@$(IN_ENV) python -m workflows.scripts.status

diff: env  ## where do two things part: make diff ARGS="planet/torch planet/jax" (shared/diff/README.md)
	@$(IN_ENV) python -m shared.diff $(ARGS)

diff-numbers: env scale  ## torch and JAX of every paper, number by number; pages in results/SCALE/diff
	@$(IN_ENV) snakemake --profile $(PROFILE) diff_numbers $(ARGS)

published: env scale  ## the authors' score files at pinned commits, checked; from REFERENCE_DIR, or downloaded
	@$(IN_ENV) snakemake --profile $(PROFILE) published $(ARGS)

rliable: env  ## an environment of its own for rliable, which a test compares our aggregates with
	@$(IN_ENV) python -m venv .venv-rliable && .venv-rliable/bin/pip install -q "rliable==1.2.0" "pandas<3" "setuptools<81"

bench: env gl  ## time this machine beside its own ceiling (an hour; leave it alone meanwhile)
	@$(IN_ENV) python -m benchmarks.planet --out results/benchmarks/planet.json --speeds data/speeds.csv $(ARGS)
	@$(IN_ENV) python -m benchmarks.dreamer --out results/benchmarks/dreamer.json --speeds data/speeds.csv $(ARGS)
	@$(IN_ENV) python -m benchmarks.dreamerv2 --out results/benchmarks/dreamerv2.json --speeds data/speeds.csv $(ARGS)
	@$(IN_ENV) python -m benchmarks.dreamerv3 --out results/benchmarks/dreamerv3.json --speeds data/speeds.csv $(ARGS)
	@$(IN_ENV) python -m benchmarks.environments --out results/benchmarks/environments.json
	@$(IN_ENV) python -m benchmarks.replay --out results/benchmarks/replay.json
	@$(IN_ENV) python -m benchmarks.formulas --out results/benchmarks/formulas.json

# Agents are compiled with the kernels that runs on a CPU have (shared/device_jax.py, choose_kernels), formulas with those
# of JAX's defaults; so these are two runs of pytest, and both are always made.
PYTEST = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
AGENTS = tests/replications tests/golden
KERNELS = --xla_cpu_use_fusion_emitters=false --xla_cpu_experimental_ynn_fusion_type=dot,reduce,eltwise

test: env gl  ## every test, a process per core
ifeq ($(strip $(ARGS)),)
	@$(IN_ENV) first=0; $(PYTEST) $(AGENTS:%=--ignore=%) || first=$$?; \
	    XLA_FLAGS="$(KERNELS)" $(PYTEST) $(AGENTS) && exit $$first
else
	@$(IN_ENV) $(PYTEST) $(ARGS)
endif

nightly: env gl  ## tests of the formulas with 500 random examples each, and compiled by torch's inductor; hours
	@$(IN_ENV) HYPOTHESIS_PROFILE=nightly REPRO_TEST_COMPILED=1 OMP_NUM_THREADS=1 python -m pytest tests/formulas $(ARGS)

mutants: env  ## change the formulas in every small way and see whether a test notices (an hour)
	@$(IN_ENV) OMP_NUM_THREADS=1 python -m workflows.scripts.mutation --out results/evidence/core/mutation.json $(ARGS)

lint: env  ## ruff, snakefmt, snakemake --lint
	@$(IN_ENV) ruff check .
	@$(IN_ENV) snakefmt --check Snakefile workflows
	@$(IN_ENV) snakemake --lint

env:  ## .venv from requirements.lock (the other targets call it)
	@workflows/scripts/setup.sh

clean-env:  ## remove .venv; results stay
	rm -rf .venv

gl: env
	@$(IN_ENV) python -m shared.envs.gl

scale:
	@test -f $(PROFILE)/scale.yaml || { echo "error: no scale '$(SCALE)'; there are:" \
	    $(notdir $(wildcard workflows/profiles/*)) >&2; exit 2; }
