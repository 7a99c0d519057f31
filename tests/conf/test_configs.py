"""Every config composes, every key is known where it ends up, and YAML and constructors agree."""

import dataclasses
import itertools
import re
from pathlib import Path

import pytest
import yaml

from core import registry
from core.compose import compose
from core.crosscheck import check_composed, check_evaluate
from core.options import parameters
from core.testing import plugin_checks
from tests.packages import ROOT

CONF = ROOT / "conf"
# What an option needs before it can be used; the rest must compose as it is.
NEEDS = {
    "function": ["reward.path=os.path:basename"],
    "regex": ["reward.pattern=Paris"],
    "weighted": ["reward.parts={length: 1}"],
    "ensemble": ["reward.parts=[length, gold]"],
    "normalised": ["reward.of=length"],
    "piecewise": ["reward.safety=gold", "reward.helpfulness=length"],
    "judge": ["reward.base_url=http://localhost:8000/v1", "reward.model=m"],
    "jsonl": ["data.path=rows.jsonl"],
    "hub": ["data.path=org/name"],
    "hf": ["model.policy=org/name"],
    "sft_chat": ["data.path=rows.jsonl", "model.policy=org/name"],
}


def names(kind: str) -> list[str]:
    return [entry.name for entry in registry.entries(kind) if entry.distribution == "accordant"]


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def keys(group: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for name in options(group):
        found |= yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    return found


@pytest.mark.parametrize(("objective", "reward"), list(itertools.product(names("objective"), ["none", *names("reward")])))
def test_every_objective_composes_with_every_reward(objective, reward):
    overrides = [f"objective={objective}", f"reward={reward}", *NEEDS.get(reward, [])]
    found = compose(overrides)
    built = registry.build_objective(found.config["objective"])
    misfit = {"required": reward == "none", "refused": reward != "none"}.get(built.reward_use, False)
    if misfit:
        with pytest.raises(registry.PluginError.__mro__[1]):
            check_composed(found)
        return
    check_composed(found)
    assert (found.config["objective"]["name"], found.config["reward"]["name"]) == (objective, reward)


@pytest.mark.parametrize(
    ("group", "option"),
    [(g, o) for g in ("model", "data", "generation", "optim", "trainer", "experiment", "debug") for o in options(g)],
)
def test_every_option_composes(group, option):
    check_composed(compose([f"{group}={option}", *NEEDS.get(option, [])]))


@pytest.mark.parametrize("option", options("logger"))
def test_every_logger_composes_under_its_own_key(option):
    assert list(compose([f"logger=[{option}]"]).config["logger"]) == [option]


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in ("objective", "reward") for n in names(k)])
def test_yaml_is_the_constructor(kind, name):
    (check,) = [c for c in plugin_checks(kind, name) if c.name.startswith("its YAML")]
    check.run()


def test_yaml_that_is_not_the_constructor_is_found(tmp_path, monkeypatch):
    entry = registry.find("reward", "length")
    right = (CONF / "reward" / "length.yaml").read_text()
    (tmp_path / "reward").mkdir()
    monkeypatch.setattr(registry, "folder_of", lambda _: tmp_path)
    (check,) = [c for c in plugin_checks("reward", "length") if c.name.startswith("its YAML")]
    for wrong in (
        right.replace("scale: 1.0", "scale: 2.0"),
        right.replace("scale:", "skale:"),
        right.replace("name: length", "name: x"),
    ):
        (tmp_path / "reward" / "length.yaml").write_text(wrong)
        with pytest.raises(AssertionError):
            check.run()
    (tmp_path / "reward" / "length.yaml").write_text(right)
    check.run()
    assert entry.name in right


def test_data_keys_are_the_fields_of_data_config():
    from core.data.config import DataConfig

    fields = {field.name: field.default for field in dataclasses.fields(DataConfig)}
    ours = keys("data")
    assert set(ours) == set(fields)
    chosen = {
        "name",
        "batch_size",
        "microbatch_tokens",
        "validation_fraction",
        "template",
    }  # these differ from the class on purpose
    for key, value in ours.items():
        if key not in chosen:
            assert value == (list(fields[key]) if isinstance(fields[key], tuple) else fields[key]), key


def test_model_generation_and_optim_keys_are_fields():
    from core.settings import Generation, ModelSpec, Optim

    for group, fields_of in (("model", ModelSpec), ("generation", Generation), ("optim", Optim)):
        assert set(keys(group)) == {field.name for field in dataclasses.fields(fields_of)}, group
    for group, fields_of in (("generation", Generation), ("optim", Optim)):
        for field in dataclasses.fields(fields_of):
            default = field.default_factory() if field.default is dataclasses.MISSING else field.default
            if field.name not in ("name", "max_new_tokens"):
                assert keys(group)[field.name] == (list(default) if isinstance(default, tuple) else default), field.name


def test_evaluate_keys_are_fields():
    from core.settings import Evaluate

    written = yaml.safe_load((CONF / "evaluate.yaml").read_text())
    assert written["evaluate"] == {field.name: field.default for field in dataclasses.fields(Evaluate)}


def test_evaluate_reads_keys_that_exist_and_all_of_the_sandbox():
    from core.crosscheck import READ, READ_OF_POLICIES
    from core.data.sandbox import Options
    from core.settings import Evaluate

    own = {field.name for field in dataclasses.fields(Evaluate)}
    for reads in (READ, READ_OF_POLICIES):
        for group, read in reads.items():
            assert set(read) <= (own if group == "evaluate" else set(keys(group))), group
        assert {field.name for field in dataclasses.fields(Options)} <= set(reads["data"])
    assert set(READ["evaluate"]) | set(READ_OF_POLICIES["evaluate"]) == own


@pytest.mark.parametrize("reward", names("reward"))
def test_evaluate_composes_with_every_reward(reward):
    composed = compose([f"reward={reward}", *NEEDS.get(reward, [])], "evaluate")
    check_evaluate(composed)
    assert composed.output.name.startswith(f"evaluate-{reward}-")


def test_trainer_keys_are_lightnings():
    import lightning

    assert set(keys("trainer")) - {"defaults"} <= set(parameters(lightning.Trainer))


def test_wandb_keys_are_those_of_its_settings():
    from core.logger_options import WandbSettings

    assert set(keys("logger")["wandb"]) == {field.name for field in dataclasses.fields(WandbSettings)}


def test_every_plugin_has_a_config_and_every_config_a_plugin():
    for kind in ("objective", "reward"):
        assert {*names(kind), *(["none"] if kind == "reward" else [])} == {
            yaml.safe_load((CONF / kind / f"{option}.yaml").read_text())["name"] for option in options(kind)
        }


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda f: str(f.relative_to(CONF)))
def test_every_key_of_a_plugin_or_group_says_what_it_is(file: Path):
    text = file.read_text()
    assert text.startswith("#"), "the first line says what the file is for"
    if file.parent.name in ("objective", "reward", "data", "generation", "optim"):
        for line in text.splitlines():
            if re.match(r"\w+:", line) and not line.startswith(("name:", "defaults:", "split:")):
                assert "#" in line, f"{file.name}: {line}"


def test_every_folder_of_conf_is_a_package():
    """Else a wheel leaves its YAML out."""
    for folder in {file.parent for file in CONF.rglob("*.yaml")}:
        assert (folder / "__init__.py").is_file(), folder
