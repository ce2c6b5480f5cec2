"""Returns of imagined and replayed trajectories: what the critics of Dreamer, DreamerV2 and DreamerV3 are trained on.

The recursion is shared; WHICH rewards, discounts and values form one row differs between the papers and is a visible
line of each agent (README.md, "Who slices how"). Read transforms.py next.
"""

import functools

from shared.formulas._backend import check_shapes, cumulative_prod, namespace, reverse_scan


def lambda_return(reward, discount, next_value, lambda_):
    """Exponentially weighted average of n-step returns.

        R_t = r_t + d_t * ((1 - lambda_t) * v_{t+1} + lambda_t * R_{t+1}),    R_T = v_T

    Row t of every argument describes the SAME transition t -> t+1.

    Args:
      reward: r_t, (T, *batch), T >= 1, reward per agent step (summed over the action repeat).
      discount: d_t, (T, *batch), in [0, 1]: gamma times the probability of continuing.
      next_value: v_{t+1}, (T, *batch), unit of the reward; its last row bootstraps.
      lambda_: in [0, 1]; 0 is the one-step target, 1 the discounted sum plus bootstrap. A number, or (T, *batch) to cut
        the average inside a replayed sequence.
    Returns:
      R_t, (T, *batch), unit of the reward. Gradients flow through every argument: the caller stops them.
    Raises:
      ValueError: the arrays differ in shape, or have no time axis.
    Source: Dreamer Eq. 6; DreamerV2 Eq. 4; DreamerV3, critic learning; Sutton and Barto 2018, section 12.1.
    """
    check_shapes("lambda_return", reward=reward, discount=discount, next_value=next_value, lambda_=lambda_)
    for x in (reward, discount, next_value):
        _check_time("lambda_return", x)
    namespace(reward, discount, next_value, lambda_)          # refuses a mixture of libraries
    rows = (reward, discount, next_value)
    if isinstance(lambda_, (int, float)) or lambda_.shape == ():
        step = functools.partial(_step, share=lambda_)
    else:
        step, rows = _step, (*rows, lambda_)
    return reverse_scan(step, next_value[-1, ...], rows)


def _step(later, reward, discount, next_value, share):
    """R_t from R_{t+1}."""
    return reward + discount * ((1 - share) * next_value + share * later)


def discount_weights(discount):
    """How much of a trajectory is left when it reaches each row.

        w_0 = 1,    w_t = d_0 * d_1 * ... * d_{t-1}

    DreamerV3 counts a row's own discount too: that is discount_weights(d) * d.

    Args:
      discount: d_t, (T, *batch), T >= 1, in [0, 1]: gamma times the probability of continuing.
    Returns:
      w_t, (T, *batch), no unit. Gradients flow to discount; all three papers stop them.
    Raises:
      ValueError: discount has no time axis.
    Source: actor and value losses of Dreamer (authors' code dreamer.py; Eqs. 7 and 8 have the weights with early
      termination only), DreamerV2 (agent.py) and DreamerV3 (dreamerv3/agent.py).
    """
    _check_time("discount_weights", discount)
    xp = namespace(discount)
    shifted = xp.concat([xp.ones_like(discount[:1, ...]), discount[:-1, ...]], axis=0)
    return cumulative_prod(shifted, axis=0)


def _check_time(function, x):
    shape = tuple(getattr(x, "shape", ()))
    if not shape or shape[0] < 1:
        raise ValueError(f"{function}: expected (T, *batch) with T >= 1, time first, got shape {shape}")
