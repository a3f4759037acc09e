"""How views are named in pictures."""

import pytest
from tests.small_systems import COMMON, SMALL

import omma
from omma.config.yaml import parse_yaml
from omma.core.panorama import View
from omma.systems.panollava.viz import view_name


@pytest.mark.parametrize(
    ("view", "turn_deg", "name"),
    [
        (None, 0.0, "whole"),
        (View(45.0, 0.0, (90, 90)), 0.0, "yaw 45°"),
        (View(-90.0, 30.0, (90, 90)), 0.0, "yaw -90°, pitch 30°"),
        (View(135.0, 0.0, (90, 90)), 90.0, "yaw -135°"),
        (View(180.0, 0.0, (90, 90)), 0.0, "yaw 180°"),
        (View(0.0, 0.0, (90, 90)), -0.2, "yaw 0°"),
    ],
)
def test_a_view_is_named_by_where_it_looks(view, turn_deg, name):
    assert view_name(view, turn_deg) == name


def test_a_prediction_says_where_its_views_look():
    words = [word.split("=", 1) for word in (*SMALL["panollava"].words, *COMMON)]
    settings = {key: parse_yaml(text, key) for key, text in words}
    task = omma.build("panollava/tiny", **settings, **{"data.views.global_view": True})
    batch = task.example_batch(1)
    prompts = {
        f"prompt_{name}": batch[key] for name, key in (("ids", "input_ids"), ("mask", "attention_mask"))
    }
    prediction = task.eval().predict({**batch, **prompts})
    yaws = [f"yaw {yaw}°" for yaw in (0, 45, 90, 135, 180, -135, -90, -45)]
    assert prediction.meta["views"] == ["whole", *yaws]
    assert prediction.draw().shape[1:] == (1200, 3)
