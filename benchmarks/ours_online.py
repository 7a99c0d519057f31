"""`python -m core.run` with a stopwatch at the doors of a collection.

python -m benchmarks.ours_online TIMES.json objective=grpo ...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.online import Stopwatch
from core.collect import ModelContext
from core.module import AlignmentModule
from core.run import main


def watch(stopwatch: Stopwatch) -> None:
    """Time what a collection asks of the models and the reward; the end of a step is where the run counts it done."""
    for name, part in {"generate": "sampling", "score": "scoring", "token_logps": "scoring", "values": "scoring"}.items():
        setattr(ModelContext, name, stopwatch.timed(part, getattr(ModelContext, name)))
    close = AlignmentModule.close_step

    def close_step(self, batch):  # type: ignore[no-untyped-def]
        close(self, batch)
        stopwatch.end_step()

    AlignmentModule.close_step = close_step  # type: ignore[method-assign]


if __name__ == "__main__":
    stopwatch = Stopwatch()
    watch(stopwatch)
    times, *overrides = sys.argv[1:]
    status = main(overrides)
    Path(times).write_text(json.dumps(stopwatch.steps), encoding="utf-8")
    sys.exit(status)
