"""What every torch agent needs of its device: threads and choice of device, exact arithmetic, arrays back to NumPy.

Also what makes torch quick on a CPU: freed memory is kept between updates, and uniform noise is drawn four at a time.
The twin of device_jax.py.
"""

import math
import os

import numpy as np
import torch
from torch import Tensor

from shared.errors import UserError
from shared.host_memory import keep_memory


def prepare(device: str, threads: int) -> str:
    """Give torch its threads and choose the device: "auto" becomes "cuda" where there is one, else "cpu".

    Raises:
      UserError: "cuda" was asked for and torch sees none.
    """
    torch.set_num_threads(threads)
    keep_memory()
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError("--device cuda: torch sees no CUDA device; use --device cpu, or install a CUDA build of torch")
    return ("cuda" if available else "cpu") if device == "auto" else device


def set_exact_arithmetic() -> None:
    """float32 is float32 on every device, and the same inputs give the same bits."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    if not torch.cuda.is_available():  # a CPU needs no more, and the next call imports torch's compiler, 1.5 seconds
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it to be deterministic
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # debugging aid of that mode; costs a pass per tensor


def uniform(generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    """Uniform in [0, 1) in steps of 2^-16, float32: four numbers from each draw, which is slow on a CPU.

    Enough for dequantisation noise.
    """
    size = math.prod(shape)
    draws = torch.empty(-(-size // 4), dtype=torch.int64, device=generator.device)
    draws.random_(-(2**63), None, generator=generator)
    return draws.view(torch.int16)[:size].view(shape).float().add_(2**15).div_(2**16)


def to_numpy(value: Tensor) -> np.ndarray:
    """A copy in C order, whatever the tensor's memory format and device."""
    return np.array(value.detach().cpu().numpy(), order="C")
