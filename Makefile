# Every target can be run twice: what is already there is not made again. `make help` lists them.
VENV := .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Idle threads must sleep, not spin, and small tensors want one thread: both matter more than any other setting here.
export OMP_WAIT_POLICY := PASSIVE
export OMP_NUM_THREADS := 1
export NO_MKDOCS_2_WARNING := 1
export PYTHONUNBUFFERED := 1
# An unrelated package is called dlib too: from here, ours comes first.
export PYTHONPATH := $(CURDIR)

# Processors round differently in the last bit. A profile makes this one compute like another: MKL without its newer
# instructions, torch's kernels without vectors, or both. `make test PROFILE=plain` must pass as `make test` does.
PROFILES := native mkl plain avx2
SETTINGS_native :=
SETTINGS_mkl := MKL_CBWR=COMPATIBLE
SETTINGS_plain := ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE
SETTINGS_avx2 := ATEN_CPU_CAPABILITY=avx2
PROFILE ?= native
ifneq ($(words $(PROFILE)) $(filter $(PROFILE),$(PROFILES)),1 $(PROFILE))
$(error There is no profile "$(PROFILE)". Type PROFILE= and one of: $(PROFILES))
endif
$(foreach setting,$(SETTINGS_$(PROFILE)),$(eval export $(setting)))

.NOTPARALLEL:
.PHONY: help book test quick lint test-unit test-notebooks lab run bench full-scale-tiny setup constraints clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*##/\t/' | expand -t 18

book: $(VENV)/.docs  ## build the site from the committed notebooks and serve it on 127.0.0.1 (no torch)
	$(PY) -m book serve

test: $(VENV)/.all  ## install everything, run everything; PROFILE=mkl, plain or avx2 rounds as other processors do
	@$(MAKE) --no-print-directory --keep-going lint test-unit test-notebooks

quick: $(VENV)/.all  ## run what your change touches, in five minutes
	$(PY) tests/quick.py $(QUICK)

lint: $(VENV)/.all
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

test-unit: $(VENV)/.all $(VENV)/.nbgrader-0.9.6 $(VENV)/.torchao-0.18.0
	@echo "profile $(PROFILE) $(SETTINGS_$(PROFILE))"
	$(PY) -m pytest tests -n 2 --dist loadfile --durations=10

test-notebooks: $(VENV)/.all
	@echo "profile $(PROFILE) $(SETTINGS_$(PROFILE))"
	$(PY) -m pytest --nbval-lax --nbval-cell-timeout 300 --nbval-sanitize-with book/nbval.cfg -n 2 --dist loadfile --durations=10 chapters

lab: $(VENV)/.all  ## open copies of the chapters, in lab/, in JupyterLab; options: make lab LAB="--no-browser --allow-root"
	@mkdir -p lab && cp -n chapters/*.ipynb lab/ && echo "Copies of the chapters are in lab/; delete one to start it afresh."
	$(PY) -m jupyterlab $(LAB) lab

run: $(VENV)/.all  ## execute chapters anew, e.g. make run CHAPTER=08
	@test -n "$(CHAPTER)" || { echo "make run: which chapter? type e.g. make run CHAPTER=08 (or CHAPTER=all)"; exit 2; }
	$(PY) -m book run $(CHAPTER)

bench: $(VENV)/.all  ## measure, write bench/results/*.json (pages of the site)
	$(PY) -m bench $(BENCH)

full-scale-tiny: $(VENV)/.all  ## sample a random tiny pipeline of Stable Diffusion's classes, offline
	$(PY) -m full_scale.sample --tiny --prompt "a red circle" --solver dpm_solver_pp_2m --steps 20 --grid sd_trailing --omega 6.5

setup: $(VENV)/.all  ## only install

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || { echo "Python 3.11.5 or newer is needed; $(PYTHON) is `$(PYTHON) -V 2>&1`. Try: make PYTHON=python3.12 …"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv module is not complete here. On Debian: apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing what the site needs (no torch) …"
	$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' > $(VENV)/docs.txt
	$(PIP) -r $(VENV)/docs.txt
	@touch $@

$(VENV)/.all: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing everything into $(VENV): 2 to 4 minutes, 2 GB …"
	$(PIP) -e '.[all]'
	$(PY) full_scale/launch/torchvision_startup.py
	@touch $@ $(VENV)/.docs

# One test wants nbgrader. It lies in a folder of its own: among the other packages it would bring a menu and four server
# extensions into every reader's JupyterLab.
$(VENV)/.nbgrader-0.9.6: | $(VENV)/.all
	$(PIP) --upgrade --target $(VENV)/nbgrader --no-deps nbgrader==0.9.6 alembic==1.20.1 mako==1.4.3 sqlalchemy==2.1.9 rapidfuzz==3.14.6
	@touch $@

# One test wants torchao, which lies there for a like reason: diffusers would load it in every process.
$(VENV)/.torchao-0.18.0: | $(VENV)/.all
	$(PIP) --upgrade --target $(VENV)/torchao --no-deps torchao==0.18.0
	@touch $@

constraints:  ## resolve pyproject.toml anew in a fresh environment and write constraints.txt
	rm -rf build/resolve && $(PYTHON) -m venv build/resolve
	build/resolve/bin/python -m pip install --quiet -e '.[all,eightbit]'
	build/resolve/bin/python -m pip freeze --exclude-editable | sed 's/+.*//' | grep -vE '^(diffusion-distilled|nvidia|cuda|triton)' | sort -f > build/constraints.txt
	mv build/constraints.txt constraints.txt && rm -rf build/resolve

clean:  ## remove the environment and everything built (the committed notebooks stay)
	rm -rf $(VENV) build site
