"""Reading a checkpoint: what must be there, what it says, whether its parts fit each other."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from stream_judge.errors import ExportError
from stream_judge.export.preprocessing import Preprocessing, read_preprocessing
from stream_judge.serving.prompt import PromptTemplate, PromptTokenizer

_NEEDED = ("config.json", "tokenizer.json", "preprocessor_config.json")
# Decoders that compute as Llama does: RMS norm, rotary positions, gated MLP.
_DECODERS = ("llama", "mistral", "qwen2")
# Frequencies that do not follow the prompt's length: a traced graph has no others.
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
#: For checkpoints of the LLaVA-1.5 family that bring no prompt.json.
LLAVA_PROMPT: dict[str, str | int] = {
    "version": 1,
    "bos": "<s>",
    "image": "<image>",
    "before_instruction": "",
    "after_instruction": "\n",
    "before_image": "USER:",
    "after_image": "\n",
    "text_prefix": "",
    "after_text": "\nDoes the picture match the text? ASSISTANT:",
    "positive": "Yes",
    "negative": "No",
    "after_answer": "\n",
    "max_text_tokens": 768,
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose parts fit each other.

    Attributes:
        folder: Where it lies.
        name: The model's name, as verdicts show it.
        version: The model's version, as verdicts show it.
        config: Its `LlavaConfig`, transformers' defaults included.
        preprocessing: How pictures reach the vision encoder.
        prompt: Content of `prompt.json`: its own, or the one for LLaVA-1.5.
        parameters: How many numbers its weights are.
    """

    folder: Path
    name: str
    version: str
    config: Any
    preprocessing: Preprocessing
    prompt: dict[str, object]
    parameters: int


def read_checkpoint(checkpoint: str | Path) -> Checkpoint:
    """Look a checkpoint through, all but the weights' values.

    Args:
        checkpoint: Local folder or hub id; names the model if its config.json does not.

    Raises:
        ExportError: Missing files, a model, a processor or a prompt that is not supported,
            or parts that do not fit each other.
    """
    folder = resolve(checkpoint)
    check_model_type(folder)
    identity = read_json(folder / "config.json")
    config = _read_config(folder)
    check_decoder(config.text_config)
    preprocessing = read_preprocessing(read_json(folder / "preprocessor_config.json"))
    side = config.vision_config.image_size
    if preprocessing.size != side:
        raise ExportError(
            f"preprocessor_config.json makes pictures of {preprocessing.size} pixels, "
            f"the vision tower wants {side}"
        )
    prompt, template = read_prompt(folder)
    check_prompt(
        folder,
        template,
        image_token=config.image_token_index,
        vocabulary=config.text_config.vocab_size,
    )
    return Checkpoint(
        folder=folder,
        name=str(identity.get("stream_judge_name") or _given_name(checkpoint)),
        version=str(identity.get("stream_judge_version", "1")),
        config=config,
        preprocessing=preprocessing,
        prompt=prompt,
        parameters=count_parameters(folder),
    )


def _given_name(checkpoint: str | Path) -> str:
    # A hub id, not its snapshot: that folder is called after a commit.
    folder = Path(checkpoint)
    return folder.resolve().name if folder.is_dir() else str(checkpoint)


def resolve(checkpoint: str | Path) -> Path:
    """The checkpoint's folder: a local one, or a hub id's snapshot.

    Raises:
        ExportError: If it is neither, or files are missing in it.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        folder = _download(str(checkpoint))
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if not list(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise ExportError(f"{checkpoint}: {', '.join(missing)} missing; a checkpoint needs them")
    return folder


def _download(name: str) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise ExportError(f"{name}: no such folder, and not a hub id (owner/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as exc:
        # Where nothing answers, its client says only that it has no copy; why is the cause.
        hidden = exc.__cause__ if isinstance(exc, LocalEntryNotFoundError) else None
        reason = " ".join(str(hidden or exc).split())
        raise ExportError(f"{name}: no such folder, and the hub did not give it: {reason}") from exc


def check_model_type(folder: Path) -> None:
    """Refuse what transformers would read wrongly, or cannot load without other libraries.

    Args:
        folder: Holds `config.json`.

    Raises:
        ExportError: If the model is no LLaVA with a Llama-like decoder, is quantised, or was
            saved in a form that the transformers here does not know.
    """
    config = read_json(folder / "config.json")
    kind, text = config.get("model_type"), config.get("text_config")
    if kind != "llava":
        raise ExportError(f"model type {kind!r} is not supported; wanted 'llava'")
    decoder = text.get("model_type") if isinstance(text, dict) else None
    if not isinstance(text, dict) or decoder not in _DECODERS:
        raise ExportError(f"decoder {decoder!r} is not supported; wanted one of {_DECODERS}")
    if "rope_parameters" in text and "rope_theta" not in text:
        # transformers 4 would take its default base, and say nothing.
        raise ExportError(
            "config.json was written by transformers 5 (rope_parameters): write rope_theta and "
            "rope_scaling into its text_config, as transformers 4 does"
        )
    if config.get("quantization_config") or text.get("quantization_config"):
        raise ExportError(
            "quantised weights are not supported: export the checkpoint that they were made from"
        )


def check_decoder(text: Any) -> None:
    """Refuse a decoder that computes what the graphs do not.

    Args:
        text: Its configuration, transformers' defaults included.

    Raises:
        ExportError: A sliding window, or rotary positions that follow the prompt's length.
    """
    if getattr(text, "sliding_window", None):
        raise ExportError("decoders with a sliding attention window are not supported")
    # Mistral's configuration has no rope_scaling of its own, and leaves the older key alone.
    scaling = getattr(text, "rope_scaling", None) or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in _ROPE_TYPES:
        raise ExportError(f"rope type {kind!r} is not supported; wanted one of {_ROPE_TYPES}")


def _read_config(folder: Path) -> Any:
    from transformers import LlavaConfig

    try:
        return LlavaConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ExportError(f"config.json: transformers does not read it: {exc}") from exc


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; `ExportError` if it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ExportError(f"{path.name}: {exc}") from exc
    if not isinstance(content, dict):
        raise ExportError(f"{path.name}: not a JSON object")
    return content


def read_prompt(folder: Path) -> tuple[dict[str, object], PromptTemplate]:
    """`prompt.json` of the checkpoint, or the LLaVA-1.5 default."""
    path = folder / "prompt.json"
    content: dict[str, object] = read_json(path) if path.is_file() else dict(LLAVA_PROMPT)
    try:
        return content, PromptTemplate.from_mapping(content)
    except ValueError as exc:
        raise ExportError(str(exc)) from exc


def check_prompt(
    folder: Path, template: PromptTemplate, *, image_token: int, vocabulary: int
) -> None:
    """Write a prompt as the server will: what fails here would keep it from being ready.

    Args:
        folder: Holds `tokenizer.json`.
        template: The prompt's fixed parts.
        image_token: The id that the graphs replace by a picture.
        vocabulary: Rows of the decoder's embedding.

    Raises:
        ExportError: If template, tokenizer and model do not fit each other.
    """
    tokenizer = _tokenizer(folder)
    try:
        prompt = PromptTokenizer(tokenizer, template, picture_tokens=1)
        ids = [*prompt.prefix("Judge.", [("a red mug", True)]), *prompt.query("a red mug").ids]
    except (ValueError, IndexError) as exc:
        reason = "an answer is empty" if isinstance(exc, IndexError) else str(exc)
        raise ExportError(
            f"the prompt does not fit the tokenizer ({reason}): put a prompt.json with this "
            "model's tokens and answers into the checkpoint's folder"
        ) from exc
    if prompt.image_id != image_token:
        raise ExportError(
            f"the prompt's image token {template.image!r} has the id {prompt.image_id}, but "
            f"config.json says image_token_index {image_token}: name that token in prompt.json"
        )
    highest = max(*ids, prompt.negative, *tokenizer.get_vocab().values())
    if highest >= vocabulary:
        raise ExportError(
            f"tokenizer.json has the id {highest}, the model only {vocabulary} embeddings: it "
            "is another model's tokenizer"
        )


def _tokenizer(folder: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as exc:
        raise ExportError(f"tokenizer.json: {exc}") from exc


def count_parameters(folder: Path) -> int:
    """How many numbers the weight files hold; their headers say it.

    Raises:
        ExportError: If a file is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, framework="numpy") as file:
                names = list(file.keys())
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
        except (SafetensorError, OSError) as exc:
            raise ExportError(f"{path.name}: weights cannot be loaded: {exc}") from exc
    return total
