"""About how long a robustness study takes: each kind of question is timed on a few validation rows before it begins."""

from collections.abc import Sequence
from dataclasses import replace

from deltaproof.data.split import Split
from deltaproof.studies.capacity import timed
from deltaproof.studies.kept_models import Bed, KeptModel
from deltaproof.studies.robustness_plan import add_texts, plan_for
from deltaproof.studies.robustness_queries import Asked, OfEmbeddings, OfRows, OfSearch, OfWeights, Query
from deltaproof.studies.robustness_sets import Attack, Given

MOST_ROWS = 32
MOST_SEARCHED = 8


def seconds_of_models(
    bed: Bed, kept: KeptModel, attack: Attack, given: Sequence[Given], n_rows: int, n_models: int, n_snapshots: int
) -> float:
    """Processor time of all models together, one after the other, nothing being answered yet.

    Args:
        kept: the model that stands for all.
        n_rows: test rows that will be perturbed.
    """
    few = bed.dataset.validation.take(range(min(len(bed.dataset.validation), MOST_ROWS)))
    asked, load_seconds = timed(lambda: Asked(bed, kept))
    plan = plan_for(few, attack, given)
    add_texts(plan, few, attack)
    costs = _Costs(asked, few, n_rows / len(few))
    final = load_seconds + costs.of_texts(plan.queries) + costs.of_embeddings(plan.queries)
    final += costs.of_weights(plan.queries) + costs.of_searches(plan.queries)
    return n_models * final + n_snapshots * costs.of_texts(plan.on_the_way)


class _Costs:
    """What questions cost on as many rows as will be asked, in seconds."""

    def __init__(self, asked: Asked, few: Split, scale: float) -> None:
        self.asked, self.few, self.scale = asked, few, scale
        asked.answers(few)  # the first call is slower
        self.clean = timed(lambda: asked.answers(few))[1]

    def of_texts(self, queries: Sequence[Query]) -> float:
        """Only what no text before reads like is asked; rows of the user's are as many as they are."""
        read: set[object] = set()
        rows = 0.0
        for query in queries:
            if isinstance(query, OfRows):
                new = set(self.asked.tokens(query.split)) - read
                rows += len(new) * (self.scale if query.split.ids == self.few.ids else 1)
                read |= new
        return rows / len(self.few) * self.clean

    def of_embeddings(self, queries: Sequence[Query]) -> float:
        attacks = [query for query in queries if isinstance(query, OfEmbeddings)]
        return self.scale * sum(self._seconds(query) for query in attacks)

    def _seconds(self, query: Query) -> float:
        return timed(lambda: list(query.ask(self.asked)))[1]

    def of_searches(self, queries: Sequence[Query]) -> float:
        """On fewer rows still, as a search asks about many texts for each."""
        searches = [query for query in queries if isinstance(query, OfSearch)]
        rows = self.few.take(range(min(MOST_SEARCHED, len(self.few))))
        return self.scale * len(self.few) / len(rows) * sum(self._seconds(replace(one, split=rows)) for one in searches)

    def of_weights(self, queries: Sequence[Query]) -> float:
        """A draw takes its time whatever the rows; one of each kind stands for all draws."""
        draws = [query for query in queries if isinstance(query, OfWeights)]
        seconds = self.scale * self.clean * sum(len(query.files) for query in draws)
        for kind in {query.sizes[0][0] for query in draws}:
            same = [query for query in draws if query.sizes[0][0] == kind]
            one = replace(same[0], sizes=same[0].sizes[:1])
            base = timed(lambda: self.asked.base)[1] if kind != "all" else 0.0
            seconds += base + len(same) * max(0.0, self._seconds(one) - self.clean)
        return seconds
