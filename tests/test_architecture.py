"""The import rule and the habits of the package: an arrow not listed may not exist."""

import ast
import sys

import pytest

from mlfs.book._source import dotted, habits
from mlfs.book.chapters import CHAPTERS, PARTS, ROOT

CODE = ROOT / "code"
MODULES = {
    ".".join(path.relative_to(CODE).with_suffix("").parts).removesuffix(
        ".__init__"
    ): path
    for path in sorted((CODE / "mlfs").rglob("*.py"))
}
CHAPTER_OF = {module: chapter for chapter in CHAPTERS for module in chapter.modules}

# Who in core may import what of ours; every module of core has a row.
ROOTS = {
    "mlfs.core.numerics",
    "mlfs.core.tree",
}  # of the package: they import none of it
ENGINE = {"mlfs.core.tape", "mlfs.core.rules"}  # under mlfs.autodiff, which shows them
CORE = {
    "mlfs.core": set(),
    "mlfs.core.numerics": set(),
    "mlfs.core.tree": set(),
    "mlfs.core.tape": set(),
    "mlfs.core.rules": {"mlfs.core.tape"},
    "mlfs.core.kernels": {"mlfs.core.numerics"},
    "mlfs.core.gaussian": ROOTS,
    "mlfs.core.data": ROOTS,
    "mlfs.core.dist": ROOTS | {"mlfs.core.gaussian", "mlfs.autodiff"},
    "mlfs.core.nn": ROOTS | {"mlfs.autodiff", "mlfs.core.kernels"},
    "mlfs.core.optim": ROOTS | {"mlfs.autodiff"},
}
NUMERIC = {"numpy", "scipy"}
PICTURES = {
    "matplotlib",
    "cycler",
}  # cycler is a part of matplotlib, shipped on its own

each_module = pytest.mark.parametrize("name", MODULES)


def imports(tree):
    """What a file imports: (full name, whether only inside a function)."""
    lazy = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full if full in MODULES else base), node in lazy


def is_book(name):
    return f"{name}.".startswith("mlfs.book.")


def allowed(me):
    """The modules of ours that `me` may import; None: any of them."""
    if is_book(me):
        return None
    if me in CORE:
        return CORE[me]
    if me == "mlfs":
        return set()
    if me == "mlfs.autodiff":
        return ROOTS | ENGINE
    chapter = CHAPTER_OF.get(me.removeprefix("mlfs."))
    if chapter is None:
        return set()
    ours = {*chapter.modules, *chapter.builds_on} - {me.removeprefix("mlfs.")}
    return {f"mlfs.{module}" for module in ours} | set(CORE) - {"mlfs.core"}


def violations(me, tree):
    """How the imports of one module break the rule."""
    found = []
    outside = NUMERIC | (PICTURES if is_book(me) else set())
    ours = allowed(me)
    for name, lazy in imports(tree):
        top = name.split(".")[0]
        if name.startswith("."):
            found.append(f"{me} imports {name}: imports are absolute")
        elif top == "mlfs":
            if name == "mlfs" or (ours is not None and name not in ours):
                found.append(f"{me} may not import {name}")
        elif top == "IPython" and is_book(me):
            if not lazy:
                found.append(f"{me} imports IPython outside a function")
        elif top not in outside | sys.stdlib_module_names:
            found.append(f"{me} may not import {name}")
    if not is_book(me):
        hidden = {"import_module", "__import__"}
        called = {dotted(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
        found += [
            f"{me} calls {call}, which hides an import"
            for call in sorted(called)
            if call.split(".")[-1] in hidden
        ]
    return found


def parse(name):
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


# ---------------------------------------------------------------- imports


@each_module
def test_import_rule(name):
    assert violations(name, parse(name)) == []


@each_module
def test_module_has_a_place_in_the_design(name):
    """A module that no table knows could import nothing, and would have no page."""
    known = name == "mlfs" or name in CORE or is_book(name)
    assert known or name.removeprefix("mlfs.") in CHAPTER_OF, f"{name} is in no table"


def test_no_module_imports_itself_by_a_detour():
    arrows = {
        me: {name for name, _ in imports(parse(me)) if name in MODULES}
        for me in MODULES
        if not is_book(me)
    }
    while free := {me for me in arrows if not arrows[me] & set(arrows)}:
        arrows = {me: names for me, names in arrows.items() if me not in free}
    assert not arrows, f"these import each other: {sorted(arrows)}"


def test_table_of_chapters_needs_the_standard_library_only():
    tops = {name.split(".")[0] for name, _ in imports(parse("mlfs.book.chapters"))}
    assert tops <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("me", "source"),
    [
        ("mlfs.hmm", "import torch"),
        ("mlfs.hmm", "import matplotlib.pyplot as plt"),
        ("mlfs.hmm", "from matplotlib import pyplot"),
        ("mlfs.hmm", "from mlfs.book import claims"),
        ("mlfs.hmm", "from mlfs.book.claims import measure"),
        ("mlfs.hmm", "def f():\n    import mlfs.book.check"),
        ("mlfs.hmm", "from mlfs import kalman"),
        ("mlfs.hmm", "import mlfs.glm"),
        ("mlfs.hmm", "from mlfs.autodiff import grad"),
        ("mlfs.hmm", "import mlfs"),
        ("mlfs.hmm", "from .core import numerics"),
        ("mlfs.hmm", "from . import core"),
        ("mlfs.hmm", "import importlib\nimportlib.import_module('torch')"),
        ("mlfs.slds", "from mlfs import hmm, glm"),
        ("mlfs.kalman", "from mlfs import hmm"),
        ("mlfs.autodiff", "from mlfs.core.nn import layer"),
        ("mlfs.autodiff", "from mlfs import hmm"),
        ("mlfs.core.numerics", "from mlfs.core.tree import leaves"),
        ("mlfs.core.numerics", "from mlfs import autodiff"),
        ("mlfs.core.gaussian", "from mlfs.autodiff import grad"),
        ("mlfs.core.data", "import pandas"),
        ("mlfs.core.nn", "from mlfs.rnn import step"),
        ("mlfs", "from mlfs.core import numerics"),
        ("mlfs.unheard_of", "from mlfs.core.numerics import Array"),
        ("mlfs.book.check", "import IPython"),
        ("mlfs.book.style", "import seaborn"),
    ],
)
def test_rule_refuses(me, source):
    # a module that is not written yet may be named, so it has to be known here
    known = dict.fromkeys([*CORE, *(f"mlfs.{module}" for module in CHAPTER_OF)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "MODULES", MODULES | known)
        assert len(violations(me, ast.parse(source))) == 1


@pytest.mark.parametrize(
    ("me", "source"),
    [
        ("mlfs.hmm", "import math\nimport numpy as np\nfrom scipy.special import erf"),
        ("mlfs.hmm", "from mlfs.core import data, nn\nfrom mlfs.core.dist import kl"),
        (
            "mlfs.slds",
            "from mlfs import hmm, kalman\nfrom mlfs.core.gaussian import pdf",
        ),
        ("mlfs.particle", "from mlfs.kalman import filter"),
        ("mlfs.rnn", "from mlfs import autodiff as ad\nfrom mlfs.autodiff import grad"),
        ("mlfs.autodiff", "from mlfs.core.tree import leaves"),
        ("mlfs.core.optim", "from mlfs.autodiff import grad"),
        ("mlfs.book.check", "def show():\n    from IPython.display import display"),
        ("mlfs.book.exercises.hmm", "from mlfs import hmm\nimport matplotlib"),
    ],
)
def test_rule_accepts(me, source):
    known = dict.fromkeys([*CORE, *(f"mlfs.{module}" for module in CHAPTER_OF)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "MODULES", MODULES | known)
        assert violations(me, ast.parse(source)) == []


# ---------------------------------------------------------------- the table


def test_chapters_build_only_on_earlier_ones():
    seen = set()
    for chapter in CHAPTERS:
        for module in chapter.builds_on:
            assert module in seen, (
                f"{chapter.slug} builds on {module}, not an earlier one"
            )
        assert not seen & set(chapter.modules), f"{chapter.slug}: a module listed twice"
        seen |= set(chapter.modules)


def test_folders_are_unique_and_parts_in_order():
    slugs = [chapter.slug for chapter in CHAPTERS]
    assert len(set(slugs)) == len(slugs)
    parts = [PARTS.index(chapter.part) for chapter in CHAPTERS]
    assert parts == sorted(parts)
    assert set(parts) == set(range(len(PARTS)))


# ---------------------------------------------------------------- habits

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public(tree):
    """Public functions and classes of a module, and public methods: (name, node)."""
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(inner, Function) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner


def raises_value_error(node):
    """Whether a function, or what makes an instance of a class, raises it itself."""
    if isinstance(node, ast.ClassDef):
        made = ("__init__", "__post_init__", "__new__")
        inner = [n for n in node.body if isinstance(n, Function) and n.name in made]
        return any(map(raises_value_error, inner))
    raised = [n.exc for n in ast.walk(node) if isinstance(n, ast.Raise) and n.exc]
    calls = [n.func if isinstance(n, ast.Call) else n for n in raised]
    return "ValueError" in map(dotted, calls)


def undocumented(tree):
    """What is public and says too little."""
    found = [] if ast.get_docstring(tree) else ["the module has no docstring"]
    for name, node in public(tree):
        said = ast.get_docstring(node) or ""
        if not said:
            found.append(f"{name} has no docstring")
        elif raises_value_error(node) and not (
            "Raises:" in said and "ValueError" in said
        ):
            found.append(f"{name} raises ValueError, its docstring does not say so")
    return found


def randomness(tree):
    """Where a result could depend on more than the arguments."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func).endswith("default_rng"):
            found.append(f"line {node.lineno} makes a generator: take rng instead")
        elif isinstance(node, Function):
            plain = [*node.args.posonlyargs, *node.args.args]
            filled = plain[len(plain) - len(node.args.defaults) :]
            pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            filled += [argument for argument, default in pairs if default]
            if "rng" in {argument.arg for argument in filled}:
                found.append(f"{node.name} has a default for rng, wants none")
    return found


@each_module
def test_public_names_are_documented(name):
    if not is_book(name):
        assert undocumented(parse(name)) == []


@each_module
def test_no_hidden_randomness_and_no_inverse(name):
    assert habits(parse(name)) == []
    if not is_book(name):
        assert randomness(parse(name)) == []


@pytest.mark.parametrize(
    "source",
    [
        "np.random.seed(0)",
        "x = np.random.normal(size=3)",
        "numpy.random.rand()",
        "from numpy.random import rand",
        "from numpy import random",
        "import random",
        "from random import choice",
        "np.linalg.inv(A)",
        "from scipy.linalg import inv",
        "from scipy import linalg\nlinalg.inv(A)",
    ],
)
def test_habits_are_seen(source):
    assert len(habits(ast.parse(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "def f(rng: np.random.Generator):\n    return rng.random(3)",
        "rng = np.random.default_rng(0)",
        "np.linalg.solve(A, b)",
        "from scipy.linalg import solve_triangular",
        "inv(A)",
    ],
)
def test_good_habits_pass(source):
    assert habits(ast.parse(source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "def f(): 'It.'",
        "'M.'\ndef f(): pass",
        "'M.'\nclass C: pass",
        "'M.'\nclass C:\n    'It.'\n    def f(self): pass",
        "'M.'\ndef f():\n    'It.'\n    raise ValueError('no')",
        "'M.'\ndef f():\n    'It.'\n    for x in y:\n        raise ValueError",
        "'M.'\nclass C:\n    'It.'\n    def __init__(self): raise ValueError",
    ],
)
def test_missing_words_are_seen(source):
    assert len(undocumented(ast.parse(source))) == 1


def test_said_words_pass():
    source = "'M.'\ndef _f(): raise ValueError\ndef f():\n    '''It.\n\n    Raises:\n"
    source += "        ValueError: no.\n    '''\n    raise ValueError('no')"
    assert undocumented(ast.parse(source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "def f(rng=None): pass",
        "def f(x, rng=0, y=1): pass",
        "def f(*, rng=None): pass",
        "rng = np.random.default_rng(0)",
    ],
)
def test_own_generators_are_seen(source):
    assert len(randomness(ast.parse(source))) == 1


def test_given_generators_pass():
    source = "def f(x, rng, y=1): pass\ndef g(rng, *, z=1): return rng.normal()"
    assert randomness(ast.parse(source)) == []
