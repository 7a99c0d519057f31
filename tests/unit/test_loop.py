"""The schedule by hand, and the loader that collects lazily."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from core import loop as loop_file
from core.collect import ModelContext
from core.errors import CheckpointError, CollectionError, ConfigError, DataError
from core.loop import (
    Cut,
    Schedule,
    Shard,
    StepLoader,
    Surroundings,
    ValidationSteps,
    gather,
    interleaved,
    rollout_line,
    step_batch,
)
from core.models import Models
from core.objective import Objective
from core.processes import from_all_processes
from core.rows import Response, Row
from core.settings import Generation
from tests.support import random_rows, tiny_model, tiny_tokenizer


def schedule(**changes: int) -> Schedule:
    return Schedule(**{"rows": 10, "rows_per_epoch": 10, "batch_size": 4, "epochs": 2, "seed": 3, **changes})


# -- the schedule ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "steps_per_epoch", "total"),
    [
        ({}, 3, 6),  # 10 rows in steps of 4: 3 steps
        ({"rows_per_epoch": 8}, 2, 4),
        ({"passes": 2}, 6, 12),
        ({"max_steps": 5}, 3, 5),
        ({"max_steps": 50}, 3, 6),
        ({"epochs": -1, "max_steps": 50}, 3, 50),
        ({"batch_size": 10}, 1, 2),
    ],
)
def test_steps(changes: dict[str, int], steps_per_epoch: int, total: int) -> None:
    s = schedule(**changes)
    assert (s.steps_per_epoch, s.total_steps) == (steps_per_epoch, total)


def test_each_epoch_walks_over_every_row_once_in_another_order() -> None:
    s = schedule()
    first, second = s.rows_of(0), s.rows_of(1)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_a_part_of_the_rows_an_epoch_comes_from_an_endless_stream() -> None:
    """10 rows, 4 an epoch: five epochs see each row twice, and no row a third time before all have come twice."""
    s = schedule(rows_per_epoch=4)
    seen = [i for epoch in range(5) for i in s.rows_of(epoch)]
    assert Counter(seen) == dict.fromkeys(range(10), 2)
    assert sorted(seen[:10]) == list(range(10))
    assert len(s.rows_of(0)) == 4


def test_steps_of_a_pass_share_out_the_collected_rows() -> None:
    """10 rows over 3 steps: 3, 3 and 4 of them, each row once."""
    s = schedule()
    steps = [s.rows_of_step(i, 10) for i in range(3)]
    assert [len(step) for step in steps] == [3, 3, 4]
    assert sorted(i for step in steps for i in step) == list(range(10))


def test_more_or_fewer_collected_rows_than_read() -> None:
    s = schedule()
    assert [len(s.rows_of_step(i, 20)) for i in range(3)] == [6, 7, 7]
    assert sorted(i for step in range(3) for i in s.rows_of_step(step, 20)) == list(range(20))
    # Two rows for three steps: gone round, every step has one.
    steps = [s.rows_of_step(i, 2) for i in range(3)]
    assert [len(step) for step in steps] == [1, 1, 1]
    assert {i for step in steps for i in step} == {0, 1}


def test_every_pass_has_an_order_of_its_own() -> None:
    s = schedule(passes=2)
    first = [i for step in range(3) for i in s.rows_of_step(step, 10)]
    second = [i for step in range(3, 6) for i in s.rows_of_step(step, 10)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert [s.epoch_of(step) for step in (0, 5, 6)] == [0, 0, 1]


def test_order_depends_on_seed_and_step_alone() -> None:
    asked_in_order = [schedule().rows_of_step(i, 10) for i in range(6)]
    backwards = schedule()
    assert [backwards.rows_of_step(i, 10) for i in reversed(range(6))] == asked_in_order[::-1]
    assert [schedule(seed=4).rows_of_step(i, 10) for i in range(6)] != asked_in_order
    # A longer run begins like a shorter one.
    assert [schedule(epochs=9).rows_of_step(i, 10) for i in range(6)] == asked_in_order


# -- steps and shards -----------------------------------------------------------------------------------------------


def cut(**changes: object) -> Cut:
    return Cut(**{"layout": "packed", "microbatch_tokens": 10_000, "mean_over": "tokens", **changes})  # type: ignore[arg-type]


def test_shards_partition_a_step_and_count_the_whole() -> None:
    rows = random_rows(7, 2, 5)
    tokens = sum(sum(r.mask) for row in rows for r in row.responses)
    shards = [step_batch(rows, 0, 0, cut(), Shard(rank, 3)) for rank in range(3)]
    assert sorted(i for s in shards for b in s.micro for i in b.ids) == sorted(row.id for row in rows)
    assert [s.count for s in shards] == [tokens] * 3
    assert [s.ids for s in shards] == [tuple(row.id for row in rows)] * 3
    assert sum(b.count("tokens") for s in shards for b in s.micro) == tokens


@pytest.mark.parametrize(("over", "count"), [("rows", 7), ("responses", 14)])
def test_count_is_of_what_the_objective_means_over(over: str, count: int) -> None:
    assert step_batch(random_rows(7, 2, 5), 0, 0, cut(mean_over=over)).count == count


def test_micro_batches_keep_to_the_budget_and_lose_no_row() -> None:
    rows = random_rows(20, 1, 5)
    step = step_batch(rows, 0, 0, cut(microbatch_tokens=30))
    assert len(step.micro) > 3
    assert all(b.plan.input_ids.numel() <= 30 for b in step.micro)
    assert sorted(i for b in step.micro for i in b.ids) == sorted(row.id for row in rows)
    one = step_batch(rows, 0, 0, cut(microbatch_tokens=1))
    assert [len(b.ids) for b in one.micro] == [1] * 20


def test_a_step_with_fewer_rows_than_processes_says_so() -> None:
    """Said by each of them: one that went on alone would wait for the others' gradients."""
    for rank in range(3):
        with pytest.raises(ConfigError, match="2 rows for 3 processes"):
            step_batch(random_rows(2, 1), 0, 0, cut(), Shard(rank, 3))


def test_interleaved_gives_back_the_order_of_one_process() -> None:
    """Six rows over two processes; one gave no pair, one gave two."""
    rows = {name: Row(name, [1]) for name in "abcdef"}
    made = [[rows["a"], rows["e"], rows["e"]], [rows["b"], rows["d"], rows["f"]]]  # of a, c, e and of b, d, f
    assert [row.id for row in interleaved(made, "abcdef")] == ["a", "b", "d", "e", "e", "f"]


def test_interleaved_keeps_rows_with_ids_of_their_own() -> None:
    new = Row("new", [1])
    assert [row.id for row in interleaved([[Row("a", [1]), new], [Row("b", [1])]], "ab")] == ["a", "b", "new"]


# -- the loader -----------------------------------------------------------------------------------------------------


class Scripted(Objective):
    """Collects as told, and notes when; never trained."""

    def __init__(self, collects: str, keep: int | None = None) -> None:
        self.collects = collects  # type: ignore[assignment]
        self.keep = keep
        self.calls: list[tuple[int, list[str]]] = []

    def collect(self, rows, ctx):
        self.calls.append((ctx.epoch, [row.id for row in rows]))
        made = [replace(row, prompt_text=f"epoch {ctx.epoch}") for row in rows]
        return made if self.keep is None else made[: self.keep]

    def loss(self, models, batch):
        raise NotImplementedError


@pytest.fixture(scope="module")
def context() -> ModelContext:
    models = Models({"policy": tiny_model()}, trains=frozenset({"policy"}), layout="padded")
    return ModelContext(models, tiny_tokenizer(), generation=Generation(), reward=None, seed=3, microbatch_tokens=10_000)


class Clock:
    """How many steps are done."""

    done = 0

    def __call__(self) -> int:
        return self.done


def loader(objective: Objective, context: ModelContext, folder: Path | None = None, **changes: int):
    clock = Clock()
    made = StepLoader(objective, random_rows(10, 1, 1), schedule(**changes), context, Surroundings(clock, folder))
    return made, clock


def test_never_collects_nothing(context: ModelContext) -> None:
    objective = Scripted("never")
    steps, _ = loader(objective, context)
    assert len(list(steps)) == len(steps) == 6
    assert objective.calls == []
    assert steps.collections == 0


def test_once_collects_all_rows_before_the_first_step(context: ModelContext) -> None:
    objective = Scripted("once")
    steps, _ = loader(objective, context, rows_per_epoch=4)
    list(steps)
    assert objective.calls == [(0, [f"row-{i}" for i in range(10)])]


def test_an_epoch_takes_the_same_share_where_a_collection_left_rows_out(context: ModelContext) -> None:
    """4 of 10 rows an epoch; of the 5 that are left 2 an epoch, each as often as the others."""
    steps, _ = loader(Scripted("once", keep=5), context, rows_per_epoch=4, epochs=5)
    seen = [step.ids for step in steps]
    assert [len(ids) for ids in seen] == [2] * 5
    assert Counter(i for ids in seen for i in ids) == {f"row-{i}": 2 for i in range(5)}


def test_every_epoch_collects_its_own_rows_exactly_once(context: ModelContext, tmp_path: Path) -> None:
    objective = Scripted("every_epoch")
    steps, _ = loader(objective, context, tmp_path, rows_per_epoch=5, epochs=4)
    seen = [step.ids for step in steps]
    assert [epoch for epoch, _ in objective.calls] == [0, 1, 2, 3]
    assert Counter(i for _, ids in objective.calls for i in ids) == {f"row-{i}": 2 for i in range(10)}
    assert Counter(i for ids in seen for i in ids) == {f"row-{i}": 2 for i in range(10)}


def test_collection_waits_until_its_first_step_is_asked_for(context: ModelContext) -> None:
    """So it sees the weights after the step before it; nothing is fetched ahead."""
    objective = Scripted("every_epoch")
    steps, _ = loader(objective, context)
    walk = iter(steps)
    assert objective.calls == []
    for _ in range(3):
        next(walk)
    assert len(objective.calls) == 1
    next(walk)
    assert len(objective.calls) == 2


def test_rollouts_are_on_disk_before_anything_trains_on_them(context: ModelContext, tmp_path: Path) -> None:
    steps, _ = loader(Scripted("every_epoch"), context, tmp_path / "rollouts")
    next(iter(steps))
    *rows, end = (tmp_path / "rollouts" / "epoch_000.jsonl").read_text().splitlines()
    assert json.loads(end) == {"rows": 10}
    assert {json.loads(line)["prompt_text"] for line in rows} == {"epoch 0"}


def test_resumed_loader_goes_on_where_the_other_stopped(context: ModelContext, tmp_path: Path) -> None:
    whole = [step.ids for step in loader(Scripted("every_epoch"), context, tmp_path / "a")[0]]
    list(loader(Scripted("every_epoch"), context, tmp_path / "b")[0])
    objective = Scripted("every_epoch")
    steps, clock = loader(objective, context, tmp_path / "b")
    clock.done = 4
    assert len(steps) == 2
    assert [step.index for step in steps] == [4, 5]
    assert [step.ids for step in steps] == whole[4:]
    assert objective.calls == []


def test_mid_epoch_without_rollouts_is_an_error(context: ModelContext, tmp_path: Path) -> None:
    steps, clock = loader(Scripted("every_epoch"), context, tmp_path)
    clock.done = 4
    with pytest.raises(CheckpointError, match="Remove the checkpoints after step 3"):
        next(iter(steps))


def test_collection_that_gives_nothing_is_an_error(context: ModelContext) -> None:
    steps, _ = loader(Scripted("every_epoch", keep=0), context)
    with pytest.raises(CollectionError, match="collection 0 of 10 rows gave nothing"):
        next(iter(steps))


def test_small_collection_still_fills_every_step(context: ModelContext) -> None:
    steps, _ = loader(Scripted("every_epoch", keep=2), context, epochs=1)
    assert [len(step.ids) for step in steps] == [1, 1, 1]


# -- what a collection leaves behind ----------------------------------------------------------------------------------


class Keeping(Scripted):
    """Keeps how many collections it has made, and logs; may be left in the middle of one."""

    def __init__(self, collects: str = "every_epoch", leave_at: int = -1) -> None:
        super().__init__(collects)
        self.made, self.leave_at = 0, leave_at

    def collect(self, rows, ctx):
        self.made += 1
        ctx.log({"objective/kl": float(ctx.epoch)}, len(rows))
        if ctx.epoch == self.leave_at:
            raise SystemExit(143)
        return super().collect(rows, ctx)

    def state_dict(self):
        return {"made": self.made}

    def load_state_dict(self, state):
        self.made = int(state.get("made", 0))


def recorded(objective: Objective, context: ModelContext, **changes: int) -> tuple[StepLoader, list[tuple[dict, int]]]:
    """A loader, and what it hands out to be recorded."""
    told: list[tuple[dict, int]] = []
    around = Surroundings(Clock(), record=lambda metrics, step: told.append((dict(metrics), step)))
    return StepLoader(objective, random_rows(10, 1, 1), schedule(**changes), context, around), told


def test_metrics_of_a_collection_stand_with_the_step_that_follows(context: ModelContext) -> None:
    """3 steps an epoch: the collections precede steps 1 and 4."""
    steps, told = recorded(Keeping(), context)
    list(steps)
    assert told == [({"objective/kl": 0.0}, 1), ({"objective/kl": 1.0}, 4)]
    assert context.logged() == {}


def test_a_collection_that_logs_nothing_records_nothing(context: ModelContext) -> None:
    steps, told = recorded(Scripted("every_epoch"), context)
    list(steps)
    assert told == []


def test_logged_metrics_of_all_processes_are_one_mean(context: ModelContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours: 1 over 10 rows; the other's: 4 over 5; a third had none. (10 + 20) / 15 = 2."""
    steps, told = recorded(Keeping(), context, epochs=2)
    steps.context.start_epoch(1)
    others = {"objective/kl": (20.0, 5)}
    monkeypatch.setattr(loop_file, "from_all_processes", lambda given: [given, others, {}])
    steps.context.log({"objective/kl": 1.0}, 10)
    steps._close_collection([], 1)
    assert told == [({"objective/kl": 2.0}, 4)]


def test_a_collection_that_is_left_leaves_no_trace(context: ModelContext, tmp_path: Path) -> None:
    """Neither in the objective's state nor as a file: a checkpoint written now is that of the border."""
    objective = Keeping(leave_at=1)
    steps = StepLoader(objective, random_rows(10, 1, 1), schedule(), context, Surroundings(Clock(), tmp_path))
    walk = iter(steps)
    for _ in range(3):
        next(walk)
    with pytest.raises(SystemExit):
        next(walk)
    assert objective.made == 1
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_000.jsonl"]


class Answering(Scripted):
    """Collects one answer of two tokens to each prompt, with a text and a field of its own."""

    def __init__(self, text: str = "yes", number: float = 0.5) -> None:
        super().__init__("every_epoch")
        self.answer = Response([5, 6], [True, True], text, token_fields={"advantages": [0.25, number]})

    def collect(self, rows, ctx):
        return [row.with_responses([self.answer]) for row in rows]


@pytest.mark.parametrize("text", ["Öl 好", "a\u2028b\x85c\x0bd\ne", "half \ud83d"], ids=["words", "line ends", "surrogate"])
def test_rollouts_come_back_whatever_the_text(context: ModelContext, tmp_path: Path, text: str) -> None:
    """Only a line feed ends a line of the file; letters stand in it as they are."""
    first, _ = loader(Answering(text), context, tmp_path)
    made = list(first.collected(0))
    again, clock = loader(Scripted("every_epoch"), context, tmp_path)
    clock.done = 1
    assert again.collected(0) == made
    if text.isprintable():
        assert text in (tmp_path / "epoch_000.jsonl").read_text(encoding="utf-8")


def test_a_line_of_rollouts_begins_with_what_a_person_reads_and_leaves_the_usual_out() -> None:
    """docs/run-folder.md, "rollouts"."""
    whole = Response([5, 6], [True, True], "yes", score=0.5, token_fields={"values": [1.0, 2.0]})
    cut_off = Response([7, 8], [True, False], "no", finished=False)
    row = Row("p1", [1, 2], (whole, cut_off), prompt_text="Well?")
    line = json.loads(rollout_line(row, 0))
    assert list(line) == ["id", "prompt_text", "responses", "prompt"]
    assert line["responses"] == [
        {"text": "yes", "score": 0.5, "tokens": [5, 6], "token_fields": {"values": [1.0, 2.0]}},
        {"text": "no", "finished": False, "tokens": [7, 8], "mask": [True, False]},
    ]
    assert list(line["responses"][0])[:2] == ["text", "score"]
    assert Row.from_json(line) == row


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_ends_the_collection(context: ModelContext, tmp_path: Path, number: float) -> None:
    steps, _ = loader(Answering(number=number), context, tmp_path)
    with pytest.raises(CollectionError, match=r'collection 0: "advantages" of the row row-\d is not finite'):
        next(iter(steps))
    assert list(tmp_path.iterdir()) == []


def test_what_is_collected_once_counts_once_however_often_a_run_is_resumed(context: ModelContext) -> None:
    objective = Keeping("once")
    steps, _ = recorded(objective, context)
    objective.load_state_dict({"made": 1})  # a checkpoint's
    list(steps)
    assert objective.made == 1


@pytest.mark.parametrize(("on_policy", "checks"), [(True, 1), (False, 0)])
def test_the_sampler_is_checked_at_the_first_collection_alone(
    context: ModelContext, monkeypatch: pytest.MonkeyPatch, on_policy: bool, checks: int
) -> None:
    seen = []
    monkeypatch.setattr(context, "check_sampler", seen.append)
    objective = Scripted("every_epoch")
    objective.on_policy = on_policy  # type: ignore[misc]
    steps, _ = recorded(objective, context)
    list(steps)
    assert len(seen) == checks
    assert [len(rows) for rows in seen] == [10] * checks


# -- validation -----------------------------------------------------------------------------------------------------


def test_validation_steps_cover_the_rows_in_order(context: ModelContext) -> None:
    rows = random_rows(5, 1, 1)
    steps = ValidationSteps(Scripted("never"), rows, context, 2)
    assert len(steps) == 3
    assert [step.ids for step in steps] == [("row-0", "row-1"), ("row-2", "row-3"), ("row-4",)]


def test_validation_collects_once_however_often_it_is_walked(context: ModelContext) -> None:
    objective = Scripted("once")
    steps = ValidationSteps(objective, random_rows(5, 1, 1), context, 2)
    list(steps)
    list(steps)
    assert len(objective.calls) == 1


def test_validation_waits_for_what_is_collected_once(context: ModelContext) -> None:
    """A reward that remembers the training rows labels those of validation by it, first or not."""
    objective = Scripted("once")
    steps, _ = loader(objective, context, rows_per_epoch=4)
    validation = ValidationSteps(objective, random_rows(5, 1, 1), context, 2, steps.prepare)
    list(validation)
    assert [len(ids) for _, ids in objective.calls] == [10, 5]
    list(steps)
    list(validation)
    assert steps.collections == 1
    assert len(objective.calls) == 2


@pytest.mark.parametrize("collects", ["every_epoch", "never"])
def test_validation_without_rows_is_one_empty_step(context: ModelContext, collects: str) -> None:
    rows = random_rows(5, 1, 1) if collects == "every_epoch" else []
    steps = ValidationSteps(Scripted(collects), rows, context, 2)
    assert len(steps) == 1
    assert [step.micro for step in steps] == [()]


def test_a_users_error_in_one_process_is_every_ones(monkeypatch):
    """The others would wait for its rows for ever."""
    error = DataError("pairs.jsonl:7:margin: is missing.", "Give it one.")
    monkeypatch.setattr("core.processes._gathered", lambda mine: [mine, error])
    with pytest.raises(DataError, match="7:margin"):
        gather(random_rows(2, 2), ["a", "b"])


def test_an_error_that_all_processes_know_is_raised_at_once(context: ModelContext, monkeypatch) -> None:
    """It came while an objective asked the others for something: who then waited for their rows would wait for ever."""
    asked = []

    class Asking(Scripted):
        def collect(self, rows, ctx):
            return from_all_processes(list(rows))[0]

    def gathered(mine):
        asked.append(mine)
        return [mine, DataError("judge: no answer.")]

    monkeypatch.setattr("core.processes._gathered", gathered)
    around = Surroundings(start=lambda: 0, shard=lambda: Shard(0, 2))
    steps = StepLoader(Asking("every_epoch"), random_rows(4, 1), Schedule(4, 4, 2, 1), context, around)
    with pytest.raises(DataError, match="no answer"):
        next(iter(steps))
    assert len(asked) == 1
