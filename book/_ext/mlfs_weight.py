"""What the pages need to load is kept small: icons in use, figures with few colours.

The theme's style sheet draws its icons from three fonts with 2,000 icons; the book uses
some thirty of them.  The template layout.html leaves out the script that holds all of
them once more.  Figures keep 256 colours, which nobody tells from all of them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

from fontTools import subset
from PIL import Image
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
THEME = Path("theme", "pydata_sphinx_theme", "static")
STYLES = Path("styles", "pydata-sphinx-theme.css")
FONTS = Path("vendor", "fontawesome", "webfonts")
# .fa-cut:before,.fa-scissors:before{content:"\f0c4"}
RULE = re.compile(r'((?:\.fa-[\w-]+:{1,2}before,?)+)\{content:"([^"]*)"\}')
NAME = re.compile(r"\bfa-[a-z0-9][a-z0-9-]*")


def names_in_use(site: Path) -> set[str]:
    """The icons' names in the pages and in the scripts that make parts of pages."""
    names: set[str] = set()
    for path in [*site.rglob("*.html"), *site.rglob("*.js")]:
        # JupyterLite, there from an earlier build, brings icons of its own.
        if path.name != "fontawesome.js" and site / "lite" not in path.parents:
            names.update(NAME.findall(path.read_text("utf8")))
    return names


def code_points(styles: str, names: Iterable[str]) -> set[int]:
    """The characters that stand for the icons of these names, and the theme's own."""
    wanted, points = set(names), set()
    for selectors, content in RULE.findall(styles):
        if wanted & set(NAME.findall(selectors)):
            points.add(_character(content))
    own = RULE.sub("", styles)
    return points | {ord(c) for c in own if 0xE000 <= ord(c) <= 0xF8FF}


def _character(content: str) -> int:
    r"""The one that a style sheet names by itself, or by its number: "@", "\40"."""
    if content.startswith("\\") and len(content) > 2:
        return int(content[1:], 16)
    return ord(content.removeprefix("\\"))


def cut_font(source: Path, target: Path, points: set[int]) -> None:
    """Write a font that has these characters alone."""
    options = subset.Options(flavor="woff2", layout_features=[], notdef_outline=True)
    with subset.load_font(source, options) as font:
        cutter = subset.Subsetter(options)
        cutter.populate(unicodes=points)
        cutter.subset(font)
        subset.save_font(font, target, options)


def cut_icons(app: Sphinx, exception: Exception | None) -> None:
    """Replace the icon fonts of the site by small ones."""
    if exception is not None or app.builder.format != "html":
        return
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    site, theme = Path(app.outdir), Path(str(files("pydata_sphinx_theme"))) / THEME
    own = [*(site / "_static").glob("*.css"), *(site / "_static/styles").glob("*book*")]
    styles = "\n".join(
        path.read_text("utf8")
        for path in [theme / STYLES, *own]
        if path.suffix == ".css"
    )
    points = code_points(styles, names_in_use(site))
    for source in sorted((theme / FONTS).glob("*.woff2")):
        cut_font(source, site / "_static" / FONTS / source.name, points)


def cut_figures(app: Sphinx, exception: Exception | None) -> None:
    """Write the figures with 256 colours where that makes them smaller."""
    if exception is not None or app.builder.format != "html":
        return
    for path in sorted(Path(app.outdir, "_images").glob("*.png")):
        cut_figure(path)


def cut_figure(path: Path) -> None:
    """Write one figure again with fewer colours, unless it has few, or would grow."""
    with Image.open(path) as figure:
        if figure.mode not in ("RGB", "RGBA"):
            return
        if figure.mode == "RGBA" and figure.getextrema()[3] == (255, 255):
            figure = figure.convert("RGB")  # nothing shines through
        few = figure.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    # Quantising takes white to 254, which would show where figures are inverted.
    colours = few.getpalette() or []
    few.putpalette([255 if c > 251 else 0 if c < 4 else c for c in colours])
    packed = BytesIO()
    few.save(packed, "PNG", optimize=True)
    if packed.tell() < path.stat().st_size:
        path.write_bytes(packed.getvalue())


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect it."""
    app.config.templates_path.append(str(ROOT / "book" / "_templates"))
    app.connect("build-finished", cut_icons, priority=900)
    app.connect("build-finished", cut_figures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
