"""Need I fine-tune at all? Two answers that need no model: the majority class, and TF-IDF with a linear model."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from deltaproof.data.dataset import Dataset
from deltaproof.data.split import Split
from deltaproof.experiments.environment import environment
from deltaproof.metrics import METRICS
from deltaproof.records.record import Cost, Predictions, Record
from deltaproof.records.spec import Spec
from deltaproof.records.store import Store

BASELINES = ("majority", "tfidf")
"""`majority` answers with the training split's frequencies or mean; `tfidf` is logistic or ridge regression on words
and word pairs."""


def measure_baseline(spec: Spec, dataset: Dataset, store: Store) -> Record:
    """Fit on the training split, score on the sealed test split, store the record."""
    with store.lock(spec.key):
        if found := store.find(spec.key):
            return found
        clock = time.perf_counter()
        answer = _fit(spec.contestant, dataset)
        seconds = time.perf_counter() - clock
        test = dataset.test.open(spec.key)
        outputs, n_metrics = answer(test), spec.task["metrics"]
        validation = answer(dataset.validation)
        cost = Cost(
            n_trainable=0,
            n_total=0,
            reachable_dimension=0,
            train_seconds=seconds,
            examples_per_second=len(dataset.train) / max(seconds, 1e-9),
            train_flops=0.0,
            stored_bytes=0,
        )
        record = Record(
            spec,
            "done",
            {name: METRICS[name].score(dataset.validation.targets, validation) for name in n_metrics},
            {name: METRICS[name].score(test.targets, outputs) for name in n_metrics},
            cost=cost,
            environment=environment(),
            seconds=seconds,
        )
        store.write(record, Predictions(test.ids, test.groups, test.targets, outputs))
        return record


def _fit(name: str, dataset: Dataset) -> Callable[[Split], np.ndarray]:
    train, kind = dataset.train, dataset.kind
    n_outputs = len(dataset.labels) if dataset.labels else 1
    targets = train.targets[:, 0] if kind != "multilabel" else train.targets.astype(int)
    model = _majority(kind) if name == "majority" else _linear(kind, len(train.texts[0]))
    model.fit(_documents(train), targets.astype(int) if kind == "classification" else targets)

    def answer(split: Split) -> np.ndarray:
        documents = _documents(split)
        if kind == "regression":
            return np.asarray(model.predict(documents), dtype=float).reshape(-1, 1)
        if kind == "multilabel":
            return _label_probabilities(model.predict_proba(documents), targets)
        outputs = np.zeros((len(split), n_outputs))
        outputs[:, model.classes_.astype(int)] = model.predict_proba(documents)
        return outputs

    return answer


def _label_probabilities(raw: Any, targets: np.ndarray) -> np.ndarray:
    """(n, labels). A dummy gives one (n, 2) array per label, and (n, 1) for a label that never varies."""
    if isinstance(raw, list):
        always = targets.mean(0)
        columns = [part[:, 1] if part.shape[1] == 2 else np.full(len(part), always[at]) for at, part in enumerate(raw)]
        return np.stack(columns, axis=1)
    return np.asarray(raw, dtype=float)


def _documents(split: Split) -> np.ndarray:
    return np.array(split.texts, dtype=object)


def _first(texts: np.ndarray) -> list[str]:
    return [row[0] for row in texts]


def _second(texts: np.ndarray) -> list[str]:
    return [row[1] for row in texts]


def _majority(kind: str) -> Any:
    from sklearn.dummy import DummyClassifier, DummyRegressor

    return DummyRegressor() if kind == "regression" else DummyClassifier(strategy="prior")


def _linear(kind: str, n_texts: int) -> Any:
    """Words and word pairs of each text, weighted by TF-IDF, into a linear model."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import FunctionTransformer

    def features_of(pick: Callable[[np.ndarray], list[str]]) -> Any:
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b|[^\w\s]")
        return make_pipeline(FunctionTransformer(pick), words)

    features = make_union(*(features_of(pick) for pick in (_first, _second)[:n_texts]))
    if kind == "regression":
        return make_pipeline(features, Ridge())
    logistic = LogisticRegression(max_iter=1000, C=10.0)
    return make_pipeline(features, OneVsRestClassifier(logistic) if kind == "multilabel" else logistic)
