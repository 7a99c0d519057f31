"""Models by role: loading, fingerprints, LoRA, export. No network: a socket that is opened fails the test."""

from __future__ import annotations

import copy
import json
import socket

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.batch import build_batch
from core.data.templates import end_ids
from core.errors import ModelError
from core.export import export
from core.generate import Job, sample
from core.loading import apply_lora, load_causal_lm, load_tokenizer
from core.models import Models, fingerprint
from core.settings import Generation
from tests.architectures import architecture
from tests.support import random_rows, tiny_model, tiny_tokenizer

LORA = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]}
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a local folder was asked for, and the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def folder(tmp_path):
    """A saved model in the Hugging Face layout."""
    export(tiny_model(), tiny_tokenizer(), tmp_path / "model")
    return tmp_path / "model"


def logits(model, ids=IDS):
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def perturbed(model, std=0.3):
    """A LoRA model whose adapter does something: B starts at zero."""
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    return model


# --- loading -------------------------------------------------------------------------------------------------------


def test_weights_are_fp32_whatever_the_checkpoint_is(tmp_path):
    """AdamW's updates are lost in bf16 weights: the master copy is fp32 unless asked otherwise."""
    model = tiny_model().bfloat16()
    export(model, tiny_tokenizer(), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    loaded = load_causal_lm(str(tmp_path))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.float())
    assert {p.dtype for p in load_causal_lm(str(tmp_path), dtype="bfloat16").parameters()} == {torch.bfloat16}


def test_a_local_folder_loads_without_the_hub_even_online(folder, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    model = load_causal_lm(str(folder))
    tokenizer = load_tokenizer(str(folder))
    assert torch.equal(logits(model), logits(tiny_model()))
    assert tokenizer("w2 w4").input_ids == [5, 7]


@pytest.mark.parametrize("path", ["./no/such", "/no/such", "~/no-such-model", "a/b/c"])
def test_a_missing_folder_is_named_and_not_looked_up(path):
    with pytest.raises(ModelError, match="no such folder"):
        load_causal_lm(path)


def test_a_folder_beside_runs_is_not_looked_up_either(tmp_path, monkeypatch):
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"runs/dmo: no such folder"):
        load_causal_lm("runs/dmo")


def test_a_folder_without_a_model_is_an_error_of_the_user(tmp_path):
    with pytest.raises(ModelError, match="this folder cannot be loaded"):
        load_causal_lm(str(tmp_path))


def test_a_run_folder_is_not_its_model(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ModelError, match=r"is a run folder and not a model\.(.|\n)*It has made no model"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "reward").mkdir()
    with pytest.raises(ModelError, match=r"Give the model in it: .*/reward\."):
        load_tokenizer(str(tmp_path))


def test_a_tokenizer_without_padding_borrows_a_token(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token == "<unk>"
    tokenizer.unk_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token in ("<unk>", "</s>")


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no end-of-text token"):
        load_tokenizer(str(tmp_path))


# --- fingerprints --------------------------------------------------------------------------------------------------


def test_equal_models_have_equal_fingerprints(folder):
    assert fingerprint(tiny_model()) == fingerprint(tiny_model()) == fingerprint(load_causal_lm(str(folder)))
    assert fingerprint(tiny_model()) == fingerprint(copy.deepcopy(tiny_model()))


def test_a_fingerprint_changes_with_one_weight():
    model, other = tiny_model(), tiny_model()
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight[3, 4] += 1e-6
    assert fingerprint(model) != fingerprint(other)
    assert fingerprint(model) != fingerprint(tiny_model(seed=1))


def test_a_fingerprint_changes_with_what_the_config_computes():
    """The same weights under another RoPE base give other log-probs; another end token does not."""
    model = tiny_model()
    rope = tiny_model(rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), rope.parameters(), strict=True))
    assert not torch.equal(logits(model), logits(rope))
    assert fingerprint(model) != fingerprint(rope)
    assert fingerprint(model) == fingerprint(tiny_model(eos_token_id=2))
    assert fingerprint(model) != fingerprint(tiny_model().bfloat16())


# --- roles ---------------------------------------------------------------------------------------------------------


def test_only_trained_roles_get_gradients():
    models = Models({"policy": tiny_model(), "reference": tiny_model(seed=1)}, trains=frozenset({"policy"}))
    names = [name for name, _ in models.trained_parameters()]
    assert names
    assert all(name.startswith("policy.") for name in names)
    batch = build_batch(random_rows(2, 2), models.layout)
    assert models.token_logps("policy", batch).requires_grad
    assert not models.token_logps("reference", batch).requires_grad
    models.train_mode()
    assert models.roles["policy"].training
    assert not models.roles["reference"].training


def test_an_undeclared_role_is_an_error():
    models = Models({"policy": tiny_model()}, trains=frozenset({"policy"}))
    assert not models.has("reference")
    with pytest.raises(ModelError, match='"reference", but this run has: policy'):
        models.of("reference")


def test_scores_stand_at_masked_tokens_only():
    models = Models({"policy": tiny_model()}, trains=frozenset({"policy"}))
    batch = build_batch(random_rows(3, 2), models.layout)
    assert not batch.mask.all()
    scores = models.token_scores("policy", batch)
    for values in (scores.logps, scores.entropy, scores.mean_logps):
        assert ((values != 0) == batch.mask).all()
    assert torch.equal(scores.logps.detach(), models.token_logps("policy", batch).detach())


# --- LoRA ----------------------------------------------------------------------------------------------------------


def test_the_reference_of_a_lora_policy_is_the_base_model():
    base = tiny_model()
    models = Models({"policy": perturbed(apply_lora(copy.deepcopy(base), LORA))}, trains=frozenset({"policy"}))
    plain = Models({"policy": base}, trains=frozenset({"policy"}))
    batch = build_batch(random_rows(4, 2), models.layout)
    expected = plain.token_logps("policy", batch).detach()
    before = models.token_logps("policy", batch)
    assert models.has("reference")
    assert torch.equal(models.token_logps("reference", batch), expected)
    assert (before - expected).abs().max() > 1e-2
    assert torch.equal(models.token_logps("policy", batch), before)  # the adapter is on again
    before.sum().backward()  # and gets gradients, though it was off in between
    assert all(p.grad is not None for _, p in models.trained_parameters())


def test_lora_exports_an_adapter_that_loads_again(folder, tmp_path):
    policy = perturbed(apply_lora(load_causal_lm(str(folder)), LORA))
    export(policy, tiny_tokenizer(), tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    torch.testing.assert_close(logits(load_causal_lm(str(tmp_path / "adapter"))), logits(policy), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")), logits(policy), atol=1e-5, rtol=1e-5
    )


def test_lora_exports_merged_and_leaves_the_live_model_alone(folder, tmp_path):
    policy = perturbed(apply_lora(load_causal_lm(str(folder)), LORA))
    models = Models({"policy": policy}, trains=frozenset({"policy"}))
    batch = build_batch(random_rows(2, 2), models.layout)
    reference = models.token_logps("reference", batch)
    export(policy, tiny_tokenizer(), tmp_path / "merged", merge_lora=True)
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), logits(policy), atol=1e-5, rtol=1e-5)
    assert (logits(merged) - logits(tiny_model())).abs().max() > 1e-2
    assert torch.equal(models.token_logps("reference", batch), reference)


def test_lora_without_peft_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"accordant\[lora\]"):
        apply_lora(tiny_model(), LORA)


# --- export --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gpt2", "gemma", "qwen3", "opt", "gpt-neox"])
def test_an_export_loads_in_transformers_with_equal_logits(name, tmp_path):
    model = architecture(name)
    export(model, tiny_tokenizer(), tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert AutoTokenizer.from_pretrained(tmp_path)("w2 w4").input_ids == [5, 7]
    assert sorted(p.suffix for p in tmp_path.iterdir() if p.suffix in (".bin", ".safetensors", ".pt")) == [".safetensors"]


def test_tied_embeddings_stay_tied(tmp_path):
    model = architecture("llama-tied")
    export(model, tiny_tokenizer(), tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()


HOSTILE = {"temperature": 0.7, "do_sample": False, "top_k": 5, "repetition_penalty": 1.5, "eos_token_id": 7, "max_length": 3}


def test_sampling_ends_where_the_chat_template_closes_an_answer():
    tokenizer = tiny_tokenizer()
    assert end_ids(tokenizer) == [1]
    tokenizer.add_tokens(["<turn/>"], special_tokens=True)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + ' <turn/>' }}{% endfor %}"
    assert end_ids(tokenizer) == [1, tokenizer.convert_tokens_to_ids("<turn/>")]
    tokenizer.chat_template = "{{ raise_exception('no') }}"  # data.template=plain does without it
    assert end_ids(tokenizer) == [1]


def test_lora_settings_that_peft_refuses():
    for lora, word in (({"rank": 4}, "rank"), ({"r": 4, "target_modules": ["nowhere"]}, "nowhere")):
        with pytest.raises(ModelError, match=word):
            apply_lora(tiny_model(), lora)


def test_a_hostile_generation_config_changes_no_sample_and_breaks_no_export(folder, tmp_path):
    """Published files carry sampling settings; ours come from generation.* alone."""
    clean = load_causal_lm(str(folder))
    (folder / "generation_config.json").write_text(json.dumps(HOSTILE))
    hostile = load_causal_lm(str(folder))
    assert hostile.generation_config.repetition_penalty == 1.5
    jobs = [Job([5, 6], seed=k) for k in range(40)]
    settings = Generation(max_new_tokens=12)
    drawn = [sample(m, tiny_tokenizer(), jobs, settings) for m in (clean, hostile)]
    assert drawn[0] == drawn[1]
    assert len({s.tokens[0] for s in drawn[1]}) > 5  # no top_k = 5
    export(hostile, tiny_tokenizer(), tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(again), logits(clean))
    assert again.generation_config.eos_token_id == 1
    assert again.generation_config.pad_token_id == 0
    assert again.generation_config.temperature is None


def test_an_export_generates_in_transformers_as_here(tmp_path):
    model = tiny_model()
    export(model, tiny_tokenizer(), tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    theirs = loaded.generate(IDS, max_new_tokens=6, do_sample=False)[0, IDS.shape[1] :].tolist()
    ours = sample(model, tiny_tokenizer(), [Job(IDS[0].tolist(), 0)], Generation(max_new_tokens=6, temperature=0))
    assert ours[0].tokens == theirs
