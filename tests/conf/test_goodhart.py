"""experiment=goodhart: one command, with the reward of one's choice, wherever it stands on the command line."""

import pytest

from core import registry
from core.compose import compose
from core.crosscheck import check_composed


def checked(*overrides):
    found = compose(list(overrides))
    check_composed(found)
    return found.config


@pytest.mark.parametrize("form", ["experiment=goodhart", "+experiment=goodhart"])
def test_alone_it_presses_the_pocket_reward_model(form):
    config = checked(form)
    assert config["objective"]["name"] == "ppo"
    assert config["objective"]["kl_coef"] == 0.0
    assert (config["reward"]["name"], config["reward"]["path"]) == ("learned", "pocket")
    assert config["eval"]["rewards"] == ["gold"]


@pytest.mark.parametrize(
    "overrides",
    [
        ("+experiment=goodhart", "reward=length", "reward.unit=words"),
        ("reward=length", "reward.unit=words", "+experiment=goodhart"),
        ("reward.unit=words", "+experiment=goodhart", "reward=length"),
    ],
)
def test_another_reward_takes_its_place_in_any_order(overrides):
    config = checked(*overrides)
    assert config["reward"] == {"name": "length", "unit": "words", "target": None, "scale": 1.0, "max": None}
    assert config["optim"]["schedule"] == "constant"


def test_its_validations_are_enough_for_a_curve():
    config = checked("experiment=goodhart")
    assert config["trainer"]["max_steps"] / config["eval"]["every"] >= 10
    rows = config["data"]
    assert config["eval"]["prompts"] <= rows["validation_rows"]
    # One pass over the rows is enough for its steps: none is answered twice.
    assert rows["train_rows"] * registry.build_objective(config["objective"]).passes >= 320 * rows["batch_size"]


def test_reward_pocket_is_learned_with_a_path_and_takes_its_options():
    plain = checked("objective=dpo", "reward=learned", "reward.path=pocket")["reward"]
    assert checked("objective=dpo", "reward=pocket")["reward"] == plain
    config = checked("objective=dpo", "reward=pocket", "reward.path=[pocket,pocket]", "reward.reduce=min")
    assert config["reward"]["path"] == ["pocket", "pocket"]
