"""Text of models and data, made safe to show: it is data, and may hold anything."""

from __future__ import annotations

_ASCII = str.maketrans({"−": "-", "–": "-", "…": "...", "·": "|", "→": "->"})


def visible(text: object) -> str:
    """The text with control characters spelt out: NUL, terminal escapes, marks that turn the direction of reading."""
    return "".join(_visible(character) for character in str(text))


def one_line(text: object, width: int) -> str:
    """Visible text on one line of at most `width` characters."""
    line = " ".join(visible(text).split())
    return line if len(line) <= width else line[: max(1, width - 1)] + "…"


def encodable(text: str, encoding: str | None) -> str:
    """The text as a stream of that encoding can take it (a terminal under LANG=C may know ASCII only; None: any)."""
    try:
        text.encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")
    return text


def _visible(character: str) -> str:
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    hidden = (code < 0x20 and character not in "\n\t") or 0x7F <= code <= 0x9F
    turns = 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    return f"\\u{code:04x}" if hidden or turns else character
