"""Registries of exchangeable parts: models, layers, edge builders, encoders, protocols, metrics, importers, callbacks.

Settings choose a part by its name. Built-in parts are listed here and imported when they are first used, so that
reading a config loads no torch. A plug-in is a module that registers further parts:

.. code-block:: python

    from gmsa.registry import EDGE_BUILDERS

    @EDGE_BUILDERS.register("neighbours")
    def neighbours(source_length: int, target_length: int, reach: int = 1) -> Tensor: ...

and a setting then names it, with parameters from its signature: ``graph.intra: neighbours(reach=2)``.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import threading
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Generic, TypeVar

from gmsa.errors import ConfigError, cut, listed, nearest, shown

T = TypeVar("T")
P = TypeVar("P")

ENTRY_POINTS = "gmsa.plugins"
"""Group of the entry points of installed packages; the value of each is a module that registers parts."""


class Registry(Generic[T]):
    """A mapping from names to parts of one kind.

    Args:
        kind (str): what the parts are, for errors: ``model``, ``edge builder``.
        builtin (Mapping[str, str]): location of each built-in part, ``"module:object"``.
        passed (Iterable[str]): arguments that gmsa passes; all others are parameters for users to set. Default: none.
        filled (Iterable[str]): parameters for users to set that gmsa passes where they do not. Default: none.
    """

    def __init__(
        self, kind: str, builtin: Mapping[str, str], passed: Iterable[str] = (), filled: Iterable[str] = ()
    ) -> None:
        self.kind = kind
        self.passed, self.filled = frozenset(passed), frozenset(filled)
        self._parts: dict[str, Any] = dict(builtin)

    def register(self, name: Any = None, part: Any = None) -> Any:
        """Adds a part under a name, by default its ``__name__``; without ``part``, returns a decorator.

        Registering a part again, as reloading its module does, replaces it.

        Raises:
            ConfigError: another part has that name, or no setting could name it.
        """

        def add(part: P) -> P:
            own = name or typing.cast(str, getattr(part, "__name__", ""))
            if not re.fullmatch(r"[^\s()\[\]{},=:'\"]+", own):
                raise ConfigError(f"the {self.kind} {shown(part)} needs a name without spaces, commas and brackets")
            before = self._parts.get(own)
            if before is not None and _place_of(before) != _place_of(part):
                raise ConfigError(f"the {self.kind} '{cut(own)}' is {_place_of(before)} already; choose another name")
            self._parts[own] = part
            return part

        if name is not None and not isinstance(name, str):
            name, part = None, name
        return add if part is None else add(part)

    def __contains__(self, name: object) -> bool:
        if name not in self._parts:
            load_entry_points()
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        load_entry_points()
        return iter(self._parts)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __getitem__(self, name: str) -> T:
        """Returns the part of that name; imports a built-in one first.

        Raises:
            ConfigError: the name is unknown, or the part needs a package that is not installed.
        """
        self.check(name, self.kind)
        part = self._parts[name]
        if isinstance(part, str):
            module, _, path = part.partition(":")
            try:
                part = self._parts[name] = getattr(importlib.import_module(module), path)
            except ModuleNotFoundError as error:
                if (error.name or "gmsa").partition(".")[0] == "gmsa":
                    raise
                raise ConfigError(f"the {self.kind} '{name}' needs the package '{error.name}'; install it") from None
        return typing.cast(T, part)

    def check(self, name: str, key: str) -> None:
        """Checks that a name is known.

        Args:
            key: dotted key of the setting, for the error.

        Raises:
            ConfigError: the name is unknown; names the nearest one and lists all.
        """
        if name not in self:
            failed = f"; {next(iter(_failed.values()))}" if _failed else ""
            own = "; if it is your own, register it in a module and name it in 'plugins'"
            hint = nearest(name, self) or own
            raise ConfigError(f"'{key}' must be one of {listed(self)} (got '{cut(name)}'){hint}{failed}")

    def parameters(self, name: str) -> dict[str, inspect.Parameter]:
        """Parameters of a part that users may set, in the order of its signature; see :func:`parameters_of`."""
        known = parameters_of(typing.cast("Callable[..., Any]", self[name]))
        fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return {n: p for n, p in known.items() if n not in self.passed and p.kind not in fixed}

    def check_given(self, name: str, given: Iterable[str], key: str) -> None:
        """Refuses a part of which a parameter without a default is not given.

        Of those that a class passes on by ``**`` it may give some itself.

        Args:
            key: the setting that names the part, for the error.

        Raises:
            ConfigError: names the parameter.
        """
        own = _signature(typing.cast("Callable[..., Any]", self[name]))
        for parameter, known in self.parameters(name).items():
            needed = parameter in own and known.default is known.empty
            if needed and parameter not in given and parameter not in self.filled:
                raise ConfigError(f"'{key}': '{name}' needs '{parameter}', as {name}({parameter}=...)")

    def describe(self, name: str) -> str:
        """The first sentence of a part's docstring."""
        paragraph = " ".join((inspect.getdoc(self[name]) or "").split("\n\n")[0].split())
        return re.split(r"(?<=\.) (?=[A-Z])", paragraph)[0]

    def module_of(self, name: str) -> str:
        """The module that defines a part."""
        return _place_of(self._parts[name]).partition(":")[0]


def parameters_of(part: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a part, with those that the constructor of a class passes on by ``**`` to that of a class
    above. The ``**`` itself is among them where the last of these constructors has one: then any keyword may be taken.

    >>> class Base:
    ...     def __init__(self, size: int, depth: int = 1) -> None: ...
    >>> class Own(Base):
    ...     def __init__(self, scale: float, **kw) -> None:
    ...         super().__init__(**kw)
    >>> [*parameters_of(Own)]
    ['scale', 'size', 'depth']
    """
    found = dict(_signature(part))
    if not isinstance(part, type):
        return found
    by_keyword = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    above = [cls for cls in part.__mro__ if "__init__" in vars(cls)][1:]
    while above and (rest := [n for n, p in found.items() if p.kind is inspect.Parameter.VAR_KEYWORD]):
        del found[rest[0]]
        _, *passed_on = _signature(vars(above.pop(0))["__init__"]).items()
        for name, parameter in passed_on:
            if parameter.kind in by_keyword or parameter.kind is inspect.Parameter.VAR_KEYWORD:
                found.setdefault(name, parameter)
    return found


def _signature(part: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    # An object that can be called may have no hash.
    return (_kept_signature if isinstance(part, (type, FunctionType)) else _read_signature)(part)


def _read_signature(part: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(part, eval_str=True).parameters
    except NameError:  # an annotation that exists for type checkers alone
        return inspect.signature(part).parameters


_kept_signature = lru_cache(maxsize=512)(_read_signature)
"""A signature takes 0.2 ms to read, and a run asks for each a hundred times."""


def _place_of(part: Any) -> str:
    if isinstance(part, str):
        return part
    module = getattr(part, "__module__", "?")
    if module == "__main__":  # a script that is its own plug-in is imported by its name too: these are the same parts
        main = sys.modules[module]
        spec = getattr(main, "__spec__", None)
        module = spec.name if spec is not None else _name_of_script(main)
    return f"{module}:{getattr(part, '__qualname__', repr(part))}"


def _name_of_script(main: ModuleType) -> str:
    """The name by which a script is imported; ``__main__`` where another module has that name."""
    file = getattr(main, "__file__", None) or ""
    name = Path(file).stem
    other = getattr(sys.modules.get(name, main), "__file__", None) or ""
    return name if name.isidentifier() and os.path.realpath(file) == os.path.realpath(other) else "__main__"


# --- plug-ins --------------------------------------------------------------------------------------------------------

_loaded: dict[str, str] = {}
"""Imported plug-ins: the display name of each module."""
_failed: dict[str, str] = {}
"""Plug-ins of installed packages that cannot be imported: the reason for each module."""
_entry_points_asked = False
_lock = threading.RLock()
"""Held during imports, so that other threads wait for the names that a plug-in registers."""


def load_plugins(modules: Iterable[str], folder: Path | None = None) -> None:
    """Imports modules that register parts, each once.

    Importing runs a module, so pass only modules that the user named.

    Args:
        modules: their names, or one name.
        folder: further folder to search, after all others.

    Raises:
        ConfigError: a module cannot be imported.
    """
    with _lock:
        for module in [modules] if isinstance(modules, str) else modules:
            if module in _loaded:
                continue
            if not all(module.split(".")) or {"/", "\\"} & {*module}:
                raise ConfigError(
                    f"plug-in {shown(module)} is no name of a module, such as mine or mine.parts; correct it"
                )
            added = ""
            with suppress(OSError):  # the working directory may be gone
                added = str(folder.resolve()) if folder is not None else ""
            if added and added not in sys.path:
                sys.path.append(added)  # last, so that it hides no module; it stays, for worker processes
            _import(module, module)


def load_entry_points() -> None:
    """Imports the plug-ins of installed packages, once.

    A plug-in that cannot be imported is no error here; the error about an unknown name mentions it.
    """
    global _entry_points_asked
    with _lock:
        if _entry_points_asked:
            return
        _entry_points_asked = True
        for point in entry_points(group=ENTRY_POINTS):
            if point.module not in _loaded:
                package = point.dist.name if point.dist is not None else "?"
                try:
                    _import(point.module, f"{point.name} of the installed package {package}")
                except ConfigError as error:
                    _failed[point.module] = str(error)


def loaded_plugins() -> tuple[str, ...]:
    """Names of the imported plug-in modules, in order of import."""
    return tuple(_loaded)


def plugins_with(places: Iterable[str]) -> list[str]:
    """Those of the imported plug-in modules that are of the same packages as some modules."""
    packages = {place.partition(".")[0] for place in places}
    return [module for module in _loaded if module.partition(".")[0] in packages]


def _import(module: str, name: str) -> None:
    try:
        importlib.import_module(module)
    except ConfigError as error:
        raise ConfigError(f"plug-in '{cut(name)}': {error}") from None
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and (module == missing or module.startswith(f"{missing}.")):
            path = "; give the module's name, without .py" if module.endswith(".py") else ""
            raise ConfigError(
                f"plug-in '{cut(name)}' is not there{path}; install it, or put it on PYTHONPATH, beside the config, or "
                "with --plugin into the working directory"
            ) from None
        if missing is not None:
            raise ConfigError(f"plug-in '{cut(name)}' needs the module '{cut(missing)}'; install it") from None
        reason = f"{type(error).__name__}: {cut(error)}"
        raise ConfigError(f"plug-in '{cut(name)}' failed while it was imported ({reason}); repair it") from error
    _loaded[module] = name
    _failed.pop(module, None)


# --- the registries --------------------------------------------------------------------------------------------------

MODELS: Registry[Any] = Registry(
    "model",
    {
        "semi_iin": "gmsa.models.semi_iin:SemiIIN",
        "sslmm": "gmsa.models.sslmm:SSLMM",
        "late_fusion": "gmsa.models.late_fusion:LateFusion",
        "global": "gmsa.models.global_transformer:GlobalTransformer",
        "hgt": "gmsa.models.hgt:HGT",
        "dialogue_gcn": "gmsa.models.dialogue_gcn:DialogueGCN",
        "cogmen": "gmsa.models.cogmen:COGMEN",
        "gcnet": "gmsa.models.gcnet:GCNet",
        "mmgcn": "gmsa.models.mmgcn:MMGCN",
        "mtag": "gmsa.models.mtag:MTAG",
    },
    passed=(
        *("dims", "convs", "scope", "context", "typed_edges", "relations", "layer", "encoder", "channels", "heads"),
        "layers",
        *("shared_layers", "context_layers", "propagation", "sequence", "streams", "fusion", "order", "missing_node"),
        *("dropout", "input_dropout", "modality_dropout", "positions", "route", "encoders", "text_encoder"),
        *("num_classes", "intensity"),
    ),
)
"""Classes derived from :class:`gmsa.models.Model`; gmsa passes the settings of ``config.model`` that they name."""

LAYERS: Registry[Any] = Registry(
    "layer",
    {
        "attention": "gmsa.nn.layers.attention:Interaction",
        "transformer": "gmsa.nn.layers.transformer:Transformer",
        "gatv2": "gmsa.nn.layers.gatv2:GATv2",
        "rgcn": "gmsa.nn.layers.rgcn:RGCN",
        "rgat": "gmsa.nn.layers.rgat:RGAT",
        "hgt": "gmsa.nn.layers.hgt:HGTLayer",
        "sage": "gmsa.nn.layers.sage:SAGE",
        "gine": "gmsa.nn.layers.gine:GINE",
        "film": "gmsa.nn.layers.film:FiLM",
        "gcn2": "gmsa.nn.layers.gcn2:GCN2",
        "gps": "gmsa.nn.layers.gps:GPS",
        "mtag": "gmsa.nn.layers.mtag:MTAGLayer",
    },
    passed=("channels", "edge_types", "relations", "number"),
    filled=("heads",),
)
"""Layers of message passing: modules built with those that they name, or pass on by ``**`` to a class above that names
them, of ``channels``, ``heads`` (which a setting may give), ``edge_types``, ``relations`` (:class:`gmsa.nn.Relations`
of the stream) and ``number`` (of the layer in its stack), and called as ``layer(x [V, C], edges, receivers=None,
source_log_weight=None) -> [W, C]``. One that takes lists of edges alone has ``route = "edge"``, one that takes
adjacencies alone ``route = "dense"``. One that weighs edges by their ``log_weight`` has ``takes_weights = True``; one
that looks at ``edges.relation``, ``node_type`` or ``graph`` ``takes_relations = True``; one that must see all nodes'
edges ``takes_receivers = False``; one that also takes ``initial``, the states before the first layer of the stack,
``takes_initial = True``; and one that hears nodes without an edge from them ``sees_graph = True``. One whose
attention is to be read has a method ``attention_weights``, called as the layer is, which returns a
:class:`gmsa.nn.AttentionWeights`."""

ENCODERS: Registry[Any] = Registry(
    "encoder", {"conv": "gmsa.nn.encoders:ConvEncoder"}, passed=("dim", "channels", "convs", "dropout")
)
"""Encoders of a modality's steps to tokens: modules built with ``dim``, ``channels``, ``convs`` and ``dropout``, and
called as ``encoder(steps [S, D], conv_windows) -> [M, C]``."""

EDGE_BUILDERS: Registry[Callable[..., Any]] = Registry(
    "edge builder",
    {
        name: f"gmsa.graph.edges:{name}"
        for name in ("complete", "window", "time_window", "dilated", "knn", "aligned", "temporal", "mtag")
    },
    passed=("source_length", "target_length", "source", "target", "source_times", "target_times", "relation"),
)
"""Functions ``(source_length, target_length, parameters) -> edge_index [2, E]``; one that names its first two arguments
``source`` and ``target`` gets the features instead, ``source_times`` and ``target_times`` the times of the steps, and
one that names ``relation`` also (source type, stream, target type)."""

CONTEXT_BUILDERS: Registry[Callable[..., Any]] = Registry(
    "context builder",
    {name: f"gmsa.graph.context:{name}" for name in ("window", "speaker", "knn", "learned")},
    passed=("index", "speakers", "features"),
)
"""Functions ``(index, parameters) -> kept`` that choose from the edges between utterances of a dialogue within reach:
``index`` are these edges ``[2, E]``, ``kept`` says of each whether it stays ``[E]``. One that names them gets
``speakers``, the number of each utterance's speaker ``[n]``, and ``features``, their mean features ``[n, D]``."""

PROTOCOLS: Registry[Any] = Registry(
    "protocol",
    {
        "supervised": "gmsa.training.protocols:Supervised",
        "self_training": "gmsa.training.protocols:SelfTraining",
        "distillation": "gmsa.training.protocols:Distillation",
        "soup": "gmsa.training.protocols:Soup",
        "sslmm": "gmsa.training.protocols:Consistency",
        "pretrain": "gmsa.training.protocols:Pretrain",
    },
)
"""Classes derived from :class:`gmsa.training.protocols.Protocol`."""

METRICS: Registry[Callable[..., Any]] = Registry(
    "metric",
    {"RMSE": "gmsa.metrics:rmse", "CCC": "gmsa.metrics:ccc"},
    passed=("prediction", "truth"),
)
"""Functions ``(prediction [N], truth [N]) -> float``, marked by :func:`gmsa.metrics.metric`, beside those of the label
scale."""

IMPORTERS: Registry[Callable[..., Any]] = Registry(
    "importer",
    {
        "mmsa": "gmsa.data.importers.mmsa:import_mmsa",
        "semi_iin": "gmsa.data.importers.semi_iin:import_semi_iin",
        "manifest": "gmsa.data.importers.manifest:import_manifest",
        "csd": "gmsa.data.importers.csd:import_csd",
        "datasets": "gmsa.data.importers.datasets:import_datasets",
        "mds": "gmsa.data.importers.mds:import_mds",
    },
    passed=("path", "target", "splits"),
)
"""Functions ``(path, target, splits) -> Source``; see :mod:`gmsa.data.importers`."""

CALLBACKS: Registry[Any] = Registry(
    "callback",
    {
        "tensorboard": "gmsa.training.callbacks.tensorboard:TensorBoard",
        "wandb": "gmsa.training.callbacks.wandb:WeightsAndBiases",
        "mlflow": "gmsa.training.callbacks.mlflow:MLflow",
    },
)
"""Classes derived from :class:`gmsa.training.callbacks.Callback`."""

REGISTRIES: dict[str, Registry[Any]] = {
    "models": MODELS,
    "layers": LAYERS,
    "edge_builders": EDGE_BUILDERS,
    "context_builders": CONTEXT_BUILDERS,
    "encoders": ENCODERS,
    "protocols": PROTOCOLS,
    "metrics": METRICS,
    "importers": IMPORTERS,
    "callbacks": CALLBACKS,
}
"""All registries by the plural of their kind."""

EXTRACTORS: Registry[Any] = Registry(
    "extractor",
    {
        "minilm": "gmsa.media.extractors.text:MiniLM",
        "hf_text": "gmsa.media.extractors.text:HFText",
        "prosody": "gmsa.media.extractors.prosody:Prosody",
        "whisper": "gmsa.media.extractors.whisper:WhisperStates",
        "hf_audio": "gmsa.media.extractors.hf_audio:HFAudio",
        "opensmile": "gmsa.media.extractors.opensmile:OpenSmile",
        "face": "gmsa.media.extractors.face:FaceLandmarks",
        "hf_vision": "gmsa.media.extractors.hf_vision:HFVision",
    },
)
"""Extractors of features from raw media: classes whose instances are :class:`gmsa.media.protocol.Extractor`."""
