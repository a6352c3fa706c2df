"""How the model wants its pictures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PixelSpec:
    """Preparation of a picture for the vision encoder.

    Attributes:
        size: S, side of the square in pixels.
        resample: Resampling filter, a name of Pillow's `Image.Resampling` in lower case.
        crop: `center` (shortest edge to S, then the middle square) or `none` (straight to
            S x S).
    """

    size: int
    resample: str = "bicubic"
    crop: str = "center"
