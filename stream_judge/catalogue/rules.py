"""The policies shipped for the drawn catalogue: who is judged by which, and its words."""

from __future__ import annotations

#: Attributes that count under each policy.
COUNTS: dict[str, frozenset[str]] = {
    "exact": frozenset({"category", "colour", "count", "pattern"}),
    "any-colour": frozenset({"category", "count", "pattern"}),
    "by-samples": frozenset({"category", "colour", "count"}),
}
#: The instruction of each policy. That of `by-samples` leaves the rule to its samples.
INSTRUCTIONS: dict[str, str] = {
    "exact": (
        "You check whether the pictures of a listing show what its text says. "
        "The category, the colour, the count and the pattern must all match."
    ),
    "any-colour": (
        "You check whether the pictures of a listing show what its text says. "
        "Ignore the colour; everything else has to agree."
    ),
    "by-samples": (
        "You check whether the pictures of a listing show what its text says. Follow the samples."
    ),
}
#: The policy of each seller in the drawn catalogue.
SELLER_POLICY: dict[str, str] = {
    "north-shop": "exact",
    "kita-shop": "exact",
    "any-colour-outlet": "any-colour",
    "sample-studio": "by-samples",
}
