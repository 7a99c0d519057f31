"""Small real things for tests: a tiny model, its tokenizer, rows, and a run built from them without a config file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from core.build import Run
from core.collect import ModelContext, Reward
from core.console import Console
from core.data.load import Data, DataReport
from core.loop import Schedule
from core.models import Models
from core.rows import Response, Row
from core.runfolder import RunFolder
from core.settings import Generation, ModelSpec, Optim
from core.trial import of_role

VOCAB = 64


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Words w0..w60, one token each; end token </s> = 1, padding <pad> = 0."""
    vocab = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"w{i}": i + 3 for i in range(VOCAB - 3)}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def tiny_model(seed: int = 0, **changes: Any) -> Any:
    """A random Llama of two layers and width 32."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "initializer_range": 0.2,
    }
    return AutoModelForCausalLM.from_config(LlamaConfig(**(settings | changes)))


def random_rows(count: int, responses: int, seed: int = 0, longest: int = 9) -> list[Row]:
    """Rows of random tokens; the first response is the better one; every fifth masked token or so is False."""
    draw = random.Random(seed)

    def tokens(length: int) -> list[int]:
        return [draw.randrange(3, VOCAB) for _ in range(length)]

    rows = []
    for i in range(count):
        prompt = tokens(draw.randint(1, longest))
        answers = []
        for _ in range(responses):
            length = draw.randint(2, longest)
            mask = [draw.random() < 0.8 for _ in range(length - 1)] + [True]
            answer = tokens(length)
            answers.append(Response(answer, mask, " ".join(f"w{t - 3}" for t in answer)))
        rows.append(Row(f"row-{i}", prompt, tuple(answers), prompt_text=" ".join(f"w{t - 3}" for t in prompt)))
    return rows


def tiny_config(**changes: Any) -> dict[str, Any]:
    """The keys that `core.train.fit` reads."""
    config = {
        "seed": 7,
        "objective": {"name": "test"},
        "reward": {"name": "none"},
        "data": {"name": "test", "batch_size": 4, "microbatch_tokens": 60},
        "eval": {"every": 4, "at_start": True, "prompts": 3, "samples": 0, "rewards": []},
        "checkpoint": {"every": None, "keep": 100},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "devices": 1, "gradient_clip_val": 1.0, "log_every_n_steps": 1},
        "logger": {},
        "plugins": {"prefer": {}},
        "run": {},
    }
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    return config


def tiny_run(
    path: Path,
    objective: Any,
    train: list[Row],
    validation: list[Row] | None = None,
    *,
    reward: Any = None,
    model: Any = None,
    folder: RunFolder | None = None,
    lr: float = 0.01,
    layout: str = "auto",
    **changes: Any,
) -> Run:
    """A built run on a tiny model, as `core.build.build` would give it. `reward`: a RewardSource."""
    config = tiny_config(**changes)
    folder = folder or RunFolder.create(path, config)
    composed = None if reward is None else Reward("test", reward)
    objective.bind(None if composed is None else "test")
    policy = model or tiny_model()
    declared = sorted(objective.trains | objective.frozen)
    roles = {role: policy if role == "policy" else of_role(role, policy) for role in declared}
    built = Models(roles, trains=objective.trains, layout=layout)
    tokenizer = tiny_tokenizer()
    schedule = Schedule(
        rows=len(train),
        rows_per_epoch=int(config["data"].get("rows_per_epoch") or len(train)),
        batch_size=config["data"]["batch_size"],
        epochs=config["trainer"]["max_epochs"],
        passes=objective.passes,
        max_steps=config["trainer"].get("max_steps", -1),
        seed=config["seed"],
    )
    context = ModelContext(
        built,
        tokenizer,
        generation=Generation(max_new_tokens=8),
        reward=composed,
        seed=config["seed"],
        microbatch_tokens=config["data"]["microbatch_tokens"],
        cache_folder=path.parent / "cache",
    )
    return Run(
        config=config,
        folder=folder,
        spec=ModelSpec(policy="tiny"),
        start="tiny",
        objective=objective,
        rewards=[composed] if composed else [],
        reward=composed,
        tokenizer=tokenizer,
        models=built,
        data=Data(train, validation or [], DataReport(), prompts=[r.with_responses([]) for r in validation or train]),
        schedule=schedule,
        context=context,
        optim=Optim(lr=lr, warmup_ratio=0.1),
        console=Console(folder),
    )
