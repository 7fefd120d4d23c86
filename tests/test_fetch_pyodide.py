"""What is not the pinned file is refused; nothing half-made is left behind."""

import hashlib
import json
import zipfile

import pytest

import fetch_pyodide as tool

GOOD, CORE = b"a package", b"the core"


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def carrier(tmp_path):
    """Makes a carrier, and the pins of what it should hold."""

    def make(package=GOOD, said=None):
        entry = {"file_name": "a.whl", "sha256": said or digest(GOOD)}
        other = {"file_name": "stranger.whl", "sha256": digest(b"x")}
        lock = json.dumps({"packages": {"a": entry, "b": other}}).encode()
        path = tmp_path / "carrier.whl"
        with zipfile.ZipFile(path, "w") as archive:
            files = {"a.whl": package, "core.js": CORE, tool.LOCK: lock}
            for name, data in files.items():
                archive.writestr(tool.INSIDE + name, data)
            archive.writestr(tool.INSIDE + "stranger.whl", b"x")
        wanted = {"a.whl": digest(GOOD), "core.js": digest(CORE)}
        return path, {**wanted, tool.LOCK: digest(lock)}

    return make


def test_the_pinned_files_are_kept_and_no_other(carrier, tmp_path):
    path, wanted = carrier()
    tool.unpack(path, tmp_path / "there", wanted)
    names = sorted(file.name for file in (tmp_path / "there").iterdir())
    assert names == ["a.whl", "core.js", tool.LOCK]
    lock = json.loads((tmp_path / "there" / tool.LOCK).read_text())
    assert list(lock["packages"]) == ["a"]
    assert tool.complete(tmp_path / "there", wanted)
    (tmp_path / "there" / "a.whl").write_bytes(b"changed")
    assert not tool.complete(tmp_path / "there", wanted)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"package": b"another"}, "a.whl has SHA-256"),
        ({"said": digest(b"another")}, "differ about a"),
    ],
)
def test_another_file_is_refused(carrier, tmp_path, made, words):
    path, wanted = carrier(**made)
    with pytest.raises(tool.Refused, match=words):
        tool.unpack(path, tmp_path / "there", wanted)
    assert not (tmp_path / "there").exists()


def test_a_missing_file_is_named(carrier, tmp_path):
    path, wanted = carrier()
    with pytest.raises(tool.Refused, match=r"has no .*missing\.whl"):
        tool.unpack(path, tmp_path / "there", {**wanted, "missing.whl": "0"})


def test_the_pins_hold_what_the_package_needs():
    wanted = tool.pins(tool.PINS.read_text("utf8"))
    for name in ("numpy-2", "scipy-1", "matplotlib-3", "ipython-8", "pyodide.asm.wasm"):
        assert [file for file in wanted if file.startswith(name)]
    assert all(len(value) == 64 for value in wanted.values())
