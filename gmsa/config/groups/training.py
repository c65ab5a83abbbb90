"""Settings of training: the optimizer, the losses and the protocols."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gmsa.config.fields import component, number
from gmsa.registry import PROTOCOLS

MANY = 1_000_000
"""Epochs, steps and utterances of a batch, at most."""


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
    student of several teachers; ``soup`` takes the mean of several trainings' weights; ``sslmm`` learns from labels and
    its own moving average; ``pretrain`` learns from features alone, for ``init_from`` of other runs."""
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
    contrast: Literal["subsets", "masked"] = "subsets"
    """Which two views of an utterance the contrastive loss compares: two random ``subsets`` of its modalities, or one
    and the ``masked`` utterance, whose reconstruction then shares its pass with the contrast."""
    temperature: float = number(0.07, gt=0)
    """Temperature of the contrastive loss."""
