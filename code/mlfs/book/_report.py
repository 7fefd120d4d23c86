"""What `check` found, as plain text for a shell and as HTML for a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from textwrap import indent
from typing import Literal

Status = Literal["not started", "passed", "failed"]
SYMBOLS: dict[Status, str] = {"not started": "○", "passed": "✓", "failed": "✗"}
NO_LIMIT = (
    "This Python cannot stop a function that never returns; "
    "if a check hangs, interrupt it yourself."
)
BOX = (  # colours are inherited, so that the box reads in light and in dark
    "color:inherit;border:1px solid currentColor;border-left-width:5px;"
    "border-radius:4px;padding:0.5em 0.8em;margin:0.5em 0"
)
PRE = (
    "color:inherit;background:transparent;border:0;margin:0 0 0.4em 1em;padding:0;"
    "overflow-x:auto"
)


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """The verdict on one exercise; of a failure, the first case that shows it."""

    name: str  # "hmm.forward"
    status: Status
    message: str
    hint: str | None = None  # name of the mistake that the answer matches
    advice: str = ""  # the hint of that mistake
    inputs: str = ""
    expected: str = ""
    got: str = ""
    line: str = ""  # of the learner's code, where it raised
    printed: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    limited: bool = True  # whether a function that never returns would be stopped

    @property
    def passed(self) -> bool:
        """Whether the exercise is done."""
        return self.status == "passed"

    def __str__(self) -> str:
        head = f"{SYMBOLS[self.status]} {self._verdict()} {self.message}"
        notes = [f"  {note}" for note in self._notes()]
        blocks = [f"  {title}:\n{indent(t, '    ')}" for title, t in self._blocks()]
        return "\n".join([head, *notes, *blocks])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        symbol = f'<span aria-hidden="true">{SYMBOLS[self.status]}</span>'
        verdict = f"<strong>{escape(self._verdict())}</strong>"
        parts = [f"{symbol} {verdict} {escape(self.message)}"]
        parts += [escape(note) for note in self._notes()]
        body = [f'<p style="margin:0 0 0.4em">{part}</p>' for part in parts]
        for title, text in self._blocks():
            body.append(f'<p style="margin:0">{escape(title)}:</p>')
            body.append(f'<pre tabindex="0" style="{PRE}">{escape(text)}</pre>')
        label = escape(f"Check of {self.name}: {self.status}", quote=True)
        inner = "\n".join(body)
        return f'<section aria-label="{label}" style="{BOX}">\n{inner}\n</section>'

    def _verdict(self) -> str:
        return f"{self.name.rpartition('.')[2]}: {self.status}."

    def _notes(self) -> list[str]:
        hint = f"Hint ({self.hint}): {self.advice}" if self.hint else ""
        late = NO_LIMIT if self.status == "failed" and not self.limited else ""
        return [note for note in (hint, late) if note]

    def _blocks(self) -> list[tuple[str, str]]:
        blocks = [
            ("Your line", self.line),
            ("Input", self.inputs),
            ("Expected", self.expected),
            ("Got", self.got),
            ("Your function printed", "\n".join(self.printed)),
            ("Warnings", "\n".join(self.warned)),
        ]
        return [(title, text) for title, text in blocks if text]
