"""`deltaproof compress`, `inspect` and `decompress` on what `compare` keeps."""

import json

import pytest

from deltaproof.backbones.source import find_source
from deltaproof.data.load import load_data
from deltaproof.data.run_folder import write_splits
from deltaproof.experiments.jobs import Job
from deltaproof.experiments.run import run as run_job
from deltaproof.methods import method_from
from deltaproof.records.spec import Spec
from deltaproof.tasks.text import task_for
from deltaproof.training.settings import Training
from small import call


@pytest.fixture(scope="module")
def run(bert, reviews_csv, tmp_path_factory):
    """Tuned models of LoRA and of full fine-tuning within one run folder, by method, as `compare` keeps them."""
    folder = tmp_path_factory.mktemp("runs") / "reviews"
    dataset = write_splits(load_data(str(reviews_csv)), folder / "data")
    task = task_for(dataset, ["accuracy"], 16)
    model = {"name": str(bert), "fingerprint": find_source(str(bert)).fingerprint(), "revision": ""}
    data = {"name": dataset.name, "fingerprint": dataset.fingerprint, "text_columns": list(dataset.text_columns)}
    settings = Training(batch_size=16, epochs=4).model_dump(mode="json")
    kept = {}
    for name, rate in (("full", 1e-3), ("lora(rank=2)", 1e-2)):
        method = method_from(name)
        training = {**settings, "learning_rate": rate, "precision": "fp32", "threads": 1}
        spec = Spec(method.label, method.to_dict(), model, task.to_json(), data, training, seed=0, stage="final")
        assert run_job(Job(spec, folder, "cpu", keep=True)).status == "done"
        kept[method.name] = folder / "tuned" / spec.key
    return kept


@pytest.mark.parametrize("method", ["full", "lora"])
def test_compress_inspect_and_decompress_tell_one_story(method, run, tmp_path):
    made = call("compress", run[method], "-o", tmp_path / "x.dpz", "--density", "0.5", "--device", "cpu", "--json")
    assert (made.exit_code, made.stderr) == (0, ""), made.output
    report = json.loads(made.stdout)
    assert report["sizes"]["file_bytes"] == (tmp_path / "x.dpz").stat().st_size
    assert report["sizes"]["fp32_ratio"] == 2 * report["sizes"]["fp16_ratio"]
    seen = json.loads(call("inspect", tmp_path / "x.dpz", "--json").stdout)
    assert seen["sizes"] == report["sizes"]
    assert seen["settings"] == {"density": 0.5, "alpha": "auto", "scope": "per_tensor"}
    record = json.loads((run[method].parents[1] / "records" / f"{run[method].name}.json").read_text())
    assert report["score_before"] == pytest.approx(record["validation"][report["metric"]])
    again = call("decompress", tmp_path / "x.dpz", "-o", tmp_path / "again", "--json")
    assert again.exit_code == 0, again.output
    files = json.loads(again.stdout)["files"]
    assert ("adapter_config.json" in files) == (method == "lora")
    assert ("model.safetensors" in files) == (method == "full")
    data = run[method].parents[1] / "some.csv"
    data.write_text("text\na good fox\na bad dog\n")
    answer = call("predict", tmp_path / "again", "--data", data, "--device", "cpu", "--quiet")
    assert answer.exit_code == 0, answer.output
    assert len(answer.stdout.splitlines()) == 3


def test_the_text_says_every_ratio_with_its_denominator_and_the_score_with_its_rows(run, tmp_path):
    made = call("compress", run["lora"], "-o", tmp_path / "x.dpz", "--device", "cpu")
    for words in (
        "density 0.2, alpha auto, scope per_tensor, counted from init", "bytes by stat)", "than all its tensors as "
        "stored",
        "x smaller than in fp16 (", "x than in fp32 (", "accuracy on validation: ", "kept whole: ",
    ):  # fmt: skip
        assert words in made.stdout
    listed = call("inspect", tmp_path / "x.dpz", "--tensors").stdout
    assert "every checksum holds" in listed
    assert "query#0.a" in listed
    assert "from init" in listed


def test_a_sweep_shows_density_and_alpha_beside_the_uncompressed(run):
    arguments = ("compress", run["lora"], "--sweep", "--density", "0.1,0.5", "--alpha", "auto,1", "--device", "cpu")
    found = json.loads(call(*arguments, "--json").stdout)
    assert [(point["density"], point["alpha"]) for point in found["points"]] == [
        (density, alpha) for density in (0.1, 0.5) for alpha in ("auto", 1.0, "pruned")
    ]
    assert all(0 <= point["score"] <= 1 for point in found["points"])
    sizes = [point["file_bytes"] for point in found["points"] if point["alpha"] == "auto"]
    assert sizes == sorted(sizes)
    text = call(*arguments)
    assert text.stdout.count("best") == 3  # one for each density, and the warning below
    assert "density 0.5, alpha 1.0: accuracy" in text.stderr


def test_alpha_can_be_searched_for_and_is_then_the_best_of_the_sweep(run, tmp_path):
    found = json.loads(
        call("compress", run["full"], "-o", tmp_path / "x.dpz", "--alpha", "search", "--device", "cpu", "--json").stdout
    )
    swept = json.loads(
        call("compress", run["full"], "--sweep", "--density", "0.2", "--device", "cpu", "--quiet", "--json").stdout
    )
    best = max(point["score"] for point in swept["points"] if point["alpha"] != "pruned")
    assert found["score_after"] == pytest.approx(best)
    assert "a little too good" in found["notes"][0]


def test_half_of_the_update_with_a_chosen_alpha_keeps_most_of_the_gain(run, tmp_path):
    """A published claim at the least: that of what tuning gained over the head alone, four fifths stay."""
    for method in run:
        arguments = ("--sweep", "--density", "0.5", "--device", "cpu", "--quiet", "--json")
        found = json.loads(call("compress", run[method], *arguments).stdout)
        best = max(point["score"] for point in found["points"] if point["alpha"] != "pruned")
        assert best >= found["without"] + 0.8 * (found["before"] - found["without"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "one of a file to write (`-o expert.dpz`), `--sweep` and `--study` must be given"),
        (("--sweep", "-o", "x.dpz"), 2, "and no two"),
        (("-o", "x.dpz", "--density", "0.1,0.2"), 2, "several go with `--sweep`"),
        (("-o", "x.dpz", "--density", "much"), 2, "`--density` must be a number, got `much`"),
        (("-o", "x.dpz", "--density", "20"), 2, "`0.0001 <= density <= 1` must hold, got 20.0"),
        (("-o", "x.dpz", "--scope", "all"), 2, "`scope` must be one of"),
        (("-o", "x.dpz", "--start", "random"), 2, "`--start` must be `init` or `zero`, got `random`"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_read(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("compress", "runs/none", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_an_error_of_one_paragraph(run, tmp_path):
    call("compress", run["lora"], "-o", tmp_path / "x.dpz", "--no-scores", "--device", "cpu", "--quiet")
    data = bytearray((tmp_path / "x.dpz").read_bytes())
    data[-3] ^= 1
    (tmp_path / "x.dpz").write_bytes(data)
    for command in (("inspect", tmp_path / "x.dpz"), ("decompress", tmp_path / "x.dpz", "-o", tmp_path / "again")):
        result = call(*command)
        assert result.exit_code == 1
        assert "its checksum differs: bytes of it are damaged; copy the file again" in result.stderr
    assert not (tmp_path / "again").exists()


def test_a_folder_that_is_not_empty_is_left_alone(run, tmp_path):
    call("compress", run["lora"], "-o", tmp_path / "x.dpz", "--no-scores", "--device", "cpu", "--quiet")
    result = call("decompress", tmp_path / "x.dpz", "-o", tmp_path)
    assert result.exit_code == 2
    assert "must name a new folder or an empty one" in result.stderr
