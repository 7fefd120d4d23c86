"""Build JupyterLite, every page with code as a notebook in it, into the site.

    python tools/build_lite.py --jupyter .venv-lite/bin/jupyter

The site must stand (`make book`).  Pyodide comes from its public address, after the
reader has pressed the button; from the site itself if lite/static/pyodide is there.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import bundle
import launch
import notebooks

ROOT = Path(__file__).resolve().parent.parent
LITE = ROOT / "lite"
SITE = ROOT / "_build" / "html"
WORK = ROOT / "_build" / "lite"  # what is made on the way


def prepare() -> list[Path]:
    """Lay out the notebooks; returns the wheels that the kernel may ask for."""
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.rmtree(SITE / "lite", ignore_errors=True)
    notebooks.write(notebooks.read_book(ROOT), "lite", WORK / "contents")
    for name in ("jupyter-lite.json", "overrides.json"):
        shutil.copy2(LITE / name, WORK / name)
    static = LITE / "static"
    if static.is_dir():
        shutil.copytree(static, WORK / "static", copy_function=_link)
    own = bundle.write_wheel(ROOT, WORK / "wheels")
    return [own, *sorted((LITE / "wheels").glob("*.whl"))]


def _link(source: str, target: str) -> None:
    """A second name for a large file instead of a copy, where the disk allows it."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def build(jupyter: str, wheels: list[Path]) -> int:
    """Run jupyter-lite; its words are shown only if it fails."""
    command = [jupyter, "lite", "build", "--contents", "contents", "--no-sourcemaps"]
    command += ["--output-dir", str(SITE / "lite")]
    for wheel in wheels:
        command += ["--piplite-wheels", str(wheel)]
    run = subprocess.run(command, cwd=WORK, capture_output=True, text=True)
    if run.returncode:
        print(run.stdout, run.stderr, sep="\n", file=sys.stderr)
    return run.returncode


def main() -> int:
    """Run from the command line; 1 when it fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--jupyter", required=True, help="of an environment with it")
    options = parser.parse_args()
    if not (SITE / "index.html").is_file():
        print("there is no site in _build/html: run `make book` first", file=sys.stderr)
        return 1
    jupyter = str(Path(options.jupyter).absolute())
    if build(jupyter, prepare()):
        return 1
    launch.write_script(SITE)
    hosted = (SITE / "lite" / "static" / "pyodide").is_dir()
    print(
        f"JupyterLite in {SITE / 'lite'}, Pyodide {'in it' if hosted else 'from afar'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
