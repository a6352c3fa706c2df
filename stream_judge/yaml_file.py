"""Files that an operator writes in YAML: mappings and policies."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from stream_judge.errors import ConfigError, one_line

Content = TypeVar("Content", bound=BaseModel)
# What PyYAML raises beside its own errors where a tag says that a value is what it is not.
_MISFITS = (ArithmeticError, AttributeError, LookupError, TypeError)


def read_yaml(path: Path, model: type[Content]) -> Content:
    """What a YAML file says.

    Args:
        path: The file, UTF-8.
        model: What it has to be.

    Raises:
        ConfigError: It cannot be read, is no YAML, or says something else; one line, which
            leaves naming the file to the caller.
    """
    content = _content(path)
    try:
        return model.model_validate(content)
    except ValidationError as exc:
        raise ConfigError(one_line(exc)) from exc


def _content(path: Path) -> object:
    """What stands in a file, whatever it is."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as exc:
        raise ConfigError(_marked(exc)) from exc
    except (OSError, yaml.YAMLError, ValueError) as exc:
        # A ValueError is bytes that are no UTF-8, or a date that is none (2024-13-01).
        raise ConfigError(" ".join(str(exc).split())) from exc
    except RecursionError as exc:
        raise ConfigError("no YAML: nested too deeply") from exc
    except _MISFITS as exc:
        raise ConfigError('no YAML: a value that does not fit its tag, as in !!int ""') from exc


def _marked(exc: yaml.MarkedYAMLError) -> str:
    mark = exc.problem_mark
    place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    return f"no YAML: {exc.problem}{place}"
