"""The value network: where it starts, what it reads, and that an exported one is the same again."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from core import finish, registry
from core.batch import build_batch
from core.build import Prepared, build_models
from core.errors import ModelError
from core.export import export, export_scorer
from core.finish import card_facts
from core.loading import apply_lora
from core.models import Models
from core.scorer import RewardFacts, with_new_head
from core.settings import Generation, ModelSpec
from core.value import SharedHead, as_scorer, value_network
from tests.architectures import architecture
from tests.support import random_rows, tiny_model, tiny_tokenizer

ROWS = random_rows(5, 2, 3)


def spec(**changes: Any) -> ModelSpec:
    return ModelSpec(policy="tiny", **changes)


def models_with(value: Any, policy: Any, layout: str = "shared") -> Models:
    return Models({"policy": policy, "value": value}, trains=frozenset({"policy", "value"}), layout=layout)


def last_states(model: Any, tokens: list[int]) -> torch.Tensor:
    """(T, H) what the head reads: the body's last hidden states, of one sequence alone."""
    body = model.base_model
    with torch.no_grad():
        return body.eval()(input_ids=torch.tensor([tokens])).last_hidden_state[0]  # type: ignore[no-any-return]


def by_definition(body_of: Any, weight: torch.Tensor) -> list[list[float]]:
    """V(prompt and tokens before) of each response, from a forward of its own; 0 where the mask is False."""
    out = []
    for row in ROWS:
        for r in row.responses:
            states = last_states(body_of, row.prompt + r.tokens)
            values = (states @ weight[0]).tolist()
            out.append([values[len(row.prompt) + k - 1] if counts else 0.0 for k, counts in enumerate(r.mask)])
    return out


def values_of(models: Models, layout: str = "shared") -> list[list[float]]:
    batch = build_batch(ROWS, layout)  # type: ignore[arg-type]
    with torch.no_grad():
        padded = models.values(batch)
    return [row[valid].tolist() for row, valid in zip(padded, batch.valid, strict=True)]


def assert_close(found: list[list[float]], expected: list[list[float]]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


# -- what it reads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
@pytest.mark.parametrize("value", [None, "shared"])
def test_a_value_is_read_before_its_token(value: str | None, layout: str) -> None:
    """The first token's value is that of the prompt alone: an answer's own token must not be seen."""
    policy = tiny_model()
    network: Any = value_network(spec(value=value, value_head="normal"), policy)
    weight = (network.linear if value else network.score).weight.detach()
    body = policy if value else network
    found = values_of(models_with(network, policy, layout), layout)
    assert_close(found, by_definition(body, weight))
    assert max(abs(v) for row in found for v in row) > 0.05


def test_both_at_once_are_the_two_apart() -> None:
    """A shared trunk is computed once; log-probs and values are those of two calls, at the sampling temperature."""
    policy = tiny_model()
    models = models_with(value_network(spec(value="shared", value_head="normal"), policy), policy)
    models.temperature = 0.7
    batch = build_batch(ROWS, "shared")
    scores, values = models.policy_and_values(batch)
    apart = models.token_scores("policy", batch, temperature=0.7)
    assert torch.allclose(scores.logps, apart.logps, atol=1e-6)
    assert torch.allclose(scores.entropy, apart.entropy, atol=1e-6)
    assert torch.allclose(values, models.values(batch), atol=1e-6)
    assert not torch.allclose(scores.logps, models.token_logps("policy", batch), atol=1e-3)


def test_a_shared_value_moves_the_trunk_and_a_separate_one_does_not() -> None:
    for value, moved in (("shared", True), (None, False)):
        policy = tiny_model()
        models = models_with(value_network(spec(value=value, value_head="normal"), policy), policy)
        models.values(build_batch(ROWS, "shared")).square().sum().backward()  # type: ignore[no-untyped-call]
        touched = any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in policy.model.parameters())
        assert touched is moved
        assert all(p.grad is not None for p in models.of("value").parameters())


# -- where it starts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "shared"])
def test_a_new_head_is_zero_or_normal(value: str | None) -> None:
    policy = tiny_model(hidden_size=64)
    for how, deviation in (("auto", 0.0), ("zero", 0.0), ("normal", 1 / (64 + 1) ** 0.5)):
        network: Any = value_network(spec(value=value, value_head=how), policy)
        weight = (network.linear if value else network.score).weight.detach()
        assert weight.shape == (1, 64)
        assert weight.dtype == torch.float32
        assert float(weight.std()) == pytest.approx(deviation, rel=0.35)


def test_a_network_of_its_own_starts_from_the_policy_and_leaves_it_alone() -> None:
    policy = tiny_model()
    before = copy.deepcopy(policy)
    network: Any = value_network(spec(), policy)
    assert torch.equal(network.model.layers[0].mlp.up_proj.weight, policy.model.layers[0].mlp.up_proj.weight)
    with torch.no_grad():
        network.model.layers[0].mlp.up_proj.weight.add_(1.0)
    for (name, a), b in zip(before.state_dict().items(), policy.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert hasattr(policy, "lm_head")
    assert policy.config.to_dict() == before.config.to_dict()


def reward_folder(folder: Path) -> Any:
    """A reward model with a constant, as a run exports it."""
    scorer = with_new_head(tiny_model(seed=5), "float32", ())
    scorer.score_bias.fill_(0.75)
    export_scorer(scorer, tiny_tokenizer(), folder, RewardFacts())
    return scorer


def test_a_reward_model_keeps_its_head_unless_told_otherwise(tmp_path: Path) -> None:
    reward = reward_folder(tmp_path / "rm")
    kept: Any = value_network(spec(value=str(tmp_path / "rm")), tiny_model())
    assert torch.equal(kept.score.weight, reward.score.weight)
    assert float(kept.score_bias) == 0.75
    zero: Any = value_network(spec(value=str(tmp_path / "rm"), value_head="zero"), tiny_model())
    assert not zero.score.weight.any()
    assert not zero.score_bias.any()
    assert torch.equal(zero.model.embed_tokens.weight, reward.model.embed_tokens.weight)


def test_a_policys_folder_has_no_head_to_keep(tmp_path: Path) -> None:
    other = tiny_model(seed=9)
    export(other, tiny_tokenizer(), tmp_path / "policy")
    network: Any = value_network(spec(value=str(tmp_path / "policy")), tiny_model())
    assert torch.equal(network.model.embed_tokens.weight, other.model.embed_tokens.weight)
    assert not network.score.weight.any()


def test_a_reward_model_with_a_head_for_each_group_is_refused(tmp_path: Path) -> None:
    """Which of them should be the value? The first one would be taken without a word."""
    export_scorer(with_new_head(tiny_model(), "float32", ("a", "b")), tiny_tokenizer(), tmp_path / "rm", RewardFacts())
    for how in ("auto", "zero"):
        with pytest.raises(ModelError, match=r"(?s)model.value=.*a head for each of a, b.*one head"):
            value_network(spec(value=str(tmp_path / "rm"), value_head=how), tiny_model())


def prepared(folder: Path, tokenizer: Any, **changes: Any) -> Prepared:
    """What `build_models` asks of a run whose policy is in `folder`; the fields it does not ask for are empty."""
    missing: Any = None
    ppo = registry.build_objective({"name": "ppo"})
    spec = ModelSpec(policy=str(folder), **changes)
    return Prepared(ppo, [], None, spec, str(folder), tokenizer, missing, Generation())


def test_each_network_has_an_adapter_on_the_policys_weights(tmp_path: Path) -> None:
    """The value network is copied before the policy has one; they are drawn in one order, whatever the hash seed."""
    pytest.importorskip("peft")
    export(tiny_model(), tiny_tokenizer(), tmp_path / "policy")
    built = []
    for reverse in (False, True):
        ready = prepared(tmp_path / "policy", tiny_tokenizer(), lora={"r": 2, "target_modules": ["q_proj"]})
        ready.objective.trains = _Ordered(ready.objective.trains, reverse)
        torch.manual_seed(0)
        built.append(build_models(ready))
    names = [name for name, _ in built[0].trained_parameters()]
    assert {name.partition(".")[0] for name in names if "lora_" in name} == {"policy", "value"}
    assert [name for name in names if "score" in name] == ["value.base_model.model.score.modules_to_save.default.weight"]
    base = built[0].roles["policy"].get_base_model().model, built[0].roles["value"].get_base_model().model
    weights = [body.layers[0].self_attn.q_proj.base_layer.weight for body in base]
    assert torch.equal(*weights)
    assert weights[0] is not weights[1]
    pairs = zip(built[0].trained_parameters(), built[1].trained_parameters(), strict=True)
    assert all(torch.equal(a, b) for (_, a), (_, b) in pairs)


class _Ordered(frozenset):  # type: ignore[type-arg]
    """A set that is walked through in a given order, as the hash seed of a process decides it."""

    def __new__(cls, items: Any, reverse: bool) -> Any:
        made = super().__new__(cls, items)
        made.reverse = reverse  # type: ignore[attr-defined]
        return made

    def __and__(self, other: Any) -> Any:
        return sorted(frozenset(self) & frozenset(other), reverse=self.reverse)  # type: ignore[attr-defined]


def test_the_value_network_reads_what_the_policy_writes(tmp_path: Path) -> None:
    """A reward model has got a padding token of its own: it knows all of the policy's. One with other words does not."""
    export(tiny_model(), tiny_tokenizer(), tmp_path / "policy")
    for name, words in (("more", ["<|pad|>"]), ("fewer", [])):
        tokenizer, scorer = tiny_tokenizer(), with_new_head(tiny_model(), "float32", ())
        tokenizer.add_tokens(words)
        scorer.resize_token_embeddings(len(tokenizer))
        export_scorer(scorer, tokenizer, tmp_path / name, RewardFacts())
    models = build_models(prepared(tmp_path / "policy", tiny_tokenizer(), value=str(tmp_path / "more")))
    assert models.has("value")
    writes_more = tiny_tokenizer()
    writes_more.add_tokens(["w61"])
    with pytest.raises(ModelError, match=r"(?s)different tokenizers: 1 tokens differ, 'w61' is one.*model.value=null"):
        build_models(prepared(tmp_path / "policy", writes_more, value=str(tmp_path / "fewer")))
    with pytest.raises(ModelError, match=r"(?s)different tokenizers: .*model.reference=null"):
        build_models(prepared(tmp_path / "policy", writes_more, reference=str(tmp_path / "policy")))


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        value_network(spec(value=str(tmp_path / "nowhere")), tiny_model())


# -- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "shared"])
def test_an_exported_value_network_gives_the_same_values_again(tmp_path: Path, value: str | None) -> None:
    policy = tiny_model()
    network: Any = value_network(spec(value=value, value_head="normal"), policy)
    before = values_of(models_with(network, policy))
    scorer = as_scorer(network, policy, "float32") if isinstance(network, SharedHead) else network
    export_scorer(scorer, tiny_tokenizer(), tmp_path / "value", RewardFacts(unit=""))
    again = value_network(spec(value=str(tmp_path / "value")), tiny_model(seed=8))
    assert_close(values_of(models_with(again, tiny_model(seed=8))), before)
    # And for everybody else: at the last token of a text it is an ordinary classifier's output.
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "value").eval()
    answer = ROWS[0].responses[0]
    k = answer.mask.index(True)
    with torch.no_grad():
        found = float(theirs(input_ids=torch.tensor([ROWS[0].prompt + answer.tokens[:k]])).logits[0, 0])
    assert found == pytest.approx(before[0][k], abs=1e-5)


def test_the_trunk_of_an_exported_shared_head_has_the_adapter_in_it() -> None:
    """The head has learnt on what the adapted policy computes; the policy keeps its adapter."""
    pytest.importorskip("peft")
    policy = apply_lora(tiny_model(), {"r": 4, "target_modules": ["q_proj", "v_proj"]})
    torch.manual_seed(2)
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.5)
    network = value_network(spec(value="shared", value_head="normal"), policy)
    before = values_of(models_with(network, policy))
    assert isinstance(network, SharedHead)
    scorer = as_scorer(network, policy, "float32")
    assert not any("lora" in name for name, _ in scorer.named_parameters())
    assert_close(values_of(models_with(scorer, tiny_model(seed=8))), before)
    assert any("lora" in name for name, _ in policy.named_parameters())
    bare = as_scorer(network, tiny_model(), "float32")
    assert values_of(models_with(bare, tiny_model(seed=8)))[0] != pytest.approx(before[0], abs=1e-3)


def test_a_head_that_no_class_can_hold_does_not_fail_the_run_at_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Transformers has no classifier of Cohere's: a network of its own is refused at the start, a shared head trains."""
    policy = architecture("cohere")
    with pytest.raises(ModelError, match=r"(?s)no \.\.\.ForSequenceClassification.*model\.value=shared"):
        value_network(spec(), policy)
    models = models_with(value_network(spec(value="shared"), policy), policy, "padded")
    run: Any = SimpleNamespace(models=models, spec=spec(value="shared"), folder=SimpleNamespace(path=tmp_path))
    facts: Any = None
    assert finish._export(run, "value", facts) is None
    assert "The value head stays in the checkpoints and is not exported: CohereForCausalLM" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_making_a_scorer_of_a_shared_head_leaves_the_policy_whole() -> None:
    policy = tiny_model()
    before = copy.deepcopy(policy.state_dict())
    as_scorer(SharedHead(32), policy, "float32")
    assert before.keys() == policy.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.state_dict().items())


@pytest.mark.parametrize(("value", "adapter"), [("shared", False), (None, True)])
def test_the_card_says_whether_the_folder_holds_an_adapter(tmp_path: Path, value: str | None, adapter: bool) -> None:
    """With model.merge_lora=false, a shared head is exported with the whole trunk all the same."""
    folder = SimpleNamespace(path=tmp_path)
    asked = spec(value=value, lora={"r": 2}, merge_lora=False)
    run: Any = SimpleNamespace(
        config={"objective": {"name": "ppo"}, "data": {"name": "jsonl"}},
        spec=asked,
        start="tiny",
        folder=folder,
        reward=None,
        schedule=SimpleNamespace(total_steps=1),
        optim=SimpleNamespace(lr=1e-3),
        models=SimpleNamespace(roles={"value": value_network(asked, tiny_model())}),
    )
    assert card_facts(run, "value", {}, {}).adapter is adapter


def test_a_value_has_no_unit_of_a_preference() -> None:
    """Sigmoid of a difference of two values is no probability: the reward learned must not take it for one."""
    run: Any = SimpleNamespace(models=SimpleNamespace(scaled=set()))
    assert finish.unit_of(run, "value") == ""
    assert finish.unit_of(run, "reward") == "log-odds"
