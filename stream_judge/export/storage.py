"""How weights are stored: once for all graphs, float16 on disk, float32 in use.

A graph may have more weights than a protobuf or the memory holds: they go from the traced
graph's data file to the stored one tensor by tensor, and never into a graph.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import (
    ExternalDataInfo,
    load_external_data_for_tensor,
    uses_external_data,
)

from stream_judge.errors import ExportError

# Below this a tensor stays inside its graph, in full precision: norms, biases, constants.
_INLINE_ELEMENTS = 1024
_ALIGNMENT = 64
_LARGEST_HALF = float(np.finfo(np.float16).max)


class WeightFile:
    """One external-data file that several graphs read; a context manager.

    A tensor that is there already, or whose transpose is (exporters fold `weight.T` into
    a tensor of its own), is not written again.

    Args:
        path: The file; it must not exist yet.
        half: Store float32 tensors as float16. Graphs compute in float32 all the same:
            dynamic rounding of activations would let rows influence each other.
    """

    def __init__(self, path: Path, *, half: bool) -> None:
        self._name = path.name
        self._half = half
        self._file = path.open("xb")
        self._end = 0
        self._places: dict[tuple[bytes, tuple[int, ...], str], tuple[int, int]] = {}

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def adopt(self, source: Path, target: Path) -> None:
        """Write the graph at `source` to `target`, its large tensors to this file.

        Raises:
            ExportError: If float16 cannot hold a weight, or the source's data is cut short.
        """
        model = onnx.load(str(source), load_external_data=False)
        graph = model.graph
        kept: list[TensorProto] = []
        nodes = []
        for tensor in graph.initializer:
            if not _is_large(tensor):
                kept.append(_inline(tensor, source.parent))
                continue
            stored, added = self._store(tensor.name, _values(tensor, source.parent))
            kept.append(stored)
            nodes += added
        for constant in _constants(graph):
            _inline(constant, source.parent)
        ordered = nodes + list(graph.node)
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.node[:]
        graph.node.extend(ordered)
        # What the exporter writes beside the graph (its version, scopes) is of no use here.
        for node in graph.node:
            node.doc_string = ""
        onnx.save(model, str(target))

    def _store(
        self, name: str, values: NDArray[np.float32]
    ) -> tuple[TensorProto, list[onnx.NodeProto]]:
        disk = _half(name, values) if self._half else values
        turned = values.ndim == 2 and self._key(disk.T) in self._places
        if turned:
            disk = disk.T
        stored = TensorProto()
        stored.data_type = TensorProto.FLOAT16 if self._half else TensorProto.FLOAT
        stored.dims.extend(disk.shape)
        stored.data_location = TensorProto.EXTERNAL
        offset, length = self._place(disk)
        for key, value in (("location", self._name), ("offset", offset), ("length", length)):
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
            start = self._end + -self._end % _ALIGNMENT
            self._file.write(bytes(start - self._end))
            self._file.write(np.ascontiguousarray(values).data)
            self._end = start + values.nbytes
            self._places[key] = (start, values.nbytes)
        return self._places[key]

    @staticmethod
    def _key(values: NDArray[np.generic]) -> tuple[bytes, tuple[int, ...], str]:
        digest = hashlib.sha256(np.ascontiguousarray(values).data).digest()
        return digest, values.shape, str(values.dtype)


def _is_large(tensor: TensorProto) -> bool:
    return tensor.data_type == TensorProto.FLOAT and math.prod(tensor.dims) >= _INLINE_ELEMENTS


def _values(tensor: TensorProto, folder: Path) -> NDArray[np.float32]:
    """The numbers of a large tensor; those in a data file are mapped, not read."""
    if not uses_external_data(tensor):
        return numpy_helper.to_array(tensor)
    place = ExternalDataInfo(tensor)
    shape = tuple(tensor.dims)
    try:
        return np.memmap(
            folder / place.location, np.float32, "r", offset=int(place.offset or 0), shape=shape
        )
    except ValueError as exc:
        raise ExportError(f"{tensor.name}: the tracer wrote it in part only ({exc})") from exc


def _inline(tensor: TensorProto, folder: Path) -> TensorProto:
    """The same tensor with its numbers inside the graph."""
    if uses_external_data(tensor):
        load_external_data_for_tensor(tensor, str(folder))
        del tensor.external_data[:]
        tensor.ClearField("data_location")
    return tensor


def _constants(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Tensors in attributes of nodes: the tracer puts those of big models outside, too."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _constants(attribute.g)


def _half(name: str, values: NDArray[np.float32]) -> NDArray[np.float16]:
    largest = float(max(values.max(), -values.min()))
    # NaN fails the comparison, too.
    if not largest <= _LARGEST_HALF:
        raise ExportError(
            f"weight {name} holds {largest:.6g}, float16 ends at {_LARGEST_HALF:.0f}: "
            "export with --dtype fp32"
        )
    return values.astype(np.float16)
