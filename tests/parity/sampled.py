"""Large arrays of golden cases kept small: part of an output with its sums, an input as small numbers.

`NAME__every7` holds every 7th value of the flattened array NAME, first to last, and `NAME__sums` float64
[number of values, sum, sum of squares] of all of them. `NAME__hundredths` holds an input that the reference
rounded to 0.01: differences of neighbours along the last axis, in hundredths.
"""

import numpy as np


def sample(name, array, step):
    """The entries that stand for an output in a case's file."""
    exact = array.astype(np.float64).ravel()
    sums = np.array([exact.size, exact.sum(), np.square(exact).sum()])
    return {f"{name}__every{step}": array.ravel()[::step], f"{name}__sums": sums}


def check_sampled(found, arrays, name, rtol):
    """Compare an output with its sample: kept values and sums, within `rtol` of the largest value."""
    key = next(key for key in arrays if key.startswith(f"{name}__every"))
    step, expected = int(key.rpartition("__every")[2]), arrays[key]
    found = np.asarray(found, dtype=np.float64).ravel()
    atol = rtol * np.abs(expected).max()
    size, total, squares = arrays[f"{name}__sums"]
    assert found.size == size, f"{name}: {found.size} values, not {size:.0f}"
    np.testing.assert_allclose(found[::step], expected, rtol=0, atol=atol, err_msg=name)
    spread = np.sqrt(squares / size)
    np.testing.assert_allclose(found.mean(), total / size, rtol=0, atol=atol, err_msg=f"mean of {name}")
    np.testing.assert_allclose(np.sqrt(np.square(found).mean()), spread, rtol=0, atol=atol, err_msg=name)


def hundredths(array):
    """What stands for an input in a case's file; the array has to be rounded to 0.01."""
    steps = np.diff(np.round(array.astype(np.float64) * 100).astype(np.int64), axis=-1, prepend=0)
    steps = steps.astype(np.int16)
    assert np.array_equal(from_hundredths(steps), array)
    return steps


def from_hundredths(steps):
    """The input, float32."""
    return (steps.astype(np.int64).cumsum(-1) / 100).astype(np.float32)
