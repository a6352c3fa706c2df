"""The four attributes a drawn product has, and their values.

The order category, colour, count, pattern is fixed: training, evaluation and the
checkpoint depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass

CATEGORIES = (
    "mug",
    "bottle",
    "shirt",
    "trousers",
    "hat",
    "boot",
    "bag",
    "lamp",
    "chair",
    "umbrella",
    "ball",
    "cushion",
)
COLOURS = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "black",
    "white",
)
COUNTS = ("one", "two", "three")
PATTERNS = ("plain", "striped", "dotted")

ATTRIBUTES = ("category", "colour", "count", "pattern")
VALUES = (CATEGORIES, COLOURS, COUNTS, PATTERNS)
SIZES = tuple(len(values) for values in VALUES)


@dataclass(frozen=True, slots=True)
class Product:
    """One drawn product: for each attribute an index into its values."""

    category: int
    colour: int
    count: int
    pattern: int

    def indices(self) -> tuple[int, int, int, int]:
        """The value indices in the order of `ATTRIBUTES`."""
        return (self.category, self.colour, self.count, self.pattern)

    def names(self) -> dict[str, str]:
        """The value names by attribute, in the order of `ATTRIBUTES`."""
        pairs = zip(ATTRIBUTES, VALUES, self.indices(), strict=True)
        return {attribute: values[index] for attribute, values, index in pairs}

    def replaced(self, attribute: str, index: int) -> Product:
        """The same product with one attribute set to another value index."""
        values = dict(zip(ATTRIBUTES, self.indices(), strict=True))
        if attribute not in values:
            raise KeyError(attribute)
        values[attribute] = index
        return Product(**values)
