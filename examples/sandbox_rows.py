"""Write sandbox rows to a file, so that two runs can read the same comparisons in different shapes.

python examples/sandbox_rows.py rankings train 3000 --out rankings.jsonl
python examples/sandbox_rows.py rankings train 3000 --as-pairs --out pairs.jsonl     # every pair of every ranking
python examples/sandbox_rows.py pairs train 8000 --neutral --out pairs.jsonl
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.data.sandbox import records


def as_pairs(ranking: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All ordered pairs of a ranking, each a row of its own."""
    kept = {k: v for k, v in ranking.items() if k not in ("id", "responses", "scores", "golds")}
    for i, j in itertools.combinations(range(len(ranking["responses"])), 2):
        chosen, rejected = ranking["responses"][i], ranking["responses"][j]
        yield {"id": f"{ranking['id']}/{i}{j}", **kept, "chosen": chosen, "rejected": rejected}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=["prompts", "demonstrations", "pairs", "rankings"])
    parser.add_argument("split", choices=["train", "validation", "test"])
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--neutral", action="store_true", help="annotators without tastes: they err, but want the truth")
    parser.add_argument("--about", choices=["help", "safety"], help="only safe requests, or only unsafe ones and lookalikes")
    parser.add_argument("--as-pairs", action="store_true", help="rankings as all their pairs")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    options = {"tastes": {"neutral": 1.0}} if args.neutral else {}
    made = records(args.kind, args.split, args.seed, args.count, **options)
    if args.about:
        made = (row for row in made if (row["safety_label"] == "safe") == (args.about == "help"))
    rows = (pair for ranking in made for pair in as_pairs(ranking)) if args.as_pairs else made
    with args.out.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    main()
