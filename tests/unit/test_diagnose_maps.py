"""Sums over label maps, and the rules on them, at samples whose answer is plain."""

import numpy as np
import pytest

from omma.core.symmetry import SYMMETRIES, symmetries
from omma.engine.diagnosis import choose
from omma.engine.distributions import MapCounts, Truth, label_map
from omma.engine.map_checks import LABEL_RULES, MODEL_RULES, apply, nothing_ignored

NAMES = ("road", "car", "walker")


def _truth(seed: int, shape=(12, 16)) -> Truth:
    """A road on one side, cars on it, and a corner that nobody sees."""
    rng = np.random.default_rng(seed)
    occupied = np.zeros((3, *shape), bool)
    occupied[0, :, : rng.integers(6, 10)] = True
    occupied[1, rng.integers(0, 6) :, 2:4] = True
    occupied[2, 0, rng.integers(10, 15)] = True
    visible = np.ones(shape, bool)
    visible[-3:, -3:] = False
    return Truth(occupied, visible)


def _count(predict, truths) -> MapCounts:
    counts = MapCounts(NAMES)
    for number, truth in enumerate(truths):
        counts.add_truth(truth)
        counts.add_prediction(str(number), np.asarray(predict(truth), np.float32), truth)
    return counts


def _perfect(truth: Truth) -> np.ndarray:
    return np.where(truth.occupied, 6.0, -6.0)


@pytest.fixture
def truths() -> list[Truth]:
    return [_truth(seed) for seed in range(8)]


def _titles(counts: MapCounts) -> list[str]:
    return [finding.title for finding in apply((*LABEL_RULES, *MODEL_RULES), counts, "r")]


def test_label_map_takes_the_first_set_class_and_background_elsewhere():
    scores = np.array([[[1.0, -1, 2]], [[3.0, -2, 2]]])
    assert label_map(scores).tolist() == [[1, 2, 0]]
    assert label_map(scores > 0).tolist() == [[0, 2, 0]]


def test_a_perfect_predictor_scores_one_and_raises_nothing(truths):
    counts = _count(_perfect, truths)
    assert counts.mean_iou() == 1.0
    assert counts.accuracy == 1.0
    assert _titles(counts) == []


def test_cells_that_are_not_visible_count_nowhere(truths):
    def wrong_where_unseen(truth):
        return np.where(truth.visible, _perfect(truth), 9.0)

    counts = _count(wrong_where_unseen, truths)
    assert counts.mean_iou() == 1.0
    assert counts.ignored_share == pytest.approx(9 / 192)
    assert counts.found_map.sum() == counts.truth_map.sum() == counts.visible == 8 * 183


def test_counts_by_class_of_a_sample_by_hand():
    occupied = np.zeros((2, 2, 3), bool)
    occupied[0, 0] = True
    occupied[1, 0, 0] = True
    truth = Truth(occupied, np.array([[True, True, False], [True, True, True]]), foreign=2)
    counts = MapCounts(("a", "b"))
    counts.add_truth(truth)
    counts.add_prediction("t", np.full((2, 2, 3), -1.0, np.float32), truth)
    assert counts.truth.tolist() == [2, 1]
    assert (counts.several, counts.foreign, counts.visible, counts.cells) == (1, 2, 5, 6)
    assert counts.truth_map.tolist() == [2, 0, 3]
    assert counts.found_map.tolist() == [0, 0, 5]
    assert counts.accuracy == pytest.approx(3 / 5)
    assert counts.class_iou().tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("logit", "title"), [((9, -9, -9), "collapsed prediction: road"), ((-9, -9, -9), "collapsed prediction")]
)
def test_a_constant_predictor_is_collapsed(truths, logit, title):
    """R24."""
    counts = _count(lambda t: np.broadcast_to(np.reshape(logit, (3, 1, 1)), t.occupied.shape), truths)
    assert _titles(counts)[0].startswith(title)


def test_collapse_is_judged_by_the_label_map_at_the_bounds_of_the_spec():
    """More than 95 % of the cells, unless the labels have 90 % or more of it."""

    def share_of_first(truth_share, found_share):
        counts = MapCounts(("a", "b"))
        occupied = np.zeros((2, 10, 100), bool)
        occupied[0].flat[: int(1000 * truth_share)] = True
        occupied[1] = ~occupied[0]
        found = np.zeros((2, 10, 100), bool)
        found[0].flat[: int(1000 * found_share)] = True
        found[1] = ~found[0]
        truth = Truth(occupied, np.ones((10, 100), bool))
        counts.add_truth(truth)
        counts.add_prediction("t", np.where(found, 1.0, -1.0).astype(np.float32), truth)
        return [title for title in _titles(counts) if "collapsed" in title]

    assert share_of_first(0.89, 0.951)
    assert not share_of_first(0.90, 0.951)
    assert not share_of_first(0.89, 0.95)


def test_the_same_map_for_all_samples_is_a_collapse(truths):
    answer = _perfect(truths[0])
    assert _titles(_count(lambda _: answer, truths)) == [
        "collapsed prediction: the same map for every sample"
    ]


@pytest.mark.parametrize("name", list(SYMMETRIES)[1:])
def test_turned_predictions_are_named(name):
    truths = [_truth(seed, (16, 16)) for seed in range(6)]
    undo = {"turned by 90 degrees": "turned by 270 degrees", "turned by 270 degrees": "turned by 90 degrees"}
    counts = _count(lambda t: SYMMETRIES[undo.get(name, name)](_perfect(t)), truths)
    assert _titles(counts)[0] == f"labels or images are mirrored: predictions fit only when {name}"


def test_symmetries_of_a_rectangle_keep_its_shape():
    names = symmetries((2, 3))
    assert len(names) == 4
    array = np.arange(12).reshape(2, 2, 3)
    assert {SYMMETRIES[name](array).shape for name in names} == {(2, 2, 3)}
    assert len({SYMMETRIES[name](np.arange(9).reshape(3, 3)).tobytes() for name in symmetries((3, 3))}) == 8


def test_noise_is_not_called_mirrored(truths):
    rng = np.random.default_rng(0)
    counts = _count(lambda t: rng.normal(size=t.occupied.shape), truths)
    assert not any("mirrored" in title for title in _titles(counts))


def test_probabilities_where_logits_are_expected(truths):
    counts = _count(lambda t: np.where(t.occupied, 0.9, 0.1), truths)
    assert _titles(counts)[0].startswith("wrong metric domain")


def test_not_finite_outputs_come_first(truths):
    assert _titles(_count(lambda t: np.full(t.occupied.shape, np.nan), truths))[0].endswith("not finite")


def test_labels_out_of_range_ignored_or_empty(truths):
    def title(truth):
        counts = MapCounts(NAMES)
        counts.add_truth(truth)
        return apply(LABEL_RULES, counts, "r")[0]

    first = truths[0]
    assert title(Truth(first.occupied, first.visible, foreign=1)).title == "labels are out of range"
    assert title(Truth(first.occupied, ~np.ones_like(first.visible))).severity == "error"
    assert title(Truth(np.zeros_like(first.occupied), first.visible)).title == "the labels are empty"
    assert title(Truth(first.occupied, first.visible, unseen=10)).title.startswith("labels and calibration")
    counts = MapCounts(NAMES)
    counts.add_truth(Truth(first.occupied, np.ones_like(first.visible), unseen=2))
    assert nothing_ignored(counts, "r").severity == "warning"
    assert apply(LABEL_RULES, counts, "r") == []


def test_a_class_that_is_never_hit_and_one_without_truth(truths):
    def blind(truth):
        return np.where(np.array([True, True, False])[:, None, None], _perfect(truth), -9.0)

    assert _titles(_count(blind, truths)) == ["1 of 3 classes have IoU 0"]
    for truth in truths:
        truth.occupied[2] = False
    assert _titles(_count(_perfect, truths)) == ["1 of 3 classes are in none of these labels"]


def test_every_finding_names_a_command(truths):
    counts = _count(lambda t: np.full(t.occupied.shape, -9.0), truths)
    counts.foreign = 1
    for finding in apply((*LABEL_RULES, *MODEL_RULES), counts, "my-run"):
        assert "`omma " in finding.fix
        assert "my-run" in finding.fix


def test_choice_of_samples_is_drawn_once_from_a_seed():
    assert choose(5, 50, 42) == [0, 1, 2, 3, 4]
    assert choose(1000, 50, 42) == choose(1000, 50, 42) != choose(1000, 50, 43)
    assert len(set(choose(1000, 50, 42))) == 50
