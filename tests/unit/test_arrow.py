"""Arrays made from bytes are those that pyarrow makes, without pandas."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from deltaproof.records import arrow


@pytest.mark.parametrize("values", [["a", "", "häß 語"], ["a", None, "b"] * 7, [None, None], []])
def test_texts_are_those_that_pyarrow_makes(values):
    made = arrow.texts(values)
    made.validate(full=True)
    assert made.equals(pa.array(values, pa.string()))


@pytest.mark.parametrize("shape", [(3, 2), (1, 5), (0, 2)])
def test_rows_are_those_that_pyarrow_makes(shape):
    values = np.random.default_rng(0).normal(size=shape)
    values[:1, :1] = np.nan
    made = arrow.rows(values)
    made.validate(full=True)
    wanted = pa.array(list(values), pa.list_(pa.float64()))
    np.testing.assert_array_equal(np.array(made.to_pylist()), np.array(wanted.to_pylist()))
    assert made.type == wanted.type
    np.testing.assert_array_equal(
        np.array(arrow.rows(values[:, ::-1]).to_pylist()), np.array(wanted.to_pylist())[..., ::-1]
    )


def test_predictions_are_written_without_pandas(tmp_path):
    script = f"""
import sys
from pathlib import Path
import numpy as np
from deltaproof.records.record import Predictions
from deltaproof.records.store import read_predictions, write_predictions
path = Path({str(tmp_path / "answers.parquet")!r})
write_predictions(path, Predictions(["a", "b"], ["g", "h"], np.ones((2, 1)), np.zeros((2, 3))))
print(read_predictions(path, "").groups, "pandas" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['g', 'h'] False"
