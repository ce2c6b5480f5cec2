"""What one row in a replay memory holds: names, dtypes and shapes, and the check of what comes in.

Row convention: shared/envs/spec.py. Read buffer.py (episodes) or streams.py (windows of streams) next.
"""

import math
from collections.abc import Mapping

import numpy as np

from shared.envs.spec import ActSpec, ObsSpec, Rows

FLAGS = ("is_first", "is_last", "is_terminal")
Columns = Mapping[str, tuple[np.dtype, tuple[int, ...]]]  # dtype and shape of one row, for every stored column


def row_columns(obs_spec: ObsSpec, act_spec: ActSpec) -> Columns:
    """The columns of every replay memory: observations, reward, flags and action."""
    columns = of_specs(obs_spec)
    columns["reward"] = (np.dtype(np.float32), ())
    columns |= {flag: (np.dtype(np.bool_), ()) for flag in FLAGS}
    columns["action"] = (np.dtype(np.float32), (act_spec.size,))
    return columns


def of_specs(specs: ObsSpec) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    return {key: (np.dtype(spec.dtype), tuple(spec.shape)) for key, spec in specs.items()}


def row_bytes(columns: Columns) -> int:
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in columns.values())


def jsonable(columns: Columns) -> dict[str, list]:
    return {key: [dtype.name, list(shape)] for key, (dtype, shape) in columns.items()}


def check_rows(rows: Rows, columns: Columns) -> int:
    """Names, dtypes and shapes of appended rows. Returns how many they are."""
    if rows.keys() != columns.keys():
        missing, unknown = sorted(columns.keys() - rows.keys()), sorted(rows.keys() - columns.keys())
        raise ValueError(f"append: missing columns {missing}, unknown columns {unknown}")
    count = len(rows["reward"])
    for key, (dtype, shape) in columns.items():
        column = rows[key]
        if column.dtype != dtype or column.shape != (count, *shape):
            raise ValueError(f"append: {key} is {column.dtype} {column.shape}, expected {dtype} {(count, *shape)}")
    return count
