from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omma.data.sampler import Position, TrainBatches, epoch_order, steps_per_epoch, validation_batches
from omma.errors import DataError


def _flat(batches):
    return [key for batch in batches for key in batch]


def test_an_epoch_sees_every_sample_once_and_drops_the_rest():
    keys = _flat(TrainBatches(11, 2, accumulate=2, num_steps=4))
    assert [epoch for epoch, _ in keys] == [0] * 8 + [1] * 8
    assert len({index for epoch, index in keys if epoch == 0}) == 8
    assert [index for epoch, index in keys if epoch == 1] == epoch_order(11, 0, 1)[:8].tolist()


def test_order_depends_on_seed_and_epoch_only():
    assert epoch_order(50, 3, 2).tolist() == epoch_order(50, 3, 2).tolist()
    assert epoch_order(50, 3, 2).tolist() != epoch_order(50, 3, 1).tolist()
    assert epoch_order(50, 3, 2).tolist() != epoch_order(50, 4, 2).tolist()


@given(
    num_samples=st.integers(8, 40),
    accumulate=st.integers(1, 2),
    stop=st.integers(0, 9),
)
def test_starting_from_a_saved_position_continues_the_sequence(num_samples, accumulate, stop):
    shape = {"batch_size": 4, "accumulate": accumulate}
    straight = list(TrainBatches(num_samples, **shape, num_steps=10))
    position = Position()
    for _ in range(stop):
        position = position.after_step(num_samples, 4 * accumulate)
    rest = list(TrainBatches(num_samples, **shape, start=position, num_steps=10 - stop))
    assert rest == straight[stop * accumulate :]


def test_two_processes_with_half_the_batch_see_the_same_micro_batches():
    one = list(TrainBatches(40, 8, accumulate=2, num_steps=4, seed=5))
    ranks = [list(TrainBatches(40, 4, accumulate=2, rank=r, world=2, num_steps=4, seed=5)) for r in (0, 1)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == one


def test_a_larger_global_batch_that_does_not_fit_any_more_starts_the_next_pass():
    batches = list(TrainBatches(10, 4, start=Position(0, 8), num_steps=1))
    assert {epoch for epoch, _ in batches[0]} == {1}


@pytest.mark.parametrize(("offset", "expected"), [(0, 20), (8, 18)])
def test_steps_to_epoch(offset, expected):
    assert Position(1, offset).steps_to_epoch(3, 40, 4) == expected
    assert Position(3, 4).steps_to_epoch(3, 40, 4) == 0


def test_too_small_a_data_set_names_both_numbers_and_the_remedy():
    with pytest.raises(DataError, match=r"3 samples.* 8 of one.*\n.*train.batch_size"):
        steps_per_epoch(3, 8)
    with pytest.raises(DataError):
        TrainBatches(3, 4, accumulate=2, num_steps=1)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_sees_every_sample_once(world):
    seen = [i for rank in range(world) for b in validation_batches(11, 2, rank=rank, world=world) for i in b]
    assert sorted(seen) == list(range(11))
    assert validation_batches(3, 2) == [[0, 1], [2]]
