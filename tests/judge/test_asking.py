"""Both SDKs, as they are installed, against a server on this machine that misbehaves, and the loop that asks."""

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter

import httpx2
import judge_server
import pytest
from forked import free_port
from helpers import run_in_process
from judge_server import DRIP, DROPPED, HALF, HANG, HTML, OK, PROSE, SLOW, JudgeServer, mixed, score

import judge_faults
from judge import asking
from judge.args import JudgeArgs, PaceArgs
from judge.asking import Asking
from judge.backends import CONNECT, key_problems, open_backend
from judge.failures import Failure, Refused, failure_of, without_key
from judge.prompts import CHOICE_SCHEMA, SCORE_SCHEMA
from judge.questions import Question, left_of
from judge.store import Store
from judge.verdicts import read_score

KEYS = {"gemini": "gemini-key-0123456789", "openai": "openai-key-0123456789"}
BOTH = pytest.mark.parametrize("api", ["gemini", "openai"])


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.setenv("GEMINI_API_KEY", KEYS["gemini"])
    monkeypatch.setenv("OPENAI_API_KEY", KEYS["openai"])


@pytest.fixture
def serve(monkeypatch):
    """Starts a server that behaves so, and points Gemini's SDK at it."""
    started = []

    def start(*args, **flags):
        server = JudgeServer(*args, **flags).__enter__()
        started.append(server)
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.root)
        return server

    yield start
    for server in started:
        server.__exit__()


def judge_args(api, server, **flags):
    url = server.url if api == "openai" else None
    return JudgeArgs(judge_model="judge-1", judge_url=url, **flags)


def ask_once(api, server, prompt="p", timeout=5.0, schema=SCORE_SCHEMA, **flags):
    """The reply, or the failure that the exception of the SDK means."""

    async def go():
        backend = open_backend(judge_args(api, server, **flags), schema, timeout)
        try:
            return await backend.ask(prompt)
        except (*backend.errors, Failure, OSError, ValueError) as error:  # as judge.asking expects
            return failure_of(error)
        finally:
            await backend.close()

    return asyncio.run(go())


# One request.


@BOTH
def test_a_request_has_model_prompt_key_schema_and_temperature_0(api, serve):
    server = serve()
    reply = ask_once(api, server, "how good?", reply_tokens=9)
    (seen,) = server.seen
    assert json.loads(reply.text) == score("how good?") and reply.end == "stop"
    assert (reply.prompt_tokens, reply.reply_tokens) == (100, 7)
    assert seen.key == KEYS[api] and seen.prompt == "how good?"
    if api == "gemini":
        config = seen.body["generationConfig"]
        assert config["temperature"] == 0 and config["responseJsonSchema"] == SCORE_SCHEMA
        assert config["responseMimeType"] == "application/json" and config["maxOutputTokens"] == 9
        assert "thinkingConfig" not in config
    else:
        assert seen.body["model"] == "judge-1" and seen.body["temperature"] == 0 and seen.body["max_tokens"] == 9
        assert seen.body["response_format"]["json_schema"]["schema"] == SCORE_SCHEMA


@BOTH
def test_a_server_that_knows_no_schema_is_asked_for_text(api, serve):
    server = serve()
    reply = ask_once(api, server, judge_output="text")
    assert read_score(reply).value == score("p")["score"] and reply.text.isdecimal()
    body = server.seen[0].body
    assert "response_format" not in body and "responseJsonSchema" not in body.get("generationConfig", {})
    assert "max_tokens" not in body and "maxOutputTokens" not in body.get("generationConfig", {})


def test_what_gemini_may_think_is_a_flag(serve):
    server = serve()
    ask_once("gemini", server, thinking_tokens=0)
    assert list(server.seen[0].body["generationConfig"]["thinkingConfig"].values()) == [0]


@BOTH
def test_a_choice_is_asked_for_with_its_own_schema(api, serve):
    server = serve(answer=lambda prompt: {"winner": "B"})
    assert json.loads(ask_once(api, server, schema=CHOICE_SCHEMA).text) == {"winner": "B"}
    assert json.dumps(CHOICE_SCHEMA["properties"]) in json.dumps(server.seen[0].body)


@BOTH
@pytest.mark.parametrize(
    ("what", "end", "text"),
    [("prose", "stop", PROSE), ("nothing", "stop", ""), ("blocked", "blocked", ""), ("cut off", "cut off", "10")],
)
def test_a_reply_without_a_score_is_a_reply(api, what, end, text, serve):
    reply = ask_once(api, serve(lambda *_: what))
    assert (reply.end, reply.text) == (end, text)
    assert read_score(reply).value is None


FAILURES = [
    ("429", "again"),
    ("500", "again"),
    ("503", "again"),
    ("408", "again"),
    ("400", "item"),
    ("422", "item"),
    ("401", "all"),
    ("403", "all"),
    ("404", "all"),
    (DROPPED, "again"),
    (HALF, "again"),
    (HANG, "again"),
]


@BOTH
@pytest.mark.parametrize(("what", "kind"), FAILURES)
def test_what_goes_wrong_is_sent_once_by_the_sdk_and_named_without_the_key(api, what, kind, serve):
    server = serve(lambda *_: what)
    failure = ask_once(api, server, timeout=0.3 if what == HANG else 5.0)
    server.release.set()
    assert failure.kind == kind, failure
    assert server.attempts == {"p": 1}
    assert str(failure) and KEYS[api] not in str(failure)
    if what.isdecimal():
        assert failure.status == int(what) and failure.after == (0 if kind == "all" else 0.05)


def test_a_web_page_from_gemini_is_worth_another_request_and_one_from_another_address_is_named(serve):
    assert ask_once("gemini", serve(lambda *_: HTML)).kind == "again"
    server = serve(lambda *_: HTML)
    failure = ask_once("openai", server)
    assert failure.kind == "unreachable" and f"{server.url}/ is not an OpenAI-compatible address" in str(failure)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "85"}], "85"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "40"}]}, {"type": "text", "text": "85"}], "85"),
        ([{"type": "text", "text": '{"score": '}, {"type": "text", "text": "85}"}], '{"score": 85}'),
        ([{"type": "thinking", "thinking": "Score: 85"}], ""),
        ([], ""),
        (None, ""),
    ],
)
def test_of_a_message_in_parts_the_texts_are_joined_and_the_thinking_is_left_aside(content, text, serve, monkeypatch):
    whole = judge_server.as_openai

    def in_parts(*told):
        reply = whole(*told)
        reply["choices"][0]["message"]["content"] = content
        return reply

    monkeypatch.setattr(judge_server, "as_openai", in_parts)
    assert ask_once("openai", serve()).text == text


@pytest.mark.parametrize("choice", [{"index": 0}, {"message": None}, {"message": "85"}, None, "85"])
def test_a_reply_of_odd_shape_is_worth_another_request(choice, serve, tmp_path, monkeypatch):
    whole, odd = judge_server.as_openai, [True]

    def once(*told):
        return whole(*told) | ({"choices": [choice]} if odd and odd.pop() else {})

    monkeypatch.setattr(judge_server, "as_openai", once)
    loop, stored = ask_all("openai", serve(), tmp_path, questions(3))
    assert len(stored) == 3 and loop.tally.retries == 1


@pytest.mark.parametrize("body", [{"error": "no"}, {"error": {"code": 500, "message": "no", "details": None}}, ["no"]])
def test_an_error_of_odd_shape_is_worth_another_request(body, serve, tmp_path, monkeypatch):
    monkeypatch.setattr(judge_server, "problem", lambda *_: body)
    server = serve(lambda prompt, attempt: "500" if attempt == 1 else OK)
    loop, stored = ask_all("gemini", server, tmp_path, questions(3))
    assert len(stored) == 3 == loop.tally.retries


@BOTH
def test_a_server_that_is_not_there_is_told_from_one_that_fails(api, serve, monkeypatch):
    server = serve()
    server.root = f"http://127.0.0.1:{free_port()}"
    server.url = f"{server.root}/v1"
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.root)
    assert ask_once(api, server).kind == "unreachable"


@BOTH
def test_a_server_behind_a_firewall_that_drops_packets_is_not_there(api, serve, tmp_path, monkeypatch):
    limits = []

    async def drop(_, request):
        limits.append(request.extensions["timeout"])
        raise httpx2.ConnectTimeout("")

    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", drop)
    assert ask_once(api, serve(), timeout=60.0).kind == "unreachable"
    assert limits[0]["connect"] == CONNECT and limits[0]["read"] == 60
    with pytest.raises(ValueError, match="ConnectTimeout"):
        ask_all(api, serve(), tmp_path, questions(9), timeout=3.0)
    assert len(limits) == 2 and limits[1]["connect"] == 3


@BOTH
def test_no_repr_of_what_holds_the_key_shows_it(api, serve):
    backend = open_backend(judge_args(api, serve()), SCORE_SCHEMA, 1.0)
    assert KEYS[api] not in repr(backend) + repr(vars(backend))
    asyncio.run(backend.close())


def test_a_key_is_needed_where_gemini_is_asked_and_looked_for_in_both_places(monkeypatch):
    args, own = JudgeArgs(judge_model="m"), JudgeArgs(judge_model="m", judge_url="http://127.0.0.1:1/v1")
    assert key_problems(args) == []
    monkeypatch.setenv("GEMINI_API_KEY", " ")
    assert "GEMINI_API_KEY" in key_problems(args)[0]
    monkeypatch.setenv("GOOGLE_API_KEY", "google-key-012345")
    assert key_problems(args) == []
    monkeypatch.delenv("GOOGLE_API_KEY")
    monkeypatch.delenv("OPENAI_API_KEY")
    assert key_problems(own) == []


@BOTH
@pytest.mark.parametrize("key", ["\u201ckey-0123456789\u201d", "key-01234\u2026", "key\n0123456789", "key\t0123456789"])
def test_a_key_that_no_request_can_send_is_named_before_the_first_and_not_shown(api, key, monkeypatch):
    name = f"{api.upper()}_API_KEY"
    args = JudgeArgs(judge_model="m", judge_url="http://127.0.0.1:1/v1" if api == "openai" else None)
    monkeypatch.setenv(name, key)
    (problem,) = key_problems(args)
    assert problem.startswith(f"{name}: ") and "key-0" not in problem and "\n" not in problem
    monkeypatch.setenv(name, f" {KEYS[api]}\n")
    assert key_problems(args) == []


UNUSABLE = [
    ("ALL_PROXY", "socks5://127.0.0.1:1"),
    ("all_proxy", "socks://user:pass-word@127.0.0.1:1"),
    ("HTTPS_PROXY", "http://127.0.0.1:port"),
    ("SSL_CERT_FILE", "/nowhere.pem"),
]


@BOTH
@pytest.mark.parametrize(("name", "value"), UNUSABLE)
def test_a_proxy_or_certificates_that_cannot_be_used_are_named_before_the_first_request(api, name, value, monkeypatch):
    for proxy in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.lower(), raising=False)
    monkeypatch.setenv(name, value)
    args = JudgeArgs(judge_model="m", judge_url="http://127.0.0.1:1/v1" if api == "openai" else None)
    with pytest.raises(Refused, match=f"change or unset {name}$") as raised:
        open_backend(args, SCORE_SCHEMA, 1.0)
    assert "pass-word" not in str(raised.value)


def test_a_key_is_taken_out_of_what_a_server_says(monkeypatch):
    assert without_key(f"bad key {KEYS['gemini']}!") == "bad key [GEMINI_API_KEY]!"
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    assert without_key("6 x 7") == "6 x 7"


def test_an_openai_server_of_ones_own_needs_no_key(serve, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ask_once("openai", serve()).end == "stop"


def questions(count):
    return [Question(i, 0, "", f"prompt {i}") for i in range(count)]


def ask_all(api, server, tmp_path, asked, before=lambda asking: None, judge=None, **limits):
    """(the asking, stored replies by item); raises what it raises."""
    args = judge_args(api, server, **(judge or {}))
    pace = PaceArgs(**({"backoff": 0.01, "timeout": 5.0} | limits))
    store = Store(tmp_path / "replies.jsonl")
    try:
        backend = open_backend(args, SCORE_SCHEMA, pace.timeout)
        loop = Asking(backend, read_score, store, args, pace, lambda prompt: len(prompt))
        before(loop)
        loop.ask(left_of(asked, "judge-1", store.replies))
        return loop, {reply["item"]: reply for reply in store.replies.values()}
    finally:
        store.close()


# Models that do not take what is sent.


def unsupported(name, message, code="unsupported_parameter", told=True):
    return {
        "error": {"message": message, "type": "invalid_request_error", "param": name if told else None, "code": code}
    }


def reasoning_model(body):
    """As OpenAI's reasoning models answer, word for word."""
    if body.get("temperature", 1) != 1:
        text = "Unsupported value: 'temperature' does not support 0 with this model. "
        text += "Only the default (1) value is supported."
        return unsupported("temperature", text, "unsupported_value")
    if "max_tokens" in body:
        text = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return unsupported("max_tokens", text)
    return None


def nameless(body):
    """The same of a server that fills neither param nor code."""
    found = reasoning_model(body)
    return found and {"error": {"message": found["error"]["message"]}}


def strictly_positive(body):
    return {"error": "`temperature` must be strictly positive"} if body.get("temperature") == 0 else None


@pytest.mark.parametrize("refuse", [reasoning_model, nameless])
def test_a_model_that_refuses_temperature_and_max_tokens_is_asked_as_it_wants(refuse, serve, tmp_path):
    server = serve(refuse=refuse)
    loop, stored = ask_all("openai", server, tmp_path, questions(12), judge={"reply_tokens": 50})
    assert len(stored) == 12 and not loop.tally.failed and loop.tally.requests == 14 == len(server.seen)
    adapted = {"temperature": "left out", "max_tokens": "sent as max_completion_tokens"}
    assert all(
        reply["adapted"] == adapted and reply["value"] == score(f"prompt {i}")["score"] for i, reply in stored.items()
    )
    last = server.seen[-1].body
    assert "temperature" not in last and "max_tokens" not in last and last["max_completion_tokens"] == 50


def test_a_model_is_asked_as_it_wants_by_requests_that_were_on_their_way_too(serve, tmp_path):
    """The first reply, a blocked one, comes before the model is asked for what it refuses, by four at a time."""
    server = serve(lambda prompt, _: "blocked" if prompt == "prompt 0" else OK)
    four, passed = threading.Barrier(4), []

    def refuse(body):
        if "prompt 0" in json.dumps(body) or (refusal := reasoning_model(body)) is None:
            return None
        with contextlib.suppress(threading.BrokenBarrierError):
            if len(passed) < 4:  # later ones are alone
                four.wait(20)
                passed.append(body)
        return refusal

    server.refuse = refuse
    loop, stored = ask_all("openai", server, tmp_path, questions(9))
    assert len(stored) == 9 and not loop.tally.failed
    assert len(passed) == 4, "four that the model refuses were on their way at once"
    assert "adapted" not in stored[0] and stored[8]["adapted"] == {"temperature": "left out"}


def test_a_model_that_wants_a_temperature_above_0_keeps_its_own(serve, tmp_path):
    server = serve(refuse=strictly_positive)
    _, stored = ask_all("openai", server, tmp_path, questions(3))
    assert len(stored) == 3 and len(server.seen) == 4 and stored[0]["adapted"] == {"temperature": "left out"}


def test_a_gemini_model_that_refuses_temperature_keeps_its_own(serve, tmp_path):
    told = {"error": {"code": 400, "message": "temperature is not supported by this model", "status": "INVALID"}}

    def refuse(body):
        return told if "temperature" in body["generationConfig"] else None

    server = serve(refuse=refuse)
    _, stored = ask_all("gemini", server, tmp_path, questions(3))
    assert len(stored) == 3 and len(server.seen) == 4 and stored[0]["adapted"] == {"temperature": "left out"}


NO_SCHEMA = "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."
REFUSALS = [
    ("response_format", NO_SCHEMA, "--judge-output text"),
    ("response_format", "'response_format.type': value is not one of the allowed ['text']", "--judge-output text"),
    ("reasoning_effort", "Unrecognized request argument supplied: reasoning_effort", "--reasoning-effort"),
    ("max_tokens", "max_tokens is not supported by this model", "--reply-tokens"),
]


@pytest.mark.parametrize(("name", "message", "remedy"), REFUSALS, ids=[one[1][:20] for one in REFUSALS])
def test_a_flag_that_a_model_refuses_is_named_after_one_question(name, message, remedy, serve, tmp_path):
    def refuse(body):
        sent = name in body or name.replace("max_", "max_completion_") in body
        return unsupported(name, message) if sent else None

    server = serve(refuse=refuse)
    with pytest.raises(ValueError, match=remedy) as raised:
        ask_all("openai", server, tmp_path, questions(30), judge={"reasoning_effort": "low", "reply_tokens": 5})
    assert len({seen.prompt for seen in server.seen}) == 1 and len(str(raised.value)) < 250


def test_what_gemini_may_not_think_is_told_with_the_flag(serve, tmp_path):
    text = "Budget 0 is invalid. This model only works in thinking mode."
    server = serve(refuse=lambda body: {"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}})
    with pytest.raises(ValueError, match="--thinking-tokens"):
        ask_all("gemini", server, tmp_path, questions(30), judge={"thinking_tokens": 0})
    assert len(server.seen) == 1


def test_one_question_that_is_too_long_fails_by_itself(serve, tmp_path):
    text = "'max_tokens' is too large: this model's maximum context length is 64 tokens and the request has 90"
    refuse = lambda body: unsupported("max_tokens", text) if "prompt 3" in json.dumps(body) else None  # noqa: E731
    loop, stored = ask_all("openai", serve(refuse=refuse), tmp_path, questions(8), judge={"reply_tokens": 50})
    assert len(stored) == 7 and [key[0] for key in loop.tally.failed] == [3]
    assert all("adapted" not in reply for reply in stored.values())


# Replies that cannot be read.


@pytest.mark.parametrize(
    ("what", "answer", "why", "remedy"),
    [
        ("cut off", score, "cut off", "--reply-tokens"),
        ("nothing", score, "empty", "--reply-tokens"),
        (OK, lambda _: "I cannot judge that.", "prose", "--judge-output"),
    ],
)
@BOTH
def test_where_no_reply_can_be_read_nothing_more_is_paid_for(api, what, answer, why, remedy, serve, tmp_path):
    server = serve(lambda *_: what, answer=answer)
    for paid in (range(10, 14), range(1)):  # those on their way when the tenth came are kept too; then none is asked
        before = len(server.seen)
        with pytest.raises(asking.NoVerdict, match=remedy) as raised:
            ask_all(api, server, tmp_path, questions(60))
        assert len(server.seen) - before in paid and why in str(raised.value) and len(str(raised.value)) < 250
    assert len((tmp_path / "replies.jsonl").read_text().splitlines()) == len(server.seen)


def test_one_reply_that_can_be_read_lets_the_others_be_counted(serve, tmp_path):
    server = serve(answer=lambda prompt: "85" if prompt == "prompt 9" else "no idea")
    loop, stored = ask_all("openai", server, tmp_path, questions(40), concurrency=1)
    assert len(stored) == 40 and sum(reply["value"] is not None for reply in stored.values()) == 1


def test_blocked_replies_do_not_stop_the_asking(serve, tmp_path):
    _, stored = ask_all("openai", serve(lambda *_: "blocked"), tmp_path, questions(30))
    assert len(stored) == 30 and {reply["missing"] for reply in stored.values()} == {"blocked"}


# Many requests.


@BOTH
def test_with_all_faults_at_once_no_item_is_lost_and_none_is_answered_twice(api, serve, tmp_path):
    server = serve(mixed(seed=1), slow=0.05)
    server.release.set()  # what would hang is dropped instead
    asked = questions(150)
    loop, replies = ask_all(api, server, tmp_path, asked)
    assert set(replies) == set(range(150)) and not loop.tally.failed
    assert server.answered() == Counter(question.prompt for question in asked)
    assert loop.tally.requests == len(server.seen) > 150 + 10
    assert loop.tally.retries == len(server.seen) - 150
    assert {seen.what for seen in server.seen} >= {
        OK,
        SLOW,
        "429",
        "500",
        DROPPED,
        "prose",
        "nothing",
        "blocked",
        "cut off",
    }
    last = {seen.prompt: seen.what for seen in server.seen}
    for item, reply in replies.items():
        expected = score(f"prompt {item}")["score"] if last[f"prompt {item}"] in (OK, SLOW) else None
        assert reply["value"] == expected
        assert (reply["missing"] is None) == (expected is not None)
        assert reply["requests"] == server.attempts[f"prompt {item}"]
    text = (tmp_path / "replies.jsonl").read_text()
    assert not any(key in text for key in KEYS.values())


@BOTH
def test_what_is_stored_is_not_asked_for_again(api, serve, tmp_path):
    server = serve()
    ask_all(api, server, tmp_path, questions(7))
    loop, replies = ask_all(api, server, tmp_path, questions(12))
    assert len(replies) == 12 and loop.tally.requests == 5
    assert set(server.attempts.values()) == {1}


def test_as_many_requests_are_on_their_way_as_allowed(serve, tmp_path):
    """The first is asked alone, the other 15 five at a time."""
    five, on_their_way, counts = threading.Barrier(5, timeout=20), [], []

    def answer(prompt):
        if prompt != "prompt 0":
            five.wait()
        return score(prompt)

    def count(asking):
        ask = asking.backend.ask

        async def counted(prompt):
            on_their_way.append(prompt)
            counts.append(len(on_their_way))
            try:
                return await ask(prompt)
            finally:
                on_their_way.remove(prompt)

        asking.backend.ask = counted

    loop, _ = ask_all("openai", serve(answer=answer), tmp_path, questions(16), before=count, concurrency=5)
    assert loop.tally.requests == 16 and max(counts) == 5


def test_a_slow_reply_past_the_timeout_is_asked_for_again(serve, tmp_path):
    server = serve(lambda prompt, attempt: HANG if attempt == 1 else OK)
    loop, replies = ask_all("openai", server, tmp_path, questions(3), timeout=3)
    assert len(replies) == 3 and loop.tally.retries == 3
    assert set(server.answered().values()) == {1}


@BOTH
def test_a_reply_that_comes_byte_by_byte_is_given_up_in_time(api, serve, tmp_path):
    """Each byte comes within the timeout of the HTTP client, the whole reply would take 20 seconds."""
    server = serve(lambda prompt, attempt: DRIP if attempt == 1 else OK, slow=0.1)
    loop, replies = ask_all(api, server, tmp_path, questions(1), timeout=3)
    assert len(replies) == 1 and loop.tally.retries == 1


def test_an_item_that_fails_for_good_is_named_and_the_others_go_on(serve, tmp_path):
    server = serve(lambda prompt, _: {"prompt 2": "500", "prompt 4": "400"}.get(prompt, OK))
    loop, replies = ask_all("openai", server, tmp_path, questions(6), attempts=3)
    assert set(replies) == {0, 1, 3, 5}
    failed = {key[0]: why for key, why in loop.tally.failed.items()}
    assert set(failed) == {2, 4} and "status 500" in failed[2] and "status 400" in failed[4]
    assert server.attempts["prompt 2"] == 3 and server.attempts["prompt 4"] == 1


def test_a_server_that_went_down_stops_the_run_and_what_it_answered_is_kept(serve, tmp_path):
    server = serve(lambda prompt, _: OK if int(prompt.split()[1]) < 5 else "503")
    with pytest.raises(ValueError, match=f"{asking.GIVE_UP} questions in a row failed.*status 503"):
        ask_all("openai", server, tmp_path, questions(100), attempts=2)
    assert len(server.attempts) < 5 + asking.GIVE_UP + 4
    assert len((tmp_path / "replies.jsonl").read_text().splitlines()) == 5


@BOTH
@pytest.mark.parametrize("what", ["401", "404"])
def test_what_is_wrong_for_all_is_found_with_one_request(api, what, serve, tmp_path):
    server = serve(lambda *_: what)
    with pytest.raises(ValueError, match=f"status {what}"):
        ask_all(api, server, tmp_path, questions(50))
    assert len(server.seen) == 1


NO_LIMIT = {"error": {"message": "max_tokens: Field required", "type": "invalid_request_error"}}
NO_LIMIT_FASTAPI = {"detail": [{"type": "missing", "loc": ["body", "max_tokens"], "msg": "Field required"}]}


@pytest.mark.parametrize(
    ("api", "status", "body", "remedy"),
    [
        ("openai", "404", {"detail": "Not Found"}, "--judge-url usually ends in /v1"),
        ("openai", "404", unsupported(None, "The model `m` does not exist."), "choose another --judge-model"),
        ("gemini", "404", {"error": {"code": 404, "message": "not found"}}, "choose another --judge-model"),
        ("openai", "401", unsupported(None, "Incorrect API key", "invalid_api_key"), "set OPENAI_API_KEY to a key"),
        ("openai", "400", NO_LIMIT, "add --reply-tokens"),
        ("openai", "422", NO_LIMIT_FASTAPI, "add --reply-tokens"),
    ],
)
def test_what_no_command_goes_on_from_says_what_to_change(api, status, body, remedy, serve, tmp_path, monkeypatch):
    monkeypatch.setattr(judge_server, "problem", lambda *_: body)
    with pytest.raises(Refused, match=f"^status {status}: .*; .*{remedy}"):
        ask_all(api, serve(lambda *_: status), tmp_path, questions(50))


@pytest.mark.parametrize("page", [HTML, "402"])
def test_an_address_that_is_no_server_of_models_and_a_bill_unpaid_stop_at_once(page, serve, tmp_path):
    server = serve(lambda *_: page)
    with pytest.raises(ValueError, match="OpenAI-compatible address|status 402"):
        ask_all("openai", server, tmp_path, questions(50))
    assert len(server.seen) == 1


def test_a_quota_that_is_used_up_is_told_from_one_request_too_many(serve, tmp_path, monkeypatch):
    spent = unsupported(None, "You exceeded your current quota, please check your plan.", "insufficient_quota")
    monkeypatch.setattr(judge_server, "problem", lambda *_: spent)
    server = serve(lambda *_: "429")
    with pytest.raises(ValueError, match="status 429: .*current quota"):
        ask_all("openai", server, tmp_path, questions(50))
    assert len(server.seen) == 1


def test_a_few_items_that_all_fail_are_no_outcome(serve, tmp_path):
    with pytest.raises(ValueError, match="no question was answered.*status 500"):
        ask_all("openai", serve(lambda *_: "500"), tmp_path, questions(2), attempts=2)


def test_questions_that_never_work_are_told_with_the_outcome_when_they_are_all_that_is_left(serve, tmp_path):
    hopeless = [f"prompt {i}" for i in range(3, 3 + asking.GIVE_UP + 2)]
    server = serve(lambda prompt, _: "400" if prompt in hopeless else OK)
    for _ in range(2):
        loop, stored = ask_all("openai", server, tmp_path, questions(3 + len(hopeless)))
        assert len(stored) == 3 and len(loop.tally.failed) == len(hopeless)
    assert loop.answered == 0
    with pytest.raises(ValueError, match="questions in a row failed.*status 400"):
        ask_all("openai", server, tmp_path / "new", questions(3 + len(hopeless))[3:])


def test_every_request_goes_through_the_pace_repeated_ones_too(serve, tmp_path):
    server = serve(lambda prompt, attempt: "500" if attempt == 1 else OK)
    sent, now = [], [0.0]

    def count_time(loop):
        async def sleep(seconds):
            now[0] += seconds
            return False

        loop.pace.clock, loop.pace.sleep = lambda: now[0], sleep
        wait = loop.pace.wait

        async def noted(tokens):
            allowed = await wait(tokens)
            sent.append(now[0])
            return allowed

        loop.pace.wait = noted

    ask_all("openai", server, tmp_path, questions(5), before=count_time, requests_per_minute=2)
    assert len(sent) == len(server.seen) == 10
    assert Counter(sent) == {window * 61.0: 2 for window in range(5)}


def test_when_the_server_says_wait_to_one_request_no_other_is_sent(serve, tmp_path):
    server, closed = serve(lambda prompt, attempt: "429" if attempt == 1 else OK), []

    def note(loop):
        close_for = loop.pace.close_for
        loop.pace.close_for = lambda seconds: (closed.append(seconds), close_for(seconds))

    ask_all("openai", server, tmp_path, questions(4), before=note, backoff=0.0)
    assert closed == [0.05] * 4  # as the server asks


def test_waiting_is_doubled_for_each_attempt(serve, tmp_path):
    slept = []

    def note(loop):
        async def sleep(seconds):
            slept.append(seconds)
            return False

        loop._sleep = sleep

    server = serve(lambda prompt, attempt: DROPPED if attempt < 5 else OK)
    ask_all("openai", server, tmp_path, questions(1), before=note, backoff=0.5)
    assert slept == [0.5, 1.0, 2.0, 4.0]


def test_a_full_disk_ends_the_run_with_what_fits(serve, tmp_path, monkeypatch):
    server, add = serve(), Store.add

    def small_disk(store, line):
        if len(store.replies) == 6:
            raise OSError(28, "no room")
        add(store, line)

    monkeypatch.setattr(Store, "add", small_disk)
    with pytest.raises(OSError, match="no room"):
        ask_all("openai", server, tmp_path, questions(60))
    assert len(server.seen) <= 6 + 4 + 1
    assert len((tmp_path / "replies.jsonl").read_text().splitlines()) == 6


def test_each_reply_is_on_the_disk_before_its_worker_asks_on(serve, tmp_path):
    """At any moment at most as many are answered and not stored as there are workers."""
    path, missing = tmp_path / "replies.jsonl", []

    def behave(prompt, attempt):
        stored = len(path.read_text().splitlines())
        missing.append(len(server.attempts) - stored)
        return OK

    server = serve(behave)
    ask_all("openai", server, tmp_path, questions(40), concurrency=3)
    assert max(missing) <= 3 and len(missing) == 40


@BOTH
def test_a_key_that_a_server_answers_with_is_not_stored(api, serve, tmp_path):
    server = serve(answer=lambda prompt: {"score": f"your key is {KEYS[api]}"})
    _, replies = ask_all(api, server, tmp_path, questions(2))
    assert replies[0]["missing"] == "prose" and "your key is [" in replies[0]["text"]
    assert KEYS[api] not in (tmp_path / "replies.jsonl").read_text()


def test_a_stored_reply_says_when_by_whom_and_how_it_was_asked(serve, tmp_path):
    before = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    _, replies = ask_all("openai", serve(), tmp_path, questions(1))
    reply = replies[0]
    assert reply["model"] == "judge-1" and len(reply["prompt_sha256"]) == 64
    assert before <= reply["time"] <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    assert json.loads(reply["text"])["score"] == reply["value"] and reply["finish"] == "stop"
    assert reply["settings"]["judge_output"] == "schema" and reply["settings"]["judge_url"].startswith("http")


# The fault run of benchmarks/judge_faults.py, small.


def test_a_run_with_every_fault_that_is_killed_and_resumed_loses_nothing_and_asks_nothing_twice():
    flags = ["--by", "openai", "--items", 48, "--concurrency", 4, "--slow", 0.1, "--timeout", 1]
    done = run_in_process(judge_faults, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("| openai")]
    row = dict(zip(judge_faults.COLUMNS, line.strip("| ").split(" | "), strict=True))
    assert row["items"] == "48" and int(row["stored at the kill"]) >= 24
    assert int(row["requests"]) == 48 + int(row["again"]) and int(row["again"]) > 0
    assert sum(int(row[name]) for name in ("parsed", "unparsed", "blocked", "failed")) == 48
    assert int(row["unparsed"]) > 0 and int(row["on their way at the kill"]) <= 4
    assert [row[name] for name in (judge_faults.LOST, judge_faults.TWICE, judge_faults.SHOWN)] == ["0", "0", "0"]
