"""How often does a policy's implicit reward agree with the labels? With a bootstrap interval over prompts.

    python examples/preference_accuracy.py runs/dpo/policy --reference runs/sft/policy --data pairs.jsonl.gz

The implicit reward of a response is log pi(y|x) - log ref(y|x) (Rafailov et al. 2023). Pairs of one prompt are not
independent, so whole prompts are resampled. Beside it stands what the longer response would score.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from core.collect import ModelContext
from core.data.load import DataConfig, load_data
from core.loading import load_causal_lm, load_tokenizer
from core.models import Models
from core.rows import Row
from core.settings import Generation


def interval(values: list[float], groups: list[str], seed: int = 0, draws: int = 2000) -> tuple[float, float, float]:
    """Mean of `values` and its 95 % interval from resampling whole groups."""
    members: dict[str, list[float]] = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        members[group].append(value)
    sums = np.array([sum(v) for v in members.values()])
    counts = np.array([len(v) for v in members.values()])
    chosen = np.random.default_rng(seed).integers(0, len(sums), size=(draws, len(sums)))
    means = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def log_ratios(rows: list[Row]) -> list[tuple[float, float]]:
    """(chosen, rejected) log pi - log ref of each pair."""

    def ratio(row: Row, k: int) -> float:
        fields = row.responses[k].token_fields
        return sum(fields["policy"]) - sum(fields["reference"])

    return [(ratio(row, 0), ratio(row, 1)) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--template", default="chat")
    given = parser.parse_args()
    tokenizer = load_tokenizer(str(given.policy))
    data = load_data(DataConfig(name="jsonl", path=given.data, template=given.template), tokenizer, "pairs")
    roles = {"policy": load_causal_lm(str(given.policy)), "reference": load_causal_lm(str(given.reference))}
    context = ModelContext(
        Models(roles, trains=frozenset()),  # type: ignore[arg-type]
        tokenizer,
        generation=Generation(),
        reward=None,
        seed=0,
        microbatch_tokens=8192,
    )
    rows = context.token_logps("reference", context.token_logps("policy", data.train, "policy"), "reference")
    groups = [row.prompt_text for row in rows]
    right = [float(chosen > rejected) for chosen, rejected in log_ratios(rows)]
    longer = [_share(len(r.responses[0].text), len(r.responses[1].text)) for r in rows]
    for name, values in (("implicit reward", right), ("longer response", longer)):
        mean, low, high = interval(values, groups)
        size = f"{len(rows)} pairs of {len(set(groups))} prompts"
        print(f"{name:16} {100 * mean:5.1f} % [{100 * low:.1f}, {100 * high:.1f}], {size}")


def _share(chosen: int, rejected: int) -> float:
    return 0.5 if chosen == rejected else float(chosen > rejected)


if __name__ == "__main__":
    main()
