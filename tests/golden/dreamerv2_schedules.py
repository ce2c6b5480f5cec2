"""DreamerV2 writes schedules as text, "linear(3e-3,3e-4,2.5e6)"; here they are read for the golden tests."""

import re

from shared.formulas.schedules import exponential, horizon_discount, linear, warmup


def schedule(text, step):
    """The value of a schedule at a step; a plain number is constant."""
    match = re.fullmatch(r"(\w+)\((.*)\)", str(text))
    if match is None:
        return float(text)
    numbers = [float(number) for number in match[2].split(",")]
    if match[1] == "linear":
        return linear(step, *numbers)
    if match[1] == "exp":
        return exponential(step, *numbers)
    if match[1] == "warmup":
        duration, value = numbers
        return value * warmup(step, duration)
    if match[1] == "horizon":
        return horizon_discount(linear(step, *numbers))
    raise ValueError(f"unknown schedule {text}")
