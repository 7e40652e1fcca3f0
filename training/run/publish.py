"""Uploads what a finished run leaves to the hub (--push-to-hub), with a card made from its results."""

from pathlib import Path

from lora.peft_format import CONFIG as PEFT_CONFIG
from training.data.hub_upload import upload
from training.flags.task import HeadArgs, group_of
from training.model.card import CARD, card
from training.model.facts import Facts, facts_of, read_facts
from training.model.saved import ADAPTER, MODEL
from training.storage.run_folder import CONFIG, read_run


def publish(part: Path, repository: str, facts: Facts, library: str, run: Path | None) -> None:
    """Uploads the folder `part`, after adding a card, and the file of flags if it comes from a `run`.

    `library` is as in `card`. Raises the errors of `upload`.
    """
    results = None
    if run is not None:
        results = read_run(run)
        lines = (run / CONFIG).read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("push-to-hub:")]  # who repeats the run has another place
        (part / CONFIG).write_text("".join(kept), encoding="utf-8")
    (part / CARD).write_text(card(facts, repository, library, results), encoding="utf-8")
    upload(part, repository)


def publish_run(folder: Path, repository: str | None) -> None:
    """Uploads the adapter or the whole model of a finished fine-tuning run; nothing where `repository` is None."""
    if repository is None:
        return None
    results, part = read_run(folder), folder / ADAPTER
    if part.is_dir():
        library = "peft" if (part / PEFT_CONFIG).exists() else "--adapter"
        return publish(part, repository, read_facts(part), library, folder)
    library = "transformers" if group_of(HeadArgs, results["args"]).exportable else "--model"
    return publish(folder / MODEL, repository, facts_of(results), library, folder)
