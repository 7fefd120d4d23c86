"""What readers take away: executed notebooks that agree with the pages, and the zip."""

import re
import subprocess
import sys
import zipfile
from functools import cache

import nbformat
import pytest
from nbclient import NotebookClient

import launch
import notebooks

from .test_site import SITE, parse

BOOK = notebooks.read_book(launch.ROOT)
NAMES = sorted(page.removesuffix(".md") for page in BOOK.notebooks)
TRIED = "book/hidden-markov-models/coding.ipynb"  # run from the zip, on its own

each = pytest.mark.parametrize("name", NAMES)


@cache
def notebook(name):
    """The notebook that the page's button gives."""
    return nbformat.read(SITE / "_sources" / f"{name}.ipynb", as_version=4)


def prose(name):
    cells = notebook(name).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@each
def test_page_offers_its_notebook_and_the_whole_book(name):
    links = parse(f"{name}.html").links
    assert [link for link in links if link.endswith(f"_sources/{name}.ipynb")]
    assert [link for link in links if link.endswith(launch.ZIP)]
    binder = [link for link in links if link.startswith("https://mybinder.org")]
    assert [link for link in binder if link.endswith(f"tree/notebooks/{name}.ipynb")]


@each
def test_notebook_is_executed(name):
    nbformat.validate(notebook(name))
    code = [cell for cell in notebook(name).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code[1:])
    assert any(cell.outputs for cell in code)


@each
def test_equations_and_figures_have_the_numbers_of_the_page(name):
    text = parse(f"{name}.html").text
    equations = re.findall(r'class="eqno">\((\d+)\)', text)
    assert re.findall(r"\\tag\{(\d+)\}", prose(name)) == equations
    figures = re.findall(r'class="caption-number">Fig\. (\d+)', text)
    assert re.findall(r"^\*Fig\. (\d+)\.\*", prose(name), re.MULTILINE) == figures


@each
def test_links_to_the_site_lead_to_what_there_is(name):
    found = re.findall(
        rf"\]\({re.escape(BOOK.site)}([^()\s#]+)(?:#([^()\s]+))?\)", prose(name)
    )
    assert found
    for path, anchor in found:
        assert (SITE / path).is_file()
        assert not anchor or anchor in parse(path).ids, f"{path}#{anchor}"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("download")
    with zipfile.ZipFile(SITE / launch.ZIP) as archive:
        archive.extractall(folder)
    return folder / launch.FOLDER


def test_zip_has_every_notebook(unpacked):
    for name in NAMES:
        there = (unpacked / f"{name}.ipynb").read_bytes()
        assert there == (SITE / "_sources" / f"{name}.ipynb").read_bytes()
    assert notebooks.site_address(launch.ROOT) in (unpacked / "README.md").read_text()


def test_a_notebook_of_the_zip_runs_with_the_package_beside_it(unpacked):
    tried = nbformat.read(unpacked / TRIED, as_version=4)
    tried.cells.append(nbformat.v4.new_code_cell("import mlfs; print(mlfs.__file__)"))
    folder = str((unpacked / TRIED).parent)
    resources = {"metadata": {"path": folder}}
    NotebookClient(tried, timeout=300, resources=resources).execute()
    assert tried.cells[-1].outputs[0].text.startswith(str(unpacked / "code"))


def test_the_claims_of_a_page_are_in_the_zip(unpacked):
    code = "from mlfs.book.claims import verify; print(verify('hmm'))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=unpacked / "code",
        env={"PYTHONPATH": str(unpacked / "code")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Recorded when the book was built" in run.stdout
    assert "hmm-forward" in run.stdout
