"""Scores the answers of an instruction run: from 0 to 100 by a judge, and by measures that need no judge.

    python scripts/judge_ift.py --generations runs/tutor --judge-model gemini-2.5-flash --dry-run
    python scripts/judge_ift.py --generations runs/tutor --judge-model gemini-2.5-flash --repeats 2
    python scripts/judge_ift.py --generations runs/tutor --judge-model qwen3 --judge-url http://127.0.0.1:8000/v1
    python scripts/judge_ift.py --generations runs/lora --against runs/full --judge-model gemini-2.5-flash
    python scripts/judge_ift.py --generations runs/tutor --offline

Report sections 2 and 5.2. --against asks which of two answers is better, in both orders; --text before with --against
the same run compares it with its own base. Every reply is on the disk before the next question is asked: after an
interruption, the same command goes on and asks nothing twice.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2_scratch.sources import read_json
from judge.args import JudgeArgs, PaceArgs
from judge.backends import key_problems
from judge.generations import FILE, JUDGE, Generation, Text, read_generations, results_beside, same_questions
from judge.questions import Question, choice_questions, left_of, score_questions
from judge.store import REPLIES, Key, other_settings, read_replies
from training.flags.cli import flag, given_flags, refuse, resolved, run, stop
from training.storage.run_folder import nearest

if TYPE_CHECKING:
    from judge.asking import Tally
    from judge.store import Store


@dataclass(frozen=True)
class What:
    """What is judged"""

    generations: Path
    """folder of a run of finetune_ift, or its generations.jsonl"""
    text: Text = "response"
    """the answers of the fine-tuned model, or those of its base before the training"""
    against: Path | None = None
    """another run on the same records: which answer is better?"""
    offline: bool = False
    """compute only the measures that need no judge"""
    dry_run: bool = False
    """forecast the requests and tokens, and stop"""
    output_dir: Path | None = None
    """folder for replies.jsonl and judge.json; None: judge/<model>-<prompt> beside the generations"""


@dataclass(frozen=True)
class Args:
    what: What
    judge: JudgeArgs
    pace: PaceArgs

    def problems(self) -> list[str]:
        what, judge, found = self.what, self.judge, []
        if judge.judge_model is None and not what.offline:
            found.append("--judge-model: which model judges? (--offline measures without one)")
        given = [*given_flags(judge), *given_flags(self.pace), *["against"] * bool(what.against)]
        given += ["dry_run"] * what.dry_run
        if what.offline and given:
            found.append(f"--offline: asks no judge; leave out {', '.join(map(flag, given))}")
        itself = what.against is not None and file_of(what.against) == file_of(what.generations)
        if itself and what.text == "response":
            found.append(
                f"--against {what.against}: holds the same answers; --text before compares them with their base's"
            )
        return found


def file_of(generations: Path) -> Path:
    return (generations / FILE if generations.is_dir() else generations).resolve()


def folder_of(what: What, judge: JudgeArgs) -> Path:
    """Returns the folder for the outcome."""
    if what.output_dir is not None:
        return what.output_dir
    beside = what.generations if what.generations.is_dir() else what.generations.parent
    words = ["offline"] if what.offline else [(judge.judge_model or "").replace("/", "_"), judge.judge_prompt]
    words += ["before"] if what.text == "before" else []
    if what.against is not None:
        other = what.against.resolve()
        words += ["against", other.name if other.is_dir() else other.parent.name]
    return beside / "judge" / "-".join(words)


def folder_problems(folder: Path, against: Path | None) -> list[str]:
    """Returns why the outcome cannot be written there: no rights, or the outcome against other answers."""
    place, known = nearest(folder), read_json(folder / JUDGE).get("args", {}).get("against")
    if not place.is_dir() or not os.access(place, os.W_OK):
        return [f"--output-dir {folder}: cannot be written ({place} is a file or belongs to someone else)"]
    if known and against and file_of(Path(known)) != file_of(against):
        return [f"--against {against}: {folder} holds the outcome against {known}; choose another --output-dir"]
    return []


def questions_of(args: Args, ours: Sequence[Generation], theirs: Sequence[Generation] | None) -> list[Question]:
    """Returns all questions to the judge; none with --offline."""
    style, repeats = args.judge.judge_prompt, args.judge.repeats
    if args.what.offline:
        return []
    return score_questions(ours, style, repeats) if theirs is None else choice_questions(ours, theirs, style, repeats)


def forecast(pace: PaceArgs, questions: Sequence[Question], left: Sequence[Question]) -> None:
    """Prints what asking the questions that are left will take."""
    from gpt2_scratch.tokenizer import GPT2
    from judge.asking import TOKENS_OF_A_REPLY

    tokens, replies = sum(len(GPT2.encode(question.prompt)) for question in left), TOKENS_OF_A_REPLY * len(left)
    print(f"items      {len({question.item for question in questions}):,}")
    print(f"requests   {len(left):,}, and {len(questions) - len(left):,} more whose replies are stored")
    print(f"tokens     {tokens:,} in prompts, as GPT-2 counts them; about {replies:,} in replies, thinking apart")
    minutes = [len(left) / pace.requests_per_minute] if pace.requests_per_minute else []
    minutes += [(tokens + replies) / pace.tokens_per_minute] if pace.tokens_per_minute else []
    if minutes:
        print(f"time       {max(minutes):.1f} minutes at this pace")


def ask(args: Args, questions: Sequence[Question], path: Path) -> "tuple[Tally, dict[Key, dict[str, Any]]]":
    """Asks the questions without a reply in the file; returns what this process did, and all stored replies."""
    from judge.asking import NoVerdict, Tally
    from judge.failures import Refused
    from judge.store import Store

    model = args.judge.judge_model or ""
    store = Store(path)
    try:
        left = left_of(questions, model, store.replies)
        if not left:
            return Tally(), store.replies
        return send(args, left, len(questions), store), store.replies
    except NoVerdict as error:
        raise ValueError(
            f"--judge-model {model}: {error}; and name another --output-dir than that of {path}"
        ) from error
    except Refused as error:
        stored = f". {len(store.replies):,} replies are in {path}" * bool(store.replies)
        raise ValueError(f"--judge-model {model}: {error}{stored}") from error
    except ValueError as error:
        schema = re.search("status (400|422)", str(error)) and args.judge.judge_output == "schema"
        onwards = "the same command goes on from there"
        onwards = "if the server knows no JSON schema, add --judge-output text" if schema else onwards
        raise ValueError(
            f"--judge-model {model}: {error}. {len(store.replies):,} replies are in {path}; {onwards}"
        ) from error
    except KeyboardInterrupt:
        stop(f"interrupted; {len(store.replies):,} replies are in {path}, the same command goes on from there", 130)
        raise
    finally:
        store.close()


def send(args: Args, left: Sequence[Question], total: int, store: "Store") -> "Tally":
    """Asks the questions, with a progress line."""
    from tqdm import tqdm

    from gpt2_scratch.tokenizer import GPT2
    from judge.asking import Asking, Tally
    from judge.backends import open_backend
    from judge.prompts import CHOICE_SCHEMA, SCORE_SCHEMA
    from judge.verdicts import read_choice, read_score

    schema, read = (SCORE_SCHEMA, read_score) if args.what.against is None else (CHOICE_SCHEMA, read_choice)
    backend = open_backend(args.judge, schema, args.pace.timeout)
    with tqdm(total=total, initial=total - len(left), unit="reply", dynamic_ncols=True) as bar:

        def settled(tally: Tally) -> None:
            shown = f"requests {tally.requests} again {tally.retries} failed {len(tally.failed)}"
            bar.set_postfix_str(shown, refresh=False)
            bar.update(1)

        count = lambda prompt: len(GPT2.encode(prompt))  # noqa: E731
        return Asking(backend, read, store, args.judge, args.pace, count, settled).ask(left)


def judged(args: Args, questions: Sequence[Question], folder: Path, items: Sequence[Any]) -> tuple[dict[str, Any], Any]:
    """Returns what the judge says, and its score or preference of each item, (n,)."""
    from judge.outcome import compared, counts, scored, tokens_of

    judge, pairs = args.judge, args.what.against is not None
    model = judge.judge_model or ""
    tally, replies = ask(args, questions, folder / REPLIES)
    facts: dict[str, Any] = {"model": model, "prompt": judge.judge_prompt, "output": judge.judge_output}
    facts |= {"text": args.what.text} | ({"against": str(args.what.against)} if pairs else {})
    kept = [replies[key] for question in questions if (key := question.key(model)) in replies]
    adapted = {name: done for reply in kept for name, done in reply.get("adapted", {}).items()}
    facts |= {"adapted": adapted} if adapted else {}
    found: dict[str, Any] = {"judge": facts, "counts": counts(questions, model, replies)}
    found |= {"requests": tally.requests, "retries": tally.retries, "tokens": tokens_of(questions, model, replies)}
    found["failed"] = [
        dict(zip(("item", "repeat", "order"), key, strict=False)) | {"why": why} for key, why in tally.failed.items()
    ]
    outcome, values = (compared if pairs else scored)(items, questions, model, replies)
    return {name: value for name, value in found.items() if value is not None} | outcome, values


def main(args: Args) -> None:
    what, judge = args.what, args.judge
    ours = read_generations(what.generations, what.text, "--generations")
    theirs: list[Generation] | None = None
    if what.against is not None:
        theirs = same_questions(ours, read_generations(what.against, "response", "--against"), what.against)
    folder, questions = folder_of(what, judge), questions_of(args, ours, theirs)
    model, stored = judge.judge_model or "", read_replies(folder / REPLIES)[0]
    left = left_of(questions, model, stored)
    if what.dry_run:
        forecast(args.pace, questions, left)
        return
    kept = [stored[key] for question in questions if (key := question.key(model)) in stored]
    problems = other_settings(kept, judge.settings) + folder_problems(folder, what.against)
    refuse(problems + (key_problems(judge) if left else []))

    results_beside(what.generations)  # refuses a damaged one

    # Imported here because they take seconds: whatever can be refused without them has been.
    from judge.measures import agreement
    from judge.report import environment, measured, show, write

    measures, columns = measured(ours, theirs)
    outcome: dict[str, Any] = {}
    if not what.offline:
        outcome, values = judged(args, questions, folder, [one.question.id for one in ours])
        outcome["agreement"] = agreement(columns, values)
    outcome["measures"] = measures
    write(folder, what.generations, {"args": resolved(args), "environment": environment()}, outcome)
    show(outcome)
    print(f"\nresults    {folder / JUDGE}")


if __name__ == "__main__":
    run(main, Args, __doc__)
