"""A judge on this machine: speaks as Gemini and as an OpenAI-compatible server do, behaves as badly as it is told to.

    python tests/judge_server.py --log asked.jsonl --seed 0

As a program it prints its address, misbehaves at random (`mixed`), and writes a line for each request it was sent.
"""

import argparse
import contextlib
import hashlib
import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

PROSE = "I would give this response 75 out of 100, since it answers half of the question."
# What a request may meet. A reply comes with OK and SLOW and those in REPLIES; the others end without one.
OK, SLOW, HANG, DRIP, DROPPED, HALF, HTML = "ok", "slow", "hang", "drip", "dropped", "half", "html"
REPLIES = ("prose", "nothing", "blocked", "cut off")
Behave = Callable[[str, int], str]  # (prompt, how often it has been sent) -> one of the above, or a status
Answer = Callable[[str], Any]  # prompt -> an object for the schema, or the text itself
Refuse = Callable[[dict[str, Any]], dict[str, Any] | None]  # body of a request -> body of a 400, None: it is served


class Seen(NamedTuple):
    """A request. `answered`: it got a reply, whole and with status 200, which is what a provider bills."""

    prompt: str
    attempt: int
    what: str
    answered: bool
    at: float
    key: str
    body: dict[str, Any]


def digest(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)


def score(prompt: str) -> dict[str, int]:
    """The usual answer: the same score for the same prompt."""
    return {"score": digest(prompt) % 101}


def mixed(seed: int) -> Behave:
    """Faults that pass on the first two attempts of some prompts, and replies without a number for others, always."""

    def behave(prompt: str, attempt: int) -> str:
        lasting = digest(f"{seed} lasting {prompt}") % 100
        if lasting < 12:
            return REPLIES[lasting // 3]
        passing = digest(f"{seed} {attempt} {prompt}") % 100
        faults = ["429"] * 12 + ["500"] * 10 + [DROPPED] * 4 + [HALF] * 2 + [HANG] * 2 + [SLOW] * 10
        return faults[passing] if attempt <= 2 and passing < len(faults) else OK

    return behave


class Quiet(ThreadingHTTPServer):
    """A client that was killed is no news."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class JudgeServer:
    """Serves while it is entered. `url` is what --judge-url takes, `root` what GOOGLE_GEMINI_BASE_URL takes.

    `slow` seconds pass before a SLOW reply and before each byte of a DRIP; HANG gives none until `release` is set, and
    then drops the connection.
    """

    def __init__(
        self,
        behave: Behave = lambda *_: OK,
        answer: Answer = score,
        slow: float = 0.2,
        log: str = "",
        refuse: Refuse = lambda _: None,
    ) -> None:
        self.behave, self.answer, self.slow, self.log, self.refuse = behave, answer, slow, log, refuse
        self.noted: list[Seen] = []
        self.attempts: Counter[str] = Counter()
        self.at_once = 0
        self.lock, self.release = threading.Condition(), threading.Event()
        self.http = Quiet(("127.0.0.1", 0), handler(self))
        self.root = f"http://127.0.0.1:{self.http.server_port}"
        self.url = f"{self.root}/v1"

    def __enter__(self) -> "JudgeServer":
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self.http.shutdown()
        self.http.server_close()

    def arrive(self, prompt: str) -> tuple[int, str]:
        with self.lock:
            self.attempts[prompt] += 1
            self.at_once += 1
            return self.attempts[prompt], self.behave(prompt, self.attempts[prompt])

    def note(self, seen: Seen) -> None:
        with self.lock:
            self.at_once -= 1
            self.noted.append(seen)
            self.lock.notify_all()
            if self.log:
                sha = hashlib.sha256(seen.prompt.encode()).hexdigest()
                line = {"prompt_sha256": sha, "what": seen.what, "answered": seen.answered, "at": seen.at}
                with open(self.log, "a") as file:
                    file.write(json.dumps(line) + "\n")

    @property
    def seen(self) -> list[Seen]:
        """The requests dealt with; waits a little for those whose replies have been read and that are noted next."""
        with self.lock:
            self.lock.wait_for(lambda: self.at_once == 0, timeout=1.0)
        return self.noted

    def answered(self) -> Counter[str]:
        """How many whole replies each prompt got."""
        return Counter(seen.prompt for seen in self.seen if seen.answered)


def handler(server: JudgeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            at, gemini = time.time(), "generateContent" in self.path
            prompt = body["contents"][0]["parts"][0]["text"] if gemini else body["messages"][0]["content"]
            key = self.headers.get("x-goog-api-key") or self.headers.get("Authorization", "").removeprefix("Bearer ")
            attempt, what = server.arrive(prompt)
            answered = False
            with contextlib.suppress(OSError):
                answered = self.act(what, gemini, prompt, key, body)
            server.note(Seen(prompt, attempt, what, answered, at, key, body))

        def act(self, what: str, gemini: bool, prompt: str, key: str, body: dict[str, Any]) -> bool:
            """Whether a whole reply was sent."""
            if (refusal := server.refuse(body)) is not None:
                self.send(400, json.dumps(refusal), {})
                return False
            if what in (DROPPED, HANG):
                server.release.wait(None if what == HANG else 0)
                self.connection.shutdown(socket.SHUT_RDWR)
                return False
            if what.isdecimal():
                self.send(int(what), json.dumps(problem(int(what), key)), {"Retry-After": "0.05"})
                return False
            if what == HTML:
                self.send(200, "<html>down for maintenance</html>", {"Content-Type": "text/html"})
                return False
            time.sleep(server.slow if what == SLOW else 0)
            schema = "response_format" in body or "responseJsonSchema" in body.get("generationConfig", {})
            value = server.answer(prompt)
            if not isinstance(value, str):
                value = json.dumps(value) if schema else str(next(iter(value.values())))
            reply = json.dumps((as_gemini if gemini else as_openai)(what, value))
            self.send(200, reply, {}, half=what == HALF, drip=what == DRIP)
            return what != HALF

        def send(self, status: int, text: str, headers: dict[str, str], half: bool = False, drip: bool = False) -> None:
            content = text.encode()
            self.send_response(status)
            for name, value in ({"Content-Type": "application/json"} | headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for i in range(len(content) if drip else 0):
                time.sleep(server.slow)
                self.wfile.write(content[i : i + 1])
            self.wfile.write(content[: len(content) // 2] if half else content[len(content) * drip :])
            self.wfile.flush()
            if half:
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def problem(status: int, key: str) -> dict[str, Any]:
    """An error that repeats the key, as a careless server might."""
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.05s"}
    message = f"status {status} for the key {key}"
    return {"error": {"code": status, "message": message, "status": "FAULT", "details": [retry]}}


def as_gemini(what: str, text: str) -> dict[str, Any]:
    usage = {"promptTokenCount": 100, "candidatesTokenCount": 5, "thoughtsTokenCount": 2, "totalTokenCount": 107}
    if what == "blocked":
        return {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": usage}
    text, cut = shown(what, text)
    content = {
        "role": "model",
        "parts": [{"text": "let me think: 3", "thought": True}, *([{"text": text}] if text else [])],
    }
    return {
        "candidates": [{"content": content, "finishReason": "MAX_TOKENS" if cut else "STOP"}],
        "usageMetadata": usage,
    }


def as_openai(what: str, text: str) -> dict[str, Any]:
    text, cut = shown(what, text)
    finish = "content_filter" if what == "blocked" else "length" if cut else "stop"
    message = {"role": "assistant", "content": "" if what == "blocked" else text}
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice], "usage": usage}


def shown(what: str, text: str) -> tuple[str, bool]:
    """(what is said, whether it was cut off)."""
    if what == "cut off":  # what is left is a number by itself: 10 of 100
        return "10", True
    return {"prose": PROSE, "nothing": ""}.get(what, text), False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slow", type=float, default=0.2)
    args = parser.parse_args()
    with JudgeServer(mixed(args.seed), slow=args.slow, log=args.log) as server:
        print(server.root, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
