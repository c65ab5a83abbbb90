"""A run folder: all that evaluating and predicting need."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor, nn

from gmsa.config import Config, to_dict
from gmsa.config.groups.target import SELECTABLE
from gmsa.config.override import as_seeds
from gmsa.config.trained import trained_settings
from gmsa.data import Normalizer, Utterance
from gmsa.data.store.extraction import Extraction
from gmsa.errors import ConfigError, DataError, RunError
from gmsa.models import build_model
from gmsa.models.build import model_skeleton
from gmsa.registry import load_plugins
from gmsa.runs.inputs import Input, read_inputs
from gmsa.runs.records import read_environment, read_history, read_own_summary
from gmsa.runs.settings import read_config
from gmsa.system.device import set_up
from gmsa.system.files import check_name, check_out_folder, make_subfolder, write_json, write_text
from gmsa.system.reading import entries, exists, expanded, is_file, open_regular
from gmsa.system.script import torch_settings_kept
from gmsa.text import EncoderFolder
from gmsa.text.folder import CONFIG, TOKENIZER, WEIGHTS, WHOLE
from gmsa.training.checkpoint import load_weights, save_weights
from gmsa.training.protocols import build_protocol

if TYPE_CHECKING:
    from gmsa.explain import Explanations
    from gmsa.runs.evaluate import Scores
    from gmsa.runs.exporting.export import Exported
    from gmsa.runs.live.stream import AnswerStream
    from gmsa.runs.predict import Answers
    from gmsa.runs.states import Attention, Embeddings

ENCODER = "text_encoder"
"""Folder with the settings and the tokenizer of a run's text encoder; with its weights, if it is frozen and saved."""
FILES = ("config.yaml", "environment.json", "normalizer.safetensors")
"""What every run folder holds from the start."""


class Run:
    """A run, opened from its folder: its settings, its scores, and its models, ready to predict.

    Args:
        folder: run folder, wherever it is now, or a model that :meth:`save` wrote.
        plugins: modules that register the parts of your own that the run uses; opening a run imports no others.

    Raises:
        RunError: it is no run folder, a part of it is missing or damaged, or it needs a plug-in.
        ConfigError: a plug-in cannot be imported.
    """

    def __init__(self, folder: str | os.PathLike[str], plugins: Iterable[str] = ()) -> None:
        load_plugins(plugins, Path())
        self.folder = expanded(folder)
        check_name(self.folder)
        for name in FILES:
            if not is_file(self.folder / name):
                what = f"{name} is not a regular file" if exists(self.folder / name) else f"it has no {name}"
                raise RunError(f"'{folder}' is not a run folder: {what}; name one that gmsa.train wrote")
        self.config = _with_own_encoder(self.folder, read_config(self.folder))
        self.environment: dict[str, Any] = read_environment(self.folder, self.config)
        """Versions, machine and data of the training."""
        _check_encoder(self)
        self.dims: dict[str, int] = dict(self.environment["dims"])
        """Feature dimension of each modality that the run was trained with."""
        file = self.folder / "normalizer.safetensors"
        statistics = load_weights(file, inside=self.folder)
        try:
            self.normalizer = Normalizer.from_state(statistics, self.dims)
        except ValueError as error:
            raise RunError(f"'{file}' is damaged ({error}); train again") from None

    def __repr__(self) -> str:
        data = f"synthetic data (not {self.config.data.name})" if self.synthetic else self.config.data.name
        data = "synthetic data" if data == "synthetic data (not synthetic)" else data
        seeds = ", ".join(map(str, self.seeds))
        text = f"Run({str(self.folder)!r}: {self.config.model.name} on {data}, seeds {seeds}"
        try:
            test = self.metrics["test"]
        except RunError:
            return f"{text}; not finished)"
        names = SELECTABLE[self.config.target.chosen_metrics][:2]
        scores = (f"{name} {test[name]['mean']:.4f} ± {test[name]['std']:.4f}" for name in names if name in test)
        return f"{text}; test {', '.join(scores)})" if test else f"{text}; predicts nothing)"

    @property
    def name(self) -> str:
        """The folder's own name, also where it is given as ``.``."""
        return self.folder.resolve().name

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the run, one training each."""
        return self.config.run.seeds

    @property
    def synthetic(self) -> bool:
        """Whether the run was trained on the synthetic corpus."""
        return bool(self.environment["synthetic"])

    @property
    def extraction(self) -> Extraction | None:
        """How the features of its training were extracted from media; None where the data did not say."""
        return self.environment.get("extraction")

    @property
    def saved(self) -> bool:
        """Whether this is a model that :meth:`save` wrote: without history, states and figures."""
        return self.environment.get("saved") is True

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of ``summary.json``.

        Raises:
            RunError: the run is not finished, or the file is damaged.
        """
        path = self.folder / "summary.json"
        if not exists(path):
            raise RunError(f"'{self.folder}' is not finished: it has no summary.json; finish it with --resume")
        try:
            return read_own_summary(self.folder)
        except ValueError as error:
            raise RunError(f"'{path}' is damaged ({error}); finish the run again with --resume") from None

    @property
    def metrics(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Scores by split and metric, over the seeds: ``metrics["test"]["MAE"]`` has ``mean``, ``std`` and ``values``.

        Raises:
            RunError: the run is not finished.
        """
        return {split: self.summary[split] for split in ("valid", "test")}

    @property
    def history(self) -> list[dict[str, Any]]:
        """The epochs of all seeds in order, a row each: seed, stage, epoch, losses, validation scores.

        Empty for a model that :meth:`save` wrote.

        Raises:
            RunError: the history of a seed is missing or damaged.
        """
        return [] if self.saved else [{"seed": seed, **row} for seed in self.seeds for row in self._epochs(seed)]

    def predict(
        self, x: Input, seeds: int | Sequence[int] | None = None, device: str | None = None, strict: bool = False
    ) -> Answers:
        """Predicts utterances, labeled or not, as the mean over the seeds; features are normalized as in training.

        An utterance that is longer than the model allows is cut into windows, whose predictions are averaged. One that
        cannot be predicted does not stop the others: a note says why, and its row holds NaN.

        Args:
            x: path of a file or of a feature store; a store; utterances; or a dict of arrays by modality
                (:func:`gmsa.runs.inputs.read_inputs` has the details). Features are raw, as those of the training file.
            seeds: seeds to average; all by default.
            device: ``auto``, ``cpu`` or ``cuda``; the config's by default.
            strict: whether an utterance that cannot be predicted is an error.

        Raises:
            RunError: a seed is not of the run, is not finished, or its weights are damaged.
            DataError: the input is missing, unsafe or wrong, or none of its utterances can be predicted.
        """
        from gmsa.runs.predict import predict_with

        with torch_settings_kept():
            return predict_with(self, x, seeds, device, strict)

    def stream(self, seeds: int | Sequence[int] | None = None, device: str | None = None) -> AnswerStream:
        """Opens a stream that answers the utterances of growing dialogues one by one, each from what was said before.

        Args:
            seeds: seeds to average; all by default.
            device: ``auto``, ``cpu`` or ``cuda``; the config's by default.

        Raises:
            RunError: an answer depends on what is said later (``graph.future`` is not 0); or as for :meth:`predict`.
        """
        from gmsa.runs.live.stream import AnswerStream

        return AnswerStream(self, seeds, device)

    def features(self, x: Input, seeds: int | Sequence[int] | None = None, device: str | None = None) -> Embeddings:
        """Representations of utterances from which the models predict, such as for t-SNE: ``[N, C]`` per seed.

        Args:
            x: as for :meth:`predict`.
            seeds: seeds whose models to ask; all by default.
            device: as for :meth:`predict`.

        Raises:
            RunError, DataError: as for :meth:`predict`.
        """
        from gmsa.runs.states import embeddings

        with torch_settings_kept():
            return embeddings(self, x, seeds, device)

    def attention(self, x: Input, seed: int | None = None, device: str | None = None) -> Attention:
        """Attention weights of the last layer of each stream, such as for a heat map over the words.

        In scope ``hierarchical`` of the streams over the dialogues, too: ``dialogue.intra`` and so on.

        Args:
            x: as for :meth:`predict`.
            seed: seed whose model to ask; the run's first by default.
            device: as for :meth:`predict`.

        Raises:
            RunError: the model has no attention; or as for :meth:`predict`.
            DataError: as for :meth:`predict`.
        """
        from gmsa.runs.states import attention

        with torch_settings_kept():
            return attention(self, x, seed, device)

    def explain(
        self,
        x: Input,
        ids: str | Sequence[str] | None = None,
        seeds: int | Sequence[int] | None = None,
        device: str | None = None,
        words: bool = True,
        limit: int | None = None,
    ) -> Explanations:
        """Explains predictions: what each modality and each token contributes to the mean over the seeds.

        Modalities have exact Shapley values, which with a base add up to the prediction. Tokens have integrated
        gradients, or where these do not add up, occlusion; :attr:`~gmsa.explain.Words.faithful` says whether the tokens
        that are named matter more than others. In dialogues the input's other utterances are context.

        Args:
            x: as for :meth:`predict`.
            ids: utterances to explain; all by default.
            seeds: seeds whose models to explain; all by default.
            device: as for :meth:`predict`.
            words: whether to explain tokens, too.
            limit: explain the first ones alone.

        Raises:
            RunError: as for :meth:`predict`.
            DataError: as for :meth:`predict`, or an id is not of the input.
        """
        from gmsa.runs.states import explanations

        with torch_settings_kept():
            return explanations(self, x, ids, seeds, device, words, limit)

    def evaluate(
        self,
        data: str | os.PathLike[str] | None = None,
        missing: str | Sequence[str] | None = None,
        mask_seeds: int | Sequence[int] | None = None,
        seeds: int | Sequence[int] | None = None,
        device: str | None = None,
        out: str | os.PathLike[str] | None = None,
        noise: str | Sequence[str] | None = None,
        split: str | None = None,
        include_training: bool = False,
        context: bool | str = False,
    ) -> Scores:
        """Scores the models on the run's own validation and test split again, or on another labeled file.

        Args:
            data: another labeled file or feature store: its test split, or all of its labeled splits but ``train``
                where it has no test split. The scores are under the split's own name: ``scores["test"]``,
                ``scores["valid"]``, or ``scores["others"]["..."]``.
            missing: score the test split with modalities masked: ``"eta:0,0.3,0.6"``, ``"fixed:all"``, or several.
            mask_seeds: seeds of the masks and of the noise; 0, 1, 2 by default.
            seeds: seeds to score; all by default.
            device: ``auto``, ``cpu`` or ``cuda``; the config's by default.
            out: folder to write tables, figures and predictions into; nothing is written by default. With ``missing``
                it may be the run's own, whose report then has them.
            noise: score the test split with white noise on its features: ``"audio:20dB,10dB,0dB"``, ``"all:10dB"``, or
                several.
            split: split to score, or ``all``.
            include_training: whether utterances that the run was trained on may be scored, as the split ``train``.
            context: score the predictions with linear context, too (:class:`~gmsa.metrics.LinearContext`), fitted on
                the run's validation split: ``True`` for all utterances of a dialogue, ``"past"`` for earlier ones.

        Raises:
            RunError: a seed is not of the run or not finished, the run's own data is not what it was trained on,
                utterances are to be scored that it was trained on, or there is too little to fit context on.
            DataError: the file is missing, unsafe or wrong.
            ConfigError: ``missing``, ``noise`` or ``context`` is wrong, or context is asked for with masks or noise.
        """
        from gmsa.runs.evaluate import evaluate
        from gmsa.runs.robustness import MASK_SEEDS, robustness

        folder = None if out is None else expanded(out)
        if folder is not None:
            check_out_folder(folder)
        file = None if data is None else expanded(data, DataError)
        if missing is None and noise is None:
            if mask_seeds is not None:
                raise ConfigError("mask seeds go with masks; name some, as missing='eta:0,0.3,0.6'")
            with torch_settings_kept():
                return evaluate(self, file, seeds, device, folder, split, include_training, context)
        if context:
            raise ConfigError("context goes without masks and noise; it scores what data.missing of the run masks")
        specs, noises = ([of] if isinstance(of, str) else list(of or ()) for of in (missing, noise))
        own = folder is not None and folder.resolve() == self.folder.resolve()
        where = None if own else folder
        masks = MASK_SEEDS if mask_seeds is None else as_seeds(mask_seeds)
        with torch_settings_kept():
            return robustness(
                self, specs, masks, seeds, device, file, where, folder is not None, noises, split, include_training
            )

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes the trained model: what predicting needs and no more, with a model card ``README.md``.

        That is settings, dimensions, normalizer, summary, the final weights of every seed, and the text encoder, if
        there is one. :func:`gmsa.load` opens it; the folder can be uploaded to the Hugging Face Hub as it is.

        Raises:
            RunError: the run is not finished or is of pre-training alone, or the folder is not empty.
        """
        from gmsa.runs.save import save_model

        return save_model(self, expanded(folder))

    def export(self, file: str | os.PathLike[str], seeds: int | Sequence[int] | None = None) -> Exported:
        """Writes the models as one program of ``torch.export``, which runs without gmsa, for batches of any size.

        It averages the seeds, and is compared with :meth:`predict` on batches of 1 to 64 made-up utterances before it
        is written. :class:`gmsa.ProgramInputs` turns utterances into its inputs.

        Args:
            file: what to write; ``.pt2``, or ``.onnx``, which needs onnx, onnxscript and onnxruntime.
            seeds: seeds to average; all by default.

        Raises:
            RunError: the run cannot be exported, a seed is not of it, or the program predicts otherwise.
        """
        from gmsa.runs.exporting.export import export_run

        with torch_settings_kept():
            return export_run(self, expanded(file), seeds)

    def prepare(self, x: Input) -> list[Utterance]:
        """Utterances as the models take them: the modalities of the run, normalized as in training, without labels.

        Args:
            x: as for :meth:`predict`.

        Raises:
            DataError: the input is missing, unsafe or wrong, or does not fit the run.
        """
        return [
            self.normalizer.apply(u) for u in read_inputs(x, self.dims, self.config, self.extraction).without_labels()
        ]

    def load_model(self, seed: int, device: str | torch.device | None = None) -> nn.Module:
        """The final model of a seed, in evaluation mode, for work that :meth:`predict` does not do.

        It takes batches of utterances that :meth:`prepare` has normalized, and is silently wrong on others::

            batch = gmsa.collate(run.prepare("clips.pkl")[:8], gmsa.graph_spec(run.config))
            output = run.load_model(1)(batch)

        Raises:
            RunError: the seed was not trained, or its weights are damaged or of another model.
        """
        if not isinstance(device, torch.device):
            with torch_settings_kept():
                device = set_up(self.config.run, device)
        weights = self.weights(seed)  # first: memory is given to no model that has none
        model = build_model(self.dims, self.config)
        model.load_state_dict(weights)
        return model.to(device).eval()

    def weights_file(self, seed: int) -> Path:
        """Where the weights of a seed's final model are."""
        return self.folder / f"seed-{seed}" / "model.safetensors"

    def weights(self, seed: int) -> dict[str, Tensor]:
        """The weights of a seed's final model, on the CPU.

        Raises:
            RunError: the seed was not trained, or its weights are damaged or of another model.
            ConfigError: the machine has too little memory for them.
        """
        file = self.weights_file(seed)
        if not exists(file):
            raise RunError(f"'{self.folder}' has no finished seed {seed}; finish it with gmsa.train --resume")
        return load_weights(file, trained_settings(self.config, seed), like=self._form, inside=self.folder)

    @cached_property
    def _form(self) -> dict[str, Tensor]:
        """The names, types and shapes of the model's weights."""
        return model_skeleton(self.dims, self.config).state_dict()

    def chosen_seeds(self, seeds: int | Sequence[int] | None = None) -> tuple[int, ...]:
        """The seeds to use: those given, or all of the run.

        Raises:
            ConfigError: a seed is not a whole number.
            RunError: a seed is not of the run, or the run is of pre-training alone.
        """
        if not build_protocol(self.config).predicts:
            raise RunError(
                f"'{self.folder}' holds pre-trained weights, which predict nothing; train from them with "
                f"--set protocol.init_from={self.folder}"
            )
        chosen = self.seeds if seeds is None else as_seeds(seeds)
        if len(set(chosen)) != len(chosen):
            raise RunError(f"a seed is named twice (got {', '.join(map(str, chosen))}); name each once")
        for seed in chosen:
            if seed not in self.seeds:
                raise RunError(f"'{self.folder}' has no seed {seed}; it has {', '.join(map(str, self.seeds))}")
        return chosen

    def train_seconds(self, seed: int) -> float:
        """Seconds that the seed's epochs took, all stages together.

        Raises:
            RunError: what says so is missing or damaged.
        """
        if self.saved:
            seconds = dict(zip(self.summary["seeds"], self.summary["train_seconds"]["values"], strict=False))
            if seed not in seconds:
                raise RunError(f"'{self.folder / 'summary.json'}' is damaged (it has no seed {seed}); restore it")
            return float(seconds[seed])
        return float(sum(row["seconds"] for row in self._epochs(seed)))

    def _epochs(self, seed: int) -> list[dict[str, Any]]:
        return read_history(self.folder, seed)


def _with_own_encoder(folder: Path, config: Config) -> Config:
    """The settings with the folder of the run's own text encoder; of a frozen one, only if its weights are there.

    The run may be a stranger's: its links must not lead out of it, and it makes gmsa fetch nothing.
    """
    own = folder / ENCODER
    if config.model.text_encoder is None:
        return config
    config = replace(config, text=replace(config.text, download=False))
    weights = [path for path in entries(own) if path.match(WEIGHTS)]
    if config.text.tuning == "frozen" and not weights:
        return config
    for path in (own / CONFIG, own / TOKENIZER, *weights):
        if not exists(path):
            raise RunError(f"'{folder}' is damaged: it has no {ENCODER}/{path.name}; restore it, or train again")
        open_regular(path, inside=folder).close()
    return replace(config, model=replace(config.model, text_encoder=str(own)))


def _check_encoder(run: Run) -> None:
    """Checks that a frozen text encoder, whose weights are not the run's own, is that of the training."""
    if run.config.model.text_encoder is None or run.config.text.tuning != "frozen":
        return
    wanted = str(run.environment.get("encoder_sha256"))
    remedy = f"put its {WHOLE} into '{run.folder / ENCODER}'"
    try:
        found = EncoderFolder(run.config.model.text_encoder).sha256
    except ConfigError as error:
        raise RunError(
            f"'{run.folder}' needs its text encoder (SHA-256 {wanted[:12]}…) to predict: {error}; or {remedy}"
        ) from None
    if found != wanted:
        raise RunError(
            f"'{run.config.model.text_encoder}' is not the text encoder that '{run.folder}' was trained with (SHA-256 "
            f"{found[:12]}…, was {wanted[:12]}…); put that one back, or {remedy}"
        )


def as_run(run: Run | str | os.PathLike[str]) -> Run:
    """The run itself, or that of a folder."""
    return run if isinstance(run, Run) else Run(run)


def save_inputs(
    folder: Path,
    config: Config,
    environment: dict[str, Any],
    normalizer: Normalizer,
    encoder: EncoderFolder | None,
    with_encoder: bool = False,
) -> None:
    """Writes what a run is before it starts: ``config.yaml``, ``environment.json``, ``normalizer.safetensors``, and
    the settings and the tokenizer of its text encoder.

    Args:
        with_encoder: whether to write the weights of the encoder, too.
    """
    save_weights(folder / "normalizer.safetensors", normalizer.state())
    if encoder is not None:
        encoder.save(make_subfolder(folder, ENCODER), with_encoder)
    write_json(folder / "environment.json", environment)
    # Last: a folder with a config.yaml is one that can be resumed.
    write_text(folder / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True))
