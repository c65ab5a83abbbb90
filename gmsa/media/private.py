"""Keeps libraries of the extraction from telling their makers that they are used.

onnxruntime (from 1.29 on) and mediapipe (from 0.10.35 on) send what they measure of their use to Microsoft and to
Google. Nothing of a video is in that, and yet it says who looks at one, when and for how long.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

from gmsa.data.notes import note

T = TypeVar("T")

_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""By machine: what Linux calls it, and its number of the system call ``socket``."""
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _RETURN, _ALLOW, _ERROR = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000


def forbid_telemetry() -> None:
    """Keeps onnxruntime from sending anything; call it before the package is imported."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def without_network(make: Callable[[], T]) -> T:
    """What ``make`` returns, made by a thread that opens no internet socket, nor does any thread that it starts.

    So a library that sends by a thread of its own cannot, and the rest of the process is not limited. Linux alone can
    do that, by seccomp; elsewhere the user is told.
    """
    found: Future[T] = Future()

    def run() -> None:
        if not _forbid_sockets():
            note(
                "on this system mediapipe tells Google how it is used (nothing of a video is in that); close the "
                "network to play.googleapis.com, or set HTTPS_PROXY=http://127.0.0.1:9, if you do not want that"
            )
        try:
            found.set_result(make())
        except BaseException as error:
            found.set_exception(error)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    return found.result()


def _forbid_sockets() -> bool:
    """Has the kernel refuse internet sockets to this thread and to those that it starts; False where it cannot."""
    if sys.platform != "linux" or platform.machine() not in _SOCKET:
        return False
    machine, number = _SOCKET[platform.machine()]
    steps = [
        (_LOAD, 0, 0, 4),  # the machine that the call is made for
        (_EQUAL, 0, 5, machine),
        (_LOAD, 0, 0, 0),  # the number of the call
        (_EQUAL, 0, 3, number),
        (_LOAD, 0, 0, 16),  # its first argument
        (_EQUAL, 2, 0, socket.AF_INET),
        (_EQUAL, 1, 0, socket.AF_INET6),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERROR | errno.EACCES),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    filtered = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(program)))
    control = ctypes.CDLL(None, use_errno=True).prctl
    return control(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0 and control(_SECCOMP, _FILTER, filtered, 0, 0) == 0
