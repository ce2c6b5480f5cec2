"""Two parameter files (safetensors): the first tensor that differs, how far each does, and the norm of the difference.

The two frameworks write the same names, shapes and order, so that files of torch and JAX are compared as they are.
"""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from shared.diff.outcome import DIFFERS, NOT_COMPARABLE, SAME, Outcome, Table
from shared.errors import UserError
from shared.testing.parity import difference

COLUMNS = ("tensor", "shape", "relative", "largest difference", "largest entry", "norm A", "norm B", "norm of A - B")


def read(path: Path) -> dict[str, np.ndarray]:
    """Name -> array, in the order of the file.

    Raises:
      UserError: no such file, or no safetensors.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a finished run writes seed_<n>.safetensors") from None
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: no parameter file ({error}); expected a .safetensors that a run has written"
        ) from None


def compare(a: Path, b: Path, tolerance: float = 0.0) -> Outcome:
    """The outcome for two files. tolerance: of a tensor's largest difference, relative to its largest entry in B."""
    one, other = read(a), read(b)
    only = [
        (name, side)
        for side, names in (("A", one.keys() - other.keys()), ("B", other.keys() - one.keys()))
        for name in names
    ]
    shared = [name for name in other if name in one]
    shapes = [name for name in shared if one[name].shape != other[name].shape]
    if only or shapes:
        rows = [(name, f"only in {side}", "") for name, side in sorted(only)]
        rows += [(name, str(one[name].shape), str(other[name].shape)) for name in shapes]
        reason = f"not the same network: {len(only)} names on one side only, {len(shapes)} of other shapes"
        table = Table("Names and shapes", ("tensor", "A", "B"), rows)
        return Outcome("parameters", str(a), str(b), NOT_COMPARABLE, reason, [table])
    rows, apart = [], []
    for name in other:
        found = difference(name, one[name], other[name])
        gap = np.asarray(one[name], np.float64) - other[name]
        norms = [float(np.linalg.norm(np.asarray(x, np.float64))) for x in (one[name], other[name], gap)]
        rows.append(
            (name, str(other[name].shape), found.relative, found.relative * found.largest, found.largest, *norms)
        )
        if not found.relative <= tolerance:
            apart.append(found)
    count = sum(array.size for array in other.values())
    if not apart:
        reason = f"all {len(rows)} tensors ({count:,} numbers) agree within {tolerance:g}"
    else:
        worst = max(apart, key=lambda d: d.relative)
        reason = f"{len(apart)} of {len(rows)} tensors differ; first: {apart[0]}; most: {worst}"
    table = Table("Tensors, in the order of the file", COLUMNS, rows, "Relative: to the tensor's largest entry in B.")
    facts = {"first": apart[0].name if apart else None, "apart": len(apart), "tensors": len(rows), "numbers": count}
    return Outcome("parameters", str(a), str(b), DIFFERS if apart else SAME, reason, [table], facts=facts)
