"""Packages that only some commands need, and how to get them."""

from __future__ import annotations

import importlib.util

from stream_judge.errors import EnvironmentProblem


def need(extra: str, *modules: str) -> None:
    """See that a command's packages are there, before it begins.

    Args:
        extra: Which of the project's extras brings them.
        modules: What is imported of them.

    Raises:
        EnvironmentProblem: At least one is missing.
    """
    missing = [module for module in modules if not _is_there(module)]
    if missing:
        raise EnvironmentProblem(
            f"{', '.join(missing)}: missing; in a checkout: pip install '.[{extra}]' "
            "(README.md, Installation)"
        )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False  # not even what it lies in
