"""Turns the hub's errors into messages for the user. Imports nothing heavy until the hub is asked.

with from_hub("--model", "gpt2", "model"):
    folder = resolve("gpt2")
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from training.data.hub_reasons import Asked, explain, network_reason, switched_off


class HubError(ValueError):
    """Says what the hub did not give, and why. If it is `unreachable`, a command that needs no network helps."""

    def __init__(self, message: str, unreachable: bool):
        super().__init__(message)
        self.unreachable = unreachable


@contextmanager
def from_hub(flag: str, name: str, kind: Literal["model", "dataset"]) -> Iterator[None]:
    """Turns whatever the libraries raise inside into a HubError that says why, and what to do."""
    try:
        from training.data.hub_client import use_hub_client

        use_hub_client()
        yield
    except Exception as error:  # they share no other class: OSError, ValueError, httpx2's, datasets', StopIteration
        reason = explain(error, Asked(flag, name, kind))
        raise HubError(f"{flag} {name}: {reason.text}", reason.unreachable) from error


def without_network(command: str) -> str:
    """Returns the advice for a HubError that is `unreachable`."""
    return f"\n       this works without a network, with what ships with the project:\n         {command}"


def used_as_cached(name: str) -> str | None:
    """Returns a note for the user when the cache was used because the hub could not be asked, else None."""
    from huggingface_hub import constants

    from training.data.hub_client import given_up

    if off := switched_off("model"):
        return f"{name} is used from the cache: {off} is set"
    error = given_up(constants.ENDPOINT)
    return None if error is None else f"{name} is used from the cache: {network_reason(error)}"
