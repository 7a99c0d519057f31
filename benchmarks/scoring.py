"""Scoring with a reward model: reward=learned against transformers' own classifier, on the same texts, in one process.

    python -m benchmarks.scoring [--prompts 60] [--repeats 5]

Each prompt of `harmless_pairs` comes with four answers (its own two and those of the next prompt), as a sampler would
give. The classifier runs in padded batches, in length order, at every batch size of 1, 2, 4, 8 and 16; its best counts.
Scores are compared before speed is. Both sides tokenise inside the clock; each repeat measures both.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.workload import EOS, DataAbsent, make
from core.reward import Sample
from core.reward_model import RewardModel

BATCHES = (1, 2, 4, 8, 16)


def samples(path: Any, prompts: int) -> list[Sample]:
    """Four answers for each of the first prompts."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[: prompts + 1]]
    out = []
    for row, other in itertools.pairwise(rows):
        for text in (row["chosen"], row["rejected"], other["chosen"], other["rejected"]):
            out.append(Sample(row["prompt"], text, row_id=row["id"]))
    return out


def classifier(path: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    return AutoModelForSequenceClassification.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


@torch.no_grad()
def padded(model: Any, tokenizer: Any, texts: Sequence[str], batch: int) -> list[float]:
    """Scores in batches of similar length."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    scores = [0.0] * len(texts)
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        encoded = tokenizer([texts[i] for i in part], return_tensors="pt", padding=True, add_special_tokens=False)
        logits = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits[:, 0]
        for i, score in zip(part, logits.tolist(), strict=True):
            scores[i] = score
    return scores


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    try:
        workload = make()
    except DataAbsent as error:
        print(f"SKIPPED: nothing was measured. {error}.")
        return 3
    asked = samples(workload.pairs, args.prompts)
    ours = RewardModel(str(workload.reward), template="plain")
    model, tokenizer = classifier(str(workload.reward))
    texts = [f"{s.prompt}{s.response}{EOS}" for s in asked]
    difference = max(abs(a - b) for a, b in zip(ours.score(asked), padded(model, tokenizer, texts, 8), strict=True))
    if difference > 1e-4:
        print(f"UNEQUAL WORK: scores differ by {difference:.2g}. Nothing was compared.")
        return 1
    rates = {b: len(texts) / seconds(lambda b=b: padded(model, tokenizer, texts, b)) for b in BATCHES}  # type: ignore[misc]
    best = max(rates, key=lambda b: rates[b])
    ratios, fastest = [], []
    for _ in range(args.repeats):
        theirs = seconds(lambda: padded(model, tokenizer, texts, best))
        mine = seconds(lambda: ours.score(asked))
        ratios.append(theirs / mine)
        fastest.append((len(texts) / mine, len(texts) / theirs))
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"{len(texts)} answers to {args.prompts} prompts; scores equal within {difference:.1g}")
    print(f"transformers' best batch size: {best} of {', '.join(map(str, BATCHES))}")
    ours_rate, their_rate = (statistics.median(pair[i] for pair in fastest) for i in (0, 1))
    print(f"answers/s: ours {ours_rate:.0f}, transformers {their_rate:.0f}")
    print(f"ratio: {low:.2f} - {middle:.2f} - {high:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
