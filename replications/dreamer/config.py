"""The types and units of Dreamer's numbers. The numbers themselves stand in paper.yaml, each with its source.

No field has a default: a number has one place. Networks, behaviour and planner receive their own group, not the whole.
"""

import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from shared.config import Batch, Evaluation, Strict, Video, build, read_resolved
from shared.errors import cli
from shared.training.schedule import Schedule

Positive = Field(gt=0)
NonNegative = Field(ge=0)
Share = Field(ge=0, le=1)


class Atari(Strict):
    """How a frame of an Atari game becomes an observation; control tasks do not read it."""

    grayscale: Literal[False]  # the convolutions are made for three colours
    sticky: float = Share  # probability that the emulator repeats the action before, at every frame
    noop_max: NonNegativeInt  # an episode opens with 1 .. noop_max actions that do nothing; 0: none
    life_loss_ends_training: bool  # a lost life ends a training episode, never an evaluation's
    resize: Literal["bilinear", "area"]
    max_pool: bool  # the pixelwise maximum of the last two frames


class Environment(Strict):
    size: int = Field(ge=64, le=64)  # pixels; the convolutions are made for 64 x 64
    camera: int
    cameras: dict[str, int]  # task -> camera, where it is another one
    time_limit_env_steps: PositiveInt
    shadow_size: int | None = Field(gt=0)  # texels of the shadow map; None leaves dm_control's own
    action_repeat: PositiveInt  # env steps per agent step
    least_decisions: NonNegativeInt  # an end before so many decisions is passed over and the episode goes on
    atari: Atari

    def camera_of(self, task: str) -> int:
        return self.cameras.get(task, self.camera)


class Model(Strict):
    stoch_size: PositiveInt  # S, Gaussian latents
    deter_size: PositiveInt  # D, units of the GRU
    hidden_size: PositiveInt  # units of every dense hidden layer of the latent model
    activation: Literal["relu", "elu"]  # of the latent model and all heads; convolutions always use ReLU
    min_std: float = NonNegative  # added to the softplus
    gru: Literal["block", "keras"]  # the reset gate before (TF1) or after (TF2) the candidate's product
    joint_heads: bool  # mean and std from one layer (TF2) or from two (TF1): their first weights differ in size
    encoder_depth: PositiveInt  # channels of the first convolution; then 2, 4, 8 times as many
    image_bits: int = Field(ge=1, le=8)
    dequantise: bool  # levels / 2^bits + uniform noise within a level (TF1), or uint8 / 255 (TF2); less 1/2
    dense_units: PositiveInt  # of every head
    reward_layers: PositiveInt
    value_layers: PositiveInt
    actor_layers: PositiveInt
    continuation: bool  # a head predicts whether the episode goes on; else it always does
    continuation_layers: PositiveInt
    contrastive: bool  # a head predicts the features from the image's embedding
    contrastive_layers: PositiveInt
    contrastive_init_std: float = Positive  # of that prediction, less the smallest
    contrastive_min_std: float = Positive

    @model_validator(mode="after")
    def undithered_images_have_all_bits(self):
        if not self.dequantise and self.image_bits != 8:
            raise ValueError(
                f"image_bits ({self.image_bits}) must be 8 with dequantise: false, which divides pixels by 255"
            )
        return self


class Loss(Strict):
    gradient_heads: tuple[Literal["image", "reward", "contrastive"], ...]  # whose losses train the latent model
    image_scale: float = NonNegative
    reward_scale: float = NonNegative
    contrastive_scale: float = NonNegative
    divergence_scale: float = NonNegative
    free_nats: float = NonNegative  # the KL summed over latent dimensions
    free_nats_of: Literal["step", "mean"]  # max(0, KL - free nats) of every time step; max(KL, free nats) of their mean
    continuation_scale: float = NonNegative
    continuation_target_scale: float = Share  # what the head predicts where the episode goes on: the discount
    reward_transform: Literal["none", "tanh"]  # of the rewards to predict; logged returns are never transformed
    contrastive_negatives: Literal["window", "batch", "time"]  # which shifts of the features the true ones compete with
    contrastive_batch_shifts: PositiveInt  # of a window
    contrastive_time_shifts: PositiveInt  # of a window

    @model_validator(mode="after")
    def heads_are_whole(self):
        if len(set(self.gradient_heads)) < len(self.gradient_heads):
            raise ValueError(f"gradient_heads ({', '.join(self.gradient_heads)}) names a head twice")
        if "reward" not in self.gradient_heads:
            raise ValueError("gradient_heads must name reward: behaviour is learned from nothing else")
        return self


class Behaviour(Strict):
    learner: Literal["actor", "planner"]  # a policy learned in imagination (Dreamer); plan at every decision (PlaNet)
    value: bool  # imagined returns go on beyond the horizon by a learned value
    horizon: PositiveInt  # H, imagined agent steps
    discount: float = Share  # per agent step; with a continuation head that head's probability takes its place
    no_value_discount: float = Share  # the same where value is false
    lambda_: float = Field(ge=0, le=1, alias="lambda")
    bootstrap: Literal["early", "last"]  # beyond the end: the value of the last state but one (TF1), or of the last
    weights: bool  # a return counts as much as is left of the trajectory when it begins
    shared_latent_noise: bool  # one latent noise vector per step for the whole batch (TF2)
    action_gradient: Literal["score", "straight"]  # through a discrete action
    mean_scale: float = Positive  # largest mean of a continuous action before its tanh
    init_std: float = Positive  # of a continuous action before its tanh, less the smallest, when training starts
    min_std: float = NonNegative
    mode_samples: PositiveInt  # the best of so many samples stands for the mode of a continuous action

    @model_validator(mode="after")
    def returns_have_two_rows(self):
        if self.learner == "actor" and self.value and self.horizon < 2:
            raise ValueError(f"horizon ({self.horizon}) must be at least 2: the last state only lends its value")
        if self.learner == "planner" and self.value:
            raise ValueError("value must be false with learner: planner, which adds up predicted rewards alone")
        return self


class Optimiser(Strict):
    learning_rate: float = Positive
    clip_norm: float = Positive  # of the whole gradient of these parameters


class Optimisers(Strict):
    """Adam, one for each group of parameters."""

    model: Optimiser
    actor: Optimiser
    value: Optimiser
    decoder: Optimiser  # of the image decoder where the image is no gradient head; else `model` trains it
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(ge=0, lt=1)
    epsilon: float = Positive


class Planner(Strict):
    """The cross-entropy method, used with learner: planner alone."""

    horizon: PositiveInt  # H, agent steps
    iterations: NonNegativeInt  # I
    candidates: PositiveInt  # J, action sequences per iteration
    elites: PositiveInt  # K, sequences refitted
    std: Literal["paper", "code"]
    discount: float = Field(gt=0, le=1)  # per agent step, of the imagined rewards

    @model_validator(mode="after")
    def elites_among_candidates(self):
        if self.std == "paper" and self.elites < 2:
            raise ValueError(f"elites ({self.elites}) must be at least 2 with std: paper, which divides by elites - 1")
        if self.elites > self.candidates:
            raise ValueError(
                f"elites ({self.elites}) exceed candidates ({self.candidates}): CEM refits to the best of its "
                "candidates; lower planner.elites or raise planner.candidates"
            )
        return self


class Epsilon(Strict):
    """How often a discrete action is replaced by a uniform one."""

    start: float = Share
    end: float = Share
    decay_updates: PositiveInt  # from start to end on a straight line
    evaluation: float = Share


class Exploration(Strict):
    policy: Literal["sample", "mode"]  # what a training episode executes, before noise
    action_noise: float = NonNegative  # standard deviation, in units of the action box [-1, 1]; continuous actions
    epsilon: Epsilon  # discrete actions


class ReplayConfig(Strict):
    older: PositiveInt  # older episodes in the pool, at most (where pool is None)
    recent: NonNegativeInt  # new episodes in the pool, at most; 0: none counts as new, all are drawn alike
    pool: int | None = Field(gt=0)  # episodes in the pool in all: older ones fill it up; None: older + recent
    chunks_per_refresh: PositiveInt
    replacement: bool  # every draw is from the whole pool, or from what is left of a permutation
    ends: Literal["included", "excluded"]  # whether a chunk may reach the last row of its episode
    shuffle_chunks: NonNegativeInt  # drawn chunks wait in a buffer of this size, which is emptied in random order,
    prefetch_chunks: NonNegativeInt  # and then in a queue of this length
    capacity_rows: int | None = Field(gt=0)  # None keeps everything
    memory_rows: PositiveInt

    @model_validator(mode="after")
    def pool_holds_the_recent(self):
        if self.pool is not None and self.pool < self.recent:
            raise ValueError(f"pool ({self.pool}) must be at least recent ({self.recent}): it holds both kinds")
        return self


class Config(Strict):
    environment: Environment
    model: Model
    loss: Loss
    behaviour: Behaviour
    optimisers: Optimisers
    planner: Planner
    exploration: Exploration
    batch: Batch
    replay: ReplayConfig
    schedule: Schedule
    evaluation: Evaluation
    video: Video

    @model_validator(mode="after")
    def chunks_fit_episodes(self):
        """Where only the time limit ends an episode; with a continuation head episodes may be shorter anyway."""
        if self.model.continuation:
            return self
        repeat = self.environment.action_repeat
        rows = self.environment.time_limit_env_steps // repeat + 1
        spared = self.replay.ends == "excluded"
        for name, length in (("batch.length", self.batch.length + spared), ("video.length", self.video.length)):
            if length > rows:
                raise ValueError(
                    f"{name} (needs {length} rows) exceeds an episode ({rows} rows at action repeat {repeat}); lower it"
                )
        if self.schedule.prefill_env_steps < (rows - 1) * repeat:
            raise ValueError(
                f"schedule.prefill_env_steps ({self.schedule.prefill_env_steps}) is shorter than one episode "
                f"({(rows - 1) * repeat} env steps), nothing is learned from an unfinished one; raise it"
            )
        return self

    @model_validator(mode="after")
    def contrastive_head_is_trained(self):
        if self.model.contrastive != ("contrastive" in self.loss.gradient_heads):
            raise ValueError(
                f"model.contrastive ({self.model.contrastive}) and loss.gradient_heads "
                f"({', '.join(self.loss.gradient_heads)}) must agree: the head exists to train the latent model"
            )
        shifts = (
            ("contrastive_batch_shifts", self.loss.contrastive_batch_shifts, "batch.size", self.batch.size),
            ("contrastive_time_shifts", self.loss.contrastive_time_shifts, "batch.length", self.batch.length),
        )
        for name, amount, limit, most in shifts:
            if self.model.contrastive and self.loss.contrastive_negatives == "window" and amount > most:
                raise ValueError(
                    f"loss.{name} ({amount}) exceeds {limit} ({most}): shifts wrap around, so the true pair would be "
                    "among its rivals twice; lower it"
                )
        return self

    @model_validator(mode="after")
    def undiscounted_only_without_continuation(self):
        if self.model.continuation and not self.behaviour.value and self.behaviour.learner == "actor":
            raise ValueError("model.continuation needs behaviour.value: returns without a value end at the horizon")
        return self


@cli
def main(arguments: list[str]) -> None:
    """python -m replications.dreamer.config FILE: status 0 if a resolved config is possible, else what is wrong."""
    for path in map(Path, arguments):
        build(Config, read_resolved(path)["values"], where=str(path))


if __name__ == "__main__":
    sys.exit(main())
