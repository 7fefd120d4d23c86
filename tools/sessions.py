"""The sessions of the seminar: read the list, lay it out as tables, make the calendar.

    python tools/sessions.py                 print the upcoming and the past sessions
    python tools/sessions.py --check         say only whether the list is right
    python tools/sessions.py --ics FILE      write the calendar

The list is book/seminar/sessions.yml; its head explains the format.  The file is read
as text only (a date is a string until `_day` has looked at it), because YAML's own
guesses would turn 17:00 into a number and lose the line an error stands on.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo

import yaml
from icalendar import Calendar, Event, Timezone

from mlfs.book.chapters import CHAPTERS, ROOT, by_slug

SESSIONS = ROOT / "book" / "seminar" / "sessions.yml"
TBD = "to be determined"
UNKNOWN = (TBD, "not recorded")
STATUSES = ("announced", "held")
HEADER = ("Dates", "Time", "Place", "Chairs", "Topic")
NOTHING = "No session is listed at the moment."
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()  # in any locale
NEW_YORK = ZoneInfo("America/New_York")

# The rule in force since 2007, before the first session.  Written out, because a zone
# generated from the installed time zone data would change with every update of it.
VTIMEZONE = """\
BEGIN:VTIMEZONE
TZID:America/New_York
BEGIN:DAYLIGHT
DTSTART:20070311T020000
RRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=2SU
TZNAME:EDT
TZOFFSETFROM:-0500
TZOFFSETTO:-0400
END:DAYLIGHT
BEGIN:STANDARD
DTSTART:20071104T020000
RRULE:FREQ=YEARLY;BYMONTH=11;BYDAY=1SU
TZNAME:EST
TZOFFSETFROM:-0400
TZOFFSETTO:-0500
END:STANDARD
END:VTIMEZONE
"""


@dataclass(frozen=True, slots=True)
class Session:
    """One session: its `dates`, or the first day of its `month` while none is set."""

    line: int  # where the entry begins in the file
    dates: tuple[date, ...]
    month: date | None
    hours: tuple[time, time] | None  # None: to be determined
    place: str
    chairs: tuple[str, ...]  # empty: to be determined
    topic: str
    chapter: str | None
    held: bool

    @property
    def first_day(self) -> date:
        """The day the list is ordered by; without dates, the last of the month."""
        return self.dates[0] if self.dates else self.last_day

    @property
    def last_day(self) -> date:
        """The day after which the session is past."""
        if self.month is None:
            return self.dates[-1]
        next_month = (self.month + timedelta(days=31)).replace(day=1)
        return next_month - timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Break:
    """A gap between sessions, with the words that stand for it in the table."""

    line: int
    text: str


Entry = Session | Break
_T = TypeVar("_T")


# Reading ----------------------------------------------------------------------------


def load(path: Path = SESSIONS) -> list[Entry]:
    """The entries of the list at `path`, in the order of time.

    Raises:
        ValueError: the list is wrong; the message begins with the file's name and the
            line, and says what was got and what is wanted.
        OSError: there is no such file.
    """
    root = _compose(path.name, path.read_bytes())
    if not isinstance(root, yaml.SequenceNode):
        raise _wrong(root, f"the file holds {_kind(root)}, want a list of sessions")
    entries = [_entry(node) for node in root.value]
    _check_order(path.name, [e for e in entries if isinstance(e, Session)])
    return entries


def _compose(name: str, raw: bytes) -> yaml.Node:
    """The YAML nodes of `raw`, every scalar a string, every mark bearing `name`."""
    try:
        text = raw.decode()
        loader = yaml.BaseLoader(text)
        loader.name = name
        root: yaml.Node | None = loader.get_single_node()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        got = f"byte 0x{raw[error.start]:02x}"
        raise ValueError(f"{name}:{line}: {got} is not UTF-8, want text") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        got = f"character U+{ord(text[error.position]):04X}"
        raise ValueError(f"{name}:{line}: {got} is invisible, want text") from None
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{name}:{_syntax(error)}") from None
    if root is None:
        raise ValueError(f"{name}:1: the file is empty, want a list of sessions")
    return root


def _syntax(error: yaml.MarkedYAMLError) -> str:
    """Line and description of what YAML itself refuses."""
    mark, context = error.problem_mark, error.context or "while parsing"
    # What is never closed is noticed far below the line that opens it.
    if context.startswith(("while scanning", "while parsing a flow")):
        mark = error.context_mark or mark
    line = mark.line + 1 if mark else 1
    return (
        f"{line}: not valid YAML: {context}: {error.problem}; want entries laid out as"
        " at the head of the file, and in quotes a text with ': ' in it"
    )


def _wrong(node: yaml.Node, text: str) -> ValueError:
    """The error that points at `node`."""
    mark = node.start_mark
    return ValueError(f"{mark.name}:{mark.line + 1}: {text}")


def _kind(node: yaml.Node) -> str:
    """What an author would call `node`."""
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value) if node.value else "nothing"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a set of fields"


def _entry(node: yaml.Node) -> Entry:
    """One session or break."""
    keys = _fields(node)
    line = node.start_mark.line + 1
    if "break" in keys:
        _check_names(node, keys, required=("break",), optional=())
        return Break(line, _text("break", keys["break"][1]))
    fixed = "month" if "month" in keys else "dates"
    required = (fixed, "time", "place", "chairs", "topic", "status")
    _check_names(node, keys, required, optional=("chapter", "dates", "month"))
    if "dates" in keys and "month" in keys:
        raise _wrong(keys["month"][0], "got both dates and month, want one of them")
    values = {name: value for name, (_, value) in keys.items()}
    return Session(
        line=line,
        dates=_dates(values["dates"]) if "dates" in values else (),
        month=_month(values["month"]) if "month" in values else None,
        hours=_hours(values["time"]),
        place=_text("place", values["place"]),
        chairs=_chairs(values["chairs"]),
        topic=_text("topic", values["topic"]),
        chapter=_chapter(values["chapter"]) if "chapter" in values else None,
        held=_choice("status", values["status"], STATUSES) == "held",
    )


def _fields(entry: yaml.Node) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """The nodes of name and value of every field, by name."""
    if not isinstance(entry, yaml.MappingNode):
        raise _wrong(entry, f"an entry is {_kind(entry)}, want fields like 'topic: …'")
    found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in entry.value:
        name = _text("the name of a field", key)
        if name in found:
            first = found[name][0].start_mark.line + 1
            text = f"{name} is given again (first on line {first}), want it once"
            raise _wrong(key, text)
        found[name] = (key, value)
    return found


def _check_names(
    entry: yaml.Node,
    keys: dict[str, tuple[yaml.Node, yaml.Node]],
    required: tuple[str, ...],
    optional: tuple[str, ...],
) -> None:
    """Refuse a field that does not belong and miss one that does."""
    for name, (key, _) in keys.items():
        if name not in required + optional:
            want = ", ".join(dict.fromkeys(required + optional))
            raise _wrong(key, f"there is no field {name!r}, want one of {want}")
    missing = [name for name in required if name not in keys]
    if missing:
        hint = " (or month)" if "dates" in missing else ""
        text = f"the entry has no {', '.join(missing)}{hint}, got {', '.join(keys)}"
        raise _wrong(entry, f"{text}; want {', '.join(required)}")


def _text(name: str, node: yaml.Node) -> str:
    """The words of `node`, on one line."""
    if not isinstance(node, yaml.ScalarNode):
        raise _wrong(node, f"{name} is {_kind(node)}, want text")
    text = " ".join(node.value.split())
    if not text:
        raise _wrong(node, f"{name} is empty, want text")
    if not text.isprintable():
        raise _wrong(node, f"{name} is {text!r}, want no invisible characters")
    return text


def _items(name: str, node: yaml.Node, example: str) -> list[yaml.Node]:
    """The nodes of a list that is not empty."""
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        got = "an empty list" if isinstance(node, yaml.SequenceNode) else _kind(node)
        raise _wrong(node, f"{name} is {got}, want a list like {example}")
    return list(node.value)


def _choice(name: str, node: yaml.Node, options: Sequence[str]) -> str:
    """The text of `node`, which has to be one of `options`."""
    text = _text(name, node)
    if text not in options:
        raise _wrong(node, f"{name} is {text!r}, want one of {', '.join(options)}")
    return text


def _chapter(node: yaml.Node) -> str:
    """The folder of a chapter that the book's table knows."""
    return _choice("chapter", node, [chapter.slug for chapter in CHAPTERS])


def _day(node: yaml.Node) -> date:
    """A day of the calendar, from YYYY-MM-DD."""
    text = _text("a date", node)
    found = _parse(r"(20\d\d)-(\d\d)-(\d\d)", text, date)
    if found is None:
        want = "want a day that exists, year-month-day like 2019-02-12"
        raise _wrong(node, f"a date is {text!r}, {want}")
    return found


def _dates(node: yaml.Node) -> tuple[date, ...]:
    """The days of a session, each after the one before."""
    items = _items("dates", node, "[2019-02-12, 2019-02-13]")
    days = [_day(item) for item in items]
    for before, day, item in zip(days, days[1:], items[1:], strict=False):
        if day <= before:
            text = f"the date {day} follows {before}, want each after the one before"
            raise _wrong(item, text)
    return tuple(days)


def _month(node: yaml.Node) -> date:
    """The first day of a month, from YYYY-MM."""
    text = _text("month", node)
    found = _parse(r"(20\d\d)-(\d\d)", text, lambda year, month: date(year, month, 1))
    if found is None:
        want = "want a month that exists, year-month like 2024-03"
        raise _wrong(node, f"month is {text!r}, {want}")
    return found


def _hours(node: yaml.Node) -> tuple[time, time] | None:
    """Start and end, from HH:MM-HH:MM; None while they are to be determined."""
    text = _text("time", node)
    if text == TBD:
        return None
    hours = _parse(r"(\d\d):(\d\d)-(\d\d):(\d\d)", text, _start_and_end)
    if hours is None:
        want = f"want start-end like 17:00-20:00, or: {TBD}"
        raise _wrong(node, f"time is {text!r}, {want}")
    if hours[1] <= hours[0]:
        raise _wrong(node, f"time is {text!r}, want an end that is after the start")
    return hours


def _start_and_end(h: int, m: int, end_h: int, end_m: int) -> tuple[time, time]:
    """Two times of one day."""
    return time(h, m), time(end_h, end_m)


def _parse(pattern: str, text: str, make: Callable[..., _T]) -> _T | None:
    """What `make` builds from the numbers in `text`; None when it cannot."""
    match = re.fullmatch(pattern, text, re.ASCII)
    try:
        return make(*map(int, match.groups())) if match else None
    except ValueError:
        return None


def _chairs(node: yaml.Node) -> tuple[str, ...]:
    """The names of the chairs; none while they are to be determined."""
    if isinstance(node, yaml.ScalarNode) and node.value.strip() == TBD:
        return ()
    items = _items("chairs", node, f"[Ada, Grace], or: {TBD}")
    return tuple(_text("a chair", item) for item in items)


def _check_order(name: str, sessions: list[Session]) -> None:
    """Refuse a session before its predecessor, and two on one day.

    Two on one day would also share the name of a calendar event.
    """
    taken: dict[date, int] = {}
    for before, session in zip([None, *sessions], sessions, strict=False):
        where = f"{name}:{session.line}: the session of {when(session)}"
        if before and session.first_day < before.first_day:
            text = f"stands after that of {when(before)} (line {before.line})"
            raise ValueError(f"{where} {text}, want the order of time")
        for day in session.dates:
            if day in taken:
                text = f"shares {day} with the one on line {taken[day]}"
                raise ValueError(f"{where} {text}, want a day of its own")
            taken[day] = session.line


# Tables -----------------------------------------------------------------------------


def current_day() -> date:
    """Today; the day of SOURCE_DATE_EPOCH (in UTC) where that variable is set.

    Raises:
        ValueError: SOURCE_DATE_EPOCH is no number of seconds.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        return date.today()
    try:
        return datetime.fromtimestamp(int(epoch), UTC).date()
    except (ValueError, OverflowError, OSError):
        want = "want whole seconds since 1970"
        raise ValueError(f"SOURCE_DATE_EPOCH is {epoch!r}, {want}") from None


def split(entries: Sequence[Entry], today: date) -> tuple[list[Entry], list[Entry]]:
    """Those with an evening today or later, and those that are past.

    A month without dates is past when it is over, a break when a session after it is.
    """
    upcoming: list[Entry] = []
    past: list[Entry] = []
    later_is_past = False
    for entry in reversed(entries):
        if isinstance(entry, Session):
            is_past = entry.last_day < today
            later_is_past = later_is_past or is_past
        else:
            is_past = later_is_past
        (past if is_past else upcoming).insert(0, entry)
    return upcoming, past


def when(session: Session) -> str:
    """The days in words: 12 and 13 Feb 2019, 30 Apr and 1 May 2020, Mar 2024."""
    if session.month is not None:
        return f"{MONTHS[session.month.month - 1]} {session.month.year}"
    years = groupby(session.dates, lambda day: day.year)
    return _join([f"{_days_and_months(days)} {year}" for year, days in years])


def _days_and_months(days: Iterable[date]) -> str:
    """The days of one year in words, without the year."""
    months = groupby(days, lambda day: day.month)
    return _join([f"{_numbers(group)} {MONTHS[month - 1]}" for month, group in months])


def _numbers(days: Iterable[date]) -> str:
    """The days of one month in words, without the month."""
    return _join([str(day.day) for day in days])


def _join(words: list[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def table_rows(entries: Iterable[Entry]) -> list[tuple[str, ...]]:
    """One row of Markdown cells an entry, under the columns of `HEADER`."""
    return [_row(entry) for entry in entries]


def _row(entry: Entry) -> tuple[str, ...]:
    if isinstance(entry, Break):
        return ("", "", "", "", f"*{_escape(entry.text)}*")
    hours = TBD
    if entry.hours:
        hours = f"{entry.hours[0]:%H:%M}–{entry.hours[1]:%H:%M}"
    chairs = ", ".join(entry.chairs) or TBD
    plain = (when(entry), hours, entry.place, chairs)
    return (*map(_escape, plain), _topic(entry))


def _topic(session: Session) -> str:
    """The topic, linked where its chapter stands, marked where only announced."""
    topic = _escape(session.topic)
    if session.chapter and by_slug(session.chapter).stands:
        topic = f"[{topic}](../{session.chapter}/theory.md)"
    return topic if session.held else f"{topic} (announced)"


def _escape(text: str) -> str:
    """Text that Markdown shows as it is, also within a cell of a table."""
    return re.sub(r"[\\`*_{}\[\]<>|$&~#]", r"\\\g<0>", text)


def markdown_table(entries: Sequence[Entry]) -> str:
    """A MyST Markdown table of the entries, or a sentence when there are none.

    The links are those of a page in book/seminar/.
    """
    if not entries:
        return NOTHING + "\n"
    rows = [HEADER, ("---",) * len(HEADER), *table_rows(entries)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


# Calendar ---------------------------------------------------------------------------


def calendar(entries: Iterable[Entry]) -> bytes:
    """An RFC 5545 calendar with one event an evening, in the time of New York.

    A session without dates has no evening yet and is left out; one whose time is to be
    determined takes the whole day.  The same entries give the same bytes on any day.
    """
    feed = Calendar()
    feed.add("prodid", "-//Machine Learning from Scratch//Seminar//EN")
    feed.add("version", "2.0")
    feed.add_component(Timezone.from_ical(VTIMEZONE))
    for entry in entries:
        if isinstance(entry, Session):
            for number in range(1, len(entry.dates) + 1):
                feed.add_component(_event(entry, number))
    return bytes(feed.to_ical())


def _event(session: Session, number: int) -> Event:
    """Evening `number` of a session."""
    day = session.dates[number - 1]
    event = Event()
    # The day names the event, so a change of topic, room or hour updates it in place.
    event.add("uid", f"{day}@ml-from-scratch-seminar")
    # RFC 5545 demands a stamp; the evening's own day keeps the clock out of the file.
    event.add("dtstamp", datetime.combine(day, time(), UTC))
    event.add("summary", _summary(session, number))
    event.add("description", f"Chairs: {', '.join(session.chairs) or TBD}")
    if session.place not in UNKNOWN:
        event.add("location", session.place)
    if session.hours is None:
        event.add("dtstart", day)
    else:
        start, end = session.hours
        event.add("dtstart", datetime.combine(day, start, NEW_YORK))
        event.add("dtend", datetime.combine(day, end, NEW_YORK))
    return event


def _summary(session: Session, number: int) -> str:
    """Topic and kind of the evening; a single evening is neither theory nor coding."""
    if len(session.dates) == 1:
        return session.topic
    kind = "theory" if number == 1 else "coding"
    return f"Evening {number} ({kind}): {session.topic}"


# Command line -----------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 when the list is wrong or a file cannot be used."""
    parser = argparse.ArgumentParser(description="The sessions of the seminar.")
    parser.add_argument("list", nargs="?", type=Path, default=SESSIONS)
    parser.add_argument("--check", action="store_true", help="only validate")
    parser.add_argument("--ics", type=Path, metavar="FILE", help="write the calendar")
    options = parser.parse_args(arguments)
    try:
        entries = load(options.list)
        if options.ics:
            options.ics.write_bytes(calendar(entries))
        if not (options.check or options.ics):
            upcoming, past = split(entries, current_day())
            print(f"Upcoming\n\n{markdown_table(upcoming)}")
            print(f"Past\n\n{markdown_table(past)}", end="")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
