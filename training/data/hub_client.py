"""The HTTP client behind huggingface_hub and datasets, which limits how long the hub is waited for.

The library itself waits half a minute for a hub that does not answer, and as long as a busy one asks for. This client
asks again once or twice, then gives the hub up for the rest of the process, and the cache is used without more waiting.
"""

import os
import re
import time
import warnings
from copy import copy
from typing import Any

import httpx2
from huggingface_hub import constants, set_client_factory
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import hf_raise_for_status, logging
from huggingface_hub.utils._http import hf_request_event_hook
from huggingface_hub.utils.tqdm import disable_progress_bars

from training.flags.cli import say, speaks

CONNECT, ANSWER = 5.0, 30.0  # seconds for a connection, and for (the next bytes of) an answer, at most
UNREACHED, BUSY = (1.0,), (2.0, 5.0)  # seconds before each new try
NAME_LOOKUP = "timeout:2 attempts:1"  # of resolv.conf(5); by default, a silent name server costs 23 s
LONGEST_WAIT = 10.0  # seconds; a hub that asks for more is given up
BUSY_STATUS = (408, 429, 500, 502, 503, 504)
UNREACHABLE = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.ProxyError)
LARGE = 10_000_000  # bytes; downloads of larger files are announced
MOST_CUTS = 3  # tries at a file that come no further than those before


class HubClient(httpx2.Client):
    """Raises OfflineModeIsEnabled, with the reason as its cause, for a host that cannot be reached: huggingface_hub and
    datasets then look into their caches; HfHubHTTPError for one that stays busy."""

    given_up: dict[str, Exception] = {}  # by host; shared, since the library opens new clients
    furthest: dict[str, int] = {}  # by address: the byte from which a file was asked for
    cuts: dict[str, int] = {}  # by address: how often it was asked for without progress

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        host = request.url.netloc.decode()
        if host in self.given_up:
            raise copy(self.given_up[host]) from self.given_up[host]
        try:
            self._count_cuts(request)
            return self._ask_patiently(request, options)
        except Exception as error:
            if not isinstance(error, OfflineModeIsEnabled) and _status(error) not in BUSY_STATUS:
                raise
            self.given_up[host] = error
            raise

    def _ask_patiently(self, request: httpx2.Request, options: dict[str, Any]) -> httpx2.Response:
        limits = request.extensions.get("timeout", {})
        limits = {name: min(seconds or ANSWER, ANSWER) for name, seconds in limits.items()}
        request.extensions["timeout"] = limits | {"connect": min(limits.get("connect", CONNECT), CONNECT)}
        needed = request.method == "GET" or str(request.url).startswith(constants.ENDPOINT)  # others count downloads
        asked = 0
        while True:
            asked += 1
            try:
                response = super().send(request, **options)
            except UNREACHABLE as error:
                waits = UNREACHED if needed and not isinstance(error, httpx2.ConnectTimeout) else ()
                if asked > len(waits):
                    raise OfflineModeIsEnabled(f"{request.url.host} cannot be reached") from error
                wait = waits[asked - 1]
            else:
                if response.status_code not in BUSY_STATUS:
                    announce(response)
                    return response
                response.read()
                wait = max(asked_to_wait(response), BUSY[min(asked, len(BUSY)) - 1])
                if asked > len(BUSY) or wait > LONGEST_WAIT:
                    hf_raise_for_status(response)
                say(f"hub     {request.url.host} answers {response.status_code}; it is asked again in {wait:.0f} s")
            time.sleep(wait)

    def _count_cuts(self, request: httpx2.Request) -> None:
        """Raises an error after MOST_CUTS: the library would retry forever with a server that always cuts off."""
        if request.method != "GET":
            return
        address, part = str(request.url), request.headers.get("range", "bytes=0-")
        start = int("".join(c for c in part.removeprefix("bytes=").partition("-")[0] if c.isdecimal()) or 0)
        if start > self.furthest.get(address, -1):
            self.furthest[address] = start
            return
        self.cuts[address] = self.cuts.get(address, 0) + 1
        if self.cuts[address] > MOST_CUTS:
            raise OfflineModeIsEnabled("cut again and again") from httpx2.RemoteProtocolError("the download broke off")


def given_up(address: str) -> Exception | None:
    """Returns the error for which the host of this address was given up, if it was."""
    return HubClient.given_up.get(httpx2.URL(address).netloc.decode())


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def announce(response: httpx2.Response) -> None:
    """Says which large file is downloaded. A file that is cached at this commit is never asked for."""
    size = response.headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_SIZE, "0")
    path = response.request.url.path
    if size.isdecimal() and int(size) >= LARGE and re.search("/resolve/[0-9a-f]{40}/", path):
        say(f"hub     fetching {path.rpartition('/')[2]}, {int(size) / 1e6:,.0f} MB")


def asked_to_wait(response: httpx2.Response) -> float:
    """Returns the seconds that a busy hub asks for; 0 where it gives none, or a date."""
    said = response.headers.get("retry-after", "")
    return float(said) if said.isdecimal() else 0.0


def use_hub_client() -> None:
    """Makes all requests of this process use the client. One process on each host shows progress bars."""
    set_client_factory(
        lambda: HubClient(event_hooks={"request": [hf_request_event_hook]}, follow_redirects=True, timeout=None)
    )
    os.environ.setdefault("RES_OPTIONS", NAME_LOOKUP)
    # The library would report every try, a missing token and a full disk, which the error reports too.
    logging.get_logger("huggingface_hub").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "Not enough free disk space", UserWarning)
    if not speaks():
        disable_progress_bars()
