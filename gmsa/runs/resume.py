"""Chooses a run's folder, and checks that the run in it can be resumed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from gmsa.config import AUTO, Config, to_dict
from gmsa.config.trained import differences, few
from gmsa.errors import RunError
from gmsa.runs.folder import Run
from gmsa.runs.settings import read_config
from gmsa.system.files import check_no_link, check_out_folder, check_out_parts
from gmsa.system.reading import MOST_TEXT, entries, exists, expanded, read_bytes
from gmsa.text.folder import has_weights
from gmsa.training.checkpoint import list_states

_SEED = re.compile(r"seed--?\d+")
_SUBFOLDERS = ("seed-*", "figures", "tensorboard", "mlflow", "wandb")
"""Folders of a run that a training writes into."""
_FOLLOWING = ("tensorboard", "mlflow")
"""Those in which others write, who follow links."""
_DECISIVE = ("select", "threads", "compile", "cuda_graphs", "deterministic")
"""What of the group ``run`` decides a number."""


def choose_folder(out: str | os.PathLike[str] | None, default: str, resume: bool) -> tuple[Path, bool]:
    """The run folder, ``out`` or the default one (numbered where it is taken), and whether it holds a run to resume.

    Args:
        resume: resume the run of that folder, or the last numbered one; where there is none yet, start it.

    Raises:
        RunError: the folder holds a run and ``resume`` is not asked for, or holds something else.
    """
    if out is not None:
        folder = expanded(out)
        check_out_folder(folder)
    else:
        taken = [Path(default)]
        while exists(following := Path(f"{default}-{len(taken) + 1}")):
            taken.append(following)
        folder = taken[-1] if resume or not exists(taken[-1]) else following
        check_out_folder(folder)
    if resume and exists(folder / "config.yaml"):
        check_parts(folder)
        return folder, True
    if any(not _left_by_start(path) for path in entries(folder)):
        if exists(folder / "config.yaml"):
            raise RunError(
                f"'{folder}' is not empty; add --resume (in Python: resume=True) to resume its run, "
                "or give another --out"
            )
        raise RunError(f"'{folder}' is not empty and holds no run; give another --out")
    return folder, False


def seed_folders(folder: Path) -> list[Path]:
    """The folders of a run's seeds, links left out."""
    return [path for path in entries(folder) if _SEED.fullmatch(path.name) and not path.is_symlink()]


def check_parts(folder: Path) -> None:
    """Checks that a run, which may be a stranger's, can be written on, and that no link leads a training out of it.

    Raises:
        RunError: a folder cannot be written, or is a file or a link.
    """
    check_out_parts(folder, *_SUBFOLDERS)
    for name in _FOLLOWING:
        for path in entries(folder / name):
            check_no_link(path)


def settings_file(folder: Path) -> bytes | None:
    """The bytes of the run's ``config.yaml``; None where there is none yet.

    Raises:
        RunError: it cannot be read.
    """
    file = folder / "config.yaml"
    return read_bytes(file, MOST_TEXT, inside=folder) if exists(file) else None


def look_again(folder: Path, seen: bytes | None) -> None:
    """Checks, with the folder locked, that no other training wrote into it since it was chosen.

    Reading the data takes time, in which another can begin and end. Its state must not become this one's.

    Args:
        seen: what :func:`settings_file` gave when the folder was chosen; None for a run that starts.

    Raises:
        RunError: another did.
    """
    if seen is None and (exists(folder / "config.yaml") or any(list_states(f) for f in seed_folders(folder))):
        raise RunError(
            f"another training has taken '{folder}' meanwhile; give another --out, or add --resume to go on with that"
        )
    if seen is not None and settings_file(folder) != seen:
        raise RunError(f"another training has changed '{folder}' meanwhile; run the same command again")


def _left_by_start(path: Path) -> bool:
    """Whether a start that was killed before it wrote ``config.yaml`` left this file."""
    return path.name[0] == "." or path.name in ("environment.json", "normalizer.safetensors")


def check_files(run: Run, files: Mapping[str, str | None]) -> None:
    """Checks that a run was made with these data files.

    Args:
        files: SHA-256 of the data files, as ``describe_files`` gives them.

    Raises:
        RunError: names the one that differs, and both hashes.
    """
    data = run.config.data
    for key, now in files.items():
        then = run.environment.get(key)
        if then != now:
            encoder = read_config(run.folder).model.text_encoder  # that of ``run.config`` may be its copy in the folder
            path = {"data_sha256": data.path, "pool_sha256": data.pool}.get(key, encoder)
            differs = f"SHA-256 {str(now)[:12]}…, was {str(then)[:12]}…"
            what = "text encoder" if path == encoder else "file"
            raise RunError(
                f"'{path}' is not the {what} that '{run.folder}' was trained {'with' if path == encoder else 'on'} "
                f"({differs}); put that {what} back, or give another --out"
            )


def resumed(folder: Path, config: Config) -> Config:
    """The config of a resumed run: the same settings, with the earlier seeds and any new ones.

    Raises:
        RunError: names the settings that differ; only seeds, device, folder and those that change no number may.
    """
    old = read_config(folder)
    config = _with_found(config, old)
    if differing := differences(_decisive(old), _decisive(config)):
        raise RunError(f"cannot resume '{folder}' with other settings: {few(differing)}; give another --out")
    seeds = dict.fromkeys((*old.run.seeds, *config.run.seeds))
    return replace(config, run=replace(config.run, seeds=tuple(seeds)))


def without_encoder(folder: Path, config: Config) -> tuple[Config, str | None]:
    """The config of a resumed run whose text encoder is gone, with the run's copy of its settings and its tokenizer,
    and the SHA-256 of its weights that the run recorded; the config as it is and None where it is there.

    The run's states hold the weights of an encoder in training: only what starts anew needs its own.

    Raises:
        RunError: it is no run folder, or a part of it is missing or damaged.
    """
    encoder = config.model.text_encoder
    if encoder is None or not config.trains_text_encoder or has_weights(encoder, config.text.download):
        return config, None
    run = Run(folder)
    recorded = run.environment.get("encoder_sha256")
    if recorded is None:
        return config, None
    return replace(config, model=replace(config.model, text_encoder=run.config.model.text_encoder)), recorded


def _with_found(config: Config, old: Config) -> Config:
    """The config with what the run found in its data where the config asks for that; it is the same by its SHA-256."""
    groups: dict[str, Any] = {}
    for group in ("data", "target", "run"):
        settings, then = getattr(config, group), getattr(old, group)
        names = [f.name for f in fields(settings) if getattr(settings, f.name) == AUTO]
        groups[group] = replace(settings, **{name: getattr(then, name) for name in names})
    if config.model.may_become(old.model.encoders):
        groups["model"] = replace(config.model, encoders=old.model.encoders)
    if config.graph.speakers == "pairs" and isinstance(old.graph.speakers, tuple):
        groups["graph"] = replace(config.graph, speakers=old.graph.speakers)
    return replace(config, **groups)


def _decisive(config: Config) -> dict[str, Any]:
    """The settings that a resumed run must share."""
    settings = to_dict(config)
    del settings["plugins"]
    settings["run"] = {key: settings["run"][key] for key in _DECISIVE}
    return settings
