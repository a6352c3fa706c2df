"""From the user's own event shape to a product update (JMESPath, in a YAML file)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jmespath
import orjson
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from pydantic import BaseModel, ConfigDict, Field

from stream_judge.errors import ConfigError, DecodeError
from stream_judge.events import ProductUpdate, SourceRecord
from stream_judge.images.options import MAX_URL
from stream_judge.yaml_file import read_yaml

_MAX_ID = 1_024
_AN_ID = f"an integer of 64 bits or a string of 1 to {_MAX_ID} characters"
# What a search may raise: an expression's functions meet whatever a seller sends.
_FAILURES = (JMESPathError, ArithmeticError, RecursionError, TypeError, ValueError)


class MappingFile(BaseModel):
    """A mapping file: every value is a JMESPath expression over the event."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    product_id: str = Field(description="The product's id; a string or an integer.")
    revision: str | None = Field(None, description="The revision; a string or an integer.")
    category: str | None = Field(None, description="Category, for `applies_to`.")
    locale: str | None = Field(None, description="Locale, for `applies_to`.")
    seller: str | None = Field(None, description="Seller, for `applies_to`.")
    text: dict[str, str] = Field(
        description="Text fields by name: strings, lists (a line each), objects (key: value)."
    )
    images: str = Field(description="A list of picture URLs, the primary one first.")
    max_images: int = Field(50, ge=1, le=1_000, description="URLs that are read at most.")
    key_to_product_id: str = Field(
        "@", description="The product id from the record's key (UTF-8, or JSON if it is)."
    )


class Mapping:
    """Reads product updates out of records.

    Args:
        file: The expressions.

    Raises:
        ConfigError: If an expression is not JMESPath, or calls a function that there is not,
            or with fewer or more arguments than it takes.
    """

    def __init__(self, file: MappingFile) -> None:
        self._max_images = file.max_images
        self._one = {
            name: _compiled(name, expression)
            for name in ("product_id", "revision", "category", "locale", "seller")
            if (expression := getattr(file, name)) is not None
        }
        self._text = {name: _compiled(f"text.{name}", e) for name, e in file.text.items()}
        self._images = _compiled("images", file.images)
        self._key = _compiled("key_to_product_id", file.key_to_product_id)

    @property
    def text_fields(self) -> tuple[str, ...]:
        """The names of the text fields, for policies' `text.fields`."""
        return tuple(self._text)

    @classmethod
    def read(cls, path: Path) -> Mapping:
        """The mapping in a YAML file; `ConfigError` says what is wrong in it."""
        try:
            return cls(read_yaml(path, MappingFile))
        except ConfigError as exc:
            raise ConfigError(f"mapping {path}: {exc.message}") from exc

    def update(self, record: SourceRecord) -> ProductUpdate:
        """The product update in a record's value.

        Raises:
            DecodeError: Not JSON, no product id, or a field of another type.
        """
        event = _parsed(record)
        identity = self._identity(event, record)
        revision = _found(self._one.get("revision"), event, "revision", record)
        if revision is not None and _id(revision) is None:
            raise _wrong("revision", _AN_ID, revision, record)
        return ProductUpdate(
            product_id=identity,
            revision=revision,
            fields=tuple(
                (name, _lines(_found(e, event, name, record), name, record))
                for name, e in self._text.items()
            ),
            image_urls=self._urls(event, record),
            category=self._word("category", event, record),
            locale=self._word("locale", event, record),
            seller=self._word("seller", event, record),
        )

    def product_id(self, record: SourceRecord) -> str | None:
        """The product id, as far as it can be read: from the value, else from the key."""
        try:
            return self._identity(_parsed(record), record)
        except DecodeError:
            return self.key_to_product_id(record)

    def key_to_product_id(self, record: SourceRecord) -> str | None:
        """The product id in a record's key, or None."""
        if not record.key:
            return None
        try:
            text = record.key.decode("utf-8")
        except UnicodeDecodeError:
            return None
        try:
            key: Any = orjson.loads(text)
        except orjson.JSONDecodeError:
            key = text
        # "00123" is no JSON number but an id; 123 is one, and an id as well, as is `null`.
        if not isinstance(key, (str, list, dict)):
            key = text
        try:
            return _id(self._key.search(key))
        except _FAILURES:
            return None

    def _identity(self, event: Any, record: SourceRecord) -> str:
        found = _found(self._one["product_id"], event, "product_id", record)
        if found is None:
            says = "no product id; product_id of the mapping found nothing"
            raise DecodeError(f"{record.place}: {says}", place=record.place)
        identity = _id(found)
        if identity is None:
            raise _wrong("product_id", _AN_ID, found, record)
        return identity

    def _word(self, name: str, event: Any, record: SourceRecord) -> str | None:
        found = _found(self._one.get(name), event, name, record)
        if found is not None and not isinstance(found, str):
            raise _wrong(name, "a string", found, record)
        return found

    def _urls(self, event: Any, record: SourceRecord) -> tuple[str, ...]:
        found = _found(self._images, event, "images", record)
        if found is None:
            return ()
        if isinstance(found, str):
            found = [found]
        if not isinstance(found, list):
            raise _wrong("images", "a list of URLs", found, record)
        if strange := [url for url in found if not isinstance(url, str)]:
            raise _no_url(strange[0], record)
        # A longer one is refused; whole it would only fill the verdict.
        return tuple(url[: MAX_URL + 1] for url in found[: self._max_images])


def _compiled(name: str, expression: str) -> Any:
    try:
        compiled = jmespath.compile(expression)
    except JMESPathError as exc:
        # The lines behind the first show the expression with a pointer below it.
        said = str(exc).splitlines()[0].removesuffix(":")
        raise ConfigError(f"{name}: {said}") from exc
    _check_calls(name, compiled.parsed)
    return compiled


def _check_calls(name: str, node: Any) -> None:
    """Refuse calls that would fail on every record, wherever in an expression they stand."""
    if not isinstance(node, dict):
        return
    if node["type"] == "function_expression":
        _check_call(name, node["value"], len(node["children"]))
    for child in node["children"]:
        _check_calls(name, child)


def _check_call(name: str, function: str, given: int) -> None:
    known = Functions.FUNCTION_TABLE.get(function)
    if known is None:
        raise ConfigError(f"{name}: there is no function {function}")
    wanted = known["signature"]
    at_least = bool(wanted[-1].get("variadic"))
    if given < len(wanted) or (given > len(wanted) and not at_least):
        count = f"{'at least ' if at_least else ''}{len(wanted)}"
        raise ConfigError(f"{name}: {function} takes {count} arguments, not {given}")


def _parsed(record: SourceRecord) -> Any:
    try:
        return orjson.loads(record.value or b"")
    except orjson.JSONDecodeError as exc:
        raise DecodeError(f"{record.place}: not JSON: {exc}", place=record.place) from exc


def _found(expression: Any, event: Any, name: str, record: SourceRecord) -> Any:
    if expression is None:
        return None
    try:
        return expression.search(event)
    except _FAILURES as exc:
        raise DecodeError(f"{record.place}: {name}: {exc}", place=record.place) from exc


def _id(found: Any) -> str | None:
    if isinstance(found, int) and not isinstance(found, bool):
        # A verdict is JSON of 64-bit integers; a function of the mapping can make larger ones.
        return str(found) if -(2**63) <= found < 2**64 else None
    if isinstance(found, str) and 0 < len(found) <= _MAX_ID:
        return found
    return None


def _lines(found: Any, name: str, record: SourceRecord) -> str:
    if found is None:
        return ""
    if isinstance(found, dict):
        pairs = (f"{key}: {_scalar(value, name, record)}" for key, value in found.items())
        return "\n".join(pairs)
    if isinstance(found, list):
        return "\n".join(_scalar(value, name, record) for value in found)
    return _scalar(found, name, record)


def _scalar(value: Any, name: str, record: SourceRecord) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise _wrong(name, "text", value, record)
    if isinstance(value, (int, float)):
        return str(value)
    raise _wrong(name, "text, a list of text, or an object of text", value, record)


def _wrong(name: str, wanted: str, found: Any, record: SourceRecord) -> DecodeError:
    says = f"{name} is not {wanted} but {_shown(found)}; correct the event or the mapping"
    return DecodeError(f"{record.place}: {says}", place=record.place)


def _no_url(found: Any, record: SourceRecord) -> DecodeError:
    cure = "correct the event or the mapping"
    if isinstance(found, dict):
        cure = "write the field with the URL into the mapping, as in images[].url"
    says = f"images holds {_shown(found)}, not only strings; {cure}"
    return DecodeError(f"{record.place}: {says}", place=record.place)


def _shown(found: Any) -> str:
    """What was found, in a few words, whatever it holds."""
    kind = type(found).__name__
    if isinstance(found, str):
        return f"a string of {len(found)} characters"
    # An integer of more than 64 bits is read as one of these.
    if isinstance(found, float):
        return f"{kind} {found:g}"
    return "an integer of more bits" if kind == "int" and _id(found) is None else kind
