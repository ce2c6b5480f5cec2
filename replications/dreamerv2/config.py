"""The types and units of DreamerV2's numbers. The numbers themselves stand in paper.yaml, each with its source.

No field has a default: a number has one place. Networks, losses and behaviour receive their own group, not the whole.
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

    full_action_space: bool  # all 18 actions; else those that do something in this game
    grayscale: bool  # the emulator's own grey, one channel
    sticky: float = Share  # probability that the emulator repeats the action before, at every frame
    noop_max: NonNegativeInt  # an episode opens with 1 .. noop_max frames without action; 0: none
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
    atari: Atari

    def camera_of(self, task: str) -> int:
        return self.cameras.get(task, self.camera)


class Model(Strict):
    latents: Literal["categorical", "gaussian"]
    stoch_size: PositiveInt  # S, latents
    classes: PositiveInt  # K, of every categorical latent
    std: Literal["sigmoid", "softplus"]  # of Gaussian latents: 2 sigmoid(x / 2) or softplus(x), plus min_std
    min_std: float = NonNegative
    deter_size: PositiveInt  # D, units of the GRU
    hidden_size: PositiveInt  # units of every dense hidden layer of the latent model
    gru_norm: bool  # LayerNorm inside the GRU
    norm: Literal["none", "layer"]  # before the ELU of every other layer
    encoder_depth: PositiveInt  # channels of the first convolution; then 2, 4, 8 times as many
    dense_units: PositiveInt  # of every head
    reward_layers: PositiveInt
    discount_layers: PositiveInt
    actor_layers: PositiveInt
    critic_layers: PositiveInt
    discount_head: bool  # a head predicts the discount, 0 after the end; else the episode always goes on


class Loss(Strict):
    """Terms of the world model; the target of the discount head is behaviour.discount, 0 where the world ended."""

    gradient_heads: tuple[Literal["image", "reward", "discount"], ...]  # whose losses train the latent model
    image_scale: float = NonNegative
    reward_scale: float = NonNegative
    discount_scale: float = NonNegative
    divergence_scale: float = NonNegative
    kl_balance: float = Share  # share of the KL that trains the prior; 0.5 is the plain KL, with nothing stopped
    free_nats: float = NonNegative  # of the KL summed over latents
    free_nats_of: Literal["step", "mean"]  # max(KL, free nats) of every time step; or of the mean of the batch
    reward_transform: Literal["none", "tanh"]  # of the rewards to predict; logged returns are never transformed

    @model_validator(mode="after")
    def heads_once(self):
        if len(set(self.gradient_heads)) < len(self.gradient_heads):
            raise ValueError(f"gradient_heads ({', '.join(self.gradient_heads)}) names a head twice")
        return self


class Ramp(Strict):
    """A straight line over the env steps of a run, then constant."""

    start: float = NonNegative
    end: float = NonNegative
    over_env_steps: PositiveInt  # prefill included


class Behaviour(Strict):
    horizon: int = Field(ge=2)  # H, imagined agent steps
    discount: float = Share  # gamma, per agent step
    lambda_: float = Field(ge=0, le=1, alias="lambda")
    starts: Literal["all", "but_last"]  # but_last: not the last row of a chunk, where there is a discount head
    start_discount: Literal["replayed", "predicted"]  # of the state that imagination starts from
    shifted: bool  # a_t, chosen in s_t, is paid by the return from s_{t+1} on (HEAD); else from s_t on
    baseline: Literal["target", "online"]  # which critic a return is compared with
    actor_gradient: Literal["reinforce", "dynamics", "both"]
    stop_action: bool  # reinforce: the action whose log-probability is taken is a constant; both: never
    gradient_mix: Ramp  # share of dynamics with actor_gradient: both
    entropy: Ramp  # scale of the policy's entropy, nats
    init_std: float  # added to the raw std of a continuous action
    min_std: float = NonNegative
    target_every: PositiveInt  # updates between two copies of the critic to the target critic
    target_fraction: float = Field(gt=0, le=1)  # of such a copy; the first is always a whole one

    @model_validator(mode="after")
    def mix_is_a_share(self):
        if max(self.gradient_mix.start, self.gradient_mix.end) > 1:
            raise ValueError("gradient_mix must lie between 0 (reinforce alone) and 1 (dynamics alone)")
        return self


class Optimiser(Strict):
    learning_rate: float = Positive
    clip_norm: float = Positive  # of the whole gradient of these parameters


class Optimisers(Strict):
    """Adam, one for each group of parameters."""

    model: Optimiser
    actor: Optimiser
    critic: Optimiser
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(ge=0, lt=1)
    epsilon: float = Positive  # beside the root of the uncorrected second moment, as Keras adds it
    weight_decay: float = Field(ge=0, lt=1)  # share of every parameter that an update takes away, whatever the rate


class Exploration(Strict):
    policy: Literal["sample", "random"]  # what a training episode executes: the actor's draws, or uniform ones


class ReplayConfig(Strict):
    """Every chunk is from an episode drawn uniformly, whatever its length."""

    prioritise_ends: Literal["none", "clipped", "slack"]  # a start is drawn over the whole episode, then moved to fit
    least_rows: PositiveInt  # shorter episodes are not kept
    capacity_rows: PositiveInt  # beyond it the oldest episodes go
    memory_rows: PositiveInt


class Config(Strict):
    environment: Environment
    model: Model
    loss: Loss
    behaviour: Behaviour
    optimisers: Optimisers
    exploration: Exploration
    batch: Batch
    replay: ReplayConfig
    schedule: Schedule
    evaluation: Evaluation
    video: Video

    def env_steps(self, updates: int) -> float:
        """Env steps of a run with so many updates behind it: what the ramps of behaviour count."""
        periods = max(updates - self.schedule.pretrain_updates, 0) / self.schedule.updates_per_learn
        return self.schedule.prefill_env_steps + periods * self.schedule.learn_every_env_steps

    @model_validator(mode="after")
    def chunks_fit_episodes(self):
        """Where only the time limit ends an episode; with a discount head episodes may be shorter anyway."""
        if self.model.discount_head:
            return self
        repeat = self.environment.action_repeat
        rows = self.environment.time_limit_env_steps // repeat + 1
        lengths = (
            ("batch.length", self.batch.length),
            ("video.length", self.video.length),
            ("replay.least_rows", self.replay.least_rows),
        )
        for name, length in lengths:
            if length > rows:
                raise ValueError(
                    f"{name} ({length} rows) exceeds an episode ({rows} rows at action repeat {repeat}); lower {name}"
                )
        if self.schedule.prefill_env_steps < (rows - 1) * repeat:
            raise ValueError(
                f"schedule.prefill_env_steps ({self.schedule.prefill_env_steps}) is shorter than one episode "
                f"({(rows - 1) * repeat} env steps), nothing is learned from an unfinished one; raise it"
            )
        return self

    @model_validator(mode="after")
    def discount_head_is_there(self):
        if "discount" in self.loss.gradient_heads and not self.model.discount_head:
            raise ValueError("loss.gradient_heads names discount, and model.discount_head is false; take it out")
        return self

    @model_validator(mode="after")
    def starts_remain(self):
        if self.behaviour.starts == "but_last" and self.batch.length < 2:
            raise ValueError("batch.length must be at least 2 with behaviour.starts: but_last, or no start is left")
        return self


@cli
def main(arguments: list[str]) -> None:
    """python -m replications.dreamerv2.config FILE: status 0 if a resolved config is possible, else what is wrong."""
    for path in map(Path, arguments):
        build(Config, read_resolved(path)["values"], where=str(path))


if __name__ == "__main__":
    sys.exit(main())
