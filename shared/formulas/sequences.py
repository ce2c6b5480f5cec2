"""Bookkeeping of time in replayed sequences.

Stored rows carry the action chosen AT the row (shared/envs/spec.py); the latent models of all four papers think in the
action that LED to it. `previous_actions` is the one visible line that translates. Read schedules.py next.
"""

from shared.formulas._backend import namespace


def previous_actions(action, is_first, before=None):
    """The action that led to each row.

        previous_t = 0 where is_first_t,    else action_{t-1},    with action_{-1} = before

    Args:
      action: action chosen at each row, (B, T, A).
      is_first: True where an episode starts, (B, T), bool.
      before: action of the row before the chunk, (B, A); None = zeros.
    Returns:
      (B, T, A), unit of the action. Gradients flow to action and before, except into first rows.
    Raises:
      ValueError: the shapes do not fit together.
    Source: authors' code of PlaNet and Dreamer control/wrappers.py (stores the action that led to each image),
      DreamerV3 dreamerv3/agent.py (builds it in training).
    """
    if action.ndim != 3 or tuple(is_first.shape) != tuple(action.shape[:2]):
        raise ValueError(
            f"previous_actions: action {tuple(action.shape)} and is_first {tuple(is_first.shape)} do not fit; "
            "expected (B, T, A) and (B, T)"
        )
    if before is not None and tuple(before.shape) != (action.shape[0], action.shape[2]):
        raise ValueError(
            f"previous_actions: before must be (B, A) = {(action.shape[0], action.shape[2])}, got {tuple(before.shape)}"
        )
    xp = namespace(action, is_first, before)
    first = xp.zeros_like(action[:, :1, :]) if before is None else before[:, None, :]
    shifted = xp.concat([first, action[:, :-1, :]], axis=1)
    return xp.where(is_first[:, :, None], xp.zeros_like(shifted), shifted)


def reset_where_first(state, is_first):
    """A recurrent state, or previous action, that forgets the past where an episode starts.

        state_b <- 0 where is_first_b

    Args:
      state: (B, ...), floating point or integer.
      is_first: True where an episode starts, (B,), bool.
    Returns:
      (B, ...). Gradients flow to the rows that are kept; NaN in a row that is reset disappears.
    Raises:
      ValueError: is_first is not (B,).
    Source: authors' code of DreamerV2 common/nets.py and DreamerV3 dreamerv3/rssm.py.
    """
    if is_first.ndim != 1 or state.ndim < 1 or is_first.shape[0] != state.shape[0]:
        raise ValueError(
            f"reset_where_first: state {tuple(state.shape)} and is_first {tuple(is_first.shape)} do not fit; "
            "expected (B, ...) and (B,)"
        )
    xp = namespace(state, is_first)
    return xp.where(xp.reshape(is_first, (-1,) + (1,) * (state.ndim - 1)), xp.zeros_like(state), state)
