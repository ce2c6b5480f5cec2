"""A Dreamer configuration so small that an update takes milliseconds and a whole run seconds."""

from shared.config import replace, resolve

CHANGES = {
    "environment.time_limit_env_steps": 120,
    "environment.least_decisions": 5,
    "model.stoch_size": 4,
    "model.deter_size": 8,
    "model.hidden_size": 8,
    "model.encoder_depth": 2,
    "model.dense_units": 8,
    "model.reward_layers": 1,
    "model.value_layers": 1,
    "model.actor_layers": 2,
    "model.continuation_layers": 1,
    "model.contrastive_layers": 1,
    "loss.contrastive_batch_shifts": 2,
    "loss.contrastive_time_shifts": 3,
    "behaviour.mode_samples": 10,
    "planner.horizon": 3,
    "planner.iterations": 2,
    "planner.candidates": 10,
    "planner.elites": 3,
    "batch.size": 3,
    "batch.length": 6,
    "replay.chunks_per_refresh": 7,
    "schedule.total_env_steps": 1200,
    "schedule.prefill_env_steps": 240,
    "schedule.learn_every_env_steps": 120,
    "schedule.updates_per_learn": 4,
    "schedule.pretrain_updates": 3,
    "schedule.evaluate_every_env_steps": 360,
    "schedule.checkpoint_every_env_steps": 130,  # no multiple of an episode: checkpoints fall inside episodes
    "video.sequences": 1,
    "video.length": 8,
}


def values(variant="dreamer", **changes):
    """A variant's values made tiny; further changes by dotted key, dots written as two underscores.

    All imagine at most 4 steps: variants that differ in the horizon alone become one.
    """
    tree = resolve("dreamer", variant, {"name": "paper"})["values"]
    horizon = {"behaviour.horizon": min(4, tree["behaviour"]["horizon"])}
    for key, value in {**CHANGES, **horizon, **{key.replace("__", "."): x for key, x in changes.items()}}.items():
        replace(tree, key, value, where="tests/tiny_dreamer.py")
    return tree
