"""The server of the page with answers of no model: in this process, or as a program that a signal ends."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gmsa.app import server
from gmsa.app.jobs import Jobs
from gmsa.app.options import Options

TOKEN = "correct-horse"


class Reply(NamedTuple):
    """What the server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


class Site(NamedTuple):
    """A server that runs."""

    port: int
    jobs: Jobs

    @property
    def link(self) -> str:
        """What the command would print."""
        return f"http://127.0.0.1:{self.port}/?token={TOKEN}"

    def ask(self, method: str, path: str, body: Any = None, token: str | None = TOKEN, **headers: str) -> Reply:
        """Sends a request as it is; names of headers have ``_`` for ``-``."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["X-Gmsa-Token"] = token
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, sent, encode_chunked="Transfer-Encoding" in sent)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def ended(self, id: str) -> dict[str, Any]:
        """The status of a clip once it is done or has failed."""
        for _ in range(3000):
            found = self.ask("GET", f"/api/clips/{id}").json
            if found.get("state") not in ("waiting", "running", "coming"):
                return found
            time.sleep(0.02)
        raise AssertionError(f"still {found}")


@contextmanager
def serving(
    folder: Path, answer: str = "answer", runs: Sequence[str | Path] = ("first",), **limits: Any
) -> Iterator[Site]:
    """Serves the page in a thread, with a function of :mod:`helpers.fake_answers` or another ``module:function``."""
    import uvicorn

    folder.mkdir(mode=0o700, exist_ok=True)
    options = Options(
        tuple(map(Path, runs)), answer=answer if ":" in answer else f"helpers.fake_answers:{answer}", **limits
    )
    jobs = Jobs(options, folder)
    with server.listen(0) as listening:
        port = listening.getsockname()[1]
        settings = uvicorn.Config(
            server.build(jobs, TOKEN, port), log_level="critical", lifespan="off", http="h11", ws="none",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        running = uvicorn.Server(settings)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        jobs.start()
        thread.start()
        try:
            yield Site(port, jobs)
        finally:
            running.should_exit = True
            thread.join(20)
            jobs.stop()


if __name__ == "__main__":  # what `gmsa app` does, without runs
    import signal

    from gmsa.system import cli

    for number in (signal.SIGINT, signal.SIGHUP):  # a shell starts what runs in the background without
        signal.signal(number, signal.SIG_DFL)
    with cli.exit_codes("gmsa app"):
        server.serve_page(Options((Path("first"),), answer=f"helpers.fake_answers:{sys.argv[1]}"), browser=False)
