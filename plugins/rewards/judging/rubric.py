"""The rubric: the text that a judge is sent, with the answers fenced in, and the verdict that is read off its reply.

A placeholder ({response}) is replaced by its text between two lines that carry a mark, a digest of all the texts of the
question. An answer cannot hold its own digest, so it cannot close its fence and go on as if it were the rubric. Texts
are put in by one pass, so that braces in an answer mean nothing. The verdict is the last line of the judge's reply or
there is none: whatever was quoted from an answer before it does not count.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.api import ConfigError, nearest

Mode = Literal["pointwise", "pairwise"]

TEXTS: dict[str, tuple[str, ...]] = {
    "pointwise": ("prompt", "response", "reference"),
    "pairwise": ("prompt", "response_a", "response_b", "reference"),
}
"""The placeholders of each mode that stand for texts of the data."""

_NEEDED = {"pointwise": ("response",), "pairwise": ("response_a", "response_b")}
_WORD = {"pointwise": "Score:", "pairwise": "Verdict:"}
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}")
# Emphasis and a full stop around the verdict are habits of models, not words.
_SCORE = re.compile(r"[*_`# ]*score[*_` ]*:[*_` ]*(-?\d+(?:\.\d+)?)(?: ?/ ?(\d+(?:\.\d+)?))?[*_`. ]*", re.IGNORECASE)
_VERDICT = re.compile(r"[*_`# ]*verdict[*_` ]*:[*_` ]*(a|b|tie)[*_`. ]*", re.IGNORECASE)
_POINTS = {"a": 1.0, "b": 0.0, "tie": 0.5}


@dataclass(frozen=True)
class Rubric:
    """A checked rubric text.

    Attributes:
        text: with placeholders in single braces; {{word}} stands for the text {word}.
        scale: lowest and highest score that a pointwise judge may give; {low} and {high} in the text.
    """

    mode: Mode
    text: str
    scale: tuple[float, float]

    @classmethod
    def load(cls, mode: Mode, path: str | None, scale: tuple[float, float]) -> Rubric:
        """The rubric of a file, else the one that is shipped for the mode.

        Raises:
            ConfigError: the file cannot be read, or the text has no or an unknown placeholder, or asks for no verdict.
        """
        file = Path(__file__).with_name(f"{mode}.md") if path is None else Path(path).expanduser()
        try:
            text = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"reward.rubric: {file} cannot be read ({error}).", "Give the path of a UTF-8 text, or null."
            ) from error
        _check(mode, text, f"reward.rubric ({file.name})")
        return cls(mode, text, scale)

    @property
    def uses_reference(self) -> bool:
        return any(match[2] == "reference" for match in _PLACEHOLDER.finditer(self.text))

    def fill(self, texts: Mapping[str, str]) -> str:
        """The message for a judge. `texts`: one for each placeholder of the mode that the rubric uses."""
        # Half of a surrogate pair, which JSON can carry into a text, has no bytes in UTF-8: it becomes a question mark.
        texts = {name: text.encode("utf-8", "replace").decode("utf-8") for name, text in texts.items()}
        mark = _mark(texts)
        plain = {"low": f"{self.scale[0]:g}", "high": f"{self.scale[1]:g}"}

        def put(match: re.Match[str]) -> str:
            if match[1] is not None:
                return f"{{{match[1]}}}"
            name = match[2]
            return plain[name] if name in plain else _fenced(name, texts[name], mark)

        return _PLACEHOLDER.sub(put, self.text)

    def read(self, reply: str) -> float | None:
        """The verdict, from 0 to 1, of a reply's last line that is not blank; None where it is none.

        Pointwise, (score - low) / (high - low); a number outside the scale is no verdict. Pairwise, 1 where A is
        better, 0 where B is, 0.5 for a tie.
        """
        lines = reply.strip().splitlines()
        line = lines[-1].strip() if lines else ""
        if self.mode == "pairwise":
            verdict = _VERDICT.fullmatch(line)
            return None if verdict is None else _POINTS[verdict[1].lower()]
        score = _SCORE.fullmatch(line)
        low, high = self.scale
        if score is None or not low <= float(score[1]) <= high or (score[2] is not None and float(score[2]) != high):
            return None
        return (float(score[1]) - low) / (high - low)

    @property
    def reminder(self) -> str:
        """What is added to the message when a reply had no verdict."""
        low, high = self.scale
        line = '"Verdict: A", "Verdict: B" or "Verdict: tie"'
        if self.mode == "pointwise":
            line = f'"Score: N", where N is a number from {low:g} to {high:g}'
        return f"\n\nAn earlier reply did not end as asked. The last line must be {line}, with nothing after it."


def _check(mode: Mode, text: str, place: str) -> None:
    known = (*TEXTS[mode], *(("low", "high") if mode == "pointwise" else ()))
    used = [match[2] for match in _PLACEHOLDER.finditer(text) if match[2] is not None]
    shown = ", ".join(f"{{{name}}}" for name in known)
    for name in used:
        if name not in known:
            raise ConfigError(
                f"{place} has the placeholder {{{name}}}, which mode={mode} does not know.{nearest(name, known)}",
                f"It knows {shown}; write {{{{{name}}}}} where the text itself is meant.",
            )
    missing = [name for name in _NEEDED[mode] if name not in used]
    if missing:
        raise ConfigError(
            f"{place} has no placeholder {{{missing[0]}}}: the judge would never see what it is to judge.",
            f"Put it where the text is to stand. mode={mode} knows {shown}.",
        )
    if _WORD[mode].lower() not in text.lower():
        raise ConfigError(
            f'{place} never says "{_WORD[mode]}", and the verdict is read from a last line that begins so.',
            "End the rubric with the form of that line, as the shipped one does.",
        )


def _fenced(name: str, text: str, mark: str) -> str:
    label = name.replace("_", " ").upper()
    return f"<<<{label} {mark}>>>\n{text}\n<<<END {label} {mark}>>>"


def _mark(texts: Mapping[str, str]) -> str:
    """The same texts have the same mark, so that a question can be found again among those that were asked."""
    # Lengths first: else texts that are cut at another place would read alike.
    sizes = repr([(name, len(text)) for name, text in sorted(texts.items())])
    joined = sizes + "".join(text for _, text in sorted(texts.items()))
    return hashlib.sha256(joined.encode("utf-8")).hexdigest()[:16]
