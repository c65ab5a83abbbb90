"""Models: from a GraphBatch to intensity, classes and gate."""

from gmsa.models.base import Embedding, Model, Output
from gmsa.models.build import build_model, check, graph_spec
from gmsa.models.context import Context, ContextEmbedding, StreamRelations
from gmsa.models.conversation import Conversation
from gmsa.models.global_transformer import GlobalTransformer
from gmsa.models.hgt import HGT
from gmsa.models.late_fusion import LateFusion
from gmsa.models.mmgcn import MMGCN
from gmsa.models.mtag import MTAG
from gmsa.models.reach import reach
from gmsa.models.semi_iin import SemiIIN
from gmsa.models.sslmm import SSLMM
from gmsa.registry import MODELS

__all__ = [
    "HGT",
    "MMGCN",
    "MODELS",
    "MTAG",
    "SSLMM",
    "Context",
    "ContextEmbedding",
    "Conversation",
    "Embedding",
    "GlobalTransformer",
    "LateFusion",
    "Model",
    "Output",
    "SemiIIN",
    "StreamRelations",
    "build_model",
    "check",
    "graph_spec",
    "reach",
]
