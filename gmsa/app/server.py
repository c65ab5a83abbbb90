"""The server of the page: routes, and a socket of this machine alone."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmsa.app.guard import App, Guard
from gmsa.app.jobs import Clip, Jobs
from gmsa.app.options import Options
from gmsa.errors import ConfigError
from gmsa.system.console import console
from gmsa.system.faults import describe_fault
from gmsa.system.packages import load_package
from gmsa.system.reading import reason_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

STATIC = Path(__file__).parent / "static"
HOST = "127.0.0.1"
"""Where the server listens; there is no option to change it."""
_KINDS = (
    *((0, b"\x1aE\xdf\xa3", "video/webm"), (0, b"OggS", "video/ogg"), (4, b"ftyp", "video/mp4")),
    *((0, b"ID3", "audio/mpeg"), (0, b"fLaC", "audio/flac"), (8, b"WAVE", "audio/wav")),
)
"""What browsers play, by bytes at a place of the file."""


def serve_page(options: Options, port: int = 0, browser: bool = True) -> None:
    """Serves the page until Ctrl-C or SIGTERM; then the videos are removed.

    Args:
        port: where to listen; 0 for a free one.
        browser: whether to open the page.

    Raises:
        ConfigError: a package is not installed, or the port is in use.
    """
    uvicorn = load_package("uvicorn", "gmsa app", "app")
    load_package("starlette", "gmsa app", "app")
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # the terminal is closed
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    token = secrets.token_urlsafe(24)
    folder = Path(tempfile.mkdtemp(prefix="gmsa-app-"))  # of mode 0700
    jobs = Jobs(options, folder)
    try:
        with listen(port) as listening:
            port = listening.getsockname()[1]
            link = f"http://{HOST}:{port}/?token={token}"
            console().print(f"Open {link}\nNothing leaves this machine. Ctrl-C ends it and removes the videos.")
            sys.stdout.flush()
            jobs.start()
            if browser:
                open_link(link, folder)
            settings = uvicorn.Config(
                build(jobs, token, port),
                log_level="critical",
                access_log=False,  # it would hold the token
                proxy_headers=False,
                server_header=False,
                lifespan="off",
                http="h11",
                ws="none",
                timeout_graceful_shutdown=1,
            )
            uvicorn.Server(settings).run(sockets=[listening])
    finally:
        try:
            jobs.stop()
        finally:  # also after a second Ctrl-C
            shutil.rmtree(folder, ignore_errors=True)


def listen(port: int) -> socket.socket:
    """A socket of this machine alone.

    Raises:
        ConfigError: the port is in use, or may not be used.
    """
    listening = socket.socket()
    if os.name == "posix":  # elsewhere it would share the port with another program
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listening.close()
        why = reason_of(error) if isinstance(error, OSError) else "ports end at 65535"
        raise ConfigError(f"--port {port} cannot be used ({why}); choose another, or leave it out") from None
    listening.listen(128)
    return listening


def open_link(link: str, folder: Path) -> None:
    """Opens the page in the browser, by a private file: other users see the arguments of processes."""
    if sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        return  # only a browser within the terminal could be opened
    file = folder / "open.html"
    file.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={link}">', encoding="utf-8")
    with suppress(webbrowser.Error):
        webbrowser.open(file.as_uri())


def build(jobs: Jobs, token: str, port: int) -> App:
    """The application: the guard, and behind it the routes."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    site = Site(jobs)
    files = {f"/{path.name}": path for path in STATIC.iterdir() if path.suffix in (".js", ".css", ".svg")}
    routes = [
        Route("/", site.page),
        *(Route(place, _file(path)) for place, path in files.items()),
        Route("/api/about", site.about),
        Route("/api/clips", site.upload, methods=["POST"]),
        Route("/api/clips/{id}", site.status),
        Route("/api/clips/{id}", site.delete, methods=["DELETE"]),
        Route("/api/clips/{id}/video", site.video),
    ]
    handlers: dict[Any, Any] = {404: _nothing, 405: _nothing, Exception: _fault}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token, port, free=files.keys())


class Site:
    """The routes behind the guard."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs, self.options = jobs, jobs.options

    async def page(self, request: Request) -> Response:
        """The page."""
        from starlette.responses import FileResponse

        return FileResponse(STATIC / "index.html")

    async def about(self, request: Request) -> Response:
        """The runs and the limits."""
        options = self.options
        return _json({"runs": options.names, "limit": options.limit, "seconds": options.seconds})

    async def upload(self, request: Request) -> Response:
        """Takes a video: the body as it is, under a name of our own."""
        import anyio
        from starlette.requests import ClientDisconnect

        limit = self.options.limit
        too_large = f"The file is larger than the limit of {limit / 2**20:g} MiB; gmsa app --limit raises it."
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared[:20]) > limit:
            return _json({"error": too_large}, 413)
        clip = self.jobs.reserve(request.query_params.get("name", ""))
        if clip is None:
            with anyio.move_on_after(10), suppress(ClientDisconnect):
                await _store(request, Path(os.devnull), limit)
            return _json(
                {"error": f"The queue is full ({self.options.queue} videos); try again when one is done."}, 429
            )
        problem = "The upload was interrupted.", 400
        try:
            with anyio.fail_after(self.options.time):
                size = await _store(request, clip.path, limit)
            problem = ("", 202) if 0 < size <= limit else (too_large, 413) if size else ("The file is empty.", 400)
        except ClientDisconnect:
            pass
        except TimeoutError:
            problem = "The upload took too long.", 408
        except OSError as error:
            problem = f"The file cannot be kept: {error.strerror}.", 507
        finally:  # also where the task is canceled
            if problem[1] == 202:
                self.jobs.submit(clip)
            else:
                self.jobs.delete(clip)
        return _json({"id": clip.id}, 202) if problem[1] == 202 else _json({"error": problem[0]}, problem[1])

    async def status(self, request: Request) -> Response:
        """How far a clip is, and its answers."""
        clip = self._clip(request)
        return _json(self.jobs.status(clip)) if clip else _gone()

    async def delete(self, request: Request) -> Response:
        """Removes a clip and its answers."""
        clip = self._clip(request)
        if clip is None:
            return _gone()
        self.jobs.delete(clip)
        return _json({"state": "deleted"})

    async def video(self, request: Request) -> Response:
        """The video itself, or a range of it."""
        from starlette.responses import FileResponse

        clip = self._clip(request)
        if clip is None or not clip.path.is_file() or clip.state == "coming":
            return _gone()
        return FileResponse(clip.path, media_type=kind_of(clip.path))

    def _clip(self, request: Request) -> Clip | None:
        return self.jobs.clips.get(request.path_params["id"])


def kind_of(path: Path) -> str:
    """The media type of a file, by its content: never one that a browser would run."""
    with path.open("rb") as file:
        head = file.read(16)
    return next((kind for at, mark, kind in _KINDS if head[at:].startswith(mark)), "application/octet-stream")


async def _store(request: Request, path: Path, limit: int) -> int:
    """Writes the body of a request into a file, up to ``limit`` bytes; returns its size.

    As much again is read and thrown away: a browser that cannot send its body to the end shows no answer.
    """
    size = 0
    with path.open("wb") as file:
        async for block in request.stream():
            size += len(block)
            if size <= limit:
                file.write(block)
            elif size > 2 * limit:
                break
    return size


def _file(path: Path) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        from starlette.responses import FileResponse

        return FileResponse(path)

    return answer


def _json(content: dict[str, Any], status: int = 200) -> Response:
    from starlette.responses import JSONResponse

    # What is refused may not have been read to its end, so that the connection cannot serve another request.
    return JSONResponse(content, status, {"Connection": "close"} if status >= 400 else None)


def _gone() -> Response:
    return _json({"error": "This clip is not here; it was deleted."}, 404)


async def _nothing(request: Request, error: Exception) -> Response:
    return _json({"error": "There is nothing here."}, 404)


async def _fault(request: Request, error: Exception) -> Response:
    console(stderr=True).print(f"gmsa app: {describe_fault(error)}")
    return _json({"error": "The server failed; the terminal in which gmsa app runs says why."}, 500)
