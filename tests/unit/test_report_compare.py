"""Comparison of runs: the statistics, what the facts say, the files and their words."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.fake_runs import CLASSES, fake_run, fingerprint, provenance, write_table
from tests.unit.test_report_page import Reader, all_numbers

from omma.commands.compare import compare, read_names, unique
from omma.core.occupancy_meter import OccupancyMeter
from omma.errors import DataError, UsageError
from omma.report.columns import best_metric, families, main_family
from omma.report.compare_facts import Source, compare_runs, load_source
from omma.report.compare_plots import Picture, select
from omma.report.compare_text import verdicts
from omma.report.html import Shown, table
from omma.report.statistics import mean_deviation, paired_bootstrap, sample_score
from omma.runs.files import write_json_atomic, write_text_atomic
from omma.runs.folder import RunFolder

SMALL = Picture((4, 2), 50)
EVIL = "<b>a|b</b>"


def facts_of(*runs: RunFolder, names: list[str] | None = None) -> dict:
    names = names or [run.name for run in runs]
    return compare_runs([load_source(Source(run, name)) for run, name in zip(runs, names, strict=True)])


def titles(facts: dict) -> str:
    return "\n".join(f"{item['title']}: {item['evidence']}" for item in facts["warnings"])


def rewrite(file: Path, **fields) -> None:
    write_json_atomic(file, json.loads(file.read_text(encoding="utf-8")) | fields)


# statistics


def score_rows(**columns) -> list[dict]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def test_interval_of_two_samples_by_hand() -> None:
    """Differences 0 and 1: means 0, 1/2 and 1 with chances 1/4, 1/2 and 1/4, so 95 % reach from 0 to 1."""
    first = sample_score(score_rows(token=["a", "b"], rmse=[2.0, 3.0]), "rmse")
    second = sample_score(score_rows(token=["a", "b"], rmse=[2.0, 4.0]), "rmse")
    found = paired_bootstrap(first, second)
    assert (found.difference, found.low, found.high, found.samples) == (0.5, 0.0, 1.0, 2)
    assert "mean of rmse" in first.kind


def test_pooled_score_is_computed_from_summed_counts() -> None:
    """Pooled (1 + 30) / (10 + 40) = 0.62; the mean of samples would be 0.425."""
    rows = score_rows(token=["a", "b"], iou=[0.1, 0.75], tp=[1, 30], fp=[4, 10], fn=[5, 0])
    score = sample_score(rows, "iou")
    assert score.of_all() == pytest.approx(0.62)
    assert score.kind == "the IoU pooled over samples and classes"
    other = sample_score([row | {"tp": 0, "fn": row["fn"] + row["tp"]} for row in rows], "iou")
    found = paired_bootstrap(score, other)
    assert found.difference == pytest.approx(-0.62)
    assert (found.low, found.high) == pytest.approx((-0.75, -0.1))


def test_score_by_class_leaves_out_classes_without_ground_truth() -> None:
    counts = {"tp/car": [2, 2], "fp/car": [1, 1], "fn/car": [1, 1], "tp/bus": [0, 0], "fp/bus": [3, 0]}
    rows = score_rows(token=["a", "b"], mIoU=[0.1, 0.2], **counts, **{"fn/bus": [0, 0]})
    score = sample_score(rows, "mIoU")
    assert score.of_all() == pytest.approx(0.5)
    assert "mean over classes" in score.kind


def test_rows_of_the_occupancy_meter_give_its_miou() -> None:
    generator = torch.Generator().manual_seed(0)
    meter = OccupancyMeter(["a", "b", "never"])
    logits = torch.randn((5, 3, 4, 4), generator=generator)
    target = torch.rand((5, 3, 4, 4), generator=generator) > 0.5
    target[:, 2] = False
    visible = torch.rand((5, 1, 4, 4), generator=generator) > 0.2
    meter.update(logits, target, visible, [f"image {index}" for index in range(5)])
    assert sample_score(meter.per_sample(), "mIoU").of_all() == pytest.approx(meter.compute()["mIoU"])


def test_samples_without_a_value_are_left_out_of_both() -> None:
    first = sample_score(score_rows(token=["a", "b", "c"], rmse=[1.0, None, 3.0]), "rmse")
    second = sample_score(score_rows(token=["a", "b", "c"], rmse=[2.0, 9.0, 4.0]), "rmse")
    found = paired_bootstrap(first, second)
    assert (found.difference, found.low, found.high, found.samples) == (1.0, 1.0, 1.0, 2)


def test_the_interval_covers_the_spread_of_the_mean_and_repeats() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    zero = sample_score(score_rows(token=range(400), rmse=[0.0] * 400), "rmse")
    noisy = sample_score(score_rows(token=range(400), rmse=values.tolist()), "rmse")
    found = paired_bootstrap(zero, noisy)
    assert found == paired_bootstrap(zero, noisy)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)


@pytest.mark.parametrize(
    ("columns", "metric"),
    [({"token": ["a"], "iou": [0.5]}, "rmse"), ({"token": ["a"], "rmse": ["x"]}, "rmse"), ({}, "iou")],
)
def test_rows_without_the_metric_have_no_score(columns: dict, metric: str) -> None:
    assert sample_score(score_rows(**columns), metric) is None


def test_mean_and_sample_deviation() -> None:
    assert mean_deviation([1.0, 2.0, 3.0, math.nan]) == (2.0, 1.0, 3)
    assert mean_deviation([4.0]) == (4.0, None, 1)
    assert mean_deviation([])[2] == 0


# columns


def test_families_by_slash_and_by_underscore() -> None:
    columns = ["step_time", "iou", "iou/car", "iou/bus", "iou/ring_0_20m", "IoU_a", "IoU_b_c", "IoU_d", "x_y"]
    assert families(columns) == {
        "iou": {"car": "iou/car", "bus": "iou/bus"},
        "IoU": {"a": "IoU_a", "b_c": "IoU_b_c", "d": "IoU_d"},
    }
    assert main_family(["precision", "IoU"], "mIoU") == "IoU"
    assert main_family([], "mIoU") is None


def test_best_metric_and_its_direction() -> None:
    rows = [{"phase": "val", "step": 1, "rmse": 1.0, "iou": 0.5}]
    assert best_metric({"best": {"metric": "val/rmse"}}, "from-elsewhere", rows) == ("rmse", "min")
    assert best_metric({}, "lss", rows) == ("iou", "max")
    assert best_metric({}, "from-elsewhere", rows) == ("", "max")


# facts


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunFolder]:
    root = tmp_path_factory.mktemp("비교 runs")
    return fake_run(root, "baseline", terms=("Lwce",)), fake_run(root, "diffbev", gain=0.05, variant="paper")


def test_best_average_and_difference(two) -> None:
    facts = facts_of(*two)
    first, second = facts["runs"]
    assert (facts["metric"], facts["mode"], first["best"]["step"]) == ("mIoU", "max", 1400)
    assert set(first["classes"]["IoU"]) == set(CLASSES)
    rows = load_source(Source(two[1], "x"))["rows"]
    last = [row["Ldiff"] for row in rows if row["phase"] == "train"][-100:]
    average = second["averages"]["Ldiff"]
    assert (average["value"], average["records"], average["step"]) == (
        pytest.approx(np.mean(last)),
        100,
        2000,
    )
    assert set(second["averages"]) == {"Lwce", "Ldepth", "Ldiff", "loss"}
    table = {row["metric"]: row for row in facts["table"]}
    assert table["mIoU"]["differences"]["diffbev"] == pytest.approx(0.05)
    assert table["IoU car"]["cells"]["baseline"]["mean"] == first["classes"]["IoU"]["car"]
    assert table["Ldiff_avg"]["differences"]["diffbev"] is None
    assert facts["settings"] == [{"setting": "data.variant", "baseline": None, "diffbev": "paper"}]
    assert facts["warnings"] == []


def test_seeds_are_one_experiment_with_mean_and_deviation(two, tmp_path: Path) -> None:
    more = {"samples": 0, "width": 128}
    seeds = [fake_run(tmp_path, f"wide-seed{s}", gain=0.1 * s, seed=s, **more) for s in range(3)]
    facts = facts_of(two[0], *seeds)
    assert facts["experiments"][1] == {"name": "wide (3 seeds)", "runs": [run.name for run in seeds]}
    best = [run["best"]["value"] for run in facts["runs"][1:]]
    cell = facts["table"][0]["cells"]["wide (3 seeds)"]
    assert (cell["mean"], cell["deviation"], cell["n"]) == pytest.approx(
        (np.mean(best), np.std(best, ddof=1), 3)
    )
    assert "± 0.1000 (3) against 0.2585" in verdicts(facts)[0]["title"]


def test_experiments_of_one_beginning_keep_names_apart(tmp_path: Path) -> None:
    names = [("x-s1", 1, 0), ("x-s2", 2, 0), ("x-s3", 1, 1), ("x-s4", 2, 1)]
    runs = [fake_run(tmp_path, name, seed=s, width=w, steps=100, samples=0) for name, s, w in names]
    assert [group["name"] for group in facts_of(*runs)["experiments"]] == ["x-s1 (2 seeds)", "x-s3 (2 seeds)"]
    assert facts_of(*runs[:2])["experiments"][0]["name"] == "x (2 seeds)"


def test_the_same_run_twice_is_two_experiments(two) -> None:
    facts = facts_of(two[0], two[0], names=["a", "b"])
    assert [group["name"] for group in facts["experiments"]] == ["a", "b"]
    verdict = verdicts(facts)[0]
    assert verdict["kind"] == "note"
    assert verdict["title"].startswith("No clear difference: b and a have the same mIoU (95 % interval")


def test_a_clear_gain_is_said_in_one_sentence(two) -> None:
    facts = facts_of(*two)
    verdict, interval = verdicts(facts)[0], facts["intervals"][0]
    assert interval["is_metric"]
    assert interval["samples"] == 60
    assert 0 < interval["low"] < interval["difference"] < interval["high"]
    assert verdict["kind"] == "ok"
    pattern = (
        r"diffbev is 0\.0\d+ mIoU above baseline \(95 % interval \+0\.\d+ to \+0\.\d+, 60 samples of val\)\."
    )
    assert re.fullmatch(pattern, verdict["title"])
    assert "at step 1400" in verdict["evidence"][0]
    assert "visible cells only" in verdict["evidence"][1]
    assert verdicts(facts_of(two[1], two[0]))[0]["kind"] == "warning"


def test_an_interval_of_another_score_is_said_apart(two, tmp_path: Path) -> None:
    runs = [fake_run(tmp_path, name, gain=gain) for name, gain in (("a", 0.0), ("b", 0.1))]
    for run, tp in zip(runs, (3, 5), strict=True):
        rows = [{"token": f"{index}", "tp": tp, "fp": 4, "fn": index % 3} for index in range(20)]
        write_table(run.eval_dir("val") / "per_sample.csv", rows)
    facts = facts_of(*runs)
    verdict = verdicts(facts)[0]
    assert not facts["intervals"][0]["is_metric"]
    assert verdict["title"] == "b is 0.1000 mIoU above a."
    assert "the IoU pooled over samples and classes differs by +" in verdict["evidence"][0]


def test_without_a_score_of_the_best_metric_the_others_have_intervals(tmp_path: Path) -> None:
    """Two of three metrics have their column; the mean of the third is not the metric."""
    runs = [fake_run(tmp_path, name, samples=0) for name in ("a", "b")]
    for run, gain in zip(runs, (0.0, 0.1), strict=True):
        rows = [{"token": f"{i}", "rouge": 0.1 + i / 100 + gain, "cider": 0.2, "bleu": 0.3} for i in range(9)]
        write_table(run.eval_dir("val") / "per_sample.csv", rows)
        metrics = {"mIoU": 0.5, "rouge": 0.14 + gain, "cider": 0.2, "bleu": 0.4}
        about = {"checkpoint": "best", "samples": 9, "metrics": metrics}
        write_json_atomic(run.eval_dir("val") / "metrics.json", about)
    facts = facts_of(*runs)
    assert [entry["metric"] for entry in facts["intervals"]] == ["rouge", "cider"]
    evidence = " ".join(verdicts(facts)[0]["evidence"])
    assert "On 9 samples of val: rouge +0.1000 (95 % interval +0.1000 to +0.1000)" in evidence
    assert "b is clearly better than a in 1 of 2 of these" in evidence
    assert "No interval" not in evidence


def test_samples_are_paired_by_token(two, tmp_path: Path) -> None:
    run = fake_run(tmp_path, "a")
    file = run.eval_dir("val") / "per_sample.csv"
    header, *lines = file.read_text(encoding="utf-8").splitlines()
    write_text_atomic(file, "\n".join([header, *lines[::-1]]) + "\n")
    assert facts_of(two[0], run)["intervals"][0]["difference"] == pytest.approx(0.0, abs=1e-12)
    write_text_atomic(file, "\n".join([header, *lines[:-1]]) + "\n")
    assert facts_of(two[0], run)["intervals"] == []


# warnings


def test_everything_that_differs_is_a_warning(tmp_path: Path) -> None:
    first, second = fake_run(tmp_path, "a"), fake_run(tmp_path, "b", val_split="test", system="other")
    write_json_atomic(second.path / "data.json", {"train": fingerprint(300, "cd34"), "val": fingerprint(58)})
    write_json_atomic(second.path / "provenance.json", provenance("fedcba9876543210", dirty=True))
    rewrite(second.eval_dir("val") / "metrics.json", setting="all cells", samples=58)
    second.set_status("preempted", step=300)
    warned = titles(facts_of(first, second))
    for text in (
        "b is not finished: preempted, step 300 of 2000",
        "different systems; what they share is compared: a: some-system; b: other",
        "The train data differ: a: 300 samples; b: 300 samples, of other files or annotations",
        "The val data differ: a: 60 samples; b: 58 samples",
        "data.val_split differs: a: val; b: test",
        "The code differs: a: commit 012345678; b: commit fedcba987",
        "changes of the code that are in no commit: b",
        "The setting of the evaluation on val differs",
        "The number of samples of the evaluation on val differs: a: 60; b: 58",
    ):
        assert text in warned


def test_files_that_only_one_run_reads_are_told_from_other_data(tmp_path: Path) -> None:
    first, second = fake_run(tmp_path, "a"), fake_run(tmp_path, "b")
    prints = {"train": fingerprint(300), "val": fingerprint(60, "cd34", 960)}
    write_json_atomic(second.path / "data.json", prints)
    warned = titles(facts_of(first, second))
    assert "The val samples are as many, but of other files" in warned
    assert "a: 900 files; b: 960 files" in warned
    assert "train" not in warned


def test_runs_without_a_validation_are_compared_by_their_losses(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path, name, steps=10, samples=0) for name in "ab"]
    facts = facts_of(*runs)
    assert facts["metric"] == ""
    assert "No run has a validation" in titles(facts)
    assert "share no metric" in verdicts(facts)[0]["title"]
    assert [row["metric"] for row in facts["table"]] == ["Lwce_avg", "Ldepth_avg", "Ldiff_avg", "loss_avg"]


# files


@pytest.fixture(scope="module")
def written(two, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "비교"
    compare([str(run.path) for run in two], out, names=["Baseline", EVIL], picture=SMALL)
    return out


def test_seven_plots_by_default(written: Path) -> None:
    """R17 and R18; raw terms are not drawn."""
    names = {file.name for file in (written / "plots").iterdir()}
    metrics = ("mIoU", "Lwce", "Ldepth", "Ldiff", "loss", "lr", "IoU_per_class")
    assert names == {f"{metric}_comparison.png" for metric in metrics}


def test_summary_has_names_tables_steps_and_checkpoints(written: Path, two) -> None:
    """R19."""
    text = (written / "summary.md").read_text(encoding="utf-8")
    assert "| mIoU (max) | 0.2585 | 1400 |" in text
    assert re.search(r"\| Ldiff_avg \| 0\.\d{6} \| 2000 \|", text)
    assert "| metric | Baseline | \\<b>a\\|b\\</b> |" in text
    assert f"- best, step 1400: `{two[0].path.as_posix()}/checkpoints/best`" in text
    assert "not in Baseline: Ldepth, Ldiff" in text
    assert "+0.0500 |" in text


def test_every_number_of_the_page_is_in_report_json_and_nothing_is_outside(written: Path) -> None:
    page = (written / "report.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    shown = {float(found["value"]) for tag, found in reader.tags if tag == "data"}
    assert len(shown) > 30
    known = all_numbers(json.loads((written / "report.json").read_text(encoding="utf-8")))
    assert not shown - known
    addresses = [value for _, found in reader.tags for key, value in found.items() if key in ("src", "href")]
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    assert "http" not in page
    assert "<b>a" not in page


def test_colours_belong_to_the_run_not_to_the_plot(written: Path) -> None:
    page = (written / "report.html").read_text(encoding="utf-8")
    points = json.loads(re.search(r'id="points">(.*?)</script>', page, re.DOTALL).group(1))
    assert points["Lwce"]["Baseline"]["colour"] == 0
    assert points["Ldiff"][EVIL]["colour"] == 1
    figure = re.search(r'<figure class="plot" data-plot="Ldiff".*?</figure>', page, re.DOTALL).group()
    assert "var(--c1)" in figure
    assert "var(--c0)" not in figure


def test_metrics_can_be_chosen(two) -> None:
    facts = facts_of(*two)
    chosen = select(facts, ["lr", "IoU_per_class", "mIuO"])
    assert (chosen.columns, chosen.families) == (["lr"], ["IoU"])
    assert chosen.unknown == ["mIuO; did you mean mIoU?"]
    by_loss = select({**facts, "metric": "loss"}).columns
    assert sorted(by_loss) == sorted(set(by_loss))
    everything = select(facts, ["all"])
    assert {"Lwce_raw", "step_time", "IoU_car"} <= set(everything.columns)


def test_a_metric_that_no_run_has_is_a_mistake(two, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean mIoU"):
        compare([str(run.path) for run in two], tmp_path / "out", metrics=["mIuO"])
    assert not (tmp_path / "out").exists()


def test_a_run_without_rows_is_left_out_with_a_warning(two, tmp_path: Path, capsys) -> None:
    """R20."""
    empty = RunFolder.create(tmp_path, "empty", config={"system": {"name": "x"}}, command=["omma"])
    runs, names = [str(two[0].path), str(empty.path)], ["A", "B"]
    facts = compare(runs, tmp_path / "out", names=names, metrics=["lr"], picture=SMALL, quiet=False)
    said = capsys.readouterr().out
    assert "metrics.csv: is missing; B is left out" in said
    assert facts["warnings"][0]["title"] == "B is left out"
    write_text_atomic(empty.metrics_file, "step,epoch,phase,loss\n")
    with pytest.raises(DataError, match="none of the runs has rows"):
        compare(runs[1:], tmp_path / "out")


def test_one_run_is_enough(two, tmp_path: Path) -> None:
    facts = compare([str(two[0].path)], tmp_path, metrics=["mIoU"], picture=SMALL)
    assert facts["verdicts"][0]["title"] == "baseline reaches 0.2585 mIoU"
    assert (tmp_path / "report.html").is_file()


# words


@pytest.mark.parametrize(
    "words",
    [
        ["r1", "r2", "--experiment-names", "A", "B b"],
        ["--experiment-names", "A", "B b", "r1", "r2"],
        ["r1", "--experiment-names", "A", "B b", "r2"],
    ],
)
def test_names_of_the_original_flag_end_where_the_runs_begin(words: list[str]) -> None:
    assert read_names(words) == (["r1", "r2"], ["A", "B b"])


@pytest.mark.parametrize(
    "words",
    [["r1", "r2", "--experiment-names", "A"], ["r1", "r2", "--experiment-names"], ["r1", "--nmaes=A"]],
)
def test_another_number_of_names_or_an_unknown_option_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        read_names(words)


def test_names_of_runs_are_told_apart() -> None:
    assert unique(["a", "b", "a"]) == ["a (1)", "b", "a (2)"]


def test_a_number_with_its_own_text_keeps_its_value() -> None:
    shown = table([{"difference": Shown(0.25, "+0.2500")}])
    assert '<data value="0.25">+0.2500</data>' in shown
