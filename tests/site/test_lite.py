"""JupyterLite as a reader meets it: press the button, Run All, the book's own numbers.

Chromium reaches no other host here, so JupyterLite must carry its Pyodide: run
`make book pyodide lite` first.
"""

import json
import re

import pytest

from . import browser
from .test_site import SITE

PAGES = (
    "book/hidden-markov-models/coding",
    "book/automatic-differentiation/coding",
)
LITE = SITE / "lite"
START = 120_000  # ms that JupyterLab may take to open a notebook
RUN = 400_000  # ms for all of its cells, the start of Python included

READY = """() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    return panel?.content?.model?.cells?.length > 5
        && panel.sessionContext?.isReady && !panel.isDisposed;
}"""
NOTEBOOK = "() => window.jupyterapp.shell.currentWidget.content.model.toJSON()"
DONE = """() => {
    const panel = window.jupyterapp.shell.currentWidget;
    const cells = panel.content.model.toJSON().cells;
    const code = cells.filter((c) => c.cell_type === "code");
    const failed = code.some((c) => c.outputs.some((o) => o.output_type === "error"));
    return failed || code.every((c) => c.execution_count);
}"""


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


def outputs(notebook):
    """Text and number of figures of each code cell but the one that installs."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [
        (
            "".join(_text(output) for output in cell["outputs"]),
            sum("image/png" in output.get("data", {}) for output in cell["outputs"]),
        )
        for cell in code[1:]
    ]


def _text(output):
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    text = "".join(text)
    return "" if "image/png" in output.get("data", {}) else text


def numbers(text):
    """The numbers in a text; times and addresses differ from run to run."""
    return [float(found) for found in re.findall(r"-?\d+\.\d+(?:e[-+]\d+)?", text)]


@pytest.mark.parametrize("name", PAGES)
def test_a_coding_evening_runs_in_the_browser(name, address, chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    outside, page = [], context.new_page()
    context.on("request", lambda request: outside.append(request.url))
    page.goto(f"{address}/{name}.html")
    with context.expect_page() as opened:
        page.get_by_role("link", name="Run in the browser").first.click()
    lab = opened.value
    lab.wait_for_function(READY, timeout=START)
    lab.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
    lab.get_by_text("Run All Cells", exact=True).first.click()
    lab.wait_for_function(DONE, timeout=RUN, polling=1000)
    ran = lab.evaluate(NOTEBOOK)
    context.close()

    errors = [
        (cell["source"][:200], output["evalue"])
        for cell in ran["cells"]
        for output in cell.get("outputs", [])
        if output["output_type"] == "error"
    ]
    assert errors == []
    built = json.loads((SITE / "_sources" / f"{name}.ipynb").read_text("utf8"))
    got, want = outputs(ran), outputs(built)
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
