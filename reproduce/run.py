"""A table: makes the runs that are missing, or lists or forecasts them, and prints what came out.

bash reproduce/table4_rank.sh        # starts this with the file; README.md has the variables of the environment
"""

import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from reproduce.tables import Plan, Table, plans, read_table
from reproduce.warm import Run, run_all

RATE = {"full": 2500, "lora": 3600}  # tokens a second on one core (README, "Measured")


@dataclass(frozen=True)
class Settings:
    """The environment. Raises ValueError for a value that cannot be."""

    env: Mapping[str, str]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d+( \d+)*", self.text("SEEDS")):
            raise ValueError(f'SEEDS={self.text("SEEDS")}: must be whole numbers, like "0 1 2"')
        for name, allowed in (("SCALE", ["report", "nano"]), ("VERSION", ["published", "corrected", "both"])):
            if self.text(name) not in allowed:
                raise ValueError(f"{name}={self.text(name)}: must be {', '.join(allowed[:-1])} or {allowed[-1]}")
        if not re.fullmatch(r"[1-9]\d*/[1-9]\d*", self.text("ONLY")):
            raise ValueError(f"ONLY={self.text('ONLY')}: must be a share like 3/8, the third of eight")
        if self.share[0] > self.share[1]:
            raise ValueError(f"ONLY={self.text('ONLY')}: there are {self.share[1]} shares")
        if not re.fullmatch(r"[1-9]\d*", self.text("JOBS")):
            raise ValueError(f"JOBS={self.text('JOBS')}: must be a whole number, at least 1")

    def text(self, name: str) -> str:
        return self.env.get(name) or DEFAULTS.get(name, "")

    @property
    def seeds(self) -> list[str]:
        return self.text("SEEDS").split()

    @property
    def share(self) -> tuple[int, int]:
        mine, of = self.text("ONLY").split("/")
        return int(mine), int(of)

    def takes(self, plan: Plan, seed: str) -> bool:
        """Identical runs are in the same share, whatever their table."""
        mine, of = self.share
        return (int(plan.key[-12:-4], 16) + int(seed)) % of == mine - 1


DEFAULTS = {"SEEDS": "0 1 2", "SCALE": "report", "VERSION": "both", "ONLY": "1/1", "RUNS": "runs/reproduce"}
DEFAULTS |= {"DATA_DIR": "data", "MODEL": "gpt2-nano", "JOBS": str(os.cpu_count())}
DEFAULTS |= {"LAUNCH": f"{shlex.quote(sys.executable)} -m accelerate.commands.launch"}


def tell_left_out(found: Sequence[Plan]) -> None:
    """Cells that have no run here, by reason."""
    for status, count in sorted(Counter(plan.status for plan in found if plan.why).items()):
        print(f"    {count} cells {status}")


def forecast(plan: Plan, run: Run, scale: str) -> None:
    """The command, with the memory that it is expected to need and the time."""
    print(run.command)
    if not plan.flags:
        print("    time    seconds")
        return
    words = [sys.executable, *shlex.split(run.command)[1:], "--dry-run"]
    told = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
    print("\n".join(f"    {line}" for line in told.splitlines() if line))
    if scale == "report":
        print("    time    unknown: not measured on this device")
        return
    tokens = plan.flags["train_examples"] * plan.flags["max_length"] * (plan.flags["epochs"] or 0)
    print(f"    time    at most {tokens / RATE.get(plan.flags['method'], 3600) / 60:.1f} minutes of training")


def launch_all(runs: Sequence[Run], launcher: Sequence[str]) -> int:
    """One after the other, each with all devices."""
    for run in runs:
        print(f"{time.strftime('%T')} {run.command}", flush=True)
        run.log.parent.mkdir(parents=True, exist_ok=True)
        with run.log.open("a") as log:
            done = subprocess.run([*launcher, *run.words], stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            run.tell_failure()
            return 1
    return 0


def judge_answers(runs: Sequence[Run], model: str) -> None:
    """Where there is a key and a judge; without, the offline measures stand in."""
    for folder in [run.folder for run in runs] if model and os.environ.get("GEMINI_API_KEY") else []:
        if (folder / "generations.jsonl").exists() and not [*folder.glob("judge/*/judge.json")]:
            words = [sys.executable, "scripts/judge_ift.py", "--generations", str(folder), "--judge-model", model]
            subprocess.run(words, check=True)


def ask(runs: Sequence[Run], questions: Sequence[str]) -> None:
    """The report's own questions, of the base and of the fine-tuned model."""
    for folder in [run.folder for run in runs] if questions else []:
        answers = folder.with_name(f"{folder.name}.answers.txt")
        if not answers.exists():
            words = [sys.executable, "scripts/generate.py", "--run", str(folder), "--compare", "--prompt", *questions]
            text = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
            answers.with_suffix(".new").write_text(text)
            answers.with_suffix(".new").rename(answers)


def print_rates(found: Sequence[Plan], seeds: Sequence[str], runs: Path) -> None:
    """The rate with the lowest validation loss for each task and method, beside its grid."""
    import json

    means: dict[str, dict[str, float]] = defaultdict(dict)
    for plan in [plan for plan in found if not plan.why]:
        read = [json.loads((runs / plan.place(seed) / "results.json").read_text()) for seed in seeds]
        losses = [one["val"]["loss"]["value"] for one in read]
        means[plan.row.column][plan.row.label] = sum(losses) / len(losses)
    for column, by_rate in means.items():
        best = min(by_rate, key=by_rate.__getitem__)
        edge = "  (at the edge of the grid)" if best in ([*by_rate][0], [*by_rate][-1]) else ""
        print(f"{column}: --lr {best}  # {', '.join(f'{loss:.4f} at {rate}' for rate, loss in by_rate.items())}{edge}")


def make(table: Table, found: Sequence[Plan], runs: Sequence[Run], settings: Settings) -> int:
    left = [run for run in runs if not (run.folder / "results.json").exists()]
    scale, share = settings.text("SCALE"), settings.text("ONLY")
    of = f"{scale} scale, seeds {' '.join(settings.seeds)}, share {share}"
    print(f"{table.name}: {len(runs)} runs, {len(left)} to make ({of})")
    tell_left_out(found)
    sys.stdout.flush()
    if left and scale == "nano":
        os.environ["OMP_NUM_THREADS"] = "1"
        failed = run_all(left, int(settings.text("JOBS")))
    else:
        failed = launch_all(left, shlex.split(settings.text("LAUNCH")))
    if failed:
        return failed
    judge_answers(runs, settings.text("JUDGE_MODEL"))
    ask(runs, table.questions)
    if table.name == "learning_rates":
        print_rates(found, settings.seeds, Path(settings.text("RUNS")))
    elif runs:
        from reproduce.report import Args, print_table  # needs numpy, which must not be there before the runs are

        print_table(table, Args(runs=Path(settings.text("RUNS")), scale="nano" if scale == "nano" else "report"))
    return 0


def main(path: Path) -> int:
    settings, table = Settings(os.environ), read_table(path)
    folder, scale = Path(settings.text("RUNS")), settings.text("SCALE")
    found = plans(table, scale, Path(settings.text("DATA_DIR")), settings.text("MODEL"))
    found = [plan for plan in found if settings.text("VERSION") in ("both", plan.row.version)]
    taken = [(plan, seed) for plan in found for seed in settings.seeds if settings.takes(plan, seed)]
    runs = {
        plan.place(seed): (plan, Run(folder / plan.place(seed), plan.run_command(seed, folder)))
        for plan, seed in taken
        if not plan.why
    }
    if settings.text("LIST"):
        for plan, seed in taken:
            row, run = plan.row, runs.get(plan.place(seed), (plan, Run(Path("-"), "-")))[1]
            cell = (table.name, row.label, row.column, row.version, scale, seed, row.report or "-", row.record or "-")
            print(*cell, plan.status, run.folder, run.command, sep="\t")
    elif settings.text("DRY_RUN"):
        for _, kind in itertools.groupby(runs.values(), lambda planned: planned[0].key):
            forecast(*next(kind), scale)  # seeds cost the same
        tell_left_out(found)
    else:
        return make(table, found, [run for _, run in runs.values()], settings)
    return 0


def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def to_the_end(act: Callable[[], int]) -> int:
    """The exit status of a program; what a user can cause is one message."""
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        return act()
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr, flush=True)
        return 130


if __name__ == "__main__":
    sys.exit(to_the_end(lambda: main(Path(sys.argv[1]))))
