"""The compression study of a run folder: how small every kept update can be made, and what that costs on the test rows.

Density and scale are looked at on validation; at each density the scale that scores best there is asked once of the
sealed test rows, so that no number on the test rows was chosen by looking at them.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from deltaproof.errors import CompressionError, RecordError
from deltaproof.experiments.wording import duration
from deltaproof.records.record import Predictions
from deltaproof.records.store import Store, read_json
from deltaproof.studies.capacity import finite
from deltaproof.studies.compression_findings import BASE, BEFORE, WITHOUT, of_contestant
from deltaproof.studies.compression_points import Expert, Settings, as_json
from deltaproof.studies.kept_models import Bed, kept_models

Say = Callable[[str], None]
FORMAT = 1


def compression(
    run: Path | str,
    settings: Settings | None = None,
    contestants: Sequence[str] = (),
    device: torch.device | str = "cpu",
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Compress every kept model at every density; the result is in `studies/compression.json` too.

    Args:
        run: a folder that `compare` wrote; with `keep="all"` intervals are over seeds too.
        contestants: labels, all when none is named.
    Raises:
        RecordError: nothing was kept, or nothing that is kept can be compressed.
        ConfigError: a setting is out of its range.
    """
    settings = settings or Settings()
    settings.check()
    bed = Bed(Store(run), torch.device(device))
    experts: dict[str, list[Expert]] = {}
    models: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    kept = kept_models(bed.store, contestants)
    n_points = len(settings.densities) * len(settings.names)
    say(f"{len(kept)} tuned models; of each that can be compressed {n_points} scores on validation")
    started = time.perf_counter()
    for one in kept:
        expert = Expert(bed, one, settings, say)
        try:
            models.append(expert.measured())
        except CompressionError as error:
            left_out[one.label] = str(error)
            say(f"{one.label}: left out, {error}")
            continue
        experts.setdefault(one.label, []).append(expert)
    if not experts:
        raise RecordError(
            f"a compression study needs updates that can be compressed, `{bed.store.folder}` keeps none: "
            f"{'; '.join(left_out.values())}"
        )
    say(f"compression: done in {duration(time.perf_counter() - started)}")
    found = {
        "format": FORMAT,
        "inputs": {"format": FORMAT, "keys": [model["key"] for model in models], **as_json(settings)},
        "metric": bed.metric.name,
        "margin": bed.experiment["margin"],
        "level": bed.experiment["alpha"],
        "n_parameters": bed.experiment["model"].get("n_parameters"),
        "settings": as_json(settings),
        "models": models,
        "contestants": [_contestant(bed, label, here, models) for label, here in experts.items()],
        "left_out": left_out,
    }
    written: dict[str, Any] = read_json(bed.write("compression", finite(found)))
    return written


def _contestant(bed: Bed, label: str, experts: Sequence[Expert], models: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Scores and verdicts over the kept models of one contestant, at densities that none of them refused."""
    own = [model for model in models if model["label"] == label]
    answers: dict[str, list[Predictions]] = {}
    for what in (BEFORE, WITHOUT, BASE):
        there = [known for expert in experts if (known := expert.answers(what)) is not None]
        if len(there) == len(experts):
            answers[what] = there
    densities = []
    for at, entry in enumerate(own[0]["densities"]):
        here = [model["densities"][at] for model in own]
        if any(found["chosen"] is None for found in here):
            continue
        name = f"{entry['density']:g}"
        densities.append(name)
        answers[name] = [_there(expert, found) for expert, found in zip(experts, here, strict=True)]
    start = BASE if BASE in answers else WITHOUT
    found = of_contestant(bed.metric, bed.experiment["margin"], bed.experiment["alpha"], answers, densities, start)
    return {"label": label, "n_seeds": len(own), "start": start, **found}


def _there(expert: Expert, found: dict[str, Any]) -> Predictions:
    answers = expert.answers(expert.chosen_file(found))
    assert answers is not None, "a density that was looked at has its answers"
    return answers
