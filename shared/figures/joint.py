"""A run of one agent on several tasks, seen as one run per task, so that it can stand beside separate agents.

The tasks take turns, in the order of environment.joint_tasks: training episode e (from 1) is of task (e - 1) mod n,
an evaluation plays evaluation.episodes of the first task, then of the second, ... A paper's figures give the views to
panels.py.
"""

import dataclasses

import numpy as np

from shared.config import ALL_TASKS
from shared.errors import UserError
from shared.figures.sources import Source


def task_views(source: Source) -> list[Source]:
    """One Source per task of a joint run (task ALL_TASKS); of any other run the run itself.

    A view counts env steps of its own task only: those of the episodes collected on that task so far. So x axes mean
    the same as for an agent that has one task. Path, hashes and seed stay those of the run. Raises UserError where the
    config does not name the tasks.
    """
    if source.task != ALL_TASKS:
        return [source]
    tasks = source.values.get("environment", {}).get("joint_tasks")
    if not tasks:
        raise UserError(
            f"{source.path}: a run of {ALL_TASKS} whose config has no environment.joint_tasks, so nobody knows which "
            "episode is of which task; make the run again with the config of variant joint"
        )
    return [_view(source, index, task, len(tasks)) for index, task in enumerate(tasks)]


def _view(source: Source, index: int, task: str, tasks: int) -> Source:
    """The rows of one task, with its own count of env steps."""
    train, test = source.run.tables["train/episode"], source.run.tables["eval/episode"]
    train = train.sort_values("env_steps")
    ends = train["env_steps"].to_numpy()
    mine = (train["episode"].to_numpy() - 1) % tasks == index
    own_ends = np.cumsum(np.where(mine, np.diff(ends, prepend=0), 0))  # own env steps at the end of every episode

    def own_steps(steps):
        """Env steps of this task's episodes that had ended at `steps` of the whole run."""
        return np.concatenate([[0], own_ends])[np.searchsorted(ends, steps, side="right")]

    schedule = source.values["schedule"]
    prefill = int(own_steps(schedule["prefill_env_steps"]))
    trials = source.values["evaluation"]["episodes"]  # of each task
    own_test = test[test["episode"].to_numpy() // trials == index]
    own_test = own_test.assign(env_steps=own_steps(own_test["env_steps"].to_numpy()))
    again = own_test.duplicated(["env_steps", "episode"], keep="last")  # evaluated twice within one round of the tasks
    tables = {
        **source.run.tables,
        "train/episode": train[mine].assign(env_steps=own_ends[mine]),
        "eval/episode": own_test[~again],
    }
    attrs = {
        **source.run.attrs,
        "task": task,
        "env_steps": int(own_ends[-1]) if len(own_ends) else 0,
        "total_env_steps": source.total_env_steps // tasks,
    }
    return dataclasses.replace(
        source,
        run=dataclasses.replace(source.run, attrs=attrs, tables=tables),
        values={**source.values, "schedule": {**schedule, "prefill_env_steps": prefill}},
    )
