"""Serves a web page to try models on: answers of several side by side, and what a classifier looks at in a text.

    python scripts/playground.py --model gpt2-nano
    python scripts/playground.py --instructions runs/tutor-full runs/tutor-lora --classifiers runs/demo

It needs an extra: pip install -e ".[playground]". The page is for this machine alone unless --host says otherwise,
loads nothing from the internet and sends nothing anywhere.
"""

import contextlib
import ipaddress
import os
import socket
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from training.flags.cli import refuse, run
from training.storage.run_folder import read_run


@dataclass(frozen=True)
class Args:
    instructions: tuple[Path, ...] = ()
    """folders of finished runs of finetune_ift, finetune_dpo or finetune_kto, all of one base; each gets a
    column beside that of the base"""
    classifiers: tuple[Path, ...] = ()
    """folders of finished runs of finetune_cls"""
    model: str | None = None
    """the base of the runs, when it has moved; without runs: a base model to ask (gpt2-nano is bundled)"""
    host: str = "127.0.0.1"
    """address to serve at; any but a loopback address lets others in, without a password"""
    port: int = 7860
    """port of the page; 0: any free one"""

    def problems(self) -> list[str]:
        found = []
        if find_spec("gradio") is None:
            found.append('the playground needs gradio; pip install -e ".[playground]"')
        if not self.instructions and not self.classifiers and self.model is None:
            found.append("--instructions, --classifiers or --model: give at least one (--model gpt2-nano is bundled)")
        if not 0 <= self.port < 65536:
            found.append(f"--port {self.port}: must be 0 to 65535")
        for name in ("instructions", "classifiers"):
            folders = [folder.resolve() for folder in getattr(self, name)]
            found += [f"--{name} {f}: is given twice" for f in sorted(set(folders)) if folders.count(f) > 1]
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            found.append(f"--host {self.host}: must be an address of this machine, like 127.0.0.1, or 0.0.0.0 for all")
        return found


def open_run(flag: str, folder: Path) -> dict[str, Any]:
    """Reads results.json of a run that fits the flag. Raises ValueError for anything else."""
    results = read_run(folder, flag)
    if results["script"] == "finetune_cls" and flag == "--instructions":
        raise ValueError(f"{flag} {folder}: is a classifier; give it to --classifiers")
    if results["script"] != "finetune_cls" and flag == "--classifiers":
        raise ValueError(f"{flag} {folder}: classifies nothing; give it to --instructions")
    return results


def open_runs(args: Args) -> tuple[list[tuple[Path, dict[str, Any]]], list[tuple[Path, dict[str, Any]]]]:
    """Opens the runs of --instructions and --classifiers. Raises one ValueError with all that is wrong with them."""
    problems: list[str] = []

    def opened(flag: str, folders: tuple[Path, ...]) -> list[tuple[Path, dict[str, Any]]]:
        found = []
        for folder in folders:
            try:
                found.append((folder, open_run(flag, folder)))
            except ValueError as error:
                problems.append(str(error))
        return found

    runs = opened("--instructions", args.instructions), opened("--classifiers", args.classifiers)
    refuse(problems)
    return runs


def listen(host: str, port: int) -> socket.socket:
    """Opens the socket, before models are loaded, which takes long. Raises ValueError when it cannot listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ValueError(
            f"--host {host} --port {port}: cannot be served at ({error.strerror}); give another --port, or 0 for any"
        ) from error


def main(args: Args) -> None:
    asked, classifiers = open_runs(args)
    with contextlib.closing(listen(args.host, args.port)) as listening:
        play(args, asked, classifiers, listening)


def play(args: Args, asked: list, classifiers: list, listening: socket.socket) -> None:
    # Imported here because they take seconds: whatever can be refused without them has been.
    from accelerate import Accelerator

    from page.models import open_answerers, open_readers

    device = Accelerator().device
    answerers = open_answerers(asked, args.model, device) if asked or not classifiers else []
    readers = open_readers(classifiers, args.model, device)
    host, port = listening.getsockname()[:2]
    with tempfile.TemporaryDirectory() as folder:
        keep_gradio_here(folder)
        from page.layout import build
        from page.server import serve

        page = build(answerers, readers)
        if not ipaddress.ip_address(host).is_loopback:
            print("open to everyone who reaches this machine, without a password")
        print(f"http://{f'[{host}]' if ':' in host else host}:{port}  (Ctrl-C ends it)", flush=True)
        serve(page, listening)


def keep_gradio_here(folder: str) -> None:
    """Lets gradio send nothing and write into `folder` alone. It opens HTTP clients as it is imported, though the page
    needs none: proxies and certificates that it could not use do not matter."""
    for name in ("SSL_CERT_FILE", "SSLKEYLOGFILE"):
        os.environ.pop(name, None)
    os.environ |= {"no_proxy": "*", "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}


if __name__ == "__main__":
    run(main, Args, __doc__)
