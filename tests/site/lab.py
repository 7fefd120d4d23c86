"""A notebook in JupyterLab or JupyterLite, worked through its interface."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Page

START = 180_000  # ms that the interface may take to open a notebook
RUN = 600_000  # ms for all of its cells, the start of Python included

READY = """() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    return panel?.content?.model?.cells?.length > 5
        && panel.sessionContext?.isReady && !panel.isDisposed;
}"""
NOTEBOOK = "() => window.jupyterapp.shell.currentWidget.content.model.toJSON()"
SAVED = "() => !window.jupyterapp.shell.currentWidget.context.model.dirty"
DONE = """() => {
    const panel = window.jupyterapp.shell.currentWidget;
    const cells = panel.content.model.toJSON().cells;
    const code = cells.filter((c) => c.cell_type === "code");
    const failed = code.some((c) => c.outputs.some((o) => o.output_type === "error"));
    return failed || code.every((c) => c.execution_count);
}"""
SELECT = """async (at) => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.deselectAll();
    notebook.activeCellIndex = at;
    await notebook.scrollToItem(at, "center");
    await notebook.widgets[at].ready;
    notebook.mode = "edit";
    notebook.widgets[at].editor.focus();
}"""
# A cell far from the screen is not drawn: go to each, and see it there.
RENDERED = """async () => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
    const seen = [];
    for (const [at, cell] of notebook.widgets.entries()) {
        if (cell.model.type !== "markdown") continue;
        await notebook.scrollToItem(at);
        let drawn;
        const text = cell.model.sharedModel.getSource();
        const formula = /\\$/.test(text.replace(/`[^`]*`/g, ""));
        for (let wait = 0; wait < 200; wait++) {
            drawn = cell.node.querySelector(".jp-MarkdownOutput, .myst");
            const math = drawn?.querySelector("mjx-container, .katex");
            if (drawn?.textContent.trim() && (math || !formula)) break;
            await sleep(50);
        }
        const prose = drawn.cloneNode(true);
        const all = (what) => [...prose.querySelectorAll(what)];
        const formulas = all("mjx-container, .katex").length;
        const errors = all("mjx-merror, .katex-error").length;
        const folds = all("details").map((fold) => [
            fold.querySelector("summary")?.textContent.trim() ?? "", fold.open]);
        const wanted = (text.match(/<summary>/g) ?? []).length;
        prose.querySelectorAll("mjx-container, .katex, pre, code")
            .forEach((node) => node.remove());
        seen.push({
            at, formula, formulas, errors, wanted, folds, prose: prose.textContent});
    }
    return seen;
}"""
RAW = {  # what a reader must not see in prose
    "directive": re.compile(r"(?:`{3,}|:{3,}|~{3,})\s*\{"),
    "role": re.compile(r"\{[a-zA-Z][\w:.-]*\}"),
    "option": re.compile(r"^\s*:(?:class|label|name|pyobject|tags|language):", re.M),
    "target": re.compile(r"^\s*\([\w:.-]+\)=", re.M),
    "tag": re.compile(r"</?(?:div|details|summary)\b"),
    "formula": re.compile(r"\$[^$]+\$|\$\$|\\(?:begin|frac|alpha|sum|tag|bar|hat)\b"),
}


def run_all(page: Page) -> list[dict[str, Any]]:
    """The cells as they are when all have run, or one has failed."""
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
    page.get_by_text("Run All Cells", exact=True).first.click()
    page.wait_for_function(DONE, timeout=RUN, polling=1000)
    return cells(page)


def cells(page: Page) -> list[dict[str, Any]]:
    """The cells of the open notebook, in the form of its file."""
    found = page.evaluate(NOTEBOOK)["cells"]
    for cell in found:
        cell["source"] = "".join(cell["source"])
    return list(found)


def code(found: list[dict[str, Any]]) -> list[str]:
    """The source of each cell; nothing for one that is text."""
    return [cell["source"] if cell["cell_type"] == "code" else "" for cell in found]


def write(page: Page, at: int, source: str) -> None:
    """Put the cursor into a cell, and replace all that stands there."""
    page.evaluate(SELECT, at)
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.insert_text(source)


def errors(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Where a cell failed, and why."""
    return [
        (cell["source"][:200], output["evalue"])
        for cell in found
        for output in cell.get("outputs", [])
        if output["output_type"] == "error"
    ]


def complaints(found: list[dict[str, Any]]) -> list[str]:
    """What the cells wrote in red."""
    return [
        text(output)
        for cell in found
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr"
    ]


def text(output: dict[str, Any]) -> str:
    """What an output says; nothing for a figure."""
    data = output.get("data", {})
    if "image/png" in data:
        return ""
    return "".join(output.get("text") or data.get("text/plain", ""))


def misread(page: Page) -> list[str]:
    """What of the notebook's prose a reader would not see as it was meant."""
    wrong = []
    for seen in page.evaluate(RENDERED):
        where = f"cell {seen['at']}"
        for what, pattern in RAW.items():
            if found := pattern.search(seen["prose"]):
                near = seen["prose"][max(0, found.start() - 40) : found.end() + 40]
                wrong.append(f"{where} shows a raw {what}: {near!r}")
        if seen["formula"] and not seen["formulas"]:
            wrong.append(f"{where} has no equation drawn")
        if seen["errors"]:
            wrong.append(f"{where} has an equation that cannot be set")
        if len(seen["folds"]) != seen["wanted"]:
            wrong.append(f"{where} has {len(seen['folds'])} folds of {seen['wanted']}")
        wrong += [f"{where}: {fold} is open" for fold, open_ in seen["folds"] if open_]
    return wrong
