"""The types and units of DreamerV3's numbers. The numbers themselves stand in paper.yaml, each with its source.

No field has a default: a number has one place. Networks, losses and behaviour receive their own group, not the whole.
"""

import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from shared.config import Strict, build, listing, read_resolved
from shared.errors import cli
from shared.training.schedule import RatioSchedule

LEARNERS = ("model", "actor", "critic")  # what an optimiser changes; the slow critic only ever follows
FLAGS = ("is_first", "is_last", "is_terminal")  # of a replayed row

Positive = Field(gt=0)
NonNegative = Field(ge=0)
Share = Field(ge=0, le=1)
BelowOne = Field(ge=0, lt=1)


class Atari(Strict):
    """How a frame of an Atari game becomes an observation; control tasks do not read it."""

    full_action_space: bool  # all 18 actions; else those that do something in this game
    grayscale: bool  # one channel of luminance, made of the resized colours; else three
    sticky: float = Share  # probability that the emulator repeats the action before, at every frame
    noop_max: NonNegativeInt  # an episode opens with 0 .. noop_max frames without action
    resize: Literal["bilinear", "area"]
    max_pool: bool  # the pixelwise maximum of the last two frames
    time_limit_is_terminal: bool  # whether the world counts as ended where only the time is up


class Environment(Strict):
    observations: Literal["vectors", "image"]  # of control tasks; games and Crafter always show images
    size: int = Field(ge=64, le=96, multiple_of=32)  # pixels; four halvings leave 4 x 4 or 6 x 6
    camera: int
    cameras: dict[str, int]  # task -> camera, where it is another one
    time_limit_env_steps: PositiveInt
    shadow_size: int | None = Field(gt=0)  # texels of the shadow map; None leaves dm_control's own
    action_repeat: PositiveInt  # env steps per agent step
    parallel: PositiveInt  # environments that are played side by side
    atari: Atari

    def camera_of(self, task: str) -> int:
        return self.cameras.get(task, self.camera)


class Size(Strict):
    """What a model size means."""

    deter_size: PositiveInt  # D, units of the recurrent state
    units: PositiveInt  # of every dense hidden layer
    classes: int = Field(ge=1, le=256)  # K, of every latent; replay keeps a class as one byte
    image_depth: PositiveInt  # channels of the convolutions are multiples of it


class Model(Strict):
    size: str  # a name of the table `sizes`
    stoch_size: PositiveInt  # S, latents
    gru: Literal["block", "dense"]  # dense: the 2023 agent's latent model, one matrix, a learned initial state
    blocks: PositiveInt  # of the block-diagonal GRU and of the decoder's first layer
    dynamics_layers: PositiveInt  # block-diagonal hidden layers before the gates
    prior_layers: PositiveInt
    posterior_layers: PositiveInt
    norm: Literal["rms", "layer"]  # before every SiLU; layer: epsilon 1e-3, and no bias in the layer it follows
    first_values: Literal["fan_in", "fan_average"]  # of the truncated normal that weights are drawn from
    convolutions: Literal["pool", "stride", "kernel4"]  # how images shrink: 2023 is kernel4, 2024 stride, HEAD pool
    embedding: Literal["vectors_first", "image_first"]
    decoder_reads: Literal["stoch_first", "deter_first"]  # of vectors; images have a place for either
    symlog: bool  # of vectors, as inputs and as what the decoder shall predict
    unimix: float = Share  # share of the uniform distribution in every latent
    vector_layers: PositiveInt  # of encoder and decoder
    reward_layers: PositiveInt
    continuation_layers: PositiveInt
    actor_layers: PositiveInt
    critic_layers: PositiveInt
    scalars: Literal["symexp_twohot", "symlog_twohot", "huber"]  # how rewards and values are predicted
    bins: int = Field(ge=3)  # of a two-hot code
    spare_outputs: NonNegativeInt  # of a two-hot head that nothing reads
    actor_unimix: float = Share  # of discrete actions
    actor_scale: float = Positive  # of the first values of the policy's last layer
    min_std: float = Positive  # of continuous actions
    max_std: float = Positive

    @model_validator(mode="after")
    def stds_in_order(self):
        if self.min_std >= self.max_std:
            raise ValueError(f"min_std ({self.min_std}) must be below max_std ({self.max_std})")
        return self


class Loss(Strict):
    """Scales of the terms, each a mean over batch and time, and what they teach the world model."""

    image_scale: float = NonNegative
    vector_scale: float = NonNegative
    reward_scale: float = NonNegative
    continuation_scale: float = NonNegative
    dynamics_scale: float = NonNegative
    representation_scale: float = NonNegative
    actor_scale: float = NonNegative
    critic_scale: float = NonNegative
    replay_value_scale: float = NonNegative
    free_nats: float = NonNegative  # of the KL summed over latents, at every time step
    vector_tolerance: float = NonNegative  # squared errors of a vector's entries below it count as 0
    reward_gradient: bool  # into the latent model; the same for the next two
    replay_value_gradient: bool
    reconstruction_gradient: bool


NORMALISER_STATES = {"returns": ("low", "high"), "advantages": ("mean", "mean_square", "weight")}


class Normaliser(Strict):
    """Percentiles of the returns, averaged over updates."""

    rate: float = Field(gt=0, le=1)
    low: float = Field(ge=0, le=100)  # percent
    high: float = Field(ge=0, le=100)
    limit: float = Positive  # least range that returns are divided by

    @model_validator(mode="after")
    def percentiles_in_order(self):
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high}) percent")
        return self


class EntropyTarget(Strict):
    """The policy's entropy is held near a share of the largest it can have, by its scale in the actor's loss."""

    share: float | None = Share  # above the least entropy, of the difference to the largest; None: the scale is fixed
    rate: float = Positive  # of the logarithm of the scale, per update and per share that is missing
    least: float = Positive  # bounds of the scale
    most: float = Positive

    @model_validator(mode="after")
    def bounds_in_order(self):
        if self.least >= self.most:
            raise ValueError(f"least ({self.least}) must be below most ({self.most})")
        return self


class Behaviour(Strict):
    horizon: PositiveInt  # H, imagined agent steps
    imagine_last: NonNegativeInt  # rows of a window that imagination starts from, its last ones; 0: all
    discount_steps: float = Field(gt=1)  # gamma is 1 - 1 / discount_steps, per agent step
    continuation: Literal["discounted", "plain"]  # target of that head: gamma where the world goes on, or 1
    hard_continuation: bool  # imagination goes on wholly where the head's probability exceeds a half; else in part
    start_continuation: Literal["predicted", "replayed"]  # of the state that imagination starts from
    lambda_: float = Field(ge=0, le=1, alias="lambda")
    continuous_gradient: Literal["reinforce", "dynamics"]  # of continuous actions; discrete ones: always reinforce
    entropy_scale: float = NonNegative  # of the policy's entropy, nats; with a target: before the first update
    entropy_target: EntropyTarget
    normalise: Literal["returns", "advantages"]  # returns by their range, or advantages by mean and deviation
    returns: Normaliser
    advantage_rate: float = Field(gt=0, le=1)
    advantage_limit: float = Positive
    slow_regulariser: float = NonNegative  # scale of the pull of the critic towards its slow copy
    slow_rate: float = Field(gt=0, le=1)  # share of the critic that joins the slow copy with every update

    @model_validator(mode="after")
    def entropy_scale_is_inside(self):
        target = self.entropy_target
        if target.share is not None and not target.least <= self.entropy_scale <= target.most:
            raise ValueError(
                f"entropy_scale ({self.entropy_scale}) must lie between entropy_target.least ({target.least}) and "
                f"entropy_target.most ({target.most})"
            )
        return self

    def first_statistics(self) -> dict[str, float]:
        """What an agent's `behaviour_objectives` keeps from update to update, by name, as it is before the first."""
        first = dict.fromkeys(NORMALISER_STATES[self.normalise], 0.0)
        return first if self.entropy_target.share is None else {**first, "entropy_scale": self.entropy_scale}


class LaProp(Strict):
    """One optimiser for all parameters."""

    learning_rate: float = Positive
    warmup_updates: NonNegativeInt
    adaptive_clip: float = Positive  # largest share of a tensor's norm that its gradient's norm may be
    least_norm: float = Positive  # that a smaller tensor counts as
    beta1: float = BelowOne
    beta2: float = BelowOne
    epsilon: float = Positive


class Adam(Strict):
    learning_rate: float = Positive
    epsilon: float = Positive
    clip_norm: float = Positive  # of the whole gradient of these parameters


class Adams(Strict):
    """One for each group of parameters."""

    model: Adam
    actor: Adam
    critic: Adam
    beta1: float = BelowOne
    beta2: float = BelowOne


class Optimisers(Strict):
    """joint: one step of LaProp on all losses. sequential: Adam, the model first, behaviour in the updated model."""

    order: Literal["joint", "sequential"]
    laprop: LaProp
    adam: Adams


class Exploration(Strict):
    prefill: Literal["policy", "random"]  # what acts before the first update


class Batch(Strict):
    size: PositiveInt  # B, windows
    length: PositiveInt  # T, rows that are learned from
    context: int = Field(ge=0, le=1)  # rows before them, whose stored latents a window starts from; 0: initial state


class ReplayConfig(Strict):
    """Windows of a stream of rows, across the ends of episodes."""

    capacity_rows: PositiveInt  # of all streams together; beyond it the oldest go
    memory_rows: PositiveInt
    online: bool  # new windows, end to end, are learned from once each before any is drawn at random


class Evaluation(Strict):
    episodes: PositiveInt


class Video(Strict):
    sequences: PositiveInt
    context: PositiveInt  # frames that the model sees
    length: PositiveInt  # frames in all

    @model_validator(mode="after")
    def context_inside(self):
        if self.context >= self.length:
            raise ValueError(f"context ({self.context}) must be shorter than length ({self.length}) frames")
        return self


class Config(Strict):
    environment: Environment
    sizes: dict[str, Size]
    model: Model
    loss: Loss
    behaviour: Behaviour
    optimisers: Optimisers
    precision: Literal["mixed", "float32"]  # mixed: bfloat16 for matrix products on a GPU; a CPU always has float32
    exploration: Exploration
    batch: Batch
    replay: ReplayConfig
    schedule: RatioSchedule
    evaluation: Evaluation
    video: Video

    @property
    def size(self) -> Size:
        """The sizes that model.size names."""
        return self.sizes[self.model.size]

    @model_validator(mode="after")
    def size_is_known(self):
        if self.model.size not in self.sizes:
            raise ValueError(f"model.size {self.model.size!r} is not in sizes; it has {listing(self.sizes)}")
        if self.model.gru == "block" and self.size.deter_size % self.model.blocks:
            raise ValueError(
                f"sizes.{self.model.size}.deter_size ({self.size.deter_size}) is no multiple of model.blocks "
                f"({self.model.blocks})"
            )
        return self

    @model_validator(mode="after")
    def blocks_make_whole_channels(self):
        images = self.environment.observations == "image" and self.model.gru == "block"
        channels = (8 if self.model.convolutions == "kernel4" else 4) * self.size.image_depth  # of the smallest image
        if images and channels % self.model.blocks:
            raise ValueError(
                f"sizes.{self.model.size}.image_depth ({self.size.image_depth}) makes a first image of {channels} "
                f"channels, no multiple of model.blocks ({self.model.blocks}); raise one or lower the other"
            )
        return self

    @model_validator(mode="after")
    def replayed_values_need_rows(self):
        if self.loss.replay_value_scale and self.batch.length < 2:
            raise ValueError("batch.length must be at least 2 where loss.replay_value_scale is positive")
        return self

    @model_validator(mode="after")
    def starts_are_rows(self):
        if self.behaviour.imagine_last > self.batch.length:
            raise ValueError(
                f"behaviour.imagine_last ({self.behaviour.imagine_last}) exceeds batch.length ({self.batch.length}); "
                "lower it, or write 0 for all rows"
            )
        if self.behaviour.imagine_last == 1 and self.loss.replay_value_scale:
            raise ValueError(
                "behaviour.imagine_last must not be 1 where loss.replay_value_scale is positive: the last row's value "
                "has no return; write 2 or more, or 0 for all rows"
            )
        return self

    @model_validator(mode="after")
    def random_rows_have_no_memo(self):
        if self.exploration.prefill == "random" and self.batch.context:
            raise ValueError(
                "exploration.prefill: random asks for batch.context: 0, as in the 2023 agent: random actions come "
                "without the latents that a window would start from"
            )
        return self

    @model_validator(mode="after")
    def replayed_values_are_joint(self):
        if self.optimisers.order == "sequential" and self.loss.replay_value_scale:
            raise ValueError("loss.replay_value_scale must be 0 with optimisers.order: sequential, the 2023 agent's")
        return self


@cli
def main(arguments: list[str]) -> None:
    """python -m replications.dreamerv3.config FILE: status 0 if a resolved config is possible, else what is wrong."""
    for path in map(Path, arguments):
        build(Config, read_resolved(path)["values"], where=str(path))


if __name__ == "__main__":
    sys.exit(main())
