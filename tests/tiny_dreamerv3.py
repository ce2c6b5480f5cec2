"""A DreamerV3 configuration so small that an update takes milliseconds and a whole run seconds."""

from shared.config import paper_folder, read_yaml, replace, resolve

SIZES = ("1m", "12m", "200m", "s2023")
CHANGES = {
    **{f"sizes.{size}.deter_size": 16 for size in SIZES},
    **{f"sizes.{size}.units": 8 for size in SIZES},
    **{f"sizes.{size}.classes": 4 for size in SIZES},
    **{f"sizes.{size}.image_depth": 2 for size in SIZES},
    "environment.time_limit_env_steps": 240,
    "environment.size": 64,
    "environment.parallel": 2,
    "model.stoch_size": 3,
    "model.blocks": 4,
    "model.actor_layers": 2,
    "model.critic_layers": 1,
    "model.bins": 41,
    "behaviour.horizon": 4,
    "optimisers.laprop.learning_rate": 3.0e-3,
    "optimisers.laprop.warmup_updates": 0,
    "optimisers.adam.model.learning_rate": 3.0e-3,
    "batch.size": 3,
    "batch.length": 6,
    "replay.capacity_rows": 10_000,
    "replay.memory_rows": 10_000,
    "schedule.total_env_steps": 1200,
    "schedule.train_ratio": 3,  # with batches of 18 rows, an update every 6 rows
    "schedule.fill_windows": 18,
    "schedule.evaluate_every_env_steps": 360,
    "schedule.checkpoint_every_env_steps": 132,  # no multiple of an episode: checkpoints fall inside episodes
    "video.sequences": 1,
    "video.length": 8,
}


def values(variant="dreamerv3", **changes):
    """A variant's values made tiny; further changes by dotted key, dots written as two underscores."""
    if variant == "dreamerv3":  # paper.yaml as it is
        tree = read_yaml(paper_folder("dreamerv3") / "paper.yaml")
    else:
        tree = resolve("dreamerv3", variant, {"name": "paper"})["values"]
    for key, value in {**CHANGES, **{key.replace("__", "."): x for key, x in changes.items()}}.items():
        replace(tree, key, value, where="tests/tiny_dreamerv3.py")
    return tree
