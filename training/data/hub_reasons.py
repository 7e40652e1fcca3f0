"""Explains failures of the hub to the user: one message for each reason, with the advice that fits it.

The libraries wrap their errors in one another; `explain` searches all of them for the one that gives the reason.
Imports nothing heavy until there is a failure.
"""

import difflib
import errno
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gpt2_scratch.sources import HUB, WEIGHTS
from tasks import NAMES
from tasks._cells import listed
from tasks._files import kind_of
from tasks._hub import ConfigNeeded, Unreadable
from tasks._rows import READERS

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
LONGEST = 80  # characters of a list, or of a library's own words
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
ELSEWHERE = {"model": "give --model FOLDER", "dataset": "give --data FILE"}


class Reason(NamedTuple):
    """A message for the user. If it is `unreachable`, the fault lies with the network or the hub."""

    text: str
    unreachable: bool = False


class Asked(NamedTuple):
    """What was asked of the hub: by which flag, under which name, as what."""

    flag: str
    name: str
    kind: Literal["model", "dataset"]

    @property
    def repository(self) -> str:
        return (HUB if self.kind == "model" else known_data()).get(self.name, self.name)

    @property
    def page(self) -> str:
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{'datasets/' * (self.kind == 'dataset')}{self.repository}"

    def files(self) -> list[str]:
        """Returns the files of the repository; none where the hub does not say."""
        from huggingface_hub import HfApi

        try:
            return HfApi().list_repo_files(self.repository, repo_type=self.kind)
        except Exception:  # of any kind, as in `from_hub`; the message is the same without the files
            return []


def known_data() -> dict[str, str]:
    """Returns the repositories of our data sets by their names."""
    tasks = {name: import_module(f"tasks.{name}").TASK for name in NAMES}
    return {name: task.hub for name, task in tasks.items() if task.hub}


def first_words(error: BaseException) -> str:
    """Returns the library's message, cut to fit into one of ours."""
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    said = f"{type(error).__name__}: {line.strip()}" if line else type(error).__name__
    return said if len(said) <= LONGEST else said[: LONGEST - 3] + "..."


def chain(error: BaseException | None) -> list[BaseException]:
    """Returns the error and those that it was raised from, outermost first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def explain(error: Exception, asked: Asked) -> Reason:
    """Returns why the hub did not give something: a full disk comes first, then a refusal of the hub, a failure of the
    network, and unreadable data; of several errors of one kind the innermost counts."""
    errors = chain(error)
    if isinstance(error, Unreadable):
        return Reason(f"{error} (the file is at {asked.page})")
    for reason_of in (_machine, _hub, _network, _data):
        for each in reversed(errors):
            if (reason := reason_of(each, asked)) is not None:
                return reason
    return Reason(f"cannot be fetched from the hub ({first_words(errors[0])}); {ELSEWHERE[asked.kind]}")


def _machine(error: BaseException, asked: Asked) -> Reason | None:
    """Returns the reason if a disk is full or may not be written to."""
    from huggingface_hub import constants

    if not isinstance(error, OSError):
        return None
    caches = [constants.HF_HOME, constants.HF_HUB_CACHE, os.environ.get("HF_DATASETS_CACHE", constants.HF_HOME)]
    named = isinstance(error.filename, str | bytes | os.PathLike)
    place = Path(os.fsdecode(error.filename)) if named else Path(constants.HF_HOME)
    if error.errno in NO_ROOM:
        return Reason(f"no room on the disk of {constants.HF_HOME}; make room, or set HF_HOME to a folder that has it")
    if named and any(place.is_relative_to(cache) for cache in caches):
        return Reason(
            f"the cache cannot be written to ({place}: {error.strerror}); set HF_HOME to a folder where it can be"
        )
    return None


def _hub(error: BaseException, asked: Asked) -> Reason | None:
    """Returns the reason if the hub answered with an error."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return Reason(
            f"is open only to those who have accepted its licence; do that at {asked.page}, then set HF_TOKEN to a "
            "token of that account"
        )
    if isinstance(error, errors.DisabledRepoError):
        return Reason("was closed by its owner or the hub; choose another")
    if isinstance(error, errors.RepositoryNotFoundError):
        return _no_such_repository(asked)
    if isinstance(error, errors.RevisionNotFoundError):
        return Reason(f"has no branch called main; see {asked.page}")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return _no_such_file(Path(error.response.request.url.path).name, asked)
    if isinstance(error, errors.HfHubHTTPError):
        return _status(error.response, asked)
    return None


def _no_such_repository(asked: Asked) -> Reason:
    known = [*HUB, *HUB.values(), "distilbert/distilgpt2", "gpt2-nano"]
    if asked.kind == "dataset":
        known = [*known_data(), *known_data().values()]
    by_last_part = {name.rpartition("/")[2].lower(): name for name in known}
    last = asked.name.rpartition("/")[2].lower()
    near = difflib.get_close_matches(asked.name.lower(), known, n=1, cutoff=0.8)
    near += [by_last_part[name] for name in difflib.get_close_matches(last, by_last_part, n=1, cutoff=0.7)]
    meant = f" (did you mean {near[0]}?)" if near and near[0] != asked.name else ""
    what = "is neither a folder here nor a model" if asked.kind == "model" else "there is no such data set"
    return Reason(f"{what} on the hub{meant}; if it is private, set HF_TOKEN to a token that may read it")


def _no_such_file(name: str, asked: Asked) -> Reason:
    there = asked.files()
    if "adapter_config.json" in there:
        return Reason("is an adapter, not a model; name its base here, and download the adapter's own folder")
    held = f"; it has {listed(there, 9, LONGEST, quoted=False)}" if there else ""
    if name in WEIGHTS:
        return Reason(f"has neither {WEIGHTS[0]} nor pytorch_model.bin, whole or in shards{held}; choose another")
    return Reason(f"has no {name}{held}; choose another")


def _status(response: Any, asked: Asked) -> Reason:
    from training.data.hub_client import asked_to_wait

    status = response.status_code
    if status == 401:
        return Reason("the hub does not know your token; set HF_TOKEN to a valid one, or unset it")
    if status == 403:
        return Reason(f"the hub refuses it (403); see {asked.page}, and set HF_TOKEN to a token that may read it")
    if status == 429:
        seconds = asked_to_wait(response)
        wait = f"{seconds:,.0f} s" if seconds else "some minutes"
        return Reason(f"the hub allows no more requests for now (429); wait {wait}, or set HF_TOKEN to be allowed more")
    if status >= 500 or status == 408:
        return Reason(f"the hub is out of order ({status}); try again later, or {ELSEWHERE[asked.kind]}", True)
    return Reason(f"the hub answers {status}; see {asked.page}")


def of_environment(names: Sequence[str]) -> list[str]:
    """Returns those of the variables that are set, in either case, as they are spelled there; all if none is."""
    return [name for name, value in os.environ.items() if value and name.upper() in names] or [*names]


def network_reason(error: BaseException) -> str:
    """Returns why the hub cannot be reached."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    host, errors = constants.ENDPOINT, chain(error)
    proxies = [name for name in PROXIES if os.environ.get(name) or os.environ.get(name.lower())]
    if insecure := [each for each in errors if "[SSL" in str(each)]:  # all that httpx2 keeps of an SSLError
        return f"there is no secure connection to {host} ({first_words(insecure[-1])}; see SSL_CERT_FILE)"
    kinds = [
        (httpx2.ProxyError, f"the proxy of {' or '.join(proxies)} refuses"),
        (httpx2.RemoteProtocolError, f"what comes from {host} breaks off"),
        (httpx2.ReadTimeout, f"{host} does not answer"),
        (HfHubHTTPError, f"{host} is too busy or out of order"),
    ]
    for kind, text in kinds:
        if any(isinstance(each, kind) for each in errors):
            return text
    return f"{host} cannot be reached" + (f" through the proxy of {' or '.join(proxies)}" if proxies else "")


def _network(error: BaseException, asked: Asked) -> Reason | None:
    """Returns the reason if no answer came, or one that is not the hub's."""
    import httpx2
    from huggingface_hub import constants, errors

    elsewhere = ELSEWHERE[asked.kind]
    if isinstance(error, httpx2.LocalProtocolError | UnicodeEncodeError):
        return Reason("HF_TOKEN (or the token of hf auth login) cannot be sent as it is; set it again, without spaces")
    folder = asked.kind == "model" and asked.name not in HUB
    here = "there is no folder of that name here, and a model of that name on the hub " if folder else ""
    if isinstance(error, errors.OfflineModeIsEnabled | ConnectionError) and (off := switched_off(asked.kind)):
        return Reason(f"{here}is not cached, and {off} is set; unset it, or {elsewhere}", True)
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL | ImportError):
        return Reason(f"no request can be made ({first_words(error)}); look at HF_ENDPOINT, HTTPS_PROXY and ALL_PROXY")
    if isinstance(error, FileNotFoundError) and error.errno and error.filename is None:  # as ssl raises it
        return Reason(f"no request can be made ({first_words(error)}); look at SSL_CERT_FILE")
    if isinstance(error, errors.OfflineModeIsEnabled | httpx2.TransportError | ConnectionError):
        return Reason(f"{here}is not cached, and {network_reason(error)}; {elsewhere}", True)
    if isinstance(error, errors.FileMetadataError | UnicodeDecodeError) or type(error).__name__ == "JSONDecodeError":
        return Reason(
            f"what answers at {constants.ENDPOINT} is not the hub, but perhaps a proxy or a login page; look at "
            f"HF_ENDPOINT and HTTPS_PROXY, or {elsewhere}",
            True,
        )
    if isinstance(error, httpx2.HTTPError):
        return Reason(f"the request fails ({first_words(error)}); try again later, or {elsewhere}", True)
    return None


def switched_off(kind: Literal["model", "dataset"]) -> str | None:
    """Returns the variable that keeps the libraries from asking the hub; None if none does."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    if kind == "model":
        return None
    import datasets

    return "HF_DATASETS_OFFLINE" if datasets.config.HF_HUB_OFFLINE else None


def _data(error: BaseException, asked: Asked) -> Reason | None:
    """Returns the reason if the name is invalid, a configuration must be chosen, or files cannot be read as rows."""
    import yaml
    from datasets import exceptions
    from datasets.data_files import EmptyDatasetError
    from datasets.table import CastError
    from huggingface_hub.errors import HFValidationError

    if isinstance(error, HFValidationError):
        return Reason("is not a name on the hub; these are owner/name of letters, digits, '-', '_' and '.'")
    if isinstance(error, ConfigNeeded):
        return Reason(
            f"its configurations are {listed(error.names, 9, LONGEST, quoted=False)}; choose one with --dataset-config"
        )
    if asked.kind == "model":
        return None
    instead = f"download it from {asked.page}, and give its folder as --data"
    if isinstance(error, exceptions.DatasetGenerationCastError | CastError):
        return Reason("its files differ in their columns; choose with --dataset-config, or download and give --data")
    if isinstance(error, exceptions.DatasetGenerationError | StopIteration):
        return Reason(f"a file of it cannot be read as rows; download it from {asked.page} and give --data")
    if isinstance(error, exceptions.DataFilesNotFoundError | EmptyDatasetError):
        there = asked.files()
        if data := [name for name in there if kind_of(Path(name)) in READERS]:
            lost = f"{listed(data, 9, LONGEST, quoted=False)}, but not where its card or the library looks for data"
            return Reason(f"has {lost}; {instead}")
        return Reason(
            "holds no csv, json, jsonl, parquet or text file"
            + (f"; it has {listed(there, 9, LONGEST, quoted=False)}" if there else "")
        )
    if isinstance(error, ValueError) and "same data file format" in str(error):
        return Reason(f"its splits are files of different formats; {instead}")
    if isinstance(error, ValueError) and "Compression type" in str(error):
        return Reason(f"a file is compressed in a way that is not read ({first_words(error)}); unpack it: {instead}")
    if isinstance(error, yaml.YAMLError):
        return Reason(f"the settings in its README.md are no valid YAML ({first_words(error)}); {instead}")
    if isinstance(error, RuntimeError) and f"{asked.repository.rpartition('/')[2]}.py" in asked.files():
        return Reason(f"is made by a script of its own, which is no longer run; see {asked.page} for a copy in parquet")
    return None
