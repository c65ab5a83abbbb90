"""URLs of databases: which ones a study takes, and what of them may be shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from gmsa.errors import ConfigError, shown
from gmsa.system.files import check_out_file

HARMLESS = re.compile(
    "application_name|channel_binding|client_encoding|connect_timeout|dbname|gssencmode|host|hostaddr|"
    "keepalives(_idle|_interval|_count)?|load_balance_hosts|port|sslmode|sslnegotiation|target_session_attrs|"
    "tcp_user_timeout|timeout|user"
)
"""Keys of a URL's query that may be shown. Drivers take too many that hold secrets, and new ones come."""
_NAME = re.compile(r"[\w.@+-]{0,100}")
"""What may be shown of a name. A driver takes one with '=' for settings, such as a password; one with ':' holds two."""
_VALUE = re.compile(r"[\w.,/:@ +-]{0,200}")
"""What may be shown of a host or a value."""


def check_url(url: str, jobs: int) -> None:
    """Refuses a database that does not work with this many workers.

    Raises:
        ConfigError: says why, and what to use.
        RunError: the file of an SQLite database cannot be written.
    """
    parsed = _parsed(url)
    if parsed is None:
        raise ConfigError(
            "--storage takes a URL such as postgresql://user@host/database; leave it out for a journal in the folder"
        )
    kind = parsed.get_backend_name()
    if "@" in (parsed.host or ""):
        raise ConfigError("--storage: write an '@' in a password as %40, or leave the password to ~/.pgpass")
    if kind not in ("sqlite", "postgresql"):
        raise ConfigError(f"--storage knows postgresql and sqlite (got {shown(kind)}); leave it out for a journal")
    if kind == "postgresql":
        return
    file = parsed.database or ""
    in_memory = file in ("", ":memory:") or file.lower().startswith("file:")
    if in_memory or parsed.host or parsed.username or parsed.query.keys() - {"timeout", "check_same_thread"}:
        raise ConfigError(
            "--storage: SQLite takes the path of a file alone, as sqlite:///study.db: in memory, a worker would not "
            "see the study of another; write that, or leave --storage out (a journal in the study's folder)"
        )
    if jobs > 1:
        raise ConfigError(
            f"SQLite cannot be shared by {jobs} workers: two of them can draw the same queued trial, as it has no row "
            "locks; leave --storage out (a journal in the study's folder), use PostgreSQL, or --jobs 1"
        )
    check_out_file(Path(file))


def shown_url(url: str) -> str:
    """A URL with only those parts that cannot hold a secret: no password, and of the query harmless keys alone."""
    parsed = _parsed(url)
    if parsed is None:
        return "***"
    user = _plain(parsed.username) + ("" if parsed.password is None else ":***")
    place = _plain(parsed.host, _VALUE) + ("" if parsed.port is None else f":{parsed.port}")
    sqlite = parsed.get_backend_name() == "sqlite"
    database = parsed.database or "" if sqlite else _plain(parsed.database)  # of SQLite's, the path of a file
    query = "&".join(f"{key}={value}" for key, value, harmless in _query(url) if harmless)
    return f"{parsed.drivername}://{user}{'@' if user else ''}{place}/{database}{'?' if query else ''}{query}"


def hide(url: str, line: str) -> str:
    """A text, perhaps of a driver, without the secrets of a URL."""
    if _parsed(url) is None:
        return line.replace(url, "***") if url else line
    rest = url.partition("://")[2]
    line = line.replace(rest, shown_url(url).partition("://")[2]) if rest else line
    for form in sorted({form for secret in _secrets(url) for form in _forms(secret)}, key=len, reverse=True):
        line = line.replace(form, "***")
    return line


def _parsed(url: str) -> URL | None:
    """The parts of a URL; None where it is none, or of a database that nobody knows."""
    try:
        parsed = make_url(url)
        parsed.get_backend_name()
        url.encode()
    except (ArgumentError, ValueError, ModuleNotFoundError, AttributeError):
        return None
    return parsed


def _plain(part: str | None, harmless: re.Pattern[str] = _NAME) -> str:
    return (part or "") if harmless.fullmatch(part or "") else "***"


def _query(url: str) -> Iterator[tuple[str, str, bool]]:
    """Keys and values of a URL's query, as they are written, and whether they may be shown."""
    for pair in re.split("[&;]", url.partition("?")[2]):
        key, _, value = pair.partition("=")
        yield key, value, bool(HARMLESS.fullmatch(key) and _VALUE.fullmatch(unquote_plus(value)))


def _secrets(url: str) -> Iterator[str]:
    """What must not be shown of a URL, as it is written and as a driver may read it."""
    parsed = make_url(url)
    yield parsed.password or ""
    yield url.partition("://")[2].partition("?")[0].rpartition("@")[0].partition(":")[2]
    if parsed.get_backend_name() != "sqlite":
        names = (parsed.username, _NAME), (parsed.host, _VALUE), (parsed.database, _NAME)
        for part, harmless in names:
            if part and not harmless.fullmatch(part):
                yield from (part, *re.findall(r"[=:#]\s*([^\s=:]+)", part))
    for key, written, shows in _query(url):
        if shows:
            continue
        written = written or key
        for value in (written, unquote(written), unquote_plus(written)):
            yield value
            yield value.partition("=")[2].replace("\\", "")  # of '-c name=value'
            yield from re.findall(r"=\s*([^\s=]+)", value)


def _forms(secret: str) -> set[str]:
    """How a message may write a secret."""
    escaped = secret.replace("\\", "\\\\").replace("'", "\\'")
    forms = (secret, unquote(secret), unquote_plus(secret), quote(secret), quote_plus(secret), escaped)
    return {form for form in (*forms, repr(secret)[1:-1]) if form.strip()}
