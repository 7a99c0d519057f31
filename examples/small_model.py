"""Make a small model from nothing: a byte-level BPE tokenizer trained on your own text, and a random Llama.

    python examples/small_model.py rows.jsonl.gz more.jsonl.gz --out runs/small --vocab 4096

The folder is in the Hugging Face layout: `model=hf model.policy=runs/small` trains it. It knows nothing yet; begin with
`objective=sft`. Text is taken from every string in the rows' prompts, completions, responses and messages.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast
from transformers.trainer_utils import set_seed

from core.data.records import Record, read_records

FIELDS = ("text", "prompt", "completion", "chosen", "rejected", "response", "responses", "messages", "content", "reference")
BEGIN, END, PAD, TURN = "<|begin|>", "<|end|>", "<|pad|>", "<|turn|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|turn|>' + message['role'] + '\n' + message['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn|>assistant\n' }}{% endif %}"
)


def texts(paths: list[str]) -> Iterator[str]:
    """Every piece of text in the rows."""
    for record in read_records(paths):
        if not isinstance(record, Record):
            raise SystemExit(f"cannot read: {record}")
        for key in FIELDS:
            yield from strings(record.data.get(key))


def strings(value: Any) -> Iterator[str]:
    """The strings in a value, lists and messages opened."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from strings(value.get("content"))
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def make_tokenizer(paths: list[str], vocab: int, max_length: int) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [PAD, BEGIN, END, TURN]
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(texts(paths), trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[TURN],
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", help="JSONL, JSONL.GZ or Parquet files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    tokenizer = make_tokenizer(given.paths, given.vocab, given.max_length)
    set_seed(given.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=given.width,
        intermediate_size=int(given.width * 8 / 3) // 32 * 32,
        num_hidden_layers=given.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=given.max_length,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(given.out)
    tokenizer.save_pretrained(given.out)
    print(f"{given.out}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters, {len(tokenizer)} tokens")


if __name__ == "__main__":
    main()
