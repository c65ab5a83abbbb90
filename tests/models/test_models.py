"""Models by perturbation: what may reach what, and that padding reaches nothing."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from helpers.graphs import collate, scope_for
from torch_geometric.utils import scatter

from gmsa.config import Config, ModelConfig, from_dict
from gmsa.config.components import _has_known_type
from gmsa.errors import ConfigError, DataError
from gmsa.graph import GraphBatch
from gmsa.models import MODELS, Output, SemiIIN, build_model, check, graph_spec
from gmsa.registry import ENCODERS, LAYERS

DIMS = {"text": 6, "audio": 4, "vision": 5}
SETTINGS = {"model": {"channels": 16, "heads": 4, "layers": 2}, "graph": {"radius": 1}}
SUBSETS = [(5, 9, 3), (5, 0, 0), (0, 9, 0), (0, 0, 3), (5, 9, 0), (0, 17, 3), (1, 0, 1), (12, 40, 7), (3, 1, 1)]


def config_of(name: str = "semi_iin", graph: dict | None = None, **settings: object) -> Config:
    graphs = SETTINGS["graph"] | scope_for(name) | (graph or {})
    return from_dict({"model": SETTINGS["model"] | settings | {"name": name}, "graph": graphs})


def model_of(name: str = "semi_iin", graph: dict | None = None, **settings: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(DIMS, config_of(name, graph, **settings)).eval()


def batch_of(utterances: list, name: str = "semi_iin", graph: dict | None = None, **settings: object) -> GraphBatch:
    return collate(utterances, config_of(name, graph, **settings))


@pytest.fixture
def utterances(make_utterance) -> list:
    return [make_utterance(f"v$_${i}", lengths) for i, lengths in enumerate(SUBSETS)]


@pytest.mark.parametrize("name", [name for name in sorted(MODELS) if not scope_for(name)])
def test_padding_and_company_never_change_an_output(name: str, utterances: list) -> None:
    model = model_of(name)
    many = utterances * 4
    together = model(batch_of(many[:32], name))
    for i, utterance in enumerate(utterances):
        alone = model(batch_of([utterance], name))
        torch.testing.assert_close(together.value[i], alone.value[0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(together.logits[i], alone.logits[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_order_does_not_matter(name: str, utterances: list) -> None:
    model = model_of(name)
    order = torch.randperm(len(utterances), generator=torch.Generator().manual_seed(1))
    straight = model(batch_of(utterances, name)).value
    shuffled = model(batch_of([utterances[i] for i in order], name)).value
    torch.testing.assert_close(shuffled, straight[order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("lengths", [(4, 0, 0), (0, 0, 3), (0, 0, 0)])
def test_gradients_are_finite_where_modalities_are_missing(name: str, lengths, make_utterance) -> None:
    model = model_of(name).train()
    output = model(batch_of([make_utterance("a$_$1", lengths), make_utterance("b$_$1", lengths)], name))
    (output.value.sum() + output.logits.square().sum()).backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert all(torch.isfinite(g).all() for g in grads)


GRAPHS = [
    {},
    {"intra": "window", "inter": "window"},
    {"intra": "knn(neighbors=2)", "inter": "aligned"},
    {"intra": {"text": "temporal", "audio": "dilated"}, "inter": {"text_to_audio": "window(radius=0)"}},
    {"scope": "dialogue", "context": 1},
]


@pytest.mark.parametrize("streams", ["both", "intra", "inter", "global"])
@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_routes_agree_in_the_whole_model(streams: str, graph: dict, utterances: list) -> None:
    results = []
    for route in ("dense", "edge"):
        batch = batch_of(utterances, graph=graph, streams=streams, route=route)
        batch = replace(batch, features={m: x.double() for m, x in batch.features.items()})
        model = model_of(graph=graph, streams=streams, route=route).double()
        for stream in model.streams.values():  # biases start at zero, which would hide them
            for layer in stream.layers:
                if layer.attention.bias is not None:
                    torch.nn.init.normal_(layer.attention.bias)
        output = model(batch)
        (output.value.sum() + output.logits.square().sum()).backward()
        results.append([output.value, output.logits, *(p.grad for p in model.parameters())])
    for dense, edge in zip(*results, strict=True):
        torch.testing.assert_close(dense, edge, rtol=1e-9, atol=1e-11)


def nodes_moved(model, stream: str, before: GraphBatch, after: GraphBatch) -> torch.Tensor:
    """Which nodes one layer of a stream moves, when a feature has changed: [V]."""
    layer = model.streams[stream].layers[0]
    a, b = (layer(model.embedding(x), x.edges[stream]) for x in (before, after))
    return (a - b).abs().amax(-1) > 1e-7


@pytest.mark.parametrize("changed", ["audio", "text", "vision"])
def test_masks_by_perturbation(changed: str, make_utterance) -> None:
    utterance = make_utterance("a$_$1", (5, 24, 4))
    other = make_utterance("a$_$1", (5, 24, 4))
    features = dict(utterance.features)
    features[changed] = features[changed].clone()
    features[changed][0] += 1.0  # the first step alone; the last tokens of its modality do not see it by convolution
    other = replace(utterance, features=features)
    model, before, after = model_of(), batch_of([utterance]), batch_of([other])
    types = [before.schema.node_types[t] for t in before.node_type.tolist()]
    own = torch.tensor([t == changed for t in types])
    readout = torch.tensor([t in ("val", "cls") for t in types])

    entered = (model.embedding(before) - model.embedding(after)).abs().amax(-1) > 1e-7
    assert entered.any()
    assert not (entered & ~own).any()

    intra = nodes_moved(model, "intra", before, after)
    assert intra[own].all()
    assert intra[readout].all()
    assert not intra[~own & ~readout].any()

    inter = nodes_moved(model, "inter", before, after)
    assert inter[~own].all()
    assert not inter[own & ~entered].any()


def test_readouts_do_not_see_each_other(make_utterance) -> None:
    model, batch = model_of(), batch_of([make_utterance("a$_$1", (3, 9, 2))])
    z = model.embedding(batch)
    changed = z.clone()
    changed[0] += 1.0
    for stream in ("intra", "inter"):
        layer, edges = model.streams[stream].layers[0], batch.edges[stream]
        moved = (layer(z, edges) - layer(changed, edges)).abs().amax(-1) > 1e-7
        assert moved[0]
        assert not moved[1]


def test_gate_is_an_open_interval_and_only_the_gate_has_one(utterances: list) -> None:
    gate = model_of()(batch_of(utterances)).gate
    assert gate.shape == (len(utterances), 2, 16)
    assert ((gate > 0) & (gate < 1)).all()
    for settings in ({"fusion": "add"}, {"fusion": "dot"}, {"fusion": "concat"}, {"streams": "intra"}):
        assert model_of(**settings)(batch_of(utterances, **settings)).gate is None


@pytest.mark.parametrize("streams", ["intra", "inter", "global"])
def test_one_stream_needs_and_gets_only_its_edges(streams: str, utterances: list) -> None:
    batch = batch_of(utterances, streams=streams)
    assert set(batch.edges) == {streams}
    assert torch.isfinite(model_of(streams=streams)(batch).value).all()


def test_dropout_follows_train_and_eval_alone(utterances: list) -> None:
    for name in sorted(MODELS):
        model, batch = model_of(name), batch_of(utterances, name)
        assert torch.equal(model(batch).value, model(batch).value)
        model.train()
        assert not torch.equal(model(batch).value, model(batch).value)


def test_modalities_that_the_data_lacks_need_no_parameters(make_utterance) -> None:
    for name in MODELS:
        config = config_of(name)
        model = build_model({"text": 6}, config).eval()
        utterance = make_utterance("a$_$1", (4, 0, 0))
        utterance = replace(utterance, features={"text": utterance.features["text"]})
        output = model(collate([utterance], config))
        assert isinstance(output, Output)
        assert set(model.embedding.encoders) == {"text"}


def test_parameter_count_of_the_paper() -> None:
    """1.6 M with RoBERTa-large, HuBERT and FAb-Net features (Semi-IIN, Table 1)."""
    model = build_model({"text": 1024, "audio": 1024, "vision": 256}, Config())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(1.6e6, rel=0.1)


def test_too_long_a_sequence_names_modality_and_setting(make_utterance) -> None:
    with pytest.raises(DataError, match=r"text of 'a\$_\$1' has 5 tokens, 'model.positions' allows 4; raise it"):
        batch_of([make_utterance("a$_$1", (5, 1, 1))], positions=4)


@pytest.mark.slow
def test_compiled_model_equals_the_eager_one(utterances: list) -> None:
    model = model_of()
    batches = [batch_of(utterances), batch_of(utterances[:4]), batch_of(utterances[3:])]
    expected = [model(batch) for batch in batches]
    model.compile(dynamic=True)
    for batch, output in zip(batches, expected, strict=True):
        compiled = model(batch)
        torch.testing.assert_close(compiled.value, output.value, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(compiled.logits, output.logits, rtol=1e-4, atol=1e-5)


# --- by keyword and by name -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MODELS))
def test_keywords_build_what_the_config_builds(name: str) -> None:
    convs = {m: Config().model.convs(m) for m in DIMS}
    torch.manual_seed(0)
    by_keyword = MODELS[name](DIMS, channels=16, convs=convs, dropout=0.1)
    torch.manual_seed(0)
    graph = {"scope": "dialogue"} if scope_for(name) else {}
    by_config = build_model(DIMS, from_dict({"model": {"name": name, "channels": 16, "dropout": 0.1}, "graph": graph}))
    assert repr(by_keyword) == repr(by_config)
    for (key, weight), (other, expected) in zip(
        by_keyword.state_dict().items(), by_config.state_dict().items(), strict=True
    ):
        assert key == other
        assert torch.equal(weight, expected)


def test_what_gmsa_passes_to_models_are_its_settings() -> None:
    settings = {f.name for f in fields(ModelConfig)} - {"name", "tokens"}  # which gives encoders
    more = {"dims", "convs", "scope", "context", "typed_edges", "num_classes", "intensity", "relations"}
    assert MODELS.passed == settings | more
    for registry, names in ((MODELS, OWN), (ENCODERS, {})):
        for name in registry:
            if registry.module_of(name).startswith("gmsa."):
                assert [*registry.parameters(name)] == names.get(name, []), name


OWN = {
    "dialogue_gcn": ["bases", "tanh"],
    "cogmen": ["feedforward", "graph_heads", "norm", "concat"],
    "gcnet": ["time_attention"],
    "mmgcn": ["variant", "gamma", "speaker", "speakers", "recurrent", "alpha", "theta"],
    "mtag": ["keep", "attention_dropout"],
}
"""Parameters of their own that models have."""


def test_parameters_of_layers_have_defaults_and_types_that_a_setting_is_checked_against() -> None:
    for name in LAYERS:
        for parameter, known in LAYERS.parameters(name).items():
            assert _has_known_type(known.annotation), f"{name}: {parameter}"
            assert (known.default is known.empty) == (parameter in LAYERS.filled), f"{name}: {parameter}"


class MeanLayer(torch.nn.Module):
    """The mean over the sources, times a factor; edge lists alone."""

    route = "edge"

    def __init__(self, channels: int, heads: int, edge_types: int, factor: float = 1.0) -> None:
        super().__init__()
        self.map, self.factor = torch.nn.Linear(channels, channels), factor

    def forward(self, x, edges, receivers=None, source_log_weight=None):
        count = len(x) if receivers is None else len(receivers)
        return self.factor * scatter(self.map(x)[edges.index[0]], edges.index[1], dim_size=count, reduce="mean")


class FirstEncoder(torch.nn.Module):
    """The first step that a token's window has."""

    def __init__(self, dim: int, channels: int, convs, dropout: float, scale: float) -> None:
        super().__init__()
        self.map, self.scale = torch.nn.Linear(dim, channels), scale

    def forward(self, steps, conv_windows):
        table, rows = torch.cat([self.map(steps) * self.scale, steps.new_zeros(1, self.map.out_features)]), None
        for window in reversed(conv_windows):
            rows = window.min(1).values if rows is None else window.min(1).values[rows]
        return table[rows]


class WideModel(SemiIIN):
    """Semi-IIN with a depth of its own."""

    def __init__(self, dims, *, depth: int = 1, **settings) -> None:
        super().__init__(dims, **settings)
        self.depth = depth


@pytest.mark.parametrize("name", ["semi_iin", "sslmm", "wide_for_test(depth=3)"])
def test_layers_encoders_and_models_of_ones_own(name: str, utterances, monkeypatch: pytest.MonkeyPatch) -> None:
    for registry, part in (
        (MODELS, ("wide_for_test", WideModel)),
        (LAYERS, ("mean_for_test", MeanLayer)),
        (ENCODERS, ("first_for_test", FirstEncoder)),
    ):
        monkeypatch.setattr(registry, "_parts", dict(registry._parts))
        registry.register(*part)
    settings = {"name": name, "layer": "mean_for_test(factor=2)", "encoder": "first_for_test(scale=3)", "channels": 16}
    config = from_dict({"model": settings})
    check(config)
    model = build_model(DIMS, config)
    layers = [m for m in model.modules() if isinstance(m, MeanLayer)]
    assert {layer.factor for layer in layers} == {2.0}
    assert {encoder.scale for encoder in model.embedding.encoders.values()} == {3.0}
    assert getattr(model, "depth", 3) == 3
    assert model.embedding.position.shape == (512, 16)
    assert graph_spec(config).route == "edge"
    output = model(collate(utterances, config))
    output.value.sum().backward()
    assert all(layer.map.weight.grad.any() for layer in layers)
    with pytest.raises(ConfigError, match=r"'model.encoder': 'first_for_test' needs 'scale', as first_for_test\(scale"):
        check(from_dict({"model": settings | {"encoder": "first_for_test"}}))
    with pytest.raises(ConfigError, match=r"'mean_for_test' has no parameter 'facto' \(it has: heads, factor\)"):
        from_dict({"model": settings | {"layer": "mean_for_test(facto=2)"}})
