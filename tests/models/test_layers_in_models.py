"""Every layer in the streams of the models that take layers, in every scope, on batches with holes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.graphs import clip, collate
from torch.utils._python_dispatch import TorchDispatchMode

from gmsa.ablation.variants import read_variants
from gmsa.config import Config, from_dict
from gmsa.data import Utterance
from gmsa.data.notes import collected
from gmsa.errors import ConfigError
from gmsa.graph import GraphBatch
from gmsa.models import Conversation, Model, SemiIIN, build_model, check, graph_spec
from gmsa.models.build import _NoInitialValues, model_skeleton, unused_settings
from gmsa.models.reach import reach
from gmsa.nn.layers.gatv2 import GATv2
from gmsa.registry import LAYERS
from gmsa.registry import MODELS as ALL_MODELS
from gmsa.runs.train import note_unused

DIMS = {"text": 4, "audio": 2, "vision": 3}
LENGTHS = [(3, 5, 2), (2, 0, 3), (1, 0, 0), (4, 6, 0), (0, 0, 0), (1, 1, 1)]
"""Ragged: with modalities missing, one utterance of a single token, and one of none."""
GRAPHS: dict[str, dict[str, Any]] = {
    "utterance": {},
    "utterance, typed": {"intra": "temporal", "inter": "temporal"},
    "dialogue": {"scope": "dialogue", "past": 2, "future": 1, "speakers": "same_other"},
    "hierarchical": {"scope": "hierarchical", "context": 1, "dialogue_node": True, "intra": "window(radius=1)"},
}
MODELS = ("semi_iin", "sslmm")


def config_of(layer: Any, model: str = "semi_iin", graph: dict[str, Any] | None = None, **settings: Any) -> Config:
    sizes = {
        "channels": 8,
        "heads": 2,
        "layers": 2,
        "context_layers": 2,
        "encoders": {"audio": [[3, 2]], "others": [[3, 1]]},
    }
    return from_dict({"model": sizes | {"name": model, "layer": layer} | settings, "graph": graph or {}})


def model_of(config: Config) -> Model:
    torch.manual_seed(0)
    model = build_model(DIMS, config).double()
    with torch.no_grad():
        for parameter in model.parameters():  # some start as zeros, behind which no gradient passes
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def clips() -> list[Utterance]:
    """Of two dialogues, in which each speaker follows each."""
    return [
        clip(f"{'ab'[i > 3]}$_${i}", DIMS, lengths, label=float(i % 3), speaker="xxyyxy"[i])
        for i, lengths in enumerate(LENGTHS)
    ]


def batch_of(utterances: list[Utterance], config: Config) -> GraphBatch:
    batch = collate(utterances, config)
    return replace(batch, features={m: x.double() for m, x in batch.features.items()})


@pytest.mark.parametrize(
    ("layer", "model", "graph"),
    [
        pytest.param(layer, model, graph, marks=[pytest.mark.slow] * ((i + j + k) % 2))
        for i, layer in enumerate(sorted(LAYERS))
        for j, model in enumerate(MODELS)
        for k, graph in enumerate(GRAPHS)
    ],
)
def test_values_and_gradients_are_finite_and_reach_every_parameter(layer: str, model: str, graph: str) -> None:
    """By design no gradient reaches what a batch has no edges for: weights of a relation that no edge has, and in the
    last layer of semi_iin those of relations that do not end at a readout node. Here are two layers on each level, and
    all relations.
    """
    config = config_of(layer, model, GRAPHS[graph])
    check(config)
    built = model_of(config).train()
    torch.manual_seed(1)
    output = built(batch_of(clips(), config))
    loss = torch.stack([x.square().sum() for x in (output.value, output.logits, *(output.alone or ()))]).sum()
    assert torch.isfinite(loss)
    loss.backward()
    for key, parameter in built.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("model", ["semi_iin", pytest.param("sslmm", marks=pytest.mark.slow)])
@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_an_utterance_alone_is_one_of_a_batch(layer: str, model: str) -> None:
    config = config_of(layer, model, GRAPHS["utterance, typed"])
    built, utterances = model_of(config), clips()
    with torch.no_grad():
        together = built(batch_of(utterances, config))
        for i, utterance in enumerate(utterances):
            alone = built(batch_of([utterance], config))
            torch.testing.assert_close(together.value[i], alone.value[0], rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(together.logits[i], alone.logits[0], rtol=1e-10, atol=1e-10)


def test_each_stream_has_its_layer() -> None:
    config = config_of({"intra": "gatv2(heads=4)", "inter": "rgcn(bases=3)"}, shared_layers=False)
    check(config)
    streams = model_of(config).streams
    assert [type(layer.attention).__name__ for s in streams.values() for layer in s.layers] == ["GATv2"] * 2 + [
        "RGCN"
    ] * 2
    assert streams["intra"].layers[1].attention.conv.heads == 4
    assert len(streams["inter"].layers[0].attention.conv.weight) == 3


def test_a_deep_stack_knows_the_numbers_of_its_layers() -> None:
    layers = model_of(config_of("gcn2(theta=1)", layers=3, shared_layers=False)).streams["intra"].layers
    betas = [layer.attention.conv.beta for layer in layers]
    assert betas == pytest.approx([0.693147, 0.405465, 0.287682], abs=1e-6)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("gatv2(heads=3)", r"'model.channels' must be divisible by the 'heads' of 'model.layer' \(got 16 and 3\)"),
        ("hgt(heads=0)", r"'model.channels' must be divisible by the 'heads' of 'model.layer' \(got 16 and 0\)"),
        ("rgcn(bases=-1)", r"'model.layer: rgcn': 'bases' must be 0 \(a matrix for each relation\) or more \(got -1\)"),
        ({"inter": "rgat(bases=-2)"}, r"'model.layer: rgat': 'bases' must be 0 .* \(got -2\)"),
        ("rgat(attention=between)", r"'model.layer: attention' must be .*across.*within"),
        ("sage(aggr=median)", r"'model.layer: aggr' must be .*mean"),
        ("gcn2(alpha=2)", r"'model.layer: gcn2': 'alpha' must be from 0 to 1, and 'theta' above 0 .*\(got 2 and 0.5\)"),
        ("gcn2(theta=0)", r"'model.layer: gcn2': 'alpha' must be from 0 to 1, and 'theta' above 0 .*\(got 0.1 and 0\)"),
        ("gps(local=gcn2)", r"'model.layer: gps': 'local' must be a layer of messages along edges .* \(got gcn2\)"),
        ("gps(local=sago)", r"'model.layer: local' must be one of .* \(got 'sago'\) \(did you mean 'sage'"),
        ({"intr": "rgcn"}, r"'model.layer' has no stream 'intr'.*'?intra"),
        ("gatv3", r"'model.layer' must be one of .*gatv2"),
        ("rgcn(relations=3)", r"'model.layer': 'rgcn' has no parameter 'relations' \(it has: bases, fast\)"),
    ],
)
def test_settings_that_no_layer_takes_are_refused_before_any_work(layer: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check(config_of(layer, channels=16))
    assert len(str(caught.value)) <= 400
    assert "\n" not in str(caught.value)


def test_layers_are_varied_for_all_streams_or_for_each() -> None:
    found = read_variants("synthetic", (), ["model.layer=attention,gatv2(heads=4),rgcn(bases=4)"], None)
    assert [v.value("model.layer") for v in found] == ["attention", "gatv2(heads=4)", "rgcn(bases=4)"]
    axes = ["model.layer.intra=attention,rgcn", "model.layer.inter=attention,sage"]
    found = read_variants("synthetic", (), axes, None)
    layers = [v.config.model.layer for v in found]
    expected = [("attention", "attention"), ("attention", "sage"), ("rgcn", "attention"), ("rgcn", "sage")]
    assert [(x.of("intra"), x.of("inter")) for x in layers] == expected
    with pytest.raises(ConfigError, match=r"setting 'model.layer=rgcn\(bases=-1\)': .*'bases' must be 0"):
        read_variants("synthetic", (), ["model.layer=attention,rgcn(bases=-1)"], None)


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_weights_of_edges_need_a_layer_that_takes_them(layer: str, scope: str) -> None:
    config = config_of(layer, graph={"scope": scope, "weights": "angular"})
    if layer in ("attention", "gcn2", "mtag"):
        check(config)
        plain = replace(config, graph=replace(config.graph, weights="none"))
        batch = batch_of(clips(), config)
        assert not torch.equal(model_of(config)(batch).value, model_of(plain)(batch).value)
    else:
        with pytest.raises(
            ConfigError, match=f"'model.layer: {layer}' takes no weights of edges, which 'graph.weights"
        ):
            check(config)


def test_a_layer_that_sees_whole_graphs_knows_no_limits_of_context() -> None:
    """In a causal graph it would hear what comes later."""
    limited = {"scope": "hierarchical", "past": 2, "future": 1}
    assert reach(config_of("gps", graph=limited)) == reach(config_of("gps", graph=limited | {"context": "all"}))
    assert reach(config_of("sage", graph=limited)) != reach(config_of("gps", graph=limited))
    for scope in ("dialogue", "hierarchical"):
        with pytest.raises(ConfigError, match=r"'graph.future' is 0, but a layer of 'model.layer' attends to all"):
            check(config_of({"inter": "gps"}, graph={"scope": scope, "future": 0}))
    check(config_of("gps", graph={"future": 0}))  # graphs of utterances have no future
    check(config_of("gatv2", graph={"scope": "dialogue", "future": 0}))


def test_layers_with_relations_want_to_know_them() -> None:
    with pytest.raises(ConfigError, match=r"a layer RGCN needs the relations of its stream: build the model with"):
        SemiIIN(DIMS, channels=8, heads=2, layer="rgcn")
    assert graph_spec(config_of({"intra": "sage", "inter": "film"})).relations
    assert not graph_spec(config_of("sage")).relations


@pytest.mark.parametrize("scope", ["dialogue", "hierarchical"])
@pytest.mark.parametrize("name", ["semi_iin", "sslmm"])
def test_a_layer_that_counts_degrees_reaches_one_edge_farther(name: str, scope: str) -> None:
    graph = {"scope": scope, "past": 1, "future": 0, "dialogue_node": False}
    far, near = (reach(config_of(layer, name, graph)) for layer in ("gcn2", "sage"))
    assert far == (near[0] + 1, 0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"layer": "gps(dropout=2)"}, "'dropout' must be at least 0 and below 1"),
        ({"layer": f"rgcn(bases={2**62})"}, r"the model cannot be made \(RuntimeError: .*overflow"),
        ({"name": f"cogmen(graph_heads={2**62})"}, r"the model cannot be made \(\w+: "),
        ({"name": "cogmen(feedforward=100000000000)"}, "the weights of the model need .* GB"),
        ({"name": "cogmen", "layer": {"intra": "gatv2"}}, "'model.layer.intra' is of no stream of 'cogmen'"),
        ({"name": "cogmen", "layer": "gatv2"}, "'model.layer' is that of the tokens, which 'graph.scope: dialogue' of"),
    ],
)
def test_what_cannot_be_made_is_refused_before_it_is_given_memory(
    model: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = from_dict({"model": model, "graph": {"scope": "dialogue"}})
    made: list[torch.device] = []
    kept = torch.nn.Linear.__init__

    def counting(self: torch.nn.Linear, *sizes: int, **more: object) -> None:
        kept(self, *sizes, **more)
        made.append(self.weight.device)

    monkeypatch.setattr(torch.nn.Linear, "__init__", counting)

    def prepare() -> None:
        check(config)
        model_skeleton({"text": 4}, config)

    with pytest.raises(ConfigError, match=message):
        prepare()
    assert {device.type for device in made} <= {"meta"}


class Passing(GATv2):
    """A plug-in's layer that names none of what it is given."""

    def __init__(self, *args: Any, scale: float = 1.0, **more: Any) -> None:
        super().__init__(*args, **more)
        self.scale = scale


class Holding(torch.nn.Module):
    """One that holds gmsa's layer, of which no signature tells what it takes."""

    def __init__(self, **more: Any) -> None:
        super().__init__()
        self.layer = GATv2(**more)


def test_a_layer_that_passes_its_arguments_on_is_given_what_the_one_above_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LAYERS, "_parts", LAYERS._parts | {"passing": Passing, "holding": Holding})
    own, plain = config_of("passing(scale=2, slope=0.1)"), config_of("gatv2(slope=0.1)")
    check(own)
    model = model_of(own)
    assert all(part.scale == 2 for part in model.modules() if isinstance(part, Passing))
    assert torch.equal(model(batch_of(clips(), own)).value, model_of(plain)(batch_of(clips(), plain)).value)
    said = r"the layer Holding takes any keyword by '\*\*', but not channels, heads, edge_types \(.*\); let its constr"
    with pytest.raises(ConfigError, match=said):
        model_skeleton(DIMS, config_of("holding"))


def test_a_skeleton_of_thousands_of_relations_fills_no_tensor() -> None:
    """To fill those of a layer with weights for each would take a check most of its time."""
    filled: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            filled.extend(
                [str(func)] * (str(func).split(".")[1] in ("uniform_", "normal_", "fill_", "zero_", "uniform"))
            )
            return func(*args, **(kwargs or {}))

    graph = {"scope": "hierarchical", "distances": 8, "context": "all", "speakers": ["x", "y"]}
    config = config_of({"intra": "film", "inter": "hgt"}, graph=graph)
    with Watch():
        found = model_skeleton(DIMS, config)
    assert not filled
    kept = build_model(DIMS, config).state_dict()
    assert {k: (x.shape, x.dtype) for k, x in found.state_dict().items()} == {
        k: (x.shape, x.dtype) for k, x in kept.items()
    }


@pytest.mark.parametrize("value", ["1000000000", "1e9", "-1", "nan", "x"])
def test_no_parameter_of_a_layer_or_a_model_takes_whatever_it_is_given(value: str) -> None:
    for registry, key in ((LAYERS, "layer"), (ALL_MODELS, "name")):
        for name in registry:
            scope = "dialogue" if issubclass(registry[name], Conversation) else "utterance"
            builder = "mtag" if registry is ALL_MODELS and name == "mtag" else "complete"
            edges = {} if scope == "dialogue" else {"intra": builder, "inter": builder}
            for parameter in registry.parameters(name):
                settings = {key: f"{name}({parameter}={value})", "channels": 16, "heads": 2}

                def prepare(settings: Any = settings, graph: Any = edges | {"scope": scope}) -> None:
                    config = from_dict({"model": settings, "graph": graph})
                    check(config)
                    model_skeleton(DIMS, config)

                with pytest.raises(ConfigError) as caught:
                    prepare()
                assert len(str(caught.value)) <= 400, (name, parameter)
                assert "\n" not in str(caught.value)


def test_a_model_of_more_weights_than_any_use_has_is_refused_while_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is small, so that their bytes alone would not tell."""
    monkeypatch.setattr(_NoInitialValues, "MOST", 1000)
    graph = {"scope": "hierarchical", "distances": 8, "context": "all", "speakers": ["x", "y"]}
    with pytest.raises(ConfigError, match=r"the model has more than 1,000 separate weights; lower 'model.layers'"):
        model_skeleton(DIMS, config_of("film", graph=graph))
    model_skeleton(DIMS, config_of("rgcn", graph=graph))


@pytest.mark.parametrize(
    ("model", "unused"),
    [
        ({}, []),
        ({"order": "simultaneous", "fusion": "add", "layers": 3}, ["model.order"]),
        ({"name": "sslmm", "fusion": "add", "order": "simultaneous"}, ["model.fusion"]),
        (
            {"name": "late_fusion", "heads": 4, "layers": 3, "streams": "intra"},
            ["model.heads", "model.layers", "model.streams"],
        ),
        ({"name": "late_fusion", "heads": 4, "sequence": "transformer"}, []),
        ({"layer": {"global": "rgcn"}}, ["model.layer.global"]),
        ({"layer": {"inter": "rgcn"}, "streams": "intra"}, ["model.layer.inter"]),
        ({"layer": {"global": "rgcn"}, "streams": "global"}, []),
    ],
)
def test_settings_that_the_model_does_not_use_are_told(model: dict[str, Any], unused: list[str]) -> None:
    config = from_dict({"model": model})
    check(config)
    assert unused_settings(config) == unused
    with collected() as notes:
        note_unused(config)
    name = model.get("name", "semi_iin")
    assert notes == [f"'model.name: {name}' does not use {', '.join(unused)}; leave it out"] * bool(unused)
