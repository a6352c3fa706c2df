from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from structlog.testing import CapturingLogger

from stream_judge import judge as judge_module
from stream_judge.errors import (
    BadOutputError,
    BrokenInvariantError,
    ConfigError,
    ImageNotFoundError,
    ImageTimeoutError,
    PolicyError,
    TritonTimeoutError,
    TritonUnavailableError,
)
from stream_judge.events import ProductUpdate
from stream_judge.images.spec import PixelSpec
from stream_judge.schema import verdict_schema
from stream_judge.testing import MODEL, StubImages, StubJudge, make_record
from stream_judge.verdict import Findings, Outcome, VerdictWriter

EVENT: dict[str, Any] = {
    "id": "p-1",
    "revision": 4,
    "title": "Red mug",
    "images": [{"url": "http://x/1.jpg"}, {"url": "http://x/2.jpg"}],
}


def verdict_of(outcome: Outcome) -> dict[str, Any]:
    (output,) = (o for o in outcome.outputs if o.destination == "verdicts")
    verdict: dict[str, Any] = orjson.loads(output.value or b"")
    jsonschema.validate(verdict, verdict_schema())
    return verdict


async def test_a_listing_that_matches_is_published(make_judge: Any) -> None:
    outcome = await make_judge().judge(make_record(EVENT))
    verdict = verdict_of(outcome)
    assert (outcome.kind, verdict["verdict"], verdict["decision"]) == (
        "judged",
        "relevant",
        "publish",
    )
    assert (verdict["score"], verdict["revision"], verdict["reason"]) == (0.9, 4, "above_publish")
    assert verdict["source"]["offset"] == 0


async def test_thresholds_make_three_decisions(make_judge: Any) -> None:
    for score, decision in ((0.2, "block"), (0.3, "review"), (0.69, "review"), (0.7, "publish")):
        judge = make_judge(
            client=StubJudge(lambda _, s=score: s), thresholds={"block": 0.3, "publish": 0.7}
        )
        assert (await judge.judge(make_record(EVENT))).decision == decision


async def test_same_content_has_the_same_id_wherever_it_stands(make_judge: Any) -> None:
    judge = make_judge()
    first = verdict_of(await judge.judge(make_record(EVENT, offset=1)))
    again = verdict_of(await judge.judge(make_record(EVENT, offset=2, partition=3)))
    other = verdict_of(await judge.judge(make_record({**EVENT, "title": "Blue mug"})))
    assert first["verdict_id"] == again["verdict_id"] != other["verdict_id"]


async def test_a_picture_that_is_gone_is_unjudgeable_not_a_dead_letter(make_judge: Any) -> None:
    images = StubImages({"http://x/1.jpg": ImageNotFoundError("gone")})
    outcome = await make_judge(images=images).judge(make_record(EVENT))
    verdict = verdict_of(outcome)
    assert (outcome.kind, verdict["reason"], verdict["decision"]) == (
        "unjudgeable",
        "image_not_found",
        "review",
    )
    assert verdict["score"] is None


async def test_a_sellers_time_out_is_unjudgeable(make_judge: Any) -> None:
    images = StubImages({"http://x/1.jpg": ImageTimeoutError("slow")})
    outcome = await make_judge(images=images, on_unjudgeable="block").judge(make_record(EVENT))
    assert (outcome.kind, outcome.code, outcome.decision) == (
        "unjudgeable",
        "image_timeout",
        "block",
    )


@pytest.mark.parametrize(
    ("aggregate", "kind", "asked"), [("primary", "judged", 1), ("all", "unjudgeable", 2)]
)
async def test_which_pictures_must_be_had(
    make_judge: Any, aggregate: str, kind: str, asked: int
) -> None:
    images = StubImages({"http://x/2.jpg": ImageNotFoundError("gone")})
    judge = make_judge(images=images)
    policy = judge._policies.policies[0]
    object.__setattr__(
        policy.file,
        "images",
        policy.file.images.model_copy(update={"aggregate": aggregate}),
    )
    outcome = await judge.judge(make_record(EVENT))
    assert outcome.kind == kind
    assert len(images.asked) == asked


@pytest.mark.parametrize("kind", [TritonUnavailableError, TritonTimeoutError, BadOutputError])
async def test_an_outage_of_the_model_server_is_waited_out(make_judge: Any, kind: Any) -> None:
    client = StubJudge(failures=[kind("out")] * 5)
    outcome = await make_judge(client=client).judge(make_record(EVENT))
    assert outcome.kind == "judged"
    assert client.calls == 6


async def test_a_bad_event_is_a_dead_letter_byte_for_byte_with_its_verdict(
    make_judge: Any,
) -> None:
    headers = (("a", b"1"), ("a", b"2"), ("n", None))
    record = make_record(b"\xff{", key=b"p-5", offset=9, headers=headers)
    outcome = await make_judge().judge(record)
    letter, verdict = outcome.outputs
    assert (letter.destination, letter.key, letter.value) == ("dead_letters", b"p-5", b"\xff{")
    assert letter.headers[:3] == headers
    named = dict(letter.headers[3:])
    assert named["sj-code"] == b"bad_event"
    assert named["__streams.errors.offset"] == b"9"
    assert orjson.loads(verdict.value or b"")["reason"] == "bad_event"
    assert verdict.key == b"p-5"


async def test_a_dead_letter_without_product_has_no_verdict(make_judge: Any) -> None:
    outcome = await make_judge().judge(make_record(b"{", key=None))
    assert [output.destination for output in outcome.outputs] == ["dead_letters"]


async def test_a_record_with_neither_key_nor_value_is_a_dead_letter(make_judge: Any) -> None:
    outcome = await make_judge().judge(make_record(None, key=None))
    (letter,) = outcome.outputs
    assert letter.value == b""
    assert dict(letter.headers)["sj-null"] == b"1"


async def test_a_tombstone_stays_one(make_judge: Any) -> None:
    outcome = await make_judge().judge(make_record(None, key=b"p-3"))
    (output,) = outcome.outputs
    assert (outcome.kind, output.destination, output.key, output.value) == (
        "tombstone",
        "verdicts",
        b"p-3",
        None,
    )


async def test_a_failure_of_our_own_is_tried_once_more(make_judge: Any) -> None:
    client = StubJudge(failures=[ZeroDivisionError()])
    assert (await make_judge(client=client).judge(make_record(EVENT))).kind == "judged"
    client = StubJudge(failures=[ZeroDivisionError()] * 2)
    outcome = await make_judge(client=client).judge(make_record(EVENT))
    assert (outcome.kind, outcome.code) == ("dead_letter", "internal_error")


async def test_every_attempt_that_fails_is_logged_and_no_outcome_yet(
    make_judge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CapturingLogger()
    monkeypatch.setattr(judge_module, "_log", log)
    client = StubJudge(failures=[ZeroDivisionError()] * 2)
    await make_judge(client=client).judge(make_record(EVENT, offset=7))
    assert [(call.args, call.kwargs) for call in log.calls] == [
        (("judging_failed",), {"place": "product-updates/0/7", "attempt": 1}),
        (
            ("judging_failed",),
            {"place": "product-updates/0/7", "attempt": 2, "code": "internal_error"},
        ),
    ]


@pytest.mark.parametrize("error", [MemoryError(), BrokenInvariantError("not so")])
async def test_what_is_wrong_with_every_record_is_nobodys_outcome(
    make_judge: Any, error: Exception
) -> None:
    with pytest.raises(type(error)):
        await make_judge(client=StubJudge(failures=[error])).judge(make_record(EVENT))


async def test_an_assertion_of_a_library_is_one_records_dead_letter(make_judge: Any) -> None:
    client = StubJudge(failures=[AssertionError()] * 2)
    assert (await make_judge(client=client).judge(make_record(EVENT))).kind == "dead_letter"


def test_a_verdict_without_a_judgement_is_a_defect() -> None:
    writer = VerdictWriter(source="/test", max_record_bytes=32_000)
    with pytest.raises(BrokenInvariantError):
        writer.judged(make_record(EVENT), Findings(ProductUpdate("p", None, (), ())))


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"id": "p", "title": "", "images": ["x"]}, "text_empty"),
        ({"id": "p", "title": "mug"}, "image_missing"),
    ],
)
async def test_what_is_missing_is_said(make_judge: Any, event: Any, code: str) -> None:
    assert (await make_judge().judge(make_record(event))).code == code


async def test_no_policy_is_unjudgeable(make_judge: Any) -> None:
    judge = make_judge(applies_to={"seller": ["somebody"]})
    assert (await judge.judge(make_record(EVENT))).code == "no_policy"


async def test_statuses_of_the_listing_are_its_reason(make_judge: Any) -> None:
    outcome = await make_judge(client=StubJudge(status="text_too_long")).judge(make_record(EVENT))
    assert (outcome.kind, outcome.code) == ("unjudgeable", "text_too_long")


async def test_a_dead_letter_over_the_limit_goes_without_its_value(make_judge: Any) -> None:
    record = make_record(b"x" * 50_000)
    outcome = await make_judge(max_record_bytes=10_000).judge(record)
    headers = dict(outcome.outputs[0].headers)
    assert outcome.outputs[0].value is None
    assert (headers["sj-value-omitted"], headers["sj-value-length"]) == (b"1", b"50000")


async def test_a_verdict_over_the_limit_drops_urls_then_gives_up(make_judge: Any) -> None:
    long_url = "http://x/" + "a" * 4_000
    event = {**EVENT, "images": [{"url": long_url}]}
    verdict = verdict_of(await make_judge(max_record_bytes=3_000).judge(make_record(event)))
    assert verdict["outcome"] == "judged"
    assert verdict["images"][0]["url"] is None
    outcome = await make_judge(max_record_bytes=1_200).judge(make_record(event))
    assert outcome.code == "verdict_too_large"


async def test_verdicts_that_are_too_large_are_told_apart(make_judge: Any) -> None:
    events = [{**EVENT, "title": title} for title in ("Red mug", "Blue mug")]
    events.append({**EVENT, "images": [{"url": "http://x/3.jpg"}]})
    small = make_judge(max_record_bytes=1_200)
    found = [verdict_of(await small.judge(make_record(event))) for event in events]
    again = verdict_of(await small.judge(make_record(events[0], offset=3)))
    whole = verdict_of(await make_judge().judge(make_record(events[0])))
    assert {verdict["reason"] for verdict in found} == {"verdict_too_large"}
    ids = [verdict["verdict_id"] for verdict in (*found, whole)]
    assert len(set(ids)) == 4
    assert again["verdict_id"] == ids[0]
    assert (found[0]["text"], found[0]["model"]) == (whole["text"], whole["model"])
    assert (found[0]["verdict"], found[0]["score"], found[0]["images"]) == (None, None, [])


async def test_a_server_that_fails_every_row_is_an_outage(make_judge: Any) -> None:
    answers = iter(["internal"] * 6 + ["ok"])
    client = StubJudge(status=lambda _: next(answers))
    assert (await make_judge(client=client).judge(make_record(EVENT))).kind == "judged"


async def test_a_row_that_alone_fails_does_not_stop_the_partition(make_judge: Any) -> None:
    client = StubJudge(status=lambda text: "internal" if text == "Red mug" else "ok")
    outcome = await make_judge(client=client).judge(make_record(EVENT))
    assert (outcome.kind, outcome.code) == ("dead_letter", "internal_error")


async def test_a_policy_the_server_refuses_ends_the_worker(make_judge: Any) -> None:
    judge = make_judge(client=StubJudge(status="policy_invalid"))
    with pytest.raises(PolicyError, match="exact"):
        await judge.check_policies()
    with pytest.raises(PolicyError, match="exact"):
        await judge.judge(make_record(EVENT))


async def test_a_verdict_names_the_model_that_judged_it(make_judge: Any) -> None:
    client = StubJudge()
    judge = make_judge(client=client)
    before = verdict_of(await judge.judge(make_record(EVENT)))
    client.digest, client.model = "b" * 64, replace(MODEL, version="2")
    after = verdict_of(await judge.judge(make_record(EVENT)))
    assert (before["model"]["version"], after["model"]["version"]) == ("1", "2")
    assert after["model"]["digest"] == "b" * 64


async def test_a_model_that_wants_other_pictures_is_nobodys_outcome(make_judge: Any) -> None:
    client = StubJudge()
    judge = make_judge(client=client)
    client.digest, client.model = "b" * 64, replace(MODEL, pixels=PixelSpec(8, crop="none"))
    with pytest.raises(ConfigError, match="preparation changed"):
        await judge.judge(make_record(EVENT))


async def test_policies_are_checked_once_the_server_is_back(make_judge: Any) -> None:
    client = StubJudge(failures=[TritonUnavailableError("out")] * 2)
    await make_judge(client=client).check_policies()
    assert client.calls == 3


async def test_a_text_of_megabytes_is_cut_before_it_reaches_the_server(make_judge: Any) -> None:
    lengths: list[int] = []

    def score(text: str) -> float:
        lengths.append(len(text))
        return 0.9

    event = {**EVENT, "title": "mug " * 1_000_000}
    await make_judge(client=StubJudge(score)).judge(make_record(event))
    assert lengths == [100_000]


async def test_a_text_behind_blanks_is_a_text(make_judge: Any) -> None:
    event = {**EVENT, "title": " \n" * 60_000 + "red mug"}
    judge = make_judge(client=StubJudge(lambda text: 0.9 if text.startswith("red mug") else 0.0))
    outcome = await judge.judge(make_record(event))
    assert (outcome.kind, outcome.code) == ("judged", "above_publish")


def headers_of(outcome: Outcome) -> dict[str, bytes | None]:
    return dict(outcome.outputs[-1].headers)


async def test_verdicts_are_cloudevents(make_judge: Any) -> None:
    record = make_record(EVENT, partition=2, offset=7)
    headers = headers_of(await make_judge().judge(record))
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_type"] == b"stream_judge.verdict.v1"
    assert headers["ce_id"] == b"product-updates/2/7"
    assert headers["ce_subject"] == b"p-1"
    assert headers["content-type"] == b"application/json"
    assert headers["sj-source-offset"] == b"7"


async def test_a_tombstone_is_a_cloudevent_of_a_type_of_its_own(make_judge: Any) -> None:
    record = make_record(None, key=b"p-3", partition=2, offset=7)
    headers = headers_of(await make_judge().judge(record))
    assert headers["ce_type"] == b"stream_judge.tombstone.v1"
    assert headers["ce_id"] == b"product-updates/2/7"
    assert headers["ce_subject"] == b"p-3"
    assert datetime.fromisoformat((headers["ce_time"] or b"").decode()).tzinfo is not None
    # There is no content that it could be of.
    assert "content-type" not in headers
    assert headers["sj-source-offset"] == b"7"


TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


@pytest.mark.parametrize(
    "given", [None, b"", b"\xff", b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01", TRACE + b"-x"]
)
async def test_a_trace_begins_where_there_is_none(make_judge: Any, given: bytes | None) -> None:
    headers = (("traceparent", given), ("tracestate", b"a=1"))
    judge, record = make_judge(), make_record(EVENT, headers=headers)
    first = headers_of(await judge.judge(record))
    trace = (first["traceparent"] or b"").decode()
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", trace)
    assert "tracestate" not in first
    assert headers_of(await judge.judge(record))["traceparent"] == first["traceparent"]


async def test_a_trace_goes_on_with_a_span_of_its_own(make_judge: Any) -> None:
    record = make_record(EVENT, headers=(("traceparent", TRACE), ("tracestate", b"a=1")))
    headers = headers_of(await make_judge().judge(record))
    _, trace_id, span_id, flags = (headers["traceparent"] or b"").split(b"-")
    assert (trace_id, flags) == (b"4bf92f3577b34da6a3ce929d0e0e4736", b"00")
    assert span_id != b"00f067aa0ba902b7"
    assert headers["tracestate"] == b"a=1"


@pytest.mark.parametrize(
    ("key", "value", "headers", "omitted"),
    [
        (b"k", b"{" * 50_000, (), ["value"]),
        (None, b"{" * 50_000, (), ["value"]),
        (b"k", b"{", (("h", b"x" * 50_000),), ["value", "headers"]),
        (b"k" * 50_000, b"{", (("h", b"x"),), ["value", "headers", "key"]),
        (b"k" * 50_000, None, (), ["key"]),
    ],
)
async def test_a_dead_letter_can_always_be_sent(
    make_judge: Any, key: bytes | None, value: bytes | None, headers: Any, omitted: list[str]
) -> None:
    record = make_record(value, key=key, headers=headers)
    letter = (await make_judge(max_record_bytes=10_000).judge(record)).outputs[0]
    names = [name for name, _ in letter.headers]
    assert letter.destination == "dead_letters"
    assert [n for n in ("value", "headers", "key") if f"sj-{n}-omitted" in names] == omitted
    # Kafka clients refuse a record with neither.
    assert letter.key is not None or letter.value is not None
    fields = sum(len(name) + len(content or b"") for name, content in letter.headers)
    assert len(letter.key or b"") + len(letter.value or b"") + fields < 10_000


async def test_a_verdict_is_the_golden_one(make_judge: Any) -> None:
    verdict = verdict_of(await make_judge().judge(make_record(EVENT, partition=1, offset=2)))
    assert verdict.pop("judged_at").endswith("+00:00")
    golden = Path(__file__).with_name("verdict.json")
    assert verdict == orjson.loads(golden.read_bytes())
