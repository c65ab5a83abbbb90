"""The representations and attention weights that a run's models compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_data import tiny_run

from gmsa import predict as command
from gmsa.errors import RunError
from gmsa.graph import collate
from gmsa.models import graph_spec
from gmsa.nn import Interaction, SparseEdges
from gmsa.runs import Run
from gmsa.runs import report as results

MODELS = {
    "dense": ({"model": {"name": "semi_iin"}}, {"intra", "inter"}, ("val", "cls")),
    "video": ({"graph": {"scope": "video"}}, {"intra", "inter"}, ("val", "cls")),
    "joint": ({"model": {"streams": "global", "layers": 1}}, {"global"}, ("val", "cls")),
    "sslmm": ({"model": {"name": "sslmm"}}, {"intra", "inter"}, ("text",)),
    "transformer": ({"model": {"name": "global"}}, {"global"}, ("val", "cls")),
}


@pytest.fixture
def trained(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """Trains a model under a name, once."""
    monkeypatch.setattr(results, "draw_run", lambda *_: None)
    return lambda name, **groups: Run(tiny_run(tiny / name, tiny / "own.pkl", **groups, run={"seeds": [1]}))


def test_the_heads_predict_from_the_features(run: Run, tiny: Path) -> None:
    found = run.features(tiny / "other.pkl")
    assert list(found.values) == [1, 2]
    assert found.values[1].shape == (48, 16)
    assert found.splits[:2] == ["train", "train"]
    batch = collate(run.prepare(tiny / "other.pkl"), graph_spec(run.config))
    with torch.inference_mode():
        output = run.load_model(2)(batch)
    np.testing.assert_allclose(found.values[2], output.features.numpy(), atol=1e-5)
    assert run.features(tiny / "other.pkl", seeds=2).values.keys() == {2}


def test_the_command_writes_arrays_that_need_no_pickle(run: Run, tiny: Path, tmp_path: Path) -> None:
    files = {"--features": tmp_path / "f.npz", "--attention": tmp_path / "a.npz"}
    options = [part for option, file in files.items() for part in (option, str(file))]
    command.main(["--run", str(run.folder), "--input", str(tiny / "other.pkl"), "--seeds", "2", *options])
    found = np.load(files["--features"], allow_pickle=False)
    assert {key: x.shape for key, x in found.items()} == {
        "ids": (48,), "splits": (48,), "labels": (48,), "seed_2": (48, 16),
    }  # fmt: skip
    assert found["labels"][0] == np.float32(-2.8)
    weights = np.load(files["--attention"], allow_pickle=False)
    assert weights["seed"] == 2
    assert weights["node_types"].tolist() == ["val", "cls", "audio", "text", "vision"]
    assert weights["steps"].tolist() == [0, 0, 8, 1, 1]
    with pytest.raises(SystemExit):
        command.main(["--run", str(run.folder), "--input", str(tiny / "other.pkl")])


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_to_a_node_sum_to_one(trained, tiny: Path, name: str) -> None:
    settings, streams, readers = MODELS[name]
    run = trained(f"states-{name}", **settings)
    found = run.attention(tiny / "other.pkl")
    assert set(found.streams) == streams
    prepared = {u.id: u for u in run.prepare(tiny / "other.pkl")}
    names = np.array(found.node_types)[found.node_type]
    for stream, (source, target, weight) in found.streams.items():
        sums = np.zeros((len(names), 2))
        np.add.at(sums, target, weight)
        np.testing.assert_allclose(sums[np.unique(target)], 1, atol=1e-5)
        assert (weight >= 0).all()
        if name not in ("sslmm", "video"):
            assert set(names[target]) == set(readers)
            assert (found.node_utterance[source] == found.node_utterance[target]).all()
        per_head = found.of("o-test0$_$1", stream, readers[0])
        assert sum(map(np.sum, per_head.values())) == pytest.approx(1, abs=1e-5)
        if name in ("dense", "joint"):
            assert len(per_head["text"]) == prepared["o-test0$_$1"].lengths["text"]
    if name != "video":
        counts = np.bincount(found.node_utterance[names == "text"], minlength=48)
        assert counts.tolist() == [prepared[i].lengths["text"] for i in found.ids]
    with pytest.raises(RunError, match="no attention of 'nobody' in the stream"):
        found.of("nobody", next(iter(streams)), readers[0])


@pytest.mark.parametrize(
    ("name", "settings", "named"),
    [
        ("gcnet", {"model": {"name": "gcnet"}, "graph": {"scope": "dialogue"}}, "the model 'gcnet' has"),
        ("sage", {"model": {"layer": "sage"}}, "the model 'semi_iin' with the layer 'sage' has"),
    ],
)
def test_models_and_layers_without_attention_say_so(trained, tiny: Path, name: str, settings, named: str) -> None:
    with pytest.raises(RunError, match=f"{named} no attention weights that gmsa can read"):
        trained(f"states-{name}", **settings).attention(tiny / "other.pkl")


def test_weights_of_edges_count_in_attention() -> None:
    layer = Interaction(channels=4, heads=2).eval()
    index = torch.tensor([[0, 1, 2], [0, 0, 0]])
    weighted = SparseEdges(index, log_weight=torch.tensor([0.0, -3.0, -9.0]))
    x = torch.randn(3, 4)
    _, _, weight, _ = layer.attention_weights(x, weighted, torch.tensor([0]))
    value = layer.key_value(x)[:, 4:].unflatten(1, (2, 2))
    mixed = (weight.float()[:, :, None] * value).sum(0).flatten()
    torch.testing.assert_close(layer.out(mixed), layer(x, weighted, torch.tensor([0]))[0])


def test_what_has_no_attention_says_so(trained, tiny: Path) -> None:
    with pytest.raises(RunError, match="'late_fusion' has no attention weights"):
        trained("states-late", model={"name": "late_fusion"}).attention(tiny / "other.pkl")


@pytest.mark.parametrize("typed", [False, True])
def test_the_weights_are_those_that_the_layer_mixes_by(typed: bool) -> None:
    torch.manual_seed(0)
    layer = Interaction(8, 2, edge_types=3 if typed else 0)
    index = torch.tensor([[0, 1, 2, 3, 1, 4], [0, 0, 0, 1, 1, 2]])
    edges = SparseEdges(index, torch.tensor([0, 1, 2, 3, 0, 1]) if typed else None)
    x, receivers, log_weight = torch.randn(5, 8), torch.tensor([4, 0, 2]), torch.randn(5)
    with torch.no_grad():
        if typed:
            layer.bias.copy_(torch.randn(3, 2))
        expected = layer(x, edges, receivers, log_weight)
        source, target, weight, _ = layer.attention_weights(x, edges, receivers, log_weight)
        value = layer.key_value(x)[:, 8:].unflatten(1, (2, 4))
        mixed = torch.zeros(5, 2, 4).index_add(0, target, weight.float()[:, :, None] * value[source])
        torch.testing.assert_close(layer.out(mixed[receivers].flatten(1)), expected)
    assert source.tolist() == index[0].tolist()
    assert target.tolist() == receivers[index[1]].tolist()
