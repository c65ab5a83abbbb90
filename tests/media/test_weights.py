"""Weights that gmsa knows by name: where they are found, and what is refused."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gmsa.data.__main__ import main
from gmsa.errors import ConfigError
from gmsa.media import weights
from gmsa.media.weights import KNOWN, Known, find, find_folder, survey

CONTENT = b"numbers"
TINY = Known(
    "tiny-model",
    "a model of the test",
    {"model.bin": hashlib.sha256(CONTENT).hexdigest(), "config.json": hashlib.sha256(b"{}").hexdigest()},
    "MIT",
    "someone/tiny",
    "no_such_package/model",
    ("someone/tiny", "abc"),
)
ONE_FILE = Known(
    "one-file", "one file", {"one.task": hashlib.sha256(CONTENT).hexdigest()}, "MIT", "x", "no_pkg/m", None, False
)


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two known weights, which are nowhere; and a Hub that has nothing."""
    monkeypatch.setattr(weights, "KNOWN", {TINY.name: TINY, ONE_FILE.name: ONE_FILE})
    monkeypatch.delenv("GMSA_MODELS", raising=False)
    monkeypatch.setenv("GMSA_CACHE", str(tmp_path / "cache"))
    hub(monkeypatch, OSError("no network"))


def hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[dict[str, Any]]:
    """Puts a Hub in the place of the real one; returns what it is asked."""
    asked: list[dict[str, Any]] = []

    def snapshot_download(**given: Any) -> str:
        asked.append(given)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    module = ModuleType("huggingface_hub")
    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return asked


def put(folder: Path, content: bytes = CONTENT) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(content)
    (folder / "config.json").write_bytes(b"{}")
    return folder


def refused(name: str = TINY.name, download: bool = False) -> str:
    with pytest.raises(ConfigError) as caught:
        find(name, "text: tiny", download)
    assert "\n" not in str(caught.value)
    assert "'text: tiny'" in str(caught.value)
    return str(caught.value)


def test_they_are_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path / "site")
    package = put(tmp_path / "site" / "no_such_package" / "model")
    (package.parent / "__init__.py").write_text("raise AssertionError('a package of weights is not run')")
    assert find(TINY.name, "key") == package
    cached = put(tmp_path / "cache" / "models" / TINY.name)
    assert find(TINY.name, "key") == cached
    monkeypatch.setenv("GMSA_MODELS", str(tmp_path / "models"))
    assert find(TINY.name, "key") == cached
    named = put(tmp_path / "models" / TINY.name)
    assert find(TINY.name, "key") == named


def test_a_folder_that_lacks_a_file_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMSA_MODELS", str(tmp_path / "models"))
    (put(tmp_path / "models" / TINY.name) / "config.json").unlink()
    cached = put(tmp_path / "cache" / "models" / TINY.name)
    assert find(TINY.name, "key") == cached


@pytest.mark.parametrize("inside", ["", "one-file"])
def test_one_file_may_lie_in_the_folder_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str) -> None:
    monkeypatch.setenv("GMSA_MODELS", str(tmp_path / "models"))
    (tmp_path / "models" / inside).mkdir(parents=True)
    (tmp_path / "models" / inside / "one.task").write_bytes(CONTENT)
    assert find(ONE_FILE.name, "key") == tmp_path / "models" / inside / "one.task"


def test_a_wrong_hash_is_refused(tmp_path: Path) -> None:
    folder = put(tmp_path / "cache" / "models" / TINY.name, b"others")
    found = refused()
    assert str(folder / "model.bin") in found
    assert hashlib.sha256(b"others").hexdigest()[:8] in found
    assert TINY.sha256[:8] in found
    assert TINY.release in found


def test_a_hash_is_computed_anew_when_the_file_changes(tmp_path: Path) -> None:
    folder = put(tmp_path / "cache" / "models" / TINY.name)
    find(TINY.name, "key")
    (folder / "model.bin").write_bytes(b"changed")
    assert "SHA-256" in refused()


def test_absent_weights_name_the_remedy() -> None:
    found = refused()
    assert "make models" in found
    assert "GMSA_MODELS" in found
    assert found.endswith("or add --download")
    assert "--download" not in refused(ONE_FILE.name)  # the Hub has it not


def test_an_unknown_name_is_answered_by_the_nearest() -> None:
    assert "tiny-model" in refused("tiny-modell").partition(";")[0]


def test_the_hub_is_asked_for_a_revision_and_its_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put(tmp_path / "hub")
    asked = hub(monkeypatch, folder)
    assert find(TINY.name, "key") == find(TINY.name, "key", download=True) == folder
    local, remote = asked
    assert (local["local_files_only"], remote["local_files_only"]) == (True, False)
    assert (remote["repo_id"], remote["revision"]) == TINY.hub
    assert sorted(remote["allow_patterns"]) == ["config.json", "model.bin"]


def test_what_the_hub_sends_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, put(tmp_path / "hub", b"other"))
    assert "SHA-256" in refused(download=True)


def test_without_network_a_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, ConnectionError("cannot reach\nthe Hub"))
    found = refused(download=True)
    assert "cannot be fetched" in found
    assert "network" in found


def test_folders_of_ones_own_are_taken_as_they_are(tmp_path: Path) -> None:
    own = put(tmp_path / "mine", b"whatever")
    assert find_folder(str(own), "transcript.model") == own
    with pytest.raises(ConfigError, match="there is no folder"):
        find_folder(str(tmp_path / "absent"), "transcript.model")
    with pytest.raises(ConfigError, match="tiny-model"):
        find_folder("tiny-modle", "transcript.model")
    put(tmp_path / "cache" / "models" / TINY.name, b"others")
    with pytest.raises(ConfigError, match="SHA-256"):
        find_folder(TINY.name, "transcript.model")


def test_the_survey_says_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "cache" / "models" / TINY.name)
    states = {row["name"]: row["state"] for row in survey()}
    assert states == {TINY.name: "there", ONE_FILE.name: "absent"}
    main(["models"])
    printed = capsys.readouterr().out
    assert str(tmp_path / "cache" / "models" / TINY.name) in printed.replace("\n", "")
    assert "make models" in printed
    (tmp_path / "cache" / "models" / TINY.name / "model.bin").write_bytes(b"others")
    assert {row["name"]: row["state"] for row in survey()}[TINY.name] == "wrong"


def test_every_known_release_is_complete() -> None:
    for name, known in KNOWN.items():
        assert name == known.name
        assert all(len(sha256) == 64 and int(sha256, 16) for sha256 in known.files.values())
        assert known.licence in ("MIT", "Apache-2.0")
