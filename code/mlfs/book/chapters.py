"""The chapters of the book: their folders, their modules and what each builds on.

One table serves the import rule (tests/test_architecture.py), the map on the landing
page, the prerequisite graph and the schedule.  It needs nothing but the standard
library, so that tools can read it before NumPy is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Chapter:
    """One row of the table: `slug` names the folder under book/."""

    slug: str
    title: str
    part: str
    modules: tuple[str, ...]
    builds_on: tuple[str, ...] = ()  # modules of earlier chapters

    @property
    def theory(self) -> Path:
        """The page of the first evening."""
        return ROOT / "book" / self.slug / "theory.md"

    @property
    def coding(self) -> Path:
        """The page of the second evening."""
        return ROOT / "book" / self.slug / "coding.md"

    @property
    def code(self) -> tuple[Path, ...]:
        """The chapter's modules in the package."""
        return tuple(ROOT / "code" / "mlfs" / f"{name}.py" for name in self.modules)

    @property
    def tests(self) -> tuple[Path, ...]:
        """One test module for each module."""
        return tuple(ROOT / "tests" / f"test_{name}.py" for name in self.modules)

    @property
    def files(self) -> tuple[Path, ...]:
        """All the files a chapter consists of."""
        return (self.theory, self.coding, *self.code, *self.tests)

    @property
    def stands(self) -> bool:
        """Whether every file of the chapter exists."""
        return all(path.is_file() for path in self.files)

    @property
    def begun(self) -> bool:
        """Whether any file of the chapter exists."""
        return any(path.is_file() for path in self.files)


PARTS = (
    "Foundations",
    "Inference",
    "Networks",
    "Generative models",
    "Reinforcement learning",
)
_F, _I, _N, _G, _R = PARTS
_AD = "autodiff"

CHAPTERS: tuple[Chapter, ...] = (
    Chapter("automatic-differentiation", "Automatic differentiation", _F, (_AD,)),
    Chapter("generalized-linear-models", "Generalized linear models", _I, ("glm",)),
    Chapter("hidden-markov-models", "Hidden Markov models", _I, ("hmm",)),
    Chapter(
        "kalman-and-particle-filters",
        "Kalman and particle filters",
        _I,
        ("kalman", "particle"),
    ),
    Chapter(
        "switching-linear-dynamical-systems",
        "Switching linear dynamical systems",
        _I,
        ("slds",),
        ("hmm", "kalman"),
    ),
    Chapter("gaussian-processes", "Gaussian processes", _I, ("gp",)),
    Chapter(
        "hierarchical-dirichlet-processes",
        "Hierarchical Dirichlet processes",
        _I,
        ("hdp",),
    ),
    Chapter(
        "bbvi-and-bayesian-neural-nets",
        "BBVI and Bayesian neural nets",
        _I,
        ("bbvi", "bnn"),
        (_AD,),
    ),
    Chapter(
        "recurrent-neural-networks", "Recurrent neural networks", _N, ("rnn",), (_AD,)
    ),
    Chapter("lstm-and-gru", "LSTM and GRU", _N, ("gated_rnn",), (_AD, "rnn")),
    Chapter("transformers", "Transformers", _N, ("transformer",), (_AD,)),
    Chapter("graph-neural-networks", "Graph neural networks", _N, ("gnn",), (_AD,)),
    Chapter("neural-odes", "Neural ODEs", _N, ("neural_ode",), (_AD,)),
    Chapter("natural-gradient", "Natural gradient", _N, ("natural_gradient",), (_AD,)),
    Chapter("meta-learning", "Meta-learning", _N, ("maml",), (_AD,)),
    Chapter(
        "vector-symbolic-architectures", "Vector-symbolic architectures", _N, ("vsa",)
    ),
    Chapter(
        "variational-autoencoders", "Variational autoencoders", _G, ("vae",), (_AD,)
    ),
    Chapter(
        "generative-adversarial-networks",
        "Generative adversarial networks",
        _G,
        ("gan",),
        (_AD,),
    ),
    Chapter("diffusion-models", "Diffusion models", _G, ("diffusion",), (_AD,)),
    Chapter(
        "stable-diffusion",
        "Stable Diffusion",
        _G,
        ("latent_diffusion",),
        (_AD, "vae", "diffusion", "transformer"),
    ),
    Chapter("reinforcement-learning", "Reinforcement learning", _R, ("rl",)),
    Chapter(
        "deep-reinforcement-learning",
        "Deep reinforcement learning",
        _R,
        ("dqn",),
        (_AD, "rl"),
    ),
    Chapter("actor-critic", "Actor-critic", _R, ("actor_critic",), (_AD, "rl")),
)


def by_slug(slug: str) -> Chapter:
    """The chapter whose folder is `slug`.

    Raises:
        ValueError: no chapter has that folder.
    """
    for chapter in CHAPTERS:
        if chapter.slug == slug:
            return chapter
    raise ValueError(f"slug is {slug!r}, want one of {[c.slug for c in CHAPTERS]}")


def by_module(module: str) -> Chapter:
    """The chapter that `module` (its bare name, like "hmm") belongs to.

    Raises:
        ValueError: no chapter has that module.
    """
    for chapter in CHAPTERS:
        if module in chapter.modules:
            return chapter
    known = [name for chapter in CHAPTERS for name in chapter.modules]
    raise ValueError(f"module is {module!r}, want one of {known}")
