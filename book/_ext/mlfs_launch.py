"""What readers launch and download: notebooks that every interface can show.

- The theme's download button gives the page as a clean executed notebook.
- Its menu also offers the whole book as one zip, with the package inside.
- The Binder button opens the page's notebook, which binder/postBuild makes.
- A page with code names its notebook, for the button that opens it in JupyterLite.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "tools") not in sys.path:
    sys.path.insert(0, str(ROOT / "tools"))

import launch  # noqa: E402  (found through the lines above)

BINDER = "notebooks"  # the folder that binder/postBuild writes


def offer(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Set the page's buttons; the theme has made its own before."""
    if "ipynb_source" not in context:  # no code on the page
        return
    name = f'<meta name="mlfs-notebook" content="{page}.ipynb" />'
    context["metatags"] = f"{context.get('metatags', '')}\n{name}"
    for group in context["header_buttons"]:
        if group.get("label") == "launch-buttons":
            for button in group["buttons"]:
                old, new = f"tree/{page}.md", f"tree/{BINDER}/{page}.ipynb"
                button["url"] = button["url"].replace(old, new)
        if group.get("label") == "download-buttons":
            group["buttons"].append(
                {
                    "type": "link",
                    "url": context["pathto"](launch.ZIP, 1),
                    "text": "Whole book (.zip)",
                    "tooltip": "Download all notebooks and the package",
                    "icon": "fas fa-file",
                    "label": "download-book-button",
                }
            )


def write(app: Sphinx, exception: Exception | None) -> None:
    """Put the downloads on the site."""
    if exception is None and app.builder.name == "html":
        launch.write_downloads(Path(app.outdir))
        launch.write_script(Path(app.outdir))


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect it."""
    app.add_js_file(Path(launch.SCRIPT).name)
    app.connect("html-page-context", offer, priority=600)
    # After all others: a page that cannot be converted must not keep them from running.
    app.connect("build-finished", write, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
