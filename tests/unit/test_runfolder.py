import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from core.atomic import write_atomic
from core.errors import CheckpointError, ConfigError
from core.runfolder import RunFolder, config_digest, read_jsonl, run_state

CONFIG = {"seed": 1, "objective": {"name": "dpo", "beta": 0.1}, "trainer": {"max_steps": -1}}
CLAIM = """
import sys
from core.errors import ConfigError
from core.runfolder import RunFolder
sys.stdin.readline()
try:
    RunFolder.create(sys.argv[1], {"seed": 1})
except ConfigError:
    print("refused", flush=True)
else:
    print("won", flush=True)
    sys.stdin.readline()
"""
HOLD = """
import sys
from core.runfolder import RunFolder
RunFolder.create(sys.argv[1], {"seed": 1})
print("held", flush=True)
sys.stdin.readline()
"""


def child(code: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=-1, stdout=-1, text=True)


def lines(folder: RunFolder, name: str) -> list[dict]:
    return list(read_jsonl(folder.path / name))


def test_create_writes_config_and_facts(tmp_path):
    with RunFolder.create(
        tmp_path / "a", CONFIG, [{"name": "dpo", "distribution": "accordant"}], ["core.run", "seed=1"]
    ) as run:
        assert yaml.safe_load((run.path / "config.yaml").read_text()) == CONFIG
        facts = json.loads((run.path / "run.json").read_text())
        assert facts["status"] == "running"
        assert facts["command"] == "core.run seed=1"
        assert facts["plugins"] == [{"name": "dpo", "distribution": "accordant"}]
        assert {"accordant", "python", "torch", "lightning", "transformers"} <= set(facts["versions"])
        assert facts["hardware"]
        assert run_state(run.path) == "running"
    facts = json.loads((run.path / "run.json").read_text())
    assert (facts["status"], run_state(run.path)) == ("finished", "finished")
    assert facts["ended"] >= facts["started"]
    assert facts["peak_memory"]["process"] > 1 << 20


def test_only_one_of_eight_processes_gets_the_folder(tmp_path):
    children = [child(CLAIM, tmp_path / "run") for _ in range(8)]
    for process in children:  # all imported and waiting before the first is let go
        process.stdin.write("go\n")
    for process in children:
        process.stdin.flush()
    answers = [process.stdout.readline().strip() for process in children]
    for process in children:
        process.communicate("\n")
    assert sorted(answers) == ["refused"] * 7 + ["won"]


def test_a_used_or_foreign_folder_is_refused(tmp_path):
    RunFolder.create(tmp_path / "a", CONFIG).finish("finished")
    with pytest.raises(ConfigError, match="two runs never share") as info:
        RunFolder.create(tmp_path / "a", CONFIG)
    assert "resume=" in info.value.hint
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        RunFolder.create(tmp_path / "b", CONFIG)
    (tmp_path / "c").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        RunFolder.create(tmp_path / "c", CONFIG)


def test_a_crashed_run_is_only_taken_over_by_reopen(tmp_path):
    path = tmp_path / "run"
    process = child(HOLD, path)
    assert process.stdout.readline().strip() == "held"
    assert run_state(path) == "running"
    with pytest.raises(CheckpointError, match=f"process {process.pid} "):
        RunFolder.reopen(path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert run_state(path) == "lost"
    with pytest.raises(ConfigError):
        RunFolder.create(path, CONFIG)
    run = RunFolder.reopen(path)
    assert run.facts["sessions"] == 2
    with pytest.raises(CheckpointError, match=f"process {os.getpid()} "):
        RunFolder.reopen(path)
    run.finish("stopped")
    assert run_state(path) == "stopped"


def test_a_zombie_and_a_reused_process_id_do_not_hold_a_folder(tmp_path):
    path = tmp_path / "run"
    process = child(HOLD, path)
    process.stdout.readline()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but its entry is still there
    assert run_state(path) == "lost"
    process.communicate()
    lock = json.loads((path / "run.lock").read_text())
    (path / "run.lock").write_text(json.dumps({**lock, "pid": os.getpid()}))  # our id, another's time of birth
    assert run_state(path) == "lost"
    (path / "run.lock").write_text(json.dumps({**lock, "host": "elsewhere"}))
    with pytest.raises(CheckpointError, match="elsewhere"):
        RunFolder.reopen(path)


def test_reopen_needs_a_run(tmp_path):
    with pytest.raises(CheckpointError, match="holds no run"):
        RunFolder.reopen(tmp_path)


def test_rewind_gives_the_same_lines_as_an_uninterrupted_run(tmp_path):
    def work(run: RunFolder, steps: range) -> None:
        for step in steps:
            run.append("metrics.jsonl", {"step": step, "loss": 1 / step})
            if step % 2 == 0:
                run.write_jsonl(str(run.samples_path(step).relative_to(run.path)), [{"id": "a", "tokens": step}])
                run.note(step, "info", "evaluation", f"at {step}")
            run.note(step, "advice", "likelihood", "both fall")

    whole = RunFolder.create(tmp_path / "whole", CONFIG)
    work(whole, range(1, 9))
    broken = RunFolder.create(tmp_path / "broken", CONFIG)
    work(broken, range(1, 8))
    with (broken.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # torn by a crash
    for name in (".config.yaml.x1.tmp", "samples/.step_000008.jsonl.x2.tmp", "rollouts/.epoch_001.jsonl.x3.tmp"):
        (broken.path / name).parent.mkdir(exist_ok=True)
        (broken.path / name).write_text("half")
    broken.finish("failed")
    resumed = RunFolder.reopen(tmp_path / "broken")
    assert [r["step"] for r in lines(resumed, "metrics.jsonl")] == [1, 2, 3, 4, 5, 6, 7]
    resumed.rewind(4)
    assert sorted(p.name for p in resumed.path.glob("samples/*")) == ["step_000002.jsonl", "step_000004.jsonl"]
    assert list(resumed.path.rglob("*.tmp")) == []
    work(resumed, range(5, 9))
    for name in ("metrics.jsonl", "notes.jsonl", "samples/step_000008.jsonl"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert len(lines(resumed, "notes.jsonl")) == 5


def test_the_clock_goes_on_after_a_resume(tmp_path):
    run = RunFolder.create(tmp_path / "a", CONFIG)
    run.append("metrics.jsonl", {"step": 1, "time": 100.0})
    run.append("metrics.jsonl", {"step": 2, "time": 200.0})
    run.finish("failed")
    run = RunFolder.reopen(run.path)
    run.rewind(1)
    assert 100 <= run.elapsed() < 150


def test_notes_reach_the_log_once(tmp_path, caplog):
    run = RunFolder.create(tmp_path / "a", CONFIG)
    for step in (1, 2):
        run.note(step, "advice", "likelihood", "both fall")
    assert [r.getMessage() for r in caplog.records] == ["likelihood: both fall"]
    assert lines(run, "notes.jsonl") == [{"step": 1, "level": "advice", "topic": "likelihood", "text": "both fall"}]


def test_paths_stay_inside(tmp_path):
    run = RunFolder.create(tmp_path / "a", CONFIG)
    (run.path / "link").symlink_to(tmp_path)
    for bad in ("../x", "/etc/x", "link/x"):
        with pytest.raises(ValueError, match="leads out"):
            run.write_text(bad, "x")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    target = tmp_path / "a.json"
    write_atomic(target, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.json", "old")]


def test_numbers_that_json_lacks_become_null(tmp_path):
    run = RunFolder.create(tmp_path / "a", CONFIG)
    run.append("metrics.jsonl", {"step": 1, "loss": float("nan"), "more": [float("inf"), 1.0]})
    assert (run.path / "metrics.jsonl").read_text() == '{"step": 1, "loss": null, "more": [null, 1.0]}\n'


def test_an_error_ends_the_run_as_failed_and_an_interrupt_as_stopped(tmp_path):
    with pytest.raises(ZeroDivisionError), RunFolder.create(tmp_path / "a", CONFIG):
        _ = 1 / 0
    assert json.loads((tmp_path / "a" / "run.json").read_text())["reason"] == "ZeroDivisionError: division by zero"
    assert run_state(tmp_path / "a") == "failed"
    with pytest.raises(KeyboardInterrupt), RunFolder.create(tmp_path / "b", CONFIG):
        raise KeyboardInterrupt
    assert run_state(tmp_path / "b") == "stopped"


def test_config_digest_ignores_the_order_of_keys():
    assert config_digest({"a": 1, "b": 2}) == config_digest({"b": 2, "a": 1}) != config_digest({"a": 1, "b": 3})
