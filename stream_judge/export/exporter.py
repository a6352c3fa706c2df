"""`stream-judge export`: checkpoint in, model repository out, or nothing at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stream_judge.errors import ExportError
from stream_judge.export.checkpoint import Checkpoint, read_checkpoint
from stream_judge.export.target import check_target, disk_errors, replace
from stream_judge.serving.manifest import manifest_digest

if TYPE_CHECKING:
    from stream_judge.export.storage import WeightFile
    from stream_judge.export.tracing import Graph

Say = Callable[[str], None]
DType = Literal["fp32", "fp16"]
_STORED_BYTES: dict[DType, int] = {"fp32": 4, "fp16": 2}
# A large graph is traced to a file a tensor, float32, and these are joined into one more.
_TRACED_BYTES = 2 * 4
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export made.

    Attributes:
        out: The repository.
        digest: Its manifest's sha256, as verdicts name the model.
        difference: Largest difference of a logit to transformers, or None without verify.
    """

    out: Path
    digest: str
    difference: float | None


def export_checkpoint(
    checkpoint: str | Path,
    out: Path,
    *,
    dtype: DType = "fp16",
    verify: bool = False,
    say: Say = lambda _: None,
) -> ExportReport:
    """Turn a `LlavaForConditionalGeneration` checkpoint into a Triton model repository.

    The same checkpoint gives the same files. `out` appears whole or not at all; an
    existing repository there is replaced only after the new one is complete.

    Args:
        checkpoint: Local folder or hub id.
        out: Folder of the repository.
        dtype: How weights are stored; computation is float32 either way.
        verify: Compare with transformers on prompts of several kinds.
        say: Receives progress lines.

    Raises:
        ExportError: Unsupported model, missing files, parts that do not fit each other, no
            disk, a folder that may not be replaced, or a difference above tolerance.
        EnvironmentProblem: The disk became full.
    """
    source = read_checkpoint(checkpoint)
    # The folder beside `.` is not the parent that pathlib names.
    out = out.absolute()
    check_target(out)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _check_disk(source, out.parent, dtype)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as scratch:
            root = Path(scratch) / "repository"
            model = _load(source)
            _write(model, source, root, dtype, say)
            difference = _verify(model, source, root, dtype, say) if verify else None
            replace(root, out)
    files = [path for path in out.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    say(f"{out}: {len(files)} files, {size / 1e6:.1f} MB")
    return ExportReport(out, manifest_digest(out), difference)


def _check_disk(source: Checkpoint, parent: Path, dtype: DType) -> None:
    text = source.config.text_config
    # An embedding that is the head as well is stored once, but traced twice.
    numbers = source.parameters + text.vocab_size * text.hidden_size
    wanted = numbers * (_TRACED_BYTES + _STORED_BYTES[dtype])
    free = shutil.disk_usage(parent).free
    if free < wanted:
        raise ExportError(f"{parent}: {free / 1e9:.1f} GB free, export needs {wanted / 1e9:.1f} GB")


def _load(source: Checkpoint) -> Any:
    import torch
    from safetensors import SafetensorError
    from transformers import LlavaForConditionalGeneration

    try:
        model, found = LlavaForConditionalGeneration.from_pretrained(
            source.folder,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as exc:
        raise ExportError(f"{source.name}: weights cannot be loaded: {exc}") from exc
    if missing := sorted(found["missing_keys"]):
        # transformers draws those at random and goes on.
        raise ExportError(f"{source.name}: weights are missing: {', '.join(missing[:3])}")
    return model.eval()


def _write(model: Any, source: Checkpoint, root: Path, dtype: DType, say: Say) -> None:
    from stream_judge.export.repository import write_repository
    from stream_judge.export.storage import WeightFile
    from stream_judge.export.tracing import make_graphs

    graphs = make_graphs(model, source.preprocessing)
    half = dtype == "fp16"
    say(f"weights are stored as {dtype}")
    vision, decoder = root / "vision_encoder/1", root / "language_decoder/1"
    vision.mkdir(parents=True)
    decoder.mkdir(parents=True)
    with WeightFile(vision / "model.onnx_data", half=half) as weights:
        _store(graphs.vision, vision / "model.onnx", weights, say)
    with WeightFile(decoder / "decoder.onnx_data", half=half) as weights:
        for graph in graphs.decoder:
            _store(graph, decoder / f"{graph.name}.onnx", weights, say)
    write_repository(root, source, picture_tokens=graphs.picture_tokens)


def _store(graph: Graph, target: Path, weights: WeightFile, say: Say) -> None:
    from stream_judge.export.tracing import trace

    say(f"tracing {graph.name}")
    # Beside the repository, so that a large graph's trace is gone before the next one's.
    with tempfile.TemporaryDirectory(dir=target.parents[3]) as folder:
        traced = Path(folder) / target.name
        if differs := trace(graph, traced):
            say(differs)
        weights.adopt(traced, target)


def _verify(model: Any, source: Checkpoint, root: Path, dtype: DType, say: Say) -> float:
    from stream_judge.export.verify import largest_difference

    say("comparing with transformers")
    difference = largest_difference(model, source, root)
    say(f"largest difference of a logit: {difference:.2e} (limit {_TOLERANCE:.0e})")
    if not difference <= _TOLERANCE:
        hint = "; float32 weights are rounded to fp16: try --dtype fp32" if dtype == "fp16" else ""
        raise ExportError(f"differs from transformers by {difference:.2e} > {_TOLERANCE:.0e}{hint}")
    return difference
