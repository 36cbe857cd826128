"""Chunks of a csv, tsv or jsonl file; what is broken is named by its line."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from kd_lightning.data.reading.chunks import Chunk, check_header
from kd_lightning.errors import UserError

Record: TypeAlias = tuple[int, list[Any]]
"""Line of the file on which a row starts, and its values in the order of the asked names."""

CSV_FIELD = re.compile(r'(?:"[^"]*(?:""[^"]*)*"|[^",\r\n][^,\r\n]*|),')  # one whole field and its comma
CSV_FAULTS = {
    "unexpected end of data": "a quote that opens here and never closes; close it",
    "',' expected after '\"'": 'text after a closing quote; close what opens here, or double each quote inside ("")',
    "field larger than field limit": "a field longer than csv allows; close its quote, or keep long texts in jsonl",
    "new-line character seen": "a carriage return outside quotes; save the file with line ends LF or CR LF",
}


def text_chunks(path: Path, names: Sequence[str], batch_rows: int) -> Generator[Chunk, None, None]:
    """Yield the named columns, at most ``batch_rows`` rows at a time; see ``read_chunks``."""
    first = 0
    with closing(_lines(path)) as lines:
        records = RECORDS[path.suffix.lower()](path, lines, names)
        while rows := list(islice(records, batch_rows)):
            places, values = zip(*rows, strict=True)
            columns = dict(zip(names, zip(*values, strict=True), strict=True))
            yield Chunk(columns=columns, source=str(path), first=first, places=places, unit="line")
            first += len(rows)


def _lines(path: Path) -> Generator[str, None, None]:
    """Yield the lines with their ends; only a line feed ends one, and a byte order mark is left out."""
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        try:
            yield from file
        except UnicodeDecodeError:
            raise _wrong_encoding(path) from None


def _wrong_encoding(path: Path) -> UserError:
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte, offset = line[error.start], offset + error.start
                guess = " (UTF-16?)" if number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
                found = f"byte 0x{byte:02x} at byte offset {offset} of the file{guess}"
                return UserError(f"{path}, line {number}: found {found}, expected UTF-8; save the file as UTF-8")
            offset += len(line)
    return UserError(f"{path}: found text that is not UTF-8; save the file as UTF-8")


def _csv_records(path: Path, lines: Iterator[str], names: Sequence[str]) -> Iterator[Record]:
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    line = 1
    try:
        for header in islice(reader, 1):  # an empty file has none
            check = _field_check(path, header, names, "quote texts that hold a comma or a quote")
        line = reader.line_num + 1
        for fields in reader:
            yield line, check(line, fields)
            line = reader.line_num + 1
    except csv.Error as error:
        raise _broken_quoting(path, header, range(line, reader.line_num + 1), error) from None


def _broken_quoting(path: Path, header: Sequence[str], lines: range, error: csv.Error) -> UserError:
    """Name the line on which the broken field opens; the record that holds it spans the given lines."""
    with closing(_lines(path)) as whole:
        text = "".join(islice(whole, lines.start - 1, lines.stop - 1))
    start = number = 0
    while (match := CSV_FIELD.match(text, start)) and match.end() - start <= csv.field_size_limit():
        start, number = match.end(), number + 1
    line = lines.start + text.count("\n", 0, start)
    column = f"column '{header[number]}'" if number < len(header) else f"field {number + 1}"
    fault = next((words for key, words in CSV_FAULTS.items() if key in str(error)), str(error))
    noticed = f" (noticed in line {lines[-1]})" if lines[-1] > line else ""
    return UserError(f"{path}, line {line}, {column}: found {fault}{noticed}")


def _tsv_records(path: Path, lines: Iterator[str], names: Sequence[str]) -> Iterator[Record]:
    rows = (line.removesuffix("\n").removesuffix("\r").split("\t") for line in lines)
    for header in islice(rows, 1):  # an empty file has none
        check = _field_check(path, header, names, "take tabs and line ends out of the texts (tsv has no quoting)")
    for line, fields in enumerate(rows, 2):
        yield line, check(line, fields)


def _field_check(
    path: Path, header: list[str], names: Sequence[str], hint: str
) -> Callable[[int, list[str]], list[str]]:
    """Return the function (line, fields) -> fields of the named columns, which refuses a wrong number of fields."""
    if any("\0" in name for name in header):
        raise UserError(f"{path}, line 1: found a NUL byte (UTF-16?), expected UTF-8; save the file as UTF-8")
    check_header(header, names, str(path))
    wanted = [header.index(name) for name in names]
    width = len(header)
    expected = f"expected {width} field{'s' * (width > 1)} ({', '.join(header)})"

    def check(line: int, fields: list[str]) -> list[str]:
        if fields in ([], [""]) and width > len(fields):
            raise UserError(f"{path}, line {line}: found an empty line, {expected}; take it out")
        if len(fields) != width:
            found = f"{len(fields)} field{'s' * (len(fields) > 1)}"
            absent = f", none for '{header[len(fields)]}'" if len(fields) < width else ""
            raise UserError(f"{path}, line {line}: found {found}{absent}, {expected}; {hint}")
        return [fields[index] for index in wanted]

    return check


def _jsonl_records(path: Path, lines: Iterator[str], names: Sequence[str]) -> Iterator[Record]:
    decoder = json.JSONDecoder(object_pairs_hook=_json_object)
    for line, text in enumerate(lines, 1):
        try:
            row = decoder.decode(text)
        except json.JSONDecodeError as error:
            what = f"invalid JSON ({error.msg}, character {error.pos + 1})" if text.strip() else "an empty line"
            raise _not_an_object(path, line, what) from None
        except (ValueError, RecursionError) as error:
            raise _not_an_object(path, line, f"invalid JSON ({error})") from None
        if not isinstance(row, dict):
            raise _not_an_object(path, line, f"a {type(row).__name__}")
        if line == 1:
            check_header(list(row), names, f"{path}, line 1")
        yield line, [row.get(name) for name in names]


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key '{next(key for key in keys if keys.count(key) > 1)}'")
    return row


def _not_an_object(path: Path, line: int, found: str) -> UserError:
    return UserError(f"{path}, line {line}: found {found}, expected one JSON object per line; mend the line")


RECORDS: dict[str, Callable[[Path, Iterator[str], Sequence[str]], Iterator[Record]]] = {
    ".csv": _csv_records,
    ".tsv": _tsv_records,
    ".jsonl": _jsonl_records,
}
