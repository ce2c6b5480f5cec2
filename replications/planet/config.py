"""The types and units of PlaNet's numbers. The numbers themselves stand in paper.yaml, each with its source.

No field has a default: a number has one place. Networks and planner receive their own group, never the whole.
"""

import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from shared.config import Batch, Evaluation, Strict, Video, build, read_resolved
from shared.errors import cli
from shared.training.schedule import Schedule

Positive = Field(gt=0)
NonNegative = Field(ge=0)


class Environment(Strict):
    size: int = Field(ge=64, le=64)  # pixels; the convolutions are made for 64 x 64
    camera: int
    time_limit_env_steps: PositiveInt
    shadow_size: int | None = Field(gt=0)  # texels of the shadow map; None leaves dm_control's own
    action_repeat: dict[str, PositiveInt]  # task -> env steps per agent step
    joint_tasks: tuple[str, ...] = Field(min_length=1)  # what task `all_tasks` plays in turn, one agent for all

    def of_task(self, task: str) -> dict[str, int | None]:
        """The settings of one task's environment, as shared.envs.suite.make_env takes them."""
        return {
            "size": self.size,
            "camera": self.camera,
            "action_repeat": self.action_repeat[task],
            "time_limit_env_steps": self.time_limit_env_steps,
            "shadow_size": self.shadow_size,
        }


class Model(Strict):
    latent: Literal["rssm", "ssm", "drnn"]
    stoch_size: PositiveInt  # S, Gaussian latents
    deter_size: PositiveInt  # D, units of the GRU
    hidden_size: PositiveInt  # units of every dense hidden layer of the latent model
    hidden_layers: PositiveInt  # dense layers per function of the latent model
    activation: Literal["relu", "elu"]  # of the latent model and the heads; convolutions always use ReLU
    min_std: float = NonNegative  # added to the softplus
    mean_only: bool  # sample := mean
    future_rnn: bool  # the prior reads the GRU's output (True) or its input (False)
    encoder_depth: PositiveInt  # channels of the first convolution; then 2, 4, 8 times as many
    image_bits: int = Field(ge=1, le=8)
    reward_layers: PositiveInt
    reward_units: PositiveInt


class Loss(Strict):
    alignment: Literal["arriving", "leaving"]  # the reward that a row predicts: of the step that reaches or leaves it
    likelihood: Literal["unit_gaussian", "squared_error"]  # of image and reward; the second has twice the gradient
    image_scale: float = NonNegative
    reward_scale: float = NonNegative
    divergence_scale: float = NonNegative
    free_nats: float = NonNegative  # nats per time step, the KL summed over latent dimensions
    keep_free_nats: bool  # loss max(free nats, KL) (True) or max(0, KL - free nats) (False): the gradient is the same
    global_prior_scale: float = NonNegative  # of KL(posterior, N(0, 1))
    overshooting_scale: float = NonNegative
    overshooting_reward_scale: float = NonNegative
    overshooting_distance: int = NonNegative  # agent steps, D
    overshooting_mean: Literal["all", "valid"]  # 2 .. D steps, mean over all entries; 2 .. D + 1, over those inside

    @property
    def overshoots(self) -> bool:
        return self.overshooting_scale > 0 or self.overshooting_reward_scale > 0

    @model_validator(mode="after")
    def overshooting_has_entries(self):
        least, last = (2, "D") if self.overshooting_mean == "all" else (1, "D + 1")
        if self.overshoots and self.overshooting_distance < least:
            raise ValueError(
                f"overshooting_distance ({self.overshooting_distance}) must be at least {least} where an overshooting "
                f"scale is not 0: overshooting_mean {self.overshooting_mean} takes predictions of 2 .. {last} steps"
            )
        return self


class Optimiser(Strict):
    learning_rate: float = Positive
    ramp_updates: int = NonNegative  # the learning rate rises from 0 over so many updates
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(ge=0, lt=1)
    epsilon: float = Positive
    clip_norm: float = Positive  # of the whole gradient


class Planner(Strict):
    method: Literal["cem", "gradient"]  # refit a Gaussian to the best; or climb the imagined return's gradient
    horizon: PositiveInt  # H, agent steps (not simulator steps)
    iterations: int = NonNegative  # I
    candidates: PositiveInt  # J, action sequences per iteration
    elites: PositiveInt  # K, sequences refitted (cem)
    std: Literal["paper", "code"]  # (cem)
    discount: float = Field(gt=0, le=1)  # per agent step, of the imagined rewards
    step_size: float = Positive  # root mean square of one step, in units of the action box (gradient)

    @model_validator(mode="after")
    def elites_among_candidates(self):
        if self.method == "gradient" and self.iterations < 1:
            raise ValueError(f"iterations ({self.iterations}) must be at least 1 with method: gradient")
        if self.std == "paper" and self.elites < 2:
            raise ValueError(f"elites ({self.elites}) must be at least 2 with std: paper, which divides by elites - 1")
        if self.elites > self.candidates:
            raise ValueError(
                f"elites ({self.elites}) exceed candidates ({self.candidates}): CEM refits to the best of its "
                "candidates; lower planner.elites or raise planner.candidates"
            )
        return self


class Exploration(Strict):
    collect: Literal["planner", "noise"]  # training episodes: the planned action and noise, or the noise alone
    action_noise: float = NonNegative  # standard deviation, in units of the action box [-1, 1]


class ReplayConfig(Strict):
    older: PositiveInt  # older episodes in the pool, at most (where pool is None)
    recent: PositiveInt  # new episodes in the pool
    pool: int | None = Field(gt=0)  # episodes in the pool in all: older ones fill it up; None: older + recent
    chunks_per_refresh: PositiveInt
    shuffle_chunks: int = NonNegative  # drawn chunks wait in a buffer of this size, which is emptied in random order,
    prefetch_chunks: int = NonNegative  # and then in a queue of this length

    @model_validator(mode="after")
    def pool_holds_the_recent(self):
        if self.pool is not None and self.pool < self.recent:
            raise ValueError(f"pool ({self.pool}) must be at least recent ({self.recent}): it holds both kinds")
        return self
    capacity_rows: int | None = Field(gt=0)  # None keeps everything
    memory_rows: PositiveInt


class Config(Strict):
    environment: Environment
    model: Model
    loss: Loss
    optimiser: Optimiser
    planner: Planner
    exploration: Exploration
    batch: Batch
    replay: ReplayConfig
    schedule: Schedule
    evaluation: Evaluation
    video: Video

    @model_validator(mode="after")
    def chunks_fit_episodes(self):
        for task, repeat in self.environment.action_repeat.items():
            rows = self.environment.time_limit_env_steps // repeat + 1
            drawn = self.batch.length + (self.loss.alignment == "leaving")  # whose last reward lies one row further
            for name, length in (("batch.length", drawn), ("video.length", self.video.length)):
                if length > rows:
                    raise ValueError(
                        f"{name} (needs {length} rows) exceeds an episode of {task} ({rows} rows at action repeat "
                        f"{repeat}); lower {name}"
                    )
            if self.schedule.prefill_env_steps < (rows - 1) * repeat:
                raise ValueError(
                    f"schedule.prefill_env_steps ({self.schedule.prefill_env_steps}) is shorter than one episode of "
                    f"{task} ({(rows - 1) * repeat} env steps), nothing is learned from an unfinished one; raise it"
                )
        return self


@cli
def main(arguments: list[str]) -> None:
    """python -m replications.planet.config FILE: status 0 if a resolved config is possible, else what is wrong."""
    for path in map(Path, arguments):
        build(Config, read_resolved(path)["values"], where=str(path))


if __name__ == "__main__":
    sys.exit(main())
