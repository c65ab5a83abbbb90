"""No code but the presets, the importers, the extraction and the made-up corpus names a modality other than text."""

from __future__ import annotations

import ast
from pathlib import Path

import gmsa
from gmsa.config.presets import MODALITIES, TEXT

PACKAGE = Path(gmsa.__file__).parent
ALLOWED = ("config/presets.py", "data/importers/", "data/mmsa/layouts.py", "data/synthetic.py", "media/", "runs/video/")
"""Files, and folders, that may."""


def names_in(source: str) -> list[int]:
    """Lines of the string constants that are the name of such a modality, docstrings apart."""
    names = set(MODALITIES) - {TEXT}
    found = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return sorted(node.lineno for node in found if isinstance(node.value, str) and node.value in names)


def test_a_name_is_found_wherever_it_stands() -> None:
    source = (
        '"""Of "audio"."""\nx = {"audio": 1}\nif m == "vision":  # "vision"\n    f(audio="text", b=f"{x[\'audio\']}")\n'
    )
    assert names_in(source) == [2, 3, 4]


def test_no_code_names_a_modality() -> None:
    files = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
    assert len(files) > 100
    found = {
        f"{name}:{line}"
        for name, path in files.items()
        if not name.startswith(ALLOWED)
        for line in names_in(path.read_text(encoding="utf-8"))
    }
    assert not found
