import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from omma.report.html import cell, duration_text, flatten, number_text, table
from omma.report.page import describe_hardware, next_commands
from omma.report.plots import column_groups, file_name
from omma.report.run import build_report
from omma.runs.files import write_json_atomic, write_text_atomic
from omma.runs.folder import RunFolder
from omma.runs.metrics import MetricsLog
from omma.runs.provenance import write_provenance
from omma.viz.image import save_png
from omma.viz.video import save_video

EVIL = "<script>alert('x')</script> & \"차\""


def log_metrics(run: RunFolder) -> None:
    names = [
        "time_s",
        "lr",
        "loss",
        "bce",
        "iou",
        *(f"iou/{name}" for name in ("car", "bus", "ring_0_20m", "</script><b>")),
    ]
    log = MetricsLog(run.metrics_file, names, resume_step=None)
    for step in range(1, 7):
        log.write(
            step=step,
            epoch=0,
            phase="train",
            values={"time_s": step * 1.1, "lr": 1e-3, "loss": 1 / step, "bce": 0.3},
        )
        if step % 2 == 0:
            scores = {name: step / 16 for name in names[4:]}
            log.write(step=step, epoch=0, phase="val", values={"loss": 1.5 / step, **scores})
    log.close()


def write_evaluation(run: RunFolder) -> None:
    folder = run.eval_dir("val")
    metrics = {"iou": 0.375, "iou/ring_0_20m": 0.5, "iou/ring_20_35m": 0.125, "broken": math.nan}
    write_json_atomic(
        folder / "metrics.json", {"checkpoint": "step_000006", "samples": 12, "metrics": metrics}
    )
    write_text_atomic(
        folder / "per_class.csv", f'class,iou\ncar,0.4375\n"{EVIL.replace(chr(34), chr(34) * 2)}",0.3125\n'
    )
    rows = "".join(f"{index},scene_{index},{0.01 + index / 37}\n" for index in range(12))
    write_text_atomic(folder / "per_sample.csv", f"index,token,iou\n{rows}")
    study = {
        "title": "IoU without cameras",
        "x_label": "cameras",
        "y_label": "IoU",
        "x": [0, 1],
        "series": {"a": [0.375, 0.25]},
    }
    write_json_atomic(folder / "studies" / "cameras.json", study)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run with everything that a report can show, in a folder with Hangul and spaces."""
    root = tmp_path_factory.mktemp("보고서 시험")
    config = {"system": {"name": "lss"}, "data": {"root": EVIL}, "optim": {"lr": 1e-05}}
    run = RunFolder.create(root, "첫 번째 run", config=config, command=["omma", "train", EVIL])
    write_provenance(run)
    log_metrics(run)
    write_evaluation(run)
    write_json_atomic(run.path / "data.json", {"train": {"samples": 321, "hash": "ab12"}})
    write_json_atomic(
        run.diagnose / "findings.json", [{"severity": "warning", "title": EVIL, "evidence": "e", "fix": "f"}]
    )
    write_text_atomic(run.log_file, f"step 6 {EVIL}\n")
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    for index in range(14):
        save_png(run.vis / f"sample_{index:04d}.png", picture)
    save_video(run.vis / "scene.gif", [picture, picture[::-1]], fps=2)
    run.set_status(
        "finished", step=6, total=6, recipe="lss/demo", best={"metric": "val/iou", "value": 0.375, "step": 6}
    )
    build_report(run, notes=[EVIL])
    return run


@pytest.fixture(scope="module")
def page(run: RunFolder) -> str:
    return (run.path / "report.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects tags, shown numbers and addresses; checks that tags close in order."""

    VOID = frozenset({"meta", "img", "path", "use", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def reader(page: str) -> Reader:
    found = Reader()
    found.feed(page)
    assert found.open == []
    return found


def all_numbers(value: object) -> set[float]:
    if isinstance(value, dict):
        return set().union(*(all_numbers(item) for item in value.values())) if value else set()
    if isinstance(value, list):
        return set().union(*map(all_numbers, value)) if value else set()
    return {float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else set()


def test_every_shown_number_is_in_report_json(run: RunFolder, reader: Reader) -> None:
    """E16."""
    known = all_numbers(json.loads((run.path / "report.json").read_text(encoding="utf-8")))
    shown = [float(attributes["value"]) for tag, attributes in reader.tags if tag == "data"]
    assert len(shown) > 40
    assert not set(shown) - known
    assert {0.375, 0.4375, 321.0, 6.0} <= set(shown)


def test_every_point_of_the_curves_is_in_report_json(run: RunFolder, page: str) -> None:
    embedded = json.loads(re.search(r'id="points">(.*?)</script>', page, re.DOTALL).group(1))
    facts = json.loads((run.path / "report.json").read_text(encoding="utf-8"))
    for column, phases in facts["curves"].items():
        for phase, points in phases.items():
            assert embedded[column][phase] == {"x": points["steps"], "y": points["values"]}
    assert embedded["val/cameras"]["a"]["y"] == [0.375, 0.25]


def test_the_page_refers_to_nothing_outside(reader: Reader, page: str) -> None:
    """E16: no address but fragments, files of the run folder and embedded data."""
    assert "http" not in page
    assert "@import" not in page
    assert "url(" not in page.replace("url(#", "")
    addresses = [
        value for _, attributes in reader.tags for key, value in attributes.items() if key in ("src", "href")
    ]
    assert addresses
    assert all(address.startswith(("#", "data:image/", "vis/")) for address in addresses)
    assert {tag for tag, _ in reader.tags} & {"link", "iframe", "object"} == set()


def test_text_is_escaped_everywhere(page: str) -> None:
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert") >= 5
    assert page.count("<script") == 2


def test_pictures_are_embedded_at_most_twelve_animation_first(reader: Reader) -> None:
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert len(images) == 12
    assert images[0]["alt"] == "scene"
    assert images[0]["src"].startswith("data:image/gif;base64,")
    assert all(image["loading"] == "lazy" for image in images)
    assert (images[1]["width"], images[1]["height"]) == ("90", "60")


def test_plots_are_named_after_their_column(run: RunFolder) -> None:
    facts = json.loads((run.path / "report.json").read_text(encoding="utf-8"))
    on_disk = sorted(f"plots/{file.name}" for file in (run.path / "plots").iterdir())
    assert on_disk == facts["plots"]
    losses_and_best = {"plots/loss_comparison.png", "plots/bce_comparison.png", "plots/iou_comparison.png"}
    assert losses_and_best <= set(on_disk)
    assert "plots/lr_comparison.png" not in on_disk
    assert "plots/val_cameras_comparison.png" in on_disk


def test_every_section_is_there_and_linked(reader: Reader) -> None:
    sections = [attributes["id"] for tag, attributes in reader.tags if tag == "section"]
    links = [
        attributes["href"]
        for tag, attributes in reader.tags
        if tag == "a" and attributes["href"].startswith("#")
    ]
    assert links == [f"#{anchor}" for anchor in sections]
    assert len(sections) == 9


def test_ids_are_unique(reader: Reader) -> None:
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_page_is_small_and_names_the_run(run: RunFolder, page: str) -> None:
    assert (run.path / "report.html").stat().st_size < 2_000_000
    assert "<title>첫 번째 run – omma report</title>" in page
    assert 'lang="en"' in page
    assert "prefers-color-scheme: dark" in page


def test_a_run_without_anything_yet_gets_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is enough where runs are looked for; elsewhere commands give the path."""
    run = RunFolder.create(tmp_path, "new", config={"system": {"name": "lss"}}, command=["omma"])
    page = build_report(run).read_text(encoding="utf-8")
    assert f"omma resume {run.path.as_posix()}" in page
    monkeypatch.setenv("OMMA_RUNS", str(tmp_path))
    assert "omma resume new" in build_report(run).read_text(encoding="utf-8")
    assert 'id="evaluation"' not in page


def test_an_error_is_shown(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "new", config={"system": {"name": "lss"}}, command=["omma"])
    run.set_status("failed", error="the loss is not finite at step 412")
    assert "the loss is not finite at step 412" in build_report(run).read_text(encoding="utf-8")


def test_a_second_report_replaces_the_first(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "new", config={"system": {"name": "lss"}}, command=["omma"])
    first = build_report(run, notes=["first"])
    assert build_report(run, notes=["second"]) == first
    assert "second" in first.read_text(encoding="utf-8")
    assert "first" not in json.loads((run.path / "report.json").read_text(encoding="utf-8"))["notes"]


@pytest.mark.parametrize(
    ("column", "file"),
    [
        ("loss", "loss_comparison.png"),
        ("iou/car", "iou_car_comparison.png"),
        ('a:<>"|?*\\b c', "a________b_c_comparison.png"),
    ],
)
def test_file_names_are_legal(column: str, file: str) -> None:
    assert file_name(column) == file


def test_columns_are_grouped() -> None:
    val, train = {"val": {}}, {"train": {}}
    parts = {f"iou/{name}": val for name in "abcd"}
    groups = column_groups({"lr": train, "loss": {**train, **val}, "iou": val, "pq/a": val, **parts})
    assert groups == {"loss": ["loss"], "rest": ["lr"], "validation": ["iou", "pq/a"], "iou/": list(parts)}
    classes = {f"IoU_{number}": val for number in range(8)}
    few = {f"delta_{number}": val for number in range(3)}
    assert column_groups({**few, **classes})["IoU_/"] == list(classes)
    assert column_groups({**few, **classes})["validation"] == list(few)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (20000, "20\u202f000"),
        (7, "7"),
        (0.36342, "0.3634"),
        (0.0, "0"),
        (1.2345e-5, "1.234e-05"),
        (123456.0, "1.235e+05"),
    ],
)
def test_number_text(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.21, "8.2 s"), (750, "12 min 30 s"), (11_100, "3 h 05 min"), (200_000, "2 d 7 h")],
)
def test_duration_text(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_cells_show_missing_values_as_a_dash() -> None:
    assert ">–<" in cell(None)
    assert ">–<" in cell(math.nan)
    assert cell(True) == "yes"


def test_only_shares_are_shaded() -> None:
    shaded = table([{"iou": 0.5, "depth": 3.5, "n": 1}, {"iou": None, "depth": 0.5, "n": 0}], bars=True)
    assert shaded.count("--share") == 1
    assert "--share:50.0%" in shaded


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == {"a.b": 1, "d": "1, 2"}


def test_hardware_in_words() -> None:
    gpus = [{"name": "H200"}, {"name": "H200"}]
    assert describe_hardware({"gpus": gpus, "cpu": "EPYC", "cores": 4}) == "2 × H200"
    assert describe_hardware({"gpus": [], "cpu": "EPYC", "cores": 4}) == "EPYC, 4 cores, no GPU"
    assert describe_hardware({}) == ""


def test_only_an_unfinished_run_is_told_to_resume() -> None:
    stopped = next_commands({"reference": "a b", "state": "stopped (no heartbeat)"})
    finished = next_commands({"reference": "a b", "state": "finished"})
    assert stopped[0].startswith("omma resume 'a b'")
    assert len(finished) == len(stopped) - 1


def test_a_study_over_names_is_drawn_as_bars_with_these_names(run: RunFolder) -> None:
    study = {
        "title": "One camera missing",
        "x_label": "camera",
        "y_label": "IoU",
        "x": ["none", "CAM_FRONT"],
        "series": {"iou": [0.4, 0.3]},
    }
    write_json_atomic(run.eval_dir("val") / "studies" / "drop_camera.json", study)
    page = build_report(run).read_text(encoding="utf-8")
    assert ">CAM_FRONT</text>" in page


def test_studies_with_several_series_over_names_and_with_rows(run: RunFolder) -> None:
    over_names = {"title": "Error", "x_label": "input", "y_label": "RMSE", "x": ["none", "lidar:8"]}
    dots = over_names | {"series": {"network": [0.4, 0.3], "nearest fill": [None, 0.2]}}
    rows = [{"input": "none", "rmse": 0.4, "oe": None, "hidden": 1.5}]
    table = {"title": "All scores", "shown": ["input", "rmse", "oe"], "rows": rows}
    folder = run.eval_dir("val") / "studies"
    for name, study in {"dots": dots, "lines": dots | {"ordered": True}, "rows": table}.items():
        write_json_atomic(folder / f"{name}.json", study)
    page = build_report(run).read_text(encoding="utf-8")
    for name in ("dots", "lines", "rows"):
        (folder / f"{name}.json").unlink()
    assert page.count(">lidar:8</text>") == 2
    assert page.count(">nearest fill</text>") == 2
    assert "<summary>All scores</summary>" in page
    assert '<data value="0.4">0.4</data>' in page
    assert "hidden" not in page.partition("<summary>All scores</summary>")[2].partition("</table>")[0]
    assert {"val_dots_comparison.png", "val_lines_comparison.png"} <= {
        p.name for p in (run.path / "plots").iterdir()
    }
