"""Trains TF-IDF and logistic regression on the split of scripts/finetune_cls.py: what a language model has to beat.

    python benchmarks/tfidf.py --dataset spamassassin --max-length 256

It reads words and pairs of words in the same tokens; validation chooses the strength of the regularisation. Writes
predictions.jsonl as a run does.
"""

from dataclasses import dataclass
from pathlib import Path

from training.data.sources import asked_rows, split_rows
from training.flags.cli import run
from training.flags.common import DataArgs
from training.flags.task import TextArgs

STRENGTHS = (1, 10, 100, 1000)  # C of scikit-learn


@dataclass(frozen=True)
class Args:
    data: DataArgs
    text: TextArgs
    output_dir: Path = Path("runs/tfidf")
    """where predictions.jsonl goes"""


def main(args: Args) -> None:
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    from evidence.intervals import share, shown
    from gpt2_scratch.tokenizer import GPT2
    from training.data.batches import encode_all_labelled
    from training.storage.files import write_lines

    task = args.text.task(args.data.dataset, args.data.data)
    splits = split_rows(task, asked_rows(task, args.data), args.data)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    vectors = {}
    for name, part in splits.named().items():
        encoded = encode_all_labelled(GPT2, part, [0] * len(part), args.data.max_length)
        texts = [GPT2.decode(e.tokens.tolist()) for e in encoded]
        vectors[name] = vectorizer.fit_transform(texts) if name == "train" else vectorizer.transform(texts)
    labels = {name: np.array([e.label for e in part]) for name, part in splits.named().items()}
    models = [LogisticRegression(C=c, max_iter=2000).fit(vectors["train"], labels["train"]) for c in STRENGTHS]
    best = max(models, key=lambda model: model.score(vectors["validation"], labels["validation"]))
    predicted = best.predict(vectors["test"])
    right = predicted == labels["test"]
    accuracy = share(right).entry()
    rows = zip(splits.test, predicted, strict=True)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    lines = [{"id": e.id, "label": e.label, "prediction": str(guess)} for e, guess in rows]
    write_lines(args.output_dir / "predictions.jsonl", lines)
    print(f"test accuracy {shown(accuracy)}, n = {accuracy['n']:,}, C = {best.C}; {args.output_dir}")


if __name__ == "__main__":
    run(main, Args, __doc__)
