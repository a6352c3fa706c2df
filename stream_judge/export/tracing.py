"""From torch to ONNX: the graphs of a model, traced one at a time."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from optimum.exporters.error_utils import AtolError, OutputMatchError, ShapeError
from optimum.exporters.onnx import onnx_export_from_model, validate_model_outputs

from stream_judge.errors import ExportError
from stream_judge.export.graphs import PrefixBuilder, VerdictDecoder, VisionEncoder
from stream_judge.export.onnx_configs import PrefixConfig, VerdictConfig, VisionConfig
from stream_judge.export.preprocessing import Preprocessing

# Runs on every ONNX Runtime from 1.19 on, as NVIDIA's containers have it.
_OPSET = 18


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph that can be traced.

    Attributes:
        name: Of its files.
        model: The LLaVA that it is a part of; all graphs share its weights.
        module: What computes it.
        config: What Optimum has to know of it.
    """

    name: str
    model: Any
    module: Any
    config: Any


@dataclass(frozen=True, slots=True)
class Graphs:
    """The graphs of a LLaVA.

    Attributes:
        vision: Pictures to embeddings.
        decoder: Prefix and verdict, which share one file of weights.
        picture_tokens: Embeddings that a picture becomes.
    """

    vision: Graph
    decoder: tuple[Graph, Graph]
    picture_tokens: int


def make_graphs(model: Any, preprocessing: Preprocessing) -> Graphs:
    """The graphs of a `LlavaForConditionalGeneration`; its weights are not copied."""
    vision = VisionEncoder(model, preprocessing.mean, preprocessing.std)
    size = preprocessing.size
    with torch.no_grad():
        sample = vision(torch.zeros(1, size, size, 3, dtype=torch.uint8))["image_embeddings"]
    facts = {
        "picture_tokens": int(sample.shape[1]),
        "image_token": int(model.config.image_token_index),
    }
    text = model.config.text_config
    return Graphs(
        Graph("vision_encoder", model, vision, VisionConfig(model.config.vision_config, **facts)),
        (
            Graph("prefix", model, PrefixBuilder(model), PrefixConfig(text, **facts)),
            Graph("verdict", model, VerdictDecoder(model), VerdictConfig(text, **facts)),
        ),
        facts["picture_tokens"],
    )


def trace(graph: Graph, path: Path) -> str | None:
    """Trace a graph to an ONNX file, and run both on the same inputs.

    Beyond 2 GB the weights lie in a data file beside it.

    Returns:
        What is to be said of differences above 1e-4, or None.

    Raises:
        ExportError: If the file computes something of another shape.
    """
    logging.getLogger("optimum").setLevel(logging.ERROR)
    onnx_export_from_model(
        graph.model,
        path.parent,
        task="image-text-to-text",
        opset=_OPSET,
        custom_onnx_configs={path.stem: graph.config},
        fn_get_submodels=lambda _: {path.stem: graph.module},
        # It would only log what differs.
        do_validation=False,
    )
    outputs = list(graph.config.outputs)
    try:
        validate_model_outputs(graph.config, graph.module, path, outputs, use_subprocess=False)
    except (OutputMatchError, ShapeError) as exc:
        raise ExportError(f"{graph.name} was traced wrongly: {exc}") from exc
    except AtolError as exc:
        return f"{graph.name} differs from torch: {' '.join(str(exc).split())}"
    return None
