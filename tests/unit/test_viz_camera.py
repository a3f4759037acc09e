import numpy as np
import pytest

from omma.viz.bev import PREDICTION
from omma.viz.camera import BOX_EDGES, FRONT_FACE, CameraView, cell_corners, draw_boxes, draw_ground_cells

K = np.array([[300.0, 0.0, 240.0], [0.0, 320.0, 112.0], [0.0, 0.0, 1.0]])
BITS = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)])
RANGES = {"x_range_m": (-50.0, 50.0), "y_range_m": (-50.0, 50.0)}


def cam_from_ego(yaw_deg: float, height_m: float = 1.5) -> np.ndarray:
    """A level camera above the origin that looks along `yaw_deg` (counter-clockwise from ahead)."""
    cosine, sine = np.cos(np.deg2rad(yaw_deg)), np.sin(np.deg2rad(yaw_deg))
    ego_R_cam = np.array([[sine, 0, cosine], [-cosine, 0, sine], [0, -1, 0]])
    ego_T_cam = np.eye(4)
    ego_T_cam[:3, :3] = ego_R_cam
    ego_T_cam[2, 3] = height_m
    return np.linalg.inv(ego_T_cam)


def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> np.ndarray:
    return np.array(low) + BITS * (np.array(high) - np.array(low))


FRONT = CameraView(K, cam_from_ego(0))


def test_a_known_point_lands_on_its_pixel() -> None:
    """10 m ahead, 2 m left, on the ground: u = 240 - 300 * 2 / 10, v = 112 + 320 * 1.5 / 10."""
    assert FRONT.pixels([10.0, 2.0, 0.0]) == pytest.approx([180.0, 160.0])


def test_the_image_augmentation_is_applied_after_the_camera() -> None:
    halved_and_cut = np.array([[0.5, 0, -10], [0, 0.5, -20], [0, 0, 1]])
    view = CameraView(K, cam_from_ego(0), halved_and_cut)
    assert view.pixels([10.0, 2.0, 0.0]) == pytest.approx([80.0, 60.0])


def test_points_behind_have_no_pixel() -> None:
    assert np.isnan(FRONT.pixels([-10.0, 2.0, 0.0])).all()


def lit(drawn: np.ndarray) -> np.ndarray:
    return (drawn > 0).any(axis=-1)


def test_box_corners_are_drawn_at_their_pixels() -> None:
    corners = box((10, -1, 0), (14, 1, 1.2))
    drawn = draw_boxes(np.zeros((224, 480, 3), np.uint8), corners[None], FRONT, thickness=1)
    pixels = FRONT.pixels(corners)
    for column, row in pixels.round().astype(int):
        assert lit(drawn)[row - 1 : row + 2, column - 1 : column + 2].any()
    rows, columns = np.nonzero(lit(drawn))
    assert columns.min() == pytest.approx(pixels[:, 0].min(), abs=1.5)
    assert columns.max() == pytest.approx(pixels[:, 0].max(), abs=1.5)
    assert rows.min() == pytest.approx(pixels[:, 1].min(), abs=1.5)
    assert rows.max() == pytest.approx(pixels[:, 1].max(), abs=1.5)


def test_edges_join_corners_that_differ_in_one_axis() -> None:
    assert len(BOX_EDGES) == 12
    assert all(bin(a ^ b).count("1") == 1 for a, b in BOX_EDGES)
    assert {index >> 2 for index in FRONT_FACE} == {1}


def test_the_front_face_is_tinted() -> None:
    corners = box((10, -2, 0), (14, 2, 3))
    drawn = draw_boxes(
        np.zeros((224, 480, 3), np.uint8), corners[None], FRONT, colours=[(200, 100, 0)], thickness=1
    )
    column, row = FRONT.pixels([14.0, 1.0, 2.0]).round().astype(int)
    assert drawn[row, column] == pytest.approx([50, 25, 0], abs=1)


def test_a_box_behind_the_camera_is_not_drawn() -> None:
    drawn = draw_boxes(np.zeros((224, 480, 3), np.uint8), box((-14, -1, 0), (-10, 1, 2))[None], FRONT)
    assert not lit(drawn).any()


def test_a_box_that_reaches_behind_the_camera_stays_on_its_own_side() -> None:
    """A long box on the left, from 5 m behind to 20 m ahead: nothing may be mirrored to the right."""
    corners = box((-5, 2, 0), (20, 4, 1.2))
    drawn = draw_boxes(np.zeros((224, 480, 3), np.uint8), corners[None], FRONT, thickness=1)
    rows, columns = np.nonzero(lit(drawn))
    assert columns.min() == 0
    assert columns.max() <= 240 - 300 * 2 / 20 + 2
    assert rows.min() >= 112
    ahead = draw_boxes(np.zeros((224, 480, 3), np.uint8), box((3, 2, 0), (20, 4, 1.2))[None], FRONT)
    far = FRONT.pixels([20.0, 2.0, 0.0]).round().astype(int)
    assert lit(drawn)[far[1], far[0]]
    assert lit(ahead)[far[1], far[0]]


@pytest.mark.parametrize("yaw_deg", [0, 55, -55, 110, 180, -110])
def test_each_cell_is_filled_around_its_projected_centre(yaw_deg: float) -> None:
    view = CameraView(K, cam_from_ego(yaw_deg))
    heading = np.array([np.cos(np.deg2rad(yaw_deg)), np.sin(np.deg2rad(yaw_deg))])
    i, j = ((heading * 9 + 50) * 2).astype(int)
    occupied = np.zeros((200, 200), bool)
    occupied[i, j] = True
    drawn = draw_ground_cells(np.zeros((224, 480, 3), np.uint8), occupied, view, **RANGES, opacity=0.5)
    centre = [-50 + (i + 0.5) * 0.5, -50 + (j + 0.5) * 0.5, 0.0]
    rows, columns = np.nonzero(lit(drawn))
    assert [columns.mean(), rows.mean()] == pytest.approx(view.pixels(centre), abs=1.0)
    assert drawn.reshape(-1, 3).max(axis=0) == pytest.approx(np.array(PREDICTION) * 0.5, abs=1)


def test_a_floor_of_cells_fills_the_ground_and_nothing_above_the_horizon() -> None:
    """Cells under and behind the camera are clipped; the sky stays free and neighbours leave no seams."""
    drawn = draw_ground_cells(np.zeros((224, 480, 3), np.uint8), np.ones((200, 200), bool), FRONT, **RANGES)
    assert not lit(drawn)[:113].any()
    assert lit(drawn)[130:].all()
    assert len(np.unique(drawn[150:].reshape(-1, 3), axis=0)) == 1


def test_cell_corners_surround_the_cell() -> None:
    corners = cell_corners(np.array([[0, 199]]), (200, 200), (-50, 50), (-50, 50))
    assert corners[0].tolist() == [[-50, 49.5], [-49.5, 49.5], [-49.5, 50], [-50, 50]]


def test_nothing_occupied_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    assert np.array_equal(draw_ground_cells(image, np.zeros((8, 8), bool), FRONT, **RANGES), image)
    assert np.array_equal(draw_boxes(image, np.zeros((0, 8, 3)), FRONT), image)


@pytest.mark.filterwarnings("error")
def test_cells_at_the_height_of_the_camera_do_not_divide_by_zero() -> None:
    """The cell under the camera then holds its optical centre, where no pixel is defined."""
    image = np.zeros((224, 480, 3), np.uint8)
    drawn = draw_ground_cells(image, np.ones((200, 200), bool), FRONT, **RANGES, ground_z_m=1.5)
    rows, _ = np.nonzero(lit(drawn))
    assert set(rows) <= {111, 112, 113}
