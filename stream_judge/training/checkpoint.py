"""From the trained twin to a `LlavaForConditionalGeneration` checkpoint on disk."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from stream_judge.training.network import RMS_EPS, NetworkConfig, VisionTower
from stream_judge.training.probes import JudgeNetwork
from stream_judge.training.tokenizer import PROMPT, SPECIAL_TOKENS

_MAX_POSITIONS = 4096
_ENDS = ("weight", "bias")


def llava_config(config: NetworkConfig) -> LlavaConfig:
    """The transformers configuration of the same network."""
    vision = CLIPVisionConfig(
        hidden_size=config.vision_width,
        intermediate_size=3 * config.vision_width,
        num_hidden_layers=config.vision_layers,
        num_attention_heads=config.vision_heads,
        image_size=config.image_size,
        patch_size=config.patch,
        hidden_act="gelu",
        projection_dim=config.vision_width,
    )
    pad, bos, eos, image = (SPECIAL_TOKENS.index(t) for t in ("<pad>", "<s>", "</s>", "<image>"))
    text = LlamaConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.width,
        intermediate_size=config.inner,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        rope_theta=config.rope_theta,
        rms_norm_eps=RMS_EPS,
        max_position_embeddings=_MAX_POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=config.picture_tokens,
        projector_hidden_act="gelu",
        tie_word_embeddings=True,
        pad_token_id=pad,
    )


def to_llava(
    config: NetworkConfig, tower: VisionTower, network: JudgeNetwork
) -> LlavaForConditionalGeneration:
    """A transformers model with the twin's weights; float32, in evaluation mode.

    Raises:
        ValueError: If a weight has no place, or a place has no weight.
    """
    model = LlavaForConditionalGeneration(llava_config(config)).eval()
    weights = {
        **_vision_weights(tower),
        **_projector_weights(network),
        **_decoder_weights(network),
    }
    missing, surplus = model.load_state_dict(weights, strict=False)
    # The norm behind the tower's last layer is never applied: LLaVA reads the layer itself.
    unset = [k for k in missing if "post_layernorm" not in k and k != "lm_head.weight"]
    if unset or surplus:
        raise ValueError(f"weights without a partner: missing {unset}, surplus {surplus}")
    model.tie_weights()
    return model


def _vision_weights(tower: VisionTower) -> dict[str, Tensor]:
    root = "model.vision_tower.vision_model."
    weights = {
        root + "embeddings.class_embedding": tower.cls.data,
        root + "embeddings.patch_embedding.weight": tower.patches.weight.data,
        root + "embeddings.position_embedding.weight": tower.positions.data,
    }
    for end in _ENDS:
        # "pre_layrnorm" is how transformers spells it.
        weights[root + "pre_layrnorm." + end] = getattr(tower.pre_norm, end).data
        for i, block in enumerate(tower.blocks):
            layer = f"{root}encoder.layers.{i}."
            for name, part in zip("qkv", getattr(block.qkv, end).data.chunk(3), strict=True):
                weights[f"{layer}self_attn.{name}_proj.{end}"] = part
            for name, module in (
                ("self_attn.out_proj", block.out),
                ("layer_norm1", block.norm1),
                ("layer_norm2", block.norm2),
                ("mlp.fc1", block.up),
                ("mlp.fc2", block.down),
            ):
                weights[f"{layer}{name}.{end}"] = getattr(module, end).data
    return weights


def _projector_weights(network: JudgeNetwork) -> dict[str, Tensor]:
    root = "model.multi_modal_projector.linear_"
    return {
        f"{root}{number}.{end}": getattr(network.projector[index], end).data
        for number, index in ((1, 0), (2, 2))
        for end in _ENDS
    }


def _decoder_weights(network: JudgeNetwork) -> dict[str, Tensor]:
    root = "model.language_model."
    decoder = network.decoder
    weights = {
        root + "embed_tokens.weight": decoder.embeddings.weight.data,
        root + "norm.weight": decoder.norm.weight.data,
    }
    for i, block in enumerate(decoder.blocks):
        layer = f"{root}layers.{i}."
        for name, part in zip("qkv", block.qkv.weight.data.chunk(3), strict=True):
            weights[f"{layer}self_attn.{name}_proj.weight"] = part
        gate, up = block.gate_up.weight.data.chunk(2)
        weights[layer + "self_attn.o_proj.weight"] = block.out.weight.data
        weights[layer + "input_layernorm.weight"] = block.norm1.weight.data
        weights[layer + "post_attention_layernorm.weight"] = block.norm2.weight.data
        weights[layer + "mlp.gate_proj.weight"] = gate
        weights[layer + "mlp.up_proj.weight"] = up
        weights[layer + "mlp.down_proj.weight"] = block.down.weight.data
    return weights


def save_checkpoint(
    config: NetworkConfig,
    tower: VisionTower,
    network: JudgeNetwork,
    tokenizer: Tokenizer,
    out: Path,
) -> None:
    """Write config, float16 weights, tokenizer, preprocessor settings and prompt to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    model = to_llava(config, tower, network).to(torch.float16)
    model.save_pretrained(out, safe_serialization=True)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": config.image_size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": config.image_size, "width": config.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [config.pixel_mean] * 3,
        "image_std": [config.pixel_std] * 3,
    }
    for name, content in (("preprocessor_config", preprocessor), ("prompt", PROMPT)):
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (out / f"{name}.json").write_text(text, encoding="utf-8")
