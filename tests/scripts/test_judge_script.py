"""scripts/judge_ift.py as a user runs it: whole runs against a local server, killed ones, wrong input."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from forked import free_port, run_forked, start_forked
from helpers import ROOT, command, run_in_process, write_rows
from judge_server import HANG, OK, JudgeServer, digest, mixed, score
from test_commands import load_script
from test_judge import generation

from evidence.runs import read_run
from gpt2_scratch.tokenizer import GPT2
from judge.measures import repeats_prompt

KEY = "a-key-nobody-may-see-42"
METRIC = {"value", "low", "high", "n"}
NO_KEYS = {"GEMINI_API_KEY": "", "GOOGLE_API_KEY": "", "OPENAI_API_KEY": ""}
QUICK = ("--backoff", 0.01, "--timeout", 5)


def rows(count, **more):
    """Answers of different quality to questions of different length."""
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "slept", "for", "long", "there"]
    return [
        generation(i, " ".join(words[: 1 + i % 11]), " ".join(words[: 3 + i % 9]), stopped=i % 3 > 0) | more
        for i in range(count)
    ]


@pytest.fixture
def run(tmp_path):
    """A folder as finetune_ift leaves it, as far as a judge looks at it."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_rows(folder / "generations.jsonl", rows(40))
    results = {
        "script": "finetune_ift",
        "args": {"lr": 0.1},
        "test": {"n": 40},
        "files": ["generations.jsonl", "results.json"],
    }
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def judge(run, server, *flags, api="openai"):
    env = NO_KEYS | {"OPENAI_API_KEY": KEY} if api == "openai" else NO_KEYS | {"GEMINI_API_KEY": KEY}
    env |= {"GOOGLE_GEMINI_BASE_URL": server.root}
    url = ["--judge-url", server.url] if api == "openai" else []
    return run_in_process("judge_ift", "--generations", run, "--judge-model", "judge-1", *url, *flags, **env)


def replies_of(folder):
    return [json.loads(line) for line in (folder / "replies.jsonl").read_text().splitlines()]


def outcome_of(folder):
    return json.loads((folder / "judge.json").read_text())


def asked_of(run):
    script = load_script("judge_ift")
    args = script.Args(script.What(run), script.JudgeArgs("m"), script.PaceArgs())
    return script.questions_of(args, script.read_generations(run, "response", ""), None)


@pytest.mark.parametrize("api", ["gemini", "openai"])
def test_a_whole_run_with_faults_loses_nothing_asks_nothing_twice_and_shows_no_key(api, run):
    with JudgeServer(mixed(seed=3), slow=0.05) as server:
        server.release.set()
        done = judge(run, server, *QUICK, api=api)
        assert done.returncode == 0, done.stderr
        first = len(server.seen)
        left = judge(run, server, "--dry-run", api=api)
        other = judge(run, server, "--judge-output", "text", api=api)
        again = judge(run, server, *QUICK, api=api)
        assert len(server.seen) == first
    assert "requests   0, and 40 more whose replies are stored" in left.stdout
    assert other.returncode == 2 and "--judge-output text" in other.stderr and "--output-dir" in other.stderr
    assert again.returncode == 0 and again.stdout.split("score")[1] == done.stdout.split("score")[1]
    folder = run / "judge" / "judge-1-published"
    outcome, count = outcome_of(folder), outcome_of(folder)["counts"]
    assert max(server.answered().values()) == 1 and len(server.answered()) == 40 == count["asked"]
    lasting = Counter(seen.what for seen in server.seen if seen.answered)
    assert count["unparsed"] == lasting["prose"] + lasting["nothing"] + lasting["cut off"] > 0
    assert count["blocked"] == lasting["blocked"] and count["failed"] == 0
    assert count["parsed"] == 40 - count["unparsed"] - count["blocked"] == outcome["score"]["n"]
    given = {question.item: score(question.prompt)["score"] for question in asked_of(run)}
    values = [reply["value"] for reply in replies_of(folder) if reply["value"] is not None]
    assert values == [given[reply["item"]] for reply in replies_of(folder) if reply["value"] is not None]
    assert outcome["score"]["value"] == pytest.approx(sum(values) / len(values))
    assert set(outcome["score"]) == METRIC == set(outcome["measures"]["rouge_l"])
    assert outcome["args"]["judge_model"] == "judge-1" and outcome["environment"]["libraries"]["openai"]
    shown = done.stdout + done.stderr + again.stdout + again.stderr
    assert f"unparsed {count['unparsed']}, blocked {count['blocked']}, failed 0" in done.stdout
    assert "Traceback" not in shown and KEY not in shown
    assert not any(KEY in path.read_text() for path in run.rglob("*") if path.is_file())
    results = json.loads((run / "results.json").read_text())
    assert results["args"] == {"lr": 0.1} and results["files"] == ["generations.jsonl", "judge", "results.json"]
    entry = results["judge"]["judge-1-published"]
    assert len(entry["scores"]) == count["parsed"] and entry["scores"] == outcome["scores"]
    assert entry["score"] == outcome["score"] and entry["judge"]["model"] == "judge-1" and "args" not in entry


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start(run, server, *flags):
    """The judge in a process of its own, whose messages are in the file err beside the run."""
    words = command("judge_ift", "--generations", run, "--judge-model", "judge-1", "--judge-url", server.url, *flags)
    (process,) = start_forked(words[1:], run.parent, **NO_KEYS | {"OPENAI_API_KEY": KEY})
    return process


def hang_from(number):
    """The server answers so many requests, and leaves those after them waiting until it is released."""
    seen = []

    def behave(prompt, attempt):
        seen.append(prompt)
        return OK if len(seen) <= number else HANG

    return behave


def test_a_run_killed_in_the_middle_goes_on_and_no_reply_is_asked_for_twice(run):
    path = run / "judge" / "judge-1-published" / "replies.jsonl"
    with JudgeServer(hang_from(15)) as server:
        process = start(run, server, "--concurrency", 3)
        wait_for(lambda: path.exists() and path.read_text().count("\n") == 15 and server.at_once == 3)
        process.kill()
        process.join()
        assert not (path.parent / "judge.json").exists()
        with open(path, "a") as file:
            file.write('{"item": 39, "rep')  # as if it had been killed while it wrote
        server.release.set()
        server.behave = lambda *_: OK
        done = judge(run, server, *QUICK)
        assert done.returncode == 0, done.stderr
    assert len(server.answered()) == 40 and set(server.answered().values()) == {1}
    assert len(server.seen) == 40 + 3  # those on their way when it was killed were never answered
    assert sorted(reply["item"] for reply in replies_of(path.parent)) == list(range(40))
    assert outcome_of(path.parent)["counts"]["parsed"] == 40


def test_ctrl_c_waits_for_what_is_on_its_way_and_says_that_the_command_goes_on(run):
    with JudgeServer(lambda *_: "slow", slow=0.4) as server:
        process = start(run, server, "--concurrency", 3)
        wait_for(lambda: server.attempts.total() >= 4 + 3 and server.at_once == 3)
        os.kill(process.pid, signal.SIGINT)
        process.join(60)
    stored, errors = len(replies_of(run / "judge" / "judge-1-published")), (run.parent / "err").read_text()
    assert process.exitcode == 130 and "Traceback" not in errors
    assert f"{stored} replies are in" in errors and "goes on from there" in errors
    assert stored == len(server.answered()) == len(server.seen) < 40


def better(prompt):
    """A judge that prefers the longer answer, wherever it stands, and has a mind of its own on equal ones."""
    a, b = re.findall(r"model response [AB] (.*?)(?= with the model|\. Which)", prompt)
    return {"winner": "A" if len(a) > len(b) else "B" if len(b) > len(a) else "tie"}


def test_two_runs_are_compared_in_both_orders(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    longer = [
        row | {"response": row["response"] + " more" if i % 4 else row["response"]} for i, row in enumerate(rows(40))
    ]
    write_rows(other / "generations.jsonl", longer[::-1])
    with JudgeServer(answer=better) as server:
        done = judge(run, server, "--against", other, "--repeats", 2, *QUICK)
    assert done.returncode == 0, done.stderr
    assert len(server.seen) == 40 * 2 * 2
    outcome = outcome_of(run / "judge" / "judge-1-published-against-other")
    assert (outcome["wins"], outcome["ties"], outcome["losses"]) == (0, 20, 60)
    assert outcome["win_rate"]["value"] == 0.125 and outcome["win_rate"]["n"] == 40
    assert outcome["first_position"] == 0.5 and outcome["judge"]["against"] == str(other)
    assert outcome["agreement"]["length_ratio"]["value"] > 0.5  # longer won, and length_ratio is of the length
    assert "win rate   0.125 [" in done.stdout and "won 0, tied 20, lost 60" in done.stdout


def test_a_run_is_held_against_its_own_base(run):
    with JudgeServer(answer=better) as server:
        done = judge(run, server, "--text", "before", "--against", run, "--judge-output", "text", *QUICK)
    assert done.returncode == 0, done.stderr
    outcome = outcome_of(run / "judge" / "judge-1-published-before-against-run")
    longer, same = sum(len(row["response"]) < 4 for row in rows(40)), sum(len(row["response"]) == 4 for row in rows(40))
    assert (outcome["wins"], outcome["ties"], outcome["losses"]) == (longer, same, 40 - longer - same)
    assert "ended" not in outcome["measures"]


def test_repeats_tell_the_judges_noise_from_the_items_and_measures_are_held_against_the_mean(run):
    length = {question.prompt: question.item % 11 for question in asked_of(run)}  # of our answer, less one word
    times = Counter()

    def noisy(prompt):
        times[prompt] += 1
        return {"score": 9 * length[prompt] + digest(f"{prompt} {times[prompt]}") % 11}

    with JudgeServer(answer=noisy) as server:
        done = judge(run, server, "--repeats", 3, "--judge-output", "text", *QUICK)
    assert done.returncode == 0, done.stderr
    outcome = outcome_of(run / "judge" / "judge-1-published")
    assert outcome["counts"]["asked"] == 120 and outcome["score"]["n"] == 40
    assert outcome["variance"]["judge"] == pytest.approx((11**2 - 1) / 12, rel=0.35)
    assert outcome["variance"]["items"] == pytest.approx(81 * (11**2 - 1) / 12, rel=0.35)
    assert outcome["agreement"]["length_ratio"]["value"] > 0.5 and outcome["agreement"]["chrf"]["n"] == 40
    assert "empty" not in outcome["agreement"] and "rank correlation with the judge" in done.stdout
    assert "sd of items" in done.stdout


def test_a_dry_run_needs_no_key_counts_requests_and_tokens_and_writes_nothing(run):
    flags = ["--repeats", 2, "--requests-per-minute", 10, "--tokens-per-minute", 1_000_000]
    before = sorted(run.rglob("*"))
    done = run_in_process("judge_ift", "--generations", run, "--judge-model", "m", *flags, "--dry-run", **NO_KEYS)
    assert done.returncode == 0, done.stderr
    assert sorted(run.rglob("*")) == before
    assert re.search(r"requests +80, and 0 more", done.stdout) and "8.0 minutes" in done.stdout
    tokens = int(re.search(r"tokens +([\d,]+) in prompts", done.stdout)[1].replace(",", ""))
    assert tokens == 2 * sum(len(GPT2.encode(question.prompt)) for question in asked_of(run))


def test_without_a_judge_there_are_measures_and_no_sdk_and_no_torch(run):
    code = f"""
import runpy, sys
sys.argv = ["judge_ift.py", "--generations", {str(run)!r}, "--offline"]
runpy.run_path({str(ROOT / "scripts" / "judge_ift.py")!r}, run_name="__main__")
print("loaded", *[name for name in ("torch", "openai", "google.genai", "transformers") if name in sys.modules])
"""
    env = os.environ | NO_KEYS
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=run, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded" and not done.stderr
    outcome = outcome_of(run / "judge" / "offline")
    assert {"rouge_l", "chrf", "exact_match", "length_ratio", "empty", "repetition", "ended"} <= set(
        outcome["measures"]
    )
    assert all(set(metric) == METRIC and metric["n"] == 40 for metric in outcome["measures"].values())
    assert "counts" not in outcome and "agreement" not in outcome
    assert json.loads((run / "results.json").read_text())["judge"]["offline"]["measures"] == outcome["measures"]


def test_a_full_disk_loses_no_reply_that_was_stored_nor_do_damaged_results_lose_the_outcome(run):
    with JudgeServer() as server:
        words = command("judge_ift", "--generations", run, "--judge-model", "m", "--judge-url", server.url)[1:]
        done = run_forked(words, largest_file=6_000, **NO_KEYS)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert "could not be written" in done.stderr and "goes on from there" in done.stderr
        stored = {reply["item"] for reply in replies_of(run / "judge" / "m-published")}
        assert 5 < len(stored) < 40
        server.seen.clear()
        assert run_forked(words, **NO_KEYS).returncode == 0
    assert len(server.seen) == 40 - len(stored)


def test_an_outcome_is_not_overwritten_by_that_against_another_run_of_the_same_name(run, tmp_path):
    others = [tmp_path / name / "full" for name in ("a", "b")]
    for other in others:
        other.mkdir(parents=True)
        write_rows(other / "generations.jsonl", rows(40, response="no"))
    with JudgeServer(answer=better) as server:
        assert judge(run, server, "--against", others[0]).returncode == 0
        place = run / "judge" / "judge-1-published-against-full"
        before, asked = (place / "judge.json").read_bytes(), len(server.seen)
        done = judge(run, server, "--against", others[1])
        assert done.returncode == 2 and "choose another --output-dir" in done.stderr
        assert (place / "judge.json").read_bytes() == before and len(server.seen) == asked
        assert judge(run, server, "--against", others[0]).returncode == 0


def test_tables_read_the_scores_of_the_last_outcome_in_a_folder_wherever_it_is(run, tmp_path):
    place = tmp_path / "elsewhere" / "outcome"
    authors = ["--output-dir", place, "--judge-prompt", "authors"]
    with JudgeServer(answer=lambda _: {"score": 90}) as server:
        assert judge(run, server, "--output-dir", place).returncode == 0
        server.answer = lambda _: {"score": 50}
        assert judge(run, server, *authors).returncode == 0
        server.answer = better
        assert judge(run, server, "--text", "before", "--against", run, "--output-dir", place).returncode == 0
        assert read_run(run).scores == {}  # a choice has taken the place of the scores
        asked = len(server.seen)
        assert judge(run, server, *authors).returncode == 0 and len(server.seen) == asked
    assert read_run(run).scores == {str(i): 50.0 for i in range(40)}


def test_results_of_another_program_are_left_alone_and_damaged_ones_refused_before_anything_is_asked(run):
    (run / "results.json").write_text('{"mine": 1}')
    with JudgeServer() as server:
        assert judge(run, server).returncode == 0
        assert (run / "results.json").read_text() == '{"mine": 1}'
        (run / "results.json").write_text('{"mine"')
        asked = len(server.seen)
        done = judge(run, server, "--repeats", 2)
        assert done.returncode == 2 and "results.json is damaged" in done.stderr and len(server.seen) == asked


def test_an_empty_instruction_is_repeated_by_no_answer():
    assert repeats_prompt("anything", "") == 0.0 and repeats_prompt("Name a bird: robin", "name  a bird") == 1.0


# What wrong input gets.

CASES = [
    (["--generations", "{run}"], "--judge-model: which model judges"),
    (["--generations", "{run}", "--judge-model", "m"], "needs a key in GEMINI_API_KEY"),
    (["--generations", "{tmp}", "--judge-model", "m"], "--generations {tmp}: there is no generations.jsonl"),
    (["--generations", "{run}", "--judge-model", "m", "--against", "{tmp}/short"], "--against .* other questions"),
    (["--generations", "{run}", "--judge-model", "m", "--against", "{run}"], "--against .* the same answers"),
    (
        ["--generations", "{run}", "--judge-model", "m", "--against", "{run}/generations.jsonl"],
        "--against .* the same answers",
    ),
    (["--generations", "{run}", "--offline", "--judge-model", "m"], "--offline: asks no judge"),
    (
        ["--generations", "{run}", "--offline", "--repeats", "1", "--backoff", "2", "--dry-run"],
        "--offline: asks no judge; leave out --repeats, --backoff, --dry-run",
    ),
    (["--generations", "{run}", "--judge-model", " "], "--judge-model: is empty"),
    (["--generations", "{run}", "--judge-model", "m", "--repeats", "0"], "--repeats 0: must be at least 1"),
    (
        ["--generations", "{run}", "--judge-model", "m", "--timeout", "0", "--attempts", "0"],
        "--attempts 0: .*--timeout 0",
    ),
    (["--generations", "{run}", "--judge-model", "m", "--backoff", "nan"], "--backoff nan"),
    (["--generations", "{run}", "--judge-model", "m", "--judge-url", "127.0.0.1:80"], "--judge-url .*must look like"),
    (["--generations", "{run}", "--judge-model", "m", "--judge-url", "http://\u201ch\u201d/v1"], "must look like"),
    (["--generations", "{run}", "--judge-model", "m", "--judge-url", "http://h:x/v1"], "--judge-url"),
    (["--generations", "{run}", "--judge-model", "m", "--judge-url", "http://a:pass-word@h/v1"], "holds a password"),
    (["--generations", "{run}", "--judge-model", "m", "--judge-url", "http://h/v1?key=pass-word"], "holds a query"),
    (
        ["--generations", "{run}", "--judge-model", "m", "--judge-url", "http://h/v1/chat/completions/"],
        "--judge-url http://h/v1/chat/completions/: /chat/completions is added to it",
    ),
    (
        [
            "--generations",
            "{run}",
            "--judge-model",
            "m",
            "--judge-url",
            "http://127.0.0.1:1/v1",
            "--thinking-tokens",
            "0",
        ],
        "--thinking-tokens: is Gemini's",
    ),
    (["--generations", "{run}", "--judge-model", "m", "--dry-run", "--text", "after"], "response"),
    (
        [
            "--generations",
            "{run}",
            "--judge-url",
            "http://127.0.0.1:1",
            "--judge-model",
            "m",
            "--output-dir",
            "{run}/results.json/x",
        ],
        "--output-dir .*cannot be written",
    ),
]


def files_in(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "replies.jsonl" not in path.name}


def message_of(done):
    text = " ".join(done.stderr.split())
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "Traceback" not in text and text.count("error:") <= 1 and "pass-word" not in text
    return text


@pytest.mark.parametrize(("flags", "message"), CASES, ids=lambda x: " ".join(x[2:]) if isinstance(x, list) else "")
def test_wrong_input_gets_one_message_and_changes_nothing(flags, message, run, tmp_path):
    (tmp_path / "short").mkdir()
    write_rows(tmp_path / "short" / "generations.jsonl", rows(39))
    before = files_in(run)
    flags = [word.format(run=run, tmp=tmp_path) for word in flags]
    text = message_of(run_in_process("judge_ift", *flags, **NO_KEYS))
    assert re.search(message.format(tmp=tmp_path), text), text
    assert files_in(run) == before


def test_a_server_that_is_not_there_gets_one_message_and_changes_nothing(run):
    before, url = files_in(run), f"http://127.0.0.1:{free_port()}/v1"
    flags = ["--generations", run, "--judge-model", "m", "--judge-url", url]
    text = message_of(run_in_process("judge_ift", *flags, **NO_KEYS))
    assert re.search("--judge-model m: .*Connect.* 0 replies are in .* goes on from there", text), text
    assert files_in(run) == before


def test_items_that_failed_for_good_are_shown_and_asked_for_again_by_the_same_command(run):
    with JudgeServer(lambda prompt, _: "500" if "Say 7" in prompt else OK) as server:
        done = judge(run, server, "--attempts", 2, *QUICK)
        assert done.returncode == 0 and "failed 1" in done.stdout and "asks again for what failed" in done.stdout
        outcome = outcome_of(run / "judge" / "judge-1-published")
        assert outcome["counts"]["failed"] == 1 and outcome["score"]["n"] == 39 and outcome["items"] == 40
        assert [one["item"] for one in outcome["failed"]] == [7] and "status 500" in outcome["failed"][0]["why"]
        server.behave = lambda *_: OK
        assert judge(run, server, *QUICK).returncode == 0
    assert len(server.seen) == 39 + 2 + 1
    assert outcome_of(run / "judge" / "judge-1-published")["score"]["n"] == 40


def test_a_wrong_key_is_told_after_one_request_without_showing_it(run):
    with JudgeServer(lambda *_: "401") as server:
        done = judge(run, server, *QUICK, api="gemini")
    assert done.returncode == 2 and "status 401" in done.stderr
    assert "set GEMINI_API_KEY or GOOGLE_API_KEY to a key" in done.stderr and "goes on" not in done.stderr
    assert KEY not in done.stderr + done.stdout and len(server.seen) == 1


def test_a_server_that_refuses_the_schema_is_told_with_the_remedy(run):
    with JudgeServer(lambda *_: "400") as server:
        done = judge(run, server, *QUICK)
    assert done.returncode == 2 and "--judge-output text" in done.stderr and "goes on" not in done.stderr


def test_what_a_model_takes_no_other_way_is_said_in_one_line_and_recorded(run):
    def refuse(body):
        if "temperature" in body:
            return {"error": {"message": "temperature: only the default of 1 is supported", "param": "temperature"}}
        return (
            {"error": {"message": "use max_completion_tokens", "param": "max_tokens"}} if "max_tokens" in body else None
        )

    with JudgeServer(refuse=refuse) as server:
        done = judge(run, server, "--reply-tokens", 40, *QUICK)
    assert done.returncode == 0, done.stderr
    adapted = {"temperature": "left out", "max_tokens": "sent as max_completion_tokens"}
    assert outcome_of(run / "judge" / "judge-1-published")["judge"]["adapted"] == adapted
    assert "adapted    temperature left out, max_tokens sent as max_completion_tokens: " in done.stdout
    results = json.loads((run / "results.json").read_text())  # of a part of a run
    assert results["judge"]["judge-1-published"]["judge"]["adapted"] == adapted


def test_a_judge_that_cannot_be_read_is_told_in_one_message_and_its_replies_are_kept(run):
    with JudgeServer(answer=lambda _: "I would rather not say.") as server:
        done = judge(run, server, *QUICK)
        paid = len(server.seen)
        again = judge(run, server, *QUICK)
        assert len(server.seen) == paid < 15
    folder = run / "judge" / "judge-1-published"
    assert len(replies_of(folder)) == paid
    for one in (done, again):
        message = one.stderr.split("error: ")[1].replace(str(folder), "")
        assert one.returncode == 2 and "Traceback" not in one.stderr
        assert "none of the first 1" in message and "--output-dir" in message and len(message) < 300
