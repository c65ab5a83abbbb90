"""The configs, search spaces and ablations that come with gmsa, by name; files of the user come first."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from gmsa.errors import ConfigError, cut, nearest
from gmsa.system.reading import exists, expanded, is_folder

Kind = Literal["configs", "spaces", "ablations", "extract"]

_FOLDERS: dict[Kind, str] = {
    "configs": "configs",
    "spaces": "configs/spaces",
    "ablations": "configs/ablations",
    "extract": "configs/extract",
}
_WORDS: dict[Kind, str] = {
    "configs": "config file",
    "spaces": "search space",
    "ablations": "settings file",
    "extract": "extraction file",
}
_ROOM = Path(__file__).resolve().parents[1]


def packaged(kind: Kind) -> dict[str, Path]:
    """The files of a kind that come with gmsa, by name."""
    # A wheel has the folder inside the package, a checkout beside it.
    room = _ROOM if (_ROOM / "configs").is_dir() else _ROOM.parent
    return {path.stem: path for path in sorted((room / _FOLDERS[kind]).glob("*.yaml"))}


def find(name_or_path: str | Path, kind: Kind) -> Path:
    """The file at a path, in which ``~`` and ``$VARS`` are expanded, or else the packaged one of that name.

    A packaged file is also found as ``NAME.yaml`` and by its path in a checkout, such as ``configs/NAME.yaml``.

    Raises:
        ConfigError: there is neither; it names the nearest known one and lists all.
    """
    path = Path(name_or_path)
    if _is_there(path):
        return path
    if _is_there(whole := expanded(path, ConfigError)):
        return whole
    known = packaged(kind)
    folder, name = path.parent.as_posix(), path.name.removesuffix(".yaml")
    if folder in (".", _FOLDERS[kind]) and name in known:
        return known[name]
    raise ConfigError(
        f"{_WORDS[kind]} '{cut(name_or_path)}' does not exist{nearest(name, known)}; "
        f"give a file, or one that comes with gmsa: {', '.join(known)}"
    )


def _is_there(file: Path) -> bool:
    return exists(file, ConfigError) and not is_folder(file, ConfigError)
