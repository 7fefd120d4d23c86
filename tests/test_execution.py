"""Outputs are reused exactly while what they depend on is unchanged.

A toy book stands in a folder of its own, with the real tools, extension and settings;
every run is a process, as `make book` has it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fingerprint import code_cells, dependencies, fingerprint, verified

ROOT = Path(__file__).resolve().parents[1]
HEAD = "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n\n"

TOY = {
    "requirements.txt": "numpy==2\n",
    "_toc.yml": "format: jb-book\nroot: book/index\n"
    "chapters:\n- file: book/one\n- file: book/two\n",
    "book/index.md": "# Toy\n\nSee {eq}`one-double`.\n",
    "book/references.bib": "",
    "book/one.md": HEAD
    + "# One\n\nProse.\n\n$$\ny = 2 x\n$$ (one-double)\n\n"
    + "```{code-cell} python\nfrom mlfs import one\n```\n\n"
    + "```{code-cell} python\nassert one.double(2) == one.double(1) * 2\n"
    + "print('double is', one.double(2))\n```\n\n"
    + "```{code-cell} python\nfrom mlfs.book.claims import verify\n\n"
    + 'verify("one")\n```\n',
    "book/two.md": HEAD
    + "# Two\n\n```{code-cell} python\nfrom mlfs import two\n\n"
    + "print('total is', two.total())\n```\n",
    "code/mlfs/__init__.py": "",
    "code/mlfs/core/__init__.py": "",
    "code/mlfs/core/data.py": "from pathlib import Path\n\n"
    "DATA = Path(__file__).parents[1] / 'data'\n\n\n"
    "def load():\n    return (DATA / 'numbers.csv').read_text()\n",
    "code/mlfs/data/numbers.csv": "1,2,3\n",
    "code/mlfs/one.py": "def double(x):\n    return 2 * x\n",
    "code/mlfs/two.py": "def total():\n    from mlfs.core import data\n\n"
    "    return sum(map(int, data.load().split(',')))\n",
    "code/mlfs/book/__init__.py": "",
    "code/mlfs/book/claims.py": "from pathlib import Path\n\n\ndef verify(module):\n"
    "    folder = Path(__file__).parents[3] / '_build' / 'claims'\n"
    "    folder.mkdir(parents=True, exist_ok=True)\n"
    "    (folder / f'{module}.json').write_text('{\"claims\": []}')\n",
    "code/mlfs/book/exercises/__init__.py": "",
    "code/mlfs/book/exercises/two.py": "from mlfs.core.extra import thing\n",
    "code/mlfs/core/extra.py": "thing = 1\n",
    "tests/test_one.py": "from mlfs import one\nfrom oracles import slow\n",
    "tests/conftest.py": "",
    "tests/oracles/slow.py": "",
    "tests/oracles/table.csv": "1\n",
    "tests/test_two.py": "",
}
REAL = ("tools/fingerprint.py", "tools/execute_book.py", "book/_ext", "book/_static")
REAL += ("tools/notebooks.py", "tools/bundle.py", "tools/launch.py", "lite/launch.js")
REAL += ("_config.yml", "code/mlfs/book/chapters.py", "pyproject.toml")
REAL += ("LICENSE", "LICENSE-text")


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf8")


def edit(path, old, new):
    text = path.read_text("utf8")
    assert old in text
    path.write_text(text.replace(old, new), "utf8")


def run(root, *command):
    """Run in `root`, with neither the installed package's nor pytest's settings."""
    unwanted = ("PYTHON", "PYTEST", "COVERAGE")
    env = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
    return subprocess.run(
        [sys.executable, *command], cwd=root, env=env, capture_output=True, text=True
    )


def execute(root, *options):
    done = run(root, "tools/execute_book.py", "-j", "2", *options)
    lines = done.stdout.splitlines()
    ran = {
        line.split()[1]: line.split()[0]
        for line in lines
        if line[:4].strip("ok FAIL") == ""
    }
    return done, {page.removeprefix("book/"): word for page, word in ran.items()}


@pytest.fixture
def toy(tmp_path):
    """The toy's files alone: enough to take fingerprints."""
    write(tmp_path, TOY)
    return tmp_path


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The toy book, both its pages executed."""
    root = tmp_path_factory.mktemp("book")
    write(root, TOY)
    for name in REAL:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, root / name)
    done, ran = execute(root)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 pages to execute" in done.stdout
    assert ran == {"one.md": "ok", "two.md": "ok"}
    return root


@pytest.fixture
def book(executed, tmp_path):
    """A copy of the executed book to change at will."""
    return shutil.copytree(executed, tmp_path / "book")


# Fingerprints -----------------------------------------------------------------------


def test_only_code_cells_at_the_top_level_count():
    text = HEAD + (
        "```{code-cell} python\n:tags: [hide-input]\n:mystnb:\n:  image: x\n"
        "x = 1\n```\n"
        "````{note}\n```{code-cell} python\nnested\n```\n````\n"
        ":::{note}\n```{code-cell} python\nnested\n```\n:::\n"
        "<!--\n```{code-cell} python\ncommented out\n```\n-->\n"
        "```python\nshown\n```\n"
        "~~~{code-cell} python\n---\ntags: [a]\n---\ny = '''\n```\n'''\n~~~\n"
    )
    first, second = code_cells(text)
    assert (first.number, first.source) == (1, "x = 1")
    assert ":tags: [hide-input]" in first.options
    assert (second.number, second.source) == (2, "y = '''\n```\n'''")
    lines = text.splitlines()
    assert (lines[first.line - 1], lines[second.line - 1]) == ("x = 1", "y = '''")


def test_dependencies_are_followed_through_packages_functions_and_data(toy):
    found = {
        path.relative_to(toy).as_posix() for path in dependencies("book/two.md", toy)
    }
    assert found == {
        "book/two.md",
        "requirements.txt",
        "code/mlfs/__init__.py",
        "code/mlfs/two.py",
        "code/mlfs/core/__init__.py",
        "code/mlfs/core/data.py",
        "code/mlfs/data/numbers.csv",
    }


def test_a_page_that_verifies_depends_on_tests_and_oracles(toy):
    found = {
        path.relative_to(toy).as_posix() for path in dependencies("book/one.md", toy)
    }
    assert {"tests/test_one.py", "tests/conftest.py"} <= found
    assert {"tests/oracles/slow.py", "tests/oracles/table.csv"} <= found
    assert "tests/test_two.py" not in found
    assert "code/mlfs/data/numbers.csv" not in found
    assert verified("book/one.md", toy) == ["one"]
    assert verified("book/two.md", toy) == []


@pytest.mark.parametrize(
    "source",
    [
        "import mlfs.core.extra",
        "import mlfs.core.extra as e",
        "from mlfs.core import extra",
        "from mlfs.core.extra import thing",
        "from mlfs.core.extra import *",
        "def f():\n    from mlfs.core import extra",
        "from mlfs import relative",
        "from mlfs import package",
        'from mlfs.book.check import check\ncheck("two.f", None)',
        'from mlfs.book.check import check as c\nc("two.f", None)',
        'from mlfs import book\nbook.check.mine("two.f")',
    ],
)
def test_every_form_of_import_is_followed(toy, source):
    extra = {
        "code/mlfs/relative.py": "from .core import extra\n",
        "code/mlfs/package/__init__.py": "from ..core.extra import thing\n",
    }
    page = {"book/new.md": HEAD + f"```{{code-cell}} python\n{source}\n```\n"}
    write(toy, extra | page)
    before = fingerprint("book/new.md", toy)
    edit(toy / "code/mlfs/core/extra.py", "1", "2")
    assert fingerprint("book/new.md", toy) != before


@pytest.mark.parametrize(
    ("path", "old", "new", "changes"),
    [
        ("book/one.md", "Prose.", "Other prose.\n\n```python\nx\n```", False),
        ("book/one.md", "file_format", "title: One\nfile_format", False),
        ("book/one.md", "name: python3", "name: other", True),
        ("book/one.md", "== one.double(1)", "==  one.double(1)", True),
        ("book/one.md", "python\nassert", "python\n:tags: [x]\nassert", True),
        ("code/mlfs/one.py", "2", "3", True),
        ("code/mlfs/two.py", "sum", "max", False),
        ("code/mlfs/data/numbers.csv", "1", "7", False),
        ("tests/test_one.py", "slow", "fast", True),
        ("requirements.txt", "2", "3", True),
    ],
)
def test_what_changes_a_fingerprint(toy, path, old, new, changes):
    before = fingerprint("book/one.md", toy)
    assert fingerprint(toy / "book/one.md", toy) == before
    edit(toy / path, old, new)
    assert (fingerprint("book/one.md", toy) != before) is changes


def test_new_and_removed_files_change_a_fingerprint(toy):
    before = fingerprint("book/two.md", toy)
    write(toy, {"code/mlfs/data/more.csv": ""})
    more = fingerprint("book/two.md", toy)
    (toy / "code/mlfs/data/more.csv").unlink()
    assert more != before == fingerprint("book/two.md", toy)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%matplotlib inline", r"book/bad.md, code cell 2, line 12: .*without magics"),
        ("x = 1\ny = = 2", r"book/bad.md, code cell 2, line 13: invalid syntax"),
        (
            "from mlfs.book.check import check\ncheck(name, f)",
            r"book/bad.md, code cell 2: check\(\) wants a name in quotes",
        ),
        ("from mlfs import broken", r"code/mlfs/broken.py, line 1: "),
    ],
)
def test_cells_that_cannot_be_followed_are_refused(toy, cell, message):
    cells = (
        f"```{{code-cell}} python\nx = 1\n```\n\n```{{code-cell}} python\n{cell}\n```\n"
    )
    write(toy, {"book/bad.md": HEAD + cells, "code/mlfs/broken.py": "def f(:\n"})
    with pytest.raises(ValueError, match=message):
        fingerprint("book/bad.md", toy)


# Execution --------------------------------------------------------------------------


def test_an_unchanged_book_executes_nothing(book):
    done, ran = execute(book)
    assert done.returncode == 0
    assert done.stdout == "0 of 2 pages to execute\n"
    assert not ran


@pytest.mark.parametrize(
    ("path", "old", "new", "again"),
    [
        ("code/mlfs/one.py", "2 * x", "x + x", {"one.md"}),
        ("code/mlfs/data/numbers.csv", "1,", "5,", {"two.md"}),
        ("book/one.md", "Prose.", "Other prose.", set()),
        ("book/two.md", "total is", "the total is", {"two.md"}),
    ],
)
def test_a_change_executes_the_pages_that_depend_on_it(book, path, old, new, again):
    edit(book / path, old, new)
    done, ran = execute(book)
    assert done.returncode == 0, done.stderr
    assert set(ran) == again
    kept = list((book / "_build/.jupyter_cache/executed").iterdir())
    assert len(kept) == 2  # no outputs of an older state are left


def test_what_is_lost_is_executed_again(book):
    (book / "_build/claims/one.json").unlink()
    (book / "_build/execution-times.json").write_text("{")
    assert set(execute(book)[1]) == {"one.md"}
    assert (book / "_build/claims/one.json").is_file()
    shutil.rmtree(book / "_build/.jupyter_cache")
    assert set(execute(book)[1]) == {"one.md", "two.md"}
    times = json.loads((book / "_build/execution-times.json").read_text())
    assert set(times) == {"book/one.md", "book/two.md"}


def test_a_failing_cell_is_named_every_time(book):
    edit(book / "code/mlfs/one.py", "2 * x", "2 * x + 1")
    edit(book / "book/two.md", "total is", "sum is")
    done, ran = execute(book)
    assert done.returncode == 1
    assert ran == {"one.md": "FAIL", "two.md": "ok"}
    again, ran = execute(book)
    assert again.returncode == 1
    assert ran == {"one.md": "FAIL"}
    for stderr in (done.stderr, again.stderr):
        assert "book/one.md, code cell 2 (line 20):" in stderr
        assert "| assert one.double(2) == one.double(1) * 2" in stderr
        assert "AssertionError" in stderr
        assert "\x1b" not in stderr
    edit(book / "code/mlfs/one.py", "2 * x + 1", "2 * x")
    assert execute(book)[1] == {"one.md": "ok"}


def test_a_dead_kernel_a_slow_page_and_an_unreadable_one_are_named(book):
    edit(book / "book/one.md", "from mlfs import one", "import os\n\nos._exit(3)")
    edit(book / "book/two.md", "print(", "import time\n\ntime.sleep(60)\nprint(")
    done, ran = execute(book, "-t", "3")
    assert done.returncode == 1
    assert ran == {"one.md": "FAIL", "two.md": "FAIL"}
    assert re.search(r"one.md, code cell 1 (.|\n)*the kernel died", done.stderr)
    assert re.search(r"two.md, code cell 1 (.|\n)*may take 3 s in all", done.stderr)
    edit(book / "book/one.md", "os._exit(3)", "%time")
    edit(book / "book/two.md", "file_format: mystnb\n", "")
    done, ran = execute(book)
    assert done.returncode == 1
    assert ran == {"one.md": "FAIL", "two.md": "FAIL"}
    assert "book/one.md, code cell 1, line 18: invalid syntax" in done.stderr
    assert "book/two.md has code cells, but its front matter" in done.stderr


# The site ---------------------------------------------------------------------------


def build(root):
    tool = str(Path(sys.executable).with_name("jupyter-book"))
    done = run(root, tool, "build", "-W", "--keep-going", "-n", ".")
    return done.returncode, done.stdout + done.stderr


def test_the_plain_build_follows_the_same_rule(book):
    shutil.rmtree(book / "_build")
    code, said = build(book)
    assert code == 0, said
    page = book / "_build/html/book/one.html"
    assert "double is 4" in page.read_text("utf8")
    assert execute(book)[0].stdout == "0 of 2 pages to execute\n"

    edit(book / "code/mlfs/one.py", "2 * x", "3 * x")
    edit(book / "book/index.md", "one-double", "one-half")
    code, said = build(book)
    assert code != 0
    assert "equation not found: one-half" in said
    assert "double is 6" in page.read_text("utf8")
    assert "1 of 2 pages to execute" in said

    code, said = build(book)
    assert code != 0, "Sphinx alone would pass the second time"
    assert "equation not found: one-half" in said
    assert "0 of 2 pages to execute" in said

    edit(book / "book/index.md", "one-half", "one-double")
    edit(book / "code/mlfs/one.py", "3 * x", "3 * x + 1")
    code, said = build(book)
    assert code != 0
    assert "book/one.md, code cell 2 (line 20):" in said
    assert "AssertionError" in said
