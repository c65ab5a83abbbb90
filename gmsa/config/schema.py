"""Settings: frozen dataclasses, read from strict YAML, changed by dotted overrides."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gmsa.config.components import component_name
from gmsa.config.graph import ONE_FOR_ALL, GraphConfig
from gmsa.config.missing import MissingConfig
from gmsa.errors import ConfigError, nearest
from gmsa.registry import CALLBACKS, ENCODERS, LAYERS, METRICS, MODELS, PROTOCOLS, Registry

MODALITIES = ("text", "audio", "vision")
SHARED = {**ONE_FOR_ALL, "missing": MissingConfig}
"""Groups of settings in which one value may stand for several."""
SYNTHETIC = "synthetic"
"""The ``data.path`` that means the embedded synthetic corpus."""


def _number(default: Any, **limits: float) -> Any:
    """A numeric field with limits: ``ge``, ``gt``, ``le`` or ``lt``."""
    return field(default=default, metadata=limits)


def _component(default: Any, registry: Registry[Any]) -> Any:
    """A field that names a part of a registry, ``name`` or ``name(key=value)``, or several."""
    return field(default=default, metadata={"registry": registry})


@dataclass(frozen=True)
class DataConfig:
    path: str = SYNTHETIC
    """File in MMSA's format, or ``synthetic``. ``$GMSA_DATA`` takes its place where it is set."""
    if_missing: Literal["error", "synthetic"] = "error"
    """What to do where ``path`` does not exist: stop, or train on the synthetic corpus."""
    name: str = ""
    """Name of the data set in tables; by default that of the file."""
    labels: Literal["mosi", "sims"] = "mosi"
    """Label scale and metrics: ``mosi`` is [-3, 3] (MOSI, MOSEI), ``sims`` is [-1, 1] (CH-SIMS)."""
    modalities: tuple[Literal["text", "audio", "vision"], ...] = MODALITIES  # type: ignore[assignment]
    """Modalities to use; what the file lacks of them is missing."""
    normalize: tuple[Literal["text", "audio", "vision"], ...] = ("audio", "vision")
    """Modalities that are z-normalized with the training split's observed frames."""
    clip: float = _number(5.0, gt=0)
    """Normalized features are clipped at plus and minus this many standard deviations."""
    label_ratio: float = _number(1.0, gt=0, le=1)
    """Share of the training labels that is used; the other utterances join the unlabeled pool."""
    label_seed: int | None = None
    """Seed that draws the labeled share; the run's own seed where it is not set."""
    missing: MissingConfig = field(default_factory=MissingConfig)
    """Modalities that are masked: ``none``, ``eta:R``, ``sample:R``, ``fixed:ta``, ``frame:R`` or ``frame_uniform`` for
    all splits, or ``{train: ..., valid: ..., test: ...}``."""
    pool: str | None = None
    """File with more unlabeled utterances; labels that it may hold are not used."""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", Path(self.path).stem)


@dataclass(frozen=True)
class ModalityDropout:
    """Probability, per modality, that a present one is hidden in a training step; one always stays."""

    text: float = _number(0.2, ge=0, lt=1)
    audio: float = _number(0.2, ge=0, lt=1)
    vision: float = _number(0.5, ge=0, lt=1)


@dataclass(frozen=True)
class ModelConfig:
    name: str = _component("semi_iin", MODELS)
    """Model to build."""
    layer: str = _component("attention", LAYERS)
    """Layer of message passing in the streams of ``semi_iin`` and ``sslmm``."""
    encoder: str = _component("conv", ENCODERS)
    """Encoder of each modality's steps."""
    channels: int = _number(128, ge=1)
    """Width C of every token."""
    heads: int = _number(8, ge=1)
    """Attention heads; must divide ``channels``."""
    layers: int = _number(2, ge=1)
    """Interaction layers of each stream; for ``sslmm``, alternating blocks."""
    shared_layers: bool = True
    """One set of weights for all layers of a stream, as Semi-IIN has it, or for all blocks."""
    streams: Literal["both", "intra", "inter", "global"] = "both"
    """Which edges messages use: two gated streams, one of them, or one stream over all edges."""
    fusion: Literal["gate", "add", "dot", "concat"] = "gate"
    """How the two streams' readout nodes are joined."""
    order: Literal["intra_first", "inter_first", "simultaneous"] = "intra_first"
    """For ``sslmm``: which edges messages cross first in each block."""
    missing_node: Literal["gated", "silent", "dropped"] = "gated"
    """For ``sslmm`` on video graphs: a missing modality's node sends messages, only receives, or is not even read."""
    dropout: float = _number(0.2, ge=0, lt=1)
    """Dropout after attention and feed-forward."""
    input_dropout: float = _number(0.5, ge=0, lt=1)
    """Dropout on the features before the convolutions."""
    modality_dropout: ModalityDropout = field(default_factory=ModalityDropout)
    """How often a present modality is hidden in a training step."""
    text_convs: tuple[tuple[int, int], ...] = ((3, 1),)
    """Convolutions of the text encoder, as (kernel, stride)."""
    audio_convs: tuple[tuple[int, int], ...] = ((4, 2), (4, 4))
    """Convolutions of the audio encoder, as (kernel, stride)."""
    vision_convs: tuple[tuple[int, int], ...] = ((3, 1),)
    """Convolutions of the vision encoder, as (kernel, stride)."""
    positions: int = _number(512, ge=1)
    """Steps per modality, after striding, for which a position embedding exists."""
    route: Literal["auto", "dense", "edge"] = "auto"
    """How messages are computed: masked dense attention, per edge, or the faster one."""

    def convs(self, modality: str) -> tuple[tuple[int, int], ...]:
        """Convolutions of one modality's encoder, as (kernel, stride)."""
        return typing.cast("tuple[tuple[int, int], ...]", getattr(self, f"{modality}_convs"))

    @property
    def seen_streams(self) -> tuple[str, ...]:
        """Streams of edges that the model reads: ``intra``, ``inter``, or ``global`` for both in one."""
        if self.name in ("late_fusion", "global"):
            return ()
        return ("intra", "inter") if self.name == "hgt" or self.streams == "both" else (self.streams,)

    @property
    def readout_nodes(self) -> bool:
        """Whether the model's graphs have the nodes ``val`` and ``cls``."""
        return self.name != "sslmm"

    @property
    def route_taken(self) -> str:
        """``route``, or ``edge`` for a model that takes no other."""
        return "edge" if self.name == "hgt" else self.route

    @property
    def strides(self) -> dict[str, int]:
        """Steps of each modality that its encoder turns into one token."""
        return {m: math.prod(stride for _, stride in self.convs(m)) for m in MODALITIES}


@dataclass(frozen=True)
class OptimConfig:
    name: Literal["adam", "adamw"] = "adamw"
    """Optimizer."""
    lr: float = _number(1e-3, gt=0)
    """Peak learning rate (the paper: 1e-4)."""
    weight_decay: float = _number(0.01, ge=0)
    """Weight decay of the optimizer."""
    epochs: int = _number(12, ge=1)
    """Passes over the examples in each training stage."""
    min_steps: int = _number(100, ge=0)
    """Least optimizer steps of a stage: with few labels, more epochs are run until then."""
    batch_size: int = _number(32, ge=1)
    """Utterances in a step."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Course of the learning rate after the warm-up."""
    warmup: float = _number(0.3, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly from zero."""
    clip_norm: float = _number(1.0, ge=0)
    """Largest norm of the gradient; 0 turns clipping off."""
    patience: int = _number(0, ge=0)
    """Epochs without a better validation score before a stage stops; 0 never stops early."""
    ema: float = _number(0.99, ge=0, lt=1)
    """Decay of the moving average of the weights, which is what is validated and kept; 0 is off.

    After t updates it is at most (1 + t) / (10 + t).
    """
    amp: Literal["auto", "off", "bf16"] = "auto"
    """Mixed precision: bfloat16 on CUDA for ``auto``, float32 elsewhere."""


@dataclass(frozen=True)
class LossConfig:
    value_weight: float = _number(0.6, ge=0, le=1)
    """The paper's lambda_1: weight of the intensity loss; the class loss has the rest."""


@dataclass(frozen=True)
class ProtocolConfig:
    name: str = _component("self_training", PROTOCOLS)
    """How the model learns: from labels (``supervised``); as Semi-IIN has it (``self_training``); as the student of
    several teachers (``distillation``); from labels and its own moving average (``sslmm``); or from features alone, to
    be the start of another run (``pretrain``, see ``init_from``)."""
    init_from: str | None = None
    """Run folder of the protocol ``pretrain`` whose weights a run starts from, seed by seed."""


@dataclass(frozen=True)
class SelfTrainingConfig:
    """Settings of the protocol ``self_training`` (Semi-IIN, Algorithm 1)."""

    weight: float = _number(0.2, ge=0)
    """The paper's lambda_2: weight of the class loss on pseudo-labels."""
    rounds: int = _number(1, ge=1)
    """Times that the pool is labeled and the model trained on from its weights."""
    k: int | Literal["all"] = _number(40, ge=0)
    """Most confident pseudo-labels kept per class, or ``all``; 0 is the control without any."""
    threshold: float = _number(0.0, ge=0, lt=1)
    """Least confidence of a pseudo-label; 0 is off."""


@dataclass(frozen=True)
class DistillationConfig:
    """Settings of the protocol ``distillation``."""

    teachers: int = _number(3, ge=1)
    """Models whose mean prediction the student learns."""


@dataclass(frozen=True)
class ConsistencyConfig:
    """Settings of the protocol ``sslmm``: agreement with the moving average of the model's own weights."""

    weight: float = _number(1.0, ge=0)
    """Weight of the distance to the teacher, once it has risen."""
    ramp: float = _number(0.4, ge=0, le=1)
    """Share of the steps over which ``weight`` rises linearly from 0."""
    confident_share: float = _number(0.7, gt=0, le=1)
    """Share of each batch, the most certain by the teacher's variance, that learns from the teacher."""
    passes: int = _number(4, ge=2)
    """Passes of the teacher with dropout, whose mean is the target and whose variance its certainty."""


@dataclass(frozen=True)
class ReconstructionConfig:
    """Reconstruction of the features of missing modalities, with any model and protocol."""

    weight: float = _number(0.0, ge=0)
    """Weight of the reconstruction loss; 0 is off."""
    target: Literal["observed_only", "oracle"] = "observed_only"
    """What is reconstructed: modalities that are there and dropped in training (``model.modality_dropout``), or also
    the true features of those that ``data.missing`` masks."""


@dataclass(frozen=True)
class PretrainConfig:
    epochs: int = _number(0, ge=0)
    """Passes over all training utterances, without labels, before the protocol's own stages; 0 is off."""
    mask: float = _number(0.5, gt=0, lt=1)
    """Share of each utterance's tokens that is masked; of its modalities in video graphs, where one always stays."""
    contrast_weight: float = _number(0.5, ge=0)
    """Weight of telling utterances apart by random subsets of their modalities, beside reconstructing the masked."""
    temperature: float = _number(0.07, gt=0)
    """Temperature of that contrast."""


@dataclass(frozen=True)
class RunConfig:
    seeds: tuple[int, ...] = (1111,)
    """One training per seed; results are given as mean and standard deviation."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; ``auto`` is CUDA where it is available, else the CPU."""
    threads: int = _number(1, ge=1)
    """Threads on the CPU. At this size more hardly help, and each number of them rounds differently."""
    workers: int = _number(0, ge=0)
    """Processes that build training batches ahead; 0 builds them where they are used (on CUDA, in a thread)."""
    save_every: float = _number(300.0, gt=0)
    """Seconds after which the state is saved also in the middle of an epoch; at the end of each it always is."""
    deterministic: bool = False
    """Allow no operation of which two runs on the same GPU differ; slower there. On a CPU there is none."""
    compile: bool = False
    """Compile the model with ``torch.compile`` before training it: minutes at first, and other rounding."""
    out: str = "runs/{name}"
    """Run folder; ``{name}`` stands for the name of the config file."""
    select: str = "MAE"
    """Metric of the validation split that chooses the checkpoint: MAE, Corr, or one of ``metrics``."""
    metrics: tuple[str, ...] = _component((), METRICS)
    """Further metrics beside those of the label scale."""
    callbacks: tuple[str, ...] = _component((), CALLBACKS)
    """Callbacks that follow the training, such as ``tensorboard`` or ``wandb(project=mine)``."""


@dataclass(frozen=True)
class Config:
    """All settings of a run, one dataclass per concern."""

    data: DataConfig = field(default_factory=DataConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
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
        if model.name == "sslmm" and model.streams == "global":
            raise ConfigError("'model.streams' of sslmm must be both, intra or inter (got global)")
        if self.protocol.name == "sslmm" and not self.optim.ema:
            raise ConfigError("'protocol.name: sslmm' has the moving average as its teacher; set 'optim.ema' above 0")
        if self.protocol.name == "pretrain" and not self.pretrain.epochs:
            raise ConfigError("'protocol.name: pretrain' needs 'pretrain.epochs' above 0, for example 20")
        nothing_hidden = len(data.modalities) < 2 or not any(
            getattr(model.modality_dropout, m) for m in data.modalities
        )
        if self.reconstruction.target == "oracle":
            nothing_hidden = nothing_hidden and data.missing.train == "none"
        if self.reconstruction.weight and nothing_hidden:
            raise ConfigError(
                "'reconstruction.weight' has nothing to reconstruct: hide modalities in training by "
                "'model.modality_dropout', or by 'data.missing.train' with 'reconstruction.target: oracle'"
            )
        if self.pretrain.epochs and self.graph.scope == "video" and len(data.modalities) < 2:
            raise ConfigError(
                "'pretrain.epochs' masks whole modalities in video graphs, of which 'data.modalities' has one; "
                "set it to 0, or 'graph.scope' to utterance"
            )
        if self.protocol.init_from is not None and self.pretrain.epochs:
            raise ConfigError("'protocol.init_from' and 'pretrain.epochs' both say where to start; leave one out")
        for modality in MODALITIES:
            key = f"model.{modality}_convs"
            if not model.convs(modality):
                raise ConfigError(f"'{key}' must name at least one [kernel, stride] pair")
            for kernel, stride in model.convs(modality):
                if not 1 <= stride <= kernel:
                    raise ConfigError(f"'{key}' needs 1 <= stride <= kernel (got kernel {kernel}, stride {stride})")
        selectable = ("MAE", "Corr", *map(component_name, run.metrics))
        if run.select not in selectable:
            raise ConfigError(
                f"'run.select' must be one of {', '.join(selectable)} (got '{run.select}')"
                f"{nearest(run.select, selectable)}; name another metric in 'run.metrics' first"
            )
        for key, chosen in (("data.modalities", data.modalities), ("run.seeds", run.seeds)):
            if not chosen:
                raise ConfigError(f"'{key}' must not be empty")
            if len(set(chosen)) != len(chosen):
                raise ConfigError(f"'{key}' names a value twice (got {list(chosen)})")
