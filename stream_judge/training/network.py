"""The network that is trained: a plain-torch twin of a small LLaVA.

Every module maps one to one onto transformers' `LlavaForConditionalGeneration`
(`checkpoint.py` copies the weights). The twin exists because it is faster on two
cores: fused projections, one call per attention, and outputs of inner layers for
the probes without hooks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RMS_EPS = 1e-5


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Sizes of the network; stored with every training state and checkpoint."""

    image_size: int = 64
    patch: int = 16
    vision_width: int = 160
    vision_layers: int = 4
    vision_heads: int = 5
    width: int = 192
    layers: int = 5
    heads: int = 6
    inner: int = 512
    rope_theta: float = 1000.0
    vocabulary: int = 6144
    # Every channel alike: drawings have no colour cast to correct.
    pixel_mean: float = 0.6
    pixel_std: float = 0.28

    @property
    def picture_tokens(self) -> int:
        """How many tokens a picture becomes."""
        return (self.image_size // self.patch) ** 2

    def as_dict(self) -> dict[str, float | int]:
        """The sizes as plain values for JSON."""
        return asdict(self)


class VisionBlock(nn.Module):
    """One pre-norm CLIP encoder layer over [B, T, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 3 * width)
        self.down = nn.Linear(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, c)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class VisionTower(nn.Module):
    """CLIP vision tower: uint8 [B, S, S, 3] -> float32 [B, T, vision_width], CLS dropped."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.vision_width
        self.config = config
        self.patches = nn.Conv2d(3, width, config.patch, config.patch, bias=False)
        self.cls = nn.Parameter(torch.randn(width) * 0.02)
        self.positions = nn.Parameter(torch.randn(config.picture_tokens + 1, width) * 0.02)
        self.pre_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            VisionBlock(width, config.vision_heads) for _ in range(config.vision_layers)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        scaled = pixels.permute(0, 3, 1, 2).float() / 255
        x = self.patches((scaled - self.config.pixel_mean) / self.config.pixel_std)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), 1, -1), x], 1) + self.positions
        x = self.pre_norm(x)
        for block in self.blocks:
            x = block(x)
        return x[:, 1:]


def make_projector(config: NetworkConfig) -> nn.Sequential:
    """LLaVA's two-layer projector from the tower's width to the decoder's."""
    return nn.Sequential(
        nn.Linear(config.vision_width, config.width),
        nn.GELU(),
        nn.Linear(config.width, config.width),
    )


class RmsNorm(nn.Module):
    """Llama's RMS norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, RMS_EPS)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class DecoderBlock(nn.Module):
    """One Llama decoder layer, causal over right-padded rows."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm1 = RmsNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = RmsNorm(width)
        self.gate_up = nn.Linear(width, 2 * config.inner, bias=False)
        self.down = nn.Linear(config.inner, width, bias=False)
        # Inputs of unit variance stay so; what is added to the residual starts small.
        damp = (2 * config.layers) ** -0.5
        nn.init.normal_(self.qkv.weight, std=width**-0.5)
        nn.init.normal_(self.gate_up.weight, std=width**-0.5)
        nn.init.normal_(self.out.weight, std=width**-0.5 * damp)
        nn.init.normal_(self.down.weight, std=config.inner**-0.5 * damp)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, c))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Decoder(nn.Module):
    """Llama decoder with tied embeddings."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Embedding(config.vocabulary, config.width)
        nn.init.normal_(self.embeddings.weight, std=config.width**-0.5)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.layers))
        self.norm = RmsNorm(config.width)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        keep: Collection[int] = (),
        depth: int | None = None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Final hidden states [B, T, width], and the outputs of the layers in `keep`.

        Args:
            x: float [B, T, width], embedded tokens, right-padded.
            positions: float [B, T], rotary positions.
            keep: 1-based layer numbers whose outputs the probes read.
            depth: How many layers are run; all by default.
        """
        half = self.config.width // self.config.heads // 2
        rates = self.config.rope_theta ** (-torch.arange(half).float() / half)
        angles = positions[:, None, :, None] * rates
        cos, sin = angles.cos(), angles.sin()
        kept: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks[:depth], 1):
            x = block(x, cos, sin)
            if number in keep:
                kept[number] = x
        return self.norm(x), kept
