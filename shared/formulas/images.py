"""Image preprocessing: the range [-0.5, 0.5]; PlaNet and Dreamer (TF1) add dequantisation noise, PlaNet drops bits.

Images stay uint8 until the agent; it converts to float once and calls one of these once. Read sequences.py next.
"""

from shared.formulas._backend import check_shapes, namespace

PIXEL_BITS = 8


def centre(image):
    """An image as the encoders of Dreamer (TF2), DreamerV2 and DreamerV3 see it.

        x = image / 255 - 1/2

    Args:
      image: pixels 0 to 255 as floating point, (...).
    Returns:
      (...), in [-0.5, 0.5], no unit. Gradient 1 / 255.
    Raises:
      ValueError: image is not floating point.
    Source: authors' code of Dreamer (TF2) dreamer.py, DreamerV2 agent.py, DreamerV3 dreamerv3/rssm.py.
    """
    _check_image("centre", image, PIXEL_BITS)
    return image / (2**PIXEL_BITS - 1) - 0.5


def quantise(image, bits, noise=None):
    """Reduce an image to `bits` bits per channel and centre it.

        x = floor(image / 2^(8 - bits)) / 2^bits - 1/2 + noise / 2^bits

    Args:
      image: pixels 0 to 255 as floating point, (...).
      bits: bits kept per channel, 1 to 8 (PlaNet: 5).
      noise: uniform in [0, 1), (...), drawn by the caller; None = no dequantisation noise.
    Returns:
      (...), in [-0.5, 0.5), no unit. No gradient to image (floor); gradient 1 / 2^bits to noise.
    Raises:
      ValueError: image is not floating point, bits is out of range, or the shapes differ.
    Source: PlaNet (5 bits, as in Glow); Dreamer, TF1 (8 bits); authors' code tools/preprocess.py.
    """
    _check_image("quantise", image, bits)
    xp = namespace(image, noise)
    x = xp.floor(image / 2 ** (PIXEL_BITS - bits)) / 2**bits - 0.5
    if noise is None:
        return x
    check_shapes("quantise", image=image, noise=noise)
    return x + noise / 2**bits


def dequantise(image, bits):
    """The quantised level of a preprocessed image, as a fraction: removes centring and noise.

        level = floor(2^bits * (x + 1/2)) / 2^bits

    Args:
      image: x, output of `quantise` or of the decoder, floating point, (...).
      bits: bits kept per channel, 1 to 8.
    Returns:
      (...), in [0, 1) for inputs in [-0.5, 0.5). No gradient (floor).
    Raises:
      ValueError: image is not floating point, or bits is out of range.
    Source: authors' code of PlaNet, tools/preprocess.py (display).
    """
    xp = _check_image("dequantise", image, bits)
    return xp.floor(2**bits * (image + 0.5)) / 2**bits


def dequantise_uint8(image, bits):
    """A preprocessed or predicted image as pixels for display.

        pixel = min(max(256 * level, 0), 255),    level as in `dequantise`

    Args:
      image: x, output of `quantise` or of the decoder, floating point, (...).
      bits: bits kept per channel, 1 to 8.
    Returns:
      (...), uint8, 0 to 255. No gradient.
    Raises:
      ValueError: image is not floating point, or bits is out of range.
    Source: authors' code of PlaNet, tools/preprocess.py (display, uint8).
    """
    xp = _check_image("dequantise_uint8", image, bits)
    pixel = 2**PIXEL_BITS * dequantise(image, bits)
    return xp.astype(xp.clip(pixel, 0, 2**PIXEL_BITS - 1), xp.uint8)


def _check_image(function, image, bits):
    xp = namespace(image)
    if not xp.isdtype(image.dtype, "real floating"):
        raise ValueError(f"{function}: image is {image.dtype}, expected floating point; convert uint8 images once")
    if not 1 <= bits <= PIXEL_BITS:
        raise ValueError(f"{function}: bits is {bits}, expected 1 to {PIXEL_BITS}")
    return xp
