"""The learning curve of a run, as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

_FORMS = ("title", "bullets", "paragraphs", "long", "spec")


def draw_curve(log_path: Path, out: Path) -> None:
    """Draw training and development accuracy over the steps of `log_path` to a PNG."""
    entries = [json.loads(line) for line in log_path.read_text(encoding="utf-8").splitlines()]
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(10, 7), layout="constrained")
        (train, dev), (samples, loss) = figure.subplots(2, 2)
        judge, measured = _by_step(entries, "judge"), _by_step(entries, "dev")
        for name in ("named", "covered", "policy", "differs", "summary", "seen"):
            _line(train, judge, name)
        train.set_title("training: answers and probes")
        for name in _FORMS:
            _line(dev, measured, name)
        dev.set_title("development split: named rules, by text form")
        for name in ("covered", "named8", "hidden8", "ideal8", "hidden2", "ideal2", "policy"):
            _line(samples, measured, name)
        samples.set_title("development split: samples, policy bits")
        _line(loss, judge, "loss")
        loss.set_title("loss")
        for axes in (train, dev, samples):
            axes.set_ylim(0.4, 1.01)
        for axes in (train, dev, samples, loss):
            axes.set_xlabel("step")
            axes.grid(alpha=0.3)
            if axes.has_data():
                axes.legend(loc="lower right")
        figure.savefig(out, dpi=110)


def _by_step(entries: list[dict[str, Any]], stage: str) -> list[dict[str, Any]]:
    # A run that was resumed tells some steps twice; the later one went on.
    told = {entry["step"]: entry for entry in entries if entry["stage"] == stage}
    return [told[step] for step in sorted(told)]


def _line(axes: Any, entries: list[dict[str, Any]], name: str) -> None:
    points = [(entry["step"], entry[name]) for entry in entries if name in entry]
    if points:
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1.2)
