"""The pages that explain gmsa: what they include is there, and their equations, written out here, are the code."""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmsa.config import Config, TargetConfig, from_dict
from gmsa.config.groups.missing import Missing
from gmsa.data import Target, Utterance, apply_missing
from gmsa.data.targets import INTENSITY_CLASSES
from gmsa.graph import READOUTS, STREAMS, GraphBatch, collate, schema
from gmsa.models import Output, build_model, graph_spec
from gmsa.models.build import model_skeleton
from gmsa.models.pretraining import Masked, PretrainingModel
from gmsa.nn import AlternatingBlock, Gate, Interaction, ModalityReadout, Reconstruction, SparseEdges, build_fusion
from gmsa.system.distributed import SINGLE_PROCESS
from gmsa.training.examples import Targets
from gmsa.training.losses import consistency, loss, reconstruction
from gmsa.training.optimization.ema import MovingAverage
from gmsa.training.pseudo_labels import most_confident
from gmsa.training.scoring import Predictions

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "explanation"
PAGES = {name: (FOLDER / f"{name}.md").read_text() for name in ("semi_iin", "sslmm", "architecture", "glossary")}
DIMS = {"text": 6, "audio": 4, "vision": 5}
TYPES = schema(DIMS)


# --- what the pages include and name ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Include:
    """A ``literalinclude`` of a page."""

    page: str
    path: str
    options: dict[str, str]


def includes(page: str) -> list[Include]:
    found = []
    for path, options in re.findall(r"```\{literalinclude\} (\S+)\n(.*?)```", PAGES[page], flags=re.DOTALL):
        found.append(Include(page, path, dict(re.findall(r"(?m)^:([\w-]+):[ ]?(.*)$", options))))
    return found


def find_object(source: str, name: str) -> str:
    """The lines of a function or class, by its dotted name."""
    node: Any = ast.parse(source)
    for part in name.split("."):
        (node,) = (child for child in node.body if getattr(child, "name", None) == part)
    return "\n".join(source.splitlines()[node.lineno - 1 : node.end_lineno])


def included(include: Include) -> str:
    """The text that Sphinx would show."""
    text = (FOLDER / include.path).read_text()
    if name := include.options.get("pyobject"):
        text = find_object(text, name)
    if start := include.options.get("start-at"):
        assert start in text, f"'{start}' is not in {name or include.path}"
        text = text[text.rindex("\n", 0, text.index(start)) :].lstrip("\n")
    if end := include.options.get("end-before"):
        assert end in text, f"'{end}' is not in {name or include.path}"
        text = text[: text.rindex("\n", 0, text.index(end))]
    if end := include.options.get("end-at"):
        text = text[: text.index("\n", text.index(end))]
    return text


@pytest.mark.parametrize("page", ["semi_iin", "sslmm", "architecture"])
def test_every_include_resolves(page: str) -> None:
    found = includes(page)
    assert len(found) == PAGES[page].count("{literalinclude}") >= 3
    for include in found:
        assert include.options.keys() <= {"caption", "pyobject", "start-at", "end-before", "end-at", "dedent"}
        file = (FOLDER / include.path).resolve()
        assert include.options["caption"].split(",")[0] == str(file.relative_to(ROOT))
        text = included(include)
        assert 1 <= len(text.splitlines()) <= 40, include
        assert '"""' not in text, f"{include} shows a docstring, of which the page is the longer form"


def test_a_stale_include_would_be_noticed() -> None:
    include = includes("semi_iin")[0]
    with pytest.raises(ValueError, match="unpack"):
        included(replace(include, options={**include.options, "pyobject": "Embedding.backward"}))
    with pytest.raises(AssertionError, match=r"is not in Embedding\.forward"):
        included(replace(include, options={**include.options, "start-at": "columns ="}))


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page: str) -> None:
    for name in re.findall(r"`((?:gmsa|configs|tests|benchmarks|tools)/[\w/]+\.\w+)`", PAGES[page]):
        assert (ROOT / name).is_file(), name


def test_six_files_are_to_be_read_first() -> None:
    section = PAGES["architecture"].split("## Six files to read first")[1].split("\n## ")[0]
    files = re.findall(r"(?m)^\d\. `(gmsa/\S+\.py)`", section)
    assert len(files) == len(set(files)) == 6
    for item, file in zip(re.split(r"(?m)^\d\. ", section)[1:], files, strict=True):
        source = (ROOT / file).read_text()
        for name in re.findall(r"`([a-z_]+)`", item.split("\n\n")[0]):
            assert re.search(rf"\b{name}\b", source), f"{name} is not in {file}"


def test_the_layout_is_that_of_the_tree() -> None:
    listing = PAGES["architecture"].split("```text\n")[1].split("```")[0]
    rooms = {path.name for path in (ROOT / "gmsa").iterdir() if (path / "__init__.py").exists()}
    assert rooms <= set(re.findall(r"(\w+)/", listing)), "a folder that the layout does not list"
    files = {path.name for path in (ROOT / "gmsa").glob("*.py")} - {"__init__.py"}
    assert files == set(re.findall(r"\w+\.py", listing))


def test_numbers_that_the_pages_state() -> None:
    skeleton = model_skeleton({"text": 1024, "audio": 1024, "vision": 256}, Config())
    count = sum(p.numel() for p in skeleton.parameters())
    assert f"| {count / 1e6:.2f} M |" in PAGES["semi_iin"]
    readout = [r for r in TYPES.relations if {r[0], r[2]} & set(READOUTS)]
    among = len(TYPES.relations) - len(readout)
    assert f"{len(TYPES.relations)} relations ({among} among tokens, {len(readout)} with" in PAGES["architecture"]
    config = Config()
    assert (config.loss.value_weight, config.self_training.weight) == (0.6, 0.2)
    assert (config.pretrain.contrast_weight, config.pretrain.mask, config.pretrain.temperature) == (0.5, 0.5, 0.07)
    assert (config.consistency.ramp, config.consistency.confident_share) == (0.4, 0.7)
    assert (config.model.layers, config.model.heads, config.optim.epochs, config.optim.lr) == (2, 8, 12, 1e-3)


# --- the glossary -----------------------------------------------------------------------------------------------------

WORDS = """
    modality, utterance, step, token, intensity, class, label, target, split, unlabeled, pool, missing, masked, dropped,
    eta, scope, relation, val, cls, layer, stream, block, gate, head, view, protocol, stage, round, teacher, student,
    seed, task, run, variant, cell, reference, ablation, study, trial, worker, registry, plug-in, route, context,
    readout node, intra edge, inter edge, edge builder, edge type, label ratio, realized rate, run folder, pseudo-label,
    moving average, missing-modality protocol, missing node, feature store, search space, synthetic corpus,
    masked attention, masked token, pre-training, mask seed, dialogue, speaker, reach, causal, context builder,
    dialogue node, linear context
"""


def glossary() -> dict[str, str]:
    found: dict[str, str] = {}
    for block in re.findall(r"```\{glossary\}\n(.*?)```", PAGES["glossary"], flags=re.DOTALL):
        for entry in block.strip().split("\n\n"):
            term, *lines = entry.splitlines()
            assert term not in found, f"{term} is explained twice"
            assert lines, term
            assert all(line.startswith("  ") for line in lines), term
            found[term] = " ".join(line.strip() for line in lines)
    return found


def test_the_glossary_has_every_word() -> None:
    terms = glossary()
    assert set(re.split(r",\s+", WORDS.strip())) - set(terms) == set()
    assert 'does not mean "validation"' in terms["val"]
    for name, page in PAGES.items():
        for used in re.findall(r"\{term\}`([^`<]+)`", page):
            assert used in terms, f"{used} in {name}"


# --- Semi-IIN, written as its page writes it --------------------------------------------------------------------------


def linear(x: Tensor, layer: nn.Module) -> Tensor:
    bias = layer.get_parameter("bias") if layer.bias is not None else 0.0
    return x @ layer.get_parameter("weight").T + bias


def masked_attention(x: Tensor, mask: Tensor, layer: Interaction, weight: Tensor | None = None) -> Tensor:
    """Rows of x [T, C] attend where ``mask`` [T, T] has ones; a source counts ``weight`` [T] times."""
    channels, size = x.shape[1], x.shape[1] // layer.heads
    (q, k, v), heads = (linear(x, layer.query), *linear(x, layer.key_value).split(channels, 1)), []
    counts = mask if weight is None else mask * weight
    for h in range(layer.heads):
        part = slice(h * size, (h + 1) * size)
        score = torch.exp(q[:, part] @ k[:, part].T / math.sqrt(size)) * counts
        total = score.sum(1, keepdim=True)
        heads.append((score / total.where(total > 0, 1)) @ v[:, part])
    return linear(torch.cat(heads, 1), layer.out)


def norm(x: Tensor) -> Tensor:
    """A fresh LayerNorm."""
    return (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()


def stream_layer(z: Tensor, mask: Tensor, layer: nn.Module) -> Tensor:
    x = norm(z)
    y = norm(masked_attention(x, mask, layer.attention) + x)
    return linear(linear(y, layer.ffn[0]).relu(), layer.ffn[2]) + y


def embed(utterance: Utterance, model: nn.Module) -> tuple[Tensor, list[str]]:
    """Z^0 of one utterance, and the type of each node."""
    embedding, rows, types = model.embedding, [torch.zeros(2, model.embedding.node_type.shape[1])], [*READOUTS]
    places = [torch.zeros(2, dtype=torch.long)]
    for modality in ("audio", "text", "vision"):
        x = utterance.features[modality].T
        if not x.shape[1]:
            continue
        for i, conv in enumerate(embedding.encoders[modality].convs):
            (kernel,), (stride,), length = conv.kernel_size, conv.stride, x.shape[1]
            count, before = -(-length // stride), (kernel - stride) // 2
            x = F.pad(x.relu() if i else x, (before, (count - 1) * stride + kernel - before - length))
            x = F.conv1d(x[None], conv.weight, conv.bias, stride)[0]
        rows.append(x.T)
        places.append(torch.arange(x.shape[1]))
        types += [modality] * x.shape[1]
    kind = torch.tensor([TYPES.numbers[t] for t in types])
    return torch.cat(rows) + embedding.node_type[kind] + embedding.position[torch.cat(places)], types


def mask_of(types: list[str], stream: str) -> Tensor:
    """M [T, T] from the page's table."""
    mask = torch.zeros(len(types), len(types), dtype=torch.double)
    for i, receiver in enumerate(types):
        for j, source in enumerate(types):
            readouts = (receiver in READOUTS) + (source in READOUTS)
            mask[i, j] = readouts == 1 or (readouts == 0 and (receiver == source) == (stream == "intra"))
    return mask


def semi_iin_by_the_page(utterance: Utterance, model: nn.Module, layers: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    z0, types = embed(utterance, model)
    views = {}
    for stream in ("intra", "inter"):
        z = z0
        for _ in range(layers):
            z = stream_layer(z, mask_of(types, stream), model.streams[stream].layers[0])
        views[stream] = z
    fused, gates = [], []
    for r, gate in enumerate(model.fusions):
        a, b = views["intra"][r], views["inter"][r]
        g = torch.sigmoid(a @ gate.intra.weight.T + b @ gate.inter.weight.T + gate.inter.bias)
        gates.append(g)
        fused.append(g * b + (1 - g) * a)
    mlp = [linear(f, model.heads.mlp[0]).relu() for f in fused]
    return linear(mlp[0], model.heads.value)[0], linear(mlp[1], model.heads.classes), gates


def double(utterance: Utterance) -> Utterance:
    return replace(utterance, features={m: x.double() for m, x in utterance.features.items()})


def model_and_batch(
    utterances: list[Utterance], route: str = "edge", graph: Any = None, **model: Any
) -> tuple[nn.Module, GraphBatch]:
    config = from_dict({"model": {"channels": 16, "heads": 4, "route": route, **model}, "graph": graph or {}})
    torch.manual_seed(0)
    return build_model(DIMS, config).double().eval(), collate(utterances, graph_spec(config))


@pytest.mark.parametrize("route", ["dense", "edge"])
def test_semi_iin_is_the_equations_of_its_page(route: str, make_utterance) -> None:
    utterances = [double(make_utterance(f"a$_${i}", n)) for i, n in enumerate([(5, 19, 4), (3, 0, 6), (0, 9, 0)])]
    model, batch = model_and_batch(utterances, route, layers=3)
    output: Output = model(batch)
    for i, utterance in enumerate(utterances):
        value, logits, gates = semi_iin_by_the_page(utterance, model, layers=3)
        torch.testing.assert_close(output.value[i], value)
        torch.testing.assert_close(output.logits[i], logits)
        torch.testing.assert_close(output.gate[i], torch.stack(gates))


def test_fusions_of_table_3() -> None:
    a, b = torch.randn(2, 3, 8)
    assert torch.equal(build_fusion("add", 8)(a, b)[0], a + b)
    assert torch.equal(build_fusion("dot", 8)(a, b)[0], a * b)
    concat, gate = build_fusion("concat", 8), Gate(8)
    torch.testing.assert_close(concat(a, b)[0], linear(torch.cat([a, b], 1), concat.join))
    nn.init.constant_(gate.inter.bias, 50.0)
    torch.testing.assert_close(gate(a, b)[0], b)  # G is the share of the inter view


def test_classes_count_the_edges_at_or_below_a_label() -> None:
    edges = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
    labels = torch.tensor([-3, -2.5, -2.4, -1.5, -0.5, 0, 0.4, 0.5, 1.5, 2.4, 2.5, 3])
    assert Target().to_class(labels).tolist() == [sum(y >= edge for edge in edges) for y in labels.tolist()]
    sims = Target.of(TargetConfig(preset="sims"))
    assert sims.to_class(labels / 3).tolist() == Target().to_class(labels).tolist()
    assert Target().to_class(torch.tensor(0.5)) == 4
    assert round(0.5) == 0  # as Acc-7 rounds


def test_the_loss() -> None:
    torch.manual_seed(0)
    value, logits = torch.randn(4), torch.randn(4, INTENSITY_CLASSES)
    y, c = torch.tensor([1.0, -2.0, math.nan, math.nan]), torch.tensor([4, 1, 6, 0])
    classes = torch.eye(INTENSITY_CLASSES)[c]
    classes[3] = 0.0  # context: no target
    entropy = torch.stack([logits[i].logsumexp(0) - logits[i, c[i]] for i in range(4)])
    expected = 0.6 * (value[:2] - y[:2]).square().mean() + 0.4 * entropy[:2].mean() + 0.2 * entropy[2]
    output = Output(value, logits, None, value)
    torch.testing.assert_close(loss(output, Targets(y, classes), 0.6, 0.2), expected)


def test_the_most_confident_of_each_predicted_class() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(INTENSITY_CLASSES), 60).astype(np.float32)
    ids, blank = [f"u{i:02}" for i in range(60)], np.zeros(60, dtype=np.float32)
    config = from_dict({"self_training": {"k": 3}}).self_training
    kept = most_confident(Predictions(ids, blank, blank, probabilities, None), config)
    expected = []
    for c in range(INTENSITY_CLASSES):
        mine = [i for i in range(60) if probabilities[i].argmax() == c]
        expected += sorted(mine, key=lambda i: -probabilities[i, c])[:3]
    assert kept == sorted(expected)


# --- SSLMM, written as its page writes it -----------------------------------------------------------------------------


def edges_of(mask: Tensor) -> SparseEdges:
    target, source = mask.nonzero(as_tuple=True)
    return SparseEdges(torch.stack([source, target]))


@pytest.mark.parametrize("order", ["intra_first", "simultaneous"])
def test_a_block_is_its_equations(order: str) -> None:
    torch.manual_seed(0)
    types = ["audio"] * 2 + ["text"] * 3 + ["vision"] * 2
    intra, inter = mask_of(types, "intra"), mask_of(types, "inter")
    block, h = AlternatingBlock(8, 2, order=order).double().eval(), torch.randn(7, 8, dtype=torch.double)
    within = stream_layer(h, intra, block.within)
    v = masked_attention(within if order == "intra_first" else h, inter, block.across)
    z = torch.sigmoid(linear(torch.cat([within, v], 1), block.gate))
    torch.testing.assert_close(block(h, edges_of(intra), edges_of(inter)), norm(within + z * v))


def test_a_missing_node_counts_s_times_in_the_softmax(make_utterance) -> None:
    clips = [double(make_utterance("v$_$0", (3, 0, 2))), double(make_utterance("v$_$1", (0, 9, 4)))]
    model, batch = model_and_batch(clips, name="sslmm", graph={"scope": "video"}, shared_layers=False)
    first, second = model.blocks
    h = model.embedding(batch)
    types = [TYPES.node_types[t] for t in batch.node_type.tolist()]
    there = torch.tensor([float(clips[int(p)].present[t]) for t, p in zip(types, batch.position, strict=True)]).double()
    assert there.tolist().count(0.0) == 2
    masks = []
    for stream in ("intra", "inter"):
        mask = torch.zeros(len(types), len(types), dtype=torch.double)
        mask[tuple(batch.edge_index(stream).flip(0))] = 1.0
        masks.append(mask)
    for number, block in enumerate((first, second)):
        s = torch.where(there == 1, 1.0, torch.sigmoid(linear(h, model.sends))[:, 0]) if number else there
        x = norm(h)
        y = norm(biased_attention(x, masks[0], block.within.attention, batch, "intra", s) + x)
        within = linear(linear(y, block.within.ffn[0]).relu(), block.within.ffn[2]) + y
        v = biased_attention(within, masks[1], block.across, batch, "inter", s)
        z = torch.sigmoid(linear(torch.cat([within, v], 1), block.gate))
        h = norm(within + z * v)
    torch.testing.assert_close(model.nodes(model.embedding(batch), batch), h)


def biased_attention(
    x: Tensor, mask: Tensor, layer: Interaction, batch: GraphBatch, stream: str, weight: Tensor
) -> Tensor:
    """Masked attention of a video graph, whose biases of edge types are zero before training."""
    assert layer.bias is not None
    assert not layer.bias.any()
    assert mask.sum() == batch.edge_index(stream).shape[1]
    return masked_attention(x, mask, layer, weight)


def test_the_readout() -> None:
    torch.manual_seed(0)
    read, states = ModalityReadout(8), torch.randn(2, 3, 8)
    present = torch.tensor([[True, False, True], [False, True, False]])
    (first, _, last), found = read.score, read(states, present)
    for i in range(2):
        there = [m for m in range(3) if present[i, m]]
        share = torch.softmax(torch.stack([linear(torch.tanh(linear(states[i, m], first)), last)[0] for m in there]), 0)
        torch.testing.assert_close(found[i], sum(a * states[i, m] for a, m in zip(share, there, strict=True)))


def test_masked_reconstruction_is_its_equation(make_utterance) -> None:
    config = from_dict({"model": {"name": "sslmm", "channels": 16, "heads": 4}})
    torch.manual_seed(0)
    module = PretrainingModel(build_model(DIMS, config), DIMS, config).double().eval()
    batch = collate([double(make_utterance("v$_$0", (5, 19, 4)))], graph_spec(config), streams=[*STREAMS, "global"])
    text = batch.node_index("text")
    target = Masked(torch.tensor([True, False, False, True, False]), text[[0, 3]], torch.randn(2, 6).double())
    embedding, states = module.model.embedding, module.model.embedding(batch).clone()
    start = embedding.node_type[TYPES.numbers["text"]] + embedding.position[[0, 3]]
    states[target.nodes] = module.token["text"] + start
    states = module.model.nodes(states, batch).clone()
    states[target.nodes] = 0.0
    types = [TYPES.node_types[t] for t in batch.node_type.tolist()]
    decoded = stream_layer(states, mask_of(types, "intra") + mask_of(types, "inter"), module.decoder)
    predicted = linear(decoded[target.nodes], module.out["text"])
    cosine = (predicted * target.features).sum(1) / predicted.norm(dim=1) / target.features.norm(dim=1)
    targets = {"text": target}
    found = module.reconstruction(module.states(batch, targets), batch, targets)
    torch.testing.assert_close(found.float(), ((1 - cosine) ** 2).float())  # it predicts in float32


def test_contrast_is_its_equation() -> None:
    torch.manual_seed(0)
    module = PretrainingModel(build_model(DIMS, Config()), DIMS, Config())
    z, other = F.normalize(torch.randn(2, 5, 8), dim=2)
    tau, terms = 0.07, []
    for i in range(5):
        pair = z[i] @ other[i] / tau
        terms.append(pair - torch.logsumexp(z[i] @ other.T / tau, 0) + pair - torch.logsumexp(z @ other[i] / tau, 0))
    found = module.contrast(torch.stack([z, other], 1), SINGLE_PROCESS)
    torch.testing.assert_close(found, -sum(terms) / (2 * 5))


def test_consistency_is_its_equation() -> None:
    torch.manual_seed(0)
    value, passes = 2 * torch.randn(10), torch.randn(4, 10)
    mean, variance = passes.mean(0), passes.var(0)
    kept = variance.argsort()[:7]
    apart = (value - mean).abs()
    huber = torch.where(apart <= 1, apart.square() / 2, apart - 0.5)
    assert (apart[kept] > 1).any()
    torch.testing.assert_close(consistency(value, passes, 0.7), (torch.exp(-variance) * huber)[kept].mean())
    variance = (value - mean) ** 2 / 2  # of one pass
    kept = variance.argsort()[:7]
    torch.testing.assert_close(consistency(value, mean[None], 0.7), (torch.exp(-variance) * huber)[kept].mean())


def test_reconstruction_is_its_equation() -> None:
    torch.manual_seed(0)
    model = build_model(DIMS, Config())
    module = model.reconstruction = Reconstruction(DIMS, 128).eval()
    features = torch.randn(3, 128)
    hidden = {"text": (torch.tensor([0, 2]), torch.randn(2, 6)), "audio": (torch.tensor([1]), torch.randn(1, 4))}
    terms = []
    for modality, (rows, wanted) in hidden.items():
        for row, x in zip(rows.tolist(), wanted, strict=True):
            both = torch.cat([features[row], module.token[modality]])
            predicted = linear(linear(both, module.mlp[0]).relu(), module.out[modality])
            terms.append((predicted - x).square().sum() / len(x))
    output = Output(torch.zeros(3), torch.zeros(3, INTENSITY_CLASSES), None, features)
    torch.testing.assert_close(reconstruction(model, output, hidden), sum(terms) / 3)


def test_the_moving_average() -> None:
    model = nn.Linear(1, 1, bias=False)
    average, expected = MovingAverage(model, 0.5), 0.0
    for t, weight in enumerate([3.0, -1.0, 2.0, 5.0, 0.0, 7.0]):
        nn.init.constant_(model.weight, weight)
        average.update(model)
        d = min(0.5, (1 + t) / (10 + t)) if t else 0.0
        expected = d * expected + (1 - d) * weight
    assert average.model.weight.item() == pytest.approx(expected)


def test_eta_keeps_each_other_modality_with_p(make_utterance) -> None:
    utterances = [make_utterance(f"u$_${i}", (1, 1, 1)) for i in range(1500)]
    masked = apply_missing(utterances, Missing("eta", 0.5), ["text", "audio", "vision"], 0)
    kept = np.array([list(u.present.values()) for u in masked])
    assert kept.any(1).all()
    assert kept.mean() == pytest.approx(0.5, abs=0.03)
    assert kept[:, 0].mean() == pytest.approx(0.5, abs=0.04)  # with text
    p = (3 * (1 - 0.5) - 1) / (3 - 1)
    assert kept.sum(1).mean() == pytest.approx(1 + 2 * p, abs=0.05)
