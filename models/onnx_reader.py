"""The weights in an ONNX file, by their names there; what its graph computes is written again in a family of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


def onnx_tensors(content: bytes) -> dict[str, NDArray[Any]]:
    """Every initializer and every constant of the main graph. Raises `google.protobuf.message.DecodeError` if it is no ONNX."""
    return dict(_tensors(onnx.load_model_from_string(content).graph))


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, NDArray[Any]]]:
    for tensor in graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield node.output[0], numpy_helper.to_array(attribute.t)
