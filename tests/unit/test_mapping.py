from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from stream_judge.errors import ConfigError, DecodeError, ImageUrlError
from stream_judge.images.guard import AddressGuard
from stream_judge.mapping import Mapping, MappingFile
from stream_judge.resources import resource
from stream_judge.testing import make_record

EVENT = {
    "id": "p-7",
    "revision": 3,
    "locale": "en-GB",
    "title": "Red mug",
    "bullets": ["one", "two"],
    "specifications": {"Weight": 2, "Colour": "red"},
    "images": [{"url": "http://x/1.jpg"}, {"url": "http://x/2.jpg"}],
}


@pytest.fixture
def mapping() -> Mapping:
    return Mapping.read(resource("mappings/catalogue.yaml"))


def test_reads_the_documented_example(mapping: Mapping) -> None:
    update = mapping.update(make_record(EVENT))
    assert (update.product_id, update.revision, update.locale) == ("p-7", 3, "en-GB")
    assert update.image_urls == ("http://x/1.jpg", "http://x/2.jpg")
    names = ("title", "bullets", "description", "specifications")
    assert update.text(names) == "Red mug\none\ntwo\nWeight: 2\nColour: red"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b'{"id": "\xff"}',
        b"[]",
        b"{}",
        b'{"id": null}',
        b'{"id": true}',
        b'{"id": ""}',
        b'{"id": "p", "images": [{"url": 5}]}',
        b'{"id": "p", "title": [[1]]}',
        b'{"id": "p", "title": true}',
        b'{"id": "p", "revision": 1.5}',
        b'{"id": "p", "seller": 4}',
        b'{"id": NaN}',
        b'{"id": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_what_is_no_product_update_is_a_decode_error_that_names_the_record(
    mapping: Mapping, value: bytes
) -> None:
    with pytest.raises(DecodeError, match="product-updates/0/12"):
        mapping.update(make_record(value, offset=12))


def test_ten_thousand_urls_are_cut_to_the_limit(mapping: Mapping) -> None:
    event = {**EVENT, "images": [{"url": f"http://x/{i}"} for i in range(10_000)]}
    assert len(mapping.update(make_record(event)).image_urls) == 20


@pytest.mark.parametrize(
    ("key", "expected"),
    [(b"p-1", "p-1"), (b"0012", "0012"), (b"12", "12"), (b"\xff", None), (None, None), (b"", None)],
)
def test_product_id_from_the_key(mapping: Mapping, key: bytes | None, expected: str | None) -> None:
    assert mapping.key_to_product_id(make_record(None, key=key)) == expected


def test_key_may_be_json() -> None:
    mapping = Mapping(
        MappingFile(product_id="id", text={}, images="images", key_to_product_id="after.id")
    )
    record = make_record(None, key=b'{"after": {"id": "p-9"}}')
    assert mapping.key_to_product_id(record) == "p-9"


def test_an_expression_that_is_none_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="product_id"):
        Mapping(MappingFile(product_id="a[", text={}, images="x"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("product_id: 'a['", "product_id: Invalid jmespath expression"),
        ("product_id: lenght(id)", "product_id: there is no function lenght"),
        ("product_id: join(id)", "product_id: join takes 2 arguments, not 1"),
        ("product_id: not_null()", "product_id: not_null takes at least 1 arguments, not 0"),
        ("surprise: 1", "surprise: Extra inputs"),
        ("text: 5", "text: "),
        ("x: [", "no YAML: .*line"),
    ],
)
def test_a_file_that_cannot_work_is_named_in_one_line(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    first = line.partition(":")[0]
    lines = {"product_id": "product_id: id", "text": "text: {}", "images": "images: x"}
    path.write_text("\n".join((lines | {first: line}).values()))
    with pytest.raises(ConfigError, match=f"^mapping {path}: {said}") as refused:
        Mapping.read(path)
    assert "\n" not in refused.value.message
    assert "input_value" not in refused.value.message


def test_a_function_that_there_is_not_is_found_wherever_it_stands() -> None:
    with pytest.raises(ConfigError, match=r"text\.size: there is no function lenght"):
        Mapping(MappingFile(product_id="id", text={"size": "a || b[].lenght(@)"}, images="x"))
    sound = {"a": "not_null(a, b, c)", "b": "map(&to_string(@), b[1:3])", "c": "{x: y}.x"}
    Mapping(MappingFile(product_id="id", text=sound, images="x[?starts_with(@, 'http')]"))


@pytest.mark.parametrize("revision", [False, True, "", "r" * 2_000, 2**70, [1]])
def test_a_revision_is_an_integer_or_a_short_string(mapping: Mapping, revision: object) -> None:
    value = json.dumps({**EVENT, "revision": revision}).encode()
    with pytest.raises(DecodeError, match="revision"):
        mapping.update(make_record(value))


def test_a_key_that_is_a_json_word_is_an_id(mapping: Mapping) -> None:
    assert mapping.key_to_product_id(make_record(None, key=b"null")) == "null"


def test_a_function_that_fails_on_a_key_finds_no_id() -> None:
    mapping = Mapping(
        MappingFile(
            product_id="id", text={}, images="images", key_to_product_id="to_string(join('-', @))"
        )
    )
    assert mapping.key_to_product_id(make_record(None, key=b'["a", 1]')) is None
    deep = b"[" * 900 + b"]" * 900
    mapping = Mapping(
        MappingFile(product_id="id", text={}, images="images", key_to_product_id="to_string(@)")
    )
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(600)
    try:
        assert mapping.key_to_product_id(make_record(None, key=deep)) is None
    finally:
        sys.setrecursionlimit(usual)


def test_a_number_that_no_verdict_could_hold_is_no_revision() -> None:
    mapping = Mapping(
        MappingFile(product_id="id", revision="to_number(rev)", text={}, images="images")
    )
    assert mapping.update(make_record(b'{"id": "p", "rev": "12"}')).revision == 12
    with pytest.raises(DecodeError, match="revision"):
        mapping.update(make_record(b'{"id": "p", "rev": "%d"}' % 2**64))


def test_a_url_that_is_too_long_cannot_pass_for_a_shorter_one(mapping: Mapping) -> None:
    url = "http://x/" + "a" * 5_000
    (kept,) = mapping.update(make_record({**EVENT, "images": [{"url": url}]})).image_urls
    assert len(kept) < 5_000
    with pytest.raises(ImageUrlError, match="longer than 4096"):
        AddressGuard(frozenset(), (), frozenset({80})).parse(kept)


@pytest.mark.parametrize("number", ["inf", "1e999", "9" * 5_000])
def test_a_number_without_end_is_no_id_wherever_it_stands(number: str) -> None:
    mapping = Mapping(
        MappingFile(
            product_id="to_string(floor(to_number(id)))",
            revision="ceil(to_number(rev))",
            text={},
            images="images",
            key_to_product_id="to_string(floor(to_number(@)))",
        )
    )
    record = make_record({"id": number}, key=number.encode())
    assert mapping.product_id(record) is None
    for event in ({"id": number}, {"id": "1", "rev": number}):
        with pytest.raises(DecodeError):
            mapping.update(make_record(event))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("12.5", "but float 12.5;"),
        ("true", "but bool;"),
        ('""', "but a string of 0 characters;"),
        ('["a"]', "but list;"),
        # More than 64 bits: JSON's reader makes a float of it.
        ("1000000000000000000000", r"but float 1e\+21;"),
    ],
)
def test_an_id_that_is_none_is_told_with_what_is_wanted(
    mapping: Mapping, found: str, said: str
) -> None:
    record = make_record(f'{{"id": {found}}}'.encode())
    wanted = "product_id is not an integer of 64 bits or a string of 1 to 1024 characters"
    with pytest.raises(DecodeError, match=f"{wanted} {said}"):
        mapping.update(record)
    assert mapping.product_id(record) == "p-1"


def test_an_integer_that_a_function_makes_too_large_is_told_so() -> None:
    mapping = Mapping(MappingFile(product_id="to_number(id)", text={}, images="images"))
    with pytest.raises(DecodeError, match="but an integer of more bits;"):
        mapping.update(make_record({"id": str(2**64)}))


def test_an_event_without_an_id_is_told_so(mapping: Mapping) -> None:
    with pytest.raises(DecodeError, match="product_id of the mapping found nothing"):
        mapping.update(make_record(b"{}"))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([{"url": "http://x/1"}], r"images holds dict, not only strings; .* images\[\]\.url"),
        (["http://x/1", 5], "images holds int, not only strings; correct the event"),
        ({"url": "http://x/1"}, "images is not a list of URLs but dict"),
    ],
)
def test_images_that_are_no_urls_are_told_with_what_is_wanted(images: object, said: str) -> None:
    mapping = Mapping(MappingFile(product_id="id", text={}, images="images"))
    with pytest.raises(DecodeError, match=said):
        mapping.update(make_record({"id": "p", "images": images}))
