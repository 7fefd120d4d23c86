"""The record of the seminar is typed here a second time; the file has to agree."""

import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from icalendar import Calendar
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

import sessions
from mlfs.book.chapters import CHAPTERS, ROOT, Chapter

# days, weekdays as announced, time, place, chairs, topic, whether held
HISTORY = """
2019-01-30            | Wed     | 17:00–19:00 | not recorded | Johannes          | Kick-off meeting | held
2019-02-12 2019-02-13 | Tue Wed | 17:00–20:00 | not recorded | Luke, Johannes    | Variational auto-encoders | held
2019-04-23 2019-04-25 | Tue Thu | 17:00–20:00 | not recorded | Chong, Alex       | Hidden Markov models | held
2019-06-26 2019-06-27 | Wed Thu | 17:00–20:00 | not recorded | Selmaan           | Gaussian processes | held
2019-09-25 2019-09-26 | Wed Thu | 17:00–20:00 | not recorded | Shih-Yi, Johannes | Generative adversarial networks | held
2019-11-20 2019-11-21 | Wed Thu | 17:00–20:00 | not recorded | Seul Ah, Win      | Introduction to reinforcement learning | held
2020-02-12 2020-02-19 | Wed Wed | 17:00–20:00 | not recorded | Anna K.           | Kalman and particle filters | held
2020-04-29 2020-04-30 | Wed Thu | 16:00–19:00 | not recorded | Emma, Jeff        | Deep reinforcement learning | held
break
2021-12-15 2021-12-16 | Wed Thu | 17:00–20:00 | not recorded | Alex, Johannes    | Bayesian neural nets and BBVI | held
2022-03-07 2022-03-10 | Mon Thu | 17:00–20:00 | not recorded | John, Zach        | Actor-critic methods for RL | held
2022-06-21 2022-06-22 | Tue Wed | 17:00–20:00 | not recorded | Binxu, John       | Diffusion generative models | held
2022-11-01 2022-11-02 | Tue Wed | 17:00–20:00 | not recorded | Binxu, John       | Stable Diffusion | held
2023-04-18 2023-04-19 | Tue Wed | 18:00–20:30 | not recorded | Binxu             | Transformers | held
2024-02-20 2024-02-22 | Tue Thu | 17:00–20:00 | WAB 236, HMS | John, Kiah        | Generalized linear models | held
2024-03               |         | to be determined | to be determined | John, Siyan | Recurrent neural networks | announced
2024-04               |         | to be determined | to be determined | to be determined | to be determined | announced
2024-05               |         | to be determined | to be determined | to be determined | to be determined | announced
"""  # noqa: E501
RECORD = [line.split("|") for line in HISTORY.strip().splitlines()]
RECORD = [[cell.strip() for cell in line] for line in RECORD]
CHAPTER_OF = {
    "Variational auto-encoders": "variational-autoencoders",
    "Hidden Markov models": "hidden-markov-models",
    "Gaussian processes": "gaussian-processes",
    "Generative adversarial networks": "generative-adversarial-networks",
    "Introduction to reinforcement learning": "reinforcement-learning",
    "Kalman and particle filters": "kalman-and-particle-filters",
    "Deep reinforcement learning": "deep-reinforcement-learning",
    "Bayesian neural nets and BBVI": "bbvi-and-bayesian-neural-nets",
    "Actor-critic methods for RL": "actor-critic",
    "Diffusion generative models": "diffusion-models",
    "Stable Diffusion": "stable-diffusion",
    "Transformers": "transformers",
    "Generalized linear models": "generalized-linear-models",
    "Recurrent neural networks": "recurrent-neural-networks",
}
WEEKDAYS = "Mon Tue Wed Thu Fri Sat Sun".split()

GOOD = """\
# a comment on line 1
- dates: [2030-02-12, 2030-02-13]
  time: 17:00-20:00
  place: WAB 236
  chairs: [Ada, Grace]
  topic: Hidden Markov models
  chapter: hidden-markov-models
  status: held

- break: Summer
- month: 2030-07
  time: to be determined
  place: to be determined
  chairs: to be determined
  topic: to be determined
  status: announced
"""


def written(folder, text):
    path = folder / "sessions.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def load(tmp_path):
    return lambda text: sessions.load(written(tmp_path, text))


def session(*days, topic="Topic", time="17:00-20:00", month=None, **fields):
    """A Session built without the reader."""
    start, _, end = time.partition("-")
    hours = None
    if end:
        hours = tuple(datetime.strptime(t, "%H:%M").time() for t in (start, end))
    values = {
        "line": 1,
        "dates": tuple(map(date.fromisoformat, days)),
        "month": date.fromisoformat(f"{month}-01") if month else None,
        "hours": hours,
        "place": "WAB 236, HMS",
        "chairs": ("Ada", "Grace"),
        "topic": topic,
        "chapter": None,
        "held": True,
    }
    return sessions.Session(**values | fields)


# The record


@pytest.mark.parametrize("number", range(len(RECORD)))
def test_every_row_of_the_record_stands(number):
    entry = sessions.load()[number]
    if RECORD[number] == ["break"]:
        assert isinstance(entry, sessions.Break) and "COVID" in entry.text
        return
    days, weekdays, *cells, topic, status = RECORD[number]
    month = [] if entry.month is None else [f"{entry.month:%Y-%m}"]
    assert [*map(str, entry.dates), *month] == days.split()
    assert [WEEKDAYS[day.weekday()] for day in entry.dates] == weekdays.split()
    _, time, place, chairs, _ = sessions.table_rows([entry])[0]
    assert [time, place, chairs] == cells
    assert entry.topic == topic
    assert entry.held == (status == "held")
    assert entry.chapter == CHAPTER_OF.get(topic)


def test_nothing_stands_beside_the_record():
    # Sessions since then may follow it.
    later = sessions.load()[len(RECORD) :]
    assert all(e.first_day > date(2024, 5, 31) for e in later if hasattr(e, "dates"))


# What is refused


def test_the_good_example_is_good(load):
    first, pause, last = load(GOOD)
    assert (first.line, pause.line, last.line) == (2, 10, 11)
    assert first.chairs == ("Ada", "Grace") and last.chairs == ()
    assert first.hours and last.hours is None
    assert first.held and not last.held
    assert pause.text == "Summer"


WRONG = {
    "day that does not exist": ("2030-02-13]", "2030-02-30]", 2, "'2030-02-30'"),
    "month that does not exist": ("2030-07", "2030-13", 11, "'2030-13'"),
    "date in other order": ("2030-02-12", "12.02.2030", 2, "year-month-day"),
    "week date": ("2030-02-12", "2030-W07-2", 2, "year-month-day"),
    "year typed wrong": ("2030-02-12", "0230-02-12", 2, "'0230-02-12'"),
    "month with a day": ("month: 2030-07", "month: 2030-07-01", 11, "year-month like"),
    "date on a line of its own": (
        "[2030-02-12, 2030-02-13]",
        "\n  - 2030-02-12\n  - 2030-02-31",
        4,
        "'2030-02-31'",
    ),
    "dates not a list": ("[2030-02-12, 2030-02-13]", "2030-02-12", 2, "want a list"),
    "no date": ("[2030-02-12, 2030-02-13]", "[]", 2, "dates is an empty list"),
    "dates repeated": ("2030-02-13", "2030-02-12", 2, "each after the one before"),
    "dates falling": ("2030-02-13", "2030-02-11", 2, "2030-02-11 follows 2030-02-12"),
    "unknown chapter": (
        "chapter: hidden-markov-models",
        "chapter: hidden-markov",
        7,
        "'hidden-markov', want one of .*gaussian-processes",
    ),
    "empty chapter": ("chapter: hidden-markov-models", "chapter:", 7, "is empty"),
    "end before start": ("17:00-20:00", "20:00-17:00", 3, "'20:00-17:00', want an end"),
    "end at start": ("17:00-20:00", "17:00-17:00", 3, "want an end that is after"),
    "time that does not exist": ("17:00-20:00", "17:00-25:00", 3, "'17:00-25:00'"),
    "time without an end": ("17:00-20:00", "17:00", 3, "want start-end"),
    "time as a list": ("17:00-20:00", "[17:00, 20:00]", 3, "time is a list"),
    "unknown field": ("  place: WAB", "  room: WAB", 4, "no field 'room', want.*place"),
    "field of a break": ("- break: Summer\n", "- break: S\n  time: x\n", 11, "'time'"),
    "missing field": ("  place: WAB 236\n", "", 2, "has no place, got dates, time"),
    "neither date nor month": ("- month: 2030-07\n  t", "- t", 11, "dates .or month."),
    "both date and month": ("  time: 17", "  month: 2030-02\n  time: 17", 3, "both"),
    "duplicate field": (
        "  status: held",
        "  topic: Again\n  status: held",
        8,
        r"topic is given again \(first on line 6\)",
    ),
    "empty topic": ("topic: Hidden Markov models", "topic:", 6, "topic is empty"),
    "blank topic": ("topic: Hidden Markov models", "topic: ' '", 6, "topic is empty"),
    "topic as a list": ("topic: Hidden Markov models", "topic: [a]", 6, "is a list"),
    "control code in topic": ("Hidden Markov models", r'"a\a"', 6, "no invisible"),
    "chairs as text": ("[Ada, Grace]", "Ada and Grace", 5, "'Ada and Grace', want a"),
    "chairs as fields": ("[Ada, Grace]", "{a: b}", 5, "a set of fields"),
    "no chairs": ("[Ada, Grace]", "[]", 5, "chairs is an empty list"),
    "a chair without a name": ("[Ada, Grace]", "[Ada, '']", 5, "a chair is empty"),
    "status": ("status: held", "status: yes", 8, "'yes', want one of announced, held"),
    "entry as text": ("- break: Summer", "- Summer", 10, "an entry is 'Summer'"),
    "entry as nothing": ("- break: Summer", "-", 10, "an entry is nothing"),
    "break without words": ("- break: Summer", "- break:", 10, "break is empty"),
    "colon in a text": ("topic: Hidden", "topic: On: Hidden", 6, "in quotes"),
    "no blank after the colon": ("  place: WAB", "  place:WAB", 4, "not valid YAML"),
    "tab": ("  place: WAB", "\tplace: WAB", 4, "not valid YAML"),
    "bracket left open": ("[Ada, Grace]", "[Ada, Grace", 5, "flow sequence"),
    "quote left open": ("topic: Hidden", "topic: 'Hidden", 6, "quoted scalar"),
    "not indented": ("  place: WAB", "place: WAB", 4, "not valid YAML"),
    "second document": ("- break: Summer", "---\n- break: S", 10, "not valid YAML"),
    "later before earlier": ("month: 2030-07", "month: 2030-01", 11, r"\(line 2\)"),
    "two on one day": (
        "month: 2030-07",
        "dates: [2030-02-13]",
        11,
        "shares 2030-02-13 with the one on line 2",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_list_is_refused_at_its_line(load, case):
    old, new, line, message = WRONG[case]
    assert GOOD.count(old) == 1
    with pytest.raises(ValueError, match=rf"^sessions\.yml:{line}: .*{message}"):
        load(GOOD.replace(old, new))


@pytest.mark.parametrize(
    "text, line, message",
    [
        ("", 1, "the file is empty"),
        ("# only a comment\n", 1, "the file is empty"),
        ("dates: [2030-01-01]\n", 1, "a set of fields, want a list of sessions"),
        (GOOD.replace("Grace", "Zo\x01"), 5, r"U\+0001 is invisible"),
        (GOOD.replace("Grace", "Zoë").encode("latin-1"), 5, "byte 0xeb is not UTF-8"),
    ],
)
def test_a_wrong_file_is_refused(load, text, line, message):
    with pytest.raises(ValueError, match=rf"^sessions\.yml:{line}: .*{message}"):
        load(text)


def test_what_yaml_would_guess_stays_text(load):
    first = load(GOOD.replace("WAB 236", "1e3").replace("Ada", "no"))[0]
    assert (first.place, first.chairs[0]) == ("1e3", "no")


def test_windows_line_endings_change_nothing(load):
    assert load(GOOD.replace("\n", "\r\n")) == load(GOOD)


def test_a_month_stands_after_the_dated_sessions_of_that_month(load):
    moved = GOOD.replace("month: 2030-07", "month: 2030-02")
    assert len(load(moved)) == 3
    entry = GOOD[GOOD.index("- month") :].replace("2030-07", "2030-02")
    with pytest.raises(ValueError, match=r":7: .*want the order of time"):
        load(entry + GOOD[GOOD.index("- dates") :])


def test_one_month_may_have_two_sessions_without_dates(load):
    entry = GOOD[GOOD.index("- month") :]
    assert len(load(entry + entry)) == 2


# Upcoming and past

PAIR = session("2030-02-12", "2030-02-19")
MONTH = session(month="2030-12")


@pytest.mark.parametrize(
    "entry, last_day", [(PAIR, date(2030, 2, 19)), (MONTH, date(2030, 12, 31))]
)
def test_a_session_is_upcoming_to_the_end_of_its_last_day(entry, last_day):
    assert sessions.split([entry], last_day) == ([entry], [])
    assert sessions.split([entry], last_day + timedelta(1)) == ([], [entry])


def test_a_break_is_past_when_a_session_after_it_is():
    entries = [PAIR, sessions.Break(2, "Summer"), MONTH, sessions.Break(4, "Winter")]
    assert sessions.split(entries, date(2030, 12, 31)) == (entries[1:], entries[:1])
    assert sessions.split(entries, date(2031, 1, 1)) == (entries[3:], entries[:3])


def test_a_break_before_a_long_session_is_past_with_the_short_one_inside_it():
    long, short = session("2030-02-12", "2030-03-30"), session("2030-02-20")
    pause = sessions.Break(1, "Winter")
    split = sessions.split([pause, long, short], date(2030, 3, 1))
    assert split == ([long], [pause, short])


def test_split_keeps_every_entry_of_the_record_in_order():
    entries = sessions.load()
    upcoming, past = sessions.split(entries, date(2022, 6, 22))
    assert past + upcoming == entries
    assert upcoming[0].topic == "Diffusion generative models"


def test_the_day_comes_from_source_date_epoch(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1550016000")
    assert sessions.current_day() == date(2019, 2, 13)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1550015999")
    assert sessions.current_day() == date(2019, 2, 12)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(ValueError, match="SOURCE_DATE_EPOCH is 'soon', want"):
        sessions.current_day()
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert abs(sessions.current_day() - date.today()) <= timedelta(1)


# Tables


@pytest.mark.parametrize(
    "days, words",
    [
        (["2019-01-30"], "30 Jan 2019"),
        (["2019-02-12", "2019-02-13"], "12 and 13 Feb 2019"),
        (["2020-04-30", "2020-05-01"], "30 Apr and 1 May 2020"),
        (["2019-12-31", "2020-01-02"], "31 Dec 2019 and 2 Jan 2020"),
        (["2022-03-07", "2022-03-08", "2022-03-10"], "7, 8 and 10 Mar 2022"),
    ],
)
def test_days_in_words(days, words):
    assert sessions.when(session(*days)) == words


def test_a_month_in_words():
    assert sessions.when(session(month="2024-03")) == "Mar 2024"


def html(markdown):
    return create_md_parser(MdParserConfig(), RendererHTML).render(markdown)


def cells(markdown):
    """The text of the cells of each row, as a reader sees it."""
    rows = ElementTree.fromstring(f"<p>{html(markdown)}</p>").iter("tr")
    return [["".join(cell.itertext()) for cell in row] for row in rows]


@given(st.text(st.sampled_from("aZ |\\`*_[]{}<>()$#&~!-:+=.1'\"@%"), min_size=1))
def test_any_text_is_shown_as_it_was_written(text):
    text = " ".join(text.split()) or "x"
    row = session("2030-01-02", topic=text, place=text, chairs=(text,))
    shown = cells(sessions.markdown_table([row]))[1]
    assert shown == ["2 Jan 2030", "17:00–20:00", text, text, text]


def test_the_topic_is_linked_where_the_chapter_stands(monkeypatch):
    row = session("2030-01-02", topic="[HMM]", chapter="hidden-markov-models")
    monkeypatch.setattr(Chapter, "stands", True)
    linked = sessions.markdown_table([row])
    assert r"| [\[HMM\]](../hidden-markov-models/theory.md) |" in linked
    assert '<a href="../hidden-markov-models/theory.md">[HMM]</a>' in html(linked)
    monkeypatch.setattr(Chapter, "stands", False)
    assert r"| \[HMM\] |" in sessions.markdown_table([row])
    assert "<a " not in html(sessions.markdown_table([row]))


def test_an_announced_session_says_so():
    row = session("2030-01-02", held=False)
    assert sessions.table_rows([row])[0][-1] == "Topic (announced)"


def test_a_break_is_a_row():
    table = cells(sessions.markdown_table([sessions.Break(1, "A|B")]))
    assert table[1] == ["", "", "", "", "A|B"]


def test_no_session_is_a_sentence():
    assert sessions.markdown_table([]) == "No session is listed at the moment.\n"


# Calendar


def events(feed):
    return Calendar.from_ical(feed).walk("VEVENT")


def test_the_calendar_has_an_event_for_every_evening_of_the_record():
    found = events(sessions.calendar(sessions.load()[: len(RECORD)]))
    days = [d for row in RECORD if row[1:] and row[1] for d in row[0].split()]
    assert len(days) == 27
    assert [str(event.start.date()) for event in found] == days
    assert len({event["uid"] for event in found}) == 27


@pytest.mark.parametrize(
    "day, start, end",
    [
        ("2019-02-12", (2019, 2, 12, 22), (2019, 2, 13, 1)),  # winter, UTC-5
        ("2019-06-26", (2019, 6, 26, 21), (2019, 6, 27, 0)),  # summer, UTC-4
        ("2022-11-01", (2022, 11, 1, 21), (2022, 11, 2, 0)),  # the last week of summer
    ],
)
def test_an_evening_begins_at_the_right_instant(day, start, end):
    feed = sessions.calendar(sessions.load())
    event = next(e for e in events(feed) if str(e.start.date()) == day)
    assert event.start.astimezone(UTC) == datetime(*start, tzinfo=UTC)
    assert event.end.astimezone(UTC) == datetime(*end, tzinfo=UTC)
    assert b"DTSTART;TZID=America/New_York:20190212T170000\r\n" in feed


def test_the_time_zone_of_the_file_agrees_with_the_public_one():
    zone = Calendar.from_ical(sessions.calendar([])).walk("VTIMEZONE")[0]
    zone = zone.to_tz(lookup_tzid=False)  # from the rules written in the file
    noon = datetime(2019, 1, 1, 12)
    for days in range(0, 365 * 12):
        day = noon + timedelta(days)
        new_york = day.replace(tzinfo=ZoneInfo("America/New_York"))
        assert day.replace(tzinfo=zone).utcoffset() == new_york.utcoffset(), day


def test_what_an_event_says():
    feed = sessions.calendar([session("2030-02-12", "2030-02-13", "2030-02-14")])
    first, second, third = events(feed)
    assert first["summary"] == "Evening 1 (theory): Topic"
    assert second["summary"] == "Evening 2 (coding): Topic"
    assert third["summary"] == "Evening 3 (coding): Topic"
    assert first["location"] == "WAB 236, HMS"
    assert first["description"] == "Chairs: Ada, Grace"
    assert first["uid"] == "2030-02-12@ml-from-scratch-seminar"
    single = session("2030-02-12", topic="Kick-off", place="not recorded", chairs=())
    (event,) = events(sessions.calendar([single]))
    assert event["summary"] == "Kick-off"
    assert event["description"] == "Chairs: to be determined"
    assert "location" not in event


def test_without_an_hour_the_event_takes_the_day_and_without_a_day_there_is_none():
    entries = [session("2030-02-12", time="TBD"), sessions.Break(2, "Pause"), MONTH]
    feed = sessions.calendar(entries)
    (event,) = events(feed)
    assert type(event.start) is date and event.start == date(2030, 2, 12)
    assert b"DTSTART;VALUE=DATE:20300212\r\n" in feed


def test_the_calendar_is_the_same_on_any_day(monkeypatch):
    first = sessions.calendar(sessions.load())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert sessions.calendar(sessions.load()) == first
    for event in events(first):  # taken from the evening, so not from a clock
        assert event["dtstamp"].dt == datetime(*event.start.timetuple()[:3], tzinfo=UTC)


def test_the_calendar_keeps_to_the_lines_of_rfc_5545():
    long = "Ünïcode, näïve; “quoted” \\ " * 8
    topic = " ".join(long.split())
    feed = sessions.calendar([*sessions.load(), session("2031-01-01", topic=topic)])
    lines = feed.split(b"\r\n")
    assert lines[0] == b"BEGIN:VCALENDAR" and lines[-2:] == [b"END:VCALENDAR", b""]
    assert not any(b"\n" in line or b"\r" in line for line in lines)
    assert max(map(len, lines)) <= 75
    assert events(feed)[-1]["summary"] == topic


# Command line


def cli(*arguments, epoch="1550016000"):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "sessions.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={"SOURCE_DATE_EPOCH": epoch, "PYTHONUTF8": "1"},
    )


def test_the_command_prints_both_tables():
    done = cli()
    assert (done.returncode, done.stderr) == (0, "")
    upcoming, past = done.stdout.split("Past\n\n")
    assert upcoming.startswith("Upcoming\n\n| Dates |")
    assert "Variational auto-encoders" in upcoming and "Kick-off" in past


def test_the_command_validates():
    done = cli("--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_command_writes_the_calendar(tmp_path):
    done = cli("--ics", tmp_path / "s.ics")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "s.ics").read_bytes() == sessions.calendar(sessions.load())


@pytest.mark.parametrize("option", [[], ["--check"], ["--ics", "out.ics"]])
def test_the_command_says_only_what_is_wrong(tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, GOOD.replace("status: held", "status: gone"))
    done = cli(path, *option)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("sessions.yml:8: status is 'gone'")
    assert done.stderr.count("\n") == 1
    assert not Path("out.ics").exists()


def test_the_command_refuses_a_file_that_is_not_there(tmp_path):
    done = cli("--check", tmp_path / "none.yml")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "none.yml" in done.stderr


# The pages


def test_the_pages_name_only_chapters_of_the_book():
    text = (ROOT / "book" / "seminar" / "proposing.md").read_text("utf-8")
    named = set(re.findall(r"\| `([a-z-]+)` \|", text))
    asked_for = {
        "switching-linear-dynamical-systems",
        "lstm-and-gru",
        "neural-odes",
        "hierarchical-dirichlet-processes",
        "natural-gradient",
        "graph-neural-networks",
        "meta-learning",
        "vector-symbolic-architectures",
    }
    assert asked_for <= named <= {chapter.slug for chapter in CHAPTERS}


@pytest.mark.parametrize(
    "name", ["index", "schedule", "chairing", "organising", "proposing"]
)
def test_a_page_opens_with_its_label_and_title(name):
    text = (ROOT / "book" / "seminar" / f"{name}.md").read_text("utf-8")
    label, title, *_ = text.splitlines()
    assert label == f"(seminar-{name})=" and title.startswith("# ")
