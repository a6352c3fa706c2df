"""What Optimum has to know of the graphs: names, dynamic axes, dummy inputs."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from optimum.exporters.onnx.config import OnnxConfig
from optimum.utils import DummyInputGenerator, NormalizedTextConfig, NormalizedVisionConfig
from torch import Tensor

_PREFIX_LENGTH = 9
_QUERY_TAIL = 7


def _in_framework(tensors: dict[str, Any], framework: str) -> dict[str, Any]:
    """The same values for torch ("pt") or ONNX Runtime ("np")."""
    if framework == "pt":
        return tensors

    def plain(value: Any) -> Any:
        return value.numpy() if isinstance(value, Tensor) else [tuple(map(plain, p)) for p in value]

    return {name: plain(value) for name, value in tensors.items()}


class _Generator(DummyInputGenerator):  # type: ignore[misc]  # optimum has no types
    """Inputs of any graph here; sizes come from the config that asks."""

    SUPPORTED_INPUT_NAMES = (
        "pixels",
        "input_ids",
        "image_embeddings",
        "attention_mask",
        "position_ids",
        "prefix_key_values",
    )


class _GraphConfig(OnnxConfig):  # type: ignore[misc]  # optimum has no types
    DUMMY_INPUT_GENERATOR_CLASSES = (_Generator,)
    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig
    # Differences that float32 sums in another order give; --verify holds the whole to 1e-3.
    ATOL_FOR_VALIDATION = 1e-4

    def __init__(self, config: Any, *, picture_tokens: int, image_token: int) -> None:
        super().__init__(config)
        self._picture_tokens = picture_tokens
        self._image_token = image_token

    def _ids(self, batch: int) -> Tensor:
        vocabulary = self._config.vocab_size
        length = 3 + self._picture_tokens + _QUERY_TAIL
        ids = torch.arange(batch * length).view(batch, length) * 7 % (vocabulary - 1)
        ids[ids == self._image_token] = vocabulary - 1
        ids[:, 3 : 3 + self._picture_tokens] = self._image_token
        return ids

    def _noise(self, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(7)
        return torch.randn(*shape, generator=generator)

    @property
    def _layers(self) -> int:
        return int(self._config.num_hidden_layers)


class VisionConfig(_GraphConfig):
    """pixels -> image_embeddings."""

    NORMALIZED_CONFIG_CLASS = NormalizedVisionConfig
    inputs: ClassVar = {"pixels": {0: "batch"}}
    outputs: ClassVar = {"image_embeddings": {0: "batch"}}

    def generate_dummy_inputs(self, framework: str = "pt", **_: Any) -> dict[str, Any]:
        size = self._config.image_size
        levels = torch.arange(2 * size * size * 3) * 97 % 256
        pixels = levels.to(torch.uint8).view(2, size, size, 3)
        return _in_framework({"pixels": pixels}, framework)


class PrefixConfig(_GraphConfig):
    """input_ids, image_embeddings -> present.*"""

    inputs: ClassVar = {"input_ids": {1: "prefix"}, "image_embeddings": {1: "picture_tokens"}}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {
            f"present.{index}.{name}": {2: "prefix"}
            for index in range(self._layers)
            for name in ("key", "value")
        }

    def generate_dummy_inputs(self, framework: str = "pt", **_: Any) -> dict[str, Any]:
        width = self._config.hidden_size
        tensors = {
            "input_ids": self._ids(1),
            "image_embeddings": self._noise(1, self._picture_tokens, width),
        }
        return _in_framework(tensors, framework)


class VerdictConfig(_GraphConfig):
    """A query over a shared prefix -> logits."""

    outputs: ClassVar = {"logits": {0: "batch"}}

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        row = {0: "batch", 1: "query"}
        return {
            "input_ids": row,
            "image_embeddings": {0: "batch"},
            "attention_mask": row,
            "position_ids": row,
            **{
                f"prefix_key_values.{index}.{name}": {2: "prefix"}
                for index in range(self._layers)
                for name in ("key", "value")
            },
        }

    def generate_dummy_inputs(self, framework: str = "pt", **_: Any) -> dict[str, Any]:
        config = self._config
        ids = self._ids(2)
        mask = torch.ones_like(ids)
        mask[1, :2] = 0
        size = getattr(config, "head_dim", None)
        size = size or config.hidden_size // config.num_attention_heads
        shape = (1, config.num_key_value_heads, _PREFIX_LENGTH, size)
        past = [(self._noise(*shape), self._noise(*shape)) for _ in range(self._layers)]
        tensors = {
            "input_ids": ids,
            "image_embeddings": self._noise(2, self._picture_tokens, config.hidden_size),
            "attention_mask": mask,
            "position_ids": (torch.cumsum(mask, 1) - 1).clamp(min=0) + _PREFIX_LENGTH,
            "prefix_key_values": past,
        }
        return _in_framework(tensors, framework)

    def flatten_output_collection_property(self, name: str, field: Any) -> dict[str, Any]:
        return {
            f"{name}.{index}.{part}": tensor
            for index, pair in enumerate(field)
            for part, tensor in zip(("key", "value"), pair, strict=True)
        }
