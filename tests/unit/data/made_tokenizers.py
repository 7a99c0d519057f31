"""Small real tokenizers for the tests of data: byte-level BPE, with and without BOS, with several chat templates."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from core.data.config import DataConfig

TEXT = [
    "What is the capital of France? Paris. Name a colour. Blue is a colour. Say hello. Hello! How can I help?",
    "user assistant system User: Assistant: What is two plus two? Four. Five. Seven. No. Are you there? Yes.",
]
SPECIALS = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Writes BOS itself, trims the text, ends only the assistant's turns, with EOS.
TRIMMING = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[' + m['content'] | trim + ']' }}"
    "{% else %}{{ ' ' + m['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)
# Writes no end token at all.
ENDLESS = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
# Opens no answer when asked to.
SILENT = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
# Writes an earlier answer otherwise than a last one, as templates that drop old reasoning do.
FORGETFUL = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ 'Yes. ' }}{% endif %}{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@cache
def _core() -> str:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(TEXT * 3, trainer)
    return bpe.to_str()


def tokenizer(template: str | None = CHATML, *, bos: bool = False, eos_too: bool = False) -> Any:
    """`bos`: the tokenizer puts <s> before every text by itself; `eos_too`: and </s> after it."""
    bpe = Tokenizer.from_str(_core())
    if bos:
        single = "<s> $A </s>" if eos_too else "<s> $A"
        pieces = [("<s>", bpe.token_to_id("<s>")), ("</s>", bpe.token_to_id("</s>"))]
        bpe.post_processor = processors.Sequence(
            [processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single=single, special_tokens=pieces)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def write(path: Path, *rows: Any) -> str:
    """A JSONL file of these rows."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def config(path: str, **changes: Any) -> DataConfig:
    return DataConfig(**{"name": "jsonl", "path": path, "validation_fraction": 0.0, **changes})


def trained(tok: Any, response: Any) -> str:
    """The text of the trained tokens, control tokens included."""
    return str(tok.decode([t for t, m in zip(response.tokens, response.mask, strict=True) if m], skip_special_tokens=False))


def whole(tok: Any, row: Any, k: int = 0) -> str:
    tokens = row.prompt + (row.responses[k].tokens if row.responses else [])
    return str(tok.decode(tokens, skip_special_tokens=False))
