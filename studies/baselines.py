"""What a language model has to beat: the commonest class, and TF-IDF with logistic regression."""

from collections.abc import Sequence
from typing import Any

from evidence.runs import Run
from tasks import Splits

STRENGTHS = (1, 10, 100, 1000)  # C of scikit-learn


def predictions(train: Sequence[Any], validation: Sequence[Any], test: Sequence[Any]) -> list[str]:
    """Returns the class of each test example by TF-IDF of words and pairs of words; validation chooses the strength.

    The whole text is read, as somebody who does without a language model would.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2 if len(train) > 200 else 1, sublinear_tf=True)
    texts = [[f"{e.text} {e.kept}" for e in part] for part in (train, validation, test)]
    vectors = [vectorizer.fit_transform(texts[0]), *map(vectorizer.transform, texts[1:])]
    labels = [[e.label for e in part] for part in (train, validation)]
    models = [LogisticRegression(C=c, max_iter=2000).fit(vectors[0], labels[0]) for c in STRENGTHS]
    best = max(models, key=lambda model: model.score(vectors[1], labels[1])) if validation else models[1]
    return [str(label) for label in best.predict(vectors[2])]


def as_run(test: Sequence[Any], predicted: Sequence[str]) -> Run:
    """Returns predictions in the form of a run, so that they stand beside the others."""
    examples: dict[str, list[Any]] = {"id": [e.id for e in test], "label": [e.label for e in test]}
    return Run("", {}, examples | {"prediction": [*predicted]}, {}, [], [], {})


def tfidf(draws: Sequence[Splits[Any]]) -> list[Run]:
    """Returns a run of TF-IDF for each draw of the training examples."""
    return [as_run(one.test, predictions(one.train, one.validation, one.test)) for one in draws]
