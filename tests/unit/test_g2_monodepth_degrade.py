"""Input depth out of true depth: artefacts, patterns, the mixture, and that only the seed counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rgbd_files import scene, write

from omma.errors import ConfigError
from omma.systems.g2_monodepth.baselines import BASELINES, constant_fill, linear_fill, nearest_fill
from omma.systems.g2_monodepth.degrade import (
    GUIDE,
    Degradation,
    add_outliers,
    blur_gaussian,
    draw_holes,
    draw_relocation,
    make_raw,
    only_pattern,
    rectangles,
)
from omma.systems.g2_monodepth.patterns import MIXTURE, draw_keep, parse_pattern

SIZE = (48, 64)
CONSTANT = np.full(SIZE, 0.5, np.float32)
IMAGE = scene(0)[0]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def kept(pattern: str, seed: int = 0, depth: np.ndarray = CONSTANT) -> np.ndarray:
    generator = rng(seed)
    return draw_keep(parse_pattern(pattern).draw(generator), depth, IMAGE, generator) & (depth > 0)


def test_mixture_of_sparsities() -> None:
    """Spec 4.2: two fifths empty, one fifth whole, the rest between."""
    plain = only_pattern("mixture")
    shares = np.array([(make_raw(CONSTANT, IMAGE, plain, rng(seed)) > 0).mean() for seed in range(2000)])
    assert (shares == 0).mean() == pytest.approx(0.4, abs=0.04)
    assert (shares > 0.999).mean() == pytest.approx(0.2, abs=0.04)
    assert ((shares > 0) & (shares < 0.1)).mean() == pytest.approx(0.2, abs=0.04)
    assert ((shares > 0.1) & (shares < 0.999)).mean() == pytest.approx(0.2, abs=0.04)
    assert parse_pattern("mixture") == parse_pattern(MIXTURE)


def test_whole_percentages() -> None:
    numbers = [int(kept("percent", seed).sum()) for seed in range(600)]
    assert {number * 100 // CONSTANT.size for number in numbers} >= set(range(1, 99, 7))
    assert all(number in {CONSTANT.size * p // 100 for p in range(101)} for number in numbers)
    histogram = np.histogram(numbers, 4, (0, CONSTANT.size))[0]
    assert histogram.min() > 110
    holed = np.where(rectangles(SIZE, 3, rng()), 0, CONSTANT)
    assert kept("percent:37", depth=holed).sum() == (holed > 0).sum() * 37 // 100


@pytest.mark.parametrize(
    ("pattern", "low", "high"),
    [
        ("none", 0, 0),
        ("full", 48 * 64, 48 * 64),
        ("uniform:100", 100, 100),
        ("uniform:20~50", 20, 50),
        ("uniform:10%", 240, 380),
        ("uniform:0.1%", 0, 12),
        ("grid:16", 12, 12),
        ("rows:16", 16 * 64, 16 * 64),
        ("sector:25%", 48 * 48, 48 * 48),
        ("bottom:50%", 24 * 64, 24 * 64),
        ("uniform:10%&bottom:50%", 110, 200),
        ("lidar:8", 100, 468),
        ("lidar", 50, 48 * 64 - 1),
        ("sift", 20, 600),
        ("orb", 20, 600),
        ("0.5*uniform:100+0.5*uniform:7", 7, 100),
    ],
)
def test_patterns_keep_what_they_say(pattern: str, low: int, high: int) -> None:
    for seed in range(3):
        assert low <= kept(pattern, seed).sum() <= high
    np.testing.assert_array_equal(kept(pattern, 5), kept(pattern, 5))


def test_bottom_and_sector_take_the_right_side() -> None:
    assert not kept("bottom:25%")[36:].any()
    columns = kept("sector:25%").all(0)
    assert np.abs(np.diff(columns.astype(int))).sum() <= 2


def test_a_blank_picture_has_no_key_points() -> None:
    generator = rng()
    blank = np.zeros((*SIZE, 3), np.uint8)
    keep = draw_keep(parse_pattern("sift").draw(generator), CONSTANT, blank, generator)
    assert keep.sum() == 500


def test_weights() -> None:
    choice = parse_pattern("3*none + 1*full")
    assert choice.weights == (0.75, 0.25)
    counts = [choice.draw(generator)[0].name for generator in map(rng, range(400))]
    assert counts.count("none") / 400 == pytest.approx(0.75, abs=0.07)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("lader:8", "'lader:8' is unknown"),
        ("", "is unknown"),
        ("x*full", "'x' is no weight"),
        ("0*full", "nor all 0"),
        ("uniform:5~2", "empty"),
        ("uniform:10%~200%", "exceeds 100 %"),
        ("uniform:10%~20", "both numbers or none"),
        ("full with rain", "'rain' is unknown"),
        ("noise", "'noise' is unknown"),
        ("full with lidar:8", "'lidar:8' is unknown"),
        ("full with noise:5%", "noise takes no number"),
        ("full with outliers:10", "needs a share"),
    ],
)
def test_patterns_that_cannot_be_read(pattern: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_pattern(pattern)


def test_artefacts_that_a_pattern_names_are_certain() -> None:
    depth = (scene(1)[1] / 10).astype(np.float32)

    def made(pattern: str, seed: int = 0) -> np.ndarray:
        return make_raw(depth, IMAGE, only_pattern(pattern), rng(seed))

    for seed in range(10):
        assert (made("full with noise", seed) > 0).mean() > 0.9  # no holes, but noise may end below 0
        assert (made("full with noise", seed) != depth).any()
        both = made("full with holes and blur", seed)
        assert (both != depth)[both > 0].any()
    assert any((made("full with holes", seed) == 0).any() for seed in range(10))
    assert (made("full with outliers:10%") != depth).mean() == pytest.approx(0.1, abs=0.03)
    np.testing.assert_array_equal(made("full with outliers:0%"), depth)
    spoilt = made("uniform:50%  with  outliers:20% and holes")
    assert 0 < (spoilt > 0).mean() <= 0.55
    assert not made("none with noise").any()
    choice = parse_pattern("0.5*full with noise + 0.5*lidar:8")
    assert [[part.name for part in parts] for parts in choice.patterns] == [["full", "noise"], ["lidar"]]


STYLES = [Degradation(), GUIDE, Degradation(outliers=0.05), Degradation(style="guide", pattern="lidar")]


@pytest.mark.parametrize("settings", STYLES)
def test_only_the_generator_counts(settings: Degradation) -> None:
    depth = (scene(1)[1] / 10).astype(np.float32)
    before = depth.copy()
    for seed in range(20):
        first, second = (make_raw(depth, IMAGE, settings, rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert first.dtype == np.float32
        assert first.shape == depth.shape
        assert np.isfinite(first).all()
        assert 0 <= first.min() <= first.max() <= 1
    np.testing.assert_array_equal(depth, before)
    assert any(
        (make_raw(depth, IMAGE, settings, rng(0)) != make_raw(depth, IMAGE, settings, rng(seed))).any()
        for seed in range(1, 8)
    )


def _changed(**chances: float) -> Callable[[str], np.ndarray]:
    depth = (scene(1)[1] / 10).astype(np.float32)

    def share(style: str) -> np.ndarray:
        settings = Degradation(style=style, pattern="full", **{"noise": 0, "blur": 0, "holes": 0} | chances)
        return np.array([(make_raw(depth, IMAGE, settings, rng(seed)) != depth).mean() for seed in range(30)])

    return share


@pytest.mark.parametrize("style", ["code", "guide"])
@pytest.mark.parametrize("name", ["noise", "blur", "holes"])
def test_each_artefact_by_its_chance(style: str, name: str) -> None:
    assert _changed()(style).max() == 0
    assert _changed(**{name: 1.0})(style).max() > 0.01
    if name != "blur" or style == "guide":  # the reference always blurs a whole map
        half = (_changed(**{name: 0.5})(style) > 0).mean()
        assert 0.15 < half < 0.85
    else:
        assert (_changed(blur=0.5)("code") > 0).all()


def test_sparse_truth_is_not_blurred() -> None:
    sparse = np.where(np.random.default_rng(0).random(SIZE) < 0.05, CONSTANT, 0)
    settings = Degradation(pattern="full", noise=0, blur=1, holes=0)
    np.testing.assert_array_equal(make_raw(sparse, IMAGE, settings, rng()), sparse)


def test_noise_has_the_size_of_its_style() -> None:
    for style, low, high in (("code", 0.01, 0.1), ("guide", 0.005, 0.025)):
        settings = Degradation(style=style, pattern="full", noise=1, blur=0, holes=0)
        spread = [(make_raw(CONSTANT, IMAGE, settings, rng(seed)) - 0.5).std() for seed in range(60)]
        assert max(spread) <= high * 1.1
        assert max(spread) > 0.7 * high
        if style == "guide":
            assert min(spread) >= low * 0.9


def test_gaussian_blur_keeps_what_is_known() -> None:
    holed = np.where(rectangles(SIZE, 4, rng()), 0, CONSTANT).astype(np.float32)
    np.testing.assert_allclose(blur_gaussian(holed, 7), holed, atol=1e-6)


def test_rectangles_have_the_sizes_of_the_guide() -> None:
    for seed in range(20):
        inside = np.argwhere(rectangles((200, 400), 1, rng(seed)))
        height, width = inside.max(0) - inside.min(0) + 1
        assert 10 <= height <= 40
        assert 20 <= width <= 80
        assert len(inside) == height * width


def test_hole_maps(tmp_path: Path) -> None:
    small = np.full((20, 30), 255, np.uint8)
    small[5:15, 5:25] = 0
    library = [write(tmp_path / "holes.png", small)]
    shares = [draw_holes(SIZE, library, rng(seed)).mean() for seed in range(40)]
    assert max(shares) > 0.2
    assert min(shares) < 0.1
    assert [draw_holes(SIZE, [], rng(seed)).shape for seed in range(3)] == [SIZE] * 3
    full = [write(tmp_path / "none.png", np.full((60, 70), 255, np.uint8))]
    assert not draw_holes(SIZE, full, rng()).any()  # what is outside of the map is no hole


def test_outliers_stay_in_range() -> None:
    depth = (scene(1)[1] / 10).astype(np.float32)
    changed = add_outliers(depth, 0.05, rng())
    assert 0.02 < (changed != depth).mean() < 0.08
    low, high = np.percentile(depth, (10, 90))
    assert low <= changed[changed != depth].min() <= changed[changed != depth].max() <= high
    assert not add_outliers(np.zeros_like(depth), 0.5, rng()).any()


def test_relocation_keeps_depth_in_range() -> None:
    factors = [draw_relocation(np.array([[0.9]]), rng(seed)) for seed in range(200)]
    assert 0.8 <= min(factors) < 0.85
    assert 1.05 < max(factors) <= 1 / 0.9


def test_baselines() -> None:
    rows, columns = np.indices(SIZE)
    plane = (1 + 0.01 * rows + 0.02 * columns).astype(np.float32)
    raw = np.where(kept("uniform:200", depth=plane), plane, 0)
    errors = {name: np.abs(fill(raw) - plane).mean() for name, fill in BASELINES.items()}
    assert errors["linear interpolation"] < errors["nearest fill"] < errors["constant"]
    inside = linear_fill(raw)[10:-10, 10:-10]
    np.testing.assert_allclose(inside, plane[10:-10, 10:-10], atol=1e-4)
    for fill in BASELINES.values():
        assert fill(raw).dtype == np.float32
        assert not fill(np.zeros_like(raw)).any()
    np.testing.assert_array_equal(nearest_fill(plane), plane)
    filled = linear_fill(np.where(rectangles(SIZE, 3, rng()), 0, plane).astype(np.float32))
    np.testing.assert_allclose(filled[1:-1, 1:-1], plane[1:-1, 1:-1], atol=1e-4)
    line = np.zeros_like(plane)
    line[5, ::9] = plane[5, ::9]
    np.testing.assert_array_equal(linear_fill(line), nearest_fill(line))
    assert np.unique(constant_fill(raw)).tolist() == [np.median(raw[raw > 0])]
