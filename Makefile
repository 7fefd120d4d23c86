# Every target sets up what it needs: `make book` works on a bare Python 3.11 or newer.
PYTHON ?= python3
VENV   ?= .venv
# nproc counts no more than OMP_NUM_THREADS, which a make above this one has set.
JOBS   ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

# One BLAS thread a process: small matrices gain nothing from two, and two contend.
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
export MKL_NUM_THREADS = 1

.PHONY: book site test check site-test binder-test bench serve clean chapter pins newest linkcheck browser ci report-failure pdf epub epubcheck weigh lite pyodide

book: $(READY)           ## execute what changed, then build the site into _build/html
	$(BIN)/python tools/execute_book.py -j $(JOBS)
	$(BIN)/jupyter-book build -W --keep-going -n .

site:                    ## all that is published: the book with its weights, JupyterLite, PDF, EPUB
	$(MAKE) book
	$(MAKE) weigh
	$(MAKE) book  # the build page has the weights now
	$(MAKE) lite
	$(MAKE) pdf
	$(MAKE) epub

# Both take the site as it is: `make book` writes some pages anew, without what is offered.
pdf: $(READY) | _build/html/index.html   ## print every chapter and the book, offered in the pages' menus
	$(BIN)/python tools/make_pdf.py

epub: $(READY) | _build/html/index.html  ## pack the book as an EPUB, offered in the pages' menus
	$(BIN)/python tools/make_epub.py

_build/html/index.html:
	$(MAKE) book

weigh: $(READY)          ## what the pages of the built site bring over the wire
	$(BIN)/python tools/page_weight.py

test: $(READY)           ## prove the package and the pages' sources
	$(BIN)/python -m pytest tests --ignore=tests/site

site-test: $(READY)      ## prove the built site, in a browser where there is one
	$(BIN)/python -m pytest tests/site --ignore=tests/site/test_binder.py

binder-test: book        ## build Binder's environment from nothing, solve evenings in it
	$(BIN)/python -m pytest tests/site/test_binder.py

check: $(READY)          ## style and types
	$(BIN)/ruff check code tests tools bench book/_ext
	$(BIN)/ruff format --check code tests tools bench book/_ext
	$(BIN)/mypy

lite: $(READY) .venv-lite/.ready   ## JupyterLite with every chapter, into the built site
	$(BIN)/python tools/build_lite.py --jupyter .venv-lite/bin/jupyter

pyodide: $(READY)        ## have JupyterLite carry its Pyodide, and ask no other host
	$(BIN)/python tools/fetch_pyodide.py

bench: $(READY)          ## side by side with the libraries, one thread
	$(BIN)/python bench/run.py

serve: book              ## read the built site at http://127.0.0.1:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000

chapter: $(READY)        ## lay out a new chapter: make chapter NAME=gaussian-processes
	$(BIN)/python tools/new_chapter.py "$(NAME)"

pins: $(READY)           ## compile requirements.in into requirements.txt (needs uv)
	uv pip compile requirements.in --universal --python-version 3.11 --generate-hashes --no-header -q -o requirements.txt
	uv pip compile lite/requirements.in --universal --python-version 3.11 --generate-hashes --no-header -q -o lite/requirements.txt

newest: UV := $(VENV)-uv/bin
newest:                  ## the newest versions that requirements.in allows, into requirements.txt
	$(PYTHON) -m venv $(VENV)-uv
	$(UV)/python -m pip --disable-pip-version-check --quiet install uv
	$(UV)/uv pip compile requirements.in --upgrade --universal --python-version 3.11 --generate-hashes --no-header -q -o requirements.txt

linkcheck: $(READY)      ## do links to other sites lead somewhere?  see _build/linkcheck/output.txt
	mkdir -p _build/linkcheck
	$(BIN)/jupyter-book build --builder linkcheck .; status=$$?; mv _build/html/output.* _build/linkcheck; exit $$status

browser:                 ## install Chromium from the distribution, if there is none
	bash tools/install_chromium.sh

epubcheck:               ## install epubcheck from the distribution, if there is none
	bash tools/install_epubcheck.sh

ci:                      ## all that CI runs
	bash .ci/run

report-failure:          ## open an issue about a weekly run that failed, unless one is open (needs gh)
	bash tools/report_failure.sh "$(RUN)"

clean:                   ## remove what a build made; the environment stays
	rm -rf _build build .pytest_cache .hypothesis .mypy_cache .ruff_cache

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# An environment of its own: JupyterLite copies in whatever extensions it finds.
.venv-lite/.ready: lite/requirements.txt lite/wheels.txt
	$(PYTHON) -m venv .venv-lite
	.venv-lite/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r lite/requirements.txt
	.venv-lite/bin/python -m pip --disable-pip-version-check --quiet download --require-hashes --no-deps --dest lite/wheels -r lite/wheels.txt
	@touch $@
