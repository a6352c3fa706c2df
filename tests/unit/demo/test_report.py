from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stream_judge.demo.feed import Fed
from stream_judge.demo.readback import Seen
from stream_judge.demo.report import write_report
from stream_judge.demo.summary import summarise
from tests.unit.demo.shop import bad_event, fed, letter, seen, truth, unjudgeable, unread

# Attributes by which a page loads something, or leads away.
_LEADING = {"action", "background", "cite", "data", "formaction", "href", "poster", "src", "srcset"}


class Page(HTMLParser):
    """What a page consists of, as a browser reads it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.leads_to: list[str] = []
        self.styles = ""
        self.words: list[str] = []
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._in_style = tag == "style"
        for name, value in attrs:
            if name in _LEADING:
                self.leads_to.append(value or "")
            if name == "style":
                self.styles += value or ""

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.styles += data
        elif data.strip():
            self.words.append(data.strip())


def report(
    folder: Path, entries: Sequence[Fed], records: Sequence[Seen], lines: Sequence[dict[str, Any]]
) -> str:
    summary = summarise(entries, records, lines, 0.0)
    write_report(folder / "r.html", summary, entries, records, lines, folder)
    return (folder / "r.html").read_text(encoding="utf-8")


def card(folder: Path, entry: Fed, records: Sequence[Seen], line: dict[str, Any]) -> str:
    """The text of the only card."""
    page = report(folder, [entry], records, [line])
    return " ".join(Page(page.split('<div class="cards">')[1]).words)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder of pictures: one that is whole, one that was cut off."""
    Image.new("RGB", (400, 300), "red").save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:300])
    return tmp_path


def test_the_report_escapes_what_sellers_write_and_shows_wrong_ones_first(tmp_path: Path) -> None:
    lines = [truth(), truth(relevant=False)]
    page = report(tmp_path, [fed(0), fed(1)], [seen(0), seen(1)], lines)
    assert "<b>1</b>" not in page.split('<div class="cards">')[1]
    assert page.index("&lt;b&gt;1") < page.index("&lt;b&gt;0")


def test_the_report_needs_nothing_else_and_leads_nowhere(shop: Path) -> None:
    told = {"title": '<img src="http://x.test/a.png"><script>', "images": fed(0).event["images"]}
    entries = [Fed(0, (0, 0), 1000, told), fed(1, "whole.jpg"), fed(2, "cut.jpg")]
    records = [seen(0), seen(1), unjudgeable(2)]
    page = Page(report(shop, entries, records, [truth(), truth(), truth("unjudgeable")]))
    # The one picture that can be shown is in the page.
    assert [where.split(",")[0] for where in page.leads_to] == ["data:image/jpeg;base64"]
    assert page.tags.count("img") == 1
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert page.styles
    assert not re.search(r"url\(|@import|image-set|https?:", page.styles)


def test_a_picture_is_in_the_page_and_small(shop: Path) -> None:
    page = report(shop, [fed(0, "whole.jpg")], [seen(0)], [truth()])
    assert "broken picture" not in page
    assert len(page) < 12_000


@pytest.mark.parametrize(
    ("picture", "said"), [("cut.jpg", "broken picture"), ("gone.jpg", "no picture")]
)
def test_a_picture_that_cannot_be_shown_is_said(shop: Path, picture: str, said: str) -> None:
    assert card(shop, fed(0, picture), [unjudgeable(0)], truth("unjudgeable")).startswith(said)


def test_a_card_has_the_verdict_and_the_verdicts_own_policy(tmp_path: Path) -> None:
    records = [seen(0, relevant=False, policy={"id": "any-colour"})]
    said = card(tmp_path, fed(0), records, truth(policy="exact", relevant=False))
    assert "block not relevant · score 0.10" in said
    assert "policy any-colour" in said
    assert "exact" not in said
    assert "picture: red (colour), which counts here" in said


def test_a_card_of_an_event_that_nobody_could_read_claims_no_policy(tmp_path: Path) -> None:
    said = card(tmp_path, unread(0), [letter(0), bad_event(0)], truth("dead_letter"))
    assert "review unjudgeable · no score" in said
    assert "could not be judged: bad_event" in said
    assert "no policy" in said
    assert "exact" not in said
    assert "wrong" not in said


@pytest.mark.parametrize(
    ("records", "line"),
    [
        ([seen(0)], truth(relevant=False)),
        ([unjudgeable(0)], truth()),
        ([seen(0)], truth("unjudgeable")),
        ([bad_event(0)], truth("dead_letter")),
        ([letter(0), bad_event(0)], truth("unjudgeable")),
    ],
    ids=["verdict", "unjudgeable", "judged", "no letter", "letter"],
)
def test_another_verdict_or_outcome_than_the_right_one_is_marked(
    tmp_path: Path, records: list[Seen], line: dict[str, Any]
) -> None:
    assert "wrong" in card(tmp_path, fed(0), records, line)


@pytest.mark.parametrize("number", [60, 61])
def test_sixty_cards_are_enough_for_a_page(tmp_path: Path, number: int) -> None:
    entries, records = [fed(i) for i in range(number)], [seen(i) for i in range(number)]
    page = report(tmp_path, entries, records, [truth()] * number)
    assert page.count('<div class="card">') == 60


def test_updates_that_ended_otherwise_are_listed_also_without_a_card(tmp_path: Path) -> None:
    page = report(tmp_path, [fed(0)], [letter(0)], [truth(product_id="<p>")])
    assert "0 of 1 ended as expected." in page
    assert "<li>&lt;p&gt;: judged expected, dead_letter came</li>" in page
