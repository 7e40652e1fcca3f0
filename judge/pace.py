"""Limits requests and tokens to so many a minute."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

WINDOW = 61.0  # seconds; one more than a minute, since requests do not all travel equally long


class Pace:
    """A sliding window over the last minute, one request at a time through the gate.

    `sleep` says whether it was woken because everything stops. Neither limit: no waiting.
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
        """Returns when a request with so many tokens may be sent; False when it is not to be sent any more.

        A request larger than the limit is sent alone.
        """
        async with self.gate:
            while (seconds := self._seconds_left(tokens)) > 0:
                if await self.sleep(seconds):
                    return False
            self.sent.append((self.clock(), tokens))
        return True

    def close_for(self, seconds: float) -> None:
        """Sends nothing for so many seconds: a server that asks one request to wait means all of them."""
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
