"""Experiments are what their names say."""

import pytest
import yaml

from core import registry
from core.compose import compose
from core.crosscheck import check_composed
from tests.packages import ROOT

# What differs from the objective's own file.
DIFFERS = {
    "reinforce": ("ppo", "gold", {"clip_range": None, "value": False, "passes": 1, "minibatches": 1}),
}


@pytest.mark.parametrize("form", ["experiment=", "+experiment="])
@pytest.mark.parametrize("name", DIFFERS)
def test_an_experiment_is_its_objective_but_for_what_it_says(name, form):
    objective, reward, changed = DIFFERS[name]
    config = compose([f"{form}{name}"]).config
    check_composed(compose([f"{form}{name}"]))
    plain = yaml.safe_load((ROOT / "conf" / "objective" / f"{objective}.yaml").read_text())
    assert config["objective"] == plain | changed
    assert config["reward"]["name"] == reward
    assert config["run"]["tags"] == [name, reward]


def test_reinforce_trains_the_policy_alone_without_a_second_pass():
    built = registry.build_objective(compose(["experiment=reinforce"]).config["objective"])
    assert built.trains == {"policy"}
    assert (built.passes, built.minibatches, built.clip_low) == (1, 1, None)
    assert built.lam == 1.0  # the rewards to come


def test_an_experiment_may_be_changed_from_the_command_line():
    config = compose(["experiment=reinforce", "reward=length", "objective.samples=4"]).config
    assert (config["reward"]["name"], config["objective"]["samples"]) == ("length", 4)
