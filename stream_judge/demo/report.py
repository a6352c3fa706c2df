"""`demo-report.html`: one page that needs nothing else, wrong verdicts first."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from stream_judge.demo.feed import Fed
from stream_judge.demo.readback import Seen
from stream_judge.demo.summary import Summary, is_expected, kinds_by_place

_CARDS = 60
_SIDE = 220
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #cf222e; --wait: #9a6700 }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem } .lead { font-size: 1.1rem }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: .6rem }
.figures div { border: 1px solid var(--line); border-radius: 8px; padding: .5rem .7rem }
.figures b { display: block; font-size: 1.3rem }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(255px, 1fr)); gap: 1rem }
.card { border: 1px solid var(--line); border-radius: 10px; overflow: hidden }
.card.wrong { border: 2px solid var(--bad) }
.card img, .none { width: 100%; height: 200px; object-fit: contain; background: #8882 }
.none { display: grid; place-items: center } .card > div { padding: .6rem .8rem }
.card pre { white-space: pre-wrap; font: 13px/1.4 system-ui, sans-serif; max-height: 9rem;
  overflow: auto; margin: .4rem 0 }
.tag { display: inline-block; border-radius: 5px; padding: 0 .4rem; color: #fff }
.publish { background: var(--good) } .block { background: var(--bad) }
.review { background: var(--wait) } small { opacity: .75 }
"""


def write_report(
    out: Path,
    summary: Summary,
    fed: Sequence[Fed],
    seen: Sequence[Seen],
    truth: Sequence[dict[str, Any]],
    pictures: Path,
) -> None:
    """Write the page.

    Args:
        out: The HTML file.
        summary: The run's figures.
        fed: What was published.
        seen: What was read back.
        truth: A line each.
        pictures: Folder of the shop's pictures.
    """
    verdicts = {record.place: record.verdict for record in seen if record.verdict}
    kinds = kinds_by_place(seen)
    shown = [
        _Shown(truth[entry.line], entry, verdicts[entry.place], kinds[entry.place])
        for entry in fed
        if entry.place in verdicts
    ]
    shown.sort(key=lambda s: (not s.is_wrong, s.verdict["outcome"] == "judged", s.entry.line))
    wrong = sum(one.is_wrong for one in shown)
    cards = "\n".join(_card(one, pictures) for one in shown[:_CARDS])
    figures = "".join(
        f"<div>{html.escape(name.replace('_', ' '))}<b>{value}</b></div>"
        for name, value in summary.figures().items()
    )
    state = (
        "Every update has exactly one outcome, in order."
        if summary.delivered
        else "Delivery was NOT complete: see lost, duplicates, order breaks."
    )
    as_drawn = f"{summary.expected} of {summary.events} ended as expected."
    others = "".join(f"<li>{html.escape(line)}</li>" for line in summary.unexpected[:_CARDS])
    out.write_text(
        f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>stream_judge demo</title>
<style>{_STYLE}</style></head><body>
<h1>stream_judge: do the pictures match the texts?</h1>
<p class="lead">{summary.judged} listings were judged, {summary.accuracy:.1%} of them rightly.
{state} {as_drawn}</p>
{f"<ul>{others}</ul>" if others else ""}
<div class="figures">{figures}</div>
<h2>{wrong} wrong verdicts first, then what could not be judged, then a sample of the rest</h2>
<div class="cards">{cards}</div></body></html>
""",
        encoding="utf-8",
    )


@dataclass(frozen=True, slots=True)
class _Shown:
    """A card's update.

    Attributes:
        truth: Its line of the truth.
        entry: What was published.
        verdict: Its verdict.
        kinds: Everything that came of it.
    """

    truth: dict[str, Any]
    entry: Fed
    verdict: dict[str, Any]
    kinds: frozenset[str]

    @property
    def is_wrong(self) -> bool:
        """Another outcome than it should have, or another verdict than the truth."""
        if not is_expected(self.truth, self.kinds):
            return True
        judged = self.verdict["outcome"] == "judged"
        is_right = (self.verdict["verdict"] == "relevant") == bool(self.truth["relevant"])
        return judged and not is_right


def _card(shown: _Shown, pictures: Path) -> str:
    truth, verdict = shown.truth, shown.verdict
    decision = html.escape(verdict["decision"])
    word = html.escape(str(verdict["verdict"] or verdict["outcome"]).replace("_", " "))
    score = "no score" if verdict["score"] is None else f"score {verdict['score']:.2f}"
    # A verdict of an event that nobody could read has no policy.
    policy = f"policy {html.escape(verdict['policy']['id'])}" if verdict["policy"] else "no policy"
    wrong = " · <b>wrong</b>" if shown.is_wrong else ""
    return f"""<div class="card{" wrong" if wrong else ""}">{_picture(shown.entry, pictures)}<div>
<span class="tag {decision}">{decision}</span> {word} · {score}{wrong}
<pre>{html.escape(_text(shown.entry.event))}</pre>
<small>{html.escape(_told(truth, verdict))}<br>{policy} ·
{html.escape(truth["product_id"])} · {truth["form"]}, {truth["language"]}</small></div></div>"""


def _told(truth: dict[str, Any], verdict: dict[str, Any]) -> str:
    if verdict["outcome"] != "judged":
        return f"could not be judged: {verdict['reason']}"
    if truth["expect"] != "judged":
        return f"was not to be judged: {truth['fault'] or truth['expect']}"
    if not truth["differs"]:
        return "picture and text agree"
    counts = "does not count here" if truth["relevant"] else "counts here"
    return f"picture: {truth['shown'][truth['differs']]} ({truth['differs']}), which {counts}"


def _text(event: dict[str, Any]) -> str:
    lines = [event.get("title", ""), *event.get("bullets", []), event.get("description", "")]
    lines += [f"{key}: {value}" for key, value in event.get("specifications", {}).items()]
    return "\n".join(line for line in lines if line)


def _picture(entry: Fed, pictures: Path) -> str:
    urls = [image["url"] for image in entry.event.get("images", [])]
    path = pictures / urls[0].rsplit("/", 1)[-1] if urls else None
    if path is None or not path.is_file():
        return '<div class="none">no picture</div>'
    try:
        with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as image:
            small = image.convert("RGB")
    except (UnidentifiedImageError, OSError):
        return '<div class="none">broken picture</div>'
    small.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{data}">'
