"""Laying out a chapter, and the contract: what is laid out lacks just what it says."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import new_chapter
from mlfs.book import contract
from mlfs.book.chapters import CHAPTERS, PARTS, ROOT, by_slug

ONE, TWO = by_slug("gaussian-processes"), by_slug("kalman-and-particle-filters")
TOC = """\
format: jb-book
root: book/index
parts:
  - caption: Seminar
    chapters:
      - file: book/seminar/index # first

  - caption: Inference
    chapters:
      - file: book/hidden-markov-models/theory
        sections:
          - file: book/hidden-markov-models/coding

  # what is looked up
  - caption: Reference
    chapters:
      - file: book/notation
"""


@pytest.fixture
def root(tmp_path):
    """A folder that holds a table of contents and nothing else."""
    (tmp_path / "_toc.yml").write_text(TOC, encoding="utf-8")
    return tmp_path


def lay_out(root, *chapters):
    for chapter in chapters:
        assert new_chapter.main([chapter.slug, "--root", str(root)]) == 0


def repository(root):
    """Fill a folder with what a chapter stands on, and none of the chapters."""
    unwritten = {f"{m}.py" for chapter in CHAPTERS for m in chapter.modules}
    dropped = shutil.ignore_patterns("__pycache__", *unwritten)
    shutil.copytree(ROOT / "code" / "mlfs", root / "code" / "mlfs", ignore=dropped)
    (root / "tests" / "oracles").mkdir(parents=True)
    for name in ("conftest.py", "test_book.py", "oracles/__init__.py"):
        shutil.copy(ROOT / "tests" / name, root / "tests" / name)
    shutil.copy(ROOT / "pyproject.toml", root)


def tree(root):
    """Every file and what it holds."""
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


# ---------------------------------------------------------------- the layout


@pytest.mark.parametrize("chapter", [ONE, TWO], ids=lambda c: c.slug)
def test_what_is_laid_out_lacks_what_it_says_and_nothing_else(root, chapter):
    lay_out(root, chapter)
    found = contract.problems(chapter, root)
    todo = [problem for problem in found if "TODO left" in problem]
    for name in contract.files(chapter):
        assert any(problem.startswith(f"{name}: ") for problem in todo), name
    theory = contract.pages(chapter)[0]
    rest = [problem for problem in found if problem not in todo]
    assert rest == [f"{theory}: 4 asserts in its cells, wants at least 5"]


def test_every_heading_has_a_note_on_what_goes_there(root):
    lay_out(root, ONE)
    for name in contract.pages(ONE):
        page = contract.read_page((root / name).read_text(encoding="utf-8"))
        assert all("TODO: " in section.prose for section in page.sections)


def test_every_chapter_can_be_laid_out_in_style(root):
    """One folder with all of them: the checks of `make check` find nothing to say."""
    repository(root)
    lay_out(root, *CHAPTERS)
    laid = [name for chapter in CHAPTERS for name in contract.files(chapter)]
    sources = [name for name in laid if name.endswith(".py")]
    for command in (["check"], ["format", "--check"]):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", *sources],
            cwd=root,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stdout + run.stderr


def test_in_a_repository_its_own_tests_pass_and_the_contract_says_what_is_missing(root):
    """The layout runs: only the unwritten pages fail."""
    repository(root)
    lay_out(root, TWO)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    run = subprocess.run(
        [*command, "-k", "not shared_code"],  # its equations are on pages not copied
        cwd=root,
        env=environment | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    failed = [line for line in run.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1, run.stdout[-3000:]
    assert f"test_chapter_holds_to_the_contract[{TWO.slug}]" in failed[0]
    assert f"book/{TWO.slug}/theory.md: line" in run.stdout
    assert "tests/test_particle.py: line 1: TODO left" in run.stdout
    assert f"test_exercises_prove_themselves[{TWO.slug}-kalman]" not in run.stdout


# ---------------------------------------------------------------- what it refuses


@pytest.mark.parametrize("name", contract.files(ONE))
def test_nothing_is_overwritten(root, capsys, name):
    (root / name).parent.mkdir(parents=True)
    (root / name).write_text("mine", encoding="utf-8")
    before = tree(root)
    assert new_chapter.main([ONE.slug, "--root", str(root)]) == 1
    said = capsys.readouterr().out
    assert [line.strip() for line in said.splitlines()[1:]] == [name]
    assert tree(root) == before


def test_a_second_time_names_every_file(root, capsys):
    lay_out(root, TWO)
    before = tree(root)
    capsys.readouterr()
    assert new_chapter.main([TWO.slug, "--root", str(root)]) == 1
    said = capsys.readouterr().out.splitlines()[1:]
    assert sorted(map(str.strip, said)) == sorted(contract.files(TWO))
    assert tree(root) == before


def test_unknown_name_lists_those_there_are(root, capsys):
    assert new_chapter.main(["gaussian-process", "--root", str(root)]) == 2
    said = capsys.readouterr().out
    assert "'gaussian-process'" in said
    assert all(f"  {chapter.slug}\n" in said for chapter in CHAPTERS)
    assert list(tree(root)) == [root / "_toc.yml"]


@pytest.mark.parametrize("arguments", [[], [""]])
def test_no_name_shows_the_usage(capsys, arguments):
    assert new_chapter.main(arguments) == 2
    assert "usage: new_chapter.py" in capsys.readouterr().out


def test_without_a_table_of_contents_nothing_is_written(tmp_path, capsys):
    assert new_chapter.main([ONE.slug, "--root", str(tmp_path)]) == 2
    assert "_toc.yml" in capsys.readouterr().out
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
    assert new_chapter.main([ONE.slug, "--root", str(tmp_path)]) == 2
    assert list(tree(tmp_path)) == [tmp_path / "_toc.yml"]


def test_it_says_what_to_do_next(root, capsys):
    lay_out(root, ONE)
    said = capsys.readouterr().out
    assert all(f"  {name}\n" in said for name in contract.files(ONE))
    assert f"tests/test_book.py -k {ONE.slug}" in said


# ---------------------------------------------------------------- table of contents


def listed(toc):
    """(caption, files of its pages, coding pages below them) of each part."""
    return [
        (
            part["caption"],
            [page["file"] for page in part["chapters"]],
            [s["file"] for page in part["chapters"] for s in page.get("sections", ())],
        )
        for part in yaml.safe_load(toc)["parts"]
    ]


def slugs(pages, name):
    return [f"book/{slug}/{name}" for slug in pages]


def only_adds(old, new):
    """Whether every line of the old text is in the new one, in its order."""
    rest = iter(new.splitlines())
    return all(line in rest for line in old.splitlines())


@pytest.mark.parametrize(
    ("slug", "part", "pages"),
    [
        ("generalized-linear-models", 1, [0, "hidden-markov-models"]),
        ("gaussian-processes", 1, ["hidden-markov-models", 0]),
        ("automatic-differentiation", 1, [0]),  # a part before the one that is there
        ("actor-critic", 2, [0]),
        ("transformers", 2, [0]),
    ],
)
def test_pages_are_listed_in_the_order_of_the_table(slug, part, pages):
    chapter = by_slug(slug)
    new = new_chapter.with_chapter(TOC, chapter)
    pages = [page or slug for page in pages]
    want = (chapter.part, slugs(pages, "theory"), slugs(pages, "coding"))
    assert listed(new)[part] == want
    assert only_adds(TOC, new)
    added = len(new.splitlines()) - len(TOC.splitlines())
    assert added == (3 if len(pages) > 1 else 5)
    others = [row for row in listed(new) if row[0] != chapter.part]
    assert others == [row for row in listed(TOC) if row[0] != chapter.part]


@pytest.mark.parametrize("order", [1, -1, 7], ids=["forwards", "backwards", "mixed"])
def test_all_chapters_end_in_the_order_of_the_table(order):
    toc = TOC
    shuffled = sorted(CHAPTERS, key=lambda c: CHAPTERS.index(c) * order % len(CHAPTERS))
    for chapter in shuffled:
        new = new_chapter.with_chapter(toc, chapter)
        assert only_adds(toc, new)
        toc = new
    captions = [caption for caption, _, _ in listed(toc)]
    assert captions == ["Seminar", *PARTS, "Reference"]
    pages = [page for _, theory, _ in listed(toc)[1:-1] for page in theory]
    assert pages == slugs([chapter.slug for chapter in CHAPTERS], "theory")
    for chapter in CHAPTERS:
        assert new_chapter.with_chapter(toc, chapter) == toc


def test_lists_without_extra_indentation_keep_theirs():
    flat = (
        "format: jb-book\nroot: book/index\nparts:\n- caption: Networks\n  chapters:\n"
    )
    flat += "  - file: book/neural-odes/theory\n    sections:\n"
    flat += "    - file: book/neural-odes/coding"  # and no newline at the end
    new = new_chapter.with_chapter(flat, by_slug("transformers"))
    pages = ["transformers", "neural-odes"]
    want = ("Networks", slugs(pages, "theory"), slugs(pages, "coding"))
    assert listed(new) == [want]
    assert "\n  - file: book/transformers/theory\n" in new
    new = new_chapter.with_chapter(flat, ONE)
    assert [caption for caption, _, _ in listed(new)] == ["Inference", "Networks"]


# ---------------------------------------------------------------- the contract


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A chapter with every TODO of the layout done: nothing is left to mend."""
    root = tmp_path_factory.mktemp("finished")
    (root / "_toc.yml").write_text(TOC, encoding="utf-8")
    lay_out(root, ONE)
    (root / "book" / "references.bib").write_text("@book{mackay2003,\n title={x}\n}\n")
    for name in contract.files(ONE):
        text = (root / name).read_text(encoding="utf-8").replace("TODO", "Done")
        (root / name).write_text(text, encoding="utf-8")
    theory = root / contract.pages(ONE)[0]
    text = theory.read_text(encoding="utf-8")
    text = text.replace("style.use()", "style.use()\nassert True")
    theory.write_text(text + "\nSee {cite:t}`mackay2003`.\n", encoding="utf-8")
    return root


def test_a_finished_chapter_has_no_problems(finished):
    assert contract.problems(ONE, finished) == []


THEORY, CODING = contract.pages(ONE)
CODE, TESTS, ORACLE, EXERCISES = contract.module_files("gp")
REAL = new_chapter.ABOUT_THEORY["On real data"]
ALT = "Done what the picture shows, for somebody who cannot see it"
BREAKS = [
    (THEORY, "## It runs\n", "", "no section 'It runs'"),
    (
        THEORY,
        "## It runs\n",
        "## It walks\n",
        "'It walks' is not one of the contract's",
    ),
    (THEORY, "## Verified\n", "## Verified\n\nx\n\n## Verified\n", "in the order"),
    (THEORY, "\n# Gaussian", "\n# A\n# Gaussian", "headings of level one"),
    (THEORY, "kernelspec:", "kernel:", "no kernelspec"),
    (THEORY, f"Done: {REAL}", "<!-- -->", "section 'On real data' is empty"),
    (THEORY, "assert True", "", "4 asserts"),
    (THEORY, 'verify("gp")', "verify(name)", 'no cell calls verify("gp")'),
    (THEORY, ":label: gp-first", ":label: gp-1st", "gp-first labels no equation"),
    (
        THEORY,
        ":label: gp-first",
        ":label: first",
        "label 'first' wants to open with gp-",
    ),
    (THEORY, ":label: gp-first", ":label: hmm-first", "'hmm-first' wants to open with"),
    (THEORY, f":    alt: {ALT}", "", "no alt text"),
    (THEORY, ALT, "gp.png", "alt text is a file name"),
    (THEORY, ALT, "A curve.", "alt text has 8 characters"),
    (THEORY, "Done: every step", "Obviously every step", "filler: 'obviously'"),
    (THEORY, "Done: every step", "TODO: every step", "TODO left"),
    (THEORY, "`mackay2003`", "`mackay2003,bishop`", "cites 'bishop'"),
    (THEORY, "import numpy as np", "import numpy as", "not Python"),
    (THEORY, "assert True", "assert np.random.rand() < 1", "take an rng instead"),
    (THEORY, "assert True", "np.linalg.inv(x); assert True", "factorise and solve"),
    (THEORY, "assert True", 'assert check("gp.fifth", f)', "no such exercise"),
    (CODING, "## Hard mode\n", "", "no section 'Hard mode'"),
    (CODING, "## Exercise 2:", "## Exercise 3:", "numbered [1, 3, 3, 4]"),
    (CODING, "## Exercise 2: Done", "## Exercise two: Done", "'Exercise two: Done"),
    (CODING, "raise NotImplementedError", "return x", "no stub of first that raises"),
    (CODING, "def first(x)", "def primus(x)", "no stub of first that raises"),
    (CODING, 'check("gp.first"', 'check("gp.frist"', "there is no such exercise"),
    (CODING, 'check("gp.first"', 'mine("gp.first"', "no cell that calls check"),
    (CODING, 'check("gp.first"', 'mine("gp.first"', "no cell checks gp.first"),
    (CODING, "{admonition} Hint\n:class: dropdown", "{admonition} Hint", "folded hint"),
    (CODING, "{admonition} Solution\n:class: dropdown", "{note}", "folded solution"),
    (CODING, "{literalinclude}", "{include}", "folded solution that shows"),
    (CODE, "# eq gp-second", "# eq gp-none", "gp-none labels no equation"),
    (CODE, "# eq gp-second", "# eq gp-second, gp-none", "no claim for gp-none"),
    (CODE, "def first(", "def first((", "not Python"),
    (TESTS, '"gp-second"', '"gp-third"', "no claim for gp-second"),
    (TESTS, '"gp-second"', "LABEL", "line 28: claim wants its label and kind as texts"),
    (TESTS, 'kind="exact"', "kind=KIND", "claim wants its label and kind as texts"),
    (TESTS, 'kind="exact"', 'kind="law"', "no claim of kind exact"),
    (TESTS, 'kind="library"', 'kind="law"', "no claim of kind library or published"),
    (TESTS, '"gp-second"', '"gp-none"', "claims gp-none, which labels no equation"),
    (TESTS, "from oracles import gp as", "import", "does not import oracles.gp"),
    (ORACLE, "import numpy as np", "from mlfs import gp", "imports from mlfs"),
    (ORACLE, "import numpy as np", "import mlfs.core.data", "imports from mlfs"),
    (EXERCISES, 'name="second"', 'name="zweite"', "no cell checks gp.zweite"),
    (EXERCISES, 'name="second"', "name=NAME", "whose name does not stand there"),
]


@pytest.mark.parametrize(("name", "old", "new", "problem"), BREAKS)
def test_every_rule_of_the_contract_can_be_broken(
    finished, tmp_path, name, old, new, problem
):
    root = tmp_path / "book of one"
    shutil.copytree(finished, root)
    text = (root / name).read_text(encoding="utf-8")
    assert old in text
    (root / name).write_text(text.replace(old, new), encoding="utf-8")
    found = contract.problems(ONE, root)
    assert any(problem in line for line in found), found


@pytest.mark.parametrize("name", contract.files(ONE))
def test_a_missing_file_is_named(finished, tmp_path, name):
    root = tmp_path / "book of one"
    shutil.copytree(finished, root)
    (root / name).unlink()
    assert f"{name}: missing" in contract.problems(ONE, root)


def test_labels_of_shared_code_want_a_page_and_a_claim(finished, tmp_path):
    root = tmp_path / "book of one"
    shutil.copytree(finished, root)
    shared = root / "code" / "mlfs" / "core" / "nn.py"
    shared.parent.mkdir()
    shared.write_text("x = 1  # eq gp-first\n")
    assert contract.problems_of_core(root) == []
    shared.write_text("x = 1  # eq gp-none\n")
    assert contract.problems_of_core(root) == [
        "code/mlfs/core/nn.py: gp-none labels no equation of any theory page",
        "code/mlfs/core/nn.py: no test has a claim for gp-none",
    ]


# ---------------------------------------------------------------- reading pages


def drawing(*sources):
    """Which of some cells draw."""
    text = "".join(
        f"```{{code-cell}} ipython3\n{source}\n```\n\n" for source in sources
    )
    good, bad = contract.cells(contract.read_page(text).fences)
    assert not bad
    shown = contract.drawing(good)
    return [cell in shown for cell in good]


@pytest.mark.parametrize(
    "source",
    [
        "plt.plot(x)",
        "fig, ax = plt.subplots()",
        "ax.plot(x)",
        "axes[0].imshow(x)",
        "for ax in axes:\n    ax.scatter(x, y)",
        "figure, axes = style.panels()",
        "from mlfs.book.style import panels\npanels()",
        "from matplotlib.pyplot import figure\nfigure()",
        ":tags: [hide-input]\n\n%matplotlib inline\nplt.show()",
    ],
)
def test_cells_that_draw(source):
    assert drawing(source) == [True]


@pytest.mark.parametrize(
    "source",
    [
        "import matplotlib.pyplot as plt\nfrom mlfs.book import style\nstyle.use()",
        "plt.rcParams.update({})",
        "plt.style.use('default')",
        "print(model.plot)",
        "def draw(ax):\n    ax.plot(x)",
        "plan = story.plotted(x)",
        "colour = style.BLUE",
    ],
)
def test_cells_that_do_not_draw(source):
    assert drawing(source) == [False]


def test_a_function_that_draws_draws_where_it_is_called():
    source = "def show(x):\n    axes.plot(x)"
    assert drawing(source, "show(1)", "f(1)") == [False, True, False]


PAGE = """\
---
kernelspec: {name: python3}
---

(anchor)=
# Title

## One

Prose with `code` and a
``` not a fence, it has ` in it

````{admonition} Solution, long
:class: tip, dropdown

## not a heading

```{literalinclude} a.py
:pyobject: f
```

```{math}
:label: toy-nested
x
```
````

<!--
## not one either
-->

## Two

```{code-cell} ipython3
---
mystnb:
  image:
    alt: >-
      A long text on
      two lines
tags: [hide-input]
---
# a comment, not a title
f()
```

```python
## nor this
```

:::{figure} a.png
:alt: "Quoted"
:::

$$
x = y
$$ (toy-dollar)

## Three

(only-an-anchor)=
### Only a heading
% and a comment
"""


def test_pages_are_read_as_they_are_meant():
    page = contract.read_page(PAGE)
    assert page.titles == ("Title",)
    assert page.headings == ("One", "Two", "Three")
    assert [section.empty for section in page.sections[1:]] == [False, False, True]
    named = [(fence.name, fence.line) for fence in page.fences]
    assert named == [
        ("admonition", 13),
        ("literalinclude", 18),
        ("math", 22),
        ("code-cell", 34),
        ("", 47),
        ("figure", 51),
    ]
    solution, shown, _, cell, _, figure = page.fences
    assert solution.folded and solution.argument == "Solution, long"
    assert shown.option("pyobject") == "f" and not shown.folded
    assert cell.option("alt") == "A long text on two lines"
    assert cell.body.startswith("# a comment")
    assert figure.option("alt") == "Quoted"
    assert set(page.labels) == {"toy-nested", "toy-dollar"}
    for fence in page.fences:
        assert fence.name in PAGE.splitlines()[fence.line - 1]


def test_keys_of_citations():
    text = "{cite}`a` {cite:p}`b, c` {cite:t}`{see}d{p. 3}` {ref}`e` `f`"
    assert contract.cited(text) == ["a", "b", "c", "d"]


def test_files_of_the_contract_are_those_of_the_table():
    for chapter in CHAPTERS:
        known = {path.relative_to(ROOT) for path in chapter.files}
        assert known <= set(map(Path, contract.files(chapter)))
