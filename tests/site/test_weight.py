"""What keeps the pages light, and must not take anything from them."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
FONTS = SITE / "_static" / "vendor" / "fontawesome" / "webfonts"
STYLES = SITE / "_static" / "styles" / "pydata-sphinx-theme.css"


@pytest.fixture(scope="module")
def weight():
    spec = spec_from_file_location("mlfs_weight", ROOT / "book/_ext/mlfs_weight.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_icon_in_use_is_in_a_font(weight):
    points = weight.code_points(
        STYLES.read_text("utf8"), weight.names_in_use(SITE) | {"fa-sun", "fa-bars"}
    )
    held = set()
    for path in FONTS.glob("*.woff2"):
        assert path.stat().st_size < 10_000
        with TTFont(path) as font:
            held |= set(font.getBestCmap())
    assert len(points) > 20
    assert points <= held


def test_an_icon_is_found_by_each_of_its_names(weight):
    styles = (
        '.fa-cut:before,.fa-scissors:before{content:"\\f0c4"}.fa-0:before{content:"0"}'
        '.fa-sun:before{content:"\\f185"}a:after{content:"\uf0c1"}'
    )
    assert weight.code_points(styles, ["fa-scissors"]) == {0xF0C4, 0xF0C1}
    assert weight.code_points(styles, ["fa-cut", "fa-0"]) == {0xF0C4, 0xF0C1, ord("0")}


def test_no_page_loads_what_none_uses():
    others = {"_static", "lite"}  # files of the theme and of JupyterLite
    pages = [path for path in SITE.rglob("*.html") if others.isdisjoint(path.parts)]
    for path in pages:
        text = path.read_text("utf8")
        assert "fontawesome.js" not in text
        if path.name != "search.html":
            assert "searchindex.js" not in text


def test_figures_have_few_colours():
    figures = sorted((SITE / "_images").glob("*.png"))
    assert figures
    for path in figures:
        with Image.open(path) as figure:
            assert figure.mode in ("P", "L", "1"), path.name
            assert figure.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_a_figure_keeps_its_white_and_its_black(weight, tmp_path):
    path = tmp_path / "figure.png"
    figure = Image.radial_gradient("L").convert("RGBA")
    figure.paste("white", (0, 0, 64, 64))
    figure.paste("black", (64, 64, 128, 128))
    figure.save(path, compress_level=0)
    before = path.stat().st_size
    weight.cut_figure(path)
    assert path.stat().st_size < before
    with Image.open(path) as cut:
        cut = cut.convert("RGB")
        assert cut.getpixel((5, 5)) == (255, 255, 255)
        assert max(cut.getpixel((100, 100))) < 8
