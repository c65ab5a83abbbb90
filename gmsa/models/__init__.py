"""Models: from a GraphBatch to intensity, classes and gate."""

import gmsa.system.late  # noqa: F401  # first: it decides how PyG is imported
from gmsa.models.base import Embedding, Model, Output
from gmsa.models.build import build_model, check, graph_spec
from gmsa.models.cogmen import COGMEN
from gmsa.models.context import Context, ContextEmbedding, StreamRelations
from gmsa.models.conversation import Conversation
from gmsa.models.dialogue_gcn import DialogueGCN
from gmsa.models.gcnet import GCNet
from gmsa.models.global_transformer import GlobalTransformer
from gmsa.models.hgt import HGT
from gmsa.models.late_fusion import LateFusion
from gmsa.models.mmgcn import MMGCN
from gmsa.models.mtag import MTAG
from gmsa.models.reach import reach
from gmsa.models.semi_iin import SemiIIN
from gmsa.models.sslmm import SSLMM
from gmsa.models.views.describe import Description, describe_model
from gmsa.models.views.pyg import PygModel, as_pyg
from gmsa.registry import MODELS

__all__ = [
    "COGMEN",
    "HGT",
    "MMGCN",
    "MODELS",
    "MTAG",
    "SSLMM",
    "Context",
    "ContextEmbedding",
    "Conversation",
    "Description",
    "DialogueGCN",
    "Embedding",
    "GCNet",
    "GlobalTransformer",
    "LateFusion",
    "Model",
    "Output",
    "PygModel",
    "SemiIIN",
    "StreamRelations",
    "as_pyg",
    "build_model",
    "check",
    "describe_model",
    "graph_spec",
    "reach",
]
