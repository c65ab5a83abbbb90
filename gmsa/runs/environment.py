"""The environment of a run: versions, machine, code and data."""

from __future__ import annotations

import dataclasses
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gmsa
from gmsa.config import Config
from gmsa.config.components import component_name
from gmsa.data import Corpus, Target
from gmsa.errors import cut
from gmsa.registry import Registry, plugins_with
from gmsa.text import texts_of

PACKAGES = (
    *("gmsa", "torch", "torch-geometric", "torch-scatter", "numpy", "scikit-learn", "safetensors"),
    *("transformers", "tokenizers", "peft"),
)


def describe_environment(
    config: Config, corpus: Corpus, device: torch.device, encoder_sha256: str | None = None
) -> dict[str, Any]:
    """Describes all that a run depends on besides its config: versions, machine, git commit, plug-ins, data.

    Args:
        encoder_sha256: as for :func:`describe_files`.
    """
    return {
        "versions": {package: _version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "git": _git_commit(),
        **describe_files(config, corpus, encoder_sha256),
        "plugins": plugins_of(config),
        "synthetic": corpus.synthetic,
        "dims": dict(corpus.dims),
        **({} if corpus.extraction is None else {"extraction": dict(corpus.extraction)}),
        "splits": {split: len(utterances) for split, utterances in corpus.splits.items()},
    }


def base_of(target: Target, labeled: Iterable[np.ndarray]) -> list[float] | None:
    """What is said of an utterance of which nothing is known: the mean training label, or the share of each class.

    Args:
        labeled: of each seed the labels that it trains on; the result is the mean over the seeds.

    Returns:
        A list of one number, or of K; None where nothing is labeled.
    """
    found = []
    for labels in labeled:
        if not len(labels):
            continue
        counts = np.bincount(np.array(labels, dtype=int), minlength=target.num_classes) if target.is_classes else None
        found.append([float(np.mean(labels))] if counts is None else (counts / len(labels)).tolist())
    return np.mean(found, axis=0).tolist() if found else None


def other_machine(before: Mapping[str, Any]) -> str | None:
    """A warning that a run is resumed on another kind of CPU, or with another torch, than it was trained on.

    Args:
        before: content of its ``environment.json``; what an older one does not say is not compared.
    """
    versions = before.get("versions")
    then = {"CPU": before.get("cpu_capability"), "torch": versions.get("torch") if isinstance(versions, dict) else None}
    now = {"CPU": torch.backends.cpu.get_cpu_capability(), "torch": _version("torch")}
    differing = [f"{k} {cut(then[k])}, now {now[k]}" for k in now if then[k] not in (None, now[k])]
    if not differing:
        return None
    return f"WARNING: trained with {' and '.join(differing)}: equal bits are not promised across these."


def describe_files(config: Config, corpus: Corpus, encoder_sha256: str | None = None) -> dict[str, str | None]:
    """SHA-256 of the data file; of the pool file and of the text encoder's weights, if there are any.

    Args:
        encoder_sha256: that of the text encoder, where its weights are gone.
    """
    texts = texts_of(config)
    encoder = {} if texts is None else {"encoder_sha256": encoder_sha256 or texts.folder.sha256}
    return {"data_sha256": corpus.sha256, "pool_sha256": corpus.pool_sha256, **encoder}


def plugins_of(config: Config) -> list[str]:
    """The plug-in modules that a config needs: those that it lists, and installed ones whose parts it names."""
    others = plugins_with(registry.module_of(component_name(spec)) for registry, spec in _parts(config))
    return [*config.plugins, *(module for module in others if module not in config.plugins)]


def _parts(config: Any) -> Iterator[tuple[Registry[Any], str]]:
    """Every part that a config, or a group of it, names, with the registry that it is in."""
    for setting in dataclasses.fields(config):
        value = getattr(config, setting.name)
        if "registry" in setting.metadata:
            for spec in (value,) if isinstance(value, str) else value:
                yield setting.metadata["registry"], spec
        elif "parts" in setting.metadata:
            for spec in value.values():
                yield setting.metadata["parts"], spec
        elif dataclasses.is_dataclass(value):
            yield from _parts(value)


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _git_commit() -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(Path(gmsa.__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()  # what this process has imported, whatever is checked out later
