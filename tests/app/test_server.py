"""The server of the page: who may ask, what it takes, and what it leaves; over real sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs the extra app")
pytest.importorskip("uvicorn", reason="needs the extra app")
pytest.importorskip("av", reason="needs the extra app")
from helpers.fake_answers import make_video
from helpers.video_app import TOKEN, Site, serving

from gmsa.app import server
from gmsa.app.__main__ import main
from gmsa.app.guard import HEADERS
from gmsa.app.options import Options
from gmsa.errors import ConfigError

LIMIT = 300_000
NAME = "../../<img src=x>.mp4"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    content = make_video(tmp_path_factory.mktemp("made") / "video.mp4", 2.0).read_bytes()
    assert len(content) < LIMIT
    return content


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(tmp_path_factory.mktemp("site"), limit=LIMIT) as site:
        yield site


@pytest.fixture(scope="module")
def clip(site: Site, video: bytes) -> str:
    """A clip with an answer."""
    id = site.ask("POST", "/api/clips?name=../..%2F%3Cimg%20src=x%3E.mp4", video).json["id"]
    assert site.ended(id)["state"] == "done"
    return id


# --- who may ask -----------------------------------------------------------------------------------------------------

ROUTES = [
    ("GET", "/"),
    ("GET", "/api/about"),
    ("POST", "/api/clips"),
    ("GET", "/api/clips/{clip}"),
    ("GET", "/api/clips/{clip}/video"),
    ("DELETE", "/api/clips/{clip}"),
    ("GET", "/nothing"),
]


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], f"{TOKEN}x", "é"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_needs_the_token(site: Site, clip: str, method: str, path: str, token: str | None) -> None:
    reply = site.ask(method, path.format(clip=clip), b"x" if method == "POST" else None, token)
    assert (reply.status, reply.json) == (403, {"error": "Open the link that gmsa app printed."})
    assert clip in site.jobs.clips


@pytest.mark.parametrize("path", ["/app.js", "/style.css", "/icon.svg"])
def test_the_files_of_the_page_need_none(site: Site, path: str) -> None:
    reply = site.ask("GET", path, token=None)
    assert (reply.status, reply.body) == (200, (server.STATIC / path[1:]).read_bytes())


def test_the_token_may_be_in_the_query(site: Site) -> None:
    assert site.ask("GET", f"/?token={TOKEN}", token=None).status == 200
    assert site.ask("GET", "/?token=wrong", token=None).status == 403


@pytest.mark.parametrize("path", ["/api/about", "/app.js"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", "127.0.0.1:1", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "[::1]:{port}",
     "localhost:{port}@evil.example", ""],
)  # fmt: skip
def test_another_host_is_refused(site: Site, host: str, path: str) -> None:
    assert site.ask("GET", path, Host=host.format(port=site.port)).status == 403


def test_both_names_of_this_machine_are_answered(site: Site) -> None:
    for host in ("127.0.0.1", "localhost"):
        assert site.ask("GET", "/api/about", Host=f"{host}:{site.port}").status == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost:{port}", "https://127.0.0.1:{port}", ""],
)
def test_another_origin_is_refused(site: Site, video: bytes, origin: str) -> None:
    before = {*site.jobs.clips}
    assert site.ask("POST", "/api/clips", video, Origin=origin.format(port=site.port)).status == 403
    assert {*site.jobs.clips} == before


def test_another_origin_beside_its_own_is_refused(site: Site) -> None:
    own = f"Origin: http://127.0.0.1:{site.port}\r\n"
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as connection:
        connection.sendall(head(site, f"Origin: http://evil.example\r\n{own}Content-Length: 0\r\n"))
        assert connection.recv(100).startswith(b"HTTP/1.1 403 ")


def test_its_own_origin_is_answered(site: Site) -> None:
    assert site.ask("GET", "/api/about", Origin=f"http://127.0.0.1:{site.port}").status == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 200),
        ("GET", "/app.js", {}, 200),
        ("GET", "/api/about", {}, 200),
        ("GET", "/nothing", {}, 404),
        ("PUT", "/api/about", {}, 404),
        ("POST", "/api/clips", {}, 400),
        ("GET", "/", {"Host": "evil.example"}, 403),
    ],
)
def test_every_answer_has_the_headers(site: Site, method: str, path: str, headers: dict, status: int) -> None:
    reply = site.ask(method, path, b"" if method == "POST" else None, **headers)
    assert reply.status == status
    for name, value in HEADERS.items():
        assert reply.headers[name.lower()] == value
    policy = dict(part.strip().split(" ", 1) for part in reply.headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'self'",
        "media-src": "'self' blob:",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert "access-control-allow-origin" not in reply.headers
    assert "set-cookie" not in reply.headers


def test_the_page_holds_no_script_or_style_of_its_own() -> None:
    text = (server.STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|https?:|//", text)
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)
    for file in server.STATIC.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|Function\(",
                             file.read_text(encoding="utf-8")), file.name  # fmt: skip


@pytest.mark.parametrize(
    "path",
    ["/../jobs.py", "/..%2fjobs.py", "/%2e%2e/jobs.py", "//etc/passwd", "/static/app.js", "/index.html",
     "/api/clips/..%2f..%2fworker.log/video", "/api/clips/../../../etc/passwd", "/app.js/../../jobs.py"],
)  # fmt: skip
def test_no_path_leads_out(site: Site, path: str) -> None:
    reply = site.ask("GET", path)
    assert reply.status == 404
    assert set(reply.json) == {"error"}


def test_it_listens_on_this_machine_alone(site: Site) -> None:
    with server.listen(0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
    own = "0100007F:" + f"{site.port:04X}"
    if sys.platform == "linux":
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
            assert {row[1] for row in rows if row[3] == "0A" and row[1].endswith(own[-5:])} <= {own}
    with pytest.raises(SystemExit):
        main(["--run", "x", "--host", "0.0.0.0"])


def test_a_port_in_use_is_refused() -> None:
    with server.listen(0) as taken, pytest.raises(ConfigError, match=r"--port \d+ cannot be used \(Address already"):
        server.listen(taken.getsockname()[1])
    with pytest.raises(ConfigError, match="ports end at 65535"):
        server.listen(70_000)


# --- what it takes ---------------------------------------------------------------------------------------------------


def head(site: Site, more: str) -> bytes:
    """The head of an upload."""
    start = f"POST /api/clips HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\nX-Gmsa-Token: {TOKEN}"
    return f"{start}\r\n{more}\r\n\r\n".encode()


def files(site: Site) -> set[str]:
    return {path.name for path in site.jobs.folder.iterdir()} - {"worker.log"}


def test_the_stranger_s_name_is_on_no_path(site: Site, clip: str) -> None:
    assert site.jobs.clips[clip].name == NAME
    assert site.ask("GET", f"/api/clips/{clip}").json["name"] == NAME
    assert site.jobs.clips[clip].path.parent == site.jobs.folder
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in files(site))
    assert stat.S_IMODE(site.jobs.folder.stat().st_mode) == 0o700


def test_a_declared_size_over_the_limit_is_refused_at_once(site: Site) -> None:
    before = files(site)
    with socket.create_connection(("127.0.0.1", site.port)) as line:
        line.sendall(head(site, f"Content-Length: {LIMIT + 1}"))  # and nothing of the body
        assert b" 413 " in line.recv(100)
    assert files(site) == before


def test_a_body_without_a_size_is_cut_at_the_limit(site: Site) -> None:
    before = files(site)
    blocks = (b"x" * 50_000 for _ in range(9))
    reply = site.ask("POST", "/api/clips", blocks, Transfer_Encoding="chunked")
    assert reply.status == 413
    assert reply.json["error"].startswith("The file is larger than the limit of 0.286")
    assert files(site) == before


def test_a_body_longer_than_its_size_is_cut(site: Site, video: bytes) -> None:
    request = head(site, "Content-Length: 10")
    with socket.create_connection(("127.0.0.1", site.port)) as line:
        line.sendall(request + b"x" * 1000)
        said = b""
        while b"}" not in said:
            said += line.recv(1000)
    assert b" 202 " in said
    id = json.loads(said.partition(b"\r\n\r\n")[2].partition(b"}")[0] + b"}")["id"]
    assert site.jobs.clips[id].path.stat().st_size == 10
    assert site.ended(id)["stage"].startswith("This file: is no video or sound that FFmpeg reads")
    site.ask("DELETE", f"/api/clips/{id}")


def test_an_upload_that_breaks_off_leaves_nothing(site: Site) -> None:
    before, clips = files(site), len(site.jobs.clips)
    with socket.create_connection(("127.0.0.1", site.port)) as line:
        line.sendall(head(site, "Content-Length: 1000") + b"abc")
        until(lambda: len(files(site)) == len(before) + 1)
    until(lambda: files(site) == before)
    assert len(site.jobs.clips) == clips


def until(holds) -> None:
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


def test_a_body_without_an_end_is_left(site: Site) -> None:
    before = files(site)
    endless = head(site, "Transfer-Encoding: chunked") + 1000 * (b"c350\r\n" + b"x" * 50_000 + b"\r\n")  # 50 MB
    with socket.create_connection(("127.0.0.1", site.port)) as line, pytest.raises(ConnectionError):
        line.sendall(endless)
    assert files(site) == before


def test_an_empty_file_is_refused(site: Site) -> None:
    reply = site.ask("POST", "/api/clips", b"")
    assert (reply.status, reply.json) == (400, {"error": "The file is empty."})


def test_ranges_of_the_video(site: Site, clip: str, video: bytes) -> None:
    place = f"/api/clips/{clip}/video?token={TOKEN}"
    whole = site.ask("GET", place, token=None)
    assert (whole.status, whole.body, whole.headers["content-type"]) == (200, video, "video/mp4")
    part = site.ask("GET", place, token=None, Range="bytes=100-199")
    assert (part.status, part.body) == (206, video[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(video)}"
    assert site.ask("GET", place, token=None, Range=f"bytes={len(video)}-").status == 416


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x1aE\xdf\xa3...", "video/webm"),
        (b"\0\0\0 ftypisom", "video/mp4"),
        (b"RIFF....WAVEfmt ", "audio/wav"),
        (b"<html><script>", "application/octet-stream"),
        (b"<svg xmlns=", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_no_file_is_served_as_what_a_browser_would_run(head: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(head)
    assert server.kind_of(tmp_path / "x") == kind


def test_delete_removes_file_and_answer(site: Site, video: bytes) -> None:
    id = site.ask("POST", "/api/clips?name=a", video).json["id"]
    assert site.ended(id)["state"] == "done"
    path = site.jobs.clips[id].path
    assert path.exists()
    assert site.ask("DELETE", f"/api/clips/{id}").status == 200
    assert not path.exists()
    for method, end in (("GET", ""), ("GET", "/video"), ("DELETE", "")):
        assert site.ask(method, f"/api/clips/{id}{end}").status == 404


def test_a_fault_of_the_server_tells_the_page_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_):
        raise ValueError("/secret/place")

    monkeypatch.setattr(type(site.jobs), "reserve", fail)
    reply = site.ask("POST", "/api/clips", b"x")
    assert reply.status == 500
    assert reply.json == {"error": "The server failed; the terminal in which gmsa app runs says why."}
    assert reply.headers["x-content-type-options"] == "nosniff"
    monkeypatch.undo()


# --- what it leaves --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)], ids=lambda n: str(int(n))
)
def test_a_signal_removes_the_videos(number: int, code: int, video: bytes, tmp_path: Path) -> None:
    where = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    program = [sys.executable, "-m", "helpers.video_app", "slow"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=where) as process:
        try:
            assert process.stdout is not None
            found = re.fullmatch(r"Open http://127\.0\.0\.1:(\d+)/\?token=([\w-]{32})\n", process.stdout.readline())
            assert found
            site = Site(int(found[1]), None)  # type: ignore[arg-type]
            id = site.ask("POST", "/api/clips", video, found[2]).json["id"]
            until(lambda: site.ask("GET", f"/api/clips/{id}", token=found[2]).json["stage"] == "Sleeping")
            (folder,) = tmp_path.glob("gmsa-app-*")
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert len([*folder.iterdir()]) == 2
            process.send_signal(number)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, [*tmp_path.iterdir()]) == (code, [])
    assert said.count("\n") == 1
    assert said.startswith("gmsa app: ")


def test_the_link_is_opened_by_a_private_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    server.open_link("http://127.0.0.1:1/?token=secret", tmp_path)
    assert opened == [(tmp_path / "open.html").as_uri()]
    assert "url=http://127.0.0.1:1/?token=secret" in (tmp_path / "open.html").read_text()


@pytest.mark.parametrize("package", ["uvicorn", "starlette"])
def test_an_absent_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"^gmsa app needs {package}, .* \(pip install 'gmsa\[app\]'\)$"):
        server.serve_page(Options((Path("x"),)))


def test_a_folder_that_is_no_run_is_refused_before_anything_starts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **_: pytest.fail("it started"))
    with pytest.raises(Exception, match=r"is not a run folder: it has no config\.yaml"):
        main(["--run", str(tmp_path)])


def test_the_command_hands_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple] = []
    monkeypatch.setattr("gmsa.app.__main__.serve_page", lambda *given: called.append(given))
    monkeypatch.setattr("gmsa.runs.folder.Run", lambda path: Namespace(folder=Path(path), extraction={"settings": {}}))
    main(["--run", "a", "--run", "b"])
    main(["--run", "a", "--port", "8765", "--limit", "0.5", "--no-browser"])
    assert called == [
        (Options((Path("a"), Path("b"))), 0, True),
        (Options((Path("a"),), limit=2**19), 8765, False),
    ]


@pytest.mark.parametrize(("option", "value"), [("--limit", "0"), ("--limit", "nan"), ("--port", "-1")])
def test_options_out_of_range(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--run", "x", option, value])
    assert f"error: {option} must be" in capsys.readouterr().err


def test_runs_are_told_apart() -> None:
    assert Options((Path("a/run"), Path("a/other"))).names == ["run", "other"]
    assert Options((Path("a/run"), Path("b/run"))).names == ["a/run", "b/run"]
    assert Options((Path("a/run"), Path("a/run"))).names == ["run", "run"]
