"""Directions, sampling and whole sets of views against the reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fill import load_arrays
from numpy.typing import NDArray

from omma.core.panorama import View, panorama_pixels, ring_yaws_deg, sample_panorama, view_rays
from omma.systems.panollava import views as strategies
from omma.systems.panollava.config import ViewsSection
from omma.systems.panollava.views import ViewCutter, grid_pieces, view_centres, view_layout

pytestmark = pytest.mark.parity
CASES = Path(__file__).parent / "panollava"
PANORAMA = load_arrays(CASES / "erp_e2p.npz")["erp_u8"]
SETTINGS = json.loads((CASES / "erp_e2p.keys.json").read_text(encoding="utf-8"))["config"]["cases"]
CENTRES = json.loads((CASES / "views.keys.json").read_text(encoding="utf-8"))["config"]["centers"]
FACES = {"F": (0, 0), "R": (90, 0), "B": (180, 0), "L": (-90, 0), "U": (0, 90), "D": (0, -90)}


def positions(setting: dict) -> NDArray[np.float64]:
    fov = setting["fov"] if isinstance(setting["fov"], list) else [setting["fov"]] * 2
    view = View(setting["yaw"], setting["pitch"], tuple(fov))
    return panorama_pixels(view_rays(view, (setting["h"], setting["w"]), "ends"), PANORAMA.shape[:2])


@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_perspective(number: int) -> None:
    case = load_arrays(CASES / "erp_e2p.npz")
    sampled = sample_panorama(PANORAMA, positions(SETTINGS[number]))
    np.testing.assert_allclose(sampled, case[f"c{number}_exact_f64"], atol=2e-5)
    # the reference samples at whole 32nds of a pixel and rounds
    assert np.abs(sampled - case[f"c{number}_ref_cv2_u8"]).max() <= 1


@pytest.mark.parametrize("number", [4, 5, 8])
def test_positions_in_the_panorama(number: int) -> None:
    case = load_arrays(CASES / "erp_e2p.npz")
    columns, rows = np.moveaxis(positions(SETTINGS[number]), -1, 0)
    around = (columns - case[f"c{number}_coor_x"] + 64) % 128 - 64
    np.testing.assert_allclose(around, 0, atol=1e-5)
    np.testing.assert_allclose(rows, case[f"c{number}_coor_y"], atol=1e-5)


@pytest.mark.parametrize("face", FACES)
def test_cube_faces(face: str) -> None:
    expected = load_arrays(CASES / "erp_e2p.npz")[f"cube_{face}"]
    view = View(*FACES[face], (90, 90))
    sampled = sample_panorama(PANORAMA, panorama_pixels(view_rays(view, (16, 16), "ends"), (64, 128)))
    assert np.abs(sampled - expected).max() <= 1


@pytest.mark.parametrize(
    ("case", "settings", "largest", "mean"),
    [
        ("seed_e2p", {"name": "e2p_reference"}, 2, 0.11),
        ("seed_e2p_fov60_ov25", {"name": "e2p_reference", "fov_deg": 60, "overlap": 0.25}, 2, 0.13),
        ("seed_sliding_window", {"name": "sliding_window"}, 0, 0),
        (
            "seed_sliding_fov70_ov30_hw24x32",
            {"name": "sliding_window", "fov_deg": 70, "overlap": 0.3, "image_size": (24, 32)},
            0,
            0,
        ),
        ("seed_cubemap", {"name": "cubemap"}, 1, 0.1),
        ("seed_resize", {"name": "resize"}, 0, 0),
        ("seed_anyres", {"name": "anyres"}, 0, 0),
    ],
)
def test_views(case: str, settings: dict, largest: float, mean: float) -> None:
    section = ViewsSection(**{"image_size": (32, 32), **settings})
    expected = load_arrays(CASES / "views.npz")[case]
    found = ViewCutter(section)(PANORAMA)
    assert found.shape == expected.shape
    assert len(view_layout(section)) == len(expected)
    apart = np.abs(found.astype(float) - expected)
    assert apart.max() <= largest
    assert apart.mean() <= mean


def test_grid_of_anyres_max() -> None:
    expected = load_arrays(CASES / "views.npz")["seed_anyres_max"]
    pieces = [strategies._resize(piece, (32, 32)) for piece in grid_pieces(PANORAMA, (2, 3))]
    np.testing.assert_array_equal(np.stack(pieces), expected[1:])


def test_anyres_e2p(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "TILE_SCALE", 2.0)
    expected = load_arrays(CASES / "views.npz")["head_anyres_e2p_quarters"] / 4
    found = ViewCutter(ViewsSection(name="anyres_e2p", image_size=(32, 32)))(PANORAMA)
    assert found.shape == expected.shape
    apart = np.abs(found - expected)
    assert apart.max() <= 1.6  # the reference keeps fractions when it shrinks
    assert apart.mean() < 0.3


@pytest.mark.parametrize("name", CENTRES)
def test_centres(name: str) -> None:
    fov, overlap = (float(part) for part in name.split("_"))
    table = CENTRES[name]
    settings = ViewsSection(name="anyres_e2p", fov_deg=fov, overlap=overlap)
    if table["pitch_pm45"]:
        views = view_centres(settings)
        yaws = [view.yaw_deg for view in views[: len(table["closed"])]]
        np.testing.assert_allclose(yaws, table["closed"], atol=1e-9)
        assert sorted({view.pitch_deg for view in views}) == table["pitch_pm45"]
    else:
        with pytest.raises(strategies.ConfigError, match="no views of 100 degrees"):
            view_centres(settings)
    assert len(ring_yaws_deg(fov, overlap)) == table["n_e2p"]
