"""Execute the pages whose outputs are out of date, in parallel.

    python tools/execute_book.py [-j PROCESSES] [-t SECONDS]

Outputs go into the cache that jupyter-book reads.  That cache knows a page by its cells
alone; here a page's outputs count as fresh only while its whole fingerprint is the one
they were computed under (see fingerprint.py).  The book's Sphinx extension calls
`run_book` before it reads a page, so `jupyter-book build .` alone is right too.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any

import fingerprint

ROOT = fingerprint.ROOT
LIMIT = 300  # seconds a page may take: the seminar's rule
BLAS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
SHOWN = 15  # lines of a traceback, lines of what a dying kernel said


def prepare_environment(root: Path) -> None:
    """Let kernels find the package without an install, with one BLAS thread each."""
    ours = [str(root / "code"), str(root / "tools")]
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    rest = [path for path in given if path and path not in ours]
    os.environ["PYTHONPATH"] = os.pathsep.join([*ours, *rest])
    os.environ.update(dict.fromkeys(BLAS, "1"))


def pages(root: Path) -> list[str]:
    """Pages of _toc.yml that have code cells, in the order of the book."""
    from sphinx_external_toc.parsing import parse_toc_yaml

    found = []
    for document in parse_toc_yaml(root / "_toc.yml"):
        name = document if document.endswith(".md") else f"{document}.md"
        path = root / name
        if path.is_file() and fingerprint.code_cells(path.read_text("utf8")):
            found.append(name)
    return found


def read_notebook(root: Path, page: str) -> Any:
    """The page as the notebook that Sphinx will look up in the cache.

    Raises:
        ValueError: the front matter does not say that the page is a notebook.
    """
    from myst_nb.core.read import is_myst_markdown_notebook, read_myst_markdown_notebook
    from myst_parser.config.main import MdParserConfig

    text = (root / page).read_text("utf8")
    if not is_myst_markdown_notebook(text):
        raise ValueError(
            f"{page} has code cells, but its front matter does not make it a notebook; "
            "it wants `file_format: mystnb` and a kernelspec"
        )
    # Without these, cells inside a ::: block would count here and not in Sphinx.
    config = MdParserConfig(enable_extensions={"colon_fence", "dollarmath"})
    return read_myst_markdown_notebook(
        text, config=config, add_source_map=True, path=root / page
    )


@dataclass(frozen=True, slots=True)
class Review:
    """What stands against what is wanted."""

    prints: dict[str, str]  # page -> fingerprint
    stale: frozenset[str]  # pages to execute
    broken: dict[str, str]  # page -> why it cannot even be read


class Store:
    """Outputs of the pages, each with the fingerprint it was computed under."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.build = root / "_build"
        self.cache_path = self.build / ".jupyter_cache"

    @property
    def cache(self) -> Any:
        """The jupyter-cache that the book reads."""
        from jupyter_cache import get_cache

        return get_cache(self.cache_path)

    def load(self, name: str) -> dict[str, Any]:
        """A dictionary kept between runs; empty when it is missing or unreadable."""
        try:
            kept = json.loads((self.build / name).read_text("utf8"))
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}

    def save(self, name: str, kept: dict[str, Any]) -> None:
        """Keep a dictionary; a reader never sees half of it."""
        self.build.mkdir(exist_ok=True)
        text = json.dumps(kept, indent=1, sort_keys=True) + "\n"
        part = self.build / f"{name}.{os.getpid()}"
        part.write_text(text, "utf8")
        part.replace(self.build / name)

    def remember(self, page: str, print_: str) -> None:
        """Note that the cached outputs of `page` belong to this fingerprint."""
        self.save("execution.json", {**self.load("execution.json"), page: print_})

    def put(self, page: str, notebook: Any, seconds: float) -> None:
        """Cache an executed notebook."""
        from jupyter_cache.base import CacheBundleIn

        path = str(self.root / page)
        data = {"execution_seconds": seconds}
        self.cache.cache_notebook_bundle(
            CacheBundleIn(notebook, path, data=data),
            check_validity=False,
            overwrite=True,
        )

    def _claims_missing(self, page: str) -> bool:
        claims = self.build / "claims"
        modules = fingerprint.verified(page, self.root)
        return not all((claims / f"{module}.json").is_file() for module in modules)

    def review(self, among: list[str]) -> Review:
        """Which pages are stale; every output that is not fresh is dropped."""
        cache, known = self.cache, self.load("execution.json")
        held = {record.hashkey: record for record in cache.list_cache_records()}
        prints, keys, broken, stale = {}, {}, {}, set()
        for page in among:
            try:
                notebook = read_notebook(self.root, page)
                prints[page] = fingerprint.fingerprint(page, self.root)
                missing = self._claims_missing(page)
            except Exception as error:  # of any kind: the other pages go on
                said = f"{page}: {type(error).__name__}: {error}"
                broken[page] = str(error) if str(error).startswith(page) else said
                continue
            keys[page] = cache.create_hashed_notebook(notebook)[1]
            if missing or known.get(page) != prints[page] or keys[page] not in held:
                stale.add(page)
        # Two pages with the same cells share one entry.
        gone = {keys[page] for page in stale}
        stale |= {page for page in keys if keys[page] in gone}
        fresh = {page: key for page, key in keys.items() if page not in stale}
        for key in set(held) - set(fresh.values()):
            self._drop(cache, held[key])
        remembered = {page: prints[page] for page in fresh}
        if remembered != known:
            self.save("execution.json", remembered)
        return Review(prints, frozenset(stale), broken)

    @staticmethod
    def _drop(cache: Any, record: Any) -> None:
        from jupyter_cache.cache.db import NbCacheRecord

        # remove_cache() of the library fails when the files are gone already.
        shutil.rmtree(cache.path / "executed" / record.hashkey, ignore_errors=True)
        NbCacheRecord.remove_records([record.pk], cache.db)


@dataclass(frozen=True, slots=True)
class Outcome:
    """An executed page, or the reason why it failed."""

    page: str
    seconds: float
    notebook: Any = None
    error: str | None = None


class _Run:
    """One execution: which cell it has come to, and how long it may still take."""

    def __init__(self, root: Path, page: str, limit: float) -> None:
        self.page = page
        self.notebook = read_notebook(root, page)
        self.cells = fingerprint.code_cells((root / page).read_text("utf8"))
        self.limit = limit
        self.index = 0
        self.start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def enter(self, cell: Any, cell_index: int) -> None:
        self.index = cell_index

    def left(self, cell: Any) -> float:
        # Zero would mean no limit at all.
        return max(self.limit - self.seconds, 0.1)

    def report(self, what: str) -> str:
        """Page, cell, the cell's first lines, and what went wrong there."""
        reached = self.notebook.cells[: self.index + 1]
        number = sum(cell.cell_type == "code" for cell in reached)
        cell = self.cells[max(number, 1) - 1]
        first = cell.source.strip().splitlines()
        shown = "\n".join(first[:3] + ["…"] * (len(first) > 3))
        place = f"{self.page}, code cell {cell.number} (line {cell.line}):"
        return f"{place}\n{_indent(shown, '    | ')}\n{_indent(what, '  ')}"


def _indent(text: str, by: str) -> str:
    return "\n".join(f"{by}{line}".rstrip() for line in text.splitlines())


def _tail(text: str) -> str:
    lines = ANSI.sub("", text).strip().splitlines()
    return "\n".join(["…"] * (len(lines) > SHOWN) + lines[-SHOWN:])


def _describe(error: Exception, run: _Run, noise: IO[bytes]) -> str:
    """What went wrong, for a person; `noise` is what the kernel printed by itself."""
    from nbclient import exceptions as of

    if isinstance(error, of.CellTimeoutError):
        return f"stopped: the page may take {run.limit:g} s in all"
    if isinstance(error, of.CellExecutionError):
        outputs = run.notebook.cells[run.index].outputs
        traces = [output.traceback for output in outputs if "traceback" in output]
        trace = "\n".join(traces[-1]) if traces else error.traceback
        return f"{error.ename}: {ANSI.sub('', error.evalue)}\n{_tail(trace)}"
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, of.DeadKernelError):
        what = "the kernel died: it crashed, left, or ran out of memory"
    noise.seek(0)
    said = noise.read().decode("utf8", "replace").splitlines()
    own = [line for line in said if not line.startswith("[IPKernelApp]")]
    return "\n".join([what, *own[-SHOWN:]])


def execute(root: Path, page: str, limit: float) -> Outcome:
    """Run the cells of a page in a kernel of their own, in the page's folder."""
    from nbclient import NotebookClient

    logging.getLogger("traitlets").setLevel(logging.CRITICAL)  # we say it better
    run = _Run(root, page, limit)
    client = NotebookClient(
        run.notebook,
        resources={"metadata": {"path": str((root / page).parent)}},
        timeout_func=run.left,
        on_cell_start=run.enter,
        record_timing=False,  # times would go into the key of the cache
    )
    with tempfile.TemporaryFile() as noise:
        try:
            client.execute(stderr=noise)
        except Exception as error:
            report = run.report(_describe(error, run, noise))
            return Outcome(page, run.seconds, error=report)
    if run.seconds > limit:
        report = f"{page}: it took {run.seconds:.0f} s and may take {limit:g} s"
        return Outcome(page, run.seconds, error=report)
    return Outcome(page, run.seconds, run.notebook)


def _result(future: Future[Outcome], page: str) -> Outcome:
    try:
        return future.result()
    except Exception as error:  # the process that ran the page broke
        return Outcome(page, 0.0, error=f"{page}: {type(error).__name__}: {error}")


def execute_all(
    store: Store, stale: list[str], jobs: int, limit: float
) -> Iterator[Outcome]:
    """Outcomes of the pages as they come, the page that took longest started first."""
    if not stale:
        return
    times = store.load("execution-times.json")
    order = sorted(stale, key=lambda page: -times.get(page, float("inf")))
    workers = max(1, min(jobs, len(order)))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {
            pool.submit(execute, store.root, page, limit): page for page in order
        }
        for future in as_completed(futures):
            yield _result(future, futures[future])


def keep(store: Store, outcome: Outcome, print_: str) -> None:
    """Cache a page that ran, and note its fingerprint and how long it took."""
    store.put(outcome.page, outcome.notebook, outcome.seconds)
    store.remember(outcome.page, print_)
    times = store.load("execution-times.json")
    times[outcome.page] = round(outcome.seconds, 2)
    store.save("execution-times.json", times)


def run_book(root: Path, jobs: int, limit: float = LIMIT) -> tuple[Review, int]:
    """Execute what is stale, and say so; the number of pages that failed comes back."""
    store, among = Store(root), pages(root)
    review = store.review(among)
    print(f"{len(review.stale)} of {len(among)} pages to execute", flush=True)
    for page, reason in review.broken.items():
        _say(Outcome(page, 0.0, error=reason))
    failed, start = len(review.broken), time.monotonic()
    for outcome in execute_all(store, sorted(review.stale), jobs, limit):
        _say(outcome)
        if outcome.error is None:
            keep(store, outcome, review.prints[outcome.page])
        else:
            failed += 1
    if review.stale or failed:
        done = len(review.stale) + len(review.broken) - failed
        spent = time.monotonic() - start
        print(f"{done} executed, {failed} failed, {spent:.1f} s", flush=True)
    return review, failed


def _say(outcome: Outcome) -> None:
    """One line for a page; why it failed goes to the other stream."""
    word = "ok  " if outcome.error is None else "FAIL"
    print(f"{word}  {outcome.page}  {outcome.seconds:.1f} s", flush=True)
    if outcome.error is not None:
        print(outcome.error, file=sys.stderr, flush=True)


def main() -> int:
    """Run from the command line; 1 when a page failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "-j", "--jobs", type=int, default=os.cpu_count() or 1, help="processes"
    )
    parser.add_argument(
        "-t", "--timeout", type=float, default=LIMIT, help="seconds a page may take"
    )
    options = parser.parse_args()
    prepare_environment(ROOT)
    _, failed = run_book(ROOT, options.jobs, options.timeout)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
