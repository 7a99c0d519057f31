"""Lightning's options that users try: they work, or say what to use instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.checkpoint import checkpoints_in
from core.errors import ConfigError
from core.trainer_options import check_options
from tests.trials import metrics_of, trial

REFUSED = [
    ({"fast_dev_run": True}, "+debug=one_batch"),
    ({"fast_dev_run": 3}, "+debug=one_batch"),
    ({"overfit_batches": 1}, "+debug=overfit"),
    ({"overfit_batches": 0.1}, "+debug=overfit"),
    ({"limit_train_batches": 2}, "trainer.max_steps"),
    ({"accumulate_grad_batches": 2}, "data.batch_size"),
    ({"val_check_interval": 2}, "eval.every"),
    ({"logger": True}, "logger=csv"),
    ({"callbacks": []}, "plugins"),
    ({"max_time": "00:01:00:00"}, "timeout 2h"),
    ({"gradient_clip_algorithm": "value"}, "norm"),
    ({"precision": "16-mixed"}, "bf16-mixed"),
    ({"precision": "bf16-true"}, "model.dtype"),
    ({"precision": 16}, "bf16-mixed"),
    ({"strategy": "fsdp"}, "whole model"),
    ({"strategy": "ddp_spawn"}, "whole model"),
    ({"max_epochs": -1}, "Set one of them"),
]


@pytest.mark.parametrize(("options", "hint"), REFUSED)
def test_refused_with_what_to_use_instead(options: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match=rf"trainer\.{next(iter(options))} is ") as error:
        check_options(options)
    assert hint in error.value.hint


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 1},
        {"fast_dev_run": False, "overfit_batches": None, "gradient_clip_algorithm": "norm"},
        {"precision": 32, "strategy": "ddp"},
        {"max_epochs": -1, "max_steps": 3},
        {},
    ],
)
def test_values_that_change_nothing_pass(options: dict[str, Any]) -> None:
    check_options(options)


def test_what_lightning_refuses_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="abacus"):
        trial(tmp_path / "run", "sft", trainer={"accelerator": "abacus"})


def test_a_run_from_python_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="overfit_batches"):
        trial(tmp_path / "run", "sft", trainer={"overfit_batches": 1})


def test_an_unknown_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'trainer\.benchmrk is not an option .* Did you mean "benchmark"'):
        trial(tmp_path / "run", "sft", trainer={"benchmrk": True})


@pytest.mark.parametrize(
    "options",
    [
        {"profiler": "simple"},
        {"detect_anomaly": True, "deterministic": True},
        {"gradient_clip_val": None, "limit_val_batches": None, "benchmark": None, "profiler": None},
        {"enable_model_summary": True, "enable_progress_bar": False, "log_every_n_steps": 3},
        {"limit_val_batches": 1, "inference_mode": False},
    ],
)
def test_options_that_work(tmp_path: Path, options: dict[str, Any]) -> None:
    done = trial(tmp_path / "run", "sft", trainer={**options, "max_epochs": 1})
    assert sorted(done.rows) == list(range(5))
    records = metrics_of(tmp_path / "run")
    assert [r["step"] for r in records if r["split"] == "validation"] == [0, 4, 5]
    assert (tmp_path / "run" / "policy" / "model.safetensors").exists()


def test_without_validation_checkpoints_are_still_written(tmp_path: Path) -> None:
    """The border of a step must not wait for a validation that never comes."""
    trial(tmp_path / "run", "sft", trainer={"limit_val_batches": 0})
    assert [p.name for p in checkpoints_in(tmp_path / "run" / "checkpoints")] == [
        f"step_{step:08d}.ckpt" for step in (4, 8, 10)
    ]
    assert {r["split"] for r in metrics_of(tmp_path / "run")} == {"train"}


@pytest.mark.parametrize(("options", "steps"), [({"max_steps": 3}, 3), ({"max_epochs": -1, "max_steps": 7}, 7)])
def test_max_steps_is_the_end_of_the_plan(tmp_path: Path, options: dict[str, int], steps: int) -> None:
    done = trial(tmp_path / "run", "sft", trainer=options)
    assert sorted(done.rows) == list(range(steps))
