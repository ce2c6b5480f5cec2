"""The refitting step of the cross-entropy method, PlaNet's planner (Algorithm 2, lines 6 to 8).

The loop around it (sample, imagine, refit) is the agent's: see replications/planet/agent_torch.py.
"""

from shared.formulas._backend import namespace

CODE_VARIANCE_FLOOR = 1e-6                     # code: control/planning.py adds it to the variance before the root


def refit(actions, returns, elites, *, std):
    """Mean and spread of the best action sequences.

        mu = sum_k a_k / K,    over the K sequences with the highest return
        std = "paper":  sum_k |a_k - mu| / (K - 1)
        std = "code":   sqrt(sum_k (a_k - mu)^2 / K + 1e-6)

    Args:
      actions: candidate action sequences, (..., J, H, A).
      returns: predicted return of each candidate, (..., J), sum of rewards. Of equal returns the lower index is
        better; NaN is worst.
      elites: K, number of sequences kept, 1 to J ("paper": 2 to J).
      std: "paper" or "code".
    Returns:
      (mean, std), each (..., H, A), unit of the actions. Gradients flow to `actions`; none to `returns`.
    Raises:
      ValueError: elites is out of range, std is unknown, the shapes do not fit, or returns are not floating point.
    Source: PlaNet Algorithm 2 (lines 7 and 8); authors' code control/planning.py.
    """
    _check_refit(actions, returns, elites, std)
    xp = namespace(actions, returns)
    if not xp.isdtype(returns.dtype, "real floating"):
        raise ValueError(f"refit: returns are {returns.dtype}, expected floating point (an unsigned -returns wraps)")
    best = xp.argsort(-returns, axis=-1, stable=True)[..., :elites]                         # (..., K)
    chosen = xp.take_along_axis(actions, best[..., None, None], axis=-3)                    # (..., K, H, A)
    mean = xp.mean(chosen, axis=-3)
    deviation = chosen - mean[..., None, :, :]
    if std == "paper":
        return mean, xp.sum(xp.abs(deviation), axis=-3) / (elites - 1)
    return mean, xp.sqrt(xp.mean(deviation * deviation, axis=-3) + CODE_VARIANCE_FLOOR)


def _check_refit(actions, returns, elites, std):
    if std not in ("paper", "code"):
        raise ValueError(f'refit: std must be "paper" or "code", got {std!r}')
    if actions.ndim < 3 or tuple(returns.shape) != tuple(actions.shape[:-2]):
        raise ValueError(
            f"refit: actions {tuple(actions.shape)} and returns {tuple(returns.shape)} do not fit; "
            "expected (..., J, H, A) and (..., J)"
        )
    least, most = (2 if std == "paper" else 1), actions.shape[-3]
    if not least <= elites <= most:
        raise ValueError(
            f'refit: elites is {elites}, expected {least} to {most} (the number of candidates) with std="{std}"; '
            "lower planner.elites or raise planner.candidates"
        )
