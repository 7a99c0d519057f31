import yaml

from core import __version__
from core.modelcard import CardFacts, model_card

FACTS = CardFacts(
    name="dpo-length",
    objective="dpo",
    reward="length",
    base_model="org/tiny-model",
    data="sandbox",
    before={"rewards/length/mean": 9.4, "completions/mean_length": 9.4},
    after={"rewards/length/mean": 25.75, "completions/mean_length": 26.5, "objective/kl": 2.9},
    settings={"steps": 240, "beta": 0.1},
)


def test_the_head_is_what_the_hub_reads():
    head = yaml.safe_load(model_card(FACTS).split("---")[1])
    assert head == {
        "library_name": "transformers",
        "tags": ["accordant", "alignment", "dpo", "reward-length"],
        "pipeline_tag": "text-generation",
        "base_model": "org/tiny-model",
    }


def test_the_card_tells_what_changed_and_how_to_load():
    card = model_card(FACTS)
    assert "| length reward | 9.4 | 25.8 |" in card
    assert "| KL from the reference (nats) | – | 2.9 |" in card
    assert 'AutoModelForCausalLM.from_pretrained("' in card
    assert f"Accordant {__version__}" in card
    assert "Not stated." in card
    assert "| steps | 240 |" in card


def test_adapters_local_folders_and_a_licence():
    card = model_card(CardFacts("a", "sft", "none", "/data/models/x", licence="mit", adapter=True))
    head = yaml.safe_load(card.split("---")[1])
    assert head == {
        "library_name": "peft",
        "tags": ["accordant", "alignment", "sft"],
        "pipeline_tag": "text-generation",
        "license": "mit",
    }
    assert "reward" not in card
    assert "`peft` must be installed" in card


def test_hostile_names_and_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "canary-canary-canary")
    card = model_card(CardFacts("a|b<script>\n# x", "dpo", data="https://u:p@host canary-canary-canary"))
    assert "# a\\|b\\<script\\> # x\n" in card
    assert "canary" not in card
    assert "u:p@" not in card


def test_a_reward_model_with_a_head_for_each_group():
    facts = {"name": "a", "objective": "reward_bt", "model_class": "AutoModelForSequenceClassification"}
    assert "the model's one logit, read" in model_card(CardFacts(**facts))
    card = model_card(CardFacts(**facts, heads=("old", "new"), adapter=True))
    assert "the model's logit for the group whose judgement is asked (old, new), read" in card
    assert 'AutoPeftModelForSequenceClassification.from_pretrained("path/to/this/folder", num_labels=2)' in card


def test_a_value_network_is_no_reward_model():
    card = model_card(CardFacts("a", "ppo", reward="gold", model_class="AutoModelForSequenceClassification", value=True))
    assert "A value network trained with the objective **ppo**" in card
    assert "`model.value=...`" in card
    assert "reward=learned" not in card
    assert "pipeline_tag" not in yaml.safe_load(card.split("---")[1])
