"""Checks --push-to-hub before a run, and uploads after it. Imports nothing heavy until the hub is asked."""

import shlex
from pathlib import Path

from training.data.hub_reasons import first_words, network_reason, switched_off

FLAG = "--push-to-hub"
# What makes a repository an adapter or a model; that of an earlier upload of another kind would be read in its place.
KINDS = ["adapter.json", "adapter.safetensors", "adapter_config.json", "adapter_model.*"]
KINDS += ["config.json", "model.safetensors*", "model-*.safetensors", "pytorch_model*.bin*"]


def _reason(error: Exception) -> str:
    """Returns why the hub accepts no upload, and what to do."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if off := switched_off("model"):
        return f"{off} is set; unset it"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OfflineModeIsEnabled):
        return network_reason(error)
    if status == 401:
        return "the hub does not know the token; make another, and set HF_TOKEN or call hf auth login"
    if status == 403:
        return "the token may not write there; make one that may, or name a repository of your own"
    return first_words(error)


def check_upload(repository: str | None) -> None:
    """Raises ValueError when nothing could be uploaded: for an invalid name, and for a token that is missing or may not
    write there. Nothing is created on the hub yet. None: there is nothing to upload."""
    if repository is None:
        return
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    from training.data.hub_client import use_hub_client

    asked, (owner, _, name) = f"{FLAG} {repository}:", repository.partition("/")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ValueError(f"{asked} must be OWNER/NAME ({first_words(error)})") from error
    if not name:
        raise ValueError(f"{asked} must be OWNER/NAME")
    if get_token() is None:
        raise ValueError(f"{asked} needs a token that may write; set HF_TOKEN, or call hf auth login")
    use_hub_client()
    hub = HfApi()
    try:
        user = hub.whoami()
        owners = [user["name"], *(one["name"] for one in user.get("orgs", []))]
        try:
            hub.auth_check(repository, write=True)
        except RepositoryNotFoundError:  # it is created after the run
            if owner not in owners:
                raise ValueError(f"{asked} the token is {owners[0]}'s; it may write to {', '.join(owners)}") from None
    except ValueError:
        raise
    except Exception as error:  # of httpx2, OSError and huggingface_hub's own
        raise ValueError(f"{asked} {_reason(error)}") from error
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise ValueError(f"{asked} the token may only read; make one that may write")


def upload(folder: Path, repository: str) -> None:
    """Uploads the folder in place of what lies there. When that fails, raises ValueError with the command that does it
    later."""
    from huggingface_hub import HfApi, constants

    from training.data.hub_client import use_hub_client

    use_hub_client()
    hub = HfApi()
    try:
        hub.create_repo(repository, exist_ok=True)
        message = f"Upload {folder.name}"
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=message, delete_patterns=KINDS)
    except Exception as error:  # of httpx2, OSError and huggingface_hub's own
        later = f"nothing is lost; hf upload {repository} {shlex.quote(str(folder))} does it later"
        raise ValueError(f"{FLAG} {repository}: not uploaded ({_reason(error)}); {later}") from error
    print(f"hub     {constants.ENDPOINT}/{repository}")
