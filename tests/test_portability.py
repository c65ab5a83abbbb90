"""Systems that lack what Linux has: Windows's signals, and the devices of other machines."""

from __future__ import annotations

import importlib
import pkgutil
import signal
import sys

import pytest
import torch
from helpers.killed_runs import ended, forked

from gmsa.config import RunConfig, from_dict
from gmsa.errors import RunError
from gmsa.system import cli
from gmsa.system.device import set_up
from gmsa.system.processes import interrupts_held
from gmsa.training.loader import leave_signals_to_parent


@pytest.fixture
def signals():
    """Gives the signals back as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ctrl_c_is_not_held_back_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch, signals: None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background without
    monkeypatch.delattr(signal, "pthread_sigmask")
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals cannot be blocked here")
def test_ctrl_c_is_held_back_where_it_can_be(signals: None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    reached = []

    def interrupted() -> None:
        with interrupts_held():
            signal.raise_signal(signal.SIGINT)
            reached.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert reached


def test_a_worker_ignores_ctrl_c_also_without_alarms(monkeypatch: pytest.MonkeyPatch, signals: None) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.delattr(signal, "alarm")
    leave_signals_to_parent(0)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="there are no alarms here")
def test_a_worker_outlives_sigterm_for_a_moment(monkeypatch: pytest.MonkeyPatch, signals: None) -> None:
    asked = []
    monkeypatch.setattr(signal, "alarm", asked.append)
    leave_signals_to_parent(0)
    signal.raise_signal(signal.SIGTERM)
    assert asked == [10]


@pytest.mark.parametrize(
    ("asked", "available", "chosen"),
    [
        ("auto", (), "cpu"),
        ("auto", ("mps",), "cpu"),
        ("auto", ("cuda",), "cuda"),
        ("auto", ("cuda", "mps"), "cuda"),
        ("cpu", ("cuda", "mps"), "cpu"),
        ("mps", ("cuda", "mps"), "mps"),
        ("cuda", ("cuda", "mps"), "cuda"),
        ("cuda", ("mps",), "no CUDA device is available; use --device cpu, or install a CUDA build of torch"),
        ("mps", ("cuda",), "no MPS device is available; use --device cpu, or run on macOS with an Apple GPU"),
    ],
)
def test_the_device(asked: str, available: tuple[str, ...], chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in available)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in available)
    config = from_dict({"run": {"device": asked}}).run
    if chosen.startswith("no "):
        with pytest.raises(RunError) as caught:
            set_up(config)
        assert str(caught.value) == chosen
    else:
        assert set_up(config) == set_up(RunConfig(), asked) == torch.device(chosen)


def test_the_commands_take_every_device_of_the_config() -> None:
    parser = cli.Parser(prog="python -m gmsa.train")
    cli.add_device_option(parser)
    for device in ("auto", "cpu", "cuda", "mps"):
        assert parser.parse_args(["--device", device]).device == device
        assert from_dict({"run": {"device": device}}).run.device == device


@pytest.mark.skipif(sys.platform != "linux", reason="what is missing elsewhere is taken away here")
def test_all_modules_are_imported_without_the_signals_of_linux() -> None:
    def import_anew() -> None:
        for name in ("pthread_sigmask", "alarm", "SIGALRM", "SIGKILL", "SIGHUP", "SIGUSR1"):
            delattr(signal, name)
        sys.modules["resource"] = None  # type: ignore[assignment]
        for name in [name for name in sys.modules if name.partition(".")[0] == "gmsa"]:
            del sys.modules[name]
        package = importlib.import_module("gmsa")
        for module in pkgutil.walk_packages(package.__path__, "gmsa."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)

    assert ended(forked(import_anew)) == 0
