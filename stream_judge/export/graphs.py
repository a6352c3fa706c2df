"""The three graphs of a LLaVA, as torch modules that trace to ONNX.

vision encoder   pixels uint8 NHWC -> projected picture tokens, normalisation inside
prefix           a policy's tokens -> its keys and values, batch size 1
verdict          rows of queries over one shared prefix -> logits of the next token

The decoder is walked layer by layer here: that is what lets the verdict graph read a
batch-1 prefix without expanding it, and what keeps both graphs' weights identical, so
that they can share one file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

KeyValue = tuple[Tensor, Tensor]
_HIDDEN = -1e9


class VisionEncoder(nn.Module):
    """uint8 [B, S, S, 3] -> float32 [B, T, D]."""

    def __init__(self, model: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        config = model.config
        self.config = config.vision_config
        self.tower = model.model.vision_tower
        self.projector = model.model.multi_modal_projector
        layer = config.vision_feature_layer
        self.layers = [layer] if isinstance(layer, int) else list(layer)
        self.drop_cls = config.vision_feature_select_strategy == "default"
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.register_buffer("scale", scale.float().view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        x = pixels.permute(0, 3, 1, 2).to(torch.float32) * self.scale + self.shift
        states = self.tower(x, output_hidden_states=True).hidden_states
        chosen = [states[layer] for layer in self.layers]
        if self.drop_cls:
            chosen = [state[:, 1:] for state in chosen]
        joined = chosen[0] if len(chosen) == 1 else torch.cat(chosen, -1)
        return {"image_embeddings": self.projector(joined)}


class _Decoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config.text_config
        self.language = model.model.language_model
        self.image_token = model.config.image_token_index
        self.heads = self.config.num_attention_heads
        self.kv_heads = self.config.num_key_value_heads
        size = getattr(self.config, "head_dim", None)
        self.head_size = size or self.config.hidden_size // self.heads

    def embed(self, input_ids: Tensor, image_embeddings: Tensor) -> Tensor:
        """Token embeddings with row b's picture tokens spliced into row b's slots."""
        words = self.language.embed_tokens(input_ids)
        slots = input_ids == self.image_token
        rows = image_embeddings.reshape(input_ids.shape[0], -1, words.shape[-1])
        order = (torch.cumsum(slots.long(), 1) - 1).clamp(min=0)
        picked = torch.gather(rows, 1, order.unsqueeze(-1).expand(-1, -1, words.shape[-1]))
        return torch.where(slots.unsqueeze(-1), picked, words)

    def walk(
        self, x: Tensor, bias: Tensor, positions: Tensor, past: Sequence[KeyValue] | None
    ) -> tuple[Tensor, list[KeyValue]]:
        cos, sin = self.language.rotary_emb(x, positions)
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        computed = []
        for index, layer in enumerate(self.language.layers):
            before = past[index] if past is not None else None
            mixed, own = self._attend(
                layer.self_attn, layer.input_layernorm(x), bias, (cos, sin), before
            )
            x = x + mixed
            x = x + layer.mlp(layer.post_attention_layernorm(x))
            computed.append(own)
        return self.language.norm(x), computed

    def _attend(
        self,
        attention: Any,
        x: Tensor,
        bias: Tensor,
        rotary: KeyValue,
        past: KeyValue | None,
    ) -> tuple[Tensor, KeyValue]:
        b, s, _ = x.shape
        groups = self.heads // self.kv_heads

        def heads(y: Tensor, count: int) -> Tensor:
            return y.view(b, s, count, self.head_size).transpose(1, 2)

        q = _rotate(heads(attention.q_proj(x), self.heads), *rotary)
        k = _rotate(heads(attention.k_proj(x), self.kv_heads), *rotary)
        v = heads(attention.v_proj(x), self.kv_heads)
        # Query heads that share a key head are rows of one product: keys are not repeated,
        # and a batch-1 prefix broadcasts.
        q = q.reshape(b, self.kv_heads, groups * s, self.head_size) * self.head_size**-0.5
        scores = (q @ k.transpose(2, 3)).view(b, self.kv_heads, groups, s, -1)
        scores = (scores + bias.unsqueeze(2)).view(b, self.kv_heads, groups * s, -1)
        if past is None:
            mixed = torch.softmax(scores, -1) @ v
        else:
            before = q @ past[0].transpose(2, 3)
            weights = torch.softmax(torch.cat([before, scores], -1), -1)
            length = past[0].shape[2]
            mixed = weights[..., :length] @ past[1] + weights[..., length:] @ v
        mixed = mixed.reshape(b, self.heads, s, self.head_size).transpose(1, 2)
        return attention.o_proj(mixed.reshape(b, s, self.heads * self.head_size)), (k, v)


class PrefixBuilder(_Decoder):
    """A policy's tokens -> keys and values of every layer, float32 [1, heads, P, size]."""

    def forward(self, input_ids: Tensor, image_embeddings: Tensor) -> dict[str, Tensor]:
        x = self.embed(input_ids, image_embeddings)
        positions = torch.cumsum(torch.ones_like(input_ids), 1) - 1
        later = positions.unsqueeze(1) > positions.unsqueeze(2)
        _, computed = self.walk(x, later.unsqueeze(1) * _HIDDEN, positions, None)
        return {
            f"present.{index}.{name}": tensor
            for index, pair in enumerate(computed)
            for name, tensor in zip(("key", "value"), pair, strict=True)
        }


class VerdictDecoder(_Decoder):
    """Left-padded query rows over one shared prefix -> logits float32 [B, V]."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.head = model.lm_head

    def forward(
        self,
        input_ids: Tensor,
        image_embeddings: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        prefix_key_values: Sequence[KeyValue],
    ) -> dict[str, Tensor]:
        x = self.embed(input_ids, image_embeddings)
        order = torch.cumsum(torch.ones_like(input_ids), 1)
        hidden = order.unsqueeze(1) > order.unsqueeze(2)
        hidden = hidden | (attention_mask == 0).unsqueeze(1)
        bias = hidden.unsqueeze(1) * _HIDDEN
        states, _ = self.walk(x, bias, position_ids, prefix_key_values)
        return {"logits": self.head(states[:, -1])}


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin
