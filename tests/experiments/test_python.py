"""Use from Python: scripts with and without a guard, from standard input, own methods, rows in memory."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pandas
import pytest

import deltaproof
from deltaproof.errors import ConfigError, DataError
from deltaproof.experiments.given_rows import keep_rows
from deltaproof.experiments.plan import plan_from
from deltaproof.experiments.table import Table
from small import FAST, reviews

QUICK = {**FAST, "methods": "head", "trials": 1, "seeds": 1, "baselines": False}


def python(script, bert, reviews_csv, tmp_path, *, stdin=False):
    """Run a script in which MODEL, DATA, OUT and FAST are known; returns the finished process."""
    head = f"MODEL, DATA, OUT = {str(bert)!r}, {str(reviews_csv)!r}, {str(tmp_path / 'run')!r}\nQUICK = {QUICK!r}\n"
    source = head + textwrap.dedent(script)
    path = tmp_path / "study.py"
    path.write_text(source)
    command = [sys.executable, "-"] if stdin else [sys.executable, str(path)]
    return subprocess.run(
        command, input=source if stdin else None, capture_output=True, text=True, timeout=120, env=dict(os.environ)
    )


def test_a_script_without_a_guard_that_defines_its_own_method_runs_once(bert, reviews_csv, tmp_path):
    done = python(
        """
        import deltaproof
        from deltaproof.methods.head import Head

        @deltaproof.method("mine")
        class Mine(Head):
            learning_rate = 1e-2

        table = deltaproof.compare(model=MODEL, data=DATA, out=OUT, **{**QUICK, "methods": [Mine(), deltaproof.Head()]})
        print([row.name for row in table.rows], [row.status for row in table.rows])
        """,
        bert,
        reviews_csv,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['mine', 'head'] ['done', 'done']\n"


def test_a_script_from_standard_input_runs_but_a_method_defined_there_is_refused_with_the_remedy(
    bert, reviews_csv, tmp_path
):
    done = python(
        """
        import deltaproof
        from deltaproof.methods.head import Head

        table = deltaproof.compare(model=MODEL, data=DATA, out=OUT, **QUICK)
        print(table.row("head").status)

        @deltaproof.method("mine")
        class Mine(Head):
            pass

        deltaproof.compare(model=MODEL, data=DATA, out=OUT, **{**QUICK, "methods": "mine"})
        """,
        bert,
        reviews_csv,
        tmp_path,
        stdin=True,
    )
    assert (done.returncode, done.stdout) == (1, "done\n")
    assert done.stderr.startswith("Traceback"), "nothing was said before"
    assert done.stderr.count("Traceback") == 1
    assert "put the class into a module and import it" in done.stderr.splitlines()[-1]


def test_importing_the_package_imports_neither_torch_nor_numpy():
    code = "import deltaproof, sys; print([name for name in ('torch', 'numpy', 'transformers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


# --- rows in memory


@pytest.fixture(scope="module")
def frame():
    return pandas.DataFrame(reviews(96), columns=["text", "label"])


def test_a_data_frame_gives_what_its_file_gives(bert, frame, tmp_path):
    frame.to_csv(tmp_path / "rows.csv", index=False)
    in_memory = deltaproof.compare(model=bert, data=frame, out=tmp_path / "a", **QUICK)
    in_file = deltaproof.compare(model=bert, data=tmp_path / "rows.csv", out=tmp_path / "b", **QUICK)
    assert in_memory.experiment["data"]["rows"] == in_file.experiment["data"]["rows"]
    assert in_memory.experiment["plan"]["data"] == str(tmp_path / "a" / "given" / "rows.parquet")
    again = deltaproof.compare(model=bert, data=tmp_path / "a" / "given" / "rows.parquet", out=tmp_path / "a", **QUICK)
    assert again.to_json()["methods"] == in_memory.to_json()["methods"]


def test_other_rows_for_the_same_folder_are_refused(frame, tmp_path):
    keep_rows(frame, tmp_path)
    keep_rows(frame.copy(), tmp_path)
    with pytest.raises(DataError, match=r"must hold the rows of this experiment.*another folder with `out`"):
        keep_rows(frame.iloc[:-1], tmp_path)


def test_rows_in_memory_may_come_in_splits(bert, frame, tmp_path):
    parts = {"train": frame[:64], "validation": frame[64:80], "test": frame[80:].to_dict("records")}
    table = deltaproof.compare(model=bert, data=parts, out=tmp_path, **QUICK)
    assert table.experiment["data"]["rows"] == {"train": 64, "validation": 16, "test": 16}


def test_a_dataset_of_the_hub_library_keeps_its_class_names(bert, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = reviews(96)
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    held = datasets.Dataset.from_dict({"text": [t for t, _ in rows], "label": [y for _, y in rows]}, features=features)
    table = deltaproof.compare(model=bert, data=held, out=tmp_path, **QUICK)
    assert table.experiment["data"]["labels"] == ["bad", "good"]


def test_a_column_of_mixed_types_is_refused_by_its_name(tmp_path):
    with pytest.raises(DataError, match="the column `label` must hold one type"):
        keep_rows({"text": ["a", "b"], "label": [1, "x"]}, tmp_path)
    with pytest.raises(DataError, match="data in memory must be a list of mappings"):
        keep_rows(7, tmp_path)


# --- the call


def test_a_toml_plan_may_be_given_by_its_path_with_fields_on_top(bert, reviews_csv, tmp_path, monkeypatch):
    plan = tmp_path / "study.toml"
    plan.write_text(f'model = "{bert}"\ndata = "{reviews_csv}"\nmethods = ["head"]\ntrials = 1\nmax_length = 16\n')
    monkeypatch.chdir(tmp_path)
    table = deltaproof.compare(plan, seeds=1, epochs=1, baselines=False)
    assert table.folder == "runs/study"
    assert table.row("head").status == "done"
    whole = plan_from({"model": "m", "data": "d", "methods": "head"})
    with pytest.raises(ConfigError, match="a `Plan` comes alone, got seeds too"):
        deltaproof.compare(whole, seeds=1)


def test_the_table_prints_converts_and_draws(bert, reviews_csv, tmp_path):
    table = deltaproof.compare(
        model=bert, data=reviews_csv, out=tmp_path, **{**QUICK, "methods": [deltaproof.LoRA(rank=2), deltaproof.Head]}
    )
    assert isinstance(table, Table)
    assert "lora(rank=2)" in str(table)
    assert repr(table) == str(table)
    frame = table.to_dataframe()
    assert list(frame.index) == ["lora(rank=2)", "head"]
    assert np.isfinite(frame["accuracy"]).all()
    assert "<svg" in table.plot()._repr_html_()
