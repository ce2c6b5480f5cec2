"""The row convention's dtypes, and the border where actions are checked."""

import numpy as np
import pytest

from shared.envs.spec import ROW_DTYPES, check_action, make_row


def test_a_row_has_the_dtypes_of_the_convention():
    row = make_row({"state": np.zeros(3)}, 0.5, first=False, last=True, terminal=False, env_steps=4)
    assert {key: str(row[key].dtype) for key in ROW_DTYPES} == ROW_DTYPES
    assert all(row[key].shape == () for key in ROW_DTYPES)
    assert row["reward"] == 0.5 and row["env_steps"] == 4 and row["is_last"] and row["state"].shape == (3,)


def test_an_action_on_the_border_of_the_box_is_allowed():
    np.testing.assert_array_equal(check_action("x", [-1.0, 0.0, 1.0], (3,)), np.array([-1, 0, 1], np.float32))


@pytest.mark.parametrize("value", [1.0001, -2.0, np.nan, np.inf])
def test_an_action_outside_the_box_is_refused_with_its_value(value):
    with pytest.raises(ValueError, match=rf"walker: action {np.float32(value)} is outside \[-1, 1\]"):
        check_action("walker", [0.0, value], (2,))


def test_an_action_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"walker: action has shape \(3,\), expected \(2,\)"):
        check_action("walker", np.zeros(3), (2,))
