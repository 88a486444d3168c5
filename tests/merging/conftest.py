"""Experts of one tiny base: three tasks, several forms, tuned by hand so that what they change is known."""

from pathlib import Path

import pytest
import torch

from deltaproof.backbones import save_tiny
from deltaproof.backbones.source import find_source
from deltaproof.data.load import load_data
from deltaproof.data.run_folder import write_splits
from deltaproof.experiments.environment import versions
from deltaproof.methods import method_from
from deltaproof.records.spec import Spec
from deltaproof.records.store import Store, write_json
from deltaproof.saving.folder import attach_anew, save_tuned
from deltaproof.tasks.text import task_for
from experiment_fixtures import _own_ledger
from small import write_csv, write_reviews

__all__ = ["_own_ledger"]


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return save_tiny("bert", tmp_path_factory.mktemp("bases") / "bert")


@pytest.fixture(scope="session")
def make_run(base, tmp_path_factory):
    """A run folder with one tuned model: its trained tensors are the start plus noise of a known size."""

    def make(name: str, labels: tuple[str, str] | None, method: str = "full", noise: float = 0.05, seed: int = 0,
             base: Path = base) -> Path:  # fmt: skip
        folder = tmp_path_factory.mktemp("runs") / name
        table = write_reviews(folder.with_suffix(".csv"), 80, seed=seed)
        rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
        if labels is None:  # numbers: how much a text is liked
            table = write_csv(table, ["text", "label"], [[t, 3.5 * (one == "pos") + at / 50] for at, (t, one) in
                              enumerate(rows)])  # fmt: skip
        elif labels != ("neg", "pos"):
            table = write_csv(table, ["text", "label"], [[t, labels[one == "pos"]] for t, one in rows])
        dataset = write_splits(load_data(str(table), seed=seed), folder / "data")
        task = task_for(dataset, ["accuracy", "nll"] if labels else ["rmse", "spearman"], 16)
        source = find_source(str(base))
        model = {"name": str(base), "fingerprint": source.fingerprint(), "revision": ""}
        data = {"name": name, "fingerprint": dataset.fingerprint, "text_columns": list(dataset.text_columns)}
        training = {"batch_size": 16, "precision": "fp32", "threads": 1, "versions": versions()}
        kind = method_from(method)
        spec = Spec(kind.label, kind.to_dict(), model, task.to_json(), data, training, seed, "final")
        tuned = attach_anew(task, {**vars(spec), "method": kind.to_dict()})
        draw = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            for parameter in tuned.trained().values():
                parameter += noise * torch.randn(parameter.shape, generator=draw)
        save_tuned(tuned, task, spec, folder / "tuned" / spec.key)
        (folder / "best").symlink_to(Path("tuned") / spec.key)
        write_json(folder / "experiment.json", {
            "name": name, "task": task.to_json(), "precision": "fp32", "margin": 0.02, "alpha": 0.05,
            "data": {"name": name, "fingerprint": dataset.fingerprint, "rows": {}}, "model": model,
            "contestants": [{"name": kind.label, "final": [spec.key]}], "baselines": [],
        })  # fmt: skip
        assert Store(folder).experiment()["name"] == name
        return folder

    return make


@pytest.fixture(scope="session")
def mood(make_run):
    return make_run("mood", ("neg", "pos"))


@pytest.fixture(scope="session")
def kind(make_run):
    return make_run("kind", ("plain", "loud"), seed=5)


@pytest.fixture(scope="session")
def lora(make_run):
    return make_run("lora", ("no", "yes"), "lora(rank=2)", noise=0.3, seed=7)
