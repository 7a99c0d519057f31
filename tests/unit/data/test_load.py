import pytest
from made_tokenizers import CHATML, config, tokenizer, trained, write

from core.data.config import DataConfig
from core.data.load import check_data, load_data
from core.data.report import SplitReport
from core.errors import ConfigError, DataError

RANKING = {"prompt": "Name a colour.", "responses": ["Blue.", "Four.", "No."], "scores": [3.0, 1.0, 0.5]}
PAIRS = [{"prompt": f"What is {i}?", "chosen": f" {i}.", "rejected": " No."} for i in range(200)]
TIE = {
    "prompt": "Say hello.",
    "response_a": "Yes.",
    "response_b": "No.",
    "majority": "tie",
    "chosen": None,
    "rejected": None,
}


def load(tmp_path, rows, reads, **changes):
    return load_data(config(write(tmp_path / "a.jsonl", *rows), **changes), tokenizer(CHATML), reads)


def test_rankings_become_pairs_of_the_best_with_each_lower_one(tmp_path):
    data = load(tmp_path, [{**RANKING, "id": "r"}], "pairs")
    assert [(row.id, [r.text for r in row.responses], row.margins) for row in data.train] == [
        ("r/1", ["Blue.", "Four."], (2.0,)),
        ("r/2", ["Blue.", "No."], (2.5,)),
    ]
    assert "the best against each lower one" in "\n".join(data.report.lines())


def test_a_response_tied_with_the_best_makes_no_pair(tmp_path):
    data = load(tmp_path, [{**RANKING, "scores": [3, 3, 1]}], "pairs")
    assert [[r.text for r in row.responses] for row in data.train] == [["Blue.", "No."]]


def test_ties_are_left_out_unless_kept(tmp_path):
    pair = {
        "prompt": "Name a colour.",
        "response_a": "x",
        "response_b": "y",
        "majority": "a",
        "chosen": "Blue.",
        "rejected": "No.",
    }
    data = load(tmp_path, [pair, TIE], "pairs")
    assert [row.ties for row in data.train] == [None]
    assert data.report.train.dropped["ties (the objective learns nothing from them)"] == 1
    kept = load(tmp_path, [pair, TIE], "pairs", keep_ties=True)
    assert [row.ties for row in kept.train] == [None, (True,)]


def test_prompts_are_distinct_and_bare(tmp_path):
    rows = [PAIRS[0], {**PAIRS[0], "chosen": " Seven."}, PAIRS[1]]
    data = load(tmp_path, rows, "prompts")
    assert [(row.prompt_text, row.responses, row.margins) for row in data.train] == [
        ("What is 0?", (), None),
        ("What is 1?", (), None),
    ]


@pytest.mark.parametrize(
    ("rows", "reads", "part"),
    [
        (PAIRS[:1], "demonstrations", r"a\.jsonl:1: the rows are pairs \(format pair; columns: chosen, prompt, rejected\)"),
        ([{"prompt": "p"}], "pairs", "the objective reads pairs: it needs chosen and rejected"),
        ([{"text": "t"}], "prompts", "needs a column prompt"),
    ],
)
def test_rows_of_another_kind_are_refused_with_columns_and_needs(tmp_path, rows, reads, part):
    with pytest.raises(DataError, match=part):
        load(tmp_path, rows, reads)
    with pytest.raises(DataError, match=part):
        check_data(config(str(tmp_path / "a.jsonl")), reads)


def test_validation_fraction_splits_by_prompt(tmp_path):
    twice = [*PAIRS, *({**row, "rejected": " Seven."} for row in PAIRS)]
    data = load(tmp_path, twice, "pairs", validation_fraction=0.2)
    train, validation = ({row.prompt_text for row in rows} for rows in (data.train, data.validation))
    assert not train & validation
    assert 20 <= len(validation) <= 60
    assert len(data.train) + len(data.validation) == 400
    turned = load(tmp_path, twice[::-1], "pairs", validation_fraction=0.2)
    assert {row.prompt_text for row in turned.validation} == validation, "the order of the file does not matter"


def test_limit_keeps_a_sample_that_grows_and_keeps_its_order(tmp_path):
    few = [row.source for row in load(tmp_path, PAIRS, "pairs", limit=10).train]
    more = [row.source for row in load(tmp_path, PAIRS, "pairs", limit=20).train]
    assert len(few) == 10
    assert set(few) < set(more)
    assert few == [s for s in more if s in few]
    assert few != [f"{tmp_path}/a.jsonl:{i}" for i in range(1, 11)], "a sample, not the head"


def test_validation_path_and_overlap(tmp_path):
    other = write(tmp_path / "v.jsonl", PAIRS[0], PAIRS[150])
    data = load(tmp_path, PAIRS[:100], "pairs", validation_path=other)
    assert len(data.validation) == 2
    assert "1 of 2 validation rows have a prompt that is trained on too." in data.report.notes


def test_prompts_for_evaluation_are_whole_whatever_the_mask(tmp_path):
    turns = [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "Hello!"}]
    for mask in ("all", "completion"):
        data = load(tmp_path, [{"messages": turns}], "demonstrations", mask=mask)
        (prompt,) = data.prompts
        assert prompt.responses == ()
        assert tokenizer(CHATML).decode(prompt.prompt) == "<|im_start|>user\nSay hello.<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("reads", ["prompts", "demonstrations", "pairs", "rankings"])
def test_sandbox_gives_every_kind(reads):
    sandbox = DataConfig(name="sandbox", train_rows=20, validation_rows=5, template="chat")
    data = load_data(sandbox, tokenizer(CHATML), reads)
    count = {"prompts": [0], "demonstrations": [1], "pairs": [2], "rankings": [4]}[reads]
    assert {len(row.responses) for row in [*data.train, *data.validation]} == set(count)
    assert len(data.train) == 20
    assert all(trained(tokenizer(CHATML), r).endswith("<|im_end|>") for row in data.train for r in row.responses)
    assert all(row.references and "task" in row.columns for row in data.train)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"mask": "compleation"}, 'Did you mean "completion"'),
        ({"max_length": 0}, "data.max_length is 0; expected a whole number, at least 2"),
        ({"validation_fraction": 1.0}, "0 to below 1"),
        ({"name": "jsonl"}, "data.path is not set"),
        ({"format": "csv"}, "data.format is 'csv'"),
    ],
)
def test_config_values_are_checked(changes, part):
    with pytest.raises(ConfigError, match=part):
        DataConfig(**changes)


def test_hub_is_never_asked_for_what_exists(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: pytest.fail("asked the hub"))
    assert check_data(config(write(tmp_path / "a.jsonl", *PAIRS), name="hub")).train.rows == 200


def test_hub_name_passes_split_configuration_and_revision(monkeypatch):
    import datasets

    calls = []

    def load_dataset(name, config_name, split, revision):
        calls.append((name, config_name, split, revision))
        return [{"prompt": split, "chosen": "a", "rejected": "b"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hub = DataConfig(name="hub", path="org/name", split="train", validation_split="test", config_name="c", revision="r")
    report = check_data(hub, "pairs")
    assert calls == [("org/name", "c", "train", "r"), ("org/name", "c", "test", "r")]
    assert (report.train.rows, report.validation.rows) == (1, 1)


def test_hub_trouble_is_a_data_error(monkeypatch):
    import datasets

    def load_dataset(*args, **options):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"org/name: cannot be loaded from the hub \(no route\)"):
        check_data(DataConfig(name="hub", path="org/name"))


def test_the_line_of_bare_prompts_counts_them_once_and_trains_none_of_their_tokens():
    report = SplitReport("train", kind="prompts", format="prompt", source="f", read=3, rows=2, prompts=2, tokens=(4, 5, 6))
    line = "Data, train: 2 prompts of 3 rows read, format prompt, from f; tokens a row: median 4, 95 % 5, longest 6."
    assert report.lines() == [line]
    report.kind = "pairs"
    assert "2 pairs (2 prompts) of 3 rows" in report.lines()[0]
    assert report.lines()[0].endswith("longest 6; 0 trained.")
