"""The schema of all settings: frozen dataclasses, one per concern."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from gmsa.config.components import component_name, parse_component
from gmsa.config.data import DataConfig
from gmsa.config.fields import ByModality, by_modality, component, number
from gmsa.config.graph import WHOLE, GraphConfig
from gmsa.config.missing import Missing
from gmsa.config.presets import CONVS, DROPOUT, MODALITIES, MOST_MODALITIES, OTHERS
from gmsa.config.target import AUTO, SELECTABLE, SELECTED, TargetConfig
from gmsa.errors import ConfigError, cut, listed, nearest, shown
from gmsa.registry import CALLBACKS, ENCODERS, LAYERS, METRICS, MODELS, PROTOCOLS

Convs = tuple[tuple[int, int], ...]
"""Convolutions of an encoder, as (kernel, stride)."""
STREAMS = ("intra", "inter", "global")
"""Streams that may have a layer of their own."""
MANY = 1_000_000
"""Epochs, steps and utterances of a batch, at most."""
MOST_CONVS, MOST_KERNEL, MOST_STEPS = 64, 1000, 1_000_000
"""Convolutions of an encoder, steps that one reads, and steps per token, at most."""


@dataclass(frozen=True)
class ModelConfig:
    """The model and its size."""

    name: str = component("semi_iin", MODELS)
    """Model to train."""
    layer: ByModality[str] = by_modality({OTHERS: "attention"}, LAYERS, by="stream")
    """Layer of message passing in the streams of a model: one for all, or by stream, as ``{intra: gatv2, inter:
    rgcn(bases=4)}``."""
    encoder: str = component("conv", ENCODERS)
    """Encoder of each modality's steps."""
    channels: int = number(128, ge=1, le=65_536)
    """Width C of every token."""
    heads: int = number(8, ge=1, le=1024)
    """Attention heads; must divide ``channels``."""
    layers: int = number(2, ge=1, le=128)
    """Interaction layers of each stream; for ``sslmm``, alternating blocks."""
    shared_layers: bool = True
    """Whether all layers of a stream, or all blocks, share their weights, as in Semi-IIN."""
    streams: Literal["both", "intra", "inter", "global"] = "both"
    """Streams of message passing: intra and inter, one of them, or one stream over all edges."""
    fusion: Literal["gate", "add", "dot", "concat"] = "gate"
    """How the readout nodes of the two streams are fused."""
    order: Literal["intra_first", "inter_first", "simultaneous"] = "intra_first"
    """For ``sslmm``: order of intra-modal and inter-modal messages in each block."""
    missing_node: Literal["gated", "silent", "dropped"] = "gated"
    """For ``sslmm`` on graphs of dialogues: whether the node of a missing modality sends messages through a gate, only
    receives, or is left out."""
    dropout: float = number(0.2, ge=0, lt=1)
    """Dropout after attention and feed-forward layers."""
    input_dropout: float = number(0.5, ge=0, lt=1)
    """Dropout on the features before the convolutions."""
    modality_dropout: ByModality[float] = by_modality(DROPOUT, ge=0, lt=1)
    """Probability that a modality is dropped in a training step, of which one always stays: one for all, or by
    modality, as ``{text: 0.2, others: 0.5}``."""
    encoders: ByModality[Convs] = by_modality(CONVS)
    """Convolutions of each modality's encoder, as (kernel, stride): one list for all, or by modality, as
    ``{eeg: [[4, 2], [4, 4]], others: [[3, 1]]}``. After the first, (0, s) is the maximum over s steps."""
    tokens: int = number(0, ge=0, le=1_000_000)
    """Tokens of a modality that 95 % of the training utterances may have at most: of one with more, the largest of
    several becomes a token, as the run's ``config.yaml`` says in ``encoders``; 0 sets no bound."""
    context_layers: int = number(1, ge=1, le=128)
    """In scope ``hierarchical``: layers over the graph of a dialogue, each stream's, or for ``sslmm`` blocks."""
    propagation: float = number(0.1, ge=0, le=1)
    """In scope ``hierarchical``: weight, from which training starts, of what is predicted of the utterances before, of
    those after and of the whole dialogue, all added to what is predicted of each utterance; 0 leaves them out."""
    sequence: Literal["none", "gru", "transformer"] = "none"
    """Encoder of a dialogue's utterances, modality by modality, before its graph."""
    positions: int = number(512, ge=1, le=1_000_000)
    """Position embeddings per modality: the maximum number of steps after striding."""
    route: Literal["auto", "dense", "edge"] = "auto"
    """How messages are computed: by dense masked attention, edge by edge, or by the faster of the two."""
    text_encoder: str | None = None
    """Folder of a Hugging Face text encoder, a package that holds one, or its id on the Hub: its states of the
    transcripts are the features of ``text``, in the place of those of the file. The group ``text`` says how."""

    def __post_init__(self) -> None:
        if not isinstance(self.layer, ByModality):
            layer = {OTHERS: self.layer} if isinstance(self.layer, str) else {OTHERS: "attention", **self.layer}
            object.__setattr__(self, "layer", ByModality(layer))
        for stream, spec in self.layer.items():
            if stream not in (*STREAMS, OTHERS):
                raise ConfigError(
                    f"'model.layer' has no stream '{cut(stream)}'{nearest(stream, STREAMS)}; name one of "
                    f"{listed(STREAMS)}, or {OTHERS}"
                )
            parse_component(spec, LAYERS, "model.layer" if len(self.layer) == 1 else f"model.layer.{stream}")

    def convs(self, modality: str) -> Convs:
        """Convolutions of one modality's encoder, as (kernel, stride)."""
        return self.encoders.of(modality)

    def stride(self, modality: str) -> int:
        """Steps per token of one modality's encoder."""
        return math.prod(stride for _, stride in self.convs(modality))

    def bounded(self, steps: Mapping[str, int]) -> ModelConfig:
        """These settings with encoders that keep to ``tokens``.

        Of a modality with too many, a token becomes the maximum of ``ceil(L / (s T))`` of them, feature by feature: L
        steps, s steps per token before, T tokens at most.

        Args:
            steps: of each modality, which 95 % of the utterances do not exceed.
        """
        if not self.tokens:
            return self
        factors = {m: -(-length // (self.stride(m) * self.tokens)) for m, length in steps.items()}
        changed = {m: (*self.convs(m), (0, factor)) for m, factor in factors.items() if factor > 1}
        return replace(self, encoders=ByModality({**self.encoders, **changed})) if changed else self

    def may_become(self, encoders: ByModality[Convs]) -> bool:
        """Whether :meth:`bounded` gives these encoders for some lengths."""
        names = {*self.encoders, *encoders}
        pairs = [(self.encoders.of(name), encoders.of(name)) for name in names]
        return bool(self.tokens) and all(now in (then, (*then, (0, now[-1][1]))) for then, now in pairs)


@dataclass(frozen=True)
class TextConfig:
    """How ``model.text_encoder`` reads transcripts."""

    tuning: Literal["full", "lora", "frozen"] = "full"
    """What of the encoder is trained with the rest: its weights, low-rank additions to them (LoRA), or nothing, so that
    its states are computed once and kept in a cache."""
    nodes: Literal["pieces", "words", "transcript"] = "pieces"
    """What a node of text is: a word piece; or a word or the whole transcript, whose state is the mean over its
    pieces."""
    source: Literal["raw_text", "text_bert"] = "raw_text"
    """What is read: the transcripts, or the word pieces in the file's ``text_bert``, which the encoder's own tokenizer
    must have made."""
    most: int = number(128, ge=1, le=100_000)
    """Word pieces of an utterance, at most; what is longer is cut, and a note says so."""
    dropout: float = number(0.0, ge=0, lt=1)
    """Share of the word pieces, or with ``nodes: words`` of the words, that a training step replaces by the tokenizer's
    mask piece. Whatever teaches sees all words."""
    frozen_layers: int = number(1, ge=0, le=1000)
    """Layers of the encoder that stay as they are while the others are trained, from below: 1 is its embeddings (of
    word pieces, places and what else there is below the first layer), 2 these and the first layer; 0 trains all."""
    lora_rank: int = number(8, ge=1, le=4096)
    """Rank of the additions where ``tuning`` is ``lora``."""
    checkpointing: bool = False
    """Whether the encoder's layers are computed again in the backward pass, which takes less memory and more time."""
    download: bool = False
    """Whether an encoder that is named by its id may be fetched from the Hub; else it must be in the local cache."""

    def __post_init__(self) -> None:
        if self.source == "text_bert" and self.nodes == "words":
            raise ConfigError(
                "'text.nodes: words' needs the transcripts: 'text_bert' does not say which word pieces are a word; set "
                "it to pieces, or 'text.source' to raw_text"
            )


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer, learning rate and batches of each training stage."""

    name: Literal["adam", "adamw"] = "adamw"
    """Optimizer."""
    lr: float = number(1e-3, gt=0)
    """Peak learning rate (the paper: 1e-4)."""
    encoder_lr: float = number(1e-4, gt=0)
    """Peak learning rate of the text encoder (``model.text_encoder``)."""
    encoder_warmup: float = number(0.1, ge=0, lt=1)
    """Share of the steps over which the text encoder's rate rises linearly from zero."""
    encoder_decay: float = number(1.0, gt=0, le=1)
    """Factor of the text encoder's rate from each of its layers to the one below it."""
    weight_decay: float = number(0.01, ge=0)
    """Weight decay of the optimizer."""
    epochs: int = number(12, ge=1, le=MANY)
    """Epochs of each training stage."""
    min_steps: int = number(100, ge=0, le=MANY)
    """Minimum number of optimizer steps per stage; with few labels, further epochs are run."""
    batch_size: int = number(32, ge=1, le=MANY)
    """Utterances per batch."""
    shard_window: int = number(0, ge=0, le=MANY)
    """Shards of a feature store that are shuffled together, so that an epoch reads few files at a time; 0: all."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Course of the learning rate after the warm-up."""
    warmup: float = number(0.3, ge=0, lt=1)
    """Share of the steps over which the learning rate rises linearly from zero."""
    clip_norm: float = number(1.0, ge=0)
    """Maximum norm of the gradient; 0 disables clipping."""
    patience: int = number(0, ge=0, le=MANY)
    """Epochs without a better validation score after which a stage stops; 0 disables early stopping."""
    ema: float = number(0.99, ge=0, lt=1)
    """Decay of the moving average of the weights, which is validated and saved; 0 disables it.

    After t updates it is at most (1 + t) / (10 + t).
    """
    amp: Literal["auto", "off", "bf16"] = "auto"
    """Mixed precision: bfloat16 on CUDA for ``auto``, float32 elsewhere; a CPU refuses ``bf16`` where it is slower."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses."""

    value_weight: float = number(0.6, ge=0, le=1)
    """Weight of the intensity loss, the paper's lambda_1; the class loss has the rest. Classes have theirs alone."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weights of the classes in their loss: ``balanced`` weighs each by 1 / (K x its share of the training labels)."""
    alone_weight: float = number(0.5, ge=0)
    """In scope ``hierarchical``: weight of the same losses on what each utterance's own graph predicts, without
    context."""
    unimodal_weight: float = number(0.0, ge=0)
    """Weight of the loss on labels of single modalities (CH-SIMS), each predicted by a head of its own; 0 disables
    them."""


@dataclass(frozen=True)
class ProtocolConfig:
    """The training protocol, and the weights to start from."""

    name: str = component("self_training", PROTOCOLS)
    """Training protocol: ``supervised`` learns from labels; ``self_training`` is Semi-IIN's; ``distillation`` trains a
    student of several teachers; ``sslmm`` learns from labels and its own moving average; ``pretrain`` learns from
    features alone, for ``init_from`` of other runs."""
    init_from: str | None = None
    """Run folder of a ``pretrain`` run whose weights initialize this run, seed by seed."""


@dataclass(frozen=True)
class SelfTrainingConfig:
    """Settings of the protocol ``self_training`` (Semi-IIN, Algorithm 1)."""

    weight: float = number(0.2, ge=0)
    """Weight of the class loss on pseudo-labels, the paper's lambda_2."""
    rounds: int = number(1, ge=1, le=1000)
    """Rounds of pseudo-labeling the pool and training on from the current weights."""
    k: int | Literal["all"] = number(40, ge=0)
    """Number of most confident pseudo-labels to keep per class, or ``all``; 0 is the control without pseudo-labels."""
    threshold: float = number(0.0, ge=0, lt=1)
    """Minimum confidence of a pseudo-label; 0 disables the threshold."""


@dataclass(frozen=True)
class DistillationConfig:
    """Settings of the protocol ``distillation``."""

    teachers: int = number(3, ge=1, le=1000)
    """Number of teachers, whose mean prediction the student learns."""


@dataclass(frozen=True)
class ConsistencyConfig:
    """Settings of the protocol ``sslmm``: agreement with the moving average of the model's own weights."""

    weight: float = number(1.0, ge=0)
    """Weight of the distance to the teacher after the ramp."""
    ramp: float = number(0.4, ge=0, le=1)
    """Share of the steps over which ``weight`` rises linearly from 0."""
    confident_share: float = number(0.7, gt=0, le=1)
    """Share of each batch that learns from the teacher: the utterances with the lowest teacher variance."""
    passes: int = number(1, ge=1, le=1000)
    """Forward passes of the teacher with dropout; their mean is the target, their variance its uncertainty: with 1,
    that of its prediction and the student's."""


@dataclass(frozen=True)
class ReconstructionConfig:
    """Reconstruction of the features of missing modalities, with any model and protocol."""

    weight: float = number(0.0, ge=0)
    """Weight of the reconstruction loss; 0 disables it."""
    target: Literal["observed_only", "oracle"] = "observed_only"
    """What to reconstruct: modalities that ``model.modality_dropout`` drops, or also the true features of those that
    ``data.missing`` masks."""
    of: Literal["features", "states"] = "features"
    """What of a hidden modality: the mean of its features, which of text with a trained encoder are the teacher's
    states, or the mean of what the teacher's own encoder (``model.encoder``) makes of them. The teacher is the moving
    average of the weights (``optim.ema``), else the model itself."""


@dataclass(frozen=True)
class PretrainConfig:
    """Self-supervised pre-training before the stages of the protocol."""

    epochs: int = number(0, ge=0, le=MANY)
    """Epochs of pre-training on all training utterances, without labels, before the protocol; 0 disables it."""
    mask: float = number(0.5, gt=0, lt=1)
    """Share of each utterance's tokens to mask; in scope ``dialogue``, of its modalities, of which one stays; in scope
    ``hierarchical``, of the modalities of all utterances of a dialogue, of which one stays."""
    contrast_weight: float = number(0.5, ge=0)
    """Weight of the contrastive loss between random subsets of the modalities, beside the reconstruction of masked
    tokens."""
    contrast: Literal["subsets", "masked"] = "masked"
    """Which two views of an utterance the contrastive loss compares: two random ``subsets`` of its modalities, or one
    and the ``masked`` utterance, whose reconstruction then shares its pass with the contrast."""
    temperature: float = number(0.07, gt=0)
    """Temperature of the contrastive loss."""


@dataclass(frozen=True)
class RunConfig:
    """Seeds, device, output folder and metrics of a run."""

    seeds: tuple[int, ...] = (1111,)
    """Random seeds, one training each; results are the mean and standard deviation over seeds."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; ``auto`` is CUDA where it is available, else the CPU."""
    threads: int = number(1, ge=1, le=256)
    """CPU threads; more are hardly faster for small models, and each number rounds differently."""
    workers: int = number(0, ge=0, le=256)
    """Processes that prefetch training batches; 0 builds them in the training process (on CUDA, in a thread)."""
    save_every: float = number(300.0, gt=0)
    """Seconds between saves of the state within an epoch; it is also saved after each epoch."""
    deterministic: bool = False
    """Whether to use only deterministic operations on CUDA, which are slower; on a CPU all are deterministic."""
    cuda_graphs: bool = False
    """Whether a GPU records training steps and replays them, where the shapes of a batch alone decide what a step does.

    A step is up to eight times as fast then; batches are rounded up to few shapes. New, and tried on one GPU alone.
    """
    compile: bool = False
    """Whether to compile the model with ``torch.compile``, which takes minutes at first and rounds differently."""
    out: str = "runs/{name}"
    """Run folder; ``{name}`` stands for the name of the config file."""
    select: str = AUTO
    """Validation metric that selects the checkpoint: ``auto`` is MAE, for classes weighted_F1; MAE, Corr, for classes
    accuracy, weighted_F1, macro_F1, unweighted_accuracy; or one of ``metrics``."""
    metrics: tuple[str, ...] = component((), METRICS)
    """Metrics to report beside those of the target."""
    callbacks: tuple[str, ...] = component((), CALLBACKS)
    """Training callbacks, such as ``tensorboard`` or ``wandb(project=mine)``."""


@dataclass(frozen=True)
class Config:
    """All settings of a run, one dataclass per concern."""

    data: DataConfig = field(default_factory=DataConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    text: TextConfig = field(default_factory=TextConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    self_training: SelfTrainingConfig = field(default_factory=SelfTrainingConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    run: RunConfig = field(default_factory=RunConfig)
    plugins: tuple[str, ...] = ()
    """Modules that register parts of your own (models, edge builders, protocols, metrics, callbacks)."""

    def __post_init__(self) -> None:
        model, data, run = self.model, self.data, self.run
        if model.channels % model.heads:
            raise ConfigError(
                f"'model.channels' must be divisible by 'model.heads' (got {model.channels} and {model.heads})"
            )
        one = data.modalities != AUTO and len(data.modalities) < 2
        nothing_hidden = one or not any(model.modality_dropout.of(m) for m in self.named_modalities)
        if self.reconstruction.target == "oracle":
            nothing_hidden = nothing_hidden and data.missing.train == "none"
        if self.reconstruction.weight and nothing_hidden:
            raise ConfigError(
                "'reconstruction.weight' has nothing to reconstruct: hide modalities in training by "
                "'model.modality_dropout', or by 'data.missing.train' with 'reconstruction.target: oracle'"
            )
        if self.pretrain.epochs and self.graph.scope == "dialogue" and one:
            raise ConfigError(
                "'pretrain.epochs' masks whole modalities in graphs of dialogues, of which 'data.modalities' has one; "
                "set it to 0, or 'graph.scope' to utterance or hierarchical"
            )
        if self.pretrain.epochs and one and self.trains_text_encoder and self.text.nodes == "transcript":
            raise ConfigError(
                "'pretrain.epochs' masks some nodes of an utterance, of which 'text.nodes: transcript' gives one and "
                "'data.modalities' no other; set it to 0, or 'text.nodes' to pieces"
            )
        if self.protocol.init_from is not None and self.pretrain.epochs:
            raise ConfigError("'protocol.init_from' and 'pretrain.epochs' both say where to start; leave one out")
        past, future = self.graph.reach
        if self.graph.has_dialogues and model.sequence == "gru" and (past < WHOLE or 0 < future < WHOLE):
            raise ConfigError(
                "'model.sequence: gru' reaches all utterances of a dialogue; set 'graph.past' to all, and "
                "'graph.future' to all or to 0, or 'model.sequence' to transformer, which keeps to their reach"
            )
        self._check_modalities()
        for modality, convs in model.encoders.items():
            _check_convs(convs, f"model.encoders.{modality}")
        selectable = (AUTO, *SELECTABLE[self.target.chosen_metrics], *map(component_name, run.metrics))
        if run.select not in selectable:
            raise ConfigError(
                f"'run.select' must be one of {listed(selectable)} (got {shown(run.select)})"
                f"{nearest(run.select, selectable)}; name another metric in 'run.metrics' first"
            )
        for key, chosen in (("data.modalities", data.modalities), ("run.seeds", run.seeds)):
            if not chosen:
                raise ConfigError(f"'{key}' must not be empty")
            if len(set(chosen)) != len(chosen):
                raise ConfigError(f"'{key}' lists a value twice (got {shown(list(chosen))})")

    @property
    def trains_text_encoder(self) -> bool:
        """Whether a text encoder is trained with the rest: the features of ``text`` are numbers of word pieces then."""
        return self.model.text_encoder is not None and self.text.tuning != "frozen"

    @property
    def named_modalities(self) -> tuple[str, ...]:
        """The modalities of ``data.modalities``; those of the presets and of other settings where it is ``auto``."""
        if isinstance(self.data.modalities, tuple):
            return self.data.modalities
        return tuple(dict.fromkeys((*MODALITIES, *self.model.encoders.named, *self.model.modality_dropout.named)))

    @property
    def select(self) -> str:
        """The validation metric that selects the checkpoint."""
        return SELECTED[self.target.chosen_metrics] if self.run.select == AUTO else self.run.select

    def _check_modalities(self) -> None:
        """Checks the names in ``data.modalities`` and in the settings by modality."""
        data = self.data
        for key in ("modalities", "normalize"):
            for name in getattr(data, key) if getattr(data, key) != AUTO else ():
                check_modality(name, f"data.{key}")
        if data.modalities == AUTO:
            return
        for split in data.missing.one_for_all:
            check_missing(data.missing.of(split), data.modalities, f"data.missing.{split}")
        if len(data.modalities) > MOST_MODALITIES:
            raise ConfigError(f"'data.modalities' lists {len(data.modalities)}; at most {MOST_MODALITIES} are used")
        known = dict.fromkeys((*data.modalities, *MODALITIES))
        pairs = [f"{a}_to_{b}" for a in known for b in known if a != b]
        for key, names, allowed in (
            ("model.encoders", self.model.encoders.named, known),
            ("model.modality_dropout", self.model.modality_dropout.named, known),
            ("graph.intra", self.graph.intra.named, known),
            ("graph.inter", self.graph.inter.named, pairs),
        ):
            for name in names:
                if name not in allowed:
                    raise ConfigError(
                        f"unknown key '{key}.{cut(name)}'{nearest(name, allowed)}: 'data.modalities' has "
                        f"{listed(data.modalities)}; add the modality there, or leave the key out"
                    )
        for name in () if data.normalize == AUTO else data.normalize:
            if name not in known:
                raise ConfigError(
                    f"'data.normalize' names {shown(name)}{nearest(name, known)}, which is none of 'data.modalities' "
                    f"({listed(data.modalities)}); leave it out"
                )


def check_missing(missing: Missing, modalities: Sequence[str], key: str) -> None:
    """Checks that a protocol of missing modalities fits the modalities of a data set.

    Raises:
        ConfigError: its rate cannot be reached, or it keeps all of them, or one that is not there.
    """
    count = len(modalities)
    if missing.protocol == "eta" and missing.rate > 1 - 1 / count + 0.005:  # 0.67 is meant as two thirds
        raise ConfigError(
            f"'{key}': eta takes a rate from 0 to {1 - 1 / count:.4g} with {count} modalities, of which one always "
            f"stays (got eta:{missing.rate:g})"
        )
    if missing.protocol == "fixed":
        for name in missing.left:
            if name not in (*modalities, *MODALITIES):
                raise ConfigError(
                    f"'{key}': fixed keeps {shown(name)}{nearest(name, modalities)}, which is none of "
                    f"{listed(modalities)}"
                )
        if set(modalities) <= set(missing.left):
            raise ConfigError(f"'{key}': {missing} keeps every modality; name fewer, or use none")


def check_modality(name: str, key: str) -> None:
    """Refuses a name that no modality may have.

    Raises:
        ConfigError: it is not letters, digits and underscores, or a word that means something else in settings.
    """
    if _DEVICES.fullmatch(name):
        raise ConfigError(f"'{key}': Windows keeps the name {shown(name)} for itself; rename the modality")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name) or "_to_" in name or name in _RESERVED:
        raise ConfigError(
            f"'{key}': a modality's name begins with a letter and has letters, digits and underscores, not "
            f"{', '.join(_RESERVED)} or '_to_' (got {shown(name)})"
        )


_DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)
"""Names that no file may have on Windows."""
_RESERVED = (OTHERS, AUTO, "val", "cls", "dialogue", "all", "none", "id", "ids", "label", "steps", "training")


def _check_convs(convs: Convs, key: str) -> None:
    if not convs:
        raise ConfigError(f"'{key}' must name at least one [kernel, stride] pair")
    if len(convs) > MOST_CONVS:
        raise ConfigError(f"'{key}' must name at most {MOST_CONVS} convolutions")
    if math.prod(stride for _, stride in convs) > MOST_STEPS:
        raise ConfigError(f"'{key}' must have strides whose product is at most {MOST_STEPS:,}")
    for place, (kernel, stride) in enumerate(convs):
        if place and kernel == 0 and stride >= 1:  # a maximum
            continue
        if kernel > MOST_KERNEL:
            raise ConfigError(f"'{key}' must have kernels of at most {MOST_KERNEL:,} steps (got {kernel})")
        if not 1 <= stride <= kernel:
            raise ConfigError(
                f"'{key}' needs 1 <= stride <= kernel (got kernel {kernel}, stride {stride}); a kernel of 0, after the "
                "first, takes the maximum"
            )
