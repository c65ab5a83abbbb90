"""gmsa: multimodal sentiment analysis on graphs.

Importing the package alone is cheap: the rooms below it load torch when they are first used.
"""

from __future__ import annotations

import os
import sys


def _is_command() -> bool:
    """Whether this is ``python -m gmsa.train`` or the like, which imports this package before anything else of gmsa."""
    name = sys.orig_argv[-len(sys.argv)] if sys.argv[:1] == ["-m"] else ""
    return name.removeprefix("-m").partition(".")[0] == "gmsa"


def _leave_working_directory() -> None:
    """Keeps ``python -m gmsa.predict`` in a stranger's run folder from importing the ``yaml.py`` in it.

    ``-m`` puts the working directory first on the path.
    """
    if getattr(sys.flags, "safe_path", False):
        return
    try:
        here = os.getcwd()
    except OSError:  # it was deleted, and is not on the path
        return
    if sys.path[0] == here != os.path.dirname(os.path.dirname(__file__)):  # gmsa itself may be here: in a checkout
        del sys.path[0]


def _end_at_ctrl_c() -> None:
    """Lets Ctrl-C end a command without a traceback until it handles it itself."""
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if _is_command():
    _leave_working_directory()
    _end_at_ctrl_c()

import importlib  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:  # for editors and type checkers; at run time __getattr__ imports each name when it is first used
    from gmsa.api import compare, fit, load, search
    from gmsa.config import Config, load_config
    from gmsa.data import Corpus, Utterance, load_corpus
    from gmsa.graph import GraphBatch, collate
    from gmsa.models import build_model, graph_spec
    from gmsa.registry import CALLBACKS, EDGE_BUILDERS, ENCODERS, IMPORTERS, LAYERS, METRICS, MODELS, PROTOCOLS
    from gmsa.runs import Run
    from gmsa.runs.exporting import ProgramInputs

__version__ = "0.1.0"

_HOMES = {
    "fit": "gmsa.api",
    "Run": "gmsa.runs",
    "load": "gmsa.api",
    "ProgramInputs": "gmsa.runs.exporting",
    "search": "gmsa.api",
    "compare": "gmsa.api",
    "Config": "gmsa.config",
    "load_config": "gmsa.config",
    "Corpus": "gmsa.data",
    "Utterance": "gmsa.data",
    "load_corpus": "gmsa.data",
    "GraphBatch": "gmsa.graph",
    "collate": "gmsa.graph",
    "build_model": "gmsa.models",
    "graph_spec": "gmsa.models",
    "MODELS": "gmsa.registry",
    "LAYERS": "gmsa.registry",
    "ENCODERS": "gmsa.registry",
    "EDGE_BUILDERS": "gmsa.registry",
    "PROTOCOLS": "gmsa.registry",
    "METRICS": "gmsa.registry",
    "IMPORTERS": "gmsa.registry",
    "CALLBACKS": "gmsa.registry",
}

__all__ = [  # noqa: RUF022 (what people use first comes first)
    "fit",
    "Run",
    "load",
    "search",
    "compare",
    "ProgramInputs",
    "Config",
    "load_config",
    "Corpus",
    "Utterance",
    "load_corpus",
    "GraphBatch",
    "collate",
    "build_model",
    "graph_spec",
    "MODELS",
    "LAYERS",
    "ENCODERS",
    "EDGE_BUILDERS",
    "PROTOCOLS",
    "METRICS",
    "IMPORTERS",
    "CALLBACKS",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gmsa' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
