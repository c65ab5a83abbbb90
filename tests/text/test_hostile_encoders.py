"""Folders that hold no text encoder, or a stranger's: each a line, before any work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.brought import told
from helpers.killed_runs import run_once
from safetensors.torch import load_file, save_file

from gmsa import train
from gmsa.config import Config, to_dict
from gmsa.errors import ConfigError, RunError
from gmsa.runs import Run
from gmsa.system import packages
from gmsa.text import EncoderFolder, pieces, texts

Spoil = Callable[[Path], object]


def settings(**changes: Any) -> Spoil:
    """Changes entries of ``config.json``."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def written(name: str, content: str | bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def removed(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def one_layer_less(folder: Path) -> None:
    path = folder / "model.safetensors"
    kept = {name: x for name, x in load_file(path).items() if "layer.1." not in name}
    save_file(kept | {"more": torch.zeros(100_000)}, path)  # as many numbers as are needed, but others


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def more_pieces(content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"more{i}": len(vocabulary) + i for i in range(50)}


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Changes the content of ``tokenizer.json``."""

    def act(folder: Path) -> None:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return act


def far_special(content: dict[str, Any]) -> None:
    content["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [10**9]


def no_unknown(content: dict[str, Any]) -> None:
    content["model"]["unk_token"] = "[nothing]"
    del content["model"]["vocab"]["f"]  # of which "fine" is made


def endless(name: str) -> Spoil:
    return lambda folder: ((folder / name).unlink(missing_ok=True), os.mkfifo(folder / name))


WRONG: dict[str, tuple[Spoil, str]] = {
    "no config.json": (removed("config.json"), "has no config.json"),
    "no JSON": (written("config.json", "{]"), "is damaged"),
    "a list": (written("config.json", "[1]"), "names no 'model_type'"),
    "nested": (written("config.json", "[" * 200_000), "nested too deeply"),
    "a pipe": (endless("config.json"), "is not a regular file"),
    "code of its own": (settings(auto_map={"AutoModel": "evil.Model"}), "code of its own"),
    "unknown": (settings(model_type="nope"), "'nope' is no text encoder that gmsa takes; it takes albert, bert"),
    "a decoder": (settings(model_type="gpt2"), "'gpt2' is no text encoder"),
    "made a decoder": (settings(is_decoder=True), "this bert, a decoder, is no text encoder"),
    "wide": (settings(hidden_size=10**9), "'hidden_size' in its config.json is 1000000000; it must be from 1 to"),
    "deep": (settings(num_hidden_layers=100_000), "'num_hidden_layers' in its config.json is 100000"),
    "no number": (settings(vocab_size="many"), "'vocab_size' in its config.json is 'many'"),
    "huge": (settings(type_vocab_size=10**12), "holds 1000000000000; no number there may be above"),
    "huge inside": (settings(more={"sizes": [1, 10**12]}), "holds 1000000000000; no number there may be above"),
    "padding": (settings(pad_token_id=10**6), "'pad_token_id' in its config.json is 1000000"),
    "padding of text": (settings(pad_token_id="0"), "'pad_token_id' in its config.json is '0'"),
    "heads": (settings(num_attention_heads=5), "transformers cannot make the encoder of"),
    "act": (settings(hidden_act=["gelu"]), "transformers cannot make the encoder of"),
    "other width": (settings(hidden_size=64), "are not those of its config.json (they lack"),
    "other layers": (settings(num_hidden_layers=3), "are not those of its config.json (they lack"),
    "lacks layers": (one_layer_less, "are not those of its config.json (they lack 'encoder.layer.1."),
    "pickled": (pickled, "has no weights as safetensors, only pytorch_model.bin, which may run code"),
    "no weights": (removed("model.safetensors"), "has no weights as safetensors; name a folder that holds"),
    "cut off": (cut_off, "are damaged (model.safetensors: "),
    "other bytes": (written("model.safetensors", b"\xff" * 64), "are damaged (model.safetensors: "),
    "empty": (written("model.safetensors", b""), "are damaged (model.safetensors: "),
    "no tokenizer": (removed("tokenizer.json"), "has no tokenizer.json"),
    "broken tokenizer": (written("tokenizer.json", '{"version": "1.0"}'), "its tokenizer.json cannot be read"),
    "tokenizer of bytes": (written("tokenizer.json", b"\xff\xfe"), "is not UTF-8 text"),
    "more pieces": (tokenizer(more_pieces), "has pieces up to number 130, the encoder 81 pieces"),
    "far piece": (tokenizer(lambda x: x["model"]["vocab"].update(far=10**7)), "has pieces up to number 10,000,000"),
    "far special piece": (tokenizer(far_special), "has pieces up to number 1,000,000,000"),
    "no unknown piece": (tokenizer(no_unknown), "cannot cut"),
    "no room": (
        settings(max_position_embeddings=2),
        "reads 2 pieces at once, which leaves no room for",
    ),
    "no size": (settings(vocab_size=None), "has no 'vocab_size'"),
}


WHEN_FROZEN = ("heads", "other width", "lacks layers", "cut off", "pickled", "broken tokenizer", "more pieces")
"""Those that a frozen encoder comes upon elsewhere."""


@pytest.mark.parametrize(("name", "tuning"), [*((x, "full") for x in WRONG), *((x, "frozen") for x in WHEN_FROZEN)])
def test_one_line_before_any_work(
    config_of: Callable[..., Config], encoders: dict[str, Path], tmp_path: Path, name: str, tuning: str
) -> None:
    spoil, line = WRONG[name]
    folder = shutil.copytree(encoders["bert"], tmp_path / "encoder")
    spoil(folder)
    config = tmp_path / "own.yaml"
    config.write_text(yaml.safe_dump(to_dict(config_of(tuning, folder))))
    said = told(train.main, "gmsa train", ["--config", str(config), "--out", str(tmp_path / "run")])
    assert said.code == 2, said.err
    errors = [line for line in said.lines if " note: " not in line]
    assert len(errors) == 1, said.err
    assert line in errors[0]
    assert str(folder) in errors[0] or "tokenizer" in errors[0]
    assert len(errors[0]) < 500 + 3 * len(str(tmp_path))
    assert not said.out
    assert not (tmp_path / "run").exists()


def test_nowhere(config_of: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that is not in the local cache: no network is touched."""
    import socket

    def connect(*_: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    for name, line in {
        "somebody/some-encoder": "the Hub's local cache lacks it",
        "someencoder": "set 'text.download' to true",
        "./nowhere": "does not exist",
        "a/b/c": "does not exist",
        str(Path(__file__)): "is a file",
        "a\0b": "cannot be looked at",
    }.items():
        with pytest.raises((ConfigError, RunError), match=line) as caught:
            EncoderFolder(name)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("lacking", ["tokenizers", "transformers", "peft"])
def test_packages_that_are_not_installed(
    config_of: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    def load(name: str) -> Any:
        if name == lacking:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return __import__(name)

    config = config_of("lora")
    texts._open.cache_clear()
    pieces._open.cache_clear()
    monkeypatch.setattr(packages, "import_module", load)
    with pytest.raises(ConfigError, match=rf"needs {lacking}, which is not installed.*gmsa\[text\]"):
        run_once(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- a stranger's run ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(
    encoders: dict[str, Path], file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Path], Path]:
    """Copies of a run of each kind, which is trained once."""
    from gmsa.config import from_dict
    from gmsa.runs import report

    place = tmp_path_factory.mktemp("runs")

    def copy(tuning: str, to: Path) -> Path:
        if not (place / tuning).exists():
            groups: dict[str, dict[str, Any]] = {
                "data": {"path": str(file), "name": "spoken"},
                "model": {"channels": 16, "heads": 2, "text_encoder": str(encoders["bert"])},
                "text": {"tuning": tuning},
                "optim": {"epochs": 1, "min_steps": 0},
                "protocol": {"name": "supervised"},
                "run": {"seeds": [1], "device": "cpu"},
            }
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(report, "draw_run", lambda *_: None)
                patch.setenv("GMSA_CACHE", str(place / "cache"))
                run_once(from_dict(groups), place / tuning)
        return Path(shutil.copytree(place / tuning, to))

    return copy


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_no_link_leads_out_of_a_run(
    runs: Callable[..., Path], encoders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    tuning = "frozen" if name == "model.safetensors" else "full"
    folder = runs(tuning, tmp_path / "run")
    (folder / "text_encoder" / name).unlink(missing_ok=True)
    (folder / "text_encoder" / name).symlink_to(encoders["bert"] / name)
    with pytest.raises(RunError, match="is a link that leads out of"):
        Run(folder)
    shutil.rmtree(folder / "text_encoder")
    (folder / "text_encoder").symlink_to(encoders["bert"])
    with pytest.raises(RunError, match="is a link that leads out of"):
        Run(folder)


def test_a_run_without_its_encoder(runs: Callable[..., Path], tmp_path: Path) -> None:
    folder = runs("full", tmp_path / "run")
    (folder / "text_encoder" / "tokenizer.json").unlink()
    with pytest.raises(RunError, match=r"it has no text_encoder/tokenizer[.]json; restore it"):
        Run(folder)
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(RunError, match=r"is damaged: it has no text_encoder/config[.]json"):
        Run(folder)


ABSURD: dict[str, dict[str, Any]] = {
    "layers": {"num_hidden_layers": 100_000},
    "sizes": {"hidden_size": 65_536, "num_hidden_layers": 128, "intermediate_size": 1 << 20, "num_attention_heads": 2},
    "labels": {"num_labels": 10**7},
    "code": {"attn_implementation": "kernels-community/flash-attn", "return_dict": False},
}


@pytest.mark.parametrize("name", ABSURD)
@pytest.mark.parametrize("tuning", ["full", "frozen"])
def test_absurd_sizes_get_no_memory(
    runs: Callable[..., Path], encoders: dict[str, Path], file: Path, tmp_path: Path, name: str, tuning: str
) -> None:
    resource = pytest.importorskip("resource")
    folder = runs(tuning, tmp_path / "run")
    settings(**ABSURD[name])(folder / "text_encoder")
    if tuning == "frozen":
        shutil.copy(encoders["bert"] / "model.safetensors", folder / "text_encoder")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if name in ("labels", "code"):  # nothing of what is asked for is done
        assert len(Run(folder).predict(file)) == 48
    else:
        with pytest.raises((ConfigError, RunError)) as caught:
            Run(folder).predict(file)
        assert len(str(caught.value).splitlines()) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_a_strangers_run_fetches_nothing(
    runs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    folder = runs("frozen", tmp_path / "run")
    path = folder / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content["model"]["text_encoder"], content["text"]["download"] = "somebody/some-encoder", True
    path.write_text(yaml.safe_dump(content))
    asked: list[bool] = []

    def fetch(**given: Any) -> str:
        asked.append(given["local_files_only"])
        raise FileNotFoundError("not there")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(RunError, match="needs its text encoder"):
        Run(folder)
    assert asked == [True]


# --- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_an_encoder_its_libraries_are_not_needed(config_of: Callable[..., Config], tmp_path: Path) -> None:
    """PyG imports transformers where it is installed; gmsa does not."""
    config = config_of(optim={"epochs": 1}, model={"text_encoder": None})
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(to_dict(config)))
    code = (
        "import sys; sys.modules |= dict.fromkeys(['transformers', 'tokenizers', 'peft', 'huggingface_hub']); "
        "import gmsa, gmsa.text; from gmsa.train import main; "
        "sys.argv = ['train', '--config', 'own.yaml', '--out', 'run']; main()"
    )
    line = [sys.executable, "-c", code]
    ended = subprocess.run(line, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", "lora", "frozen"])
def test_commands_say_nothing_of_transformers(
    config_of: Callable[..., Config], encoders: dict[str, Path], tmp_path: Path, tuning: str
) -> None:
    """A folder with weights of a head, and a command's own words alone."""
    folder = shutil.copytree(encoders["bert"], tmp_path / "encoder")
    path = folder / "model.safetensors"
    weights = {f"bert.{name}": x for name, x in load_file(path).items() if "pooler" not in name}
    save_file(weights | {"cls.predictions.bias": torch.zeros(3)}, path, {"format": "pt"})
    config = config_of(tuning, folder, optim={"epochs": 1}, text={"tuning": tuning, "checkpointing": True})
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(to_dict(config)))
    for line in (
        ["gmsa.train", "--config", "own.yaml", "--out", "run"],
        ["gmsa.predict", "--run", "run", "--input", str(config.data.path), "--out", "answers.csv"],
    ):
        ended = subprocess.run(
            [sys.executable, "-m", *line], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=300
        )
        assert ended.returncode == 0, ended.stderr
        assert all(said.startswith(f"{line[0]}: note: ") for said in ended.stderr.splitlines()), ended.stderr
        for word in ("Loading", "transformers", "Some weights", "bert", "warning", "Warning", "LOAD REPORT"):
            assert word not in (ended.stdout + ended.stderr).replace(str(tmp_path), "")
