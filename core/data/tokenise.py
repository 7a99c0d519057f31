"""Examples into rows: prompt and response tokenised whole, split where they part; masks; over-long rows.

prompt + response, whole      <bos> User says </s> | Paris . </s> \\n
prompt alone                  <bos> User says </s>
common prefix = prompt        <bos> User says </s>
response, up to its stop                             Paris . </s>
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.data.config import DataConfig
from core.data.formats import Example
from core.data.prefix import common_prefix
from core.data.report import DataReport, SplitReport
from core.data.templates import Chat, Template
from core.errors import ConfigError, DataError
from core.objective import Reads
from core.rows import Message, Response, Row

NOT_PREFIX = "responses whose first token merged with the prompt's end (split before it)"
CONTROL = "rows that spell control tokens (kept as text)"
GLUED = "responses that follow their prompt without white space"
CUT_RESPONSE = "responses cut at the end"
CUT_PROMPT = "prompts cut"
_NO_STOP = "assistant turns without an end token in the mask"
_CHUNK = 4096


@dataclass(frozen=True)
class Encoded:
    """One response after its prompt: all tokens, and which of them are the model's to learn.

    Attributes:
        tokens: (L,) prompt and response.
        mask: (L,) True = trained.
        ended: False where no end token closes the response.
    """

    tokens: list[int]
    mask: list[bool]
    ended: bool = True


class Tokeniser:
    """Makes rows of examples with one tokenizer and one config, and counts what it does.

    With `keep_all`, a prompt that alone fills `max_length` is cut to half of it, where its row would else be left out.
    """

    def __init__(
        self, config: DataConfig, tokenizer: Any, reads: Reads, report: DataReport, *, keep_all: bool = False
    ) -> None:
        if reads != "demonstrations" and config.mask in ("all", "assistant"):
            hint = "Leave data.mask at completion: pairs and rankings train their responses."
            raise ConfigError(f"data.mask={config.mask} is for demonstrations, but the objective reads {reads}.", hint)
        self.config, self.tokenizer, self.report, self.keep_all = config, tokenizer, report, keep_all
        self.template = Template(tokenizer, own=config.template != "plain")
        limit = config.max_length
        if limit is None and tokenizer.model_max_length < 10**6:
            limit = int(tokenizer.model_max_length)
        self.max_length = limit

    def rows(self, examples: Sequence[Example], counts: SplitReport) -> list[Row]:
        """Rows in order, without those that nothing is left of. Raises DataError where none remains."""
        out: list[Row] = []
        for start in range(0, len(examples), _CHUNK):
            out += self._chunk(examples[start : start + _CHUNK], counts)
        if examples and not out:
            reasons = "; ".join(f"{count} {reason}" for reason, count in counts.dropped.items())
            raise DataError(
                f"{counts.source}: no row is left of {len(examples)}: {reasons}.", "See data.max_length and data.mask."
            )
        counts.measure(out)
        return out

    def _chunk(self, examples: Sequence[Example], counts: SplitReport) -> list[Row]:
        chats = [i for i, e in enumerate(examples) if self._as_chat(e)]
        texts = [i for i, e in enumerate(examples) if not self._as_chat(e)]
        encoded: dict[int, tuple[list[int], list[Encoded]]] = {}
        for which, encode in ((chats, self._encode_chats), (texts, self._encode_texts)):
            encoded.update(zip(which, encode([examples[i] for i in which], counts), strict=True))
        if chats:
            self.report.note(self.template.stop_note)
        made = (self._row(example, *encoded[i], counts) for i, example in enumerate(examples))
        return [row for row in made if row is not None]

    def _as_chat(self, example: Example) -> bool:
        return example.messages is not None or (self.config.template == "chat" and example.kind != "text")

    def _encode_texts(self, examples: Sequence[Example], counts: SplitReport) -> list[tuple[list[int], list[Encoded]]]:
        """Plain text: the response follows its prompt as it is, then the end token."""
        prompts = self.template.encode_texts([str(e.prompt) for e in examples])
        wholes = iter(self.template.encode_texts([f"{e.prompt}{r}" for e in examples for r in e.responses]))
        out = []
        for example, prompt in zip(examples, prompts, strict=True):
            text = str(example.prompt)
            counts.changed[CONTROL] += any(map(self.template.has_control_tokens, (text, *example.responses)))
            encoded = []
            for response in example.responses:
                counts.changed[GLUED] += bool(text and response) and not (text[-1].isspace() or response[0].isspace())
                whole = [*next(wholes), self.template.eos]
                start = self._split(prompt, whole, counts)
                encoded.append(Encoded(whole, _mask(len(whole), [(start, len(whole))])))
            out.append((prompt, encoded))
        return out

    def _encode_chats(self, examples: Sequence[Example], counts: SplitReport) -> list[tuple[list[int], list[Encoded]]]:
        """Turns: the template's rendering, up to the token that ends the last answer."""
        contexts = [_turns(e) for e in examples]
        asked: list[Chat] = [(turns, True) for turns in contexts]
        prompts = self.template.encode_chats(asked, lambda i: examples[i].source)
        jobs = [(i, (*contexts[i], _assistant(r))) for i, e in enumerate(examples) for r in e.responses]
        done: list[Chat] = [(turns, False) for _, turns in jobs]
        wholes = self.template.encode_chats(done, lambda j: examples[jobs[j][0]].source)
        encoded: list[list[Encoded]] = [[] for _ in examples]
        for (i, turns), whole in zip(jobs, wholes, strict=True):
            encoded[i].append(self._answer(prompts[i], whole, turns, examples[i].source, counts))
        for example, turns in zip(examples, contexts, strict=True):
            texts = (*(m["content"] for m in turns), *example.responses)
            counts.changed[CONTROL] += any(map(self.template.has_control_tokens, texts))
        return list(zip(prompts, encoded, strict=True))

    def _answer(
        self, prompt: list[int], whole: list[int], turns: Sequence[Message], source: str, counts: SplitReport
    ) -> Encoded:
        """The last answer of a dialogue, cut behind its end token and proven to hold it."""
        start = self._split(prompt, whole, counts)
        if self.template.appends_eos:
            whole = [*_strip_tail(self.tokenizer, whole, start), self.template.eos]
        elif self.template.stop in whole[start:]:
            whole = whole[: len(whole) - whole[::-1].index(self.template.stop)]
        else:
            stop = self.tokenizer.convert_ids_to_tokens(self.template.stop)
            hint = "Use data.template=plain, or a chat template that closes every answer."
            raise DataError(f"{source}: the chat template writes no end token {stop} after the last answer.", hint)
        spans = [(start, len(whole))]
        if self.config.mask == "assistant":
            spans = [*self._earlier(whole, turns, source, counts), *spans]
        return Encoded(whole, _mask(len(whole), spans))

    def _earlier(
        self, whole: list[int], turns: Sequence[Message], source: str, counts: SplitReport
    ) -> list[tuple[int, int]]:
        """Token spans of the assistant's turns before the last one, by rendering the dialogue up to each of them.

        A turn ends behind its end token. Some templates write an earlier turn differently from a last one (they drop its
        reasoning); there the rendering is no prefix, and the next end token of the whole closes the turn.
        """
        places = [i for i, m in enumerate(turns[:-1]) if m["role"] == "assistant"]
        chats: list[Chat] = [(tuple(turns[:i]), True) for i in places] + [(tuple(turns[: i + 1]), False) for i in places]
        rendered = self.template.encode_chats(chats, lambda _: source)
        spans = []
        for before, upto in zip(rendered[: len(places)], rendered[len(places) :], strict=True):
            start, end = common_prefix(before, whole), common_prefix(upto, whole)
            if self.template.stop in whole[start:end]:
                end -= whole[start:end][::-1].index(self.template.stop)
            elif not self.template.appends_eos and self.template.stop in whole[start:]:
                end = start + whole[start:].index(self.template.stop) + 1
            else:
                counts.changed[_NO_STOP] += 1
            if end <= start:
                raise DataError(
                    f"{source}: an assistant turn cannot be found in the rendered dialogue.", "Use data.mask=completion."
                )
            spans.append((start, end))
        return spans

    def _split(self, prompt: list[int], whole: list[int], counts: SplitReport) -> int:
        """Where the response begins: the length of the common prefix, short of which a token spans the border."""
        start = min(common_prefix(prompt, whole), len(whole) - 1)
        if start < len(prompt):
            counts.changed[NOT_PREFIX] += 1
        return start

    def _row(self, example: Example, prompt: list[int], encoded: list[Encoded], counts: SplitReport) -> Row | None:
        if self.config.mask == "all":
            encoded = [Encoded(e.tokens, [True] * len(e.tokens), e.ended) for e in encoded]
        shared = _shared_prompt(prompt, encoded)
        if encoded and shared == 0:
            hint = "Use data.template=plain, or a tokenizer that begins texts with a BOS token."
            raise DataError(f"{example.source}: the rendered prompt and its responses share no first token.", hint)
        prompt = encoded[0].tokens[:shared] if encoded else prompt
        responses = [Encoded(e.tokens[shared:], e.mask[shared:]) for e in encoded]
        fitted = self._fit(prompt, responses, counts)
        if fitted is None:
            return None
        prompt, responses = fitted
        if any(not any(e.mask) for e in responses):
            counts.dropped["rows with a response of which no token would be trained"] += 1
            return None
        if not prompt:
            raise DataError(f"{example.source}: the prompt has no token.", "Use a tokenizer with a BOS token.")
        return Row(
            id=example.id,
            prompt=prompt,
            responses=tuple(self._response(e, text) for e, text in zip(responses, example.responses, strict=True)),
            prompt_text=example.prompt_text,
            messages=example.messages,
            margins=example.margins,
            ties=example.ties,
            references=example.references,
            columns=example.columns,
            source=example.source,
        )

    def _response(self, encoded: Encoded, text: str) -> Response:
        if not encoded.ended:
            text = self.tokenizer.decode(encoded.tokens, skip_special_tokens=True)
        return Response(tokens=encoded.tokens, mask=encoded.mask, text=text, finished=encoded.ended)

    def _fit(
        self, prompt: list[int], responses: list[Encoded], counts: SplitReport
    ) -> tuple[list[int], list[Encoded]] | None:
        """Prompt and responses within the limits, or None where the row goes."""
        config, longest = self.config, max((len(r.tokens) for r in responses), default=0)
        long_prompt = config.max_prompt_length is not None and len(prompt) > config.max_prompt_length
        if config.overlong == "drop" and (long_prompt or self._exceeds(len(prompt) + longest)):
            counts.dropped[f"rows longer than {'max_prompt_length' if long_prompt else 'max_length'}"] += 1
            return None
        if long_prompt and config.max_prompt_length is not None:
            prompt = self._cut_prompt(prompt, config.max_prompt_length)
            counts.changed[CUT_PROMPT] += 1
        if not self._exceeds(len(prompt) + longest):
            return prompt, responses
        room = (self.max_length or 0) - len(prompt)
        if room < 1 and self.keep_all:
            prompt = self._cut_prompt(prompt, max(1, (self.max_length or 0) // 2))
            room = (self.max_length or 0) - len(prompt)
            counts.changed[CUT_PROMPT] += not long_prompt
        if room < 1:
            counts.dropped["rows whose prompt alone fills max_length"] += 1
            return None
        counts.changed[CUT_RESPONSE] += sum(len(r.tokens) > room for r in responses)
        return prompt, [
            r if len(r.tokens) <= room else Encoded(r.tokens[:room], r.mask[:room], ended=False) for r in responses
        ]

    def _exceeds(self, length: int) -> bool:
        return self.max_length is not None and length > self.max_length

    def _cut_prompt(self, prompt: list[int], limit: int) -> list[int]:
        """A leading BOS stays: a model that was trained with it expects it."""
        if self.config.truncate_side == "right":
            return prompt[:limit]
        keep = 1 if limit > 1 and prompt[0] == self.tokenizer.bos_token_id else 0
        return prompt[:keep] + prompt[len(prompt) - limit + keep :]


def _turns(example: Example) -> tuple[Message, ...]:
    return example.messages or ({"role": "user", "content": str(example.prompt)},)


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _mask(length: int, spans: Sequence[tuple[int, int]]) -> list[bool]:
    mask = [False] * length
    for start, end in spans:
        mask[start:end] = [True] * (end - start)
    return mask


def _shared_prompt(prompt: list[int], encoded: Sequence[Encoded]) -> int:
    """How many tokens are the prompt of all responses: up to the first trained token of any, at least one.

    With everything trained the first token still has nothing that could predict it, so it is the prompt.
    """
    if not encoded:
        return len(prompt)
    starts = [e.mask.index(True) if True in e.mask else len(e.tokens) for e in encoded]
    shared = min([common_prefix(encoded[0].tokens, e.tokens) for e in encoded[1:]], default=len(encoded[0].tokens))
    return max(1, min(*starts, shared)) if shared else 0


def _strip_tail(tokenizer: Any, whole: list[int], start: int) -> list[int]:
    """Without the white space that a template puts behind an answer, so that the end token follows the answer."""
    end = len(whole)
    while end > start + 1 and not tokenizer.decode(whole[end - 1 : end]).strip():
        end -= 1
    return whole[:end]
