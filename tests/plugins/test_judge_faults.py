"""reward=judge where things go wrong: statuses, silence, rubbish, budgets, keys, the replies on disk."""

import contextlib
import json
import os
import pickle
import random
import socket
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

pytest.importorskip("httpx")

from core.errors import ConfigError, UserError
from core.reward import Sample
from plugins.rewards.judge import Judge
from plugins.rewards.judging.replies import FILE, on_disk
from plugins.rewards.judging.wire import JudgeError
from tests.packages import ROOT
from tests.plugins.judge_server import KEY_VARIABLE, Clock, Drop, Hang, Raw, Server, completion, judge_at, longer, shown

ONE = [Sample("p", "answer", row_id="r")]
KEY = "Zx81-quite-private-0042"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve():
    """serve(judge) -> a running server; serve(a, b, c): these answers, one after the other, the last for ever."""
    with contextlib.ExitStack() as stack:

        def start(*answers):
            scripted = answers[0] if callable(answers[0]) else lambda m, n: answers[min(n, len(answers) - 1)]
            return stack.enter_context(Server(scripted).serving())

        yield start


def closed_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}/v1"


# -- what is tried again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        *((Raw(status), f"status {status}") for status in (408, 409, 429, 500, 502, 503, 504, 529)),
        (Drop(), "connection"),
        (Raw(body=b'{"choices": [{"mess', promised=500), "connection"),
        (Raw(body=b'{"choices": [{"mess'), "malformed answer"),
        (Raw(body=b"<html><body>Bad gateway</body></html>"), "malformed answer"),
        (Raw(body=b""), "malformed answer"),
        (Raw(body=b"[]"), "malformed answer"),
        (Raw(body=b"{}"), "malformed answer"),
        (Raw(body=b'{"choices": []}'), "malformed answer"),
        (Raw(body=b'{"choices": [{}]}'), "malformed answer"),
        (Raw(body=b'{"choices": [{"message": {}}]}'), "malformed answer"),
        (Raw(body=b'{"choices": ["text"]}'), "malformed answer"),
        (Raw(body=b"\xff\xfe\x00"), "malformed answer"),
        (completion(None), "malformed answer"),
    ],
)
def test_a_passing_fault_is_tried_again(serve, caplog, fault, kind):
    server, clock = serve(fault, "Score: 10"), Clock()
    judge = judge_at(server, clock)
    assert judge.score(ONE) == [1.0]
    assert (len(server.bodies), len(clock.waits)) == (2, 1)
    assert server.bodies[0] == server.bodies[1]
    assert judge.tally.repeated == {kind: 1}
    assert f"requests repeated: 1 x {kind}." in caplog.text


def test_a_silent_server_is_tried_again(serve, caplog):
    server = serve(Hang(), "Score: 10")
    assert judge_at(server, timeout=0.1).score(ONE) == [1.0]
    assert "1 x timeout" in caplog.text


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 413, 422])
def test_what_would_fail_again_is_not_tried_again(serve, status):
    server, clock = serve(Raw(status, b"no such thing", {"Location": "http://localhost:1/"})), Clock()
    with pytest.raises(JudgeError, match=f"{server.base_url}/chat/completions: status {status}.*no such thing"):
        judge_at(server, clock).score(ONE)
    assert (len(server.bodies), clock.waits) == (1, [])


def test_waits_double_with_jitter_up_to_the_longest(serve):
    server, clock = serve(Raw(500)), Clock()
    with pytest.raises(JudgeError, match=r"status 500.*\(the last of 7 tries\)"):
        judge_at(server, clock, retries=6, backoff=2.0, max_wait=20.0).score(ONE)
    assert len(server.bodies) == 7
    usual = [2, 4, 8, 16, 32, 64]
    assert len(clock.waits) == 6
    assert all(min(20, u / 2) <= w <= min(20, u * 1.5) for w, u in zip(clock.waits, usual, strict=True))
    assert clock.waits[5] == 20
    assert all(w != u for w, u in zip(clock.waits[:3], usual, strict=False)), "no jitter"


def test_jitter_is_seeded_and_differs_between_questions(serve):
    def waits(text):
        clock = Clock()
        with pytest.raises(JudgeError):
            judge_at(serve(Raw(500)), clock, retries=2).score([Sample("p", text)])
        return clock.waits

    state = random.getstate()
    assert waits("one") == waits("one") != waits("two")
    assert random.getstate() == state, "a run's own random numbers are drawn from"


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds(serve, status):
    clock = Clock()
    judge_at(serve(Raw(status, headers={"Retry-After": "17"}), "Score: 1"), clock).score(ONE)
    assert clock.waits == [17.0]


def test_retry_after_as_a_date(serve):
    clock = Clock()
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    judge_at(serve(Raw(429, headers={"Retry-After": at}), "Score: 1"), clock).score(ONE)
    assert 25 < clock.waits[0] <= 30


@pytest.mark.parametrize("value", ["soon", "-5", "nan", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_retry_after_that_says_nothing_leaves_the_usual_wait(serve, value):
    clock = Clock()
    judge_at(serve(Raw(429, headers={"Retry-After": value}), "Score: 1"), clock).score(ONE)
    assert 0.5 <= clock.waits[0] <= 1.5


def test_a_server_that_asks_for_too_long_a_wait_is_an_error(serve):
    server, clock = serve(Raw(429, headers={"Retry-After": "3600"})), Clock()
    with pytest.raises(JudgeError, match=r"asks to wait 3600 s, longer than reward.max_wait"):
        judge_at(server, clock).score(ONE)
    assert (len(server.bodies), clock.waits) == (1, [])


# -- what is said and given in the end ----------------------------------------------------------------------------------


def test_nobody_listens():
    address = closed_port()
    with pytest.raises(JudgeError, match=rf"{address}/chat/completions: ConnectError(.|\n)*Is the server running") as caught:
        judge_at(address, retries=1).score(ONE)
    assert isinstance(caught.value, UserError)
    assert "(the last of 2 tries)" in str(caught.value)


def test_an_error_shows_the_first_lines_of_the_answer(serve):
    page = b"<html>\n\n<h1>Bad gateway</h1>\n<p>nginx</p>\n<p>line four</p>" + b"x" * 5000
    with pytest.raises(
        JudgeError, match=r"status 502. The answer begins: '<html> \| <h1>Bad gateway</h1> \| <p>nginx</p>'"
    ) as e:
        judge_at(serve(Raw(502, page)), retries=0).score(ONE)
    assert "line four" not in str(e.value)
    assert "reward.on_error=skip" in e.value.hint


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (401, "reward.api_key_env"),
        (404, "reward.base_url"),
        (302, "final address"),
        (400, "reward.extra"),
        (500, "reward.concurrency"),
    ],
)
def test_an_error_says_what_to_do(serve, status, hint):
    with pytest.raises(JudgeError) as caught:
        judge_at(serve(Raw(status)), retries=0).score(ONE)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("options", "expected"), [({"on_error": "skip"}, None), ({"on_error": "value", "error_value": -2.5}, -2.5)]
)
@pytest.mark.parametrize("fault", [Raw(500, b"down"), Raw(400), Drop(), Raw(body=b"<html>"), "I would not say."])
def test_a_fault_never_becomes_a_score_unasked(serve, caplog, options, expected, fault):
    server = serve(lambda m, n: fault if "bad" in m.partition("<<<RESPONSE")[2].partition("<<<END")[0] else "Score: 10")
    samples = [Sample("p", "good"), Sample("p", "bad"), Sample("p", "good too"), Sample("p", "bad too")]
    judge = judge_at(server, retries=1, **options)
    assert judge.score(samples) == [1.0, expected, 1.0, expected]
    assert sum(judge.tally.failed.values()) == 2
    assert "2 of 4 questions have no verdict" in caplog.text
    assert "The first: POST" in caplog.text


def test_a_failure_stops_the_others_and_keeps_what_was_answered(serve, tmp_path):
    server = serve(lambda m, n: Raw(400) if n == 2 else "Score: 10")
    judge = judge_at(server, concurrency=1, cache=str(tmp_path))
    with pytest.raises(JudgeError):
        judge.score([Sample("p", str(i)) for i in range(6)])
    assert len(server.bodies) == 3
    assert judge.score([Sample("p", str(i)) for i in range(2)]) == [1.0, 1.0]
    assert len(server.bodies) == 3


def test_a_reply_without_verdict_is_asked_again_as_often_as_stated(serve):
    server, clock = serve("Hm."), Clock()
    with pytest.raises(JudgeError, match=r"does not end with a verdict\. Its end: 'Hm\.'"):
        judge_at(server, clock, verdict_retries=3).score(ONE)
    assert (len(server.bodies), clock.waits) == (4, [])
    server = serve("Hm.")
    with pytest.raises(JudgeError):
        judge_at(server, verdict_retries=0).score(ONE)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("text", ["Long reasons", "It says\nScore: 10", None])
def test_a_reply_that_was_cut_has_no_verdict(serve, text):
    with pytest.raises(JudgeError, match=r"cut at max_tokens.*\n.*Raise reward.max_tokens"):
        judge_at(serve(completion(text, "length")), verdict_retries=0).score(ONE)


def test_a_question_without_verdict_is_not_asked_again_by_the_run(serve):
    server = serve("Hm.", "Hm.", "Score: 10")
    judge = judge_at(server, on_error="skip")
    assert [judge.score(ONE), judge.score(ONE)] == [[None], [None]]
    assert len(server.bodies) == 2
    assert judge_at(server, on_error="skip").score(ONE) == [1.0]


# -- the budget ---------------------------------------------------------------------------------------------------------


def test_the_budget_of_requests_counts_repetitions_over_the_run(serve, caplog):
    server = serve(Raw(500), "Score: 10")
    judge = judge_at(server, concurrency=1, max_requests=4, on_error="skip")
    assert judge.score([Sample("p", "1"), Sample("p", "2")]) == [1.0, 1.0]
    assert judge.score([Sample("p", "1"), Sample("p", "3"), Sample("p", "4")]) == [1.0, 1.0, None]
    assert len(server.bodies) == 4
    assert "1 x budget of requests spent" in caplog.text
    with pytest.raises(JudgeError, match=r"reward.max_requests=0 requests are spent(.|\n)*Raise reward.max_requests"):
        judge_at(server, max_requests=0).score(ONE)
    assert len(server.bodies) == 4


def test_the_budget_of_seconds(serve):
    server, clock = serve(Raw(500)), Clock()
    judge = judge_at(server, clock, max_seconds=5.0, backoff=2.0, on_error="skip")
    assert judge.score(ONE) == [None]
    assert judge.tally.failed == {"budget of seconds spent": 1}
    assert 0 < sum(clock.waits) < 5.0
    asked = len(server.bodies)
    clock.now += 1000  # time outside of the judge is not counted
    spent = judge.budget.seconds
    assert spent == pytest.approx(sum(clock.waits))
    judge.budget.seconds = 5.0
    assert judge.score([Sample("p", "other")]) == [None]
    assert len(server.bodies) == asked


def test_the_budget_of_seconds_cuts_a_request_short(serve):
    with pytest.raises(JudgeError, match=r"reward.max_seconds=0.1 seconds are spent"):
        judge_at(serve(Hang()), max_seconds=0.1).score(ONE)


def test_a_resumed_run_goes_on_with_the_rest_of_its_budget(serve):
    server = serve("Score: 10")
    judge = judge_at(server, max_requests=3)
    judge.score([Sample("p", "1"), Sample("p", "2")])
    resumed = judge_at(server, max_requests=3, on_error="skip", concurrency=1)
    resumed.load_state_dict(judge.state_dict())
    assert resumed.score([Sample("p", "3"), Sample("p", "4")]) == [1.0, None]
    resumed.load_state_dict({})
    assert resumed.budget.requests == 0
    assert judge_at(server).state_dict() == {}


# -- the key ------------------------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_seen_nowhere_else(serve, tmp_path, monkeypatch, caplog, capfd):
    """The server answers with the key wherever it can."""
    monkeypatch.setenv(KEY_VARIABLE, f" {KEY}\n")
    told = f"your key {KEY} is no good".encode()
    answers = [
        Raw(500, told),
        Raw(body=told),
        completion(f"{KEY}\nHm."),
        completion(f"Key {KEY}\nScore: 10"),
        Raw(401, told),
    ]
    server = serve(*answers)
    judge = judge_at(server, api_key_env=KEY_VARIABLE, cache=str(tmp_path / "cache"))
    with caplog.at_level("DEBUG"):
        assert judge.score(ONE) == [1.0]
        with pytest.raises(JudgeError) as caught:
            judge.score([Sample("p", "another")])
        skipping = judge_at(server, api_key_env=KEY_VARIABLE, on_error="skip", cache=str(tmp_path / "cache"))
        assert skipping.score([Sample("p", "a third")]) == [None]
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert "your key <redacted> is no good" in str(caught.value)
    seen = [caplog.text, *capfd.readouterr(), str(caught.value), repr(caught.value.__cause__), repr(vars(judge))]
    kept = [file.read_bytes() for file in (tmp_path / "cache").iterdir()]
    state = pickle.dumps((judge.settings, judge.budget, judge.tally, judge.endpoint.hopeless))
    assert not any(KEY in text for text in seen)
    assert not any(KEY.encode() in data for data in (*kept, state))


@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_a_missing_key_is_said_at_once(monkeypatch, value):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(KEY_VARIABLE, value)
    with pytest.raises(ConfigError, match=f"reward.api_key_env is {KEY_VARIABLE}, and no such environment variable"):
        Judge("http://localhost/v1", "m", api_key_env=KEY_VARIABLE)


def test_a_key_that_no_header_can_carry_is_not_repeated(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "schlüssel\nX-Other: 1")
    with pytest.raises(ConfigError, match=KEY_VARIABLE) as caught:
        Judge("http://localhost/v1", "m", api_key_env=KEY_VARIABLE)
    assert "schl" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-0123456789abcdef",
        "hf_abcdefghijklmnopqrstuvwx",
        "ghp_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
        "gsk_0123456789abcdefghij",
        "AIzaSyA0123456789abcdefghijklmnopqrstuv",
        "0123456789abcdef0123456789abcdef",
        "a1b2c3d4e5f6a1b2c3d4e5f6a1b2c3d4",
        "Bearer x",
        "a.b.c",
        "",
    ],
)
def test_a_key_in_place_of_a_name_is_refused_and_not_repeated(key):
    with pytest.raises(ConfigError, match=r"reward\.api_key_env") as caught:
        Judge("http://localhost/v1", "m", api_key_env=key)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "openai_key", "KEY2", "MY_COMPANYS_SECOND_JUDGE_API_KEY_FOR_TESTS"])
def test_names_of_variables_pass(monkeypatch, name):
    monkeypatch.setenv(name, KEY)
    Judge("http://localhost/v1", "m", api_key_env=name)


# -- replies on disk ----------------------------------------------------------------------------------------------------


def test_what_was_answered_costs_no_request(serve, tmp_path, caplog):
    server = serve("Score: 10")
    assert judge_at(server, cache=str(tmp_path)).score(ONE) == [1.0]
    again = judge_at(server, cache=str(tmp_path), max_requests=0)
    with caplog.at_level("INFO", "accordant"):
        assert again.score(ONE) == [1.0]
    assert len(server.bodies) == 1
    assert again.tally.cached == 1
    assert "1 questions, 1 answered from the cache, 0 requests" in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"model": "other"},
        {"temperature": 0.5},
        {"max_tokens": 99},
        {"extra": {"seed": 2}},
        {"scale": [1, 20]},
        {"rubric": "mine"},
    ],
)
def test_another_question_is_asked_anew(serve, tmp_path, options):
    server, rubric = serve("Score: 10"), tmp_path / "mine"
    rubric.write_text("{response} Score:")
    changed = {**options, **({"rubric": str(rubric)} if "rubric" in options else {})}
    judge_at(server, cache=str(tmp_path)).score(ONE)
    judge_at(server, cache=str(tmp_path), **changed).score(ONE)
    assert len(server.bodies) == 2
    judge_at(server, cache=str(tmp_path), concurrency=1, retries=0, timeout=9.0).score(ONE)
    assert len(server.bodies) == 2


def test_a_reply_on_another_scale_is_not_taken_for_one_on_this(serve, tmp_path):
    """Also where the rubric's text does not hold the scale."""
    rubric = tmp_path / "mine"
    rubric.write_text("{response} Score:")
    server = serve("Score: 10", "Score: 5")
    options = {"rubric": str(rubric), "cache": str(tmp_path)}
    assert judge_at(server, **options).score(ONE) == [1.0]
    assert judge_at(server, scale=[0, 5], **options).score(ONE) == [1.0]
    assert len(server.bodies) == 2


def test_another_prompt_answer_or_server_is_asked_anew(serve, tmp_path):
    server, other = serve("Score: 10"), serve("Score: 1")
    judge = judge_at(server, cache=str(tmp_path))
    judge.score([*ONE, Sample("q", "answer"), Sample("p", "answer "), Sample("p", "answer", row_id="other row")])
    assert len(server.bodies) == 3
    assert judge_at(other, cache=str(tmp_path)).score(ONE) == [0.0]


def test_in_memory_it_is_remembered_as_long_as_the_judge(serve):
    server = serve("Score: 10")
    judge = judge_at(server, cache=None)
    assert [judge.score(ONE), judge.score(ONE)] == [[1.0], [1.0]]
    assert len(server.bodies) == 1
    judge_at(server, cache=None).score(ONE)
    assert len(server.bodies) == 2


def test_auto_is_the_users_cache_folder(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCORDANT_CACHE", str(tmp_path))
    judge_at(serve("Score: 10"), cache="auto").score(ONE)
    assert (tmp_path / "judge" / FILE).is_file()


def test_failures_are_not_kept(serve, tmp_path):
    server = serve(Raw(400), "Score: 10")
    assert judge_at(server, cache=str(tmp_path), on_error="skip").score(ONE) == [None]
    assert judge_at(server, cache=str(tmp_path), on_error="skip").score(ONE) == [1.0]


def test_the_first_reply_stays(tmp_path):
    with on_disk(tmp_path) as mine, on_disk(tmp_path) as theirs:
        assert mine.keep("k", "Score: 3") == "Score: 3"
        assert theirs.keep("k", "Score: 4") == "Score: 3"
        assert mine.find(["k", "unknown"]) == {"k": "Score: 3"}


def test_more_keys_than_one_look_up_takes(tmp_path):
    with on_disk(tmp_path) as replies:
        for i in (0, 1199):
            replies.keep(str(i), "x")
        assert set(replies.find(str(i) for i in range(1200))) == {"0", "1199"}


def test_several_processes_write_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path; from plugins.rewards.judging.replies import on_disk\n"
        "who, folder = sys.argv[1:]\n"
        "with on_disk(Path(folder)) as replies:\n"
        "    for i in range(12): replies.keep(f'shared {i}', who); replies.keep(f'{who} {i}', who)\n"
    )
    command = [sys.executable, "-c", code]
    working = [subprocess.Popen([*command, who, str(tmp_path)], cwd=ROOT, env={**os.environ}) for who in ("a", "b")]
    assert [process.wait(60) for process in working] == [0, 0]
    with on_disk(tmp_path) as replies:
        found = replies.find([f"{kind} {i}" for kind in ("shared", "a", "b") for i in range(12)])
    assert len(found) == 36
    assert {found[f"a {i}"] for i in range(12)} == {"a"}
    assert set(found.values()) == {"a", "b"}


def test_a_file_that_is_no_store_is_an_error_that_names_it(serve, tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database at all " * 100)
    with pytest.raises(ConfigError, match=f"reward.cache: {tmp_path / FILE} cannot be read"):
        judge_at(serve("Score: 1"), cache=str(tmp_path)).score(ONE)


def test_a_folder_that_cannot_be_made_is_an_error(serve, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"reward\.cache"):
        judge_at(serve("Score: 1"), cache=str(tmp_path / "file" / "below")).score(ONE)


def test_a_disk_that_refuses_costs_the_cache_not_the_score(serve, tmp_path, caplog):
    with on_disk(tmp_path):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON replies BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    server = serve("Score: 10")
    assert judge_at(server, cache=str(tmp_path)).score([*ONE, Sample("p", "other")]) == [1.0, 1.0]
    assert caplog.text.count("cannot be written (disk full)") == 1


# -- in a run -----------------------------------------------------------------------------------------------------------


def test_a_run_is_labelled_by_the_judge_and_its_folder_holds_no_key(serve, tmp_path, monkeypatch):
    from core.train import fit
    from plugins.objectives.dpo import DPO
    from tests.support import random_rows, tiny_run

    monkeypatch.setenv(KEY_VARIABLE, KEY)
    server = serve(longer)
    options = {"base_url": server.base_url, "model": "m", "mode": "pairwise", "api_key_env": KEY_VARIABLE}
    judge = Judge(**options, cache=str(tmp_path / "replies"))
    train = random_rows(6, 2)
    fit(tiny_run(tmp_path / "run", DPO(pairs="relabelled"), train, reward=judge, trainer={"max_epochs": 1}))
    asked = {(shown(m, "RESPONSE A"), shown(m, "RESPONSE B")) for m in server.messages}
    assert asked >= {tuple(r.text for r in row.responses) for row in train}
    assert {h["Authorization"] for h in server.headers} == {f"Bearer {KEY}"}
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 5
    assert not [file for file in files if KEY.encode() in file.read_bytes()]


def test_a_message_is_the_same_in_every_process(tmp_path):
    """The key of a reply must not hang on Python's hash seed."""
    code = (
        "from plugins.rewards.judge import Judge; from core.api import Sample\n"
        "j = Judge('http://h/v1', 'm', extra={'b': 1, 'a': {'d': 1, 'c': 2}})\n"
        "print(j.settings.key(j.rubric.fill({'response': 'r', 'prompt': 'p'}), j.rubric))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1
    judge = Judge("http://h/v1", "m", extra={"a": {"c": 2, "d": 1}, "b": 1})
    assert judge.settings.key(judge.rubric.fill({"prompt": "p", "response": "r"}), judge.rubric) == seen.pop().strip()
    assert json.dumps(judge.settings.body("x"))
