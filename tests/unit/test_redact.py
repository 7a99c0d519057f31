import json

import pytest

from core.redact import MASK, Redactor, looks_secret
from core.runfolder import RunFolder

CANARY = "Qz7canaryQz7canaryQz7"
SECRET = """
token api_key apiKey APIKEY hf_token HF_TOKEN password db_password
client_secret secret AWS_SECRET_ACCESS_KEY WANDB_API_KEY private_key authorization reward.api_key auth-token
"""
FRIENDLY = """
num_tokens pad_token microbatch_tokens max_new_tokens tokenizer token_logps eos_token stop_token
pad_token_id key keep monkey api_key_env tokens secretary loss_per_token sort_key
"""


@pytest.mark.parametrize(
    "name",
    SECRET.split(),
)
def test_secret_names(name):
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    FRIENDLY.split(),
)
def test_false_friends(name):
    assert not looks_secret(name)


def test_values_are_masked_by_key_and_wherever_a_secret_occurs():
    config = {
        "reward": {"api_key": CANARY, "url": f"https://user:{CANARY}@host/x?k={CANARY}", "api_key_env": "JUDGE"},
        "model": {"tokenizer": "gpt2", "pad_token": "<pad>", "token": None, "max_new_tokens": 16},
        "list": [{"password": 1234}, "environment-value", "named-by-config"],
    }
    redact = Redactor.of(config, {"SOME_TOKEN": "environment-value", "JUDGE": "named-by-config", "HOME": "/root"})
    out = redact(config)
    assert out["reward"] == {"api_key": MASK, "url": f"https://{MASK}@host/x?k={MASK}", "api_key_env": "JUDGE"}
    assert out["model"] == config["model"]
    assert out["list"] == [{"password": MASK}, MASK, MASK]
    assert redact.text(f"HTTP 401 for {CANARY}") == f"HTTP 401 for {MASK}"
    assert redact.text("hf_abcdefghijklmnopqrstuv and sk-proj-abcdefghijklmnop") == f"{MASK} and {MASK}"


def test_command_lines():
    arguments = [
        "core.run",
        "reward.api_key=abc",
        "+judge={token: xyz1, name: j}",
        "model.pad_token=<p>",
        "--token",
        "t0p",
        "a=1",
    ]
    shown = Redactor().command(arguments)
    assert (
        shown == f"core.run reward.api_key={MASK} +judge={{token: {MASK}, name: j}} model.pad_token=<p> --token {MASK} a=1"
    )


def test_short_values_mask_nothing_else():
    assert Redactor.of(None, {"MY_TOKEN": "1"}).text("step 1 of 11") == "step 1 of 11"


def test_no_canary_in_a_run_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", CANARY)
    config = {"reward": {"name": "judge", "token": f"in-config-{CANARY}"}}
    with RunFolder.create(tmp_path / "a", config, [{"name": CANARY}], ["core.run", f"reward.token={CANARY}"]) as run:
        run.note(1, "warning", "judge", f"401 for key {CANARY}")
        run.append("metrics.jsonl", {"step": 1, "text": CANARY})
        run.record(data={"source": f"https://x:{CANARY}@host"})
        run.write_jsonl("samples/step_000001.jsonl", [{"prompt": CANARY}])
        run.finish("failed", f"RuntimeError: {CANARY}")
    files = [p for p in run.path.rglob("*") if p.is_file()]
    assert len(files) == 6
    assert not [p.name for p in files if CANARY in p.read_text()]
    assert json.loads((run.path / "run.json").read_text())["reason"] == f"RuntimeError: {MASK}"
