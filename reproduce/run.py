"""Makes the missing runs of a table, or lists or forecasts them, and prints the results.

bash reproduce/table4_rank.sh        # starts this with the file; README.md lists the environment variables
"""

import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from gpt2_scratch.sources import read_json
from reproduce.environment import Settings, check_of_runs, in_share, settings_in
from reproduce.tables import Plan, Table, plans, read_table
from workers.job import Job, Workers, failure_text
from workers.local import fitting, local

NANO_MIB = 1900.0  # no recorded run of that scale has needed more


class Run(NamedTuple):
    folder: Path
    command: str  # python scripts/finetune_cls.py ...

    def job(self, memory_mib: float = 0.0) -> Job:
        return Job(self.folder, (*shlex.split(self.command)[1:], "--resume"), memory_mib)


def tell_left_out(found: Sequence[Plan]) -> None:
    """Prints how many cells have no run here, by reason."""
    for status, count in sorted(Counter(plan.status for plan in found if plan.why).items()):
        print(f"    {count} cells {status}")


def forecast(plan: Plan, run: Run) -> int:
    """Prints the command, with the memory and time that it should need, and returns the exit status."""
    print(run.command)
    if not plan.flags:
        print("    takes seconds")
        return 0
    words = [sys.executable, *shlex.split(run.command)[1:], "--dry-run"]
    told = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print("\n".join(f"    {line}" for line in told.stdout.splitlines() if line))
    return told.returncode


def run_all(jobs: Sequence[Job], workers: Workers) -> int:
    """Makes the runs; returns 0, or 1 after a failure, which stops the others."""
    for i, (job, status, seconds) in enumerate(workers.run(jobs), 1):
        if status:
            print(failure_text(job, status), file=sys.stderr, flush=True)
            return 1
        print(f"{time.strftime('%T')} {i} of {len(jobs)}, {seconds:.0f} s: {job.folder}", flush=True)
    return 0


def launch_all(jobs: Sequence[Job], launcher: Sequence[str]) -> int:
    """Makes the runs one after the other, each with all devices; returns the exit status."""
    for job in jobs:
        print(f"{time.strftime('%T')} python {shlex.join(job.words)}", flush=True)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("a") as log:  # in a group of its own, so that Ctrl-C reaches it once, through this process
            begun = subprocess.Popen([*launcher, *job.words], stdout=log, stderr=subprocess.STDOUT, process_group=0)
        try:
            failed = begun.wait()
        except KeyboardInterrupt:
            os.killpg(begun.pid, signal.SIGINT)
            begun.wait()
            raise
        if failed:
            print(failure_text(job, failed), file=sys.stderr, flush=True)
            return 1
    return 0


def make_runs(runs: Sequence[Run], settings: Settings) -> int:
    """Makes the runs on the cluster if there is one; at nano scale one core each, else one after the other."""
    memory_mib = NANO_MIB if settings["SCALE"] == "nano" else 0.0
    jobs = [run.job(memory_mib) for run in runs]
    if settings["RAY"]:
        from workers.cluster import cluster

        if settings["SCALE"] != "nano":
            print("note    RAY: precision is that in which Ray was started (ACCELERATE_MIXED_PRECISION), not LAUNCH's")
        with cluster(settings["RAY"]) as workers:
            return run_all(jobs, workers)
    if settings["SCALE"] == "nano":
        with local(int(settings["JOBS"] or fitting(NANO_MIB))) as workers:
            return run_all(jobs, workers)
    return launch_all(jobs, shlex.split(settings["LAUNCH"]))


def judge_answers(runs: Sequence[Run], model: str) -> None:
    """Has the answers of finished runs judged, if there are a judge and a key. Those whose outcome has no score of each
    answer, as before, are judged again from the stored replies."""
    if not model:
        return
    from judge.backends import find_key  # takes longer than listing a table

    if not find_key("gemini"):
        print("JUDGE_MODEL: without a key in GEMINI_API_KEY (or GOOGLE_API_KEY) no answers are judged", flush=True)
        return
    judged = f"judge/{model.replace('/', '_')}-published/judge.json"  # where scripts/judge_ift.py leaves it
    for folder in [run.folder for run in runs]:
        if (folder / "generations.jsonl").exists() and "scores" not in read_json(folder / judged):
            words = [sys.executable, "scripts/judge_ift.py", "--generations", str(folder), "--judge-model", model]
            subprocess.run(words, check=True)


def ask(runs: Sequence[Run], questions: Sequence[str]) -> None:
    """Asks the base and the fine-tuned model those of the report's own questions that they have not answered yet, since
    tables share runs."""
    for folder in [run.folder for run in runs] if questions else []:
        answers = folder.with_name(f"{folder.name}.answers.txt")
        known = answers.read_text(encoding="utf-8") if answers.exists() else ""
        if left := [question for question in questions if f"> {question}\n" not in known]:
            words = [sys.executable, "scripts/generate.py", "--run", str(folder), "--compare", "--prompt", *left]
            text = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
            text = text[text.index("> ") :]  # after notes on the tokenizer and on room
            answers.with_suffix(".new").write_text(known + text, encoding="utf-8")
            answers.with_suffix(".new").rename(answers)


def print_rates(found: Sequence[Plan], seeds: str, runs: Path) -> None:
    """Prints the rate with the lowest validation loss for each task and method, beside its grid."""
    means: dict[str, dict[str, float]] = defaultdict(dict)
    for plan in [plan for plan in found if not plan.why]:
        paths = [runs / plan.place(seed) / "results.json" for seed in plan.seeds(seeds)]
        for path in [path for path in paths if not path.exists()]:
            raise ValueError(f"{path} is missing; run learning_rates.sh to its end first")
        losses = [json.loads(path.read_text())["val"]["loss"]["value"] for path in paths]
        means[plan.row.column][plan.row.label] = sum(losses) / len(losses)
    for column, by_rate in means.items():
        best = min(by_rate, key=by_rate.__getitem__)
        edge = "  (at the edge of the grid)" if best in ([*by_rate][0], [*by_rate][-1]) else ""
        print(f"{column}: --lr {best}  # {', '.join(f'{loss:.4f} at {rate}' for rate, loss in by_rate.items())}{edge}")


def make(table: Table, found: Sequence[Plan], runs: Sequence[Run], settings: Settings) -> int:
    """Makes the runs that are missing and prints the table; returns the exit status."""
    left = [run for run in runs if not (run.folder / "results.json").exists()]
    seeds = f", seeds {settings['SEEDS']}" if settings["SEEDS"] else ""
    of = f"{settings['SCALE']} scale{seeds}, share {settings['ONLY']}"
    print(f"{table.name}: {len(runs)} runs, {len(left)} to make ({of})")
    tell_left_out(found)
    sys.stdout.flush()
    if left and (failed := make_runs(left, settings)):
        return failed
    judge_answers(runs, settings["JUDGE_MODEL"])
    ask(runs, table.questions)
    if table.name == "learning_rates" and settings["ONLY"] != "1/1":
        print("rates are chosen once all shares are there: run this table again without ONLY")
    elif table.name == "learning_rates":
        print_rates(found, settings["SEEDS"], Path(settings["RUNS"]))
    elif runs:
        from reproduce.report import Args, print_table  # heavy, and listing a table does not need it

        print_table(table, Args(runs=Path(settings["RUNS"]), scale=settings["SCALE"]))  # type: ignore[arg-type]
    return 0


def main(path: Path) -> int:
    settings = settings_in(os.environ)
    check_of_runs(os.environ, settings)
    table = read_table(path)
    rows = [row for row in table.rows if settings["VERSION"] in ("both", row.version)]
    table = table._replace(rows=rows)
    folder, scale = Path(settings["RUNS"]), settings["SCALE"]
    found = plans(table, scale, Path(settings["DATA_DIR"]), settings["MODEL"])
    wanted = [(plan, seed) for plan in found for seed in plan.seeds(settings["SEEDS"])]
    taken = [(plan, s, Run(folder / plan.place(s), plan.run_command(s, folder))) for plan, s in wanted]
    taken = [(plan, s, run) for plan, s, run in taken if in_share(plan.place(s), settings["ONLY"])]
    if settings["LIST"]:
        for plan, seed, run in taken:
            row = plan.row
            cell = (table.name, row.label, row.column, row.version, scale, seed, row.report or "-", row.record or "-")
            print(*cell, plan.status, *(("-", "-") if plan.why else run), sep="\t")
        return 0
    runs = {run: plan for plan, _, run in taken if not plan.why}
    if not settings["DRY_RUN"]:
        return make(table, found, list(runs), settings)
    failed = False
    for _, seeds_of_one in itertools.groupby(runs, lambda run: run.folder.parent):
        run = next(seeds_of_one)  # the others cost the same
        failed |= forecast(runs[run], run) != 0
    tell_left_out(found)
    return int(failed)


def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def to_the_end(act: Callable[[], int]) -> int:
    """Returns the exit status of a program; an error that a user can cause becomes one message."""
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
    if len(sys.argv) != 2:
        print("error: python -m reproduce.run TABLE.sh: name one table file; settings are variables", file=sys.stderr)
        sys.exit(2)
    sys.exit(to_the_end(lambda: main(Path(sys.argv[1]))))
