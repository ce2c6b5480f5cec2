"""Progress that a person can read: a bar on a terminal, one plain line every few seconds elsewhere (a log, a pipe)."""

import sys
import time
from typing import TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15.0


class Display:
    """env steps of all, updates, last return, time left.

    Args:
      label: names the run on every plain line, so that the logs of several runs can be mixed.
      total_env_steps: where the run ends.
    """

    def __init__(self, label: str, total_env_steps: int, *, stream: TextIO | None = None):
        self.label, self.total = label, total_env_steps
        self.stream = stream or sys.stderr
        self.first = 0
        self.started = self.last_line = time.monotonic()
        self.last: str | None = None  # the newest plain line, if it has not been printed
        self.returned: float | None = None
        self.evaluated: float | None = None
        self.bar = None
        if self.stream.isatty():
            self.bar = tqdm(
                total=total_env_steps,
                desc=label,
                unit=" env steps",
                unit_scale=True,
                file=self.stream,
                dynamic_ncols=True,
                smoothing=0.05,
            )

    def update(
        self, env_steps: int, updates: int, *, returned: float | None = None, evaluated: float | None = None
    ) -> None:
        """Tell where the run stands; cheap enough to be called after every event."""
        self.returned = self.returned if returned is None else returned
        self.evaluated = self.evaluated if evaluated is None else evaluated
        if self.bar is not None:
            self.bar.set_postfix_str(self._facts(updates), refresh=False)
            self.bar.update(env_steps - self.bar.n)
            self.bar.refresh()
        self.last = f"{env_steps:,} of {self.total:,} env steps, {self._facts(updates)}, {self._left(env_steps)}"
        if self.bar is None and time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            self.say(self.last)
            self.last = None

    def say(self, message: str) -> None:
        """One line that stays, above the bar if there is one."""
        if self.bar is not None:
            self.bar.write(message, file=self.stream)
        else:
            print(f"[{self.label}] {message}", file=self.stream, flush=True)

    def start_at(self, env_steps: int) -> None:
        """A resumed run starts here: what came before does not count for the time left."""
        self.first, self.started = env_steps, time.monotonic()
        if self.bar is not None:
            self.bar.reset(self.total)
            self.bar.initial = env_steps
            self.bar.update(env_steps)

    def close(self) -> None:
        """The last word: where the run stood when it ended."""
        if self.bar is not None:
            self.bar.close()
        elif self.last is not None:
            self.say(self.last)

    def _facts(self, updates: int) -> str:
        facts = [f"{updates:,} updates"]
        if self.returned is not None:
            facts.append(f"return {self.returned:.1f}")
        if self.evaluated is not None:
            facts.append(f"evaluated {self.evaluated:.1f}")
        return ", ".join(facts)

    def _left(self, env_steps: int) -> str:
        moved, elapsed = env_steps - self.first, time.monotonic() - self.started
        if moved <= 0 or env_steps >= self.total:
            return f"{clock(elapsed)} elapsed"
        return f"{clock(elapsed)} elapsed, about {clock(elapsed * (self.total - env_steps) / moved)} left"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
