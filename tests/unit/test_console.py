import io
import logging
import os
import re
import subprocess
import sys
import warnings

import lightning as L
import pytest
import rich.console
import rich.progress
import torch
from torch.utils.data import DataLoader

from core.console import Console, _columns
from core.log import JsonlLogger
from core.progress import progress_text
from core.runfolder import RunFolder

RECORD = {"id": "a", "prompt": "Name\nthree fruits.", "response": "[red]apple[/red]\x1b[31m pear " + "x" * 500, "tokens": 9}


def written(console: Console) -> str:
    return console.rich.file.getvalue()


@pytest.fixture
def console():
    console = Console(stream=io.StringIO())
    yield console
    logging.getLogger("accordant").handlers.clear()


class Tiny(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.frozen = torch.nn.Linear(1, 1).eval()

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        loss = self.layer(batch).square().mean()
        self.log("loss", loss)
        self.log("secondary", 1.0)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(console: Console, **options: object) -> None:
    trainer = L.Trainer(
        max_steps=8, logger=False, enable_checkpointing=False, enable_model_summary=False, accelerator="cpu",
        callbacks=console.callbacks(), **options,
    )  # fmt: skip
    trainer.fit(Tiny(), DataLoader(torch.ones(8, 1), batch_size=1))


def test_without_a_terminal_there_are_few_plain_lines_and_no_noise(console, capfd, caplog):
    with warnings.catch_warnings(record=True) as caught:
        fit(console, log_every_n_steps=4)
    lines = [line for line in written(console).splitlines() if line]
    assert len(lines) == 2
    assert re.fullmatch(r"step 4/8  loss \S+  \d+ s left", lines[0])
    assert lines[1].startswith("step 8/8  loss")
    assert "\x1b" not in written(console)
    assert not [str(w.message) for w in caught if "eval mode" in str(w.message) or "workers" in str(w.message)]
    assert not caplog.messages
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")


def test_what_only_the_loggers_know_is_shown_too(console, tmp_path):
    logger = JsonlLogger(RunFolder.create(tmp_path / "a", {}))
    logger.log_metrics({"speed/tokens_per_second": 5000.0, "validation/objective/kl": 1.5, "validation/loss": 9.0}, 0)
    trainer = L.Trainer(
        max_steps=1, logger=[logger], log_every_n_steps=1, enable_checkpointing=False, enable_model_summary=False,
        accelerator="cpu", callbacks=console.callbacks(),
    )  # fmt: skip
    trainer.fit(Tiny(), DataLoader(torch.zeros(1, 1), batch_size=1))
    assert re.search(r"loss (?!9)\S+  kl 1\.5  tokens/s 5,000  0 s left", written(console))


def test_on_a_terminal_there_is_a_live_line(monkeypatch):
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    console = Console(stream=Terminal())
    assert console.live
    with console.status("reading data"):
        pass
    for done in (0, 60, 120):
        console.collecting("sampling", done, 120)
    fit(console, log_every_n_steps=4)
    assert "training" in written(console)
    assert "step 4/8" not in written(console)
    assert console._progress is None
    logging.getLogger("accordant").handlers.clear()
    monkeypatch.setenv("TERM", "dumb")
    assert not Console(stream=Terminal()).live
    logging.getLogger("accordant").handlers.clear()


def test_messages_of_the_project_are_shown_once(console):
    Console(stream=io.StringIO())  # an earlier run's console does not print twice
    again = Console(stream=io.StringIO())
    logging.getLogger("accordant").info("Pairs are [sampled].")
    logging.getLogger("accordant").warning("Careful.")
    assert written(again).splitlines() == ["Pairs are [sampled].", "! Careful."]
    assert written(console) == ""


def test_samples_are_two_lines_and_data(console):
    console.samples(4, [{**RECORD, "scores": {"length": 9.0, "gold": None}, "finished": False}])
    lines = written(console).splitlines()
    assert lines[1:3] == ["Answers at step 4", "  Name three fruits."]
    assert lines[3].startswith("    [red]apple[/red]\\u001b[31m pear xxx")
    assert lines[3].endswith("[gold –, length 9, 9 tokens, cut]")
    assert len(lines) == 4


def test_the_summary_says_what_changed_and_where_things_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = RunFolder.create(tmp_path / "runs" / "a", {})
    for step, value in ((0, 9.4), (5, 12.0), (10, 25.75)):
        run.append(
            "metrics.jsonl", {"step": step, "epoch": 0.0, "time": 1.0, "split": "validation", "rewards/length/mean": value}
        )
    run.append("metrics.jsonl", {"step": 10, "split": "train", "loss": 1.0})
    before, after = run.first_and_last_validation()
    assert (before, after) == ({"rewards/length/mean": 9.4}, {"rewards/length/mean": 25.75})
    console = Console(run, stream=io.StringIO())
    console.summary(before, {**after, "objective/kl": 2.9}, {"policy": run.path / "policy"})
    text = " ".join(written(console).split())
    assert "What changed length reward 9.4 -> 25.8 (up) KL from the reference 2.9 nats" in text
    assert f"report {os.path.join('runs', 'a', 'report.html')}" in text
    assert f"model {os.path.join('runs', 'a', 'policy')}" in text
    logging.getLogger("accordant").handlers.clear()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_live_line_keeps_bar_counts_and_time_where_metrics_have_no_room(width):
    rich_console = rich.console.Console(file=io.StringIO(), width=width, color_system=None)
    progress = rich.progress.Progress(*_columns(10), console=rich_console)
    metrics = "loss −0.153  reward −0.616  kl −3.47e−6  length 16.7  tokens/s 14,452"
    progress.add_task("training", total=1600, completed=800, metrics=metrics)
    progress.add_task("reference log-probs", total=512, completed=300, metrics="")
    rich_console.print(progress.get_renderable())
    first, second = rich_console.file.getvalue().splitlines()
    assert "800/1600 loss −0.153" in first
    assert "━━━━━" in first
    assert first.rstrip().endswith("--:--")
    assert second.startswith("reference log-probs ━━━━━")
    assert "300/512" in second
    assert (metrics in first) == (width == 200)


def test_the_metrics_that_matter():
    metrics = {
        "loss": 0.6123,
        "validation/reward": 21.44,
        "rewards/margins": -0.25,
        "other": 1.0,
        "speed/tokens_per_second": 5210.4,
    }
    assert progress_text(metrics) == "loss 0.612  reward 21.4  margin −0.25  tokens/s 5,210"
    assert progress_text({"loss": 0.5, "accuracy": 0.75, "margin": 1.5}) == "loss 0.5  margin 1.5  accuracy 0.75"
    assert progress_text({"loss": 0.5, "objective/kl": -3.8e-06}) == "loss 0.5  kl 0"


def test_a_bare_terminal_and_an_ascii_stream():
    code = (
        "from core.console import Console; c = Console(); c.say('\\u2212 \\xe9 \\u2026');"
        "c.samples(1, [{'prompt': '\\xe9', 'response': '\\u65e5\\u672c', 'tokens': 1}]); "
        "c.summary({'loss': 1.0}, {'loss': -0.5}, {'policy': __import__('pathlib').Path('p')})"
    )
    environment = {**os.environ, "LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "TERM": "dumb", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, timeout=100)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("ascii")
    assert "- \\xe9 ..." in text
    assert "\\u65e5\\u672c" in text
    assert "1 ->     -0.5" in text
