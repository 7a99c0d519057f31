import csv
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from core.errors import ConfigError
from core.log import JsonlLogger, build_loggers, close_loggers, log_samples
from core.log.wandb import samples_history
from core.logger_options import WandbSettings
from core.runfolder import RunFolder, read_jsonl

CANARY = "Qz7canaryQz7canaryQz7"
SAMPLES = [
    {"id": "b", "prompt": "Hi?", "response": "Hello.", "finished": True, "tokens": 3, "scores": {"length": 3.0}},
    {"id": "a", "prompt": "No?", "response": "Yes", "finished": False, "tokens": 2, "scores": {"length": 2.0, "gold": None}},
]


def folder_of(tmp_path: Path, config: dict[str, Any] | None = None) -> RunFolder:
    return RunFolder.create(tmp_path / "run", config or {"seed": 1})


def lines(folder: RunFolder) -> list[dict[str, Any]]:
    return list(read_jsonl(folder.path / "metrics.jsonl"))


def test_a_line_has_the_promised_shape(tmp_path):
    folder = folder_of(tmp_path)
    JsonlLogger(folder).log_metrics(
        {"loss": 0.5, "epoch": 2, "hp_metric": -1.0, "kl": float("nan"), "completions/mean_length": 3}, 7
    )
    text = (folder.path / "metrics.jsonl").read_text()
    record = json.loads(text)
    assert 0 <= record.pop("time") < 60
    assert list(record.items()) == [
        ("step", 7),
        ("epoch", 2.0),
        ("split", "train"),
        ("completions/mean_length", 3.0),
        ("kl", None),
        ("loss", 0.5),
    ]


def test_splits_become_lines_of_their_own(tmp_path):
    folder = folder_of(tmp_path)
    logger = JsonlLogger(folder)
    logger.log_metrics({"validation/loss": 1.5, "loss": 1.0, "epoch": 0.0}, 3)
    logger.log_metrics({"epoch": 1}, 4)  # Lightning's own word only: nothing to say
    logger.log_metrics({"step": 5.0, "val/ratio": 1.0})  # the value function's ratio, not validation
    assert [(r["step"], r["split"]) for r in lines(folder)] == [(3, "train"), (3, "validation"), (5, "train")]
    assert [r.get("loss") for r in lines(folder)] == [1.0, 1.5, None]


class Tiny(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        loss = self.layer(batch).square().mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("validation/loss", self.layer(batch).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_csv_and_tensorboard_together(tmp_path):
    folder = folder_of(tmp_path)
    loggers = build_loggers({"logger": {"csv": None, "tensorboard": {}}}, folder)
    loader = DataLoader(torch.ones(4, 1), batch_size=1)
    trainer = L.Trainer(
        max_epochs=2, logger=loggers, log_every_n_steps=1, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, accelerator="cpu", num_sanity_val_steps=1,
    )  # fmt: skip
    trainer.fit(Tiny(), loader, loader)
    loggers[2].log_hyperparams({"api_key": CANARY})
    close_loggers(loggers, "finished")
    records = lines(folder)
    assert [r["split"] for r in records] == ["train"] * 4 + ["validation"] + ["train"] * 4 + ["validation"]
    assert all(list(r) == ["step", "epoch", "time", "split", "loss"] for r in records)
    with (folder.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(int(r["step"]), r["split"], float(r["loss"])) for r in rows] == [
        (r["step"], r["split"], r["loss"]) for r in records
    ]
    events = list((folder.path / "tensorboard").glob("events.*"))
    assert events
    assert not [p for p in folder.path.rglob("*") if p.is_file() and CANARY.encode() in p.read_bytes()]


def test_unknown_loggers_and_settings_are_told(tmp_path):
    folder = folder_of(tmp_path)
    with pytest.raises(ConfigError, match='Did you mean "wandb"'):
        build_loggers({"logger": {"wanbd": {}}}, folder)
    with pytest.raises(ConfigError, match="no settings, got path"):
        build_loggers({"logger": {"csv": {"path": "x"}}}, folder)
    with pytest.raises(ConfigError, match='Did you mean "project"'):
        build_loggers({"logger": {"wandb": {"projct": "x"}}}, folder)
    with pytest.raises(ConfigError, match="mode=cloud"):
        build_loggers({"logger": {"wandb": {"mode": "cloud"}}}, folder)


def test_a_missing_package_is_told_with_the_pip_line(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as info:
        build_loggers({"logger": {"wandb": {}}}, folder_of(tmp_path))
    assert 'pip install "accordant[wandb]"' in info.value.hint


def test_the_run_group_fills_what_wandb_is_not_told():
    run = {"name": "first", "group": "seeds", "tags": ["a", "b"], "root": "runs"}
    settings = WandbSettings.of({"tags": ["b", "c"], "name": "other", "group": None}, run)
    assert (settings.name, settings.group, settings.tags) == ("other", "seeds", ("a", "b", "c"))


def test_the_history_of_samples_is_keyed_by_prompt_and_bounded(tmp_path):
    folder = folder_of(tmp_path)
    logger = JsonlLogger(folder)
    for step in (0, 10):
        log_samples([logger], step, SAMPLES)
    keys = [(s["id"], at) for at, s in samples_history(folder.path, 10, SAMPLES)]
    assert keys == [("a", 0), ("a", 10), ("b", 0), ("b", 10)]
    for step in range(20, 30):
        log_samples([logger], step, SAMPLES * 50)
    rows = samples_history(folder.path, 29, SAMPLES * 50)
    assert len(rows) <= 600
    assert {0, 29} <= {at for at, _ in rows}


# -- W&B ----------------------------------------------------------------------------------------------------------------

JOB = """
import json, os, signal, sys, time
import psutil
from core.log import build_loggers, close_loggers, log_samples
from core.runfolder import RunFolder

path, what, settings, samples = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
secret = os.environ["JUDGE_API_KEY"]
config = {"logger": {"wandb": settings}, "run": {"tags": ["t1"], "group": "g"}, "reward": {"api_key": secret}, "seed": 1}
started = time.monotonic()
for number in range(2 if what == "twice" else 1):
    folder = RunFolder.create(f"{path}{number}" if what == "twice" else path, config)
    for session in range(2 if what == "resume" else 1):
        if session:
            folder = RunFolder.reopen(path, config)
        loggers = build_loggers(config, folder)
        loggers[1].log_hyperparams({"api_key": secret})
        for step in (1, 2):
            for logger in loggers:
                logger.log_metrics({"loss": 1 / step, "epoch": 0.0, "validation/loss": 2.0}, step)
            if what == "dies":
                for child in psutil.Process().children(recursive=True):
                    child.kill()
                time.sleep(0.3)
        log_samples(loggers, 2, samples)
        close_loggers(loggers, "finished")
        folder.finish("finished")
print("seconds", time.monotonic() - started)
"""


def job(
    path: Path, what: str, environment: dict[str, str] | None = None, **settings: Any
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    clean.update(JUDGE_API_KEY=CANARY, **(environment or {}))
    arguments = [sys.executable, "-c", JOB, str(path), what, json.dumps(settings), json.dumps(SAMPLES)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=clean, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert CANARY not in done.stdout + done.stderr
    return done


def wandb_records(file: Path) -> list[Any]:
    """The records of an offline `.wandb` file: LevelDB's log framing (7-byte header, 32 KiB blocks), protobuf inside."""
    record_pb2 = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    data, at, parts, out = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = record_pb2.Record()
            record.ParseFromString(parts)
            out.append(record)
            parts = b""
    return out


def items(record: Any) -> dict[str, Any]:
    return {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}


def offline_files(path: Path) -> list[Path]:
    return sorted(path.glob("wandb/offline-run-*/run-*.wandb"))


def no_canary(path: Path) -> bool:
    return not [p for p in path.rglob("*") if p.is_file() and CANARY.encode() in p.read_bytes()]


def test_wandb_offline_gets_every_metric_and_no_secret(tmp_path):
    pytest.importorskip("wandb")
    path = tmp_path / "run"
    job(path, "once", mode="offline", project="p", job_type="train", tags=["t2"])
    (file,) = offline_files(path)
    records = wandb_records(file)
    (run,) = [r.run for r in records if r.HasField("run")][:1]
    assert (run.project, run.run_group, run.job_type, list(run.tags)) == ("p", "g", "train", ["t1", "t2"])
    assert run.display_name == "run"
    config = {u.key or u.nested_key[0]: json.loads(u.value_json) for u in run.config.update}
    assert config["reward"] == {"api_key": "<redacted>"}
    history = [items(r) for r in records if r.HasField("history")]
    plain = [h for h in history if "loss" in h]
    assert [(h["step"], h["loss"], h["validation/loss"]) for h in plain] == [(1, 1.0, 2.0), (2, 0.5, 2.0)]
    axes = {r.metric.glob_name or r.metric.name: r.metric.step_metric for r in records if r.HasField("metric")}
    assert axes["*"] == "step"
    (table,) = path.glob("wandb/offline-run-*/files/media/table/samples*.table.json")
    table = json.loads(table.read_text())
    assert table["columns"] == ["id", "step", "prompt", "response", "finished", "tokens", "gold", "length"]
    assert table["data"] == [["a", 2, "No?", "Yes", False, 2, None, 2.0], ["b", 2, "Hi?", "Hello.", True, 3, None, 3.0]]
    assert no_canary(path)


def test_wandb_keeps_its_id_after_a_resume_and_jobs_of_a_sweep_get_their_own(tmp_path):
    pytest.importorskip("wandb")
    job(tmp_path / "run", "resume", mode="offline")
    files = offline_files(tmp_path / "run")
    assert len(files) == 2
    assert len({f.name for f in files}) == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["wandb"]["id"] in files[0].name
    job(tmp_path / "sweep", "twice", mode="offline")
    first, second = offline_files(tmp_path / "sweep0"), offline_files(tmp_path / "sweep1")
    assert len(first) == len(second) == 1
    assert first[0].name != second[0].name


def test_wandb_away_costs_one_warning(tmp_path):
    pytest.importorskip("wandb")
    path = tmp_path / "run"
    where = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0123456789" * 4}
    done = job(path, "once", where, mode="online", timeout=2)
    assert float(done.stdout.split()[-1]) < 15
    notes = list(read_jsonl(path / "notes.jsonl"))
    assert [n["topic"] for n in notes] == ["wandb"]
    assert "could not start" in notes[0]["text"]
    assert "mode=offline" in notes[0]["text"]
    assert [r["loss"] for r in read_jsonl(path / "metrics.jsonl") if r["split"] == "train"] == [1.0, 0.5]


def test_wandb_dying_in_the_middle_costs_one_warning(tmp_path):
    pytest.importorskip("wandb")
    path = tmp_path / "run"
    job(path, "dies", mode="offline")
    notes = list(read_jsonl(path / "notes.jsonl"))
    assert [n["topic"] for n in notes] == ["wandb"]
    assert [r["step"] for r in read_jsonl(path / "metrics.jsonl") if r["split"] == "train"] == [1, 2]


def test_wandb_disabled_leaves_nothing(tmp_path):
    pytest.importorskip("wandb")
    path = tmp_path / "run"
    job(path, "once", mode="disabled")
    assert not (path / "wandb").exists()
    assert not (path / "notes.jsonl").exists()
