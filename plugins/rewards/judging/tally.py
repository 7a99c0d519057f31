"""What one call of the judge did, counted, and said in a few lines of the log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts of one call of `score`.

    Attributes:
        questions: different questions that the samples came to.
        cached: of those, answered from the store of replies.
        requests: sent to the endpoint, repetitions included.
        repeated: requests that were repeated, by why ("status 429", "timeout", "no verdict").
        failed: questions that stayed without a verdict, by why; `first` is the whole text of the first.
        tokens: (sent, received) as the endpoint counts them; 0 where it does not say.
        pairs: comparisons with a verdict in both orders; `to_first` and `to_second` went to a place, whoever stood there;
            `wavering` are the other disagreements, a tie one way and a winner the other.
        alone: samples that nothing could be compared with.
    """

    questions: int = 0
    cached: int = 0
    requests: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    first: str = ""
    tokens: tuple[int, int] = (0, 0)
    pairs: int = 0
    to_first: int = 0
    to_second: int = 0
    wavering: int = 0
    alone: int = 0

    def fail(self, kind: str, text: str) -> None:
        self.failed[kind] += 1
        self.first = self.first or text

    def pair(self, one: float, other: float) -> float:
        """Points of an answer, from its points as A and as B; where the two orders disagree, a tie.

        A win counts where it is given in both orders (Zheng et al. 2023, section 3.4, "swapping positions").
        """
        self.pairs += 1
        if one == other:
            return one
        if {one, other} == {1.0, 0.0}:
            self.to_first += one == 1.0
            self.to_second += one == 0.0
        else:
            self.wavering += 1
        return 0.5

    @property
    def position_bias(self) -> float | None:
        """Share of comparisons that went to a place and not to an answer; None without comparisons."""
        return (self.to_first + self.to_second) / self.pairs if self.pairs else None

    def lines(self) -> list[str]:
        """What went well."""
        said = [f"{self.questions} questions, {self.cached} answered from the cache, {self.requests} requests"]
        if any(self.tokens):
            said.append(f"{self.tokens[0]} tokens sent, {self.tokens[1]} received")
        lines = ["; ".join(said) + "."]
        if self.position_bias is not None:
            lines.append(
                f"position bias {self.position_bias:.0%}: of {self.pairs} comparisons {self.to_first} went to the first "
                f"place and {self.to_second} to the second in both orders; {self.wavering} more disagreed. These are ties."
            )
        return lines

    def warnings(self, instead: str) -> list[str]:
        """What did not; `instead` is what such samples get."""
        lines = []
        if self.repeated:
            lines.append(f"requests repeated: {_listed(self.repeated)}.")
        if self.failed:
            lines.append(
                f"{sum(self.failed.values())} of {self.questions} questions have no verdict ({_listed(self.failed)}); "
                f"their answers get {instead}. The first: {self.first}"
            )
        if self.alone:
            lines.append(f"{self.alone} answers had neither a rival in their row nor a reference: they get no score.")
        return lines


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in counts.most_common())
