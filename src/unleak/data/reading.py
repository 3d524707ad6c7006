"""Read the small files that people and programs write: text, JSON and tables, each parsed once into checked values.

Every reader has bounds on what it holds in memory, and raises MediaError, in one line that begins with the file's name
(and the line's number where there is one), for whatever it cannot accept.
"""

import codecs
import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from unleak.data.files import MediaError, open_regular

__all__ = [
    "Place",
    "Record",
    "Row",
    "Text",
    "first_fault",
    "json_rows",
    "lines_of",
    "parse_json",
    "parse_values",
    "read_json",
    "read_text",
    "shown",
    "table_rows",
    "text_lines",
]

T = TypeVar("T")

MOST_BYTES = 2**24
"""Of a text or JSON file that is read whole."""
_MOST_IN_LINE = 2**20
_DEEPEST = 64  # levels of nesting
_LONGEST_TEXT = 10_000
_LONGEST_NUMBER = 40  # digits
_LONGEST_SHOWN = 60  # characters of a value in a message

_PLAIN = {
    "string_type": "should be text",
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "dict_type": "should be a JSON object",
    "model_type": "should be a JSON object",
    "list_type": "should be a list",
}
"""pydantic's type of a fault -> the same in plain words."""

_MARKS = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))


def _bounded(text: str) -> str:
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"should be shorter than {_LONGEST_TEXT} characters")
    if "\0" in text:
        raise ValueError("should be text without zero bytes")
    return text


def _sayable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("should be text: it holds half a character") from None
    return _bounded(text)


def _nameable(text: str) -> str:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError("is no name for a file: it holds half a character") from None
    return _bounded(text)


Text = Annotated[str, AfterValidator(_sayable)]
"""Of a person, such as a prompt; a longer one than 10,000 characters is a broken file."""
Place = Annotated[str, AfterValidator(_nameable)]
"""A path, whether or not a file is there; its name may hold bytes that are no text."""


class Record(BaseModel):
    """The base of what a program wrote as JSON: types are exact, numbers finite, other keys do not matter."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class Row(Record):
    """The base of a row of a table: the same, and a field that is empty is one that is not there."""

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: Any) -> Any:
        return {name: value for name, value in values.items() if value not in (None, "")}


def read_text(path: str | Path, *, most: int = MOST_BYTES) -> str:
    """Read a whole text file in UTF-8, with or without a byte order mark."""
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise MediaError(f"{path}: larger than the {most / 2**20:g} MiB that are read of such a file; give another")
    return _decode(content, path)


def text_lines(path: str | Path) -> list[str]:
    """Read the lines of a text file, without the spaces around each; other marks than LF, CR LF and CR end none."""
    return [line.strip() for line in io.StringIO(read_text(path), newline=None)]


def lines_of(path: str | Path) -> Iterator[str]:
    """Yield the lines of a text file in UTF-8 with their ends; only a line feed ends one, and 1 MiB is the longest."""
    with open_regular(path) as file:
        yield from _lines(file, path)


def read_json(path: str | Path, kind: type[T]) -> T:
    """Read a JSON file as a `kind`: a pydantic model, or any type that pydantic can check."""
    return parse_json(read_text(path), kind, str(path))


def parse_json(text: str, kind: type[T], where: str) -> T:
    """Parse a JSON text as a `kind`; `where` begins the message of the MediaError for a text that is none."""
    return parse_values(_json(text, where), kind, where)


def parse_values(values: Any, kind: type[T], where: str) -> T:
    """Check plain values as a `kind`; errors as in `parse_json`."""
    wanted: Any = kind
    try:
        checked: T = _adapter_of(wanted).validate_python(values)
    except ValidationError as error:
        raise MediaError(f"{where}: {first_fault(error)}") from error
    return checked


def first_fault(error: ValidationError) -> str:
    """Say the first of pydantic's faults in one line: the field, what it should be, and what was given."""
    fault = error.errors()[0]
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "missing":
        return f"{place} is missing; give it"
    message = _PLAIN.get(fault["type"]) or fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{place}{' ' if place else 'it '}{message}, given {shown(fault['input'])}"


def shown(value: Any) -> str:
    """Return a value as a message shows it: as Python writes it, and cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."


def json_rows(path: str | Path, example: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the objects of a file of JSON lines, each with its place for messages, such as `shots.jsonl, line 3`.

    Only a line feed ends a line: other characters that break lines in print may stand in a text. `example` is shown to
    a person whose line is no JSON object. Blank lines do not matter.
    """
    with open_regular(path) as file:
        for number, line in enumerate(_lines(file, path), start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            row = _json(line, where) if line.lstrip().startswith(("{", "[")) else None
            if not isinstance(row, dict):
                raise MediaError(f"{where}: no JSON object; give such as {example}")
            yield where, row


def table_rows(path: str | Path, columns: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Give the rows of a CSV file by the names in its first line, each with its place for messages.

    One of `columns` has to be among the names. Quoted values may hold line breaks. Blank rows do not matter.
    """
    columns = list(columns)
    with open_regular(path) as file:
        reader = csv.reader(_lines(file, path), strict=True)
        try:
            header = [name.strip().lower() for name in next(reader, [])]
            if not set(header) & set(columns):
                raise MediaError(f"{path}: no column {', '.join(columns[:-1])} or {columns[-1]} in its first line")
            for values in reader:
                where = f"{path}, line {reader.line_num}"
                if not any(values):
                    continue
                if len(values) != len(header):
                    raise MediaError(
                        f"{where}: {len(values)} values for {len(header)} columns; quote texts with commas"
                    )
                yield where, dict(zip(header, values, strict=True))
        except csv.Error as error:
            raise MediaError(f"{path}, line {reader.line_num}: {error}") from error


def _json(text: str, where: str) -> Any:
    try:
        values = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise MediaError(f"{where}: JSON nested too deeply; give one of at most {_DEEPEST} levels") from None
    except ValueError as error:
        raise MediaError(f"{where}: damaged, not JSON that can be read ({error})") from None
    if _is_deep(values):
        raise MediaError(f"{where}: JSON nested too deeply; give one of at most {_DEEPEST} levels")
    return values


def _lines(file: BinaryIO, path: str | Path) -> Iterator[str]:
    """Yield the lines of a file in UTF-8 with their ends, one at a time: a table may have millions."""
    first = True
    while line := file.readline(_MOST_IN_LINE + 1):
        if len(line) > _MOST_IN_LINE:
            raise MediaError(f"{path}: a line is longer than {_MOST_IN_LINE / 2**20:g} MiB; give one entry a line")
        yield _decode(line, path).removeprefix("\ufeff" if first else "")
        first = False


def _decode(content: bytes, path: str | Path) -> str:
    other = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    try:
        if other is None:
            return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    raise MediaError(f"{path}: not a text file in UTF-8{f' but in {other}' if other else ''}; save it as UTF-8")


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _is_deep(values: Any) -> bool:
    level = [values]
    for _ in range(_DEEPEST):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


@cache
def _adapter_of(kind: Any) -> Any:
    return TypeAdapter(kind)
