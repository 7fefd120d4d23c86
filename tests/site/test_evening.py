"""The evenings that the browser tests solve can be solved: no browser is needed."""

import nbformat
import pytest

from mlfs.book.chapters import CHAPTERS
from mlfs.book.check import check

from . import evening, lab
from .test_site import SITE

STUB = "def forward(pi, A, B):\n    raise NotImplementedError"
CHECK = 'check("hmm.forward", forward)'
SLUGS = [chapter.slug for chapter in CHAPTERS if chapter.stands]


@pytest.mark.parametrize("slug", SLUGS)
def test_every_stub_has_a_solution_that_passes(slug):
    path = SITE / "_sources" / "book" / slug / "coding.ipynb"
    cells = lab.code(nbformat.read(path, as_version=4).cells)
    solved = evening.solutions(cells)
    trees = map(evening.parsed, cells)
    stubs = [at for at, tree in enumerate(trees) if evening.unfinished(tree)]
    assert sorted(solved) == stubs
    known = {"__name__": "evening"}
    for source in solved.values():
        exec(source, known)
    for source in cells:
        for task, name in evening.checks(evening.parsed(source)):
            assert check(task, known[name]).passed


@pytest.mark.parametrize("slug", SLUGS)
def test_an_evening_that_nobody_solved_is_not_taken_for_solved(slug):
    path = SITE / "_sources" / "book" / slug / "coding.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    trees = map(evening.parsed, lab.code(cells))
    asked = [task for tree in trees for task, _ in evening.checks(tree)]
    assert evening.unsolved(cells) == asked


def test_a_solution_needs_nothing_around_it():
    source = evening.solutions([STUB, CHECK])[0]
    assert source.startswith("def forward(pi, A, B):")
    assert "from mlfs.hmm import" in source


@pytest.mark.parametrize("cells", [[CHECK], [STUB], ["1 + 1"], []])
def test_an_evening_without_stub_or_check_is_an_error(cells):
    with pytest.raises(ValueError, match="stub"):
        evening.solutions(cells)


@pytest.mark.parametrize(
    ("what", "prose"),
    [
        ("directive", "see\n:::{note}"),
        ("directive", "``` {math}"),
        ("role", "by {eq}`hmm-forward`"),
        ("option", ":class: dropdown"),
        ("target", "(hmm-coding)="),
        ("tag", "<details>"),
        ("formula", "where $x$ is"),
        ("formula", r"\begin{aligned}"),
    ],
)
def test_what_is_raw_is_seen(what, prose):
    assert lab.RAW[what].search(prose)


def test_prose_is_not_raw():
    prose = "It costs 5 $. See (7): a dictionary {name: value}, and (a) = b."
    assert not [what for what, pattern in lab.RAW.items() if pattern.search(prose)]
