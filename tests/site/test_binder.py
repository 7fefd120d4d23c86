"""Binder as a reader meets it: its environment from nothing, a whole evening solved.

repo2docker itself needs Docker.  This does what it does with the files that we have in
binder/, on a fresh clone, then opens what the page's button opens.  It takes minutes:
`make site-test` leaves it out, `make binder-test` runs it, and CI does every week.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from mlfs.book.chapters import CHAPTERS

from . import browser, evening, lab
from .test_site import SITE, parse

ROOT = SITE.parents[1]
NAMES = [f"book/{chapter.slug}/coding" for chapter in CHAPTERS if chapter.stands]
KNOWN = {"postBuild", "requirements.in", "requirements.txt", "runtime.txt", "start"}
TOKEN = "evening"
BUILD = 1200  # seconds for each step of the build
START = 90  # seconds until the server answers


def python():
    """The Python that binder/runtime.txt names, e.g. python3.11; None without it."""
    wanted = (ROOT / "binder" / "runtime.txt").read_text("utf8").strip()
    name = wanted.replace("python-", "python")
    if name == f"python{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    return shutil.which(name)


if browser.executable() is None:
    pytest.skip(
        f"no browser: none of {', '.join(browser.NAMES)} is on the path",
        allow_module_level=True,
    )
if python() is None:
    pytest.skip("the Python of binder/runtime.txt is missing", allow_module_level=True)


def test_binder_has_no_file_that_is_not_tried_here():
    assert {path.name for path in (ROOT / "binder").iterdir()} == KNOWN
    for name in ("postBuild", "start"):
        assert os.access(ROOT / "binder" / name, os.X_OK), f"{name} cannot be run"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A fresh clone, and the variables with which its environment runs."""
    folder = tmp_path_factory.mktemp("binder")
    clone, env, home = folder / "repository", folder / "env", folder / "home"
    home.mkdir()
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True, timeout=BUILD)
    subprocess.run([python(), "-m", "venv", env], check=True, timeout=BUILD)
    pip = [env / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "-q"]
    given = clone / "binder" / "requirements.txt"
    subprocess.run([*pip, "install", "-r", given], check=True, timeout=BUILD)
    variables = {
        "HOME": str(home),  # nobody's settings
        "LANG": "C.UTF-8",
        "PATH": f"{env / 'bin'}:/usr/local/bin:/usr/bin:/bin",
    }
    built = ["binder/postBuild"]
    subprocess.run(built, cwd=clone, env=variables, check=True, timeout=BUILD)
    yield clone, variables
    shutil.rmtree(folder, ignore_errors=True)  # hundreds of megabytes


@contextmanager
def jupyterlab(clone, variables):
    """The address of a JupyterLab that binder/start has started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["binder/start", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += ["--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    command += [f"--IdentityProvider.token={TOKEN}"]
    command += ["--LabApp.expose_app_in_browser=True"]  # the test asks it for the cells
    command += ["--LabApp.news_url=None"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    log = Path(variables["HOME"]) / "jupyter.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            command, cwd=clone, env=variables, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait(server, f"{address}/api/status?token={TOKEN}", log)
            yield address
        finally:
            server.terminate()
            server.wait(60)


def wait(server, url, log):
    """Until the server answers."""
    for _ in range(2 * START):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            assert server.poll() is None, log.read_text("utf8")
            time.sleep(0.5)
    pytest.fail(f"no answer in {START} s: {log.read_text('utf8')}", pytrace=False)


@pytest.fixture(scope="module")
def address(repository):
    with jupyterlab(*repository) as address:
        yield address


def opened_by_button(name):
    """What the page's Binder button asks JupyterLab to open."""
    links = parse(f"{name}.html").links
    (link,) = [link for link in links if link.startswith("https://mybinder.org/v2/gh/")]
    (path,) = parse_qs(urlsplit(link).query)["urlpath"]
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_evening_is_solved_in_jupyterlab(name, address):
    with browser.chromium() as chromium:
        context = chromium.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(f"{address}/{opened_by_button(name)}?token={TOKEN}")
        page.wait_for_function(lab.READY, timeout=lab.START)
        assert lab.misread(page) == []
        solved = evening.solutions(lab.code(lab.cells(page)))
        for at, source in solved.items():
            lab.write(page, at, source)
        assert {at: lab.cells(page)[at]["source"] for at in solved} == solved
        ran = lab.run_all(page)
        context.close()

    assert lab.errors(ran) == []
    assert lab.complaints(ran) == []
    assert evening.unsolved(ran) == []
    built = json.loads((SITE / "_sources" / f"{name}.ipynb").read_text("utf8"))
    assert figures(ran) == figures(built["cells"]) > 0


def figures(cells):
    """How many of the outputs are images."""
    return sum(
        "image/png" in output.get("data", {})
        for cell in cells
        for output in cell.get("outputs", [])
    )
