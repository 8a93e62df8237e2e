# The course's commands. README says how to do the same with pip alone (Windows).
#
#   make lab       set up .venv and open JupyterLab at the first notebook; it also runs as root, and
#                  prints the address to open where there is no browser
#   make course    run every notebook, solved, and print minutes, memory and checks;
#                  make course AS_SHIPPED=1 leaves the exercises unanswered
#   make test      lint, unit tests, solved notebooks with shorter trainings, a browser
#   make bench     ours beside what others do: bench-dicom, bench-records, bench-augmentation,
#                  bench-reading, bench-segmentation; the others are installed into benchmarks/.venv
#
# For those who write the course:
#
#   make study     lessons repeated with other patients and other numbers: which findings hold? Half
#                  an hour or more; STUDY_ARGS="--keep build/studies" goes on where it stopped
#   make size      lines and tokens of every part of the code, beside its budget
#   make badges ADDRESS=https://github.com/owner/name    puts the course's public address, badges and
#                  set-up cells into pyproject.toml, README and the notebooks
#   make lowest    the oldest packages that pyproject.toml allows run three notebooks
#   make hosted    a notebook opened on its own, with what hosted services have, installs the course
#   make minutes   the last `make course` -> README and the notebooks' first lines
#   make pictures  figures of the notebooks -> README
#   make lock      pyproject.toml -> requirements.txt
#   make format    code and notebooks in one style
#
# PYTHON=python3.13 chooses the Python that .venv is made from. LAB_ARGS, COURSE_ARGS, BENCH_ARGS,
# STUDY_ARGS and PYTEST_ARGS are passed on, for example: make lab LAB_ARGS="--no-browser --port=9999"

PYTHON ?= python3
VENV ?= .venv
LAB_ARGS ?=
COURSE_ARGS ?=
AS_SHIPPED ?=
BENCH_ARGS ?=
STUDY_ARGS ?=
PYTEST_ARGS ?=
PIP_ARGS ?= --disable-pip-version-check

# JupyterLab refuses root, the only user that many containers have, unless it is told.
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)

BIN = $(VENV)/bin
INSTALLED = $(VENV)/installed
BENCH_VENV ?= benchmarks/.venv
BENCH_INSTALLED = $(BENCH_VENV)/installed

# A kernel called python3 in the home folder must not take the place of this environment's own.
export JUPYTER_PREFER_ENV_PATH = 1

.PHONY: lab course test bench bench-dicom bench-records bench-augmentation bench-reading \
	bench-segmentation study size badges minutes pictures lock lowest hosted format clean

lab: $(INSTALLED)
	$(BIN)/jupyter lab $(strip $(AS_ROOT) $(LAB_ARGS)) notebooks/00_start_here.ipynb

course: $(INSTALLED)
	$(BIN)/python -m tools.course $(if $(AS_SHIPPED),--as-shipped) $(COURSE_ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

bench: bench-dicom bench-records bench-augmentation bench-reading bench-segmentation

bench-dicom: $(BENCH_INSTALLED)
	$(BENCH_VENV)/bin/python benchmarks/dicom_reading.py $(BENCH_ARGS)

bench-records: $(INSTALLED)
	$(BIN)/python benchmarks/records.py $(BENCH_ARGS)

bench-augmentation: $(INSTALLED) $(BENCH_INSTALLED)
	$(BIN)/python benchmarks/augmentation.py $(BENCH_ARGS)

bench-reading: $(INSTALLED) $(BENCH_INSTALLED)
	$(BIN)/python benchmarks/reading.py $(BENCH_ARGS)

bench-segmentation: $(INSTALLED) $(BENCH_INSTALLED)
	$(BIN)/python benchmarks/segmentation.py $(BENCH_ARGS)

study: $(INSTALLED)
	$(BIN)/python -m tools.study $(STUDY_ARGS)

size: $(INSTALLED)
	@$(BIN)/python -m tools.size

badges: $(INSTALLED)
	$(BIN)/python -m tools.publish $(ADDRESS)

minutes pictures: $(INSTALLED)
	$(BIN)/python -m tools.notebooks $@

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# For every system and Python; the resolver lives apart, the course itself does not need it.
lock: $(INSTALLED)
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/pip install -q $(PIP_ARGS) uv
	build/lock/bin/uv pip compile --universal --python-version=3.11 --all-extras --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --quiet -o build/lock/pins.txt pyproject.toml
	(echo "# Every package of the course, pinned, with what it needs in turn. Written by: make lock"; \
		echo "-e ."; cat build/lock/pins.txt) > requirements.txt

# The lower bounds of pyproject.toml, where loading, tuning and segmentation meet the most packages.
lowest: $(INSTALLED)
	$(PYTHON) -m venv --clear build/lowest
	build/lowest/bin/pip install -q $(PIP_ARGS) uv
	build/lowest/bin/uv pip install -q --python build/lowest --resolution lowest-direct -e ".[course,test]"
	build/lowest/bin/python -m tools.course 01_loading_dicom 04_tuning_the_pipeline 06_segmentation_with_deeplab

# A notebook alone in a folder, with the packages that Colab has, and the last commit as the address.
HOSTED = build/hosted
SOMEWHERE = https://github.com/someone/some-course
hosted: $(INSTALLED)
	rm -rf $(HOSTED) && mkdir -p $(HOSTED)/content
	$(PYTHON) -m venv $(HOSTED)/venv
	$(HOSTED)/venv/bin/pip install -q $(PIP_ARGS) tensorflow==2.20.0 keras==3.13.* numpy==2.1.3 ipywidgets==7.7.1 ipykernel papermill
	git clone -q . $(HOSTED)/fork && git clone -q --bare . $(HOSTED)/course.git
	cd $(HOSTED)/fork && $(abspath $(BIN))/python -m tools.publish $(SOMEWHERE) && cp notebooks/00_start_here.ipynb ../content
	cd $(HOSTED)/content && GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=url.file://$(abspath $(HOSTED))/course.git.insteadOf \
	  GIT_CONFIG_VALUE_0=$(SOMEWHERE) ../venv/bin/papermill --no-progress-bar 00_start_here.ipynb ../executed.ipynb
	cd $(HOSTED)/content && ../venv/bin/python -c "import helpers, keras, numpy as np, tensorflow as tf; found = tf.__version__, keras.__version__[:4], np.__version__; print(helpers.__file__, *found); assert found == ('2.20.0', '3.13', '2.1.3')"

clean:
	rm -rf build $(VENV)

# The stamp is written last: an installation that was interrupted is done again.
$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "The course needs Python 3.11 or newer; this is %d.%d. Try: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv is missing. Debian, Ubuntu: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing the course's packages into $(VENV), once: a few minutes ..."
	@$(BIN)/python -m pip install $(PIP_ARGS) -r requirements.txt
	@touch $@

# The peers of the benchmarks live apart: they pin other versions than the course does. Installing
# torch by itself lets a CPU build that is there already, or an index that has one, win.
$(BENCH_INSTALLED): benchmarks/requirements.txt pyproject.toml
	@test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	@echo "Installing the peers into $(BENCH_VENV), once: a few minutes ..."
	@$(BENCH_VENV)/bin/python -m pip install $(PIP_ARGS) torch==2.13.0
	@$(BENCH_VENV)/bin/python -m pip install $(PIP_ARGS) -r benchmarks/requirements.txt
	@$(BENCH_VENV)/bin/python -m pip install $(PIP_ARGS) --no-deps -e .
	@touch $@
