"""Both kinds of report.html in a real browser: no request, no console message, readable on a phone."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.fake_runs import fake_run

from omma.commands.compare import compare
from omma.report.compare_plots import Picture
from omma.report.run import build_report
from omma.viz.image import read_image, save_png

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE, DESK = 375, 1280
# the page is measured in a frame, as a window of a browser without screen is never narrower than 500 pixels
FRAME = """<!doctype html><meta charset="utf-8"><body style="margin:0"><pre id="result" hidden></pre><script>
const frame = document.createElement("iframe");
Object.assign(frame.style, {width: "WIDTHpx", height: "HEIGHTpx", border: 0});
frame.onload = () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  const head = page.querySelector("table.sortable th");
  const plot = page.querySelector('figure.plot[data-x="step"] svg');
  const place = plot?.getBoundingClientRect();
  head?.click();
  plot?.dispatchEvent(new view.MouseEvent("mousemove", {clientX: place.left + place.width / 2}));
  const scrolls = "pre, .scroll, nav > div, svg";
  const outside = [...page.body.querySelectorAll("*")].filter(
    item => !item.closest(scrolls) && item.getBoundingClientRect().right > view.innerWidth + 1);
  document.getElementById("result").textContent = JSON.stringify({
    width: view.innerWidth, scroll: page.documentElement.scrollWidth, sorted: head?.ariaSort,
    outside: outside.map(item => item.outerHTML.slice(0, 120)),
    requests: view.performance.getEntriesByType("resource").map(entry => entry.name),
    tip: plot?.closest("figure").querySelector(".tip")?.textContent,
    sections: page.querySelectorAll("section").length,
  });
};
frame.src = "PAGE";
document.body.append(frame);
</script>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """The page of a run with pictures, and that of a comparison with seeds and warnings."""
    if BROWSER is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    root = tmp_path_factory.mktemp("pages 페이지")
    runs = [fake_run(root, "baseline", terms=("Lwce",)), fake_run(root, "diffbev_default", gain=0.02, wide=1)]
    runs += [
        fake_run(root, f"a run with a long name, seed{s}", gain=0.01 * s, seed=s, wide=2) for s in (0, 1)
    ]
    runs[1].set_status("running", step=900)
    picture = np.random.default_rng(0).integers(0, 256, (240, 960, 3), dtype=np.uint8)
    save_png(runs[0].vis / "sample_0000.png", picture)
    compare([str(run.path) for run in runs], root / "out", picture=Picture((6, 3), 60))
    return {"run": build_report(runs[0], notes=["a note"]), "comparison": root / "out" / "report.html"}


def browse(page: Path, folder: Path, *options: str) -> subprocess.CompletedProcess:
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    words += [f"--user-data-dir={folder / 'profile'}", "--allow-file-access-from-files", *options]
    words += [
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        "--virtual-time-budget=8000",
    ]
    return subprocess.run(
        [BROWSER, *words, page.as_uri()], capture_output=True, text=True, encoding="utf-8", timeout=180
    )


def look_at(page: Path, width: int, folder: Path) -> tuple[dict, str]:
    """What the page measures at that width, and what the console says."""
    frame = frame_of(page, width, 900, folder)
    done = browse(frame, folder, "--dump-dom")
    found = re.search(r'<pre id="result"[^>]*>(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return json.loads(html.unescape(found.group(1))), console


def frame_of(page: Path, width: int, height: int, folder: Path) -> Path:
    frame = folder / "frame.html"
    text = FRAME.replace("WIDTH", str(width)).replace("HEIGHT", str(height)).replace("PAGE", page.as_uri())
    frame.write_text(text, encoding="utf-8")
    return frame


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", ["run", "comparison"])
def test_a_page_works_alone_at_every_width(pages, name, width, tmp_path):
    found, console = look_at(pages[name], width, tmp_path)
    assert console == ""
    assert found["requests"] == []
    assert found["outside"] == []
    assert found["scroll"] <= found["width"] == width
    assert found["sections"] >= 4
    assert found["sorted"] in ("ascending", "descending")


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_plots_can_be_read_off(pages, name, tmp_path):
    found, _ = look_at(pages[name], DESK, tmp_path)
    assert re.match(r"step \d+", found["tip"])


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_is_drawn(pages, width, tmp_path):
    picture = tmp_path / "page.png"
    frame = frame_of(pages["comparison"], width, 2400, tmp_path)
    browse(frame, tmp_path, f"--window-size={max(width, 500)},2400", f"--screenshot={picture}")
    image = read_image(picture)[:, :width]
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100
    blank_rows = (image == image[:, :1]).all((1, 2))
    assert blank_rows.mean() < 0.6


def test_faults_would_be_found(tmp_path):
    """The measure itself: a wide element, a request and a console message."""
    page = tmp_path / "bad.html"
    page.write_text(
        '<body><p style="width:900px">wide</p><img src="http://example.invalid/x.png">'
        "<script>console.error('broken')</script></body>",
        encoding="utf-8",
    )
    if BROWSER is None:
        pytest.skip("no browser")
    found, console = look_at(page, PHONE, tmp_path)
    assert found["scroll"] > PHONE
    assert found["outside"]
    assert found["requests"] == ["http://example.invalid/x.png"]
    assert "broken" in console
