"""What every JAX agent needs of its device: threads and choice of device, exact arithmetic, arrays back to NumPy.

Also what makes JAX quick on a CPU: which of XLA's kernels it takes, compiled programs kept between runs, freed memory
kept between updates, and uniform noise drawn two at a time. The twin of device_torch.py.
"""

import hashlib
import math
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import Array, lax

from shared.errors import UserError
from shared.host_memory import keep_memory

# Choices on a CPU that are not XLA's defaults, and the jaxlib that is known to have them; see choose_kernels.
JAXLIB = "0.10.2"
KERNELS = {
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_experimental_ynn_fusion_type": "dot,reduce,eltwise",
}
CACHE = Path(__file__).resolve().parents[1] / ".cache" / "jax"


def prepare(device: str, threads: int) -> str:
    """Give XLA its threads and choose the device: "auto" becomes "cuda" where there is one, else "cpu".

    To be called before anything has been computed: XLA reads its settings once.

    Raises:
      UserError: "cuda" was asked for and JAX sees none.
    """
    os.environ["NPROC"] = str(threads)  # the size of XLA's thread pools on a CPU
    choose_kernels()
    keep_compiled(threads)
    keep_memory()
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
        return device
    try:
        available = bool(jax.devices("gpu"))
    except RuntimeError:
        available = False
    if device == "cuda" and not available:
        raise UserError("--device cuda: JAX sees no CUDA device; use --device cpu, or install jax[cuda12]")
    return "cuda" if available else "cpu"


def choose_kernels() -> None:
    """Choose, among XLA's ways to compute on a CPU, those that compile these agents sooner and run them no slower.

    Its older code generators ("emitters"), and YNNPACK, a library that XLA hands parts of a program to, for products,
    sums and chains of elementwise operations, but not for convolutions. Measured as CPU time of one thread on one busy
    core, against the defaults. Emitters, DreamerV3 at size 1M, 8 x 32: first update 12.6 against 18.3 s from vectors
    and 18.7 against 23.4 s from pixels, later ones 167 against 210 ms and 1073 against 1074 ms. No convolutions by
    YNNPACK, on another processor (Intel Xeon, AVX-512): the same from pixels, first update 15.3 against 17.2 s, later
    ones 995 against 1236 ms; an update at Dreamer's yardstick (benchmarks/dreamer.py) 862 against 1155 ms.
    XLA ends a process that names a flag it does not know, so this is done for the version that is pinned. A user's own
    choice in XLA_FLAGS stands.
    """
    if jaxlib.__version__ != JAXLIB:
        return
    flags = os.environ.get("XLA_FLAGS", "")
    missing = [f"--{name}={value}" for name, value in KERNELS.items() if name not in flags]
    os.environ["XLA_FLAGS"] = " ".join([flags, *missing]).strip()


def set_exact_arithmetic() -> None:
    """float32 is float32 on every device."""
    jax.config.update("jax_default_matmul_precision", "highest")


def to_numpy(value: Array) -> np.ndarray:
    """A copy in C order, wherever the array lies."""
    return np.array(value, order="C")


def uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Uniform in [0, 1) in steps of 2^-16, float32: two numbers from each of JAX's draws, which are slow on a CPU.

    Enough for dequantisation noise; an odd number of entries draws one more and drops it.
    """
    size = math.prod(shape)
    draws = jax.random.bits(key, (-(-size // 2),), jnp.uint32)
    return lax.bitcast_convert_type(draws, jnp.uint16).reshape(-1)[:size].reshape(shape).astype(jnp.float32) / 2**16


def keep_compiled(threads: int) -> None:
    """Keep what XLA compiles in .cache/jax of the repository: the next start loads it, and computes the same bits.

    JAX tells programs, versions and flags apart but neither processors nor threads: the folder's name does that. A
    folder of the user's own (JAX_COMPILATION_CACHE_DIR) is left alone.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    processor = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    if not processor:  # one machine cannot be told from another
        return
    name = hashlib.sha256("\n".join(processor).encode()).hexdigest()[:12]
    jax.config.update("jax_compilation_cache_dir", str(CACHE / f"{name}-{threads}"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
