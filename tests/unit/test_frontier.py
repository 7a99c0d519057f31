"""examples/frontier.py: what a run's trace is, the arithmetic of the table, the page."""

import importlib.util
import re
import sys

import pytest
import yaml

from core.runfolder import RunFolder
from tests.packages import ROOT

_SPEC = importlib.util.spec_from_file_location("frontier", ROOT / "examples" / "frontier.py")
assert _SPEC is not None
assert _SPEC.loader is not None
frontier = importlib.util.module_from_spec(_SPEC)
sys.modules["frontier"] = frontier  # dataclasses look their module up there
_SPEC.loader.exec_module(frontier)

GOLD = "rewards/gold/mean"


def metrics(gold, kl, length=10.0, cut=0.0, **more):
    return {GOLD: gold, "objective/kl": kl, "completions/mean_length": length, "completions/clipped_ratio": cut, **more}


def trace(objective="ppo", reward="gold", seed=1, path=((0.0, 0.4), (2.0, 0.6)), seconds=60.0, status="finished", **after):
    """A run from the first point of its path to the last."""
    before, end = metrics(path[0][1], path[0][0]), metrics(path[-1][1], path[-1][0], **after)
    return frontier.Trace(f"{objective}-{seed}", objective, reward, seed, tuple(path), before, end, seconds, status)


def run_folder(path, objective=None, reward="rm", seed=3, lines=((0, 0.0, 0.4), (8, 1.0, 0.6), (16, 9.0, 0.3)), **config):
    given = {"objective": objective or {"name": "ppo"}, "reward": {"name": reward}, "seed": seed, **config}
    run = RunFolder.create(path, given)
    for step, kl, gold in lines:
        run.append("metrics.jsonl", {"step": step, "split": "train", GOLD: 99.0})
        run.append("metrics.jsonl", {"step": step, "split": "validation", **metrics(gold, kl), "rewards/rm/mean": step / 8})
    run.finish("finished")
    return path


def test_the_row_of_a_group_by_hand():
    """Ends 0.6 and 0.5: mean 0.55, deviation over n - 1 = 0.0707. KL 2 and 4: 3, 1.41. Median of 60 s and 100 s: 80 s."""
    runs = [trace(seed=2, seconds=100.0, path=((0.0, 0.5), (3.0, 0.8), (4.0, 0.5)), length=20.0), trace()]
    head, row = frontier.table(runs, "gold")
    assert dict(zip(head, row, strict=True)) == {
        "reward": "gold",
        "objective": "ppo",
        "runs": "2",
        "gold": "0.45 → 0.55 ± 0.07",
        "best on the way": "0.7 ± 0.14",
        "reward's own": "0.45 → 0.55 ± 0.07",
        "KL, nats": "3 ± 1.4",
        "length, tokens": "10 → 15 ± 7.1",
        "time": "1 min 20 s",
        "failures": "0 of 2",
    }


def test_one_run_has_no_spread_and_what_was_not_measured_no_number():
    _, row = frontier.table([trace(reward="rm")], "gold")
    assert row[3:6] == ("0.4 → 0.6", "0.6", "–")


def test_groups_are_reward_and_objective():
    runs = [trace("rloo"), trace("ppo", reward="bleu"), trace("ppo", seed=2), trace("ppo", seed=1)]
    assert [(row[0], row[1], row[2]) for row in frontier.table(runs, "gold")[1:]] == [
        ("bleu", "ppo", "1"),
        ("gold", "ppo", "2"),
        ("gold", "rloo", "1"),
    ]


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (trace(), []),
        (trace(path=((0.0, 0.4), (1.0, 0.9), (2.0, 0.39))), ["gold below its start"]),
        (trace(path=((0.0, 0.4), (20.1, 0.5))), ["KL above 20"]),
        (trace(path=((0.0, 0.4), (20.0, 0.4))), []),
        (trace(length=1.0), ["empty answers"]),
        (trace(cut=1.0), ["all answers cut"]),
        (trace(cut=0.9), []),
        (trace(status="failed"), ["not finished"]),
    ],
)
def test_failures(run, expected):
    assert run.failures == expected


def test_failures_are_counted_by_run_and_by_kind():
    runs = [trace(), trace(cut=1.0, path=((0.0, 0.4), (30.0, 0.1))), trace(path=((0.0, 0.4), (1.0, 0.1)))]
    assert frontier.failures(runs) == "2 of 3: gold below its start 2, KL above 20 1, all answers cut 1"


def test_a_trace_is_read_from_a_run_folder(tmp_path):
    found = frontier.read_trace(run_folder(tmp_path / "a"), "gold")
    assert (found.objective, found.reward, found.seed, found.status) == ("ppo", "rm", 3, "finished")
    assert found.path == ((0.0, 0.4), (1.0, 0.6), (9.0, 0.3))
    assert (found.before["rewards/rm/mean"], found.after["rewards/rm/mean"]) == (0.0, 2.0)


def test_what_has_no_trace_is_said(tmp_path):
    assert frontier.read_trace(tmp_path, "gold") == "no run folder"
    assert frontier.read_trace(run_folder(tmp_path / "a"), "bleu") == "0 validations with KL and bleu; two are needed"
    once = run_folder(tmp_path / "b", lines=((0, 0.0, 0.4),))
    assert frontier.read_trace(once, "gold").startswith("1 validations")


def test_names_of_methods(tmp_path):
    reinforce = yaml.safe_load((ROOT / "conf" / "experiment" / "reinforce.yaml").read_text())["objective"]
    assert frontier.method({"name": "ppo", **reinforce}) == "reinforce"
    assert frontier.method({"name": "ppo", "clip_range": None, "value": True}) == "ppo"
    assert frontier.method({"name": "rloo", "clip_range": None}) == "rloo"
    assert frontier.read_trace(run_folder(tmp_path / "a", run={"group": "shared value"}), "gold").objective == "shared value"


def test_the_page_and_the_table_of_the_command(tmp_path, capsys):
    evil = "<script>alert(1)</script>"
    runs = [str(run_folder(tmp_path / "a")), str(run_folder(tmp_path / "b", reward=evil, objective={"name": "rloo"}))]
    out = tmp_path / "page.html"
    assert frontier.main([*runs, str(tmp_path / "none"), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[1] == "|" + "---|" * 10
    assert "| rm | ppo | 1 | 0.4 → 0.3 | 0.6 |" in said.out
    assert "none: no run folder" in said.err
    page = out.read_text()
    assert "<script" not in page
    assert not re.search(r"https?://|@import|url\(|src=|href=", page)
    assert page.count("<polyline") == 2
    assert page.count("<figure>") == 2
    # KL 9 is the greatest: at the right edge; KL 1 at a third of the way, for the axis is a square root.
    first = re.search(r'<polyline points="([^"]+)"', page)
    assert first is not None
    xs = [float(point.split(",")[0]) for point in first[1].split()]
    assert xs == pytest.approx([40.0, 40 + (420 - 52) / 3, 408.0], abs=0.06)


def test_nothing_to_draw(tmp_path, capsys):
    assert frontier.main([str(tmp_path), "--out", str(tmp_path / "page.html")]) == 2
    assert "None of the 1 folders" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
