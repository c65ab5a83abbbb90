"""Folders of Hugging Face models for sound and pictures: what they give, and what is refused before it is read."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.hf_models import LAYERS, PICTURES, SPEECH, WIDTH, make_model
from helpers.sentences import Clip
from PIL import Image
from safetensors.torch import load_file, save_file

from gmsa.errors import ConfigError
from gmsa.media.extractors.hf_audio import HFAudio
from gmsa.media.extractors.hf_vision import BATCH, HFVision
from gmsa.media.extractors.opensmile import OpenSmile
from gmsa.media.types import RATE, Missing

transformers = pytest.importorskip("transformers", reason="the extra 'media' is not installed")

ALL = (*SPEECH, "whisper", *PICTURES, "clip")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's model, made once."""
    place = tmp_path_factory.mktemp("models")

    def find(family: str) -> Path:
        return place / family if (place / family).exists() else make_model(place / family, family)

    return find


def sound(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32) / 10


def pictures(count: int) -> list[tuple[float, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(i / 5, rng.integers(0, 256, (48, 64, 3), np.uint8)) for i in range(count)]


def network_of(folder: Path) -> Any:
    return transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()


def extractor_of(family: str, folder: Path) -> HFAudio | HFVision:
    return HFAudio(str(folder)) if family in (*SPEECH, "whisper") else HFVision(str(folder))


# --- sound -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [-1, 1])
@pytest.mark.parametrize("family", [*SPEECH, "whisper"])
def test_sound_has_the_models_states(folders: Callable[[str], Path], family: str, layer: int) -> None:
    folder, samples = folders(family), sound(2)
    steps = HFAudio(str(folder), layer=layer)(Clip(sound=samples))
    processor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    given = processor(samples, sampling_rate=RATE, return_tensors="pt")
    network = network_of(folder)
    with torch.no_grad():
        if family == "whisper":
            output = network.encoder(given["input_features"], output_hidden_states=True)
        else:
            output = network(given["input_values"], output_hidden_states=True)
    expected = output.hidden_states[layer][0, : 100 if family == "whisper" else None].numpy()
    np.testing.assert_allclose(steps.values, expected, atol=1e-5)
    assert len(steps.values) == (100 if family == "whisper" else 99)
    np.testing.assert_allclose(steps.start, np.arange(len(steps.values)) * 0.02)
    np.testing.assert_allclose(steps.stop - steps.start, 0.02)


@pytest.mark.parametrize("family", ["wav2vec2", "whisper"])
def test_long_sound_has_all_steps(folders: Callable[[str], Path], family: str) -> None:
    samples = sound(61.3)
    steps = HFAudio(str(folders(family)))(Clip(sound=samples))
    assert len(steps.values) == 3065 - (family != "whisper")
    np.testing.assert_allclose(steps.start, np.arange(len(steps.values)) * 0.02)
    assert np.isfinite(steps.values).all()


def test_a_block_of_long_sound_is_read_with_its_context(tmp_path: Path) -> None:
    """Without attention over time and norms over the block, a state depends on its surroundings alone."""
    folder = make_model(tmp_path, "wav2vec2", num_hidden_layers=0, feat_extract_norm="layer")
    extractor = HFAudio(str(folder))
    samples = sound(29)
    extractor._processor.do_normalize = False
    whole = extractor(Clip(sound=samples)).values
    parts = [extractor._states(samples, *part) for part in pairwise([0, 320 * 500, 320 * 900, len(samples)])]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-4)


@pytest.mark.parametrize("family", [*SPEECH, "whisper"])
def test_short_sound_has_one_step(folders: Callable[[str], Path], family: str) -> None:
    steps = HFAudio(str(folders(family)))(Clip(sound=sound(0.003)))
    assert steps.values.shape == (1, WIDTH)


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [-1, 1])
@pytest.mark.parametrize("family", [*PICTURES, "clip"])
def test_pictures_have_the_models_states(folders: Callable[[str], Path], family: str, layer: int) -> None:
    folder, seen = folders(family), pictures(BATCH + 3)
    steps = HFVision(str(folder), layer=layer)(Clip(pictures=seen))
    network = network_of(folder)
    network = network.vision_model if family == "clip" else network
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    for (time, picture), values, start, stop in zip(seen, *steps, strict=True):
        given = processor(Image.fromarray(picture), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            output = network(given, output_hidden_states=True)
        states = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
        expected = states.mean(1) if "siglip" in family else states[:, 0]
        np.testing.assert_allclose(values, expected[0].numpy(), atol=1e-4)
        assert (start, stop) == pytest.approx((max(time - 0.1, 0), time + 0.1))


# --- what is missing -------------------------------------------------------------------------------------------------


def test_what_a_clip_lacks(folders: Callable[[str], Path]) -> None:
    audio, vision = HFAudio(str(folders("hubert"))), HFVision(str(folders("vit")))
    for clip in (Clip(), Clip(sound=np.zeros(0, np.float32))):
        with pytest.raises(Missing, match="sound"):
            audio(clip)
    with pytest.raises(Missing, match="a video track"):
        vision(Clip())
    with pytest.raises(Missing, match="frames"):
        vision(Clip(pictures=[]))


def test_fingerprints_tell_weights_and_settings(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = folders("hubert")
    one = HFAudio(str(folder))
    assert one.fingerprint() == HFAudio(str(folder)).fingerprint()
    assert one.fingerprint() != HFAudio(str(folder), layer=0).fingerprint()
    changed = spoiled(folder, tmp_path / "other", reweigh(lambda x: 2 * x))
    assert one.fingerprint()["weights"] != HFAudio(str(changed)).fingerprint()["weights"]
    assert len(one.columns) == len(set(one.columns)) == WIDTH
    assert HFVision(str(folders("vit")), fps=2).fingerprint() != HFVision(str(folders("vit"))).fingerprint()


def test_no_socket_is_opened(folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    made = {family: folders(family) for family in ("wavlm", "clip")}

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    HFAudio(str(made["wavlm"]))(Clip(sound=sound(0.5)))
    HFVision(str(made["clip"]))(Clip(pictures=pictures(1)))


# --- a stranger's folder ---------------------------------------------------------------------------------------------

Spoil = Callable[[Path], object]


def spoiled(folder: Path, to: Path, spoil: Spoil) -> Path:
    """A copy of a folder that is changed."""
    shutil.copytree(folder, to)
    spoil(to)
    return to


def with_json(name: str, **entries: Any) -> Spoil:
    """Adds entries to a JSON file, or makes one."""

    def spoil(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(content | entries))

    return spoil


def reweigh(change: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file({k: change(x) for k, x in load_file(path).items()}, path, {"format": "pt"})

    return spoil


class _Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def pickled(folder: Path) -> None:
    """Takes the weights as safetensors away and leaves pickled ones, which leave a file when they are read."""
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(folder / "exploded")))


def split(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    weights = {"a": "../elsewhere.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))


def linked(folder: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    (folder / "model.safetensors").rename(outside)
    os.symlink(outside, folder / "model.safetensors")


CODE = {"AutoModel": "modeling.Own"}
REFUSED: dict[str, tuple[Spoil, str]] = {
    "code in config": (with_json("config.json", auto_map=CODE), "'auto_map' in config.json"),
    "code in processor": (with_json("preprocessor_config.json", auto_map=CODE), "'auto_map' in preprocessor_config"),
    "code inside": (with_json("processor_config.json", image_processor={"auto_map": CODE}), "'auto_map' in processor_"),
    "code in a list": (with_json("tokenizer_config.json", x=[[{"auto_map": CODE}]]), "'auto_map' in tokenizer_config"),
    "pickled": (pickled, "only pytorch_model.bin, which may run code"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights as safetensors, no others either"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "no processor": (lambda f: (f / "preprocessor_config.json").unlink(), "has no preprocessor_config.json"),
    "other family": (with_json("config.json", model_type="bert"), "'model_type' in its config.json is 'bert'"),
    "no family": (lambda f: (f / "config.json").write_text("[]"), "'model_type' in its config.json is None"),
    "large": (with_json("config.json", vocab_size=1 << 40), "no number there may be above"),
    "damaged JSON": (lambda f: (f / "more.json").write_text("{"), "is damaged"),
    "deep JSON": (lambda f: (f / "more.json").write_text("[" * 10**5), "is damaged"),
    "adapter": (with_json("adapter_config.json", base_model_name_or_path="/"), "is an adapter"),
    "damaged weights": (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 99), "weights cannot be read"),
    "other weights": (with_json("config.json", hidden_size=64), "weights (cannot be read|are not those)"),
    "more layers": (with_json("config.json", num_hidden_layers=4, encoder_layers=4), "are not those of its config"),
    "split elsewhere": (split, "names weights that are not there"),
    "linked": (linked, "is a link that leads out"),
    "odd processor": (
        with_json("preprocessor_config.json", feature_extractor_type="X", image_processor_type="X"),
        "cannot be used",
    ),
}


@pytest.mark.parametrize("family", ["hubert", "vit"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(folders: Callable[[str], Path], tmp_path: Path, family: str, case: str) -> None:
    spoil, line = REFUSED[case]
    folder = spoiled(folders(family), tmp_path / "model", spoil)
    with pytest.raises(ConfigError, match=line) as caught:
        extractor_of(family, folder)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(("'audio: hf_audio'", "'vision: hf_vision'", f"'{folder}"))
    assert not (folder / "exploded").exists()


def test_pickled_weights_beside_safetensors_are_not_read(folders: Callable[[str], Path], tmp_path: Path) -> None:
    def spoil(folder: Path) -> None:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(folder / "exploded")))

    folder = spoiled(folders("hubert"), tmp_path / "model", spoil)
    HFAudio(str(folder))
    assert not (folder / "exploded").exists()


def test_settings_that_are_out_of_range(folders: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"'layer' is 9, but the encoder has layers 0 to {LAYERS}"):
        HFAudio(str(folders("hubert")), layer=9)
    with pytest.raises(ConfigError, match="'layer' is -4"):
        HFVision(str(folders("vit")), layer=-4)
    with pytest.raises(ConfigError, match="'fps' must be above 0"):
        HFVision(str(folders("vit")), fps=0)
    with pytest.raises(ConfigError, match="'longest' must be at least 32"):
        HFVision(str(folders("vit")), longest=1)
    with pytest.raises(ConfigError, match="is no folder"):
        HFAudio(str(tmp_path / "nothing"))
    folder = spoiled(folders("hubert"), tmp_path / "m", with_json("preprocessor_config.json", sampling_rate=8000))
    with pytest.raises(ConfigError, match="is not for 16,000 Hz"):
        HFAudio(str(folder))


# --- openSMILE -------------------------------------------------------------------------------------------------------


def test_opensmile_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(ConfigError, match=r"pip install 'gmsa\[opensmile\]'\); its licence .* forbids commercial use"):
        OpenSmile()


def test_opensmiles_descriptors() -> None:
    pytest.importorskip("opensmile", reason="the extra 'opensmile' is not installed")
    extractor = OpenSmile()
    steps = extractor(Clip(sound=sound(1)))
    assert steps.values.shape[1] == len(extractor.columns) == 25
    assert len(steps.values) == pytest.approx(100, abs=6)
    assert (np.diff(steps.start) > 0).all()
