"""`export --verify`: the repository against transformers, on the same prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from stream_judge.errors import ExportError
from stream_judge.export.checkpoint import Checkpoint
from stream_judge.export.preprocessing import Preprocessing
from stream_judge.serving.bundle import Sample, pack_bundle
from stream_judge.serving.decoder import DecoderOptions, LanguageDecoder, Row
from stream_judge.serving.prompt import PromptTemplate, PromptTokenizer
from stream_judge.serving.sessions import open_session

_INSTRUCTION = "Judge only by the category and the colour."
_TEXTS = (
    "red mug",
    "Two striped umbrellas in blue, with a wooden handle and a cover for rainy days",
    "赤いマグカップ 2個セット 水玉",
    "a " + "very " * 40 + "long text about one plain brown chair",
)


def largest_difference(model: Any, source: Checkpoint, root: Path) -> float:
    """Largest absolute difference of a yes or no logit, over policies of 0, 1 and 3 samples.

    transformers sees each prompt alone and whole; the repository judges all texts in one
    batch over a resident prefix. Samples that the decoder has no room for are left out.

    Raises:
        ExportError: The repository does not judge one of the prompts.
    """
    rng = np.random.default_rng(11)
    size = source.preprocessing.size
    pixels = rng.integers(0, 256, (8, size, size, 3)).astype(np.uint8)
    vision = open_session(root / "vision_encoder/1/model.onnx")
    decoder = LanguageDecoder(
        root / "language_decoder/1", root / "vision_encoder/1/model.onnx", DecoderOptions()
    )
    (embeddings,) = vision.run(None, {"pixels": pixels[: len(_TEXTS)]})
    prompt = PromptTokenizer(
        Tokenizer.from_file(str(source.folder / "tokenizer.json")),
        PromptTemplate.read(root / "language_decoder/1/prompt.json"),
        picture_tokens=decoder.picture_tokens,
    )
    worst = 0.0
    for count in (0, 1, 3):
        shown = [(f"sample {n}: blue bag", n % 2 == 0) for n in range(count)]
        pictures = pixels[len(_TEXTS) : len(_TEXTS) + count]
        samples = [Sample(p, t, a) for p, (t, a) in zip(pictures, shown, strict=True)]
        bundle = pack_bundle(_INSTRUCTION, samples, size=size)
        rows = [Row(e, t.encode(), bundle) for e, t in zip(embeddings, _TEXTS, strict=True)]
        for index, result in enumerate(decoder.judge(rows)):
            if result.status == "policy_too_long" and count:
                # More samples fit no better.
                return worst
            if result.status != "ok":
                raise ExportError(
                    f"the repository answers a prompt of --verify with {result.status}"
                )
            # Samples may leave so little room that the text behind them is cut.
            query = prompt.query(_TEXTS[index], result.tokens[0])
            ids = [*prompt.prefix(_INSTRUCTION, shown), *query.ids]
            all_pictures = np.concatenate([pictures, pixels[index : index + 1]])
            theirs = _transformers(model, ids, all_pictures, source.preprocessing)
            for ours, token in zip(result.logits, (prompt.positive, prompt.negative), strict=True):
                worst = max(worst, abs(ours - float(theirs[token])))
    return worst


@torch.no_grad()
def _transformers(
    model: Any, ids: list[int], pixels: NDArray[np.uint8], preprocessing: Preprocessing
) -> torch.Tensor:
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)
    output = model(
        input_ids=torch.tensor([ids]),
        pixel_values=(values - mean) / std,
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
    )
    logits: torch.Tensor = output.logits[0, -1]
    return logits
