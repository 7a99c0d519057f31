"""Whole small runs for the reliability tests: started, stopped by a real signal, resumed, and compared.

A trial is `core.train.fit` of a tiny model. What a test compares are the files it leaves and the rows it trained on.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch

import core.train
from core.build import Run
from core.checkpoint import checkpoints_in
from core.registry import build_part
from core.reward import RewardSource, Sample
from core.runfolder import RunFolder, read_jsonl
from core.train import fit
from plugins.objectives.dpo import DPO
from plugins.objectives.ppo import PPO
from plugins.objectives.rejection_sampling import RejectionSampling
from plugins.objectives.reward_bt import RewardBT
from plugins.objectives.sft import SFT
from tests.support import random_rows, tiny_run


class TokenSum(RewardSource):
    """The sum of the token ids: a reward that nearly never ties."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def score(self, samples: list[Sample]) -> list[float]:
        return [self.scale * sum(s.tokens) for s in samples]


@dataclass(frozen=True)
class Kind:
    """An objective with what it needs."""

    make: Callable[[], Any]
    responses: int = 2
    reward: Callable[[], RewardSource] | None = None
    settings: dict[str, Any] = field(default_factory=dict)


# 18 rows in steps of 4 are 5 steps an epoch; the sampled kind collects from 9 prompts, 3 steps an epoch.
KINDS = {
    "sft": Kind(SFT, responses=1),
    "dpo_cached": Kind(DPO),
    "dpo_live": Kind(lambda: DPO(reference="live")),
    "dpo_relabelled": Kind(lambda: DPO(pairs="relabelled"), reward=TokenSum),
    "dpo_sampled": Kind(lambda: DPO(samples=3), reward=TokenSum, settings={"data": {"rows_per_epoch": 9}}),
    "reward_bt": Kind(lambda: RewardBT(zero="samples"), responses=3),
}

# Online objectives with a state of their own. ppo: 9 prompts in steps of 5, twice over: 4 steps an epoch, 8 in all,
# checkpoints after 3, 6 and 8; the KL coefficient adapts, and step 4 is left out (target_kl). rejection_sampling: 3 steps
# an epoch, 9 in all; the prompts of its last epoch have come before, and the best answers so far compete. Checkpoints
# after 4, 8 and 9.
ONLINE = {
    "ppo": Kind(
        lambda: PPO(
            kl_control="adaptive", kl_horizon=40, kl_target=0.1, samples=2, passes=2, missing_eos_penalty=1.0, target_kl=0.8
        ),
        reward=lambda: TokenSum(scale=0.01),
        settings={"data": {"rows_per_epoch": 9, "batch_size": 5}, "eval": {"every": 3}},
    ),
    "rejection_sampling": Kind(
        lambda: RejectionSampling(samples=3),
        reward=TokenSum,
        settings={"data": {"rows_per_epoch": 9}, "trainer": {"max_epochs": 3}},
    ),
}


# Every step but the first of a collection is left out: what one process leaves out, all must.
LEAVING = {
    "ppo_leaving": Kind(
        lambda: PPO(target_kl=1e-8, passes=2),
        reward=lambda: TokenSum(scale=0.01),
        settings={"data": {"rows_per_epoch": 9, "batch_size": 5}, "trainer": {"max_epochs": 1}},
    )
}


def token_sum(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """The sum of the token ids, as a function that `reward=function` can name."""
    return [float(sum(ids)) for ids in completion_ids]


def first_token(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """The first token id."""
    return [float(ids[0]) for ids in completion_ids]


def remembering() -> RewardSource:
    """A reward that remembers collections; how it orders two answers depends on the deviation it has seen so far."""
    of, other = ({"name": "function", "path": f"tests.trials:{name}"} for name in ("token_sum", "first_token"))
    parts = {"sum": {"name": "normalised", "of": of}, "first": {"weight": 0.05, **other}}
    return build_part({"name": "weighted", "parts": parts}, "test")


# Beside the others: their rewards remember collections.
REMEMBERING = {
    "sampled_remembering": Kind(
        lambda: DPO(samples=3), reward=remembering, settings={"data": {"rows_per_epoch": 9}, "trainer": {"max_epochs": 3}}
    ),
    "relabelled_remembering": Kind(lambda: DPO(pairs="relabelled"), reward=remembering),
}


class Probe(L.Callback):
    """Notes the rows of each step; sends this process a signal while step `stop` (from 1) is computed."""

    def __init__(self, stop: int | None = None, signum: int = signal.SIGTERM) -> None:
        self.stop, self.signum = stop, signum
        self.rows: dict[int, tuple[str, ...]] = {}

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.rows[batch.index] = batch.ids
        if self.stop is not None and batch.index + 1 == self.stop:
            os.kill(os.getpid(), self.signum)


@dataclass(frozen=True)
class Trial:
    """A run that has ended.

    Attributes:
        run: its parts; `run.models` has the weights as they were at the end.
        rows: ids of the rows of each step that this process trained on.
        exit: the exit status that a signal asked for; 0 where the run came to its end.
    """

    run: Run
    rows: dict[int, tuple[str, ...]]
    exit: int

    @property
    def path(self) -> Path:
        return self.run.folder.path


def built(path: Path, kind: str, *, resume: bool = False, folder: RunFolder | None = None, **changes: Any) -> Run:
    """A run of a kind, new or in the folder of an earlier one (or in a folder that is given)."""
    k = (KINDS | ONLINE | LEAVING | REMEMBERING)[kind]
    merged = {key: {**k.settings.get(key, {}), **changes.get(key, {})} for key in k.settings.keys() | changes.keys()}
    return tiny_run(
        path,
        k.make(),
        random_rows(18, k.responses, 1),
        random_rows(6, k.responses, 2),
        reward=k.reward() if k.reward else None,
        folder=folder or (RunFolder.reopen(path) if resume else None),
        **merged,
    )


def fitted(run: Run, stop: int | None = None, *callbacks: L.Callback) -> Trial:
    """Fit; with `stop`, a SIGTERM comes during that step. Extra callbacks go before the built-in ones."""
    probe = Probe(stop)
    with watched(probe, *callbacks):
        try:
            fit(run)
            status = 0
        except SystemExit as error:
            status = int(error.code or 0)
    return Trial(run, probe.rows, status)


class watched:
    """Within it, every trainer that `core.train` makes has these callbacks too, first."""

    def __init__(self, *callbacks: L.Callback) -> None:
        self._callbacks = callbacks

    def __enter__(self) -> None:
        self._before = core.train.assemble

        def assemble(*args: Any, **kwargs: Any) -> Any:
            signals, trainer = self._before(*args, **kwargs)
            trainer.callbacks[:0] = self._callbacks
            return signals, trainer

        core.train.assemble = assemble  # type: ignore[assignment]

    def __exit__(self, *_: object) -> None:
        core.train.assemble = self._before


def trial(path: Path, kind: str, stop: int | None = None, *, resume: bool = False, **changes: Any) -> Trial:
    return fitted(built(path, kind, resume=resume, **changes), stop)


def metrics_of(path: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl without what a clock decides."""
    records = list(read_jsonl(path / "metrics.jsonl"))
    return [{k: v for k, v in r.items() if k != "time" and not k.startswith("speed/")} for r in records]


def files_of(path: Path, folder: str) -> dict[str, bytes]:
    """name -> content of the files of a folder."""
    return {p.name: p.read_bytes() for p in sorted((path / folder).glob("*")) if p.is_file()}


def last_checkpoint(path: Path) -> dict[str, Any]:
    return torch.load(checkpoints_in(path / "checkpoints")[-1], weights_only=True)


def assert_same(a: Any, b: Any, where: str = "checkpoint") -> None:
    """Two nested containers are equal, tensors bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), f"{where}: largest difference {(a - b).abs().max()}"
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def assert_equal_runs(a: Path, b: Path) -> None:
    """Weights, optimizer, schedule, metrics, samples and rollouts of two finished runs are equal."""
    one, other = last_checkpoint(a), last_checkpoint(b)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "accordant", "global_step"):
        assert_same(one[key], other[key], key)
    assert metrics_of(a) == metrics_of(b)
    assert files_of(a, "samples") == files_of(b, "samples")
    assert files_of(a, "rollouts") == files_of(b, "rollouts")


def finished(path: Path) -> dict[str, Any]:
    """run.json."""
    return json.loads((path / "run.json").read_text())  # type: ignore[no-any-return]
