"""What a prediction shows of itself."""

import io

import numpy as np
from PIL import Image

from omma.engine.task import Prediction


def _draw(predictions):
    height, width = predictions[0][1].arrays["depth"].shape
    return np.full((height, width, 3), len(predictions), np.uint8)


def test_a_notebook_gets_the_picture_and_a_short_line():
    prediction = Prediction({"depth": np.zeros((4, 6), np.float32)}, {"token": "방 1"}, _draw)
    picture = np.asarray(Image.open(io.BytesIO(prediction._repr_png_())))
    assert np.array_equal(picture, prediction.draw())
    assert repr(prediction) == "Prediction('방 1', depth (4, 6) float32)"


def test_without_a_drawing_there_is_no_picture():
    assert Prediction({"depth": np.zeros(2)})._repr_png_() is None
