"""Build a run from a plain config, fit it, export and report. No Hydra, no plugin's name: usable from a notebook.

from core.runfolder import RunFolder, Status
from core.train import train
with RunFolder.create("runs/mine", config) as folder:
    train(config, folder)
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch

from core import registry
from core.callbacks import Advice, Borders, Checkpoints, Position, Record, Signals
from core.checkpoint import AtomicCheckpointIO, newest_good
from core.collect import ModelContext, Reward
from core.console import Console
from core.data.load import Data, DataConfig, load_data
from core.errors import ConfigError, TrainingError
from core.evaluate import Evaluation, Evaluator, distinct_prompts
from core.export import export_policy
from core.generate import Generation
from core.layout import checkpoint_layers
from core.log import build_loggers, close_loggers, log_samples
from core.loop import Schedule, Shard, StepLoader, Surroundings, ValidationSteps
from core.modelcard import CardFacts
from core.models import Models, ModelSpec, apply_lora, load_causal_lm, load_tokenizer
from core.module import AlignmentModule
from core.objective import Objective
from core.optim import Optim
from core.paths import cache_folder
from core.provenance import hardware
from core.report import build_report
from core.runfolder import METRICS, RunFolder, Status, read_jsonl

log = logging.getLogger("accordant")


@dataclass
class Run:
    """The built parts of a run, before anything is fitted."""

    config: Mapping[str, Any]
    folder: RunFolder
    spec: ModelSpec
    policy_path: str
    objective: Objective
    rewards: list[Reward]
    reward: Reward | None
    tokenizer: Any
    models: Models
    data: Data
    schedule: Schedule
    context: ModelContext
    optim: Optim
    console: Console


def train(config: Mapping[str, Any], folder: RunFolder) -> dict[str, Any]:
    """Run a composed config in its folder. Returns the summary that the console prints and report.json holds.

    Raises:
        UserError: of any kind, with what to do; Interrupted: a signal stopped the run, its checkpoint is written.
    """
    run = build(config, folder)
    return fit(run)


def build(config: Mapping[str, Any], folder: RunFolder) -> Run:
    """Objective and rewards, data, models by role, and how the run is cut into steps."""
    console = Console(folder)
    L.seed_everything(int(config["seed"]), verbose=False)
    objective = registry.build_objective(config["objective"])
    reward = _reward(config["reward"])
    _say(objective.bind(None if reward is None else reward.name))
    spec = ModelSpec(**config["model"])
    policy_path = _policy_path(spec, config)
    tokenizer = load_tokenizer(spec.tokenizer or policy_path, None if spec.tokenizer else spec.revision)
    data_config = DataConfig(**config["data"])
    with console.status("reading data"):
        data = load_data(data_config, tokenizer, objective.reads)
    for line in data.report.lines():
        _say(line)
    folder.record(data=dataclasses.asdict(data.report), hardware=hardware())
    rewards = ([reward] if reward else []) + [_reward_by_name(name) for name in config["eval"]["rewards"]]
    for each in rewards:
        each.check_columns([*data.train, *data.validation])
    models = build_models(spec, policy_path, objective)
    schedule = plan(config, objective, len(data.train))
    optim = Optim(**config["optim"])
    if optim.lr is None:
        optim = dataclasses.replace(optim, lr=objective.default_lr * spec.lr_scale)
        _say(f"Learning rate: {optim.lr:g} (the objective's {objective.default_lr:g} x model.lr_scale {spec.lr_scale:g}).")
    context = ModelContext(
        models,
        tokenizer,
        generation=Generation(**config["generation"]),
        reward=reward,
        seed=int(config["seed"]),
        microbatch_tokens=data_config.microbatch_tokens,
        cache_folder=cache_folder() / "token_logps",
        note=lambda text: folder.note(0, "info", "collection", text),
        progress=console.collecting,
    )
    return Run(
        config=config,
        folder=folder,
        spec=spec,
        policy_path=policy_path,
        objective=objective,
        rewards=rewards,
        reward=reward,
        tokenizer=tokenizer,
        models=models,
        data=data,
        schedule=schedule,
        context=context,
        optim=optim,
        console=console,
    )


def _say(text: str) -> None:
    if text:
        log.info(text)


def _reward(options: Mapping[str, Any]) -> Reward | None:
    source = registry.build_reward(options)
    return None if source is None else Reward(str(options["name"]), source)


def _reward_by_name(name: str) -> Reward:
    reward = _reward({"name": name})
    if reward is None:
        raise ConfigError(f"eval.rewards names {name!r}, which is no reward.", "Leave it out.")
    return reward


def _policy_path(spec: ModelSpec, config: Mapping[str, Any]) -> str:
    """The folder or hub id that the policy starts from; the pocket model is made, warmed up and cached on first use."""
    if spec.policy is not None:
        return spec.policy
    if spec.name != "pocket":
        raise ConfigError("model.policy is not set.", "Give a folder or a hub id: model.policy=path/to/model.")
    from core.warmup import pocket_policy

    return str(pocket_policy())


def build_models(spec: ModelSpec, policy_path: str, objective: Objective) -> Models:
    """The roles that the objective declares. A LoRA policy is its own reference, with the adapter off."""
    policy = load_causal_lm(policy_path, dtype=spec.dtype, revision=spec.revision)
    if spec.gradient_checkpointing:
        checkpoint_layers(policy)
    roles: dict[Any, Any] = {}
    if "reference" in objective.frozen and spec.reference is not None:
        roles["reference"] = load_causal_lm(spec.reference, dtype=spec.dtype)
    elif "reference" in objective.frozen and spec.lora is None:
        roles["reference"] = copy.deepcopy(policy)
    if spec.lora is not None:
        policy = apply_lora(policy, spec.lora)
    return Models({"policy": policy, **roles}, trains=objective.trains, layout=spec.layout)


def plan(config: Mapping[str, Any], objective: Objective, rows: int) -> Schedule:
    """How many rows, steps and epochs."""
    data, trainer = config["data"], config["trainer"]
    per_epoch = int(data.get("rows_per_epoch") or rows)
    return Schedule(
        rows=rows,
        rows_per_epoch=min(per_epoch, rows),
        batch_size=min(int(data["batch_size"]), rows),
        epochs=int(trainer["max_epochs"]),
        passes=int(getattr(objective, "passes", 1)),
        max_steps=int(trainer.get("max_steps", -1)),
        seed=int(config["seed"]),
    )


def fit(run: Run) -> dict[str, Any]:
    """Train, from the newest good checkpoint where the folder has one; evaluate before and after; export; report."""
    module = AlignmentModule(run.objective, run.models, run.optim, run.schedule)
    loggers = build_loggers(run.config, run.folder)
    signals, trainer = assemble(run, module, loggers)
    validation = ValidationSteps(run.objective, run.data.validation, run.context, run.schedule.batch_size)
    resume = newest_good(run.folder.path / "checkpoints")
    status: Status = "failed"
    reason = ""
    try:
        if resume is not None:
            run.folder.rewind(step_of(resume))
            log.info("Resuming from %s.", resume.name)
        elif run.folder.facts["sessions"] > 1:
            run.folder.rewind(-1)  # it ended before its first checkpoint: what it wrote is written again
        if resume is None and run.config["eval"]["at_start"]:
            trainer.validate(module, validation, verbose=False)
        trainer.fit(module, val_dataloaders=validation, ckpt_path=resume, weights_only=True)
        if not validated(run.folder, run.schedule.total_steps):
            trainer.validate(module, validation, verbose=False)
        summary = finish(run)
        status = "finished"
    except BaseException as error:
        status = "stopped" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, torch.OutOfMemoryError):
            raise out_of_memory(error) from error
        raise
    finally:
        signals.restore()
        # On a full disk the last words cannot be written either: that must not hide why the run ended.
        with contextlib.suppress(OSError) if status == "failed" else contextlib.nullcontext():
            close_loggers(loggers, status)
            run.folder.finish(status, reason)
            build_report(run.folder.path)
    return summary


def out_of_memory(error: BaseException) -> TrainingError:
    """What to turn when a device has no memory left."""
    return TrainingError(
        f"the device has no memory left: {str(error).splitlines()[0]}",
        "Halve data.microbatch_tokens (the result stays the same), set model.gradient_checkpointing=true, lower "
        "generation.batch_rows where sampling failed, or train an adapter (model.lora).",
    )


def validated(folder: RunFolder, step: int) -> bool:
    """Has a step been evaluated, now or before the run was resumed?"""
    records = read_jsonl(folder.path / METRICS)
    return any(r.get("split") == "validation" and r.get("step") == step for r in records)


def eval_interval(run: Run) -> int:
    """Steps between evaluations: `eval.every`, else ten in a run."""
    return int(run.config["eval"]["every"] or max(1, run.schedule.total_steps // 10))


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("step_"))


def assemble(run: Run, module: AlignmentModule, loggers: Sequence[Any]) -> tuple[Signals, L.Trainer]:
    """The trainer with its callbacks; the module gets its loader."""
    options = {k: v for k, v in run.config["trainer"].items() if k not in ("max_epochs", "max_steps")}
    total, log_every = run.schedule.total_steps, int(options.get("log_every_n_steps", 10))
    every = eval_interval(run)
    checkpoints = Checkpoints(
        run.folder.path / "checkpoints",
        int(run.config["checkpoint"]["every"] or every),
        int(run.config["checkpoint"]["keep"]),
    )
    signals = Signals(checkpoints.save)
    borders = Borders(evaluator(run, loggers), lambda step: step % every == 0, checkpoints, signals)
    advice = Advice(lambda step, text: run.folder.note(step, "advice", run.objective.__class__.__name__.lower(), text))
    progress = run.console.callbacks() if options.get("enable_progress_bar", True) else []
    trainer = L.Trainer(
        **{"enable_model_summary": False, **options},
        max_epochs=1,
        max_steps=total,
        val_check_interval=min(every, total),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        default_root_dir=str(run.folder.path),
        plugins=[AtomicCheckpointIO()],
        logger=list(loggers),
        callbacks=[Position(), signals, Record(log_every), borders, advice, *progress],
    )
    loader = StepLoader(
        run.objective,
        run.data.train,
        run.schedule,
        run.context,
        Surroundings(
            start=lambda: module.steps_done,
            rollouts=run.folder.path / "rollouts",
            shard=lambda: Shard(trainer.global_rank, trainer.world_size),
            poll=signals.poll,
        ),
    )
    module.loader = lambda: loader
    run.models.autocast_dtype = _autocast_dtype(trainer.precision)
    return signals, trainer


def _autocast_dtype(precision: str) -> torch.dtype | None:
    """Collection computes in training's precision: log-probs of another one would not be the policy's."""
    return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)


def evaluator(run: Run, loggers: Sequence[Any]) -> Evaluator:
    """Validation by generation on the first distinct prompts of the validation rows (else of the training rows)."""
    rows = run.data.validation or run.data.train
    prompts = distinct_prompts(rows, int(run.config["eval"]["prompts"])) if run.objective.generates else []

    def record(step: int, seen: Evaluation) -> None:
        log_samples(loggers, step, seen.records)
        run.console.samples(step, seen.records[: int(run.config["eval"]["samples"])])

    return Evaluator(prompts, run.context, run.rewards, record)


def finish(run: Run) -> dict[str, Any]:
    """Export what was trained, and say what changed."""
    before, after = run.folder.first_and_last_validation()
    facts = card_facts(run, before, after)
    policy = export_policy(run.models, run.tokenizer, run.folder, facts, merge_lora=run.spec.merge_lora)
    run.console.summary(before, after, policy)
    return {"before": before, "after": after, "policy": str(policy), "report": str(run.folder.path / "report.html")}


def card_facts(run: Run, before: Mapping[str, float], after: Mapping[str, float]) -> CardFacts:
    """What the model card says of this run."""
    options = {k: v for k, v in run.config["objective"].items() if k != "name"}
    data = run.config["data"]
    return CardFacts(
        name=run.folder.path.name,
        objective=str(run.config["objective"]["name"]),
        reward="" if run.reward is None else run.reward.name,
        base_model=run.policy_path,
        data=f"{data['name']} {data.get('path') or ''}".strip(),
        before=before,
        after=after,
        settings={"optimizer steps": run.schedule.total_steps, "learning rate": run.optim.lr, **options},
        adapter=run.spec.lora is not None and not run.spec.merge_lora,
    )
