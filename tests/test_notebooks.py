"""The pages as notebooks: nothing of MyST is left, and nothing of the code changes."""

import re
import subprocess
import sys
import zipfile
from functools import cache, partial

import nbformat
import pytest

import bundle
import fingerprint
import launch
import notebooks

ROOT = fingerprint.ROOT
BOOK = notebooks.read_book(ROOT)
PAGES = sorted(BOOK.notebooks)

RAW = {  # what must not be left in any text
    "directive": re.compile(r"(?:`{3,}|:{3,}|~{3,})\{"),
    "role": re.compile(r"\{[a-zA-Z][\w:.-]*\}`"),
    "target": re.compile(r"^\([\w:.-]+\)=", re.MULTILINE),
    "page as a file": re.compile(r"\]\([^)\s]*\.md[)#]"),
    "option": re.compile(r"^:(?:class|label|name|pyobject|tags):", re.MULTILINE),
}

converted = cache(partial(notebooks.notebook, BOOK))
each_page = pytest.mark.parametrize("page", PAGES)


def texts(made):
    return [cell.source for cell in made.cells if cell.cell_type == "markdown"]


def prose(text):
    """A text without the code that it shows."""
    return re.sub(
        r"^( *)(`{3,})[^{].*?^\1\2$", "", text, flags=re.DOTALL | re.MULTILINE
    )


@each_page
@pytest.mark.parametrize("target", sorted(notebooks.KERNELS))
def test_nothing_of_myst_is_left(page, target):
    made = converted(page, target)
    for text in texts(made):
        for what, pattern in RAW.items():
            assert not pattern.search(prose(text)), f"{what} in {text[:300]}"
    assert made.metadata.kernelspec.name == notebooks.KERNELS[target]


@each_page
def test_code_cells_are_those_of_the_page(page):
    cells = fingerprint.code_cells((ROOT / page).read_text("utf8"))
    made = converted(page, "installed")
    code = [cell.source for cell in made.cells if cell.cell_type == "code"]
    assert code == [cell.source.rstrip("\n") for cell in cells]


@each_page
def test_the_same_page_gives_the_same_bytes(page):
    first = notebooks.text_of(converted(page, "lite"))
    again = notebooks.notebook(notebooks.read_book(ROOT), page, "lite")
    assert first == notebooks.text_of(again)
    nbformat.validate(nbformat.reads(first, as_version=4))


@each_page
def test_links_lead_to_notebooks_and_headings_that_there_are(page):
    made = converted(page, "installed")
    for text in texts(made):
        for target in re.findall(
            r"\]\(([^()\s]+\.ipynb|#)(?:#[^)\s]*)?\)", prose(text)
        ):
            path = (ROOT / page).parent / target
            other = path.resolve().relative_to(ROOT).with_suffix(".md").as_posix()
            assert other in BOOK.notebooks


@each_page
def test_folds_close_and_fences_close(page):
    for text in texts(converted(page, "installed")):
        bare = prose(text)
        assert bare.count("<details>") == bare.count("</details>")
        assert bare.count("<div") == bare.count("</div>")
        assert "```" not in bare
        assert bare.count("$$") % 2 == 0


# On a page of our own ---------------------------------------------------------------

FRONT = "---\nfile_format: mystnb\nkernelspec: {name: python3}\n---\n\n"
CELL = "```{code-cell} ipython3\n1 + 1\n```\n"
OTHER = (
    "(there)=\n# The other page\n\n```{math}\n:label: first\na = b\n```\n\n"
    "$$\nc = d\n$$ (second)\n"
)


@pytest.fixture
def page_of(tmp_path):
    """Makes the cells of a page from its text; `b/other` stands beside it."""

    def make(text, target="installed"):
        (tmp_path / "book").mkdir(exist_ok=True)
        (tmp_path / "_toc.yml").write_text(
            "root: book/other\nparts: [{chapters: [{file: book/page}]}]\n"
        )
        url = "https://github.com/Some-One/a-book"
        (tmp_path / "_config.yml").write_text(f"repository: {{url: {url}}}\n")
        (tmp_path / "pyproject.toml").write_text(
            '[project]\nname = "mlfs"\nversion = "0.1.0"\n'
        )
        (tmp_path / "book" / "other.md").write_text(OTHER)
        (tmp_path / "book" / "page.md").write_text(FRONT + text + "\n" + CELL)
        (tmp_path / "book" / "a.bib").write_text(
            '@book{one, author = {S{\\"a}rkk{\\"a}, Simo}, year = {2013}}\n'
            "@book{two, author = {A, B and {The Lab}}, year = {2014}}\n"
            "@book{three, author = {Ann Bee and C, D and E, F},\n year={2015}}\n"
        )
        (tmp_path / "book" / "code.py").write_text(
            "import os\n\n\n@cache\ndef f(x):\n    return x\n\n\n"
            "class C:\n    def g(self):\n        return 1\n"
        )
        book = notebooks.read_book(tmp_path)
        return notebooks.notebook(book, "book/page.md", target)

    return make


def first_text(made):
    text = made.cells[0].source
    return re.sub(r"\n\n\*This notebook is .*?\*$", "", text, flags=re.MULTILINE)


SITE = "https://some-one.github.io/a-book/"


@pytest.mark.parametrize(
    ("myst", "markdown"),
    [
        ("See {eq}`second`.", f"See [(2)]({SITE}book/other.html)."),
        ("See {ref}`there`.", f"See [The other page]({SITE}book/other.html)."),
        ("See {ref}`it <there>`.", f"See [it]({SITE}book/other.html)."),
        ("See {doc}`other`.", f"See [The other page]({SITE}book/other.html)."),
        ("[it](other.md#there)", f"[it]({SITE}book/other.html)"),
        ("[it](https://a.b/c.md)", "[it](https://a.b/c.md)"),
        ("`a[i](b.md)` and `{x}`", "`a[i](b.md)` and `{x}`"),
        ("{cite:t}`one`", "Särkkä (2013)"),
        ("{cite:p}`one,two`", "(Särkkä, 2013; A and The Lab, 2014)"),
        ("{cite:t}`three`", "Bee et al. (2015)"),
        (
            "{term}`the gain <Kalman gain>`",
            f"[the gain]({SITE}book/glossary.html#term-Kalman-gain)",
        ),
        (
            "{py:func}`~mlfs.hmm.smooth`",
            f"[`smooth`]({SITE}book/api.html#mlfs.hmm.smooth)",
        ),
        ("{new:role}`words <somewhere>`", "words"),
        ("```{math}\n:label: third\nx\n```", "$$\nx\n\\tag{3}\n$$"),
        ("$$\nx \\\\\ny\n$$", "$$\n\\begin{split}\nx \\\\\ny\n\\end{split}\n$$"),
        (
            "```{admonition} Hint\n:class: dropdown\nUse $x$.\n```",
            "<details>\n<summary>Hint</summary>\n\nUse $x$.\n\n</details>",
        ),
        (
            ":::{warning}\nHot.\n:::",
            '<div class="alert alert-warning">\n\n**Warning**\n\nHot.\n\n</div>',
        ),
        (
            "```{literalinclude} code.py\n:pyobject: f\n```",
            "```python\n@cache\ndef f(x):\n    return x\n```",
        ),
        (
            "```{literalinclude} code.py\n:pyobject: C.g\n```",
            "```python\ndef g(self):\n    return 1\n```",
        ),
        (
            '```{literalinclude} code.py\n:start-after: "os"\n:end-before: def\n```',
            "```python\n@cache\n```",
        ),
        (
            "- one\n\n  ```{note}\n  In a list.\n  ```",
            '- one\n\n  <div class="alert alert-info">\n\n  **Note**\n\n'
            "  In a list.\n\n  </div>",
        ),
        (
            "```{prerequisites}\n```",
            f"*(What stands here is on [the page of the book]({SITE}book/page.html).)*",
        ),
        (
            "````{prf:theorem} Big\n:label: big\n\nTrue.\n````",
            '<div class="alert alert-info">\n\n**Theorem: Big**\n\nTrue.\n\n</div>',
        ),
        ("(label)=\n% a remark\nText", "Text"),
    ],
)
def test_myst_becomes_markdown(page_of, myst, markdown):
    assert first_text(page_of(myst)) == markdown


def test_an_equation_of_the_same_page_needs_no_link(page_of):
    made = page_of("```{math}\n:label: own\nx\n```\n\nBy {eq}`own`.")
    assert "By (3)." in first_text(made)


@pytest.mark.parametrize(
    "myst", ["{eq}`nowhere`", "{ref}`nowhere`", "{cite:p}`nobody2000`"]
)
def test_a_dead_reference_is_an_error(page_of, myst):
    with pytest.raises(ValueError, match=r"book/page\.md.*no"):
        page_of(myst)


def test_a_caption_stands_beneath_its_figure(page_of):
    options = (
        "---\nmystnb:\n  figure:\n    caption: What $x$ does\n    name: fig-x\n---\n"
    )
    cell = f"```{{code-cell}} ipython3\n{options}plot()\n```\n"
    made = page_of(f"# Page\n\n{cell}\nSee {{numref}}`fig-x`.")
    sources = [cell.source for cell in made.cells]
    assert sources[1:4] == ["plot()", "*Fig. 1.* What $x$ does", "See Fig. 1."]


def test_tags_are_kept_and_hidden_input_is_hidden(page_of):
    made = page_of("```{code-cell}\n:tags: [hide-input]\n2\n```")
    assert made.cells[0].metadata == {
        "tags": ["hide-input"],
        "jupyter": {"source_hidden": True},
    }


def test_outputs_are_merged_and_other_cells_refused(page_of, tmp_path):
    page_of("# Page")
    book = notebooks.read_book(tmp_path)
    run = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    run.cells[0].outputs = [
        nbformat.v4.new_output("execute_result", {"text/plain": "2"}, execution_count=9)
    ]
    made = notebooks.notebook(book, "book/page.md", "download", run)
    assert made.cells[-1].outputs[0].data == {"text/plain": "2"}
    assert made.cells[-1].execution_count == made.cells[-1].outputs[0].execution_count
    run.cells[0].source = "1 + 2"
    with pytest.raises(ValueError, match="other cells"):
        notebooks.notebook(book, "book/page.md", "download", run)


# What is downloaded -----------------------------------------------------------------


def test_the_wheel_installs_and_knows_what_was_verified(tmp_path):
    wheel = bundle.write_wheel(ROOT, tmp_path)
    assert wheel.read_bytes() == bundle.write_wheel(ROOT, tmp_path / "b").read_bytes()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    target = tmp_path / "there"
    options = ["--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, "install", *options, str(wheel)], check=True)
    code = (
        "import mlfs, sys; from mlfs.core import data; data.load('digits');"
        "assert mlfs.__file__.startswith(sys.argv[1])"
    )
    run = [sys.executable, "-W", "error", "-c", code, str(target)]
    subprocess.run(run, check=True, env={"PYTHONPATH": str(target)}, cwd=tmp_path)


def test_the_zip_holds_all_that_running_it_needs(tmp_path):
    made = {"book/a/coding.ipynb": "{}"}
    files = launch.whole_book(ROOT, made)
    bundle.pack(tmp_path / "a.zip", files)
    bundle.pack(tmp_path / "b.zip", launch.whole_book(ROOT, made))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = set(archive.namelist())
    wanted = (
        "README.md",
        "LICENSE",
        "LICENSE-text",
        "requirements.txt",
        "book/a/coding.ipynb",
    )
    data = ("code/mlfs/__init__.py", "code/mlfs/data/digits.npz", "pyproject.toml")
    assert {f"mlfs-book/{name}" for name in (*wanted, *data)} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_the_first_cell_finds_the_package_of_the_zip(tmp_path, monkeypatch):
    (tmp_path / "code" / "mlfs").mkdir(parents=True)
    (tmp_path / "book" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "book" / "a")
    monkeypatch.setattr(sys, "path", [])
    cell = notebooks.INSTALL_HERE.format(wheel="W").replace(
        "%pip", "raise ValueError #"
    )
    exec(cell, {})
    assert sys.path == [str(tmp_path / "code")]
