"""The two ways to reach a judge: Gemini through google-genai, and any OpenAI-compatible server through openai.

Neither SDK may try again by itself, so that every request is counted and paced here. A key is read from the
environment, handed to the SDK and kept nowhere else.
"""

import os
from importlib import import_module
from typing import Any, Literal, Protocol

from judge.args import JudgeArgs
from judge.failures import KEYS, Failure, Refused, refused
from judge.verdicts import Reply
from training.data.hub_reasons import PROXIES, first_words, of_environment

CONNECT = 10.0  # seconds, in which a server answers at all: a firewall that drops packets never does
LIBRARIES = {"gemini": "google-genai", "openai": "openai"}
CERTIFICATES = ("SSL_CERT_FILE", "SSLKEYLOGFILE")
# Gemini's finish reasons that mean that it was not allowed to answer (google.genai.types.FinishReason).
BLOCKED = {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "MODEL_ARMOR"}


class Backend(Protocol):
    """`ask` raises whatever its SDK raises, or Failure."""

    errors: tuple[type[Exception], ...]
    adapted: dict[str, str]  # parameter -> what was done about it, as `adapt` found necessary

    async def ask(self, prompt: str) -> Reply: ...

    def adapt(self, error: Exception) -> bool:
        """Changes the requests for a model that refuses what was sent, and returns whether it did, so that the question
        can be asked again. Such a refusal costs nothing."""
        ...

    async def close(self) -> None: ...


def kind_of(args: JudgeArgs) -> str:
    return "gemini" if args.judge_url is None else "openai"


def _named_key(kind: str) -> tuple[str, str] | None:
    """Returns the first key that is set, after the name of its variable."""
    return next(((name, key) for name in KEYS[kind] if (key := os.environ.get(name, "").strip())), None)


def find_key(kind: str) -> str | None:
    found = _named_key(kind)
    return found[1] if found else None


def key_problems(args: JudgeArgs) -> list[str]:
    """Says what is wrong with the key: it cannot be sent, or is missing where Gemini needs one; a server of your own
    may not."""
    if found := _named_key(kind_of(args)):
        name, key = found
        odd = [c for c in key if not (c.isascii() and c.isprintable())]
        return [f"{name}: holds {odd[0]!r}, which no key has and no request can send; set it again"] if odd else []
    if kind_of(args) == "gemini":
        return [
            "--judge-model: Gemini needs a key in GEMINI_API_KEY (or GOOGLE_API_KEY); set it, name a server "
            "of your own with --judge-url, or add --offline, which asks no judge"
        ]
    return []


def open_backend(args: JudgeArgs, schema: dict[str, Any], timeout: float) -> Backend:
    """Returns the back end; `timeout` is in seconds. Raises Refused when its SDK is not installed, or when no client
    can be opened with the proxies and certificates of the environment."""
    kind = kind_of(args)
    asked = schema if args.judge_output == "schema" else None
    try:
        import_module("google.genai" if kind == "gemini" else "openai")
    except ImportError as error:
        raise Refused(f"needs {LIBRARIES[kind]}; pip install {LIBRARIES[kind]}") from error
    import httpx2

    try:
        return (Gemini if kind == "gemini" else OpenAIServer)(args, asked, timeout)
    except (ImportError, OSError, ValueError, httpx2.InvalidURL) as error:  # ImportError: SOCKS, which needs a package
        names = " or ".join(of_environment(CERTIFICATES if isinstance(error, OSError) else PROXIES))
        raise Refused(f"no request can be made ({first_words(error)}); change or unset {names}") from error


class Gemini:
    def __init__(self, args: JudgeArgs, schema: dict[str, Any] | None, timeout: float) -> None:
        import httpx2
        from google import genai
        from google.genai import errors, types

        self.errors: tuple[type[Exception], ...] = (errors.APIError, httpx2.HTTPError)
        # Our own httpx client, because the SDK would use aiohttp where it is installed, and then send twice on its own.
        self.http = httpx2.AsyncClient(timeout=timeout, event_hooks={"request": [_connect_soon]})
        options = types.HttpOptions(
            api_version="v1beta",  # has response schemas and thinking budgets; the SDK's default is v1
            timeout=round(timeout * 1000),  # milliseconds
            retry_options=types.HttpRetryOptions(attempts=1),
            httpx_async_client=self.http,
        )
        self.client = genai.Client(api_key=find_key("gemini"), vertexai=False, http_options=options)
        self.adapted: dict[str, str] = {}
        thinking = args.thinking_tokens
        self.config = types.GenerateContentConfig(
            temperature=0.0,
            max_output_tokens=args.reply_tokens,
            response_mime_type="application/json" if schema else None,
            response_json_schema=schema,
            thinking_config=None if thinking is None else types.ThinkingConfig(thinking_budget=thinking),
        )
        self.model = args.judge_model or ""

    def adapt(self, error: Exception) -> bool:
        if self.adapted or refused(error) != "temperature":
            return False
        self.config = self.config.model_copy(update={"temperature": None})
        self.adapted["temperature"] = "left out"
        return True

    async def ask(self, prompt: str) -> Reply:
        done = await self.client.aio.models.generate_content(model=self.model, contents=prompt, config=self.config)
        usage, feedback = done.usage_metadata, done.prompt_feedback
        written = _sum(usage.candidates_token_count, usage.thoughts_token_count) if usage else None
        counts = (usage.prompt_token_count if usage else None, written)
        if feedback is not None and feedback.block_reason is not None:
            return Reply("", "blocked", feedback.block_reason.name, *counts)
        if not done.candidates:
            raise Failure("the reply holds no candidate", "again")
        candidate = done.candidates[0]
        finish = candidate.finish_reason.name if candidate.finish_reason else None
        parts = (candidate.content and candidate.content.parts) or []
        text = "".join(part.text for part in parts if part.text and not part.thought)
        end: Literal["stop", "cut off", "blocked"] = "blocked" if finish in BLOCKED else "stop"
        return Reply(text, "cut off" if finish == "MAX_TOKENS" else end, finish, *counts)

    async def close(self) -> None:
        await self.http.aclose()


class OpenAIServer:
    def __init__(self, args: JudgeArgs, schema: dict[str, Any] | None, timeout: float) -> None:
        import httpx2
        import openai

        self.errors: tuple[type[Exception], ...] = (openai.OpenAIError, httpx2.HTTPError)
        key = find_key("openai") or "none"  # the SDK refuses to start without one; a server of your own ignores it
        limits = httpx2.Timeout(timeout, connect=min(timeout, CONNECT))
        self.client = openai.AsyncOpenAI(api_key=key, base_url=args.judge_url, timeout=limits, max_retries=0)
        self.adapted: dict[str, str] = {}
        self.flags: dict[str, Any] = {"model": args.judge_model, "temperature": 0.0}
        if args.reply_tokens is not None:
            self.flags["max_tokens"] = args.reply_tokens
        if args.reasoning_effort is not None:
            self.flags["reasoning_effort"] = args.reasoning_effort
        if schema:
            named = {"name": "verdict", "strict": True, "schema": schema}
            self.flags["response_format"] = {"type": "json_schema", "json_schema": named}

    def adapt(self, error: Exception) -> bool:
        name = refused(error)
        if name not in self.flags or name in self.adapted:
            return False
        if name == "temperature":
            del self.flags[name]
            self.adapted[name] = "left out"
        elif name == "max_tokens":  # the newer name of the same limit
            self.flags["max_completion_tokens"] = self.flags.pop(name)
            self.adapted[name] = "sent as max_completion_tokens"
        return name in self.adapted

    async def ask(self, prompt: str) -> Reply:
        import openai

        try:
            messages: Any = [{"role": "user", "content": prompt}]
            done = await self.client.chat.completions.create(messages=messages, **self.flags)
        except openai.BadRequestError as error:
            if error.code == "content_filter":  # how Azure says that a prompt was blocked
                return Reply("", "blocked", error.code)
            raise
        if isinstance(done, str):  # what the SDK makes of anything but JSON, such as a web page
            raise Failure(
                f"{self.client.base_url} is not an OpenAI-compatible address: it answers with a page", "unreachable"
            )
        choices, usage = getattr(done, "choices", None), getattr(done, "usage", None)
        if not choices:
            raise Failure("the reply holds no choice", "again")
        counts = (usage.prompt_tokens, usage.completion_tokens) if usage else ()
        finish, answer = choices[0].finish_reason, getattr(choices[0], "message", None)
        if answer is None:
            raise Failure("the reply holds no message", "again")
        text = _text_of(answer.content)
        if finish == "content_filter" or answer.refusal:
            return Reply(answer.refusal or text, "blocked", finish, *counts)
        return Reply(text, "cut off" if finish == "length" else "stop", finish, *counts)

    async def close(self) -> None:
        await self.client.close()


async def _connect_soon(request: Any) -> None:
    """google-genai sends its own timeout with each request, which is one for all."""
    limits = request.extensions["timeout"]
    limits["connect"] = min(limits["connect"], CONNECT)


def _text_of(content: Any) -> str:
    """Returns the text of a message, which is a string or a list of parts, without its thinking."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type", "text") == "text"]
        return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    return content if isinstance(content, str) else ""


def _sum(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
