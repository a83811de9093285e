"""The client's SDK: `connect` joins the mesh, and the `Mesh` that it gives answers.

Importing this loads neither jax nor numpy nor, until it connects, libp2p.
"""

from .answers import Answer, Batch, Chunk, Embeddings, Handover, NodeView, Outputs, PaidReceipt, Proof, Rejected, Usage
from .mesh import Mesh, TextStream, connect
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
    "Outputs",
    "PaidReceipt",
    "Proof",
    "Rejected",
    "TextStream",
    "Usage",
    "connect",
]
