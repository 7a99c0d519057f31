"""Reward models as models: their head, the token they read, the folder, and who can load it."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from tokenizers import AddedToken
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from core.batch import build_batch
from core.build import start_path
from core.data.templates import end_ids
from core.errors import ConfigError, ModelError
from core.export import export, export_scorer
from core.loading import apply_lora, load_causal_lm
from core.models import Models
from core.reward import Sample
from core.reward_model import RewardModel
from core.rows import Response, Row
from core.scorer import (
    RewardFacts,
    bias_of,
    distinct_pad,
    heads_of,
    load_scorer,
    read_facts,
    scale_head,
    set_bias,
    with_new_head,
    write_facts,
)
from core.settings import ModelSpec
from plugins.objectives.dpo import DPO
from plugins.objectives.reward_bt import RewardBT
from tests.support import VOCAB, tiny_model, tiny_tokenizer

LORA = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]}
FACTS = RewardFacts(template="plain", response_prefix=" ")
SAMPLES = [Sample("w1 w2", a, row_id="r") for a in ("w3", "w4 w5 w6 w7", "w8 w9")] + [Sample("w9", "w1 w1", row_id="s")]
TEXTS = ["w1 w2 w3</s>", "w1 w2 w4 w5 w6 w7</s>", "w1 w2 w8 w9</s>", "w9 w1 w1</s>"]
EOS = 1


def scorer(bias=0.75, heads=(), **changes):
    torch.manual_seed(4)
    model = with_new_head(tiny_model(**changes), "float32", heads).eval()
    set_bias(model, torch.full((max(1, len(heads)),), bias))
    return model


def scores_of(model, rows=None):
    """Ours, in memory: of the rows that TEXTS are."""
    models = Models({"reward": model}, trains=frozenset())
    return models.scores("reward", build_batch(rows or ROWS, models.layout)).detach()


def ids(text):
    return tiny_tokenizer()(text.replace("</s>", " </s>")).input_ids


ROWS = [Row(str(i), ids(t)[:1], (Response(ids(t)[1:], [True] * (len(ids(t)) - 1)),)) for i, t in enumerate(TEXTS)]


def learned(folder):
    return torch.tensor(RewardModel(str(folder)).score(SAMPLES))


def close(left, right, tolerance=1e-5):
    torch.testing.assert_close(left, right, atol=tolerance, rtol=0)


@pytest.fixture
def policy(tmp_path):
    """A language model's folder."""
    export(tiny_model(), tiny_tokenizer(), tmp_path / "policy")
    return tmp_path / "policy"


@pytest.fixture
def folder(tmp_path):
    """A reward model's folder."""
    export_scorer(scorer(), tiny_tokenizer(), tmp_path / "reward", FACTS)
    return tmp_path / "reward"


# --- the head ----------------------------------------------------------------------------------------------------------


def test_a_new_head_is_normal_with_deviation_one_over_root_of_h_plus_one():
    """128 heads of width 32: 4096 numbers, so the deviation is known to about 1 part in 90."""
    torch.manual_seed(0)
    weight = with_new_head(tiny_model(), "float32", [str(i) for i in range(128)]).score.weight
    expected = 1 / math.sqrt(32 + 1)
    assert weight.shape == (128, 32)
    assert weight.std().item() == pytest.approx(expected, rel=0.05)
    assert weight.mean().item() == pytest.approx(0, abs=4 * expected / math.sqrt(4096))


def test_a_new_head_is_drawn_from_the_seed():
    heads = []
    for seed in (1, 1, 2):
        model = tiny_model()
        torch.manual_seed(seed)
        heads.append(with_new_head(model, "float32", ()).score.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_head_is_fp32_whatever_the_body_is(policy, tmp_path, dtype):
    """Also when it is loaded again: not rounded on the way."""
    torch.manual_seed(3)
    model = load_scorer(str(policy), dtype=dtype)
    kinds = {n: p.dtype for n, p in model.named_parameters()}
    assert kinds.pop("score.weight") == torch.float32
    assert set(kinds.values()) == {getattr(torch, dtype)}
    export_scorer(model, tiny_tokenizer(), tmp_path / "reward", FACTS)
    again = load_scorer(str(tmp_path / "reward"), dtype=dtype)
    assert again.score.weight.dtype == torch.float32
    assert torch.equal(again.score.weight, model.score.weight)
    assert again.model.embed_tokens.weight.dtype == getattr(torch, dtype)
    assert scores_of(again).dtype == torch.float32
    assert type(again)._keep_in_fp32_modules_strict in (None, set())  # others' models of the class are as they were


def test_a_head_as_wide_as_what_comes_out_of_the_body():
    """OPT-350m: 1024 inside, 512 at the ends."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        word_embed_proj_dim=16,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        do_layer_norm_before=False,
    )
    model = with_new_head(OPTForCausalLM(config).eval(), "float32", ())
    assert model.score.in_features == 16
    assert scores_of(model).shape == (4,)


def test_an_encoder_is_refused():
    """BERT's classifier is more than a linear head, and reads the first token."""
    from transformers import BertConfig, BertLMHeadModel

    tiny = BertConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        is_decoder=True,
    )
    with pytest.raises(ModelError, match="BertForSequenceClassification is more than a linear head"):
        with_new_head(BertLMHeadModel(tiny), "float32", ())


def test_scaling_takes_the_constant_along():
    model = scorer()
    before = scores_of(model)
    scale_head(model, torch.tensor([3.0]))
    close(scores_of(model), 3 * before)


# --- which token is read -----------------------------------------------------------------------------------------------


def test_the_score_is_read_at_the_last_real_token():
    """By hand: the body's hidden state there, times the head."""
    model = scorer()
    for row, score in zip(ROWS, scores_of(model), strict=True):
        with torch.no_grad():
            hidden = model.model(torch.tensor([row.prompt + row.responses[0].tokens])).last_hidden_state[0, -1]
        assert score.item() == pytest.approx((hidden @ model.score.weight[0]).item() + 0.75, abs=1e-5)


def test_also_where_the_last_token_is_the_padding_token():
    """transformers' own forward would look for the last token that is not padding, and read one too early."""
    model = scorer()
    model.config.pad_token_id = EOS
    close(scores_of(model), scores_of(scorer()))
    with torch.no_grad():
        theirs = model(torch.tensor([ids(TEXTS[0])])).logits[0, 0]
    assert abs(theirs + 0.75 - scores_of(model)[0]) > 1e-3


def named_tokenizer(*specials, added=(), pad="</s>"):
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(specials)})
    tokenizer.add_tokens([AddedToken(text, special=False) for text in added])
    tokenizer.pad_token = pad
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "expected", "embeddings"),
    [
        (tiny_tokenizer(), "<pad>", VOCAB),
        (named_tokenizer("<|image_pad|>", "<|other|>"), "<|image_pad|>", VOCAB + 2),
        (named_tokenizer(added=("<|reserved_1|>",)), "<|reserved_1|>", VOCAB + 1),
        (named_tokenizer(added=("<|finetune_right_pad_id|>", "<|reserved_1|>")), "<|finetune_right_pad_id|>", VOCAB + 2),
        (named_tokenizer(), "<|pad|>", VOCAB + 1),
        (named_tokenizer(pad=None), "<|pad|>", VOCAB + 1),
    ],
    ids=["has one", "a special pad", "a reserved one", "an added pad", "a new one", "had none"],
)
def test_padding_gets_a_token_of_its_own(tokenizer, expected, embeddings, tmp_path):
    model, tokenizer = scorer(), copy.deepcopy(tokenizer)
    tokenizer.init_kwargs.pop("pad_token", None)
    vocabulary = tiny_tokenizer().get_vocab()
    if expected != "<pad>":  # the tiny tokenizer's own padding token is a usual one here
        tokenizer = _without_pad(tokenizer)
    before = scores_of(model)
    distinct_pad(tokenizer, model, end_ids(tokenizer))
    assert tokenizer.pad_token == expected
    assert tokenizer.pad_token_id not in end_ids(tokenizer)
    assert model.config.pad_token_id == model.config.get_text_config().pad_token_id == tokenizer.pad_token_id
    assert model.get_input_embeddings().weight.shape[0] == embeddings
    assert tokenizer.get_vocab().items() >= {k: v for k, v in vocabulary.items() if k != "<pad>"}.items()
    close(scores_of(model), before)
    # A second call changes nothing, and a loaded folder gives the same scores.
    distinct_pad(tokenizer, model, end_ids(tokenizer))
    assert tokenizer.pad_token == expected
    export_scorer(model, tokenizer, tmp_path / "reward", FACTS)
    close(learned(tmp_path / "reward"), before)
    assert AutoTokenizer.from_pretrained(tmp_path / "reward").pad_token == expected


def _without_pad(tokenizer):
    """The word <pad> renamed, so that only the tokens of the test could pad."""
    core = json.loads(tokenizer.backend_tokenizer.to_str())
    core["model"]["vocab"] = {("w_" if k == "<pad>" else k): v for k, v in core["model"]["vocab"].items()}
    core["added_tokens"] = [t for t in core["added_tokens"] if t["content"] != "<pad>"]
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    extra = [t["content"] for t in core["added_tokens"] if t["special"] and t["content"] not in ("</s>", "<unk>")]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(core)),
        eos_token="</s>",
        unk_token="<unk>",
        pad_token=tokenizer.pad_token,
        additional_special_tokens=extra,
    )


# --- the folder --------------------------------------------------------------------------------------------------------


def test_what_the_folder_says(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert config["problem_type"] == "regression"
    assert config["pad_token_id"] == 0
    assert len(config["id2label"]) == 1
    assert json.loads((folder / "reward.json").read_text()) == {
        "bias": [0.75],
        "heads": [],
        "template": "plain",
        "response_prefix": " ",
        "max_length": None,
        "max_prompt_length": None,
        "truncate_side": "left",
        "unit": "log-odds",
        "kind": "reward",
    }
    assert read_facts(str(folder)) == RewardFacts([0.75], [], "plain", " ")


@pytest.mark.parametrize("side", ["left", "right"])
def test_transformers_loads_it_and_gives_our_scores_less_the_constant(folder, side):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert model.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
    batch = tokenizer([t.replace("</s>", " </s>") for t in TEXTS], padding=True, return_tensors="pt")
    assert (batch.attention_mask == 0).any()
    with torch.no_grad():
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, 0]
    close(logits + 0.75, scores_of(scorer()))
    close(logits + 0.75, learned(folder))


def test_pipelines_give_the_same_number(folder):
    classify = pipeline("text-classification", model=str(folder), device="cpu")
    given = [classify(t.replace("</s>", " </s>"))[0]["score"] for t in TEXTS]  # no function is applied to it
    close(torch.tensor(given) + 0.75, learned(folder))


def test_a_folder_goes_on_training(folder):
    """model.reward=runs/rm/reward: body, head and constant are those that were saved."""
    again = load_scorer(str(folder))
    close(scores_of(again), scores_of(scorer()), 1e-6)
    assert bias_of(again).tolist() == [0.75]


def test_heads_of_groups_come_back(tmp_path):
    model = scorer(heads=("ann", "bob"))
    set_bias(model, torch.tensor([0.5, -2.0]))
    export_scorer(model, tiny_tokenizer(), tmp_path, FACTS)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["id2label"] == {"0": "ann", "1": "bob"}
    again = load_scorer(str(tmp_path), heads=("ann", "bob"))
    assert heads_of(again) == ("ann", "bob")
    assert bias_of(again).tolist() == [0.5, -2.0]
    close(scores_of(again), scores_of(model), 1e-6)
    reward = RewardModel(str(tmp_path))
    ann, bob = (torch.tensor(reward.score(SAMPLES, group)) for group in ("ann", "bob"))
    close((ann + bob) / 2, torch.tensor(reward.score(SAMPLES)))
    close(learned(tmp_path), scores_of(model))
    for asked in (("ann", "eve"), ("bob", "ann"), ("ann",)):
        with pytest.raises(ModelError, match=r"has heads for ann, bob, and heads for .* are asked for"):
            load_scorer(str(tmp_path), heads=asked)


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        '{"colour": "red"}',
        '{"bias": "much"}',
        '{"bias": [null]}',
        '{"bias": [NaN]}',
        '{"bias": [0.0], "heads": ["a", "b"]}',
        '{"bias": [0.0], "template": "haiku"}',
        '{"bias": [0.0], "response_prefix": 5}',
        '{"bias": [0.0], "max_length": "long"}',
        '{"bias": [0.0], "max_prompt_length": 0}',
        '{"bias": [0.0], "truncate_side": "middle"}',
        '{"bias": [0.0], "unit": "points"}',
    ],
)
def test_a_damaged_reward_json_says_so(folder, damage):
    (folder / "reward.json").write_text(damage)
    with pytest.raises(ModelError, match=r"(?s)reward\.json: not the facts of a reward model.*Export the model again"):
        RewardModel(str(folder))


def test_a_wrong_number_of_constants_says_so(folder):
    write_facts(folder, RewardFacts(bias=[0.0, 1.0]))
    with pytest.raises(ModelError, match=r"the model has 1 labels; expected 2, one for each constant in reward\.json"):
        load_scorer(str(folder))


# --- what it starts from -----------------------------------------------------------------------------------------------


def test_from_a_policy_the_body_is_kept(policy):
    torch.manual_seed(9)
    model = load_scorer(str(policy))
    assert torch.equal(model.model.embed_tokens.weight, tiny_model().model.embed_tokens.weight)
    assert bias_of(model).tolist() == [0.0]


def perturbed(model):
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_from_a_lora_policy_with_its_adapter_merged(policy, tmp_path):
    adapted = perturbed(apply_lora(load_causal_lm(str(policy)), LORA))
    export(adapted, tiny_tokenizer(), tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "config.json").exists()
    ours, merged, bare = (
        load_scorer(str(tmp_path / "adapter")),
        with_new_head(copy.deepcopy(adapted).merge_and_unload(), "float32", ()),
        load_scorer(str(policy)),
    )
    for model in (merged, bare):
        model.score.weight.data.copy_(ours.score.weight)
    close(scores_of(ours), scores_of(merged))
    assert (scores_of(ours) - scores_of(bare)).abs().max() > 1e-2


@pytest.mark.parametrize("start", ["policy", "reward"])
@pytest.mark.parametrize("merge", [True, False], ids=["merged", "adapter"])
def test_lora_reward_models_come_back(policy, folder, tmp_path, start, merge):
    """The head is trained whole, and saved with the adapter."""
    torch.manual_seed(9)
    model = perturbed(apply_lora(load_scorer(str(policy if start == "policy" else folder)), LORA))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert any("score" in n for n in trained)
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "score" in n and p.requires_grad).mul_(-1.5)
    scale_head(model, torch.tensor([2.0]))
    set_bias(model, torch.tensor([0.3]))
    expected = scores_of(model)
    export_scorer(model, tiny_tokenizer(), tmp_path / "out", FACTS, merge_lora=merge)
    assert (tmp_path / "out" / "config.json").exists() == merge
    close(learned(tmp_path / "out"), expected)
    close(scores_of(model), expected)  # the live model is as it was
    theirs = _theirs(tmp_path / "out", merge)
    batch = tiny_tokenizer()([t.replace("</s>", " </s>") for t in TEXTS], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, 0]
    close(logits + 0.3, expected)


def _theirs(path, merged):
    if merged:
        return AutoModelForSequenceClassification.from_pretrained(path).eval()
    from peft import AutoPeftModelForSequenceClassification

    return AutoPeftModelForSequenceClassification.from_pretrained(path, num_labels=1).eval()


def test_an_adapter_on_an_adapter_stands_on_both(policy, tmp_path):
    """A LoRA reward model of a LoRA policy, not merged: its base is the policy with its adapter."""
    export(perturbed(apply_lora(load_causal_lm(str(policy)), LORA)), tiny_tokenizer(), tmp_path / "sft")
    torch.manual_seed(9)
    model = perturbed(apply_lora(load_scorer(str(tmp_path / "sft")), LORA))
    export_scorer(model, tiny_tokenizer(), tmp_path / "reward", FACTS, merge_lora=False)
    settings = json.loads((tmp_path / "reward" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(tmp_path / "sft")
    close(learned(tmp_path / "reward"), scores_of(model))
    again = perturbed(apply_lora(load_scorer(str(tmp_path / "reward")), LORA))
    export_scorer(again, tiny_tokenizer(), tmp_path / "more", FACTS, merge_lora=False)
    close(learned(tmp_path / "more"), scores_of(again))


@pytest.mark.parametrize("base", ["policy", "adapter"])
def test_an_adapter_whose_tokenizer_got_a_padding_token(policy, tmp_path, base):
    """The embeddings have one row more than the base model's."""
    tokenizer = _without_pad(named_tokenizer())
    export(perturbed(apply_lora(load_causal_lm(str(policy)), LORA)), tiny_tokenizer(), tmp_path / "adapter")
    torch.manual_seed(9)
    model = load_scorer(str(policy if base == "policy" else tmp_path / "adapter"))
    distinct_pad(tokenizer, model, end_ids(tokenizer))
    model = perturbed(apply_lora(model, LORA))
    export_scorer(model, tokenizer, tmp_path / "reward", FACTS, merge_lora=False)
    close(learned(tmp_path / "reward"), scores_of(model))


def test_heads_of_an_adapter_are_checked(policy, tmp_path):
    model = apply_lora(load_scorer(str(policy), heads=("ann", "bob")), LORA)
    export_scorer(model, tiny_tokenizer(), tmp_path / "reward", FACTS, merge_lora=False)
    assert heads_of(load_scorer(str(tmp_path / "reward"))) == ("ann", "bob")
    with pytest.raises(ModelError, match="has heads for ann, bob"):
        load_scorer(str(tmp_path / "reward"), heads=("ann",))


# --- what cannot be ----------------------------------------------------------------------------------------------------


def test_a_language_model_gives_no_score(policy, tmp_path):
    export(apply_lora(load_causal_lm(str(policy)), LORA), tiny_tokenizer(), tmp_path / "adapter")
    for path in (policy, tmp_path / "adapter"):
        with pytest.raises(ModelError, match=r"(?s)holds a language model.*objective=reward_bt model\.reward="):
            RewardModel(str(path))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        RewardModel(str(tmp_path / "nowhere"))


def test_an_empty_folder(tmp_path):
    with pytest.raises(ModelError, match="cannot be loaded"):
        RewardModel(str(tmp_path))


def test_model_reward_is_for_who_trains_one():
    with pytest.raises(ConfigError, match=r"(?s)model\.reward=x, but this objective trains no reward model.*reward=learned"):
        start_path(ModelSpec(policy="p", reward="x"), DPO())
    assert start_path(ModelSpec(policy="p", reward="x"), RewardBT()) == "x"
    assert start_path(ModelSpec(policy="p"), RewardBT()) == "p"
    assert start_path(ModelSpec(reward="x"), RewardBT()) == "x"
    with pytest.raises(ConfigError, match=r"model\.policy is not set"):
        ModelSpec()


# --- TRL ---------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_trl_takes_the_folder_as_a_reward(folder, policy, tmp_path):
    """A step of GRPO. TRL scores plain text without an end token, so ours are asked as for unfinished answers."""
    pytest.importorskip("trl", reason="TRL is not installed (pip install 'accordant[parity]')")
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    options = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "disable_tqdm": True, "report_to": "none"}
    trainer = GRPOTrainer(
        model=str(policy),
        reward_funcs=[str(folder)],
        args=GRPOConfig(
            output_dir=str(tmp_path / "trl"),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=5,
            max_steps=1,
            save_strategy="no",
            logging_steps=1,
            **options,
        ),
        train_dataset=Dataset.from_list([{"prompt": "w1 w2 "}] * 4),
    )
    trainer.train()
    (given,) = (list(values) for values in trainer._logs["rewards"].values())
    answers = list(trainer._logs["completion"])
    assert len(given) == len(answers) == 4
    reward = RewardModel(str(folder))
    ours = reward.score([Sample("w1 w2", a, finished=False) for a in answers])
    assert [v + 0.75 for v in given] == pytest.approx(ours, abs=1e-5)
    (logged,) = (r["reward"] for r in trainer.state.log_history if "reward" in r)
    assert logged + 0.75 == pytest.approx(sum(ours) / 4, abs=1e-5)
