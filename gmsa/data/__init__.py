"""Data: utterances, corpora, the feature store, importers, normalization, missing modalities and label ratio."""

from gmsa.data.corpus import Corpus
from gmsa.data.dialogues.order import tell_order, tell_shared
from gmsa.data.dialogues.synthetic import synthetic_dialogues, synthetic_dialogues_mmsa
from gmsa.data.label_ratio import withhold_labels
from gmsa.data.loading import OtherFile, load_corpus, load_other
from gmsa.data.missing import apply_missing, describe_missing, drop_modalities
from gmsa.data.mmsa import feature_dims, from_mmsa, read_mmsa
from gmsa.data.noise import add_noise, parse_noise, signal_power
from gmsa.data.normalize import Normalizer
from gmsa.data.patterns import mask_in_turns, pattern_of
from gmsa.data.sources import data_sha256
from gmsa.data.splits import SPLITS
from gmsa.data.store.store import Store, StoredUtterances, is_store
from gmsa.data.store.writer import Row, write_store
from gmsa.data.synthetic import synthetic_corpus, synthetic_mmsa
from gmsa.data.targets import IGNORED, INTENSITY_CLASSES, Target
from gmsa.data.utterance import Utterance

__all__ = [
    "IGNORED",
    "INTENSITY_CLASSES",
    "SPLITS",
    "Corpus",
    "Normalizer",
    "OtherFile",
    "Row",
    "Store",
    "StoredUtterances",
    "Target",
    "Utterance",
    "add_noise",
    "apply_missing",
    "data_sha256",
    "describe_missing",
    "drop_modalities",
    "feature_dims",
    "from_mmsa",
    "is_store",
    "load_corpus",
    "load_other",
    "mask_in_turns",
    "parse_noise",
    "pattern_of",
    "read_mmsa",
    "signal_power",
    "synthetic_corpus",
    "synthetic_dialogues",
    "synthetic_dialogues_mmsa",
    "synthetic_mmsa",
    "tell_order",
    "tell_shared",
    "withhold_labels",
    "write_store",
]
