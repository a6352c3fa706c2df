"""Random LLaVA checkpoints of any shape, in float32 or float16."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
)

from stream_judge.training.tokenizer import PROMPT

TOWERS = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig}
DECODERS = {"llama": LlamaConfig, "qwen2": Qwen2Config}


def write_checkpoint(
    out: Path,
    tokenizer: Tokenizer,
    *,
    image_size: int = 32,
    kv_heads: int = 4,
    feature_layer: int | list[int] = -1,
    strategy: str = "default",
    tower: str = "clip",
    decoder: str = "llama",
    half: bool = False,
    seed: int = 0,
) -> Path:
    torch.manual_seed(seed)
    vision = TOWERS[tower](
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=image_size,
        patch_size=16,
    )
    text = DECODERS[decoder](
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=2048,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    # CLIP's class token; SigLIP has none.
    tokens = (image_size // 16) ** 2 + (strategy == "full" and tower == "clip")
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=3,
        image_seq_length=tokens,
        vision_feature_layer=feature_layer,
        vision_feature_select_strategy=strategy,
    )
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        # Freshly made models answer everything alike; larger weights tell texts apart.
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
            elif "language_model" in name and name.endswith("_proj.bias"):
                # They begin at zero, where a graph without them would not be noticed.
                parameter.normal_(std=0.5)
    model.to(torch.float16 if half else torch.float32).save_pretrained(out)
    tokenizer.save(str(out / "tokenizer.json"))
    files: dict[str, Any] = {
        "preprocessor_config.json": {
            "size": {"shortest_edge": image_size},
            "crop_size": {"height": image_size, "width": image_size},
            "do_center_crop": True,
            "resample": 3,
            "image_mean": [0.48, 0.46, 0.41],
            "image_std": [0.27, 0.26, 0.28],
        },
        "prompt.json": PROMPT,
    }
    for name, content in files.items():
        (out / name).write_text(json.dumps(content))
    return out
