"""Lay out a chapter: every file and heading it wants, with a note on what goes there.

    python tools/new_chapter.py gaussian-processes [--root DIR]

The chapter must be a row of the table in code/mlfs/book/chapters.py.  No file is ever
overwritten.  What is laid out runs and passes its own tests; tests/test_book.py then
lists what is still to be written.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mlfs.book import contract
from mlfs.book.chapters import CHAPTERS, PARTS, ROOT, Chapter, by_slug

TODO = contract.UNFINISHED
FUNCTIONS = ("first", "second", "third", "fourth")  # one exercise each

# ------------------------------------------------------------ pages

FRONT = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
"""

ABOUT_THEORY = {
    "Before you start": "what you will be able to do (each objective with the exercise "
    "that tests it), prerequisites as links, minutes to read, what to install.",
    "Derivation": "every step and why it is taken; each equation that code implements "
    "has a label; a figure or a small worked case wherever a reader would stop.",
    "From the derivation to code": "which line implements which equation.",
    "It runs": "a case that can be checked another way, and is.",
    "Learning dynamics": "what happens while it learns, step by step; a picture.",
    "Strengths and limits": "where it wins, and a failure that is run on purpose, with "
    "the diagnosis.",
    "Making it fast": "the plain form and the fast form, shown equal, then measured; "
    "or why one form is enough.",
    "On real data": "real data, or simulated data with a known truth; say which.",
    "Verified": "one sentence on what the table below proves.",
    "Where we differ": "what is done otherwise than in the paper or the usual library, "
    "and why.",
    "Readings": "each cited, with a line on what to read it for.",
}
ABOUT_CODING = {
    "Before you start": "what the evening builds, how long it takes, what to install.",
    "Train your model": "train the model on the chapter's task; a picture.",
    "Find the bug": "a version with one plausible, silent mistake; the symptom, a "
    "check that shows it, the folded answer.",
    "Hard mode": "a task given by its data and its acceptance criteria alone.",
    "Questions to discuss": "questions, each with its answer folded.",
    "If you finish early": "where to go from here.",
}

OPENING = """
# @title@

@todo@: the question a neuroscientist would ask, in two or three sentences.
"""
CODING_OPENING = """
# @title@: coding

@todo@: what you will have built at the end of the evening, in two sentences.
"""
IMPORTS = """
```{code-cell} ipython3
:tags: [hide-input]

import numpy as np
@imports@
```
"""
EQUATION = """
```{math}
:label: @module@-@name@

y_n = @factor@\\, x_n.
```
"""
SHOWN = """
```{literalinclude} ../../code/mlfs/@module@.py
:language: python
:pyobject: @name@
```
"""
ASSERTED = """
```{code-cell} ipython3
assert np.isclose(@module@.@name@(np.array([2.0]))[0], @factor@ * 2.0)
```
"""
DRAWN = """
```{code-cell} ipython3
:mystnb:
:  image:
:    alt: @todo@ what the picture shows, for somebody who cannot see it

figure, axes = plt.subplots()
axes.plot(@module@.first(np.arange(5.0)), marker="o")
axes.set(xlabel="n", ylabel="y");
```
"""
VERIFIED = """
```{code-cell} ipython3
verify("@module@")
```
"""
TRAINED = """
```{code-cell} ipython3
first = mine("@module@.first")  # yours where it passed, else the book's
assert first(np.array([2.0])).shape == (1,)
```
"""
TASK = """
## Exercise @number@: @todo@ what to write

@todo@: what the function computes, in the words of {eq}`@module@-@name@`, with shapes.

```{code-cell} ipython3
def @name@(x):
    \"""y[n], shape (N,), from x, shape (N,).\"""
    raise NotImplementedError
```

```{code-cell} ipython3
check("@module@.@name@", @name@)
```

````{admonition} Hint
:class: dropdown

@todo@: what to think of, not what to type.
````

````{admonition} Solution
:class: dropdown

```{literalinclude} ../../code/mlfs/@module@.py
:language: python
:pyobject: @name@
```
````

```{code-cell} ipython3
:tags: [hide-input]

check("@module@.@name@", @module@.@name@)
```
"""

# ------------------------------------------------------------ code, tests, exercises

CODE = '''\
"""@title@: @todo@ what this module computes.

Chapter: book/@slug@/theory.md.  A comment `# eq NAME` marks
the line that implements the displayed equation labelled NAME there.

    N      @todo@ every symbol, its meaning and its shape
    x[n]   numbers that come in                          (N,)
"""

from __future__ import annotations

from mlfs.core.numerics import Array, check_array
'''
FUNCTION = '''

def @name@(x: Array) -> Array:
    """@todo@ the mathematics: y[n] = @factor@ x[n], shape (N,).  Cost O(N).

    Raises:
        ValueError: `x` is malformed.
    """
    x = check_array("x", x, ("N",))
    y: Array = @factor@ * x  # eq @module@-@name@
    return y
'''
ORACLE = '''\
"""@title@ by @todo@ the slowest way that is plainly right.

Shares no code with the package: it may import NumPy, SciPy and the standard library.
"""

import numpy as np
'''
ORACLE_FUNCTION = '''

def @name@(x):
    """y[n] one at a time, shape (N,)."""
    return np.array([@factor@ * one for one in x])
'''
TESTS = '''\
"""@title@: @todo@ what it is compared with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlfs import @module@
from oracles import @module@ as oracle

vectors = st.lists(st.floats(-10, 10), min_size=1, max_size=6).map(np.array)
'''
TEST = """

@given(x=vectors)
def test_@name@_is_what_the_oracle_says(claim, x):
    claim(
        "@module@-@name@",
        oracle="@todo@ another way to the same number",
        kind="exact",
        got=@module@.@name@(x),
        want=oracle.@name@(x),
        atol=1e-12,
    )
"""
LAST_TESTS = """

def test_first_is_what_a_library_says(claim):
    claim(
        "@module@-first",
        oracle="@todo@ a library, or a printed number (kind published)",
        kind="library",
        got=@module@.first(np.array([1.0, -2.0])),
        want=np.multiply(1.0, [1.0, -2.0]),
        atol=1e-12,
    )


def test_malformed_arguments_are_refused():
    with pytest.raises(ValueError, match="x has shape"):
        @module@.first(np.zeros((2, 2)))
"""
EXERCISES = '''\
"""Exercises: @title@."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlfs import @module@
from mlfs.book.exercise import Case, Exercise, Mistake


def _vectors(rng: np.random.Generator) -> Iterator[Case]:
    """@todo@ the plainest case first, then random ones, then the edges."""
    yield Case({"x": np.array([1.0, 2.0])}, "two numbers")
    for N in (1, 5):
        yield Case({"x": rng.normal(size=N)}, f"N = {N}")


EXERCISES = (
'''
EXERCISE = """\
    Exercise(
        name="@name@",
        signature="@name@(x)",
        reference=@module@.@name@,
        cases=_vectors,
        mistakes=(
            Mistake("sign", "@todo@ a hint", lambda x: -@module@.@name@(x)),
            Mistake("twice", "@todo@ a hint", lambda x: 2 * @module@.@name@(x)),
            Mistake("shifted", "@todo@ a hint", lambda x: 1 + @module@.@name@(x)),
        ),
    ),
"""


def contents(chapter: Chapter) -> dict[str, str]:
    """The text of every file of a chapter to lay out, by its path from the root."""
    theory, coding = contract.pages(chapter)
    laid = {theory: _theory(chapter), coding: _coding(chapter)}
    for module in chapter.modules:
        code, test, oracle, exercises = contract.module_files(module)
        each = [(module, name) for m, name in _tasks(chapter) if m == module]
        laid[code] = _fill(CODE + _for_each(FUNCTION, each), chapter, module)
        laid[oracle] = _fill(ORACLE + _for_each(ORACLE_FUNCTION, each), chapter, module)
        tests = TESTS + _for_each(TEST, each) + LAST_TESTS
        laid[test] = _fill(tests, chapter, module)
        tasks = EXERCISES + _for_each(EXERCISE, each) + ")\n"
        laid[exercises] = _fill(tasks, chapter, module)
    return laid


def _theory(chapter: Chapter) -> str:
    imports = "from matplotlib import pyplot as plt\n\n"
    imports += f"from mlfs import {', '.join(sorted(chapter.modules))}\n"
    imports += "from mlfs.book import style\nfrom mlfs.book.claims import verify\n\n"
    parts = [FRONT, OPENING, IMPORTS.replace("@imports@", imports + "style.use()")]
    tasks = _tasks(chapter)
    blocks = {
        "Derivation": _for_each(EQUATION, tasks),
        "From the derivation to code": _for_each(SHOWN, tasks),
        "It runs": _for_each(ASSERTED, tasks),
        "Learning dynamics": DRAWN,
        "Verified": "".join(VERIFIED.replace("@module@", m) for m in chapter.modules),
    }
    for heading in contract.THEORY:
        parts.append(_section(heading, ABOUT_THEORY[heading]) + blocks.get(heading, ""))
    return _fill("".join(parts), chapter, chapter.modules[0])


def _coding(chapter: Chapter) -> str:
    imports = f"from mlfs import {', '.join(sorted(chapter.modules))}\n"
    imports += "from mlfs.book.check import check, mine"
    first = contract.CODING_FIRST
    parts = [FRONT, CODING_OPENING, _section(first, ABOUT_CODING[first])]
    parts += [IMPORTS.replace("@imports@", imports), _for_each(TASK, _tasks(chapter))]
    for heading in contract.CODING_LAST:
        parts.append(_section(heading, ABOUT_CODING[heading]))
        parts += [TRAINED] if heading == contract.CODING_LAST[0] else []
    return _fill("".join(parts), chapter, chapter.modules[0])


def _tasks(chapter: Chapter) -> list[tuple[str, str]]:
    """(module, function) of each exercise: four, shared out among the modules."""
    share = len(FUNCTIONS) // len(chapter.modules)
    return [(module, name) for module in chapter.modules for name in FUNCTIONS[:share]]


def _section(heading: str, about: str) -> str:
    return f"\n## {heading}\n\n{TODO}: {about}\n"


def _for_each(template: str, tasks: Sequence[tuple[str, str]]) -> str:
    return "".join(
        template.replace("@module@", module)
        .replace("@name@", name)
        .replace("@factor@", f"{FUNCTIONS.index(name) + 1}.0")
        .replace("@number@", str(number))
        for number, (module, name) in enumerate(tasks, 1)
    )


def _fill(template: str, chapter: Chapter, module: str) -> str:
    values = {
        "title": chapter.title,
        "slug": chapter.slug,
        "module": module,
        "todo": TODO,
    }
    return re.sub(rf"@({'|'.join(values)})@", lambda found: values[found[1]], template)


# ------------------------------------------------------------ table of contents


def with_chapter(toc: str, chapter: Chapter) -> str:
    """The text of _toc.yml with the chapter's pages in their place in the table.

    Lines are added, none is changed; a chapter that is listed stays where it is.

    Raises:
        ValueError: the text has no list of parts.
    """
    theory, coding = (page.removesuffix(".md") for page in contract.pages(chapter))
    lines = toc.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    if any(_entry(line) == theory for line in lines):
        return toc
    starts = {m[2]: i for i, line in enumerate(lines) if (m := _CAPTION.match(line))}
    if not starts:
        raise ValueError("_toc.yml has no `- caption:` under `parts:`, wants some")
    first = next(iter(starts.values()))
    indent = _indent(lines[first])
    step = next((_indent(x) for x in lines[first:] if _entry(x)), f"{indent}    ")
    entry = [f"{step}- file: {theory}\n", f"{step}  sections:\n"]
    entry += [f"{step}    - file: {coding}\n"]
    if chapter.part in starts:
        at = _place_in_part(lines, starts[chapter.part], chapter)
    else:
        at = _place_of_part(lines, starts, chapter.part)
        head = [f"{indent}- caption: {chapter.part}\n", f"{indent}  chapters:\n"]
        entry = head + entry
    return "".join([*lines[:at], *entry, *lines[at:]])


_CAPTION = re.compile(r"( *)- caption: *(.+?) *$")


def _entry(line: str) -> str:
    found = re.match(r" *- file: *(\S+)", line)
    return found[1] if found else ""


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" "))]


def _end_of_part(lines: Sequence[str], start: int) -> int:
    """The line after the last page of the part whose caption is at `start`."""
    end = start + 1
    for at in range(start + 1, len(lines)):
        if _CAPTION.match(lines[at]):
            break
        if lines[at].strip() and not lines[at].lstrip().startswith("#"):
            end = at + 1
    return end


def _place_in_part(lines: Sequence[str], start: int, chapter: Chapter) -> int:
    """Before the first chapter of the part that the table puts after this one."""
    later = [contract.pages(c)[0].removesuffix(".md") for c in CHAPTERS]
    later = later[CHAPTERS.index(chapter) + 1 :]
    end = _end_of_part(lines, start)
    return next((at for at in range(start, end) if _entry(lines[at]) in later), end)


def _place_of_part(lines: Sequence[str], starts: dict[str, int], part: str) -> int:
    """After the parts before it in the table, else before those after it."""
    here = PARTS.index(part)
    before = [starts[name] for name in PARTS[:here] if name in starts]
    if before:
        return _end_of_part(lines, before[-1])
    after = [
        starts[name] for name in (*PARTS[here + 1 :], "Reference") if name in starts
    ]
    return after[0] if after else len(lines)


# ------------------------------------------------------------ the command

NEXT = """\
Laid out {title}:
{files}
and its two pages in _toc.yml.  Next:
  1. Write the oracle, the tests and the code, then theory.md, the exercises, coding.md.
     A line with TODO says what goes there.
  2. .venv/bin/python -m pytest tests/test_book.py -k {slug}
     lists what the chapter still lacks.
  3. make check test book"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Lay a chapter out; returns 0, 1 (a file is there already) or 2 (cannot)."""
    parser = argparse.ArgumentParser(
        prog="new_chapter.py", description="Lay out a chapter of the table."
    )
    parser.add_argument("name", nargs="?", default="", help="its folder under book/")
    parser.add_argument("--root", type=Path, default=ROOT, help="of the repository")
    asked = parser.parse_args(arguments)
    if not asked.name:
        parser.print_usage()
        print("for example: make chapter NAME=gaussian-processes")
        return 2
    try:
        chapter = by_slug(asked.name)
    except ValueError:
        print(f"no chapter {asked.name!r} in code/mlfs/book/chapters.py, which has")
        print("\n".join(f"  {c.slug}" for c in CHAPTERS))
        return 2
    return _lay_out(chapter, asked.root)


def _lay_out(chapter: Chapter, root: Path) -> int:
    laid = contents(chapter)
    there = [name for name in laid if (root / name).exists()]
    if there:
        print("nothing was written, for these files are there already:")
        print("\n".join(f"  {name}" for name in there))
        return 1
    toc = root / "_toc.yml"
    try:
        listed = with_chapter(toc.read_text(encoding="utf-8"), chapter)
    except (OSError, ValueError) as error:
        print(f"nothing was written: {error}")
        return 2
    for name, text in laid.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        with (root / name).open("x", encoding="utf-8") as file:
            file.write(text)
    toc.write_text(listed, encoding="utf-8")
    files = "\n".join(f"  {name}" for name in laid)
    print(NEXT.format(title=chapter.title, files=files, slug=chapter.slug))
    return 0


if __name__ == "__main__":
    sys.exit(main())
