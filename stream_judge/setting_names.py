"""The names of settings, as files and flags have them (`kafka.topic`) and as the environment."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

PREFIX = "STREAM_JUDGE_"
JSON_LIST = 'a list is JSON, as in ["a", "b"]'
_UNKNOWN = "there is no such setting"


def kinds(settings: type[BaseModel]) -> dict[str, Any]:
    """The type of each setting, whole sections too, by its name."""
    found: dict[str, Any] = {}
    for section, field in settings.model_fields.items():
        found[section] = field.annotation
        for name, option in getattr(field.annotation, "model_fields", {}).items():
            found[f"{section}.{name}"] = option.annotation
    return found


def variable(name: str) -> str:
    """What a setting is called in the environment."""
    return f"{PREFIX}{name.replace('.', '__')}".upper()


def is_collection(kind: Any) -> bool:
    """Whether a setting of this type is written as JSON where there is only text."""
    return get_origin(kind) in (tuple, list, dict, set, frozenset)


def no_such(name: str, known: Iterable[str]) -> str:
    """That there is no setting of this name, and the one that is most like it, if any is."""
    near = _similar(name, known)
    return f"{_UNKNOWN}; did you mean {near}?" if near else _UNKNOWN


def similar_variable(name: str, known: Iterable[str]) -> str | None:
    """The variable that was meant by one that is none; None if it is like no other.

    Args:
        name: Of the variable, in any case.
        known: Names of all settings.
    """
    names = {variable(setting): setting for setting in known}
    rest = name.upper().removeprefix(PREFIX)
    for i, letter in enumerate(rest):
        if letter == "_" and (meant := f"{PREFIX}{rest[:i]}_{rest[i:]}") in names:
            return meant
    # Without two underscores it is as likely one of those that Kubernetes sets.
    if "__" not in rest:
        return None
    near = _similar(rest.lower().replace("__", "."), names.values())
    return variable(near) if near else None


def refusal(exc: ValidationError, known: Iterable[str], path: Path | None) -> str:
    """Where each mistake in the settings is, and what it is, in one line.

    Values are left out: one may be a secret.

    Args:
        exc: What pydantic found.
        known: Names of all settings.
        path: The settings file, if one was read.
    """
    known = list(known)
    environment = {name.upper() for name in os.environ}
    mistakes = []
    for error in exc.errors(include_url=False, include_input=False):
        parts = tuple(map(str, error["loc"]))
        name, says = ".".join(parts), error["msg"].removeprefix("Value error, ")
        if error["type"] != "extra_forbidden":
            mistakes.append(f"{name}: {says}" if name else says)
        elif variable(name) in environment:
            near = _similar(name, known)
            meant = f"; did you mean {variable(near)}?" if near else ""
            mistakes.append(f"{name} ({variable(name)}): {_UNKNOWN}{meant}")
        else:
            where = f" (in {path})" if path and _is_in_file(parts, path) else ""
            mistakes.append(f"{name}{where}: {no_such(name, known)}")
    return "; ".join(mistakes)


def unreadable(known: Mapping[str, Any]) -> str:
    """Which variable holds a list or an object that is no JSON, and how one looks.

    Args:
        known: The type of each setting by its name.
    """
    types = {variable(name): kind for name, kind in known.items()}
    for name, value in sorted(os.environ.items()):
        if not is_collection(types.get(name.upper())):
            continue
        try:
            json.loads(value)
        except ValueError:
            return f"; {name} is {value!r}, and {JSON_LIST}"
    return ""


def _similar(name: str, known: Iterable[str]) -> str | None:
    section, _, option = name.rpartition(".")
    inside, elsewhere = {}, []
    for candidate in known:
        its_section, _, its_option = candidate.rpartition(".")
        if its_section == section:
            inside[its_option] = candidate
        elif its_option == option:
            elsewhere.append(candidate)
    # Compared without the section, which would make any two options of it alike.
    if near := get_close_matches(option, inside, n=1):
        return inside[near[0]]
    # The option is right and its section is not: any is nearer than none.
    near = get_close_matches(name, elsewhere, n=1, cutoff=0)
    return near[0] if near else None


def _is_in_file(parts: Iterable[str], path: Path) -> bool:
    content: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    for part in parts:
        if not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return True
