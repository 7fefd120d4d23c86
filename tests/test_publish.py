"""What the public repository needs: workflows, citation, licences, contributing."""

import re
import subprocess
import tomllib

import pytest
import yaml

from mlfs.book.chapters import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"(actions/[\w-]+)@[0-9a-f]{40} # (v\d+\.\d+\.\d+)")
COMMAND = re.compile(r"make ([a-z-]+)")

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


class Loader(yaml.SafeLoader):
    """YAML 1.2, as GitHub reads it, in which `on` is a word and not a truth value."""


Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:bool"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(path):
    return yaml.load(path.read_text("utf8"), Loader)


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def targets():
    """Targets of the Makefile."""
    text = (ROOT / "Makefile").read_text("utf8")
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", text, re.MULTILINE))


def test_there_is_a_workflow_for_each_purpose():
    triggers = {path.stem: set(read(path)["on"]) for path in WORKFLOWS}
    assert "pull_request" in triggers["ci"]
    assert "push" in triggers["pages"]
    assert "schedule" in triggers["weekly"] & triggers["links"]


@each_workflow
def test_actions_are_pinned_to_the_commit_of_a_named_release(path):
    lines = [line for line in path.read_text("utf8").splitlines() if "uses:" in line]
    assert lines
    assert [line for line in lines if not PINNED.search(line)] == []


def test_an_action_has_one_version_everywhere():
    text = "\n".join(path.read_text("utf8") for path in WORKFLOWS)
    found = {match[1]: set() for match in PINNED.finditer(text)}
    for match in PINNED.finditer(text):
        found[match[1]].add(match[0])
    assert {name: pins for name, pins in found.items() if len(pins) > 1} == {}


@each_workflow
def test_every_step_is_a_make_target_that_exists(path):
    runs = [step["run"] for step in steps(read(path)) if "run" in step]
    names = {run: COMMAND.fullmatch(run.strip()) for run in runs}
    assert [run for run, name in names.items() if not name] == []
    assert {name[1] for name in names.values()} <= targets()


@each_workflow
def test_permissions_are_the_least(path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    allowed = {
        ("pages", "deploy"): {"pages": "write", "id-token": "write"},
        ("weekly", "report"): {"contents": "read", "issues": "write"},
    }
    for name, job in workflow["jobs"].items():
        given = job.get("permissions", {"contents": "read"})
        assert given == allowed.get((path.stem, name), {"contents": "read"}), name
        if "write" in given.values():  # nothing of ours or of others is installed there
            ran = [step.get("run", "make report-failure") for step in job["steps"]]
            assert set(ran) == {"make report-failure"}, name


@each_workflow
def test_jobs_end_and_keep_no_credentials(path):
    workflow = read(path)
    assert all(job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] == "false"


def test_a_pull_request_runs_everything_and_leaves_a_preview():
    ran = [step.get("run", step.get("uses", "")) for step in steps(read_named("ci"))]
    assert {"make check", "make test", "make book", "make site-test"} <= set(ran)
    kept = [step for step in steps(read_named("ci")) if "upload-artifact" in str(step)]
    assert [step["with"]["path"] for step in kept] == ["_build/html"]


def read_named(name):
    return read(ROOT / ".github" / "workflows" / f"{name}.yml")


def test_what_is_published_has_passed():
    job = read_named("pages")["jobs"]["build"]
    order = [step.get("run", step.get("uses", "")) for step in job["steps"]]
    published = next(n for n, what in enumerate(order) if "upload-pages" in what)
    assert order.index("make site") < order.index("make site-test") < published


def test_a_weekly_failure_opens_an_issue_and_links_never_block():
    report = read_named("weekly")["jobs"]["report"]
    assert report["if"] == "failure()"
    assert set(report["needs"]) == set(read_named("weekly")["jobs"]) - {"report"}
    links = [step for step in steps(read_named("links")) if "run" in step]
    assert all(step["continue-on-error"] == "true" for step in links)
    assert "linkcheck" not in (ROOT / ".ci" / "run").read_text("utf8")


def test_binder_is_tried_every_week_with_its_own_python():
    steps = read_named("weekly")["jobs"]["binder"]["steps"]
    assert "make binder-test" in [step.get("run") for step in steps]
    wanted = (ROOT / "binder" / "runtime.txt").read_text("utf8").strip()
    given = [step["with"].get("python-version") for step in steps if "with" in step]
    assert wanted.removeprefix("python-") in given


def test_the_issue_names_the_run():
    run = subprocess.run(
        ["bash", "tools/report_failure.sh", "https://example.org/runs/7"],
        cwd=ROOT,
        env={"DRY_RUN": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "https://example.org/runs/7" in run.stdout
    assert "make newest" in run.stdout


def test_citation_has_what_the_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"]
    assert citation["type"] in ("software", "dataset")
    assert citation["title"] == config["title"]
    assert citation["version"] == project["version"]
    assert citation["repository-code"] == config["repository"]["url"]
    assert citation["license"] == ["MIT", "CC-BY-4.0"]
    assert citation["authors"]
    for author in citation["authors"]:
        assert author.get("name") or {"family-names", "given-names"} <= set(author)


def test_text_and_code_have_their_licences():
    code = (ROOT / "LICENSE").read_text("utf8")
    text = (ROOT / "LICENSE-text").read_text("utf8")
    assert code.startswith("MIT License")
    assert "WITHOUT WARRANTY OF ANY KIND" in code
    assert "Attribution 4.0 International" in text
    assert "https://creativecommons.org/licenses/by/4.0/legalcode" in text


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_of_the_repositorys_own_pages_lead_somewhere(name):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text("utf8"))
    assert [link for link in links if not (ROOT / link).exists()] == []
    quoted = re.findall(r"`make ([a-z -]+)`", (ROOT / name).read_text("utf8"))
    assert {word for words in quoted for word in words.split()} <= targets()


def test_contributing_leads_to_a_first_chapter():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf8")
    assert "(book/seminar/proposing.md)" in text
