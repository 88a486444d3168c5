"""The page in a real browser: no console messages, and nothing wider than a phone."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_robustness import robustness_study
from synthetic_scale import examples_study, parameters_study
from synthetic_studies import build_studies

from deltaproof.records.store import Store, write_json
from deltaproof.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium or google-chrome on the PATH"),
]
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=4000",
)  # fmt: skip
LONG = "lora(rank=16, roles=['query', 'key', 'value', 'attention_out'])"
STUDIES = {
    "usual": {"n": 300, "require": ("lora.accuracy >= 0.5",), "at_edge": ("head",)},
    "long names": {
        "methods": ("full", *(LONG.replace("16", f"{n}") for n in range(9)), "a" * 80, "head"),
        "labels": tuple(f"a_class_with_an_unbroken_and_rather_long_name_{n}" for n in range(20)),
        "texts": ("x" * 400,) * 240,
        "model": "m" * 120,
        "endings": {"head": "out_of_memory"},
    },
    "regression": {"kind": "regression", "labels": None},
    "multilabel": {"kind": "multilabel", "labels": ("anger", "joy", "fear"), "endings": {"lora": "diverged"}},
    "capacity": {"methods": ("full", "lora", "bitfit", "prefix", "head")},
    "capacity, fourteen methods": {
        "methods": ("full", *(LONG.replace("16", f"{n}") for n in range(11)), "bitfit", "head")
    },
    "robustness and scaling": {"methods": ("full", "lora", "ia3", "head")},
    "robustness and scaling, fourteen methods": {
        "methods": ("full", *(LONG.replace("16", f"{n}") for n in range(11)), "bitfit", "head")
    },
}
N_LAYERS = {"capacity": 6, "capacity, fourteen methods": 12}
"""Of the experiments that have studies of capacity."""
# The page forbids scripts, so the measuring is done by a page around it.
HARNESS = """<!DOCTYPE html><body>{frames}<pre id="found"></pre><script>
const wide = (frame) => {{
  const page = frame.contentDocument.documentElement;
  const stray = [...page.querySelectorAll('body *')].filter((element) =>
    element.getBoundingClientRect().right > frame.clientWidth + 1
    && !element.closest('.scroll, pre, .hidden, .skip, caption'));
  const drawn = [...page.querySelectorAll('svg.plot')].filter((plot) => plot.getBoundingClientRect().width > 0);
  const small = drawn.flatMap((plot) => [...plot.querySelectorAll('text')].map((text) =>
    parseFloat(text.getAttribute('font-size')) * plot.getBoundingClientRect().width / plot.viewBox.baseVal.width));
  return {{width: frame.clientWidth, overflow: page.scrollWidth - frame.clientWidth,
           stray: stray.map((element) => element.tagName + '.' + element.className.toString()).slice(0, 5),
           plots: drawn.length, smallest: Math.min(...small)}};
}};
addEventListener('load', () => {{
  document.getElementById('found').textContent = JSON.stringify([...document.querySelectorAll('iframe')].map(wide));
}});
</script></body>"""


def browse(address: str, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={profile}", *options, address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture(params=STUDIES)
def report(request, table_of):
    table = table_of(**STUDIES[request.param])
    if request.param in N_LAYERS:
        build_studies(Store(table.folder), n_layers=N_LAYERS[request.param])
    if request.param.startswith("robustness"):
        _disturbed_and_scaled(Store(table.folder), STUDIES[request.param]["methods"])
    return write_report(table)


def _disturbed_and_scaled(store: Store, methods: tuple[str, ...]) -> None:
    """Studies of robustness and of scaling, invented."""

    def level(at: int) -> Callable[[float], float]:
        return lambda n: 0.9 - 0.01 * at - (2.0 - 0.1 * at) * n**-0.4

    levels = {name: level(at) for at, name in enumerate(methods)}
    write_json(store.study_path("robustness"), robustness_study(methods))
    write_json(store.study_path("scale_examples"), examples_study(levels, noise=0.02))
    write_json(store.study_path("scale_parameters"), parameters_study(level(0), others={"head": 0.6}, noise=0.02))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_console_stays_silent(report, tmp_path, scheme):
    settings = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    picture = tmp_path / "page.png"
    options = (settings, f"--screenshot={picture}", "--window-size=390,2000")
    done = browse(report.as_uri(), tmp_path / "profile", *options)
    assert "CONSOLE" not in done.stderr
    assert picture.stat().st_size > 10_000


def test_nothing_is_wider_than_the_screen_and_plots_stay_readable(report, tmp_path):
    source = html.escape(report.read_text(encoding="utf-8"), quote=True)
    frames = "".join(
        f'<iframe width="{width}" height="900" srcdoc="{source}"></iframe>' for width in (320, 390, 768, 1200)
    )
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS.format(frames=frames), encoding="utf-8")
    done = browse(harness.as_uri(), tmp_path / "profile", "--dump-dom")
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', done.stdout)[1]))
    assert [view["width"] for view in found] == [320, 390, 768, 1200]
    for view in found:
        assert view["overflow"] <= 0, view
        assert view["stray"] == [], view
        assert view["plots"] >= 4
        # in CSS pixels; smallest where a matrix of 20 classes meets a small phone
        assert view["smallest"] >= (7 if view["width"] == 320 else 8), view


def test_the_page_prints(report, tmp_path):
    pdf = tmp_path / "page.pdf"
    browse(report.as_uri(), tmp_path / "profile", f"--print-to-pdf={pdf}")
    assert pdf.read_bytes().startswith(b"%PDF-")
