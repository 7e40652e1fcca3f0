"""What a language model has to beat: the commonest class, and TF-IDF with logistic regression."""

import unicodedata
from collections.abc import Sequence
from typing import Any

from evidence.runs import Run
from tasks import Splits

STRENGTHS = (1, 10, 100, 1000)  # C of scikit-learn
# Scripts without spaces between words, as the names of their letters begin.
SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


def predictions(train: Sequence[Any], validation: Sequence[Any], test: Sequence[Any]) -> list[str]:
    """Returns the class of each test example by TF-IDF of words and pairs of words; validation chooses the strength.

    The whole text is read, as somebody who does without a language model would. In languages that are written without
    spaces, and in texts without words, characters take the place of words. Of one class all is that class.
    """
    if len(classes := {e.label for e in train}) == 1:
        return [str(label) for label in classes] * len(test)
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts = [[f"{e.text} {e.kept}" for e in part] for part in (train, validation, test)]
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2 if len(train) > 200 else 1, sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    try:
        vectorizer = (characters if without_spaces(texts[0]) else words).fit(texts[0])
    except ValueError:  # there are no words, or each stands in one text alone
        vectorizer = characters.fit(texts[0])
    vectors = [*map(vectorizer.transform, texts)]
    labels = [[e.label for e in part] for part in (train, validation)]
    models = [LogisticRegression(C=c, max_iter=2000).fit(vectors[0], labels[0]) for c in STRENGTHS]
    best = max(models, key=lambda model: model.score(vectors[1], labels[1])) if validation else models[1]
    return [str(label) for label in best.predict(vectors[2])]


def without_spaces(texts: Sequence[str]) -> bool:
    """Returns whether most letters are of scripts that put no space between words."""
    letters = [c for text in texts[:1000] for c in text[:200] if c.isalpha()]
    return 2 * sum(unicodedata.name(c, "").startswith(SPACELESS) for c in letters) > len(letters)


def as_run(test: Sequence[Any], predicted: Sequence[str]) -> Run:
    """Returns predictions in the form of a run, so that they stand beside the others."""
    examples: dict[str, list[Any]] = {"id": [e.id for e in test], "label": [e.label for e in test]}
    return Run("", {}, examples | {"prediction": [*predicted]}, {}, [], [], {})


def tfidf(draws: Sequence[Splits[Any]]) -> list[Run]:
    """Returns a run of TF-IDF for each draw of the training examples."""
    return [as_run(one.test, predictions(one.train, one.validation, one.test)) for one in draws]
