"""The pocket model: its tokenizer, its size, its cache."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import pocket
from core.data.sandbox import records
from core.errors import ModelError


@pytest.fixture(scope="module")
def tokenizer():
    return pocket.pocket_tokenizer()


def copy_model(base: Path, out: Path) -> None:
    """A warm-up that changes nothing but counts itself."""
    for file in base.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    with (out.parent.parent / "calls").open("a") as calls:
        calls.write("1")


def light_base(folder: Path) -> None:
    """Stands for `build_pocket` where only the cache is looked at."""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_any_text_comes_back_from_its_tokens(text):
    shared = _shared_tokenizer()
    assert shared.decode(shared(text)["input_ids"], skip_special_tokens=False) == text


def _shared_tokenizer(kept=[]):  # noqa: B006 - hypothesis takes no module fixture, and training takes half a second
    if not kept:
        kept.append(pocket.pocket_tokenizer())
    return kept[0]


def test_tokenizer_is_the_same_every_time(tokenizer):
    assert tokenizer.backend_tokenizer.to_str() == pocket.pocket_tokenizer().backend_tokenizer.to_str()


def test_special_tokens_are_distinct_and_never_added_unasked(tokenizer):
    special = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert special == [0, 1, 2]
    assert not set(special) & set(tokenizer("What is the capital of France?")["input_ids"])
    assert len(tokenizer) <= pocket.VOCABULARY


def test_most_words_of_the_sandbox_are_one_token(tokenizer):
    rows = list(records("demonstrations", "validation", 5, 300))
    tokens = sum(len(tokenizer(r["completion"])["input_ids"]) for r in rows)
    words = sum(len(r["completion"].split()) for r in rows)
    assert tokens / words < 1.6  # punctuation is a token of its own, so 1.0 cannot be had


def test_chat_template_marks_the_answer_and_its_stop_token(tokenizer):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "It is Paris."}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == (
        "<|begin|><|turn|>user\nHi<|end|>\n<|turn|>assistant\nIt is Paris.<|end|>\n"
    )
    out = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    marked = [t for t, m in zip(out["input_ids"], out["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(marked) == "It is Paris.<|end|>"
    assert tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True).endswith(
        "<|turn|>assistant\n"
    )


def test_build_pocket_is_about_a_million_parameters_and_repeatable(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    for name in ("a", "b"):
        pocket.build_pocket(tmp_path / name)
    assert torch.equal(torch.rand(1), expected)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path / "a"), AutoTokenizer.from_pretrained(tmp_path / "a")
    assert 0.7e6 < sum(p.numel() for p in model.parameters()) < 1.3e6
    assert model.config.tie_word_embeddings
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.chat_template == pocket.CHAT_TEMPLATE


@pytest.fixture
def light(monkeypatch):
    monkeypatch.setattr(pocket, "build_pocket", light_base)


def test_made_once_said_once_and_left_without_leftovers(tmp_path, light):
    said = []
    first = pocket.pocket_folder(tmp_path / "cache", copy_model, say=said.append)
    assert pocket.pocket_folder(tmp_path / "cache", copy_model, say=said.append) == first
    assert len(said) == 1
    assert "there is none" in said[0]
    assert (tmp_path / "cache/calls").read_text() == "1"
    assert {p.name for p in (tmp_path / "cache").iterdir()} == {first.name, f"{first.name}.lock", "calls"}


def test_other_settings_are_another_model(tmp_path, light):
    one = pocket.pocket_folder(tmp_path, copy_model, {"lr": 1e-3}, say=str)
    two = pocket.pocket_folder(tmp_path, copy_model, {"lr": 2e-3}, say=str)
    assert one != two
    assert (tmp_path / "calls").read_text() == "11"
    assert pocket.pocket_digest({"a": 1, "b": 2}) == pocket.pocket_digest({"b": 2, "a": 1})


def test_a_damaged_folder_is_made_again(tmp_path, light):
    said = []
    folder = pocket.pocket_folder(tmp_path, copy_model, say=said.append)
    (folder / "model.safetensors").unlink()
    assert pocket.pocket_folder(tmp_path, copy_model, say=said.append) == folder
    assert (folder / "model.safetensors").is_file()
    assert "incomplete" in said[1]


def test_a_failed_warm_up_leaves_nothing_behind(tmp_path, light):
    def fails(base: Path, out: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pocket.pocket_folder(tmp_path, fails, say=str)
    with pytest.raises(ModelError, match=r"wrote no config\.json"):
        pocket.pocket_folder(tmp_path, lambda base, out: None, say=str)
    assert [p.suffix for p in tmp_path.iterdir()] == [".lock"]


def test_what_a_killed_process_left_is_removed(tmp_path, light):
    left = tmp_path / f"pocket-{pocket.pocket_digest({})}.999999.tmp" / "base"
    left.mkdir(parents=True)
    folder = pocket.pocket_folder(tmp_path, copy_model, {}, say=str)
    assert not left.parent.exists()
    assert folder.is_dir()


def _child(folder: Path) -> None:
    pocket.build_pocket = light_base
    path = pocket.pocket_folder(folder, copy_model, say=str)
    (folder / f"done-{os.getpid()}").write_text(json.dumps(path.name))


def test_two_processes_make_it_once(tmp_path):
    children = [multiprocessing.get_context("fork").Process(target=_child, args=(tmp_path,)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [c.exitcode for c in children] == [0, 0, 0]
    assert (tmp_path / "calls").read_text() == "1"
    assert len({p.read_text() for p in tmp_path.glob("done-*")}) == 1


def test_the_environment_chooses_the_cache(tmp_path, light, monkeypatch):
    monkeypatch.setenv("ACCORDANT_CACHE", str(tmp_path / "elsewhere"))
    assert pocket.pocket_folder(None, copy_model, say=str).parent == tmp_path / "elsewhere"


def test_the_pocket_reward_model_starts_from_the_policy_and_is_kept(tmp_path, monkeypatch):
    from core import warmup

    monkeypatch.setenv("ACCORDANT_CACHE", str(tmp_path))
    policy = tmp_path / "policy"
    policy.mkdir()
    light_base(policy)
    monkeypatch.setattr(warmup, "pocket_policy", lambda: policy)
    said: list[str] = []
    first = warmup.pocket_reward(copy_model, said.append)
    assert first.name.startswith("pocket-reward-")
    assert {p.name for p in first.iterdir()} == {p.name for p in policy.iterdir()}
    assert warmup.pocket_reward(copy_model, said.append) == first
    assert len(said) == 1
    assert said[0].startswith("pocket reward model: training one, because there is none")
    (first / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"pocket reward model wrote no config\.json.*\n.*objective=reward_bt"):
        warmup.pocket_reward(lambda base, out: None, said.append)


def test_the_lessons_are_a_whole_run(tmp_path, monkeypatch):
    """With a small policy and few rows: what comes out scores answers, and the run around it gets its messages back."""
    from core import warmup
    from core.api import RewardModel
    from core.runfolder import LOGGER

    pocket.build_pocket(tmp_path / "policy")
    few = warmup.lessons_config(tmp_path / "policy", warmup.Lessons(rows=32))
    monkeypatch.setattr(warmup, "lessons_config", lambda policy: few)
    before = LOGGER.handlers[:]
    (tmp_path / "out").mkdir()
    warmup.lessons(tmp_path / "policy", tmp_path / "out")
    assert LOGGER.handlers == before
    model = RewardModel(str(tmp_path / "out"), device="cpu")
    assert model.facts.unit == "log-odds"
    assert model.facts.template == "chat"


def test_the_lessons_are_a_config_as_the_command_line_makes_it(tmp_path):
    """Keys that objective=reward_bt would refuse, or defaults that moved, must not hide here."""
    from dataclasses import asdict

    from core import warmup
    from core.data.config import DataConfig
    from core.settings import Generation, ModelSpec, Optim

    config = warmup.lessons_config(tmp_path)
    for fields, key in ((DataConfig, "data"), (ModelSpec, "model"), (Generation, "generation"), (Optim, "optim")):
        fields(**config[key])
    assert set(config) == set(warmup.warm_up_config(tmp_path))
    assert config["data"]["train_rows"] == asdict(warmup.Lessons())["rows"]
