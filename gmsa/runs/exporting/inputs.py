"""What an exported program is given: the tensors of utterances."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gmsa.config import from_dict
from gmsa.data import Normalizer
from gmsa.errors import ConfigError, DataError, RunError, cut, short
from gmsa.graph import collate
from gmsa.registry import load_plugins
from gmsa.runs.exporting.describe import FORMAT, program_spec
from gmsa.runs.exporting.flat import to_tensors
from gmsa.runs.inputs import Input, read_inputs
from gmsa.system.reading import expanded, open_regular, parse_json

DESCRIPTION = "gmsa.json"
"""Extra file of a program with its description."""
_MOST = 1 << 28
"""Bytes of a description, at most."""


class ProgramInputs:
    """Turns utterances into the inputs of a program that :meth:`gmsa.Run.export` or ``gmsa export`` wrote.

    It needs the program's description alone, and no weights. Of the program's file it reads that and runs nothing::

        program = torch.export.load("model.pt2").module()
        inputs = gmsa.ProgramInputs("model.pt2")
        program(inputs("clips.pkl"))["value"]

    Args:
        program: the file of a program, or its description: a dict, or the JSON of one.
        plugins: modules that register the parts of your own that the run uses.

    Raises:
        RunError: it is no such file, or the description is damaged or of another version.
        ConfigError: a plug-in cannot be imported.
    """

    def __init__(self, program: str | os.PathLike[str] | Mapping[str, Any], plugins: Iterable[str] = ()) -> None:
        load_plugins(plugins, Path())
        where = "the description"
        if isinstance(program, Mapping):
            content: Any = program
        else:
            text = os.fspath(program)
            if not text.lstrip().startswith("{"):
                where = f"'{short(text)}'"
                text = _extra_file(expanded(text), where)
            content = _parsed(text, where)
        self.description: dict[str, Any] = _checked(content, where)
        """What the program says of itself: modalities, normalization, target, inputs, outputs, settings, versions."""
        try:
            settings = {key: value for key, value in content["config"].items() if key != "plugins"}
            self._config = from_dict(settings, where)
            self.dims = {m: int(facts["features"]) for m, facts in content["modalities"].items()}
            self.names = [str(one["name"]) for one in content["inputs"]]
            self._normalizer = _normalizer(content["normalization"], self.dims)
            self._spec = program_spec(self._config)
        except ConfigError as error:
            raise RunError(
                f"{where} has settings that this gmsa does not take ({cut(error)}); name the plug-ins of its run by "
                "plugins=[...], or export the run again"
            ) from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{where} is damaged ({cut(error)}); export the run again") from None

    def __call__(self, x: Input) -> dict[str, Tensor]:
        """The inputs of one batch, in the order of the utterances, which the outputs have, too.

        Args:
            x: utterances, a dict of arrays by modality, or the path of a file, as for :meth:`gmsa.Run.predict`.
                Features are raw, as those of the training file; a modality that is not there is missing.

        Raises:
            DataError: an utterance cannot be predicted, or has more tokens than the model has positions.
        """
        found = read_inputs(x, self.dims, self._config)
        found.check_all()
        batch = collate([self._normalizer.apply(u) for u in found.utterances], self._spec)
        tensors = to_tensors(batch)
        if lacking := [name for name in self.names if name not in tensors]:
            raise DataError(f"this gmsa makes no input '{lacking[0]}', which the program takes; export the run again")
        return {name: tensors[name] for name in self.names}


def _extra_file(path: Path, where: str) -> str:
    """The description in the file of a program, of which nothing else is read."""
    with open_regular(path, where) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                names = [name for name in archive.namelist() if name.endswith(f"/extra/{DESCRIPTION}")]
                if names and archive.getinfo(names[0]).file_size <= _MOST:
                    return archive.read(names[0]).decode("utf-8")
        except (zipfile.BadZipFile, UnicodeDecodeError, OSError, NotImplementedError):
            pass
    raise RunError(f"{where} is no program that gmsa export wrote: it has no {DESCRIPTION}; name one")


def _parsed(text: str, where: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise RunError(f"{where} is damaged ({cut(error)}); export the run again") from None


def _checked(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise RunError(
            f"{where} is of another form than this gmsa reads (format {FORMAT}); export the run again with it"
        )
    return dict(content)


def _normalizer(facts: Mapping[str, Any], dims: Mapping[str, int]) -> Normalizer:
    state = {"clip": torch.tensor(facts["clip"], dtype=torch.float64)}
    for part in ("mean", "std"):
        state |= {f"{m}.{part}": torch.tensor(x, dtype=torch.float64) for m, x in facts[part].items()}
    return Normalizer.from_state(state, dims)
