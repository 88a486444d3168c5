"""Where the methods differ: how often one is right and the other is not, and on which examples."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deltaproof.data.run_folder import read_dataset
from deltaproof.data.split import Split
from deltaproof.errors import DataError, RecordError
from deltaproof.experiments.row import Row
from deltaproof.report.grid import Grid, grid
from deltaproof.report.study import Study

MOST_EXAMPLES = 12
MOST_LETTERS = 300


@dataclass(frozen=True)
class Answer:
    """One answer and who gave it."""

    text: str
    right: bool | None
    """None where an answer is not simply right or wrong."""
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Example:
    """A test example that methods answer differently."""

    texts: tuple[str, ...]
    truth: str
    answers: tuple[Answer, ...]


def agreement(study: Study) -> Grid | None:
    """How often each contestant and the reference are right together, alone or not at all (mean of their seeds)."""
    done = {row.name: row for row in study.done}
    reference = study.table.reference
    if study.kind == "regression" or reference not in done or len(done) < 2:
        return None
    right = {name: _is_right(study, row) for name, row in done.items()}
    theirs = right[reference]
    lines = []
    for name, mine in right.items():
        if name != reference:
            counts = (mine & theirs, mine & ~theirs, ~mine & theirs, ~mine & ~theirs)
            lines.append([name, *(f"{int(count.sum())}" for count in counts)])
    columns = ("Method", "Both right", "Only this one right", f"Only {reference} right", "Both wrong")
    note = f"Of {len(theirs)} test examples; the answer of a method is that of the mean of its seeds."
    return grid(f"Each contestant beside {reference}", columns, lines, note=note)


def _is_right(study: Study, row: Row) -> np.ndarray:
    targets = study.answers(row)[0].targets
    if study.kind == "multilabel":
        return np.asarray(((study.mean_outputs(row) >= 0.5) == (targets > 0.5)).all(axis=1))
    return np.asarray(study.mean_outputs(row).argmax(axis=1) == targets[:, 0])


def open_test(study: Study) -> Split | None:
    """The test rows; None where they are gone.

    They are opened in the name of a final run that has opened them already, so this counts for nothing new.
    """
    if not study.done:
        return None
    try:
        return read_dataset(Path(study.table.folder) / "data", splits=()).test.open(study.done[0].keys[0])
    except (DataError, RecordError):
        return None


def disagreements(study: Study) -> list[Example]:
    """Test examples that the methods answer differently, with every pattern of who is right among them.

    Empty where nothing differs or the rows are gone.
    """
    split = open_test(study) if len(study.done) > 1 else None
    if split is None:
        return []
    row_of = {name: index for index, name in enumerate(split.ids)}
    ids = study.answers(study.done[0])[0].ids
    chosen = [index for index in (_spread if study.kind == "regression" else _split)(study) if ids[index] in row_of]
    return [_example(study, index, split.texts[row_of[ids[index]]]) for index in chosen[:MOST_EXAMPLES]]


def _spread(study: Study) -> list[int]:
    """Examples by how far the predicted values lie apart, widest first."""
    values = np.stack([study.mean_outputs(row)[:, 0] for row in study.done])
    spread = np.ptp(values, axis=0)
    return [int(index) for index in np.argsort(-spread, kind="stable") if spread[index] > 0]


def _split(study: Study) -> list[int]:
    """Examples with different answers: one of each pattern of answers in turn, frequent patterns first."""
    answers = [[_decision(study, output) for output in study.mean_outputs(row)] for row in study.done]
    patterns: dict[tuple[object, ...], list[int]] = defaultdict(list)
    right = [_is_right(study, row) for row in study.done]
    for index in range(len(answers[0])):
        given = [answer[index] for answer in answers]
        if len(set(given)) > 1:
            patterns[tuple(bool(mine[index]) for mine in right)].append(index)
    queues = sorted(patterns.values(), key=lambda queue: (-len(queue), queue[0]))
    turns = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(min(turns, MOST_EXAMPLES)) for queue in queues if turn < len(queue)]


def _decision(study: Study, output: np.ndarray) -> tuple[int, ...]:
    """The labels that an output row stands for."""
    if study.kind == "multilabel":
        return tuple(int(label) for label in np.flatnonzero(output >= 0.5))
    return (int(output.argmax()),)


def _example(study: Study, index: int, texts: tuple[str, ...]) -> Example:
    target = study.answers(study.done[0])[0].targets[index]
    shown = tuple(_shortened(text) for text in texts)
    if study.kind == "regression":
        values = [(row.name, float(study.mean_outputs(row)[index, 0])) for row in study.done]
        nearest_first = sorted(values, key=lambda pair: abs(pair[1] - target[0]))
        return Example(
            shown, f"{target[0]:.4g}", tuple(Answer(f"{value:.4g}", None, (name,)) for name, value in nearest_first)
        )
    truth = (
        tuple(int(label) for label in np.flatnonzero(target > 0.5)) if study.kind == "multilabel" else (int(target[0]),)
    )
    given: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for row in study.done:
        given[_decision(study, study.mean_outputs(row)[index])].append(row.name)
    right_first = sorted(given.items(), key=lambda item: (item[0] != truth, -len(item[1])))
    return Example(
        shown,
        _named(study, truth),
        tuple(Answer(_named(study, answer), answer == truth, tuple(names)) for answer, names in right_first),
    )


def _named(study: Study, labels: tuple[int, ...]) -> str:
    return ", ".join(study.label(label) for label in labels) or "none"


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1].rstrip() + "…"
