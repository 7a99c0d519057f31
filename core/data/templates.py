"""Templates: text and turns into token ids, whole, with every control token of the user's text kept as text.

A `Template` knows three things about a tokenizer that nobody else needs to: what it puts around plain text (BOS), which
token ends an answer in its chat template, and whether the template opens an answer when asked to.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from core.errors import DataError
from core.rows import Message

BUILT_IN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token + '\n\n' }}"
    "{% else %}{{ message['content'] + '\n\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""For turns where the tokenizer has no template. The answer begins with its space, as words in running text do."""

Chat = tuple[tuple[Message, ...], bool]
"""Turns, and whether the template is to open the assistant's next turn."""

_PROBE = "Zebra 7"


class Template:
    """Encodes plain text and conversations with one tokenizer.

    Attributes:
        stop: the id of the token that ends an answer in a conversation.
        stop_note: what a person should know about the end token, "" where all is as usual.
    """

    def __init__(self, tokenizer: Any, *, own: bool = True) -> None:
        """`own=False`: use the built-in template even where the tokenizer has one."""
        self.tokenizer = tokenizer
        if tokenizer.eos_token_id is None:
            raise DataError("The tokenizer has no end-of-text token, so no answer could end.", "Set eos_token and save it.")
        self.eos: int = tokenizer.eos_token_id
        self.built_in = not (own and tokenizer.chat_template)
        self.before = _specials_before(tokenizer)
        specials = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        added = {text: i for text, i in tokenizer.get_added_vocab().items() if not text.isspace()}
        self._controls = frozenset((specials | added).values())
        self._control, self._special = _any_of(specials | added), _any_of(specials)
        self.stop, self.appends_eos, self.stop_note = self.eos, False, ""
        self.opening = ""
        self._probe()

    def has_control_tokens(self, text: str) -> bool:
        """Does the text spell one of the tokenizer's control tokens?"""
        return self._special.search(text) is not None

    def encode_texts(self, texts: Sequence[str], *, prefix: bool = True) -> list[list[int]]:
        """Token ids of plain texts, each with the tokenizer's BOS (once) where it has one. Control tokens stay text."""
        distinct = list(dict.fromkeys(texts))
        ids = dict(zip(distinct, self._ids(distinct, split_special_tokens=True), strict=True)) if distinct else {}
        before = self.before if prefix else []
        return [before + ids[text] for text in texts]

    def encode_chats(self, chats: Sequence[Chat], where: Callable[[int], str]) -> list[list[int]]:
        """Token ids of conversations, as the template writes them. `where(i)` names chat i in errors."""
        keys = [(tuple((m["role"], m["content"]) for m in turns), opened) for turns, opened in chats]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        plain: list[Any] = []
        ids: dict[Any, list[int]] = {}
        for key, i in first.items():
            if any(self._control.search(content) for _, content in key[0]):
                ids[key] = self._sanitised(chats[i], where(i))
            else:
                plain.append(key)
        texts = [self._render(chats[first[key]], where(first[key])) for key in plain]
        if texts:
            ids.update(zip(plain, self._ids(texts), strict=True))
        before = self.before if self.built_in else []
        return [before + ids[key] for key in keys]

    def _ids(self, texts: Sequence[str], **options: Any) -> list[list[int]]:
        """In batches; a fast tokenizer uses all cores. Lengths are our business, so no warning about them."""
        out = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False, **options)
        ids: list[list[int]] = out["input_ids"]
        return ids

    def _options(self) -> dict[str, Any]:
        return {"chat_template": BUILT_IN} if self.built_in else {}

    def _apply(self, chat: Chat, where: str, **options: Any) -> Any:
        from jinja2 import TemplateError

        turns, opened = chat
        try:
            return self.tokenizer.apply_chat_template(
                [dict(m) for m in turns], add_generation_prompt=opened, **self._options(), **options
            )
        except (TemplateError, TypeError, KeyError) as error:
            roles = ", ".join(m["role"] for m in turns)
            hint = "Change the row, or use data.template=plain (the built-in template)."
            raise DataError(f"{where}: the chat template refuses the turns ({roles}): {error}", hint) from error

    def _render(self, chat: Chat, where: str) -> str:
        text: str = self._apply(chat, where, tokenize=False)
        return text + self.opening if chat[1] else text

    def _sanitised(self, chat: Chat, where: str) -> list[int]:
        """As `_render`, for turns that spell control tokens: these are encoded as plain text."""
        if "sanitize_control_tokens" not in inspect.signature(self.tokenizer.apply_chat_template).parameters:
            raise DataError(
                f"{where}: the text spells a control token, which this transformers cannot keep as text.", "Upgrade it."
            )
        try:
            ids = list(self._apply(chat, where, tokenize=True, return_dict=False, sanitize_control_tokens=True))
        except (ValueError, NotImplementedError) as error:
            raise DataError(
                f"{where}: the text spells a control token that cannot be kept as text: {error}", "Change it."
            ) from error
        return ids + self._ids([self.opening])[0] if chat[1] and self.opening else ids

    def _probe(self) -> None:
        """Render a made-up dialogue, to see what the template writes before and after an answer."""
        ask: Message = {"role": "user", "content": "Question?"}
        answer: Message = {"role": "assistant", "content": _PROBE}
        place = "the tokenizer's chat template"
        full = self._render(((ask, answer), False), place)
        if _PROBE not in full:
            raise DataError(f"{place} does not write the assistant's text.", "Use data.template=plain.")
        start = full.rindex(_PROBE)
        opened, closed = self._render(((ask,), True), place), self._render(((ask,), False), place)
        if opened == closed and full.startswith(opened):
            header = full[len(opened) : start]
            self.opening = header if header.strip() else ""  # a mere space would part from the word it belongs to
        tail = self._ids([full[start + len(_PROBE) :]])[0] if full[start + len(_PROBE) :] else []
        stops = [i for i in tail if i in self._controls]
        if stops:
            self.stop = stops[0]
            return
        self.appends_eos = True
        self.stop_note = (
            f"The chat template writes no end token after an answer; {self.tokenizer.eos_token} is added to the last one, "
            "else the model would never learn to stop."
        )


def end_tokens(tokenizer: Any) -> frozenset[int]:
    """Ids at which sampling must stop: the tokenizer's end token, and what its chat template closes an answer with."""
    try:
        return frozenset({tokenizer.eos_token_id, Template(tokenizer).stop})
    except DataError:  # a template that refuses a question with its answer; data.template=plain does without it
        return frozenset({tokenizer.eos_token_id})


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)")


def _specials_before(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before a plain text by itself: BOS, or nothing. (An EOS after it is not wanted.)"""
    bare = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    dressed = tokenizer(_PROBE)["input_ids"]
    for i in range(len(dressed) - len(bare) + 1):
        if dressed[i : i + len(bare)] == bare:
            return list(dressed[:i])
    return [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []


def end_ids(tokenizer: Any) -> list[int]:
    """The tokenizer's end token, and those that close a turn: its chat template's, and the common ones it knows; sorted."""
    ends = set(end_tokens(tokenizer)) if tokenizer.chat_template else {tokenizer.eos_token_id}
    for token in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>"):
        i = tokenizer.convert_tokens_to_ids(token) if token in tokenizer.all_special_tokens else None
        if i is not None:
            ends.add(i)
    return sorted(ends)
