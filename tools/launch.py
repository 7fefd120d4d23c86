"""What readers take from the site: executed notebooks, the whole book, a button.

Used by the book's Sphinx extension (downloads) and by tools/build_lite.py (the button).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import bundle
import execute_book
import notebooks

ROOT = Path(__file__).resolve().parent.parent
ZIP = "_static/mlfs-book.zip"
FOLDER = "mlfs-book"  # that the zip unpacks into
SCRIPT = "_static/launch.js"
NO_SCRIPT = (
    "/* `make lite` puts the button here that opens the page in JupyterLite. */\n"
)
README = """\
# Machine Learning from Scratch

The whole book as executed notebooks, two for each chapter, with the package `mlfs` that
they show and use.  The book itself, with the latest corrections: <{site}>.

To run it you need Python 3.11 or newer.  In this folder:

```
python -m venv .venv
.venv/bin/python -m pip install -r requirements.txt
.venv/bin/jupyter lab
```

(On Windows, `.venv\\Scripts\\` in place of `.venv/bin/`.)  Then open, for example,
`book/hidden-markov-models/coding.ipynb`, and choose "Run All Cells".  The first code
cell of each notebook finds the package in `code/`; it is not installed anywhere.  With
NumPy, SciPy, Matplotlib and a notebook program at hand, no network is needed.

- `book/`: the notebooks
- `code/mlfs/`: the package, with its data in `code/mlfs/data` (sources and licences in
  `DATA.md` there)
- `LICENSE`, `LICENSE-text`: what you may do with the code and with the text
"""


def executed(page: str, root: Path = ROOT) -> Any:
    """The page as the build ran it."""
    notebook = execute_book.read_notebook(root, page)
    cache = execute_book.Store(root).cache
    return cache.merge_match_into_notebook(notebook)[1]


def downloads(root: Path = ROOT) -> dict[str, str]:
    """Every executed page as the text of a notebook, by the path of its file."""
    book = notebooks.read_book(root)
    return {
        Path(page).with_suffix(".ipynb").as_posix(): notebooks.text_of(
            notebooks.notebook(book, page, "download", executed(page, root))
        )
        for page in book.pages
        if page in book.notebooks
    }


def requirements(root: Path = ROOT) -> str:
    """What the notebooks need besides the package, for pip."""
    needs = bundle.project(root)["dependencies"]
    return "\n".join([*needs, "jupyterlab", ""])


def whole_book(root: Path, made: dict[str, str]) -> dict[str, bytes]:
    """The files of the zip: notebooks, package, data, licence, how to run it."""
    site = notebooks.site_address(root)
    files = {name: text.encode() for name, text in made.items()}
    files |= {f"code/{k}": data for k, data in bundle.package_files(root).items()}
    files["README.md"] = README.format(site=site).encode()
    files["requirements.txt"] = requirements(root).encode()
    for name in ("LICENSE", "LICENSE-text", "pyproject.toml"):
        files[name] = (root / name).read_bytes()
    return {f"{FOLDER}/{name}": files[name] for name in sorted(files)}


def write_downloads(site: Path, root: Path = ROOT) -> None:
    """Put the executed notebooks, the package's wheel and the zip on the site."""
    made = downloads(root)
    for name, text in made.items():
        path = site / "_sources" / name  # where the theme's download button looks
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf8")
    shutil.rmtree(site / "_static" / "wheels", ignore_errors=True)
    bundle.write_wheel(root, site / "_static" / "wheels")
    bundle.pack(site / ZIP, whole_book(root, made))


def write_script(site: Path, root: Path = ROOT) -> None:
    """The button's script, which does nothing while the site has no JupyterLite."""
    there = (site / "lite" / "lab" / "index.html").is_file()
    text = (root / "lite" / "launch.js").read_text("utf8") if there else NO_SCRIPT
    (site / SCRIPT).write_text(text, "utf8")
