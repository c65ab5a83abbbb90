"""The schema of all settings: frozen dataclasses, one per concern."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gmsa.config.components import component_name
from gmsa.config.graph import ONE_FOR_ALL, GraphConfig
from gmsa.config.missing import MissingConfig
from gmsa.errors import ConfigError, listed, nearest, shown
from gmsa.registry import CALLBACKS, ENCODERS, LAYERS, METRICS, MODELS, PROTOCOLS, Registry

MODALITIES = ("text", "audio", "vision")
SHARED = {**ONE_FOR_ALL, "missing": MissingConfig}
"""Groups of settings for all of which one value may stand."""
MANY = 1_000_000
"""Epochs, steps and utterances of a batch, at most."""
MOST_CONVS, MOST_KERNEL, MOST_STEPS = 64, 1000, 1_000_000
"""Convolutions of an encoder, steps that one reads, and steps per token, at most."""
SYNTHETIC = "synthetic"
"""Value of ``data.path`` for the embedded synthetic corpus."""


def _number(default: Any, **limits: float) -> Any:
    """A numeric field with limits ``ge``, ``gt``, ``le`` or ``lt``."""
    return field(default=default, metadata=limits)


def _component(default: Any, registry: Registry[Any]) -> Any:
    """A field that names one or several parts of a registry, as ``name`` or ``name(key=value)``."""
    return field(default=default, metadata={"registry": registry})


@dataclass(frozen=True)
class DataConfig:
    """Which data to use, how to normalize it, and which labels and modalities to withhold."""

    path: str = SYNTHETIC
    """Data file or feature store, or ``synthetic``; ``$GMSA_DATA`` overrides it."""
    if_missing: Literal["error", "synthetic"] = "error"
    """Where ``path`` does not exist: stop with an error, or train on the synthetic corpus."""
    name: str = ""
    """Name of the data set in tables; by default that of the file."""
    labels: Literal["mosi", "sims"] = "mosi"
    """Label scale and metrics: ``mosi`` is [-3, 3] (MOSI, MOSEI), ``sims`` is [-1, 1] (CH-SIMS)."""
    modalities: tuple[Literal["text", "audio", "vision"], ...] = MODALITIES  # type: ignore[assignment]
    """Modalities to use; those that the file lacks are missing."""
    normalize: tuple[Literal["text", "audio", "vision"], ...] = ("audio", "vision")
    """Modalities to z-normalize with the statistics of the training split's observed frames."""
    clip: float = _number(5.0, gt=0)
    """Limit of normalized features, in standard deviations."""
    label_ratio: float = _number(1.0, gt=0, le=1)
    """Share of the training labels to use; the other utterances join the unlabeled pool."""
    label_seed: int | None = None
    """Seed that draws the labeled share; by default the run's seed."""
    missing: MissingConfig = field(default_factory=MissingConfig)
    """Modalities that are masked: ``none``, ``eta:R``, ``sample:R``, ``fixed:ta``, ``frame:R`` or ``frame_uniform`` for
    all splits, or ``{train: ..., valid: ..., test: ...}``."""
    pool: str | None = None
    """File of further unlabeled utterances; its labels, if any, are not used."""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", Path(self.path).stem)


@dataclass(frozen=True)
class ModalityDropout:
    """Probability that a modality is dropped in a training step; one always stays."""

    text: float = _number(0.2, ge=0, lt=1)
    audio: float = _number(0.2, ge=0, lt=1)
    vision: float = _number(0.5, ge=0, lt=1)


@dataclass(frozen=True)
class ModelConfig:
    """The model and its size."""

    name: str = _component("semi_iin", MODELS)
    """Model to train."""
    layer: str = _component("attention", LAYERS)
    """Layer of message passing in the streams of ``semi_iin`` and ``sslmm``."""
    encoder: str = _component("conv", ENCODERS)
    """Encoder of each modality's steps."""
    channels: int = _number(128, ge=1, le=65_536)
    """Width C of every token."""
    heads: int = _number(8, ge=1, le=1024)
    """Attention heads; must divide ``channels``."""
    layers: int = _number(2, ge=1, le=128)
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
    """For ``sslmm`` on video graphs: whether the node of a missing modality sends messages through a gate, only
    receives, or is left out."""
    dropout: float = _number(0.2, ge=0, lt=1)
    """Dropout after attention and feed-forward layers."""
    input_dropout: float = _number(0.5, ge=0, lt=1)
    """Dropout on the features before the convolutions."""
    modality_dropout: ModalityDropout = field(default_factory=ModalityDropout)
    """Probability that a modality is dropped in a training step."""
    text_convs: tuple[tuple[int, int], ...] = ((3, 1),)
    """Convolutions of the text encoder, as (kernel, stride)."""
    audio_convs: tuple[tuple[int, int], ...] = ((4, 2), (4, 4))
    """Convolutions of the audio encoder, as (kernel, stride)."""
    vision_convs: tuple[tuple[int, int], ...] = ((3, 1),)
    """Convolutions of the vision encoder, as (kernel, stride)."""
    positions: int = _number(512, ge=1, le=1_000_000)
    """Position embeddings per modality: the maximum number of steps after striding."""
    route: Literal["auto", "dense", "edge"] = "auto"
    """How messages are computed: by dense masked attention, edge by edge, or by the faster of the two."""

    def convs(self, modality: str) -> tuple[tuple[int, int], ...]:
        """Convolutions of one modality's encoder, as (kernel, stride)."""
        return typing.cast("tuple[tuple[int, int], ...]", getattr(self, f"{modality}_convs"))

    @property
    def strides(self) -> dict[str, int]:
        """Steps per token of each modality's encoder."""
        return {m: math.prod(stride for _, stride in self.convs(m)) for m in MODALITIES}


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer, learning rate and batches of each training stage."""

    name: Literal["adam", "adamw"] = "adamw"
    """Optimizer."""
    lr: float = _number(1e-3, gt=0)
    """Peak learning rate (the paper: 1e-4)."""
    weight_decay: float = _number(0.01, ge=0)
    """Weight decay of the optimizer."""
    epochs: int = _number(12, ge=1, le=MANY)
    """Epochs of each training stage."""
    min_steps: int = _number(100, ge=0, le=MANY)
    """Minimum number of optimizer steps per stage; with few labels, further epochs are run."""
    batch_size: int = _number(32, ge=1, le=MANY)
    """Utterances per batch."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Course of the learning rate after the warm-up."""
    warmup: float = _number(0.3, ge=0, lt=1)
    """Share of the steps over which the learning rate rises linearly from zero."""
    clip_norm: float = _number(1.0, ge=0)
    """Maximum norm of the gradient; 0 disables clipping."""
    patience: int = _number(0, ge=0, le=MANY)
    """Epochs without a better validation score after which a stage stops; 0 disables early stopping."""
    ema: float = _number(0.99, ge=0, lt=1)
    """Decay of the moving average of the weights, which is validated and saved; 0 disables it.

    After t updates it is at most (1 + t) / (10 + t).
    """
    amp: Literal["auto", "off", "bf16"] = "auto"
    """Mixed precision: bfloat16 on CUDA for ``auto``, float32 elsewhere."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses."""

    value_weight: float = _number(0.6, ge=0, le=1)
    """Weight of the intensity loss, the paper's lambda_1; the class loss has the rest."""


@dataclass(frozen=True)
class ProtocolConfig:
    """The training protocol, and the weights to start from."""

    name: str = _component("self_training", PROTOCOLS)
    """Training protocol: ``supervised`` learns from labels; ``self_training`` is Semi-IIN's; ``distillation`` trains a
    student of several teachers; ``sslmm`` learns from labels and its own moving average; ``pretrain`` learns from
    features alone, for ``init_from`` of other runs."""
    init_from: str | None = None
    """Run folder of a ``pretrain`` run whose weights initialize this run, seed by seed."""


@dataclass(frozen=True)
class SelfTrainingConfig:
    """Settings of the protocol ``self_training`` (Semi-IIN, Algorithm 1)."""

    weight: float = _number(0.2, ge=0)
    """Weight of the class loss on pseudo-labels, the paper's lambda_2."""
    rounds: int = _number(1, ge=1, le=1000)
    """Rounds of pseudo-labeling the pool and training on from the current weights."""
    k: int | Literal["all"] = _number(40, ge=0)
    """Number of most confident pseudo-labels to keep per class, or ``all``; 0 is the control without pseudo-labels."""
    threshold: float = _number(0.0, ge=0, lt=1)
    """Minimum confidence of a pseudo-label; 0 disables the threshold."""


@dataclass(frozen=True)
class DistillationConfig:
    """Settings of the protocol ``distillation``."""

    teachers: int = _number(3, ge=1, le=1000)
    """Number of teachers, whose mean prediction the student learns."""


@dataclass(frozen=True)
class ConsistencyConfig:
    """Settings of the protocol ``sslmm``: agreement with the moving average of the model's own weights."""

    weight: float = _number(1.0, ge=0)
    """Weight of the distance to the teacher after the ramp."""
    ramp: float = _number(0.4, ge=0, le=1)
    """Share of the steps over which ``weight`` rises linearly from 0."""
    confident_share: float = _number(0.7, gt=0, le=1)
    """Share of each batch that learns from the teacher: the utterances with the lowest teacher variance."""
    passes: int = _number(4, ge=2, le=1000)
    """Forward passes of the teacher with dropout; their mean is the target, their variance its uncertainty."""


@dataclass(frozen=True)
class ReconstructionConfig:
    """Reconstruction of the features of missing modalities, with any model and protocol."""

    weight: float = _number(0.0, ge=0)
    """Weight of the reconstruction loss; 0 disables it."""
    target: Literal["observed_only", "oracle"] = "observed_only"
    """What to reconstruct: modalities that ``model.modality_dropout`` drops, or also the true features of those that
    ``data.missing`` masks."""


@dataclass(frozen=True)
class PretrainConfig:
    """Self-supervised pre-training before the stages of the protocol."""

    epochs: int = _number(0, ge=0, le=MANY)
    """Epochs of pre-training on all training utterances, without labels, before the protocol; 0 disables it."""
    mask: float = _number(0.5, gt=0, lt=1)
    """Share of each utterance's tokens to mask; in video graphs, of its modalities, of which one always stays."""
    contrast_weight: float = _number(0.5, ge=0)
    """Weight of the contrastive loss between random subsets of the modalities, beside the reconstruction of masked
    tokens."""
    temperature: float = _number(0.07, gt=0)
    """Temperature of the contrastive loss."""


@dataclass(frozen=True)
class RunConfig:
    """Seeds, device, output folder and metrics of a run."""

    seeds: tuple[int, ...] = (1111,)
    """Random seeds, one training each; results are the mean and standard deviation over seeds."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; ``auto`` is CUDA where it is available, else the CPU."""
    threads: int = _number(1, ge=1, le=256)
    """CPU threads; more are hardly faster for small models, and each number rounds differently."""
    workers: int = _number(0, ge=0, le=256)
    """Processes that prefetch training batches; 0 builds them in the training process (on CUDA, in a thread)."""
    save_every: float = _number(300.0, gt=0)
    """Seconds between saves of the state within an epoch; it is also saved after each epoch."""
    deterministic: bool = False
    """Whether to use only deterministic operations on CUDA, which are slower; on a CPU all are deterministic."""
    compile: bool = False
    """Whether to compile the model with ``torch.compile``, which takes minutes at first and rounds differently."""
    out: str = "runs/{name}"
    """Run folder; ``{name}`` stands for the name of the config file."""
    select: str = "MAE"
    """Validation metric that selects the checkpoint: MAE, Corr, or one of ``metrics``."""
    metrics: tuple[str, ...] = _component((), METRICS)
    """Metrics to report beside those of the label scale."""
    callbacks: tuple[str, ...] = _component((), CALLBACKS)
    """Training callbacks, such as ``tensorboard`` or ``wandb(project=mine)``."""


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
            if len(model.convs(modality)) > MOST_CONVS:
                raise ConfigError(f"'{key}' must name at most {MOST_CONVS} convolutions")
            if model.strides[modality] > MOST_STEPS:
                raise ConfigError(f"'{key}' must have strides whose product is at most {MOST_STEPS:,}")
            for kernel, stride in model.convs(modality):
                if kernel > MOST_KERNEL:
                    raise ConfigError(f"'{key}' must have kernels of at most {MOST_KERNEL:,} steps (got {kernel})")
                if not 1 <= stride <= kernel:
                    raise ConfigError(f"'{key}' needs 1 <= stride <= kernel (got kernel {kernel}, stride {stride})")
        selectable = ("MAE", "Corr", *map(component_name, run.metrics))
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
