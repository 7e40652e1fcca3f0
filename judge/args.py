"""Flags of the judge: who judges, how it is asked, at which pace. Imports nothing heavy."""

import math
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from training.flags.cli import at_least, flag


def url_problems(url: str) -> list[str]:
    """Says what is wrong with the address of a server. A password in it would end up in files."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 (raises for a port that is no number)
    except ValueError as error:
        return [f"--judge-url {url}: {error}"]
    if parts.username or parts.password:
        return ["--judge-url: holds a password, which would be stored; give the key in OPENAI_API_KEY"]
    if parts.query:
        return [
            "--judge-url: holds a query (from ? on), which would be stored; leave it out. A key goes into "
            "OPENAI_API_KEY; Azure needs no api-version at https://NAME.openai.azure.com/openai/v1"
        ]
    host = re.fullmatch(r"[\w.:%-]+", parts.hostname or "")  # letters of any alphabet, but no quotation marks or spaces
    if parts.scheme not in ("http", "https") or not host or not url.isprintable():
        return [f"--judge-url {url}: must look like http://127.0.0.1:8000/v1"]
    if parts.path.rstrip("/").endswith("/chat/completions"):
        return [f"--judge-url {url}: /chat/completions is added to it; leave that out"]
    return []


@dataclass(frozen=True)
class JudgeArgs:
    """The judge. Keys come from the environment: GEMINI_API_KEY or GOOGLE_API_KEY; with --judge-url OPENAI_API_KEY"""

    judge_model: str | None = None
    """the model that judges, as its server calls it"""
    judge_url: str | None = None
    """address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1; None: Gemini"""
    judge_prompt: Literal["published", "authors"] = "published"
    """published: as in the report, appendix 5.2; authors: as in the authors' code, with back-ticks around the texts"""
    judge_output: Literal["schema", "text"] = "schema"
    """schema: the server is made to answer in JSON; text: for a server that cannot"""
    repeats: int = 1
    """how often each question is asked; from 2 on, the judge's noise is told apart from the items'"""
    reply_tokens: int | None = None
    """the most tokens of a reply, a model's thinking included; None: the server's limit"""
    reasoning_effort: str | None = None
    """how much a model behind --judge-url may think, as its server calls it: minimal, low, high; None: its default"""
    thinking_tokens: int | None = None
    """tokens that a Gemini 2.5 model may think before it answers: 0 none, -1 as many as it likes; None: its default"""

    @property
    def settings(self) -> dict[str, str | int | None]:
        """What a reply depends on besides prompt and model; stored with it."""
        names = ("judge_url", "judge_output", "reply_tokens", "thinking_tokens", "reasoning_effort")
        return {name: getattr(self, name) for name in names}

    def problems(self) -> list[str]:
        found = at_least(self, 1, "repeats", "reply_tokens") + at_least(self, -1, "thinking_tokens")
        if self.judge_url is not None:
            found += url_problems(self.judge_url)
            if self.thinking_tokens is not None:
                found.append("--thinking-tokens: is Gemini's; leave it out with --judge-url")
        elif self.reasoning_effort is not None:
            found.append("--reasoning-effort: is for servers of --judge-url; Gemini has --thinking-tokens")
        if self.judge_model is not None and not self.judge_model.strip():
            found.append("--judge-model: is empty")
        return found


@dataclass(frozen=True)
class PaceArgs:
    """How fast and how often the judge is asked"""

    requests_per_minute: int | None = None
    """no more requests than this in any minute; None: no limit"""
    tokens_per_minute: int | None = None
    """no more tokens (of prompts, and a few for each reply) than this in any minute; None: no limit"""
    concurrency: int = 4
    """requests in flight at a time"""
    attempts: int = 6
    """how often a request is sent before its item counts as failed"""
    backoff: float = 1.0
    """seconds before the second attempt, doubled for each one after; a server may ask for more"""
    timeout: float = 60.0
    """seconds until a request without a reply is given up"""

    def problems(self) -> list[str]:
        found = at_least(self, 1, "requests_per_minute", "tokens_per_minute", "concurrency", "attempts")
        if not 0 <= self.backoff < math.inf:
            found.append(f"{flag('backoff')} {self.backoff}: must be at least 0 and finite")
        if not 0 < self.timeout < math.inf:
            found.append(f"{flag('timeout')} {self.timeout}: must be above 0 and finite")
        return found
