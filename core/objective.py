"""The objective contract: collect, then loss.

`collect` makes the rows that an epoch trains on; `loss` turns a batch of them into a number. Offline
objectives inherit a `collect` that returns its input. Online ones sample from the policy and score.
An objective is a plugin of the entry-point group `accordant.objectives`; its config is its constructor.
It never sees Hydra or Lightning.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from core.rows import Row

if TYPE_CHECKING:  # torch is heavy: listing plugins and --help must not pay for it
    from torch import Tensor

    from core.batch import Batch
    from core.collect import CollectContext
    from core.models import Models

Role = Literal["policy", "reference", "value", "reward"]
Reads = Literal["prompts", "demonstrations", "pairs", "rankings"]
Collects = Literal["never", "once", "every_epoch"]
RewardUse = Literal["measured", "optional", "required", "refused"]
MeanOver = Literal["tokens", "responses", "rows"]


@dataclass(frozen=True)
class LossOutput:
    """What a loss returns.

    Attributes:
        loss: () the mean over `count` items of this batch, fp32, with its graph.
        count: how many items (see `Objective.mean_over`) that mean is over. The core turns means of micro-batches
            into one mean over the whole optimizer step, so equal set-ups give equal steps.
        metrics: names -> means over the same items, detached. Names stay the same from step to step.
        counts: of metrics that are means over other items (0: none here has it): names -> how many.
    """

    loss: Tensor
    count: int
    metrics: Mapping[str, Tensor | float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


class Objective(ABC):
    """One algorithm. Declarations say what it reads, trains and needs; the core does the rest.

    Declarations (class attributes; `bind` may set them on the instance where they depend on the run):
        api_version: the plugin contract this class was written for (core.API_VERSION).
        reads: the kind of row the data must give ("prompts" drops the responses of richer rows).
        trains: roles that get gradients, are saved in checkpoints and exported.
        frozen: roles that are evaluated only and never saved.
        collects: when `collect` runs: "never", "once" (before the first step) or "every_epoch".
        reward_use: "measured" (a composed reward is only reported), "optional" (learnt from if composed),
            "required", or "refused" (composing one is an error).
        generates: True where the policy answers prompts, so that validation samples and scores answers.
        minibatches: optimizer steps of one pass over a collection, of an objective that collects every epoch, where
            `data.rows_per_epoch` does not say how many rows are collected.
        passes: how often an epoch walks over what was collected, each time in a fresh order.
        mean_over: what the loss is a mean over; the core normalises by its count in the whole optimizer step.
        default_lr: the learning rate for a model of ordinary size, used where `optim.lr` is null.
        default_eps: Adam's epsilon, used where `optim.eps` is null.
        on_policy: True where the loss divides by the probability with which an answer was sampled. Then greedy answers
            are refused, top-k and top-p are warned about, and the sampler's log-probs are held against the scorer's.
        reads_ties: True where rows without any preference are wanted (else they are left out and counted).
        margins_may_miss: True where some rows may have a margin and others not.
        heads_by: a column by which a trained reward model has a head for each value ("group"); "" = one head.
    """

    api_version: ClassVar[int] = 1
    reads: Reads = "demonstrations"
    trains: frozenset[Role] = frozenset({"policy"})
    frozen: frozenset[Role] = frozenset()
    collects: Collects = "never"
    reward_use: RewardUse = "measured"
    generates: ClassVar[bool] = True
    minibatches: int = 16
    passes: int = 1
    mean_over: MeanOver = "tokens"
    default_lr: ClassVar[float] = 1e-5
    default_eps: ClassVar[float] = 1e-8
    on_policy: ClassVar[bool] = False
    reads_ties: bool = False
    margins_may_miss: bool = False
    heads_by: str = ""

    def bind(self, reward_name: str | None) -> str:
        """Called once, before models are built, with the composed reward's name (None: no reward).

        Decide here what depends on it. Returns a sentence for the first lines of the log ("" = nothing to say).
        """
        return ""

    def collect(self, rows: Sequence[Row], ctx: CollectContext) -> Sequence[Row]:
        """The rows that this epoch trains on. Returning none is an error (say why with ctx.note)."""
        return rows

    @abstractmethod
    def loss(self, models: Models, batch: Batch) -> LossOutput:
        """The loss of a batch. Called once for each micro-batch of an optimizer step."""

    def finish(self, models: Models, rows: Sequence[Row], ctx: CollectContext) -> str:
        """Called once, after the last step and before the models are exported, with the training rows.

        What a trained model still needs is done here, to it. Returns a sentence for the log ("" = nothing to say).
        """
        return ""

    def diagnose(self, metrics: Mapping[str, float]) -> str:
        """Look at a step's metrics; return advice in plain words ("" = all well). Logged once per text."""
        return ""

    def enough(self, metrics: Mapping[str, float]) -> bool:
        """Look at a step's metrics, over all processes, before its gradient is used.

        True leaves this step and the rest of the epoch's steps out: what was collected has been learnt from enough.
        """
        return False

    def state_dict(self) -> dict[str, Any]:
        """What `collect` has gathered over the epochs (an adapted coefficient, the best answers so far), a copy.

        Plain containers; it goes into checkpoints. Of a run on several processes it must be the same in each.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; also called with what a fresh objective gave."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps nothing, and got the state {sorted(state)}.")
