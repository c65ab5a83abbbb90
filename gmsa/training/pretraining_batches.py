"""Batches for pre-training: utterances with masked tokens, and with random subsets of their modalities."""

# N utterances, M_m tokens of modality m of all of them, D_m features, P word pieces of a step
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from gmsa.config import Config
from gmsa.config.presets import TEXT, placed
from gmsa.data import Utterance
from gmsa.graph import GraphBatch, collate, token_count
from gmsa.models import graph_spec
from gmsa.models.pretraining import Masked, PretrainingBatch
from gmsa.rng import hashed_uniform, seeds_for
from gmsa.text.pieces import NONE
from gmsa.training.batches import WHOLE, SampleGroups, Shard
from gmsa.training.examples import plain_examples
from gmsa.training.masking import mask_steps, with_masked_pieces, word_dropout


def pretraining_batches(
    utterances: Sequence[Utterance], config: Config, *seed: int | str, shard: Shard = WHOLE, learning: bool = True
) -> Iterator[PretrainingBatch | None]:
    """One epoch of batches; masks, subsets and order are pure functions of ``seed`` and utterance id.

    A batch is None where ``shard`` has no share of it.

    Args:
        learning: the batches are for training, not validation: ``data.missing.train`` masks new steps in every epoch,
            and ``text.dropout`` words of the subsets.
    """
    groups = SampleGroups(plain_examples(utterances), config)
    for positions in groups.batches(*seed, shard=shard):
        if not positions:
            yield None
            continue
        whole = [groups.example(position).utterance for position in positions]
        chosen = mask_steps(whole, config, *seed) if learning else whole
        masked, targets = (_mask_nodes if config.graph.has_dialogues else _mask_tokens)(chosen, config, *seed)
        views = []
        for number in ("first", "second")[config.pretrain.contrast == "masked" :]:
            view: Sequence[Utterance] = _subset(chosen, *seed, number)
            view = word_dropout(view, config, *seed, number) if learning else view
            views.append(collate(view, graph_spec(config)))
        yield PretrainingBatch(masked, targets, tuple(views))


def _draws(utterances: Sequence[Utterance], count: int, *seed: int | str) -> np.ndarray:
    """``count`` uniform random numbers per utterance ``[N, count]``."""
    seeds = torch.tensor(seeds_for(*seed, each=(u.id for u in utterances)))[:, None]
    return hashed_uniform(seeds, torch.arange(count)).numpy()


def _subset(utterances: Sequence[Utterance], *seed: int | str) -> list[Utterance]:
    """Each utterance with a random subset of its modalities, uniform over those that are not empty."""
    found = []
    for utterance, draw in zip(utterances, _draws(utterances, 1, *seed, "subset")[:, 0], strict=True):
        there = [m for m, present in utterance.present.items() if present]
        code = 1 + int(draw * (2 ** len(there) - 1))
        gone = frozenset(m for i, m in enumerate(there) if not code >> i & 1)
        found.append(utterance.drop(gone) if gone and there else utterance)
    return found


def _mask_nodes(
    utterances: Sequence[Utterance], config: Config, *seed: int | str
) -> tuple[GraphBatch, dict[str, Masked]]:
    """Graphs of dialogues: masks whole modalities, the share ``pretrain.mask`` of an utterance's, but never all.

    In scope ``hierarchical`` it is the share of a dialogue's: of an utterance that lost all, neighbours tell.
    """
    modalities = list(utterances[0].features)
    draws = _draws(utterances, len(modalities), *seed, "mask")
    there = np.array([[u.lengths[m] > 0 for m in modalities] for u in utterances])
    owners, columns = np.nonzero(there)
    groups = owners
    if config.graph.scope == "hierarchical":
        numbers = {video: i for i, video in enumerate(dict.fromkeys(u.video for u in utterances))}
        groups = np.array([numbers[u.video] for u in utterances])[owners]
    masked = _share(groups, draws[there], config.pretrain.mask)
    hidden = [frozenset(modalities[j] for j in columns[masked & (owners == i)]) for i in range(len(utterances))]
    shown = [u.drop(gone) if gone else u for u, gone in zip(utterances, hidden, strict=True)]
    batch = collate(shown, graph_spec(config), streams=_streams(config))
    graph = batch if batch.dialogues is None else batch.dialogues
    order = np.argsort(graph.utterance_order.numpy())
    flags = {m: torch.tensor([m in hidden[i] for i in order]) for m in batch.features}
    means = {}
    for modality in batch.features:
        ordered = [utterances[i].features[modality] for i in order]
        if _are_pieces(modality, config):
            means[modality] = pad_sequence([x.flatten() for x in ordered], batch_first=True, padding_value=NONE)
        else:
            means[modality] = torch.stack([_mean(x) for x in ordered])
    return batch, _targets(graph, flags, means)


def _mask_tokens(
    utterances: Sequence[Utterance], config: Config, *seed: int | str
) -> tuple[GraphBatch, dict[str, Masked]]:
    """Utterance graphs: masks the share ``pretrain.mask`` of an utterance's tokens, but never all.

    The steps of a masked token are zero, since convolutions of its neighbours read them too; its word pieces, which an
    encoder reads, are the mask piece.
    """
    seeds = torch.tensor(seeds_for(*seed, "mask", each=(u.id for u in utterances)))
    lengths = {m: torch.tensor([u.lengths[m] for u in utterances]) for m in utterances[0].features}
    parts, places = [], placed(config.named_modalities)
    for modality, sizes in lengths.items():
        counts = token_count(sizes, config.model.stride(modality))
        owner = torch.repeat_interleave(counts)
        token = torch.arange(len(owner)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        parts.append((owner, hashed_uniform(seeds[owner], torch.tensor(places.index(modality)), token)))
    owners, draws = (torch.cat(x).numpy() for x in zip(*parts, strict=True))
    masked = torch.from_numpy(_share(owners, draws, config.pretrain.mask)).split([len(owner) for owner, _ in parts])
    shown, flags, means = {}, dict(zip(lengths, masked, strict=True)), {}
    for modality, sizes in lengths.items():
        steps = torch.cat([u.features[modality] for u in utterances])
        token = _token_of_step(sizes, config.model.stride(modality))
        # Masked before the graph is built, whose edges may depend on the features.
        gone = flags[modality][token]
        if _are_pieces(modality, config):
            shown[modality] = with_masked_pieces(steps, gone[:, None], config).split(sizes.tolist())
            means[modality] = _pieces_of_tokens(steps, token, len(flags[modality]), config.model.stride(modality))
            continue
        shown[modality] = steps.masked_fill(gone[:, None], 0.0).split(sizes.tolist())
        total = steps.new_zeros(len(flags[modality]), steps.shape[1]).index_add(0, token, steps)
        means[modality] = total / torch.bincount(token, minlength=len(total))[:, None]
    hidden = [replace(u, features={m: shown[m][i] for m in shown}) for i, u in enumerate(utterances)]
    batch = collate(hidden, graph_spec(config), streams=_streams(config))
    return batch, _targets(batch, {m: flags[m] for m in batch.features}, means)


def _share(groups: np.ndarray, draws: np.ndarray, share: float) -> np.ndarray:
    """Chooses the ``share`` of each group with the lowest draws, but never all of it ``[K]``."""
    order, counts = np.lexsort((draws, groups)), np.bincount(groups)
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen: np.ndarray = rank < np.minimum(np.round(share * counts), counts - 1)[groups]
    return chosen


def _token_of_step(lengths: Tensor, stride: int) -> Tensor:
    """The index of the token of each step, of concatenated sequences ``[S]``."""
    counts = token_count(lengths, stride)
    step = torch.arange(int(lengths.sum())) - torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
    return step // stride + torch.repeat_interleave(counts.cumsum(0) - counts, lengths)


def _are_pieces(modality: str, config: Config) -> bool:
    """Whether the steps of a modality are numbers of word pieces, for an encoder that is trained."""
    return modality == TEXT and config.trains_text_encoder


def _pieces_of_tokens(numbers: Tensor, token: Tensor, count: int, stride: int) -> Tensor:
    """The numbers of all pieces of each token ``[M_m, stride P]``, from those of steps ``[S, P]`` and their tokens."""
    first = torch.bincount(token, minlength=count).cumsum(0).roll(1)
    first[:1] = 0
    table = numbers.new_full((count, stride, numbers.shape[1]), NONE)
    table[token, torch.arange(len(token)) - first[token]] = numbers
    return table.flatten(1)


def _targets(batch: GraphBatch, flags: dict[str, Tensor], means: dict[str, Tensor]) -> dict[str, Masked]:
    """The masked rows of each modality with their nodes; modalities in the order of ``batch.features``."""
    node_of = torch.zeros(1 + sum(map(len, flags.values())), dtype=torch.long)
    node_of[batch.embedding_row] = torch.arange(len(batch.embedding_row))
    found, first = {}, 1
    for modality, masked in flags.items():
        if masked.any():
            nodes = node_of[first : first + len(masked)][masked]
            found[modality] = Masked(masked, nodes, means[modality][masked])
        first += len(masked)
    return found


def _streams(config: Config) -> tuple[str, ...]:
    """The streams of the model and of the decoder, in the graphs that it decodes."""
    spec = graph_spec(config)
    own = spec.outside_streams if config.graph.scope == "hierarchical" else spec.streams
    return tuple(dict.fromkeys((*own, "global")))


def _mean(sequence: Tensor) -> Tensor:
    return sequence.sum(0) / max(1, len(sequence))
