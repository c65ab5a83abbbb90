"""Settings of runs of several kinds, for tests that every kind must pass."""

from __future__ import annotations

from typing import Any

KINDS: dict[str, dict[str, Any]] = {
    "self-training": {"protocol": {"name": "self_training"}, "self_training": {"k": 2, "rounds": 2}},
    "sslmm": {
        "model": {"channels": 16, "heads": 2, "name": "sslmm"},
        "data": {"label_ratio": 0.5, "missing": {"train": "frame_uniform", "valid": "eta:0.5", "test": "eta:0.5"}},
        "reconstruction": {"weight": 0.5},
        "protocol": {"name": "sslmm"},
        "consistency": {"passes": 2},
        "pretrain": {"epochs": 2},
    },
    "hierarchical": {
        "graph": {"scope": "hierarchical", "edge_dropout": 0.2, "context_dropout": 0.3, "dialogue_node": True},
        "model": {"channels": 16, "heads": 2, "name": "sslmm", "modality_dropout": {"text": 0.3, "audio": 0.3}},
        "data": {"label_ratio": 0.5, "missing": {"train": "frame_uniform", "valid": "eta:0.5", "test": "eta:0.5"}},
        "reconstruction": {"weight": 0.5},
        "protocol": {"name": "sslmm"},
        "consistency": {"passes": 1},
        "pretrain": {"epochs": 1, "contrast": "masked"},
    },
    "distillation on dialogues": {
        "graph": {"scope": "dialogue"},
        "protocol": {"name": "distillation"},
        "distillation": {"teachers": 2},
    },
    "distillation of all labels": {
        "data": {"label_ratio": 1.0},
        "graph": {"scope": "hierarchical"},
        "protocol": {"name": "distillation"},
        "distillation": {"teachers": 2},
    },
    "soup": {"data": {"label_ratio": 1.0}, "protocol": {"name": "soup(members=2)"}},
    "mmgcn": {
        "graph": {"scope": "dialogue", "dialogue_node": True, "edge_dropout": 0.2},
        "model": {"channels": 16, "heads": 2, "name": "mmgcn(gamma=0.7)"},
        "protocol": {"name": "sslmm"},
        "consistency": {"passes": 2},
        "pretrain": {"epochs": 1},
    },
    "mtag": {
        "graph": {"intra": "mtag", "inter": "mtag", "edge_dropout": 0.2},
        "model": {"channels": 16, "heads": 2, "name": "mtag(keep=0.5)"},
        "data": {"missing": "eta:0.4"},
        "protocol": {"name": "distillation"},
        "distillation": {"teachers": 2},
    },
    "classes": {
        # Names that are numbers: tests compare the columns of predictions.csv as such.
        "data": {"path": "synthetic", "label_ratio": 0.1},
        "target": {"kind": "classes", "classes": ["0", "1", "2"]},
        "loss": {"class_weights": "balanced"},
        "model": {"channels": 16, "heads": 2, "name": "sslmm"},
        "optim": {"batch_size": 64},
        "protocol": {"name": "sslmm"},
        "consistency": {"passes": 2},
    },
}

OF_CONVERSATIONS: dict[str, dict[str, Any]] = {
    "dialogue_gcn": {
        "graph": {"scope": "dialogue", "speakers": "same_other"},
        "model": {"channels": 16, "heads": 2, "name": "dialogue_gcn(bases=2)"},
        "protocol": {"name": "self_training"},
        "self_training": {"k": 2, "rounds": 2},
    },
    "cogmen": {
        "graph": {"scope": "hierarchical"},
        "model": {"channels": 16, "heads": 2, "name": "cogmen(feedforward=32)"},
        "protocol": {"name": "sslmm"},
        "consistency": {"passes": 2},
        "pretrain": {"epochs": 1},
    },
    "gcnet": {
        "graph": {"scope": "dialogue", "future": 0},
        "model": {"channels": 16, "heads": 2, "name": "gcnet(time_attention=true)"},
        "data": {"missing": "eta:0.4"},
        "reconstruction": {"weight": 1.0, "target": "oracle"},
        "protocol": {"name": "distillation"},
        "distillation": {"teachers": 2},
    },
}
"""Models of conversations: their tests take minutes, so that not all are repeated."""
