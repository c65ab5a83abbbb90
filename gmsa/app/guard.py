"""What stands before every route: who may ask, and the headers of every answer."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import parse_qs

App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]
"""An ASGI application."""

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=(), display-capture=(), usb=()",
}
"""Of every answer, refusals included. No script or style but the files of the page, no other site, no cache."""
_RAW = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
TOKEN_HEADER = "x-gmsa-token"
OPEN_THE_LINK = "Open the link that gmsa app printed."


class Guard:
    """An ASGI application around another, which it lets only the page of this machine reach.

    A page of another site cannot read the answers, as it is of another origin. It could send, and by DNS rebinding also
    pass for this host; so the names of host and origin are compared, and a token is needed that only the link holds.

    The token comes in a header, or in the query where no script sends the request: in the link, and for the video. A
    cookie would be kept from scripts, but goes to every port of 127.0.0.1, and so to other people's servers there.

    Args:
        token: the secret of the link.
        port: where the server listens.
        free: paths that need no token: files that are the same for everybody.
    """

    def __init__(self, app: App, token: str, port: int, free: Collection[str]) -> None:
        self.app, self.token, self.free = app, token.encode(), free
        names = ("127.0.0.1", "localhost")
        self.hosts = {f"{name}:{port}" for name in names} | {name for name in names if port == 80}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] != "http":  # no WebSockets
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in dict(_RAW)]
                message["headers"] = [*kept, *_RAW]
            await send(message)

        if problem := self._problem(scope):
            await _refuse(problem, guarded)
        else:
            await self.app(scope, receive, guarded)

    def _problem(self, scope: MutableMapping[str, Any]) -> str:
        """Why a request is refused; nothing where it is not."""
        headers = {name.lower(): value for name, value in scope["headers"]}
        host = headers.get(b"host", b"").decode("latin-1")
        if host not in self.hosts:
            return "This server answers only as 127.0.0.1 or localhost, at its own port."
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"origin"]
        if any(origin != f"http://{host}" for origin in origins):
            return "This server answers only its own page."
        if scope["path"] in self.free:
            return ""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        given = headers.get(TOKEN_HEADER.encode()) or query.get("token", [""])[0].encode()
        return "" if secrets.compare_digest(given, self.token) else OPEN_THE_LINK


async def _refuse(problem: str, send: Any) -> None:
    body = json.dumps({"error": problem}).encode()
    # The body of the request is not read, so the connection cannot serve another one.
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
