"""Which options of lightning.Trainer a run takes, and what to use in place of the others. Imports nothing heavy.

Options go through to Lightning as they are. Refused is what the core plans by itself, and what would quietly give another
run than the config says: a loader that is cut short, gradients clipped before they are unscaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import ConfigError

# option -> what to use. Null, false and the values of _HARMLESS pass.
_INSTEAD = {
    "fast_dev_run": "Use +debug=one_batch: two real steps, with evaluation, checkpoint and report.",
    "overfit_batches": "Use +debug=overfit: the same few rows over and over.",
    "limit_train_batches": "Use trainer.max_steps, or data.limit.",
    "accumulate_grad_batches": "Set data.batch_size (rows per optimizer step); data.microbatch_tokens is computed at once.",
    "val_check_interval": "Use eval.every (optimizer steps).",
    "check_val_every_n_epoch": "Use eval.every (optimizer steps).",
    "num_sanity_val_steps": "Use eval.at_start.",
    "limit_test_batches": "There is no test loop; validation measures the policy.",
    "limit_predict_batches": "There is no prediction loop; samples/ has the answers to the validation prompts.",
    "enable_checkpointing": "Use checkpoint.every and checkpoint.keep.",
    "logger": "Use the group logger (logger=csv, logger=[wandb,tensorboard]); metrics.jsonl is written in any case.",
    "callbacks": "Leave it out: no config makes Accordant import code; objectives and rewards are its plugins.",
    "plugins": "Leave it out: no config makes Accordant import code; objectives and rewards are its plugins.",
    "default_root_dir": "Use run.root and run.name.",
    "max_time": "Start it with a limit: timeout 2h python -m core.run ... saves at the end; resume=auto goes on.",
    "min_steps": "Nothing ends a run early; leave it out.",
    "min_epochs": "Nothing ends a run early; leave it out.",
    "reload_dataloaders_every_n_epochs": "Leave it out: what an epoch trains on is collected when it begins.",
    "gradient_clip_algorithm": "Gradients are clipped by their norm; leave it out.",
    "barebones": "Use logger={} and eval.every to spend less time around the steps.",
    "use_distributed_sampler": "Leave it out: each process takes its share of every step.",
}
_HARMLESS = {
    "accumulate_grad_batches": (1,),
    "gradient_clip_algorithm": ("norm",),
    "reload_dataloaders_every_n_epochs": (0,),
}
_PRECISIONS = ("32-true", "32", 32, "bf16-mixed")
_STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ConfigError at an option that a run cannot take."""
    for key, value in options.items():
        if key in _INSTEAD and value is not None and value is not False and value not in _HARMLESS.get(key, ()):
            raise ConfigError(f"trainer.{key} is {value}; this is not handed to Lightning.", _INSTEAD[key])
    precision, strategy = options.get("precision", "32-true"), options.get("strategy", "auto")
    if precision is not None and precision not in _PRECISIONS:
        raise ConfigError(
            f"trainer.precision is {precision}; expected 32-true or bf16-mixed.",
            "Weights are kept as model.dtype says; bf16-mixed computes in bfloat16, and needs no loss scaling.",
        )
    if strategy not in _STRATEGIES:
        raise ConfigError(
            f"trainer.strategy is {strategy}; expected {' or '.join(_STRATEGIES[:2])}.",
            "Each process holds the whole model; what is sharded could be neither sampled from nor exported here.",
        )
    if 0 in (options.get("max_epochs"), options.get("max_steps")):
        raise ConfigError("trainer.max_epochs or trainer.max_steps is 0: nothing would be trained.", "Leave it out.")
    if options.get("max_epochs") == -1 and options.get("max_steps", -1) == -1:
        raise ConfigError(
            "trainer.max_epochs is -1 and trainer.max_steps is -1: this run would have no end.",
            "Set one of them: the learning rate falls to zero at the last step, so it must be known.",
        )
