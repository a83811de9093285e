"""The client's SDK: `connect` joins the mesh, and the `Mesh` that it gives answers.

Importing this loads neither jax nor numpy nor, until it connects, libp2p.
"""

from .answers import (
    Answer,
    Batch,
    Chunk,
    Embeddings,
    Handover,
    NodeView,
    Notice,
    Outputs,
    PaidReceipt,
    Proof,
    Rejected,
    Usage,
)
from .joining import connect
from .mesh import Mesh
from .stream import TextStream
from .tokenizer import ChatMessage

__all__ = [
    "Answer",
    "Batch",
    "ChatMessage",
    "Chunk",
    "Embeddings",
    "Handover",
    "Mesh",
    "NodeView",
    "Notice",
    "Outputs",
    "PaidReceipt",
    "Proof",
    "Rejected",
    "TextStream",
    "Usage",
    "connect",
]
