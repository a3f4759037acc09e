"""Images: read, save, scale, write on, colour, blend and lay out in panels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from numpy.typing import ArrayLike, NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont, UnidentifiedImageError

from omma.errors import DataError

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
INK: Colour = (31, 35, 40)
GREY: Colour = (140, 149, 159)
LIGHT: Colour = (225, 228, 232)

_CJK_FONTS = (  # file names that Linux distributions, macOS and Windows give to fonts with Hangul and Han
    *(
        "NotoSansCJK-Regular.ttc",
        "NotoSansKR-Regular.otf",
        "NanumGothic.ttf",
        "UnDotum.ttf",
        "wqy-zenhei.ttc",
    ),
    *("AppleSDGothicNeo.ttc", "PingFang.ttc", "malgun.ttf", "msyh.ttc", "batang.ttc"),
)


def read_image(path: Path) -> Image:
    """Read a picture of any common format as (H, W, 3) uint8 RGB.

    Raises:
        DataError: if the file is no picture or is cut short.
    """
    try:
        with Pillow.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{path}: not a readable picture ({error})") from error


def save_png(path: Path, image: Image) -> None:
    """Write an (H, W, 3) uint8 RGB image; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(image).save(path, format="PNG")


def resize_photo(image: Image, height: int, width: int) -> Image:
    """Scale with antialiasing, for camera images and finished drawings."""
    return np.asarray(Pillow.fromarray(image).resize((width, height), Pillow.Resampling.LANCZOS))


def resize_map(image: Image, height: int, width: int) -> Image:
    """Scale by nearest neighbour, so that cells stay sharp and no colours appear in between."""
    return np.asarray(Pillow.fromarray(image).resize((width, height), Pillow.Resampling.NEAREST))


@functools.cache
def _cjk_font(size: int) -> ImageFont.FreeTypeFont | None:
    for name in _CJK_FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return None


@functools.cache
def _latin_font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """A TrueType font that can show the text; Hangul and Han need a font of the system's."""
    needs_cjk = any(character >= "\u1100" for character in text)
    return (_cjk_font(size) if needs_cjk else None) or _latin_font(size)


def text_width(text: str, size: int) -> int:
    """Width of a line of text in pixels."""
    return round(font_for(text, size).getlength(text))


def shorten(text: str, size: int, width: int) -> str:
    """The text, cut with an ellipsis if it is wider than `width` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(f"{text}…", size) > width:
        text = text[:-1]
    return f"{text}…"


def draw_text(
    image: Image,
    text: str,
    xy: tuple[float, float],
    *,
    size: int = 14,
    colour: Colour = INK,
    anchor: str = "la",
    box: Colour | None = None,
) -> Image:
    """Write a line of text.

    Args:
        image: the picture; not changed.
        text: one line in any script that a font of the system covers.
        xy: anchor point in pixels.
        size: font size in pixels.
        colour: of the letters.
        anchor: Pillow's two-letter anchor, horizontal "l", "m", "r" and vertical "a", "m", "s", "d".
        box: colour of a filled box behind the text; None draws none.

    Returns:
        a new image.
    """
    picture = Pillow.fromarray(image)
    draw = ImageDraw.Draw(picture)
    font = font_for(text, size)
    if box is not None:
        left, top, right, bottom = draw.textbbox(xy, text, font=font, anchor=anchor)
        draw.rectangle((left - 3, top - 2, right + 3, bottom + 2), fill=box)
    draw.text(xy, text, fill=colour, font=font, anchor=anchor)
    return np.asarray(picture)


def colour_map(
    values: ArrayLike,
    *,
    name: str = "turbo",
    lowest: float | None = None,
    highest: float | None = None,
    missing: Colour = (0, 0, 0),
) -> Image:
    """Colour an array of numbers.

    Args:
        values: (H, W) numbers; NaN and infinities count as missing.
        name: matplotlib colour map.
        lowest: value of the first colour; default the smallest finite value.
        highest: value of the last colour; default the largest finite value.
        missing: colour where there is no value.

    Returns:
        (H, W, 3) uint8.
    """
    numbers = np.asarray(values, dtype=np.float64)
    valid = np.isfinite(numbers)
    if not valid.any():
        return np.broadcast_to(np.array(missing, np.uint8), (*numbers.shape, 3)).copy()
    low = numbers[valid].min() if lowest is None else lowest
    high = numbers[valid].max() if highest is None else highest
    scaled = np.where(valid, (numbers - low) / max(high - low, 1e-12), 0.0)
    coloured = (colormaps[name](np.clip(scaled, 0.0, 1.0))[..., :3] * 255).round().astype(np.uint8)
    coloured[~valid] = missing
    return coloured


def blend(image: Image, colour: Colour | Image, opacity: ArrayLike) -> Image:
    """Lay a colour or another image over an image.

    Args:
        image: (H, W, 3).
        colour: one colour, or an image of the same shape.
        opacity: one number, or (H, W), in [0, 1].

    Returns:
        a new image.
    """
    alpha = np.asarray(opacity, dtype=np.float32)
    alpha = alpha[..., None] if alpha.ndim == 2 else alpha
    over = np.asarray(colour, dtype=np.float32)
    return (image * (1 - alpha) + over * alpha).round().astype(np.uint8)


class Beside(Protocol):
    """What stands at the right of a tile, drawn at the height that the tile has in the panel."""

    width: int

    def draw(self, height: int) -> Image:
        """(height, width, 3)."""
        ...


@dataclass(frozen=True)
class Tile:
    """One picture of a panel with the line above it, and what stands beside it."""

    image: Image
    caption: str = ""
    beside: Beside | None = None

    @property
    def extra(self) -> int:
        """Pixels that the tile needs at its right."""
        return self.beside.width if self.beside else 0


def _row_height(tiles: Sequence[Tile], width: int, gap: int) -> int:
    """The height at which the tiles, side by side at their own aspect, fill `width`."""
    aspect = sum(tile.image.shape[1] / tile.image.shape[0] for tile in tiles)
    taken = gap * (len(tiles) - 1) + sum(tile.extra for tile in tiles)
    return max(1, int((width - taken) / aspect))


def panel(
    rows: Sequence[Sequence[Tile]],
    *,
    width: int = 1200,
    title: str = "",
    gap: int = 8,
    margin: int = 16,
    max_row_height: int = 720,
) -> Image:
    """Rows of pictures, each row scaled to the full width, captions above.

    Args:
        rows: tiles from left to right, rows from top to bottom; rows may differ in length.
        width: of the finished panel in pixels.
        title: first line; none if empty.
        gap: pixels between tiles.
        margin: pixels around everything.
        max_row_height: a row of few or tall tiles stops growing here and stands in the middle.

    Returns:
        (H, width, 3).
    """
    parts = [_title_bar(title, width, margin)] if title else []
    inner = width - 2 * margin
    for row in rows:
        height = min(_row_height(row, inner, gap), max_row_height)
        parts.append(_row_strip(row, height, width, gap, margin))
    parts.append(np.full((margin - gap if margin > gap else 1, width, 3), 255, np.uint8))
    return np.concatenate([np.full((margin, width, 3), 255, np.uint8), *parts])


def _title_bar(title: str, width: int, margin: int) -> Image:
    bar = np.full((30, width, 3), 255, np.uint8)
    return draw_text(bar, shorten(title, 18, width - 2 * margin), (margin, 0), size=18)


def _row_strip(row: Sequence[Tile], height: int, width: int, gap: int, margin: int) -> Image:
    head = 20 if any(tile.caption for tile in row) else 0
    widths = [max(1, round(height * tile.image.shape[1] / tile.image.shape[0])) for tile in row]
    strip = np.full((head + height + gap, width, 3), 255, np.uint8)
    taken = sum(widths) + sum(tile.extra for tile in row) + gap * (len(row) - 1)
    left = max(margin, (width - taken) // 2)
    for tile, tile_width in zip(row, widths, strict=True):
        cut = min(tile_width, width - left)
        strip[head : head + height, left : left + cut] = resize_photo(tile.image, height, tile_width)[:, :cut]
        if tile.caption:
            room = tile_width + tile.extra
            strip = draw_text(strip, shorten(tile.caption, 13, room), (left, 2), size=13).copy()
        left += tile_width
        if tile.beside:
            side = tile.beside.draw(height)[:, : max(width - left, 0)]
            strip[head : head + height, left : left + side.shape[1]] = side
        left += tile.extra + gap
    return strip
