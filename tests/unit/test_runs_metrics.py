import math
from pathlib import Path

import numpy as np
import pytest

from omma.errors import DataError, OmmaError
from omma.runs.metrics import MetricsLog, read_metrics, series

COLUMNS = ("time_s", "lr", "loss", "iou")


def log_steps(
    path: Path, steps: range, *, resume_step: int | None = None, columns: tuple[str, ...] = COLUMNS
) -> None:
    log = MetricsLog(path, columns, resume_step=resume_step)
    for step in steps:
        log.write(step=step, epoch=step // 4, phase="train", values={"loss": 1.0 / step, "lr": 1e-3})
        if step % 2 == 0:
            log.write(step=step, epoch=step // 4, phase="val", values={"iou": step / 100})
    log.close()


def test_floats_come_back_bit_exact(tmp_path: Path) -> None:
    values = [
        0.1 + 0.2,
        math.pi * 1e-300,
        5e-324,
        1.7976931348623157e308,
        -0.0,
        np.float64(1) / 3,
        np.float32(0.1),
        7,
    ]
    path = tmp_path / "metrics.csv"
    log = MetricsLog(path, ["loss"], resume_step=None)
    for step, value in enumerate(values):
        log.write(step=step, epoch=0, phase="train", values={"loss": value})
    log.close()
    read = [row["loss"] for row in read_metrics(path)]
    assert [value.hex() for value in read] == [float(value).hex() for value in values]


def test_not_a_number_and_infinity_survive(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsLog(path, ["loss"], resume_step=None)
    log.write(step=1, epoch=0, phase="train", values={"loss": math.nan})
    log.write(step=2, epoch=0, phase="train", values={"loss": -math.inf})
    rows = read_metrics(path)
    assert math.isnan(rows[0]["loss"])
    assert rows[1]["loss"] == -math.inf


def test_every_row_is_on_disk_at_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.csv", COLUMNS, resume_step=None)
    log.write(step=1, epoch=0, phase="train", values={"loss": 0.5, "iou": None})
    assert read_metrics(tmp_path / "metrics.csv") == [{"step": 1, "epoch": 0, "phase": "train", "loss": 0.5}]
    log.close()


def test_three_resumes_lose_and_double_nothing(tmp_path: Path) -> None:
    """E8: a run stopped at 9, 7 and 13 and resumed from earlier steps equals a straight run byte for byte."""
    straight, broken = tmp_path / "straight.csv", tmp_path / "broken.csv"
    log_steps(straight, range(1, 17))
    log_steps(broken, range(1, 10))
    log_steps(broken, range(7, 8), resume_step=6)
    log_steps(broken, range(5, 14), resume_step=4)
    log_steps(broken, range(13, 17), resume_step=12)
    assert broken.read_bytes() == straight.read_bytes()


def test_the_header_grows_and_earlier_rows_keep_their_meaning(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log_steps(path, range(1, 5))
    before = read_metrics(path)
    log_steps(path, range(5, 7), resume_step=4, columns=("depth_loss", "loss", "lr", "iou"))
    assert (
        path.read_text(encoding="utf-8").splitlines()[0] == "step,epoch,phase,time_s,lr,loss,iou,depth_loss"
    )
    rows = read_metrics(path)
    assert rows[: len(before)] == before
    assert all("depth_loss" not in row for row in rows)


def test_resume_before_any_checkpoint_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log_steps(path, range(1, 5))
    log_steps(path, range(1, 3), resume_step=0)
    assert series(read_metrics(path), "train", "loss") == ([1, 2], [1.0, 0.5])


def test_without_a_resume_step_all_rows_stay(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log_steps(path, range(1, 5))
    log_steps(path, range(5, 7))
    assert series(read_metrics(path), "train", "loss")[0] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("cut", [1, 4, 12])
def test_a_half_written_last_line_is_left_out(tmp_path: Path, cut: int) -> None:
    """A cut number can look whole (`0.12` of `0.125`), so the line's end decides."""
    path = tmp_path / "metrics.csv"
    log_steps(path, range(1, 4))
    whole = read_metrics(path)
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_metrics(path) == whole[:-1]
    log_steps(path, range(3, 5), resume_step=2)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 2, 3, 4, 4]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log_steps(path, range(1, 4))
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[2] = "rubbish"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"metrics\.csv: line 3"):
        read_metrics(path)


def test_an_unannounced_column_is_a_bug(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.csv", COLUMNS, resume_step=None)
    with pytest.raises(AssertionError, match="surprise"):
        log.write(step=1, epoch=0, phase="train", values={"surprise": 1.0})


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    log = MetricsLog(tmp_path / "metrics.csv", COLUMNS, resume_step=None)
    log._file = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115
    with pytest.raises(OmmaError, match=r"metrics\.csv: the disk"):
        log.write(step=1, epoch=0, phase="train", values={"loss": 1.0})


def test_columns_with_commas_and_hangul(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsLog(path, ['iou/"차, 트럭"'], resume_step=None)
    log.write(step=1, epoch=0, phase="val", values={'iou/"차, 트럭"': 0.5})
    assert series(read_metrics(path), "val", 'iou/"차, 트럭"') == ([1], [0.5])


def test_a_missing_file_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.csv") == []
