"""Phrasings of policies, kept as text: `<language>_<split>_<manner>.txt` beside this file.

A file has sections, `## NAME`, and one phrasing a line below each. Sections of whole
instructions have the names and slots of `wording_en`, sections of clauses those of
`wording_parts_en`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from importlib.resources import files


@cache
def phrasings(language: str, split: str) -> Mapping[str, tuple[str, ...]]:
    """The lines of every section of a language and split, in the order of the files' names.

    Args:
        language: "en" or "ja".
        split: "train", "late" (further ones for the end of training) or "dev"; a split
            without files has no lines.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for file in sorted(files(__name__).iterdir(), key=lambda path: path.name):
        if not file.name.startswith(f"{language}_{split}_"):
            continue
        section = ""
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("## "):
                section = line.removeprefix("## ")
            elif line:
                found[section].append(line)
    return {section: tuple(lines) for section, lines in found.items()}
