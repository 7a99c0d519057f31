"""JSON lines, read by hand: only \\n ends a line, every complaint names file, line and, where it can, the field."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator
from typing import IO, Any

from core.data.records import Record, RowError
from core.errors import DataError

MAX_LINE_BYTES = 64 * 1024 * 1024
"""A longer line is refused: it is a file without line ends more often than a row."""

MAX_DEPTH = 100
"""Deeper nesting is refused: Python's JSON reader would end in a RecursionError without file and line."""

_ONE_OBJECT = "Expected one JSON object a line (JSON Lines), in UTF-8."
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_FINITE = re.compile(rb"NaN|Infinity|[eE]\+?[0-9]{3}")
_KEY = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:')


class _DuplicateKeyError(ValueError):
    pass


def read_jsonl(path: str) -> Iterator[Record | RowError]:
    """Rows of a JSONL file, plain or gzip (told by content, not by name). Blank lines are skipped but counted.

    Raises:
        DataError: UTF-16, a damaged or truncated gzip stream, an unreadable file.
    """
    try:
        with _open(path) as file:
            yield from _read_lines(path, file)
    except EOFError as error:
        hint = "Copy or make the file again; no row of it was used."
        raise DataError(f"{path}: the gzip stream ends early, the file is incomplete.", hint) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: the gzip data is damaged ({error}).", "Copy or make the file again.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _open(path: str) -> IO[bytes]:
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else open(path, "rb")  # type: ignore[return-value]


def _read_lines(path: str, file: IO[bytes]) -> Iterator[Record | RowError]:
    number = offset = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        where = f"{path}:{number}"
        if number == 1 and line[:2] in _UTF16:
            raise DataError(f"{where}: the file is UTF-16, expected UTF-8.", "Convert it: iconv -f UTF-16 -t UTF-8")
        if len(line) > MAX_LINE_BYTES:
            raise DataError(
                f"{where}: the line is longer than {MAX_LINE_BYTES // 2**20} MiB, the limit of a row.", _ONE_OBJECT
            )
        body = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if body.strip():
            yield parse_line(where, body, offset + len(line) - len(body))
        offset += len(line)


def parse_line(where: str, line: bytes, offset: int = 0) -> Record | RowError:
    """One line as a record, or what is wrong with it. `offset`: bytes of the (unpacked) file before it."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"byte {error.start + 1} of the line (offset {offset + error.start} of the file) is not UTF-8"
        return RowError(
            where, "", f"{problem}: 0x{line[error.start]:02x}.", "Convert the file to UTF-8 (it may be Latin-1)."
        )
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and (deep := _too_deep(text)) is not None:
        return RowError(where, deep, f"nested more than {MAX_DEPTH} deep.", _ONE_OBJECT)
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except _DuplicateKeyError as error:
        return RowError(where, str(error), "the key occurs twice in one object.", "Keep one of them.")
    except json.JSONDecodeError as error:
        return _explain(where, text, error)
    if not isinstance(value, dict):
        kind = {list: "a JSON array", str: "a JSON string", type(None): "null"}.get(type(value), f"a {type(value).__name__}")
        return RowError(where, "", f"the line is {kind}, not an object.", _ONE_OBJECT)
    return _check_values(where, line, value)


def _check_values(where: str, line: bytes, value: dict[str, Any]) -> Record | RowError:
    if _SURROGATE.search(line):
        for path, text in walk(value):
            if isinstance(text, str) and not _encodable(text):
                return RowError(
                    where, path, "holds an unpaired surrogate, which no UTF-8 text can.", "Repair the \\u escape."
                )
    if _NOT_FINITE.search(line):
        for path, number in walk(value):
            if isinstance(number, float) and not math.isfinite(number):
                return RowError(where, path, f"is {number}, expected a finite number.", "NaN and Infinity are not JSON.")
    return Record(where, value)


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) of every leaf, and ("path", key) of every key, as "messages[1].content"."""
    if isinstance(value, dict):
        for key, item in value.items():
            below = f"{path}.{key}" if path else str(key)
            yield below.encode("utf-8", "replace").decode(), key
            yield from walk(item, below)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from walk(item, f"{path}[{i}]")
    else:
        yield path, value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return out


def _explain(where: str, text: str, error: json.JSONDecodeError) -> RowError:
    """The decoder's complaint in plain words, with the field where a stray control character stands in one."""
    start = text.strip()
    shown = start if len(start) <= 60 else start[:57] + "..."
    if error.msg.startswith("Invalid control character"):
        keys = _KEY.findall(text[: error.pos])
        character = f"U+{ord(text[error.pos]):04X}"
        problem = f"a raw control character {character} in a string (column {error.pos + 1})."
        return RowError(where, keys[-1] if keys else "", problem, 'Escape it, as "\\n" or "\\u0000".')
    if start in ("{", "["):
        hint = "The file looks pretty-printed; write one object a line (jq -c)."
        return RowError(where, "", f"the JSON does not end on its line; it begins with {shown!r}.", hint)
    return RowError(
        where, "", f"no valid JSON: {error.msg} at column {error.pos + 1}; the line begins with {shown!r}.", _ONE_OBJECT
    )


def _too_deep(text: str) -> str | None:
    """The top-level key under which brackets nest too deep, or None where they do not. One pass, no recursion."""
    depth, key = 0, ""
    for match in re.finditer(r'"((?:[^"\\]|\\.)*)"(\s*:)?|[\[{]|[\]}]', text):
        token = match.group()
        if token in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return key
        elif token in "]}":
            depth -= 1
        elif depth == 1 and match.group(2):
            key = match.group(1)
    return None


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
