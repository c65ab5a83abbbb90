"""URLs of databases: which are taken, and what of them is shown."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from gmsa.errors import ConfigError, RunError
from gmsa.tuning.database_url import check_url, hide, shown_url
from gmsa.tuning.storage import StoragePlace
from gmsa.tuning.study import StudyOptions

SECRET = "Xy7-hush"
HIDDEN = [
    "postgresql://me:Xy7-hush@127.0.0.1:1/db",
    "postgresql://:Xy7-hush@127.0.0.1:1/db",
    "postgresql://me:X%797-hush@127.0.0.1:1/db",
    "postgresql+psycopg://me:Xy7-hush@127.0.0.1:1/db",
    "postgresql://me@127.0.0.1:1/db?password=Xy7-hush",
    "postgresql://me@127.0.0.1:1/db?password=X%797%2Dhush",
    "postgresql://me@127.0.0.1:1/db?sslmode=disable&sslpassword=Xy7-hush",
    "postgresql://me@127.0.0.1:1/db?oauth_client_secret=Xy7-hush",
    "postgresql://me@127.0.0.1:1/db?PASSWORD=Xy7-hush",
    "postgresql://me@127.0.0.1:1/db?passwd=Xy7-hush",
    "postgresql://me@127.0.0.1:1/db?p%61ssword=Xy7-hush",
    "postgresql://me@127.0.0.1:1/db?password=Xy7-hush&password=Xy7-hush",
    "postgresql://me@127.0.0.1:1/db?options=-c x.password=Xy7-hush",
    "postgresql://me@127.0.0.1:1/db?options=-c%20x.password%3DXy7-hush%20-c%20a=b",
    "postgresql://me@127.0.0.1:1/db?application_name=a%20password%3DXy7-hush",
    "postgresql://me@127.0.0.1:1/db?dbname=a%20password%3DXy7-hush",
    "postgresql://me@127.0.0.1:1/db?Xy7-hush",
    "postgresql://me@127.0.0.1:1/db;password=Xy7-hush",
    "postgresql://me@127.0.0.1:1/db password=Xy7-hush",
    "postgresql://me@127.0.0.1:1/db%20password%3DXy7-hush",
    "postgresql://me@127.0.0.1:1/db#Xy7-hush",
    "postgresql://me%3AXy7-hush@127.0.0.1:1/db",
    "postgresql:///db?host=127.0.0.1&port=1&user=me&password=Xy7-hush",
    "postgresql://me@127.0.0.1:1/db?host=password%3DXy7-hush",
]


@pytest.mark.parametrize("url", HIDDEN)
def test_a_secret_is_never_shown(url: str, tmp_path: Path) -> None:
    check_url(url, 4)
    where = StoragePlace(tmp_path, url)
    driver = url.replace("postgresql://", "postgresql+psycopg://")
    said = where.hide(f"failed at {url}, {driver}: '{SECRET}' is wrong (\"{SECRET}\")")
    with pytest.raises(RunError, match="cannot open the storage") as caught:
        where.connect()
    said += repr(StudyOptions("s", 1, tmp_path, ("MAE",), url=url)) + str(caught.value) + repr(caught.value)
    said += where.shown + repr(where) + str(where)
    assert "hush" not in said
    assert "\n" not in said
    assert "127.0.0.1" in where.shown
    assert where.shown.startswith("postgresql")
    assert pickle.loads(pickle.dumps(where)).url == url


def test_harmless_parts_are_shown(tmp_path: Path) -> None:
    for url in (
        "postgresql://me@db.example.org:5432/studies?sslmode=require&connect_timeout=10&application_name=tune",
        "postgresql:///studies?host=/var/run/postgresql",
        "postgresql://me@[::1]:5432/studies",
        "sqlite:///runs/my studies=all.db",
    ):
        assert StoragePlace(tmp_path, url).shown == url.replace("[::1]", "::1")
    assert StoragePlace(tmp_path, "postgresql://").hide("connection failed") == "connection failed"
    url = "postgresql://me:a'b\\c@host/db?options=-c%20x.y%3D1"
    hidden = StoragePlace(tmp_path, url).hide("""password=a'b\\c or 'a\\'b\\\\c' or "a'b\\\\c" or a%27b%5Cc""")
    assert "b" not in hidden


@pytest.mark.parametrize(
    ("url", "jobs", "message"),
    [
        ("sqlite:///study.db", 2, "two of them can draw the same queued trial"),
        ("mysql://host/db", 1, r"knows postgresql and sqlite \(got 'mysql'\)"),
        ("nonsense", 1, "takes a URL such as postgresql://"),
        ("", 1, "takes a URL such as postgresql://"),
        ("postgresql://host/\ud800", 1, "takes a URL such as postgresql://"),
        ("postgresql://me:p@ss@host/db", 1, "write an '@' in a password as %40"),
        ("postgresql://me:pass@host:word/db", 1, "takes a URL such as postgresql://"),
        *(
            (url, 1, "SQLite takes the path of a file alone, as sqlite:///study.db")
            for url in (
                "sqlite://",
                "sqlite:///",
                "sqlite:///:memory:",
                "sqlite+pysqlite:///:memory:",
                "sqlite:///:memory:?cache=shared",
                "sqlite:///study.db?mode=memory",
                "sqlite:///study.db?mode=memory&cache=shared&uri=true",
                "sqlite:///file::memory:?cache=shared&uri=true",
                "sqlite:///file:study?mode=memory&uri=true",
                "sqlite:///FILE:study.db?vfs=memdb&uri=true",
                "sqlite:///file:/memdb1?vfs=memdb",
                "sqlite:///study.db?immutable=1",
                "sqlite://host/study.db",
                "sqlite://me:secret@/study.db",
                "sqlite:///?uri=true",
            )
        ),
    ],
)
def test_a_database_that_does_not_work_is_refused(url: str, jobs: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_url(url, jobs)
    assert "secret" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("text.db").write_text("This is no database, but it is long enough to be taken for one." * 20)
    for name, message in (
        ("pipe", "not a regular file"),
        (".", "is a folder"),
        ("none/study.db", "does not exist; create it first"),
        ("/dev/null", "not a regular file"),
    ):
        with pytest.raises(RunError, match=message):
            check_url(f"sqlite:///{name}", 1)
    check_url("sqlite:///text.db", 1)
    with pytest.raises(RunError, match=r"cannot open the storage .*not a database"):
        StoragePlace(tmp_path, "sqlite:///text.db").connect()
    for query in ("timeout=20", "check_same_thread=false"):
        check_url(f"sqlite:///study.db?{query}", 1)
        assert StoragePlace(tmp_path, f"sqlite:///study.db?{query}").connect().get_all_studies() == []


@pytest.mark.parametrize("url", ["", "nonsense", "u:S3CRET@host"])
def test_what_is_no_url_is_not_shown_either(url: str) -> None:
    assert shown_url(url) == "***"
    assert "S3CRET" not in hide(url, f"could not parse '{url}'")
    assert hide(url, "another line") == "another line"
