"""Real data comes back as it was, with its scores; and what is said of length as a reward is what the pairs say."""

import gzip
import json

import pytest

from core.data.config import DataConfig
from core.data.report import SplitReport
from core.preferences import preference_report
from core.scored_files import read_items, rows_of, write_scored

FILES = {
    "sft/test": "completion",
    "sft/test_messages": "completion",
    "safety_prompts/xstest_completions": "completion",
    "harmless_pairs/raw_hh_format": "pair",
    "human_pairs/pandalm_test": "pair",
    "human_pairs/llmbar_test": "pair",
    "human_rankings/topical_chat_test": "ranking",
    "human_rankings/squality_test": "ranking",
    "hostile/29_emoji_rtl_zero_width": "pair",
    "hostile/25_line_separator_characters": None,
}


def place(shared, name):
    found = [path for ending in (".jsonl.gz", ".jsonl") if (path := shared / f"{name}{ending}").is_file()]
    return found[0]


def records(path):
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.decode().split("\n") if line.strip()]


def scored(path, out, **changes):
    items = read_items(DataConfig(name="jsonl", path=str(path), **changes), "rewards", SplitReport("to score"))
    rows = rows_of(items, DataConfig(name="jsonl", path=str(path)))
    table = [[float(len(r.text)) for r in row.responses] for row in rows]
    write_scored(out, items, "rewards", {"length": table})
    return rows, table


@pytest.mark.parametrize("name", FILES)
def test_a_file_comes_back_as_it_was(shared, name, tmp_path):
    path = place(shared, name)
    rows, table = scored(path, tmp_path / "out.jsonl.gz")
    given, written = records(path), records(tmp_path / "out.jsonl.gz")
    assert [{k: v for k, v in line.items() if k != "rewards"} for line in written] == given
    assert all(list(line) == [*record, "rewards"] for line, record in zip(written, given, strict=True))
    for line in written:
        got, texts = line["rewards"]["length"], responses(line)
        if texts is not None:
            assert got == ([float(len(t)) for t in texts] if len(texts) > 1 else float(len(texts[0])))
    assert len(rows) == len(table) == len(given)


def responses(line):
    """The record's answers where they stand in it as plain text."""
    if line.get("tie") is True or ("majority" in line and line["majority"] in (None, "tie")):
        names = ("response_a", "response_b") if line.get("chosen") is None else ("chosen", "rejected")
    elif "responses" in line:
        return line["responses"]
    else:
        names = ("chosen", "rejected") if "chosen" in line else ("completion",)
    texts = [line.get(name) for name in names]
    plain = all(isinstance(t, str) for t in texts) and "prompt" in line
    return texts if plain else None


def test_length_agrees_as_often_as_the_chosen_answer_is_longer(shared, tmp_path):
    path = shared / "helpful_pairs" / "test.jsonl.gz"
    rows, table = scored(path, tmp_path / "out.jsonl")
    report = preference_report(rows, {"length": table}, main="length", units={"length": "characters"}, resamples=20)
    lengths = [(len(r["chosen"]), len(r["rejected"])) for r in records(path) if isinstance(r["chosen"], str)]
    longer = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in lengths) / len(lengths)
    assert len(lengths) == len(rows) == 1415
    assert report["sources"]["length"]["accuracy"]["value"] == pytest.approx(longer, abs=1e-4)
