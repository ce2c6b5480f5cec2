"""How every benchmark here measures: groups of calls, a guard against busy neighbours, the machine's own ceiling.

A time is only comparable with another machine's as a ratio to what that machine can do at all, so report() puts the
hardware and two ceilings (a matrix product, a convolution) into the same JSON. Read next: environments.py.
"""

import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from shared import provenance
from shared.config import ROOT

GROUP_SECONDS = 0.3  # long against the 10 ms ticks of /proc/stat, short enough to fall between two disturbances
NEIGHBOUR = 0.10  # of one core: a group during which other processes used more than this does not count
LEAST_ROUNDS = 5
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MIB = 2**20


def time_groups(function: Callable[[], object], seconds: float) -> dict[str, float]:
    """Seconds per call of `function`, measured for about `seconds`; see interleave."""
    return interleave({"": function}, seconds)[""]


def interleave(functions: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, dict[str, float]]:
    """Time several functions in turn, one group each per round, so that a slow minute hits all of them.

    Every function is called twice before (first call: compilation, caches). A group is as many calls as fill 0.3 s.
    Args:
      functions: name -> what to call; a call must end when its work is done (synchronise a GPU inside).
      seconds: time spent on each function; on the slowest at least five groups.
    Returns:
      name -> {"median", "min": seconds per call, over the clean groups (over all groups where none was clean);
      "first": seconds of the very first call; "groups": how many were timed; "clean": how many were undisturbed}.
    """
    first, groups = _rounds(functions, seconds)
    return {name: {**summary(groups[name]), "first": first[name]} for name in functions}


def compare(
    functions: Mapping[str, Callable[[], object]], ratios: Mapping[str, tuple[str, str]], seconds: float
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """`interleave`, and how many times as long one function takes as another.

    Args:
      ratios: name -> the two functions' names, dividend first.
    Returns:
      what interleave returns; name -> {"median", "quartile_1", "quartile_3": of the ratios of all rounds in which both
      were undisturbed (of all rounds where there are no two such); "rounds": how many these are}.
    """
    first, groups = _rounds(functions, seconds)
    times = {name: {**summary(groups[name]), "first": first[name]} for name in functions}
    return times, {name: _ratio(groups[one], groups[other]) for name, (one, other) in ratios.items()}


Group = tuple[float, bool]  # seconds per call, and whether the machine was left alone


def _rounds(
    functions: Mapping[str, Callable[[], object]], seconds: float
) -> tuple[dict[str, float], dict[str, list[Group]]]:
    first = {name: _elapsed(function, 1) for name, function in functions.items()}
    second = {name: _elapsed(function, 1) for name, function in functions.items()}
    calls = {name: max(1, round(GROUP_SECONDS / second[name])) for name in functions}
    groups: dict[str, list[Group]] = {name: [] for name in functions}
    for _ in range(max(LEAST_ROUNDS, round(seconds / max(GROUP_SECONDS, *second.values())))):
        for name, function in functions.items():
            groups[name].append(watched(function, calls[name]))
    return first, groups


def watched(function: Callable[[], object], calls: int = 1) -> Group:
    """Seconds per call of some calls, and whether other processes left the machine alone meanwhile."""
    before = _others_cpu_seconds()
    elapsed = _elapsed(function, calls)
    busy = (_others_cpu_seconds() - before) / elapsed
    return elapsed / calls, busy <= NEIGHBOUR


def _ratio(one: list[Group], other: list[Group]) -> dict[str, float]:
    rounds = list(zip(one, other, strict=True))
    clean = [a / b for (a, a_clean), (b, b_clean) in rounds if a_clean and b_clean]
    counted = clean if len(clean) > 1 else [a / b for (a, _), (b, _) in rounds]
    quartile_1, median, quartile_3 = statistics.quantiles(counted, n=4, method="inclusive")
    return {"median": median, "quartile_1": quartile_1, "quartile_3": quartile_3, "rounds": len(counted)}


def _elapsed(function: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return time.perf_counter() - start


def summary(groups: list[Group]) -> dict[str, float]:
    """Of groups that watched has timed: what interleave tells of a function, but for its first call."""
    clean = [seconds for seconds, is_clean in groups if is_clean]
    counted = clean or [seconds for seconds, _ in groups]
    return {"median": statistics.median(counted), "min": min(counted), "groups": len(groups), "clean": len(clean)}


def _others_cpu_seconds() -> float:
    """CPU time that processes other than this one and its children have used on the cores we may run on."""
    allowed = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in allowed:
            user, nice, system, _, _, irq, softirq, steal = map(int, ticks[:8])
            busy += user + nice + system + irq + softirq + steal
    return busy / TICKS_PER_SECOND - time.process_time() - _children_cpu_seconds()


def _children_cpu_seconds() -> float:
    """CPU time of all living descendants of this process (environment workers), and of the children that ended."""
    parent, used = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                continue
            parent[int(entry.name)] = int(fields[1])
            used[int(entry.name)] = (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = ended.ru_utime + ended.ru_stime
    for process in parent:
        ancestor = parent[process]
        while ancestor in parent and ancestor != os.getpid():
            ancestor = parent[ancestor]
        total += used[process] if ancestor == os.getpid() else 0.0
    return total


def hardware() -> dict[str, object]:
    """What the numbers were measured on."""
    import jax
    import torch

    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": model[0].partition(":")[2].strip() if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "jax": jax.__version__,
        "load_average": os.getloadavg()[0],
    }


def ceilings(seconds: float = 1.5, device: str = "cpu") -> dict[str, dict[str, float]]:
    """What this machine reaches at best in float32: GFLOP/s of a 1024^3 matrix product and of a small convolution net.

    The net is PlaNet's encoder and decoder at depth 8, batch 64, channels_last, forward and backward (counted as three
    times the forward multiplications and additions).
    """
    import torch

    def finish() -> None:
        if device != "cpu":
            torch.cuda.synchronize()

    matrix = torch.randn(1024, 1024, device=device)
    net, image, flop = _convolution_net(torch, device)

    def multiply() -> None:
        matrix @ matrix
        finish()

    def learn() -> None:
        net.zero_grad()
        net(image).square().mean().backward()
        finish()

    times = interleave({"matmul_1024": multiply, "conv_v12_depth_8_batch_64": learn}, seconds)
    flops = {"matmul_1024": 2 * 1024**3, "conv_v12_depth_8_batch_64": 3 * flop}
    return {name: {**times[name], "gflops": flops[name] / times[name]["min"] / 1e9} for name in times}


def _convolution_net(torch, device: str, depth: int = 8, batch: int = 64):
    """Four 4x4 stride-2 convolutions and the four transposed ones (5, 5, 6, 6); net, input and flop of a forward."""
    sizes, widths = (64, 31, 14, 6, 2), (3, depth, 2 * depth, 4 * depth, 8 * depth)
    layers, flop = [], 0
    for i in range(4):
        layers += [torch.nn.Conv2d(widths[i], widths[i + 1], 4, 2), torch.nn.ReLU()]
        flop += 2 * batch * sizes[i + 1] ** 2 * widths[i] * widths[i + 1] * 4**2
    features = sizes[4] ** 2 * widths[4]
    layers += [torch.nn.Flatten(), torch.nn.Linear(features, 32 * depth), torch.nn.Unflatten(1, (32 * depth, 1, 1))]
    flop += 2 * batch * features * 32 * depth
    sizes, widths = (1, 5, 13, 30), (32 * depth, 4 * depth, 2 * depth, depth, 3)
    for i, kernel in enumerate((5, 5, 6, 6)):
        layers += [torch.nn.ConvTranspose2d(widths[i], widths[i + 1], kernel, 2), torch.nn.ReLU()]
        flop += 2 * batch * sizes[i] ** 2 * widths[i] * widths[i + 1] * kernel**2
    channels_last = torch.channels_last
    net = torch.nn.Sequential(*layers[:-1]).to(device, memory_format=channels_last)
    image = torch.randn(batch, 3, 64, 64, device=device).contiguous(memory_format=channels_last)
    return net, image, flop


def peak_memory_mib() -> dict[str, float]:
    """Largest resident memory so far: of this process, and of the largest child that has ended."""
    return {
        "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB,
        "largest_child": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / MIB,
    }


def report(name: str, results: Mapping[str, object], out: Path | None, *, device: str = "cpu") -> dict[str, object]:
    """Add date, commit, hardware, ceilings and peak memory to the results; print all as JSON, and write it to `out`."""
    peak = peak_memory_mib()  # before the ceilings add theirs
    full = {
        "benchmark": name,
        "date": provenance.now(),
        **{key: value for key, value in provenance.git_state(ROOT).items() if key in ("git_commit", "git_dirty")},
        "hardware": hardware(),
        "ceilings": ceilings(device=device),
        "peak_memory_mib": peak,
        "results": dict(results),
    }
    disturbed = _disturbed(full)
    if disturbed:
        print(f"no undisturbed group, other processes were busy all the time: {'; '.join(disturbed)}", file=sys.stderr)
    text = json.dumps(_rounded(full), indent=1)
    print(text)
    if out is not None:
        out.write_text(text + "\n")
    return full


def _disturbed(value: object, name: str = "") -> list[str]:
    """Paths of the times in this tree that had no clean group."""
    if not isinstance(value, Mapping):
        return []
    here = [name] if value.get("clean") == 0 else []
    return here + [path for key, item in value.items() for path in _disturbed(item, f"{name}/{key}".lstrip("/"))]


def _rounded(value: object) -> object:
    """The same tree with floats to four significant digits."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
