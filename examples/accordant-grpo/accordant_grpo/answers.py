"""What GRPO and RLOO have in common: the answers of a collection, what is said of them, and their advantages."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

from core.api import CollectContext, Response, Row, log_scores


def scores_of(row: Row) -> list[float | None]:
    """(K,) the scores of a row's answers; None = the reward could not say."""
    return [response.score for response in row.responses]


def with_advantages(row: Row, advantages: Sequence[float]) -> Row:
    """The row with an answer's advantage on each of its tokens, as the field "advantages"."""
    return row.with_responses(
        [r.with_field("advantages", [a] * len(r.tokens)) for r, a in zip(row.responses, advantages, strict=True)]
    )


def without_truncated(rows: Sequence[Row], ctx: CollectContext) -> list[Row]:
    """Answers that were cut at the limit count in no loss. A row of which nothing is left goes, and is counted."""
    made = [row.with_responses([r if r.finished else _masked(r) for r in row.responses]) for row in rows]
    kept = [row for row in made if any(r.finished for r in row.responses)]
    if len(kept) < len(rows):
        ctx.note(f"{len(rows) - len(kept)} of {len(rows)} prompts are left out: all their answers were cut at the limit.")
    return kept


def report(rows: Sequence[Row], ctx: CollectContext) -> None:
    """Log what the answers are like, beside what `log_scores` says of their scores; say so where they teach nothing.

    reward, reward_std: mean and deviation (n - 1) of all scores; completions/mean_length (tokens), /clipped_ratio, and
    /mean_terminated_length of those that ended. The names are those of TRL's trainers.
    """
    log_scores(ctx, rows)
    responses = [r for row in rows for r in row.responses]
    scores = [r.score for r in responses if r.score is not None]
    ctx.log({"reward": _mean(scores), "reward_std": statistics.stdev(scores) if len(scores) > 1 else 0.0}, len(scores))
    lengths, cut = [len(r.tokens) for r in responses], [not r.finished for r in responses]
    ctx.log({"completions/mean_length": _mean(lengths), "completions/clipped_ratio": _mean(cut)}, len(responses))
    ended = [len(r.tokens) for r in responses if r.finished]
    ctx.log({"completions/mean_terminated_length": _mean(ended)}, len(ended))
    flat = [len({r.score for r in row.responses if r.score is not None}) < 2 for row in rows]
    if sum(flat) > len(rows) / 2:
        ctx.note(
            f"{sum(flat)} of {len(rows)} prompts teach nothing: all their answers score the same. More objective.samples, a "
            "higher generation.temperature or a reward with finer steps helps."
        )


def report_kl(rows: Sequence[Row], ctx: CollectContext) -> list[list[float]]:
    """Log objective/kl, nats of a whole answer, the mean over answers that count; returns each answer's, token by token."""
    kls = [token_kls(r) for row in rows for r in row.responses if any(r.mask)]
    ctx.log({"objective/kl": _mean([sum(answer) for answer in kls])}, len(kls))
    return kls


def token_kls(response: Response) -> list[float]:
    """log pi_old - log ref of each token that counts."""
    fields = response.token_fields
    triples = zip(fields["old_logps"], fields["ref_logps"], response.mask, strict=True)
    return [old - ref for old, ref, counts in triples if counts]


def _masked(response: Response) -> Response:
    return dataclasses.replace(response, mask=[False] * len(response.tokens))


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0
