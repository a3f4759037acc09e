"""Python config files read as data, and what they mean for omma train."""

from __future__ import annotations

from pathlib import Path

import pytest

from omma.config.literals import Unreadable, read_assignments
from omma.errors import ConfigError
from omma.systems.diffbev.original_config import read_config as read_diffbev
from omma.systems.sdpose.original_config import read_config as read_sdpose


def _file(folder: Path, text: str, name: str = "설정 a.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_plain_values_and_earlier_names(tmp_path):
    text = """
\"\"\"About.\"\"\"
import os
name = '한 글'
place = f'./runs/{name}/{1 + 1}'
size: tuple = (-1, 2.5e-3, None, True)
nested = dict(a=[1, dict(b=size[1])], c={'d': 4 * 2})
picked = nested['c']['d']
again = picked
again = 5
"""
    values = read_assignments(_file(tmp_path, text))
    assert values == {
        "name": "한 글",
        "place": "./runs/한 글/2",
        "size": (-1, 2.5e-3, None, True),
        "nested": {"a": [1, {"b": 2.5e-3}], "c": {"d": 8}},
        "picked": 8,
        "again": 5,
    }


def test_what_would_have_to_be_run_is_not(tmp_path):
    """A call is a value that is not known; its side effect does not happen."""
    target = tmp_path / "made"
    text = f"""
root = open(r'{target}', 'w').name
data = dict(a=1, b={{{{_base_.info}}}}, c=[root, 2])
"""
    values = read_assignments(_file(tmp_path, text))
    assert not target.exists()
    assert isinstance(values["root"], Unreadable)
    assert values["root"].line == 2
    assert values["data"]["a"] == 1
    assert isinstance(values["data"]["b"], Unreadable)
    assert isinstance(values["data"]["c"][0], Unreadable)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1\nfor i in range(3):\n    a = i", "line 2: `for i in range(3):` is not read"),
        ("data['a'] = 2", "line 1"),
        ("print('hello')", "`print('hello')` is not read"),
        ("a = (", "line 1: cannot be read as Python"),
        ("_base_ = ['./gone.py']", "_base_ names ./gone.py"),
        ("_base_ = '설정 a.py'", "leads back to itself"),
    ],
)
def test_a_file_that_does_more_than_assign_is_refused(text, said, tmp_path):
    with pytest.raises(ConfigError) as error:
        read_assignments(_file(tmp_path, text))
    assert said in str(error.value)


def test_bases_are_read_first(tmp_path):
    _file(tmp_path, "data = dict(a=1, b=dict(c=2))\nkept = 3\nother = dict(x=1)", "base/one.py")
    text = "_base_ = ['base/one.py']\ndata = dict(b=dict(d=4))\nother = dict(_delete_=True, y=2)"
    values = read_assignments(_file(tmp_path, text))
    assert values == {"data": {"a": 1, "b": {"c": 2, "d": 4}}, "kept": 3, "other": {"y": 2}}


def test_names_that_are_not_read_are_listed(tmp_path, capsys):
    text = "total_epochs = 3\nmodel = dict(neck=3)\ntrain_pipeline = [dict(type='X')]\nworkflow = []"
    _, words = read_sdpose(_file(tmp_path, text))
    assert words == ["--total-epochs", "3"]
    said = capsys.readouterr().out
    assert "not read, the recipe's hold: train_pipeline, model.neck" in said
    assert "workflow" not in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("total_epoch = 3", "total_epoch: no such setting; did you mean total_epochs?"),
        ("data = dict(sample_per_gpu=3)", "did you mean data.samples_per_gpu?"),
        ("import os\ndata_root = os.environ['X']", "line 2: data_root = os.environ['X'] is not read"),
        ("runner = make(max_epochs=3)", "line 1: runner = make(max_epochs=3) is not read"),
        ("optimizer = dict(type='Lion')", "optimizer.type Lion: not known here"),
        ("lr_config = dict(policy='Exp')", "lr_config.policy Exp: not known here"),
        ("optimizer_config = dict(grad_clip=3)", "optimizer_config.grad_clip 3"),
        ("loss_vis_token_dist = dict(type='MaskedTokenDistilLoss', ratio=1)", ".ratio: no such setting"),
        ("mask_ratio = 0.5\nloss_vis_token_dist = dict(type='M', mask_ratio=0.3)", "mask_ratio = 0.5, but"),
    ],
)
def test_mistakes_in_a_config_are_named(text, said, tmp_path):
    with pytest.raises(ConfigError) as error:
        read_sdpose(_file(tmp_path, text))
    assert said in str(error.value)


def test_people_of_a_config(tmp_path):
    data = "data_cfg = dict(image_size=[192, 256], use_gt_bbox={}, bbox_file='b.json', vis_thr=0.2)"
    assert read_sdpose(_file(tmp_path, data.format(True)))[1] == [
        "data.image_size=[256, 192]", "--use-gt-bbox", "true", "--vis-thr", "0.2",
    ]  # fmt: skip
    assert "--bbox-file" in read_sdpose(_file(tmp_path, data.format(False)))[1]


def test_recipe_of_a_diffbev_config(tmp_path):
    """By the line `recipe`, else by the file's name; a short run has a short warm-up."""
    short = "runner = dict(type='IterBasedRunner', max_iters=300)"
    recipe, words = read_diffbev(_file(tmp_path, short, "lss_swin_nuscenes_smoke.py"))
    assert (recipe, words) == ("diffbev/baseline_lss_swin", ["schedule.warmup=15", "--max-iters", "300"])
    assert read_diffbev(_file(tmp_path, "", "diffbev_lss.py"))[0] == "diffbev/diffbev_lss_swin"
    assert read_diffbev(_file(tmp_path, "recipe = 'diffbev/improved'", "x.py"))[0] == "diffbev/improved"
    with pytest.raises(ConfigError, match="which recipe is it"):
        read_diffbev(_file(tmp_path, "", "x.py"))
    given = f"{short}\nlr_config = dict(policy='poly', power=1.0, min_lr=0, warmup='linear', warmup_iters=9)"
    _, words = read_diffbev(_file(tmp_path, given, "lss_swin.py"))
    assert words == ["--max-iters", "300", "schedule.name=poly", "schedule.power=1.0", "schedule.warmup=9"]
