"""The pages' sources: every chapter that has begun holds to the contract."""

import ast
import re
import subprocess

import pytest

from mlfs.book import contract
from mlfs.book.chapters import CHAPTERS, ROOT
from mlfs.book.check import prove
from mlfs.book.exercise import exercises

BEGUN = [chapter for chapter in CHAPTERS if chapter.begun]
MODULES = [(chapter, module) for chapter in BEGUN for module in chapter.modules]
OWN = {name for chapter in CHAPTERS for name in contract.pages(chapter)}
OTHERS = sorted(
    {p.relative_to(ROOT).as_posix() for p in ROOT.glob("book/**/*.md")} - OWN
)

each_chapter = pytest.mark.parametrize("chapter", BEGUN, ids=lambda c: c.slug)
each_module = pytest.mark.parametrize(
    ("chapter", "module"), MODULES, ids=[f"{c.slug}-{m}" for c, m in MODULES]
)


def nothing(found):
    """Fail with every problem on a line of its own."""
    if found:
        pytest.fail("\n".join([f"{len(found)} to mend:", *found]), pytrace=False)


@each_chapter
def test_chapter_holds_to_the_contract(chapter):
    nothing(contract.problems(chapter))


@each_module
def test_exercises_prove_themselves(chapter, module):
    nothing(prove(module))


@each_module
def test_contract_reads_the_exercises_that_there_are(chapter, module):
    """It reads names from the source; this is what importing it gives."""
    there = [task.name for task in exercises(module)]
    source = (ROOT / contract.module_files(module)[3]).read_text(encoding="utf-8")
    assert sorted(contract.exercise_names(ast.parse(source))) == sorted(there)


def test_equations_that_shared_code_cites_are_on_a_page_and_claimed():
    nothing(contract.problems_of_core())


@pytest.mark.parametrize("name", OTHERS)
def test_page_outside_the_chapters_is_finished_and_plain(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    nothing(contract.unfinished(text) + contract.filler(text))


# Put together here, so that this file does not hold what it looks for.
FORBIDDEN = {
    r"(?<![\w.~-])/" + r"work/": "a folder of one machine",
    r"/tmp/" + r"bash_jobs": "a folder of one machine",
    r"pypi\.org/" + r"simple": "a package registry",
    r"registry\." + r"npmjs": "a package registry",
    r"pythonhosted" + r"\.org": "a package registry",
}


def ours():
    """Every file that git tracks, or would."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this copy of the book is not a git repository")
    names = run.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_file_names_a_machine_or_a_package_registry():
    found = []
    for path in ours():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not text
        for pattern, what in FORBIDDEN.items():
            for at in re.finditer(pattern, text):
                line = text.count("\n", 0, at.start()) + 1
                name = path.relative_to(ROOT)
                found.append(f"{name}:{line} names {what}: {at[0]}")
    nothing(found)


def test_code_folder_never_shadows_the_standard_library():
    assert not (ROOT / "code" / "__init__.py").exists()
