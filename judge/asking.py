"""Asks all questions, several at a time, at a limited rate, with retries; stores each reply at once."""

import asyncio
import contextlib
import signal
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from judge.args import JudgeArgs, PaceArgs
from judge.backends import Backend
from judge.failures import OF_ODD_SHAPE, Failure, Refused, failure_of, refused, without_key
from judge.questions import Question
from judge.store import KEY, Key, Store
from judge.verdicts import BLOCKED, CUT_OFF, EMPTY, PROSE, Read, Reply

WINDOW = 61.0  # seconds; one more than a minute, since requests do not all travel equally long


class Pace:
    """Limits requests and tokens in a sliding window of a minute; requests pass the gate one at a time.

    `sleep` returns whether it was woken because everything stops. Without limits only `close_for` makes requests wait.
    """

    def __init__(
        self,
        requests: int | None,
        tokens: int | None,
        sleep: Callable[[float], Awaitable[bool]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.requests, self.tokens, self.sleep, self.clock = requests, tokens, sleep, clock
        self.sent: deque[tuple[float, int]] = deque()  # (when, tokens)
        self.closed_until = 0.0
        self.gate = asyncio.Lock()

    async def wait(self, tokens: int) -> bool:
        """Waits until a request with so many tokens may be sent; returns False if it is no longer to be sent.

        A request larger than the limit is sent alone.
        """
        async with self.gate:
            while (seconds := self._seconds_left(tokens)) > 0:
                if await self.sleep(seconds):
                    return False
            self.sent.append((self.clock(), tokens))
        return True

    def close_for(self, seconds: float) -> None:
        """Lets nothing be sent for so many seconds: a server that asks one request to wait means all of them."""
        self.closed_until = max(self.closed_until, self.clock() + seconds)

    def _seconds_left(self, tokens: int) -> float:
        now = self.clock()
        while self.sent and self.sent[0][0] + WINDOW <= now:
            self.sent.popleft()
        full = self.requests is not None and len(self.sent) >= self.requests
        spent = sum(count for _, count in self.sent)
        full |= self.tokens is not None and bool(self.sent) and spent + tokens > self.tokens
        opens = self.sent[0][0] + WINDOW if full else now
        return max(opens, self.closed_until) - now


LONGEST_WAIT = 120.0  # seconds between two attempts
GIVE_UP = 10  # questions in a row that failed for good, or first replies of which none holds a verdict
# What may help if no reply holds a verdict, by the reason.
REMEDIES = {
    CUT_OFF: "the limit leaves no room after the model's thinking: raise or leave out --reply-tokens, or let it think "
    "less (--reasoning-effort, --thinking-tokens)",
    EMPTY: "the model says nothing: raise --reply-tokens, or try --judge-output text",
    PROSE: "see their texts; try the other --judge-output, or another --judge-model",
}
TOKENS_OF_A_REPLY = 16  # {"score": 85} and what goes with it


class NoVerdict(ValueError):
    """Raised when no reply can be read, since further requests would be paid for in vain."""


@dataclass
class Tally:
    """The counts of this process. `failed` says why a question has no reply, by its key."""

    requests: int = 0
    retries: int = 0
    failed: dict[Key, str] = field(default_factory=dict)


class Asking:
    """`count` returns the tokens of a prompt, `settled` is called after each question. Whatever stops one request stops
    all; requests in flight are waited for, since they are paid for."""

    def __init__(
        self,
        backend: Backend,
        read: Read,
        store: Store,
        judge: JudgeArgs,
        limits: PaceArgs,
        count: Callable[[str], int],
        settled: Callable[[Tally], None] = lambda _: None,
    ) -> None:
        self.backend, self.read, self.store = backend, read, store
        self.model, self.settings = judge.judge_model or "", judge.settings
        self.limits, self.count, self.settled = limits, count, settled
        self.pace = Pace(limits.requests_per_minute, limits.tokens_per_minute, self._sleep)
        self.tally = Tally()
        self.stopping = asyncio.Event()
        self.stopped_by: BaseException | None = None
        self.answered = self.failed_in_a_row = 0
        self.unread: list[str] | None = self._unread_before()

    def ask(self, questions: Iterable[Question]) -> Tally:
        """Raises ValueError if no question will work, OSError for a full disk, and KeyboardInterrupt after Ctrl-C."""
        self._stop_if_unreadable()
        if self.stopped_by is None:
            asyncio.run(self._ask(iter(questions)))
        if self.stopped_by is not None:
            raise self.stopped_by
        if self.tally.failed and not self._has_replies():
            raise ValueError(f"no question was answered, the last failed with {[*self.tally.failed.values()][-1]}")
        return self.tally

    async def _ask(self, waiting: Iterator[Question]) -> None:
        with contextlib.suppress(NotImplementedError, RuntimeError):  # only a main thread on Unix can
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            await self._work(one for one in [next(waiting, None)] if one is not None)  # a first one shows what is wrong
            async with asyncio.TaskGroup() as group:
                for _ in range(self.limits.concurrency):
                    group.create_task(self._work(waiting))
        finally:
            await self.backend.close()

    async def _work(self, waiting: Iterator[Question]) -> None:
        for question in waiting:
            if self.stopping.is_set():
                return
            failure = await self._settle(question)
            if failure is not None:
                self._failed(question, failure)
            self.settled(self.tally)

    async def _settle(self, question: Question) -> Failure | None:
        """Asks until there is a reply, or says why there is none; None also when everything stops."""
        tokens = self.count(question.prompt) + TOKENS_OF_A_REPLY
        expected: tuple[type[Exception], ...] = (*self.backend.errors, *OF_ODD_SHAPE, Failure, OSError, ValueError)
        for attempt in range(1, self.limits.attempts + 1):
            if not await self.pace.wait(tokens):
                return None
            self.tally.requests += 1
            self.tally.retries += attempt > 1
            adapted = len(self.backend.adapted)
            try:
                async with asyncio.timeout(self.limits.timeout):
                    reply = await self.backend.ask(question.prompt)
            except TimeoutError:
                failure = Failure(f"no reply within {self.limits.timeout:g} seconds", "again")
            except expected as error:
                others = len(self.backend.adapted) > adapted and refused(error)  # have adapted since it was sent
                if self.backend.adapt(error) or others:
                    return await self._settle(question)
                failure = failure_of(error)
            else:
                self._keep(question, reply, attempt)
                return None
            hopeless = failure.kind in ("item", "all") or (failure.kind == "unreachable" and not self.answered)
            if hopeless or attempt == self.limits.attempts:
                return failure
            wait = min(max(self.limits.backoff * 2 ** (attempt - 1), failure.after), LONGEST_WAIT)
            if failure.status == 429:
                self.pace.close_for(wait)
            elif await self._sleep(wait):
                return None
        raise AssertionError("at least one attempt is made")

    def _keep(self, question: Question, reply: Reply, attempt: int) -> None:
        verdict = self.read(reply)
        line: dict[str, Any] = dict(zip(KEY, question.key(self.model), strict=True))
        line |= {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        line |= {"text": without_key(reply.text), "finish": reply.finish, "value": verdict.value}
        line |= {"missing": verdict.missing, "requests": attempt}
        line |= {"prompt_tokens": reply.prompt_tokens, "reply_tokens": reply.reply_tokens}
        line["settings"] = self.settings
        line |= {"adapted": dict(self.backend.adapted)} if self.backend.adapted else {}
        self.answered, self.failed_in_a_row = self.answered + 1, 0
        try:
            self.store.add(line)
        except OSError as error:
            self._stop(error)
        if verdict.missing is None:
            self.unread = None
        elif self.unread is not None and verdict.missing != BLOCKED:
            self.unread.append(verdict.missing)
            self._stop_if_unreadable()

    def _unread_before(self) -> list[str] | None:
        """Returns why each stored reply of this model holds no verdict, blocked ones aside; None if one holds one."""
        mine = [reply["missing"] for reply in self.store.replies.values() if reply["model"] == self.model]
        return None if None in mine else [why for why in mine if why != BLOCKED]

    def _stop_if_unreadable(self) -> None:
        """Stops everything where no reply can be read, so that nothing more is paid for."""
        if self.unread is None or len(self.unread) < GIVE_UP:
            return
        ((why, _),) = Counter(self.unread).most_common(1)
        text = f"none of the first {len(self.unread)} replies holds a verdict ({why}); "
        self._stop(NoVerdict(text + REMEDIES.get(why, REMEDIES[PROSE])))

    def _has_replies(self) -> bool:
        return any(reply["model"] == self.model for reply in self.store.replies.values())

    def _failed(self, question: Question, failure: Failure) -> None:
        """Questions that will never work say nothing of the others where the model has answered some: they are what is
        left when the same command has run before."""
        self.tally.failed[question.key(self.model)] = str(failure)
        self.failed_in_a_row += not (failure.kind == "item" and self._has_replies())
        if failure.kind in ("all", "unreachable") and (failure.kind == "all" or not self.answered):
            self._stop((Refused if failure.remedy else ValueError)(str(failure)))
        elif self.failed_in_a_row >= GIVE_UP:
            self._stop(ValueError(f"{GIVE_UP} questions in a row failed, the last with {failure}"))

    def _interrupt(self) -> None:
        """Stops asking at the first Ctrl-C, but lets requests in flight finish; a second one does not."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        self._stop(KeyboardInterrupt())

    def _stop(self, reason: BaseException) -> None:
        """Stops everything. If several things stop it, the first reason counts."""
        self.stopped_by = self.stopped_by or reason
        self.stopping.set()

    async def _sleep(self, seconds: float) -> bool:
        """Sleeps, and returns whether it was woken because everything stops."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)
        return self.stopping.is_set()
