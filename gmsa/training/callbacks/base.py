"""What a callback is, and how several of them are called."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gmsa.config import Config
from gmsa.config.components import build_component
from gmsa.errors import ConfigError, GmsaError, RunError
from gmsa.registry import CALLBACKS
from gmsa.system.files import make_subfolder, write_text
from gmsa.system.reading import exists, read_text
from gmsa.system.streams import ReaderGone


@dataclass(frozen=True)
class RunInfo:
    """The run that a callback follows."""

    name: str
    folder: Path
    config: Config


class Callback:
    """Follows a training: its methods are called on the way, in the main process alone; by default they do nothing.

    .. code-block:: python

        from gmsa.registry import CALLBACKS
        from gmsa.training.callbacks import Callback

        @CALLBACKS.register("alarm")
        class Alarm(Callback):
            def __init__(self, above: float = 2.0) -> None:
                self.above = above

            def on_epoch_end(self, row, epochs):
                if row["loss"] > self.above:
                    print(f"loss {row['loss']} in epoch {row['epoch']}")

    ``plugins: [my_module]`` and ``run.callbacks: [alarm(above=1.5)]`` choose it. ``on_step`` must not draw from
    torch's global random generators: dropout draws from them.
    """

    def on_start(self, run: RunInfo) -> None:
        """Before the first stage, or the first that is left of a resumed run."""

    def on_stage_start(self, stage: str, seed: int, utterances: int) -> None:
        """Before a stage, which will see ``utterances`` in all its epochs; one in two epochs counts twice.

        None, where its model is made of those of others.
        """

    def on_step(self, ids: Sequence[str]) -> None:
        """After an optimizer step over the utterances ``ids``; of several processes, those of the main one."""

    def on_epoch_end(self, row: Mapping[str, Any], epochs: int) -> None:
        """After an epoch and its validation.

        Args:
            row: the row of ``history.jsonl``: ``seed``, ``stage``, ``epoch`` (from 1), ``loss``, ``valid``
                (score by name), ``lr``, ``seconds``, ``best``. The loss is NaN in a stage that trains nothing.
            epochs: of the stage.
        """

    def on_message(self, line: str) -> None:
        """When there is a message for the user."""

    def on_end(self, summary: Mapping[str, Any] | None) -> None:
        """After the run, whatever ended it.

        Args:
            summary: the content of ``summary.json``; None where the run failed or was interrupted.
        """


class CallbackList(Callback):
    """Calls several callbacks in turn, and names the one that fails.

    A callback may end the training by KeyboardInterrupt, ``optuna.TrialPruned`` or an error of gmsa.

    Raises:
        RunError: a callback raised anything else.
    """

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self.callbacks = tuple(callbacks)

    def on_start(self, run: RunInfo) -> None:
        """Calls all."""
        self._call("on_start", run)

    def on_stage_start(self, stage: str, seed: int, utterances: int) -> None:
        """Calls all."""
        self._call("on_stage_start", stage, seed, utterances)

    def on_step(self, ids: Sequence[str]) -> None:
        """Calls all."""
        self._call("on_step", ids)

    def on_epoch_end(self, row: Mapping[str, Any], epochs: int) -> None:
        """Calls all."""
        self._call("on_epoch_end", row, epochs)

    def on_message(self, line: str) -> None:
        """Calls all."""
        self._call("on_message", line)

    def on_end(self, summary: Mapping[str, Any] | None) -> None:
        """Calls all, also where one fails; after a run that failed, such an error is reported, not raised."""
        errors = []
        for callback in reversed(self.callbacks):  # the progress bar, the first, shows the messages of the others
            try:
                _guarded(callback, "on_end", summary)
            except GmsaError as error:
                errors.append(error)
        if errors and summary is not None:
            raise errors[0]
        for failure in errors:
            with suppress(GmsaError):
                self.on_message(f"WARNING: {failure}")

    def _call(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            _guarded(callback, event, *arguments)


def build_callbacks(config: Config) -> list[Callback]:
    """The callbacks that ``run.callbacks`` names, with their parameters.

    Raises:
        ConfigError: one is unknown, does not take these parameters, or needs a package that is not installed.
    """
    return [build_component(spec, CALLBACKS, "run.callbacks", Callback) for spec in config.run.callbacks]


def needed_module(name: str, callback: str, package: str) -> Any:
    """Imports a module that a callback needs.

    Raises:
        ConfigError: it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"'run.callbacks': '{callback}' needs the package {package} ({error}); "
            f"in the clone: pip install '.[{callback}]'"
        ) from None


def epoch_values(row: Mapping[str, Any]) -> dict[str, float]:
    """What of an epoch is a curve: ``loss``, ``lr`` and the validation scores, ``valid/MAE`` and the like."""
    return {"loss": row["loss"], "lr": row["lr"], **{f"valid/{name}": value for name, value in row["valid"].items()}}


def final_scores(summary: Mapping[str, Any]) -> dict[str, float]:
    """The means over the seeds of a run's final scores, ``test/MAE`` and the like."""
    return {
        f"{split}/{name}": score["mean"]
        for split in ("valid", "test")
        for name, score in (summary.get(split) or {}).items()
        if score["mean"] is not None
    }


def kept_id(file: Path, make: Callable[[], str]) -> str:
    """The id that ``file`` keeps for resumed runs; a new one where there is none."""
    if not exists(file):
        make_subfolder(file.parent.parent, file.parent.name)
        write_text(file, make())
    return read_text(file, inside=file.parent)


def _guarded(callback: Callback, event: str, *arguments: Any) -> None:
    try:
        getattr(callback, event)(*arguments)
    except (GmsaError, ReaderGone):
        raise
    except Exception as error:
        from optuna import TrialPruned  # here, as importing it takes a second

        if isinstance(error, TrialPruned):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise RunError(
            f"the callback {type(callback).__name__} failed in {event} ({reason}); repair it, or leave it out"
        ) from error
