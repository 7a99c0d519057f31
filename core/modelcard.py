"""The README.md of an exported model: what it is, what it was trained on, what changed, how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml  # type: ignore[import-untyped]

from core import __version__
from core.redact import Redactor
from core.report.changes import changes, show
from core.text import visible

_KINDS = {"language": "language model", "reward": "reward model", "value": "value network"}


@dataclass(frozen=True)
class CardFacts:
    """What a model card says. Empty parts are left out of the card.

    Attributes:
        name: the run's name.
        objective: e.g. "dpo".
        reward: its name; "" or "none" where there was none.
        base_model: where the policy started: a hub id or a folder.
        data: a sentence or a source, e.g. "sandbox" or "helpful_pairs.jsonl".
        before: validation metrics before training.
        after: validation metrics after training.
        settings: a few that matter, e.g. {"steps": 240, "learning rate": 5e-4, "beta": 0.1}.
        licence: of the model; it follows from the base model and the data, which only the user knows.
        model_class: the class of transformers that loads it.
        adapter: True where the folder holds a LoRA adapter and not the whole model.
        heads: of a reward model with a head for each group: the groups.
        value: True of a value network, which has the layout of a reward model and another use.
    """

    name: str
    objective: str
    reward: str = ""
    base_model: str = ""
    data: str = ""
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""
    model_class: str = "AutoModelForCausalLM"
    adapter: bool = False
    heads: Sequence[str] = ()
    value: bool = False


def model_card(facts: CardFacts) -> str:
    """Markdown with the YAML head that the Hugging Face hub reads. Secrets are masked, text of data is escaped."""
    clean = Redactor.of()
    reward = "" if facts.reward in ("", "none") else facts.reward
    trained = f"with the objective **{_md(facts.objective)}**" + (f" and the reward **{_md(reward)}**" if reward else "")
    base = f" It started from `{_code(facts.base_model)}`." if facts.base_model else ""
    data = f" Data: {_md(facts.data)}." if facts.data else ""
    sections = [
        _front_matter(facts, reward),
        f"# {_md(facts.name)}\n\nA {_KINDS[_kind(facts)]} trained {trained} by Accordant {__version__}.{base}{data}",
        _changed(facts),
        _settings(facts.settings),
        _loading(facts),
        _licence(facts.licence),
    ]
    return clean.text("\n\n".join(section for section in sections if section) + "\n")


def _kind(facts: CardFacts) -> str:
    if facts.model_class == "AutoModelForCausalLM":
        return "language"
    return "value" if facts.value else "reward"


def _front_matter(facts: CardFacts, reward: str) -> str:
    head: dict[str, Any] = {
        "library_name": "peft" if facts.adapter else "transformers",
        "tags": ["accordant", "alignment", facts.objective, *([f"reward-{reward}"] if reward else [])],
    }
    if _kind(facts) != "value":  # no task of the hub is a value network's
        head["pipeline_tag"] = "text-generation" if _kind(facts) == "language" else "text-classification"
    if _is_hub_id(facts.base_model):
        head["base_model"] = facts.base_model
    if facts.licence:
        head["license"] = facts.licence
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _changed(facts: CardFacts) -> str:
    found = changes(facts.before, facts.after)
    if not found:
        return ""
    rows = [f"| {_md(c.label)}{f' ({c.unit})' if c.unit else ''} | {show(c.before)} | {show(c.after)} |" for c in found]
    intro = "## Before and after\n\nMeasured on the validation prompts of the run.\n"
    return "\n".join([intro, "| | before | after |", "|---|---|---|", *rows])


def _settings(settings: Mapping[str, Any]) -> str:
    rows = [f"| {_md(name)} | {_md(value)} |" for name, value in settings.items()]
    return "\n".join(["## Training", "", "| setting | value |", "|---|---|", *rows]) if rows else ""


def _loading(facts: CardFacts) -> str:
    name = facts.model_class.replace("AutoModel", "AutoPeftModel") if facts.adapter else facts.model_class
    package = "peft" if facts.adapter else "transformers"
    lines: Sequence[str] = (
        "from transformers import AutoTokenizer",
        f"from {package} import {name}",
        "",
        f'model = {name}.from_pretrained("path/to/this/folder"{_labels(facts)})',
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
    )
    note = "\n\nThis folder holds a LoRA adapter: the package `peft` must be installed." if facts.adapter else ""
    if _kind(facts) == "reward":
        note += (
            f"\n\nThe score is the model's {_logit(facts)}, read at the last token of prompt and response, plus the "
            "constant `bias` of `reward.json` (which changes no comparison). In Accordant: `reward=learned reward.path=...`."
        )
    if _kind(facts) == "value":
        note += (
            "\n\nIts head gives a number at each token of an answer, plus the constant `bias` of `reward.json`: what the "
            "answer so far can still expect, of score and KL penalty together. It belongs to the policy beside it, and "
            "says nothing of how good an answer is. The class above reads the last token alone. In Accordant: "
            "`model.value=...`, to train on with."
        )
    return "## How to load it\n\n```python\n" + "\n".join(lines) + "\n```" + note


def _labels(facts: CardFacts) -> str:
    return f", num_labels={max(1, len(facts.heads))}" if facts.adapter and _kind(facts) != "language" else ""


def _logit(facts: CardFacts) -> str:
    if not facts.heads:
        return "one logit"
    return f"logit for the group whose judgement is asked ({', '.join(map(_md, facts.heads))})"


def _licence(licence: str) -> str:
    if licence:
        return f"## Licence\n\n{_md(licence)}"
    return (
        "## Licence\n\nNot stated. It follows from the licences of the base model and of the data; whoever publishes this "
        "model must find out and write it here."
    )


def _is_hub_id(name: str) -> bool:
    owner, _, model = name.partition("/")
    return bool(owner and model) and "/" not in model and not owner.startswith((".", "~"))


def _md(value: Any) -> str:
    """Text that stays text in a Markdown paragraph or table."""
    text = " ".join(visible(value).split()).replace("\\", "\\\\")
    for character in "|<>`*_[]":
        text = text.replace(character, f"\\{character}")
    return text


def _code(value: str) -> str:
    return " ".join(visible(value).split()).replace("`", "'")
