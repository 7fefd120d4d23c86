"""JupyterLite as a reader meets it: press the button, Run All, the book's own numbers.

Chromium reaches no other host here, so JupyterLite must carry its Pyodide: run
`make book pyodide lite` first.
"""

import json
import re
from contextlib import contextmanager

import pytest

from mlfs.book.chapters import CHAPTERS, PARTS

from . import browser, lab
from .test_site import SITE

STANDING = [chapter for chapter in CHAPTERS if chapter.stands]
FIRST = [  # of each part of the book: its chapters are of one kind
    next((chapter.slug for chapter in STANDING if chapter.part == part), None)
    for part in PARTS
]
PAGES = [f"book/{slug}/coding" for slug in FIRST if slug]
LITE = SITE / "lite"


def why_not():
    """The reason why JupyterLite cannot be tried here, or nothing."""
    if browser.executable() is None:
        return f"no browser: none of {', '.join(browser.NAMES)} is on the path"
    if not (LITE / "lab" / "index.html").is_file():
        return "no JupyterLite in _build/html/lite: run `make lite`"
    if not (LITE / "static" / "pyodide" / "pyodide.js").is_file():
        return "JupyterLite has no Pyodide of its own: run `make pyodide lite`"
    return None


if why_not():
    pytest.skip(why_not(), allow_module_level=True)


@pytest.fixture(scope="module")
def address():
    with browser.serve(SITE) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as running:
        yield running


@contextmanager
def opened(context, address, name):
    """What the button of a page opens, in a window of its own."""
    page = context.new_page()
    page.goto(f"{address}/{name}.html")
    with context.expect_page() as new:
        name = re.compile("^Run.* in the browser")  # a narrow page shows the sign alone
        page.get_by_role("link", name=name).first.click()
    new.value.wait_for_function(lab.READY, timeout=lab.START)
    yield new.value
    new.value.close()
    page.close()


def outputs(cells):
    """Text and number of figures of each code cell but the one that installs."""
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    return [
        (
            "".join(map(lab.text, cell["outputs"])),
            sum("image/png" in output.get("data", {}) for output in cell["outputs"]),
        )
        for cell in code[1:]
    ]


def numbers(text):
    """The numbers in a text; times and addresses differ from run to run."""
    return [float(found) for found in re.findall(r"-?\d+\.\d+(?:e[-+]\d+)?", text)]


@pytest.mark.parametrize("name", PAGES)
def test_a_coding_evening_runs_in_the_browser(name, address, chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    outside = []
    context.on("request", lambda request: outside.append(request.url))
    with opened(context, address, name) as page:
        assert lab.misread(page) == []
        ran = lab.run_all(page)
    context.close()

    assert lab.errors(ran) == []
    assert lab.complaints(ran) == []
    built = json.loads((SITE / "_sources" / f"{name}.ipynb").read_text("utf8"))
    got, want = outputs(ran), outputs(built["cells"])
    assert [figures for _, figures in got] == [figures for _, figures in want]
    assert sum(figures for _, figures in got) > 0
    compared = 0
    for (here, _), (there, _) in zip(got, want, strict=True):
        if "second" not in there and " ms" not in there:
            assert numbers(here) == pytest.approx(numbers(there), rel=1e-6, abs=1e-9)
            compared += len(numbers(there))
    assert compared >= 10
    assert [
        url for url in outside if not url.startswith((address, "blob:", "data:"))
    ] == []


def test_work_is_there_again_after_a_reload(address, chromium):
    name, work = PAGES[0], "print('my own work')"
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    with opened(context, address, name) as page:
        at = next(at for at, source in enumerate(lab.code(lab.cells(page))) if source)
        lab.write(page, at, work)
        page.keyboard.press("ControlOrMeta+S")
        page.wait_for_function(lab.SAVED, timeout=lab.START)
        page.reload()
        page.wait_for_function(lab.READY, timeout=lab.START)
        assert lab.cells(page)[at]["source"] == work
    context.close()


@pytest.mark.parametrize(("scheme", "light"), [("dark", "false"), ("light", "true")])
def test_colours_follow_the_reader(scheme, light, address, chromium):
    context = chromium.new_context(color_scheme=scheme)
    with opened(context, address, PAGES[0]) as page:
        chosen = f'body[data-jp-theme-light="{light}"]'
        page.wait_for_selector(chosen, state="attached", timeout=lab.START)
    context.close()
