"""How weights are stored: once for all graphs, float16 on disk, float32 in use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# Below this a tensor stays inside its graph, in full precision: norms, biases, constants.
_INLINE_ELEMENTS = 1024
_ALIGNMENT = 64


class WeightFile:
    """One external-data file that several graphs read.

    A tensor that is there already, or whose transpose is (exporters fold `weight.T` into
    a tensor of its own), is not written again.

    Args:
        path: The file; written by `close`.
        half: Store float32 tensors as float16. Graphs compute in float32 all the same:
            dynamic rounding of activations would let rows influence each other.
    """

    def __init__(self, path: Path, *, half: bool) -> None:
        self._path = path
        self._half = half
        self._data = bytearray()
        self._places: dict[tuple[bytes, tuple[int, ...], str], tuple[int, int]] = {}

    def adopt(self, graph_path: Path) -> None:
        """Move the large tensors of the graph at `graph_path` into this file."""
        model = onnx.load(str(graph_path))
        graph = model.graph
        kept: list[TensorProto] = []
        nodes = []
        for tensor in graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype != np.float32 or values.size < _INLINE_ELEMENTS:
                kept.append(tensor)
                continue
            stored, added = self._store(tensor.name, values)
            kept.append(stored)
            nodes += added
        ordered = nodes + list(graph.node)
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.node[:]
        graph.node.extend(ordered)
        # What the exporter writes beside the graph (its version, scopes) is of no use here.
        for node in graph.node:
            node.doc_string = ""
        onnx.save(model, str(graph_path))

    def close(self) -> None:
        """Write the file."""
        self._path.write_bytes(bytes(self._data))

    def _store(
        self, name: str, values: NDArray[np.float32]
    ) -> tuple[TensorProto, list[onnx.NodeProto]]:
        disk = values.astype(np.float16) if self._half else values
        kind = TensorProto.FLOAT16 if self._half else TensorProto.FLOAT
        turned = values.ndim == 2 and self._key(disk.T) in self._places
        if turned:
            disk = disk.T
        stored = TensorProto()
        stored.data_type = kind
        stored.dims.extend(disk.shape)
        stored.data_location = TensorProto.EXTERNAL
        offset, length = self._place(disk)
        for key, value in (("location", self._path.name), ("offset", offset), ("length", length)):
            entry = stored.external_data.add()
            entry.key, entry.value = key, str(value)
        steps = []
        if self._half:
            steps.append(("Cast", {"to": TensorProto.FLOAT}))
        if turned:
            steps.append(("Transpose", {"perm": [1, 0]}))
        names = [f"{name}/stored{i}" for i in range(len(steps))] + [name]
        stored.name = names[0]
        nodes = [
            helper.make_node(op, [names[i]], [names[i + 1]], **attributes)
            for i, (op, attributes) in enumerate(steps)
        ]
        return stored, nodes

    def _place(self, values: NDArray[np.generic]) -> tuple[int, int]:
        key = self._key(values)
        if key not in self._places:
            self._data += bytes(-len(self._data) % _ALIGNMENT)
            raw = np.ascontiguousarray(values).tobytes()
            self._places[key] = (len(self._data), len(raw))
            self._data += raw
        return self._places[key]

    @staticmethod
    def _key(values: NDArray[np.generic]) -> tuple[bytes, tuple[int, ...], str]:
        raw = np.ascontiguousarray(values).tobytes()
        return hashlib.sha256(raw).digest(), values.shape, str(values.dtype)


def embed_half(graph_path: Path) -> None:
    """Store the large float32 tensors of one graph as float16 inside the graph itself."""
    model = onnx.load(str(graph_path))
    graph = model.graph
    kept, nodes = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _INLINE_ELEMENTS:
            kept.append(tensor)
            continue
        name = tensor.name
        kept.append(numpy_helper.from_array(values.astype(np.float16), f"{name}/stored"))
        nodes.append(helper.make_node("Cast", [f"{name}/stored"], [name], to=TensorProto.FLOAT))
    ordered = nodes + list(graph.node)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.node[:]
    graph.node.extend(ordered)
    onnx.save(model, str(graph_path))


def total_bytes(paths: Iterable[Path]) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in paths)
