"""The work that both sides of the benchmark do: one model folder and four files of rows, made once, deterministic.

The model is a Llama of about 5M parameters with random weights and a byte-level BPE tokenizer of 8192 tokens, trained on the
rows' own text. The rows are real: human preference pairs and demonstrations of the shared test data, lengths as they are.
The files hold plain text in TRL's column names, so that each side tokenises by its own route and the benchmark can check
that the two agree on every token.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.online import TASKS

VERSION = 4  # change it when anything below changes what is made
MAX_LENGTH = 512  # tokens of a prompt with one response; longer rows are left out, so that neither side truncates
VOCAB_SIZE = 8192
SFT_STEPS = 150  # of the policy that answers in the online tasks
LONG_ANSWER = 32  # tokens; a policy trained on such answers ends them after about 50 of 64 tokens
EOS, PAD, BOS = "<|end|>", "<|pad|>", "<|begin|>"
ARCHITECTURE = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}


class DataAbsent(Exception):
    """The shared data folder is not here; the benchmark has nothing to measure on."""


@dataclass(frozen=True)
class Workload:
    """Where the made things lie.

    Attributes:
        model: a folder that `from_pretrained` loads, with the tokenizer (float32 weights).
        reward: the same model with a scalar head, one for both sides, as a sequence classifier.
        pairs: JSONL of {"id", "prompt", "chosen", "rejected"}: long prompts, short answers.
        chosen: JSONL of {"id", "prompt", "completion"}: the same pairs' chosen responses.
        demonstrations: JSONL of {"id", "prompt", "completion"}: short prompts, long answers.
        long_answers: those of `chosen` whose answers are not short: what the policy of the online tasks has learnt from.
        counts: rows and tokens by file, for the report.
    """

    model: Path
    reward: Path
    pairs: Path
    chosen: Path
    demonstrations: Path
    long_answers: Path
    counts: Mapping[str, Any]

    def start(self, task: str) -> Path:
        """The model that a task trains; the online tasks' answers must end."""
        if task in TASKS:
            return short_sft(self)
        return self.reward if task == "reward_bt" else self.model

    def rows(self, task: str) -> Path:
        """The file that a task reads."""
        return {"sft": self.chosen, "sft_demos": self.demonstrations}.get(task, self.pairs)


def shared_data() -> Path:
    """The shared data folder: $ACCORDANT_SHARED_DATA, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("ACCORDANT_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    for name in ("harmless_pairs/train.jsonl.gz", "sft/train.jsonl.gz"):
        if not (folder / name).is_file():
            raise DataAbsent(f"{folder / name} is not here; set ACCORDANT_SHARED_DATA to the folder that holds it")
    return folder


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _transcript(messages: list[Mapping[str, str]]) -> str:
    """Turns in the HH manner, ending where the assistant is to speak."""
    speaker = {"user": "Human", "assistant": "Assistant", "system": "System"}
    return "".join(f"\n\n{speaker[m['role']]}: {m['content']}" for m in messages) + "\n\nAssistant:"


def _read_rows(folder: Path) -> dict[str, list[dict[str, str]]]:
    """All rows as text. A response begins with a space, as after "Assistant:" in the original transcripts."""
    pairs = [
        {
            "id": r["id"],
            "prompt": _transcript(r["messages"]),
            "chosen": " " + r["chosen"].strip(),
            "rejected": " " + r["rejected"].strip(),
        }
        for r in _lines(folder / "harmless_pairs" / "train.jsonl.gz")
    ]
    demonstrations = [
        {
            "id": r["id"],
            "prompt": _transcript([{"role": "user", "content": r["prompt"]}]),
            "completion": " " + r["completion"].strip(),
        }
        for r in _lines(folder / "sft" / "train.jsonl.gz")
    ]
    chosen = [{"id": r["id"], "prompt": r["prompt"], "completion": r["chosen"]} for r in pairs]
    return {"pairs": pairs, "chosen": chosen, "demonstrations": demonstrations}


def _make_tokenizer(texts: Iterator[str], folder: Path) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD, bos_token=BOS)
    fast.save_pretrained(folder)
    return fast


def _make_model(tokenizer: Any, folder: Path) -> int:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(20240607)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
        **ARCHITECTURE,
    )
    model = LlamaForCausalLM(config).float()
    model.save_pretrained(folder / "model")
    config.num_labels = 1
    reward = LlamaForSequenceClassification(config).float()
    reward.model = model.model
    reward.save_pretrained(folder / "reward")
    return sum(p.numel() for p in model.parameters())


def _keep_short(rows: list[dict[str, str]], tokenizer: Any) -> tuple[list[dict[str, str]], int]:
    """The rows whose prompt with any one response (and its end token) fits, in a fixed shuffled order; and their tokens."""
    kept, tokens = [], 0
    for row in rows:
        lengths = [
            len(tokenizer(row["prompt"] + text, add_special_tokens=False)["input_ids"]) + 1
            for name, text in row.items()
            if name in ("chosen", "rejected", "completion")
        ]
        if max(lengths) <= MAX_LENGTH:
            kept.append(row)
            tokens += sum(lengths)
    random.Random(0).shuffle(kept)
    return kept, tokens


def short_sft(workload: Workload) -> Path:
    """The model after a short SFT of ours, so that its answers end; made once, and kept beside it."""
    folder = workload.model.parent / f"policy-{SFT_STEPS}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = [
            *(sys.executable, "-m", "core.run", "objective=sft", "reward=none", "model=hf", "data=jsonl"),
            *(f"model.policy={workload.model}", f"data.path={workload.long_answers}", "data.max_length=512"),
            *("data.batch_size=8", "optim.lr=1e-3", "trainer.accelerator=cpu", f"trainer.max_steps={SFT_STEPS}"),
            *("eval.at_start=false", "eval.prompts=0", f"run.root={scratch}", "run.name=sft"),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        [made] = Path(scratch).glob("sft*/policy")
        made.rename(folder)
    return folder


def make(root: Path | None = None) -> Workload:
    """Make the model folder and the row files under `root`, or find them there from an earlier call.

    Args:
        root: where to keep them; default a folder of the system's temporary directory, named by content.

    Raises:
        DataAbsent: the shared data folder is missing.
    """
    data = shared_data()
    digest = hashlib.sha256(json.dumps([VERSION, VOCAB_SIZE, MAX_LENGTH, LONG_ANSWER, ARCHITECTURE]).encode())
    for name in ("harmless_pairs/train.jsonl.gz", "sft/train.jsonl.gz"):
        digest.update((data / name).read_bytes())
    base = root or Path(tempfile.gettempdir()) / "accordant-bench"
    folder = base / digest.hexdigest()[:16]
    if not (folder / "counts.json").is_file():
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base) as scratch:  # made aside, moved whole: two runs at once do no harm
            _fill(Path(scratch) / "made", data)
            if not folder.exists():
                (Path(scratch) / "made").rename(folder)
    counts = json.loads((folder / "counts.json").read_text())
    files = {name: folder / f"{name}.jsonl" for name in ("pairs", "chosen", "demonstrations", "long_answers")}
    return Workload(folder / "model", folder / "reward", **files, counts=counts)


def _fill(folder: Path, data: Path) -> None:
    (folder / "model").mkdir(parents=True)
    rows = _read_rows(data)
    distinct = (*rows["pairs"], *rows["demonstrations"])
    texts = (text for row in distinct for name, text in row.items() if name != "id")
    tokenizer = _make_tokenizer(texts, folder / "model")
    counts: dict[str, Any] = {"parameters": _make_model(tokenizer, folder)}
    tokenizer.save_pretrained(folder / "reward")
    rows["long_answers"] = [r for r in rows["chosen"] if len(tokenizer(r["completion"])["input_ids"]) >= LONG_ANSWER]
    for name, part in rows.items():
        kept, tokens = _keep_short(part, tokenizer)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        counts[name] = {"rows": len(kept), "left_out": len(part) - len(kept), "tokens": tokens}
    (folder / "counts.json").write_text(json.dumps(counts, indent=1))


if __name__ == "__main__":
    print(json.dumps(dict(make().counts), indent=1))
