"""What a chapter must hold, as data, and what a given chapter still lacks.

`tools/new_chapter.py` lays a chapter out from the headings here; tests/test_book.py
fails while `problems` finds anything.  Sources are read, never imported or run, so that
a chapter can be judged in any copy of the repository.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mlfs.book._source import (
    Cell,
    Page,
    Section,
    calls,
    cells,
    cited,
    dotted,
    equations,
    habits,
    read_page,
    text_argument,
    text_keyword,
)
from mlfs.book.chapters import CHAPTERS, ROOT, Chapter

THEORY = (
    "Before you start",
    "Derivation",
    "From the derivation to code",
    "It runs",
    "Learning dynamics",
    "Strengths and limits",
    "Making it fast",
    "On real data",
    "Verified",
    "Where we differ",
    "Readings",
)
CODING_FIRST = "Before you start"
CODING_LAST = (
    "Train your model",
    "Find the bug",
    "Hard mode",
    "Questions to discuss",
    "If you finish early",
)
EXERCISE = re.compile(r"Exercise (\d+): \S.*")
FEWEST_EXERCISES, MOST_EXERCISES = 4, 8
FEWEST_ASSERTS = 5
SHORTEST_ALT = 30
UNFINISHED = "TODO"
FILLER = (
    "it is easy to see",
    "obviously",
    "clearly,",
    "trivially",
    "powerful",
    "delve",
    "it can be shown",
)

# ------------------------------------------------------------ the files of a chapter


def pages(chapter: Chapter) -> tuple[str, str]:
    """The two pages, theory and coding, as paths from the root."""
    return f"book/{chapter.slug}/theory.md", f"book/{chapter.slug}/coding.md"


def module_files(module: str) -> tuple[str, str, str, str]:
    """A module's code, test, oracle and exercises, as paths from the root."""
    return (
        f"code/mlfs/{module}.py",
        f"tests/test_{module}.py",
        f"tests/oracles/{module}.py",
        f"code/mlfs/book/exercises/{module}.py",
    )


def files(chapter: Chapter) -> tuple[str, ...]:
    """Every file that a chapter wants, as paths from the root."""
    own = [name for module in chapter.modules for name in module_files(module)]
    return (*pages(chapter), *own)


# ------------------------------------------------------------ what a chapter lacks


def problems(chapter: Chapter, root: Path = ROOT) -> list[str]:
    """What keeps a chapter from being finished; a line opens with the file it is about.

    A file that is not Python where it must be is a problem too, not an error.
    """
    text = {
        name: (root / name).read_text(encoding="utf-8")
        for name in files(chapter)
        if (root / name).is_file()
    }
    found = [f"{name}: missing" for name in files(chapter) if name not in text]
    trees: dict[str, ast.Module] = {}
    for name, content in text.items():
        found += _in(name, unfinished(content))
        if name.endswith(".py"):
            try:
                trees[name] = ast.parse(content)
            except SyntaxError as error:
                found.append(f"{name}:{error.lineno}: not Python: {error.msg}")
    theory, coding = pages(chapter)
    tasks = _tasks(chapter, trees)
    labels: tuple[str, ...] | None = None
    if theory in text:
        page = read_page(text[theory])
        labels = page.labels
        found += _in(theory, _headings(page, THEORY))
        found += _in(theory, _any_page(page, chapter, tasks, root))
        found += _in(theory, _proofs(page, chapter))
    if coding in text:
        page = read_page(text[coding])
        found += _in(coding, _coding_headings(page))
        found += _in(coding, _any_page(page, chapter, tasks, root))
        found += _in(coding, _exercises(page, tasks))
    for module in chapter.modules:
        found += _module(module, text, trees, labels)
    return found


def problems_of_core(root: Path = ROOT) -> list[str]:
    """Labels that code shared by chapters cites, but no theory page or no test has."""
    own = {module for chapter in CHAPTERS for module in chapter.modules}
    labels, claimed = set[str](), set[str]()
    for path in (root / "book").glob("*/theory.md"):
        labels |= set(read_page(path.read_text(encoding="utf-8")).labels)
    for path in (root / "tests").rglob("test_*.py"):
        for call in calls(ast.parse(path.read_text(encoding="utf-8")), "claim"):
            claimed.add(text_argument(call) or "")
    found = []
    for path in sorted((root / "code" / "mlfs").rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name in {f"code/mlfs/{module}.py" for module in own}:
            continue
        for label in equations(path.read_text(encoding="utf-8")):
            if label not in labels:
                found.append(f"{name}: {label} labels no equation of any theory page")
            if label not in claimed:
                found.append(f"{name}: no test has a claim for {label}")
    return found


def unfinished(text: str) -> list[str]:
    """The lines that still say that something is to be done."""
    return [
        f"line {at}: {UNFINISHED} left: {line.strip()[:60]}"
        for at, line in enumerate(text.splitlines(), 1)
        if re.search(rf"\b{UNFINISHED}\b", line)
    ]


def filler(text: str) -> list[str]:
    """The words that say nothing, line by line."""
    return [
        f"line {at}: filler: {words!r}"
        for at, line in enumerate(text.lower().splitlines(), 1)
        for words in FILLER
        if re.search(rf"\b{re.escape(words)}", line)
    ]


def _in(name: str, found: Iterable[str]) -> list[str]:
    return [f"{name}: {problem}" for problem in found]


# ------------------------------------------------------------ any page


def _any_page(
    page: Page, chapter: Chapter, tasks: Sequence[str], root: Path
) -> list[str]:
    good, found = cells(page.fences)
    if not re.search(r"(?m)^kernelspec:", page.front):
        found.append("no kernelspec in the front matter, so no cell would run")
    if len(page.titles) != 1:
        found.append(f"headings of level one: {list(page.titles)}, wants just one")
    found += [f"section {s.heading!r} is empty" for s in page.sections[1:] if s.empty]
    found += filler(page.text) + _pictures(page, good) + _labels(page, chapter)
    for cell in good:
        found += [f"cell at line {cell.line}, {bad}" for bad in habits(cell.tree)]
    unknown = _checked(good) - set(tasks)
    found += [f"check({name!r}): there is no such exercise" for name in sorted(unknown)]
    return found + _citations(page, root)


def _headings(page: Page, wanted: Sequence[str]) -> list[str]:
    """The first way in which the H2 headings are not those wanted, in that order."""
    have = page.headings
    absent = [h for h in wanted if h not in have]
    extra = [h for h in have if h not in wanted]
    if absent or extra:
        return [f"no section {h!r}" for h in absent] + [
            f"section {h!r} is not one of the contract's" for h in extra
        ]
    if have != tuple(wanted):
        return [f"sections are {list(have)}, wants them in the order {list(wanted)}"]
    return []


def _coding_headings(page: Page) -> list[str]:
    numbered = [h for h in page.headings if EXERCISE.fullmatch(h)]
    found = _headings(page, (CODING_FIRST, *numbered, *CODING_LAST))
    numbers = [int(m[1]) for h in numbered if (m := EXERCISE.fullmatch(h))]
    if numbers != list(range(1, len(numbers) + 1)):
        found.append(f"exercises are numbered {numbers}, wants 1, 2, 3, ...")
    if not FEWEST_EXERCISES <= len(numbers) <= MOST_EXERCISES:
        found.append(
            f"{len(numbers)} sections 'Exercise N: title', "
            f"wants {FEWEST_EXERCISES} to {MOST_EXERCISES}"
        )
    return found


def _labels(page: Page, chapter: Chapter) -> list[str]:
    """Labels open with a module of the chapter, or with one word that is its own."""
    others = {m for c in CHAPTERS for m in c.modules} - set(chapter.modules)
    shape = re.compile(r"([a-z]\w*)-\w[\w-]*")
    found, words = [], set[str]()
    for label in page.labels:
        prefix = m[1] if (m := shape.fullmatch(label)) else ""
        if not prefix or prefix in others:
            found.append(f"label {label!r} wants to open with {chapter.modules[0]}-")
        elif prefix not in chapter.modules:
            words.add(prefix)
    if len(words) > 1:
        found.append(f"labels open with {sorted(words)}, wants one word for all")
    return found


def _citations(page: Page, root: Path) -> list[str]:
    bib = root / "book" / "references.bib"
    if not bib.is_file():
        return []
    text = bib.read_text(encoding="utf-8")
    known = set(re.findall(r"(?m)^\s*@\w+\s*\{\s*([^,\s]+)\s*,", text))
    return [
        f"cites {key!r}, which book/references.bib does not have"
        for key in sorted(set(cited(page.text)) - known)
    ]


# ------------------------------------------------------------ pictures

# A call on these draws, and so does what comes from these packages, ...
PAINTERS = {"plt", "style"}
PAINTING_PACKAGES = ("matplotlib", "mlfs.book.style")
# ... unless its name is one of these; methods of these names draw whatever they are on.
SETTING_UP = {"use", "apply", "setup", "close", "rc", "rc_context", "update"}
PAINTING = {"plot", "imshow", "scatter", "hist", "bar", "fill_between", "pcolormesh"}


def _pictures(page: Page, good: Iterable[Cell]) -> list[str]:
    shown = [c.fence for c in drawing(good) if "remove-" not in c.fence.option("tags")]
    shown += [f for f in page.fences if f.name in ("figure", "image", "glue:figure")]
    return [
        f"picture of line {fence.line}: {problem}"
        for fence in shown
        if (problem := _alt_problem(fence.option("alt")))
    ]


def _alt_problem(alt: str) -> str:
    if not alt:
        return "no alt text (`image: alt:` among the cell's mystnb options)"
    if re.fullmatch(r"\S+\.(png|svg|jpe?g|gif|pdf)", alt):
        return f"alt text is a file name: {alt}"
    if len(alt) < SHORTEST_ALT:
        return f"alt text has {len(alt)} characters, wants {SHORTEST_ALT} at least"
    return ""


def drawing(page_cells: Iterable[Cell]) -> list[Cell]:
    """The cells that draw when they run, also through functions of earlier cells."""
    painters, found = set(PAINTERS), []
    for cell in page_cells:
        for node in ast.walk(cell.tree):
            if isinstance(node, ast.ImportFrom) and _paints(node.module or ""):
                painters |= {alias.asname or alias.name for alias in node.names}
        runs: list[ast.stmt] = []
        for statement in cell.tree.body:
            if not isinstance(statement, ast.FunctionDef):
                runs.append(statement)
            elif _draws(statement.body, painters):
                painters.add(statement.name)
        if _draws(runs, painters):
            found.append(cell)
    return found


def _paints(package: str) -> bool:
    return any(f"{package}.".startswith(f"{known}.") for known in PAINTING_PACKAGES)


def _draws(body: Iterable[ast.stmt], painters: set[str]) -> bool:
    made = [n for s in body for n in ast.walk(s) if isinstance(n, ast.Call)]
    names = [dotted(call.func).split(".") for call in made]
    return any(
        (parts[0] in painters and parts[-1] not in SETTING_UP)
        or (len(parts) > 1 and parts[-1] in PAINTING)
        for parts in names
    )


# ------------------------------------------------------------ theory


def _proofs(page: Page, chapter: Chapter) -> list[str]:
    good, _ = cells(page.fences)
    asserts = sum(isinstance(n, ast.Assert) for c in good for n in ast.walk(c.tree))
    verified = {text_argument(v) for c in good for v in calls(c.tree, "verify")}
    found = []
    if asserts < FEWEST_ASSERTS:
        found.append(f"{asserts} asserts in its cells, wants at least {FEWEST_ASSERTS}")
    return found + [
        f'no cell calls verify("{module}")'
        for module in chapter.modules
        if module not in verified
    ]


# ------------------------------------------------------------ exercises


def exercise_names(tree: ast.AST) -> list[str]:
    """The names of the exercises that a file makes, as they stand there."""
    return [
        text_argument(call) or text_keyword(call, "name") or ""
        for call in calls(tree, "Exercise")
    ]


def _tasks(chapter: Chapter, trees: dict[str, ast.Module]) -> list[str]:
    return [
        f"{module}.{name}"
        for module in chapter.modules
        if (tree := trees.get(module_files(module)[3]))
        for name in exercise_names(tree)
    ]


def _checked(good: Iterable[Cell]) -> set[str]:
    named = {text_argument(call) for c in good for call in calls(c.tree, "check")}
    return {name for name in named if name is not None}


def _exercises(page: Page, tasks: Sequence[str]) -> list[str]:
    found = []
    used = set[str]()
    for section in page.sections:
        names = _checked(cells(section.fences)[0])
        used |= names  # the bug to find and the hard mode are checked, too
        if EXERCISE.fullmatch(section.heading):
            found += [
                f"{section.heading!r} has no {lack}" for lack in _lacks(section, names)
            ]
    return found + [
        f"no cell checks {name}, which mlfs.book.exercises has"
        for name in tasks
        if name not in used
    ]


def _lacks(section: Section, names: set[str]) -> list[str]:
    good, _ = cells(section.fences)
    stubs = {stub for cell in good for stub in _stubs(cell.tree)}
    wanted = {name.rpartition(".")[2] for name in names}
    lacks = []
    if not stubs or not wanted <= stubs:
        which = f" of {', '.join(sorted(wanted - stubs))}" if wanted else ""
        lacks.append(f"stub{which} that raises NotImplementedError")
    if not names:
        lacks.append('cell that calls check("module.name", ...)')
    folds = [f for f in section.fences if f.name == "admonition" and f.folded]
    if not any(f.argument.startswith("Hint") for f in folds):
        lacks.append("folded hint (an admonition with `:class: dropdown`)")
    solutions = [f for f in folds if f.argument.startswith("Solution")]
    if not any("{literalinclude}" in f.body for f in solutions):
        lacks.append("folded solution that shows the function by literalinclude")
    return lacks


def _stubs(tree: ast.Module) -> list[str]:
    """Names of the functions of a cell that raise NotImplementedError."""
    return [
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Raise) and "NotImplementedError" in ast.dump(node)
    ]


# ------------------------------------------------------------ code and tests


def _module(
    module: str,
    text: dict[str, str],
    trees: dict[str, ast.Module],
    labels: Sequence[str] | None,
) -> list[str]:
    code, test, oracle, tasks = module_files(module)
    found = []
    named = equations(text[code]) if code in trees else []
    if labels is not None:
        lost = [label for label in named if label not in labels]
        found += _in(
            code, [f"{label} labels no equation of theory.md" for label in lost]
        )
    if test in trees:
        found += _in(test, _claims(trees[test], module, named, labels))
    if oracle in trees and any(_imports(trees[oracle], "mlfs")):
        found.append(f"{oracle}: imports from mlfs, wants to share no code with it")
    if tasks in trees and "" in exercise_names(trees[tasks]):
        found.append(f"{tasks}: an Exercise whose name does not stand there as a text")
    return found


def _claims(
    tree: ast.Module, module: str, named: Sequence[str], labels: Sequence[str] | None
) -> list[str]:
    made = list(calls(tree, "claim"))
    found = [
        f"line {call.lineno}: claim wants its label and kind as texts that stand there"
        for call in made
        if text_argument(call) is None or text_keyword(call, "kind") is None
    ]
    about = {text_argument(call) for call in made}
    kinds = {text_keyword(call, "kind") for call in made}
    lost = [label for label in dict.fromkeys(named) if label not in about]
    found += [f"no claim for {label}, which the code cites" for label in lost]
    if labels is not None:
        dead = sorted(label for label in about if label and label not in labels)
        found += [f"claims {label}, which labels no equation" for label in dead]
    if "exact" not in kinds:
        found.append("no claim of kind exact")
    if not kinds & {"library", "published"}:
        found.append("no claim of kind library or published")
    if not any(_imports(tree, f"oracles.{module}")):
        found.append(f"does not import oracles.{module}, its exact oracle")
    return found


def _imports(tree: ast.AST, package: str) -> list[str]:
    """What a file imports of a package, by full name."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if f"{name}.".startswith(f"{package}.")]
