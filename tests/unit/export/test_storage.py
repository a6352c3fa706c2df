from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="export tests need onnx: pip install '.[export]'")

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from stream_judge.errors import ExportError
from stream_judge.export.storage import WeightFile

RNG = np.random.default_rng(2)
WEIGHT = RNG.standard_normal((48, 40)).astype(np.float32)
X = RNG.standard_normal((3, 48)).astype(np.float32)


def make_graph(weight: np.ndarray = WEIGHT) -> Any:
    """x @ weight @ weight.T + bias, the transpose as a tensor of its own."""
    large = [("w", weight), ("t", np.ascontiguousarray(weight.T))]
    small = [("bias", np.full(weight.shape[0], 0.1, np.float32))]
    constant = numpy_helper.from_array(np.array([2], np.float32), "c")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("MatMul", ["y", "t"], ["z"]),
        helper.make_node("Constant", [], ["two"], value=constant),
        helper.make_node("Mul", ["z", "two"], ["v"]),
        helper.make_node("Add", ["v", "bias"], ["out"]),
    ]
    rows, width = "rows", weight.shape[0]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, width])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [rows, width])],
        [numpy_helper.from_array(values, name) for name, values in [*large, *small]],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    return model


def save(model: Any, folder: Path, *, outside: bool) -> Path:
    folder.mkdir()
    path = folder / "graph.onnx"
    if outside:
        onnx.save(
            model,
            str(path),
            save_as_external_data=True,
            location="graph.onnx_data",
            size_threshold=0,
            convert_attribute=True,
        )
    else:
        onnx.save(model, str(path))
    return path


def store(source: Path, folder: Path, *, half: bool) -> Path:
    folder.mkdir()
    with WeightFile(folder / "weights", half=half) as weights:
        weights.adopt(source, folder / "graph.onnx")
    return folder / "graph.onnx"


def run(path: Path) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    out: np.ndarray = session.run(None, {"x": X})[0]
    return out


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("outside", [False, True])
def test_a_stored_graph_computes_the_same(tmp_path: Path, half: bool, outside: bool) -> None:
    source = save(make_graph(), tmp_path / "traced", outside=outside)
    stored = store(source, tmp_path / "stored", half=half)
    np.testing.assert_allclose(run(stored), run(source), atol=0.2 if half else 1e-6)


@pytest.mark.parametrize("half", [False, True])
def test_where_the_tracer_put_the_weights_makes_no_difference(tmp_path: Path, half: bool) -> None:
    folders = []
    for name, outside in (("inside", False), ("outside", True)):
        source = save(make_graph(), tmp_path / name, outside=outside)
        folders.append(store(source, tmp_path / f"{name} stored", half=half).parent)
    for name in ("weights", "graph.onnx"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_weights_never_pass_through_a_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(make_graph(), tmp_path / "traced", outside=True)
    loaded: list[str] = []
    load = onnx.external_data_helper.load_external_data_for_tensor

    def watch(tensor: Any, folder: str) -> None:
        loaded.append(tensor.name)
        load(tensor, folder)

    monkeypatch.setattr("stream_judge.export.storage.load_external_data_for_tensor", watch)
    monkeypatch.setattr("onnx.load_external_data_for_model", None)
    stored = store(source, tmp_path / "stored", half=True)
    assert set(loaded) == {"bias", "c"}
    assert stored.stat().st_size < WEIGHT.nbytes / 2


def test_a_tensor_and_its_transpose_are_stored_once(tmp_path: Path) -> None:
    source = save(make_graph(), tmp_path / "traced", outside=True)
    (tmp_path / "stored").mkdir()
    with WeightFile(tmp_path / "stored/weights", half=False) as weights:
        for name in ("first", "second"):
            weights.adopt(source, tmp_path / f"stored/{name}.onnx")
    assert (tmp_path / "stored/weights").stat().st_size == WEIGHT.nbytes


@pytest.mark.parametrize(("value", "shown"), [(65_600.0, "65600"), (-1e6, "1e"), (np.nan, "nan")])
def test_a_weight_that_float16_cannot_hold_is_refused(
    tmp_path: Path, value: float, shown: str
) -> None:
    weight = WEIGHT.copy()
    weight[3, 5] = value
    source = save(make_graph(weight), tmp_path / "traced", outside=False)
    with pytest.raises(ExportError, match=rf"weight w holds {shown}.*--dtype fp32"):
        store(source, tmp_path / "half", half=True)
    store(source, tmp_path / "whole", half=False)


def test_the_largest_float16_is_kept(tmp_path: Path) -> None:
    weight = WEIGHT.copy()
    weight[0, 0] = 65_504
    source = save(make_graph(weight), tmp_path / "traced", outside=False)
    assert np.isfinite(run(store(source, tmp_path / "half", half=True))).all()


def test_a_data_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    source = save(make_graph(), tmp_path / "traced", outside=True)
    with (source.parent / "graph.onnx_data").open("r+b") as data:
        data.seek(0, io.SEEK_END)
        data.truncate(data.tell() // 4)
    with pytest.raises(ExportError, match="in part"):
        store(source, tmp_path / "stored", half=False)
