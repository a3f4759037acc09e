"""Captions of pictures."""

import pytest

from omma.systems.g2_monodepth.viz import percent


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100 %"), (0.5, "50 %"), (0.0904, "9 %"), (0.0071, "0.71 %"), (0.00024, "0.024 %")],
)
def test_a_share_has_two_digits_and_no_exponent(share, text):
    assert percent(share) == text
