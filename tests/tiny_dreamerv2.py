"""A DreamerV2 configuration so small that an update takes milliseconds and a whole run seconds."""

from shared.config import paper_folder, read_yaml, replace, resolve

CHANGES = {
    "environment.time_limit_env_steps": 240,
    "model.stoch_size": 3,
    "model.classes": 4,
    "model.deter_size": 8,
    "model.hidden_size": 8,
    "model.encoder_depth": 2,
    "model.dense_units": 8,
    "model.reward_layers": 1,
    "model.discount_layers": 1,
    "model.actor_layers": 2,
    "model.critic_layers": 1,
    "behaviour.horizon": 4,
    "behaviour.target_every": 3,
    "batch.size": 3,
    "batch.length": 6,
    "replay.least_rows": 7,
    "replay.capacity_rows": 10_000,
    "schedule.total_env_steps": 1200,
    "schedule.prefill_env_steps": 240,
    "schedule.learn_every_env_steps": 120,
    "schedule.updates_per_learn": 4,
    "schedule.pretrain_updates": 3,
    "schedule.evaluate_every_env_steps": 360,
    "schedule.checkpoint_every_env_steps": 132,  # no multiple of an episode: checkpoints fall inside episodes
    "video.sequences": 1,
    "video.length": 8,
}


def values(variant="dreamerv2", **changes):
    """A variant's values made tiny; further changes by dotted key, dots written as two underscores."""
    if variant == "dreamerv2":  # paper.yaml as it is
        tree = read_yaml(paper_folder("dreamerv2") / "paper.yaml")
    else:
        tree = resolve("dreamerv2", variant, {"name": "paper"})["values"]
    for key, value in {**CHANGES, **{key.replace("__", "."): x for key, x in changes.items()}}.items():
        replace(tree, key, value, where="tests/tiny_dreamerv2.py")
    return tree
