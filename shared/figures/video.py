"""Open-loop video prediction as a strip of frames and as an animated GIF.

A run's /video holds truth and prediction, (N, T, H, W, 3) uint8; the first `context` frames of a sequence were seen by
the model, the rest it had to imagine from the actions alone.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from shared.figures.page import INK, QUIET, STAMPS, Page

CONTEXT_COLOR = "#0072B2"
OPEN_LOOP_COLOR = "#D55E00"
ERROR_COLORS = "gist_heat_r"  # white where the prediction is right
ERROR_FULL = 0.5  # mean absolute error over channels that gets the darkest colour; images in [0, 1]
IMAGE_PIXELS, GAP_PIXELS = 64, 3  # of an image of the strip, and of the white between two
SPLIT = 0.10  # inches between context and open loop
LARGEST = 0.62  # inches, edge of an image when there are few
STRIP_HEAD, STRIP_FOOT = 0.32, 0.17
PANEL = 192  # pixels, one square of the GIF
GIF_MARGIN = 14  # pixels
FRAME_MILLISECONDS = 120
LAST_MILLISECONDS = 1500
ERROR_COLUMNS = ["sequence", "frame", "context", "error", "copy_error"]
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def shown_frames(length: int, context: int) -> list[int]:
    """Frames of the strip, counted from 1: the context, the first imagined one, then every fifth, as published.

    length: frames of a sequence; context: frames that the model saw. With 50 and 5: 1 to 5, 6, 10, 15, ..., 50.
    """
    first = context + 1
    return [
        *range(1, first),
        *([first] if length > context else []),
        *(f for f in range(5, length + 1, 5) if f > first),
    ]


def in_color(images: np.ndarray) -> np.ndarray:
    """Grey images with three equal channels. (..., 1 or 3) -> (..., 3)."""
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def absolute_error(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Mean absolute difference over the colour channels, images in [0, 1]. (..., H, W, 3) uint8 -> (..., H, W)."""
    return np.abs(truth.astype(np.float64) - prediction.astype(np.float64)).mean(axis=-1) / 255


def error_image(error: np.ndarray) -> np.ndarray:
    """An error map as colours. (..., H, W) in [0, 1] -> (..., H, W, 3) uint8."""
    colors = matplotlib.colormaps[ERROR_COLORS](np.clip(error / ERROR_FULL, 0, 1))
    return np.round(255 * colors[..., :3]).astype(np.uint8)


def frame_errors(truth: np.ndarray, prediction: np.ndarray, context: int) -> pd.DataFrame:
    """Error of every frame, beside a yardstick that knows nothing of motion: the last context frame, repeated.

    Returns columns: sequence, frame (from 1), context (seen by the model), error, copy_error: mean absolute error over
    pixels and channels, images in [0, 1]. copy_error is NaN within the context.
    """
    error = absolute_error(truth, prediction).mean(axis=(-2, -1))  # (N, T)
    copy = absolute_error(truth, truth[:, context - 1 : context]).mean(axis=(-2, -1))  # (N, T)
    copy[:, :context] = np.nan
    sequences, length = error.shape
    frame = np.tile(np.arange(1, length + 1), sequences)
    return pd.DataFrame(
        {
            "sequence": np.repeat(np.arange(sequences), length),
            "frame": frame,
            "context": frame <= context,
            "error": error.ravel(),
            "copy_error": copy.ravel(),
        },
        columns=ERROR_COLUMNS,
    )


def strip_sizes(length: int, context: int, width: float) -> tuple[float, float]:
    """Inches: edge of one image of the strip, and height of the strip without its head."""
    size = min((width - SPLIT) / len(shown_frames(length, context)), LARGEST)
    return size, 2 * size + STRIP_FOOT


def draw_strip_head(page: Page, top: float, left: float, width: float, length: int, context: int) -> float:
    """What the columns of a strip are: context or open loop, and the frames; returns the height below it."""
    size = strip_sizes(length, context, width)[0]
    for words, color, start, part in _parts(length, context, left, size):
        page.text(start, top - 0.10, words, fontsize=6.5, color=color, fontweight="bold")
        page.rule(start, start + len(part) * size - _gap(size), top - 0.15, 1.4, color)
        for column, frame in enumerate(part):
            middle = start + column * size + (size - _gap(size)) / 2
            page.text(middle, top - 0.27, str(frame), fontsize=6.5, color=INK, ha="center")
    return top - STRIP_HEAD


def draw_strip(
    page: Page, top: float, left: float, width: float, truth: np.ndarray, prediction: np.ndarray, context: int
) -> float:
    """Rows truth and model for one sequence, (T, H, W, 3), and the mean error of each frame; returns the height below.

    Everything in inches: top from the body's lower edge, left from the page's left edge.
    """
    size, whole = strip_sizes(len(truth), context, width)
    gap, error = _gap(size), absolute_error(truth, prediction)
    rows = {"truth": truth, "model": prediction}
    for _, _, start, part in _parts(len(truth), context, left, size):
        right = start + len(part) * size - gap
        for row, images in enumerate(rows.values()):
            axes = page.axes(start, top - (row + 1) * size + gap, right - start, size - gap)
            axes.imshow(_montage(images[np.array(part) - 1]), interpolation="nearest", aspect="auto")
            axes.set_axis_off()
        for column, frame in enumerate(part):
            middle, value = start + column * size + (size - gap) / 2, error[frame - 1].mean()
            page.text(middle, top - whole + 0.07, f"{value:.3f}", fontsize=5.6, color=QUIET, ha="center")
    for row, name in enumerate(rows):
        page.text(left - 0.08, top - (row + 0.5) * size, name, fontsize=6.5, color=INK, ha="right", va="center")
    page.text(left - 0.08, top - whole + 0.07, "error", fontsize=5.6, color=QUIET, ha="right")
    return top - whole


def _parts(length: int, context: int, left: float, size: float) -> list[tuple[str, str, float, list[int]]]:
    """(words, colour, left edge, frames) of the two parts of a strip; a part without frames is left out."""
    frames = shown_frames(length, context)
    parts = (
        ("context: seen by the model", CONTEXT_COLOR, left, [f for f in frames if f <= context]),
        ("open loop: predicted from actions alone", OPEN_LOOP_COLOR, left + context * size + SPLIT, frames[context:]),
    )
    return [part for part in parts if part[3]]


def _gap(size: float) -> float:
    """Inches of white between two images of a strip."""
    return size * GAP_PIXELS / (IMAGE_PIXELS + GAP_PIXELS)


def animation(truth: np.ndarray, prediction: np.ndarray, context: int, *, title: str, scale: str, footer: str) -> bytes:
    """A GIF: truth, prediction and error side by side; the border changes colour where the context ends.

    truth, prediction: (T, H, W, 3) uint8. One GIF frame per video frame; the last one stays longer.
    """
    error = error_image(absolute_error(truth, prediction))
    frames = [
        _gif_frame((truth[t], prediction[t], error[t]), t + 1, len(truth), context, title, scale, footer)
        for t in range(len(truth))
    ]
    return _gif_bytes(frames)


def notice(title: str, words: str, scale: str) -> bytes:
    """A GIF of one frame that says why there is no video."""
    blank = np.full((2, 2, 3), 244, np.uint8)
    return _gif_bytes([_gif_frame((blank, blank, blank), 0, 0, 0, title, scale, words)])


def _montage(images: np.ndarray) -> np.ndarray:
    """Images side by side with white gaps. (K, H, W, 3) -> (H, K * (W + gap) - gap, 3)."""
    padded = np.pad(images, ((0, 0), (0, 0), (0, GAP_PIXELS), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)[:, :-GAP_PIXELS]


def _gif_frame(
    images: Sequence[np.ndarray], frame: int, length: int, context: int, title: str, scale: str, footer: str
) -> Image.Image:
    top, bottom = 58, 30
    width = 3 * PANEL + 4 * GIF_MARGIN
    canvas = Image.new("RGB", (width, top + PANEL + bottom), "white")
    draw = ImageDraw.Draw(canvas)
    color = CONTEXT_COLOR if frame <= context else OPEN_LOOP_COLOR
    state = "context" if frame <= context else "open loop"
    draw.text((GIF_MARGIN, 8), title, fill=INK, font=_font(13))
    if length:
        words = f"frame {frame} of {length}: {state}"
        draw.text((width - GIF_MARGIN, 8), words, fill=color, font=_font(13), anchor="ra")
    for column, (name, image) in enumerate(zip(("truth", "prediction", "error"), images, strict=True)):
        x = GIF_MARGIN + column * (PANEL + GIF_MARGIN)
        draw.text((x, 34), name, fill=QUIET, font=_font(12))
        draw.rectangle((x - 4, top - 4, x + PANEL + 3, top + PANEL + 3), outline=color if length else QUIET, width=3)
        canvas.paste(Image.fromarray(image).resize((PANEL, PANEL), Image.Resampling.NEAREST), (x, top))
    draw.text((GIF_MARGIN, top + PANEL + 10), footer, fill=QUIET, font=_font(10))
    if scale in STAMPS:
        draw.text((width - GIF_MARGIN, 34), STAMPS[scale], fill="#B00020", font=_font(12), anchor="ra")
    return canvas


def _gif_bytes(frames: Sequence[Image.Image]) -> bytes:
    """Frames as one looping GIF, each with its own 256 colours, the same bytes every time."""
    small = [frame.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE) for frame in frames]
    durations = [FRAME_MILLISECONDS] * (len(frames) - 1) + [LAST_MILLISECONDS]
    target = io.BytesIO()
    small[0].save(target, format="GIF", save_all=True, append_images=small[1:], duration=durations, loop=0)
    return target.getvalue()


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT), size)
