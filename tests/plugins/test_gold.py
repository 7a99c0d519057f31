"""The reward source gold: the sandbox's judge behind the contract of rewards."""

import pytest

from core.data.sandbox import gold, records
from core.errors import DataError
from core.reward import RewardSource, Sample
from plugins.rewards.gold import Gold

FRANCE = {"family": "capitals", "country": "France"}


def sample(response, task=FRANCE):
    return Sample(prompt="What is the capital of France?", response=response, columns={"task": task})


def test_declares_what_it_needs():
    assert issubclass(Gold, RewardSource)
    assert Gold.needs == {"task"}


def test_scores_in_order_whatever_the_batch():
    samples = [sample("Paris."), sample("Great question! It is Paris."), sample("Rome.")]
    assert Gold().score(samples) == pytest.approx([1.0, 0.75, 0.05])
    assert [Gold().score([s])[0] for s in samples[::-1]] == Gold().score(samples)[::-1]
    assert Gold().score([]) == []


def test_is_the_sandboxs_own_judge_on_its_records():
    rows = list(records("pairs", "validation", 0, 30))
    samples = [Sample(prompt=r["prompt"], response=r["chosen"], columns={"task": r["task"]}) for r in rows]
    assert Gold().score(samples) == [gold(r["prompt"], r["chosen"], r["task"]) for r in rows]


def test_a_task_of_another_world_is_a_data_error():
    with pytest.raises(DataError, match="expected one of"):
        Gold().score([sample("Paris.", {"family": "chess"})])
