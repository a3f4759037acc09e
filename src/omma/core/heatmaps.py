"""Joints to heatmaps and back (DARK, arXiv 1910.06278; UDP, arXiv 1911.07524). User: sdpose.

Heatmap coordinates are x, y in cells; cell (0, 0) has its centre at (0, 0). Everything runs where the tensors
are, for all joints of a batch at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from omma.core.keypoints import FLIP_PAIRS, mirrored_order

Encoding = Literal["unbiased", "classic", "udp", "megvii"]
Decoding = Literal["unbiased", "default", "none", "udp", "megvii"]

_DRAWN = 0.5  # a joint of less weight keeps it, but its map stays empty
_PATCH_SIGMAS = 3
_FULL_SCALE = 255.0  # peak of a megvii target
_BLUR_SIGMA, _BLUR_RADIUS = 2.0, 5  # of decoding; an 11 x 11 kernel
_NEAR = 2  # cells around a peak that DARK looks at
_PATCH = 2 * (_NEAR + _BLUR_RADIUS) + 1  # cells that these are blurred from
_SMALLEST = 1e-10
_UDP_RANGE = (1e-3, 50.0)
_EPS = torch.finfo(torch.float32).eps


def encode(
    joints: Tensor,
    visible: Tensor,
    size: tuple[int, int],
    *,
    encoding: Encoding = "unbiased",
    sigma: float = 2.0,
    stride: int = 4,
) -> tuple[Tensor, Tensor]:
    """Target heatmaps of joints.

    unbiased draws a Gaussian around the exact place over the whole map; classic around the nearest cell and
    udp around the exact place, both cut off at 3 sigma; megvii blurs the cell that holds the joint and has
    peaks of 255. A joint whose patch lies outside the map has weight 0 and an empty map.

    Args:
        joints: (B, K, 2) x, y in pixels of the crop.
        visible: (B, K) weight in [0, 1]; up to 0.5 the map stays empty.
        size: (h, w) of a heatmap.
        encoding: the form.
        sigma: standard deviation in cells.
        stride: pixels of the crop a cell.

    Returns:
        target (B, K, h, w) float32 and weight (B, K, 1) float32.
    """
    height, width = size
    cells = torch.tensor([width, height], dtype=torch.float32, device=joints.device)
    step = (cells * stride - 1) / (cells - 1) if encoding == "udp" else torch.full_like(cells, stride)
    exact = joints.float() / step
    if encoding == "megvii":
        target, inside = _blurred_cells(exact.trunc().long(), size, sigma)
    elif encoding == "unbiased":
        inside = _overlaps(exact, _PATCH_SIGMAS * sigma, cells)
        target = _gaussians(exact, size, sigma)
    else:
        nearest, reach = (exact + 0.5).trunc(), int(_PATCH_SIGMAS * sigma)
        inside = _overlaps(nearest, reach, cells)
        target = _gaussians(exact if encoding == "udp" else nearest, size, sigma)
        target = target * _within(nearest, size, reach)
    weight = visible.float() * inside
    drawn = (weight > _DRAWN)[..., None, None]
    return torch.where(drawn, target, 0.0), weight[..., None]


def _overlaps(centres: Tensor, reach: float, cells: Tensor) -> Tensor:
    """Whether a patch around `centres` (B, K, 2) touches a map of so many columns and rows; bool (B, K)."""
    return ((centres - reach < cells) & (centres + reach + 1 >= 0)).all(-1)


def _axes(size: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Columns (w,) and rows (h,)."""
    rows, columns = (torch.arange(length, dtype=torch.float32, device=like.device) for length in size)
    return columns, rows


def _gaussians(centres: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """(B, K, h, w) with peaks of 1 at `centres` (B, K, 2)."""
    parts = [
        torch.exp(-((axis - centres[..., place, None]) ** 2) / (2 * sigma**2))
        for place, axis in enumerate(_axes(size, centres))
    ]
    return parts[1][..., :, None] * parts[0][..., None, :]


def _within(centres: Tensor, size: tuple[int, int], reach: int) -> Tensor:
    """Cells at most `reach` rows and columns from `centres` (B, K, 2); bool (B, K, h, w)."""
    parts = [
        (axis - centres[..., place, None]).abs() <= reach for place, axis in enumerate(_axes(size, centres))
    ]
    return parts[1][..., :, None] & parts[0][..., None, :]


def _blurred_cells(cells: Tensor, size: tuple[int, int], sigma: float) -> tuple[Tensor, Tensor]:
    """One cell of each map blurred, 255 in it; and which cells lie in the map."""
    lengths = torch.tensor([size[1], size[0]], device=cells.device)
    inside = ((cells >= 0) & (cells < lengths)).all(-1)
    parts = []
    for place, length in enumerate((size[1], size[0])):
        index = cells[..., place].clamp(0, length - 1)
        spread = _blur_matrix(length, sigma, reflect=True).to(cells.device)[index]
        parts.append(spread / spread.gather(-1, index[..., None]))
    return _FULL_SCALE * parts[1][..., :, None] * parts[0][..., None, :], inside


@lru_cache(maxsize=8)
def _blur_matrix(length: int, sigma: float, *, reflect: bool) -> Tensor:
    """Row i is what blurring a line with a one at i gives; outside lies its mirror image, or 0."""
    radius = round((sigma - 0.8) / 0.3) + 1  # of the kernel whose usual sigma this is
    kernel = _kernel(sigma, radius)
    matrix = torch.zeros(length, length)
    for output in range(length):
        for offset in range(-radius, radius + 1):
            source = output + offset
            if reflect:
                source = abs(source)
                source = 2 * (length - 1) - source if source >= length else source
            if 0 <= source < length:
                matrix[source, output] += kernel[offset + radius]
    return matrix


def _kernel(sigma: float, radius: int) -> Tensor:
    """A Gaussian of sum 1, (2 * radius + 1,)."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    values = torch.exp(-(offsets**2) / (2 * sigma**2))
    return (values / values.sum()).float()


def decode(
    heatmaps: Tensor, *, method: Decoding = "unbiased", largest_step: float | None = None
) -> tuple[Tensor, Tensor]:
    """The place and the height of each map's peak.

    none takes the highest cell, default moves a quarter cell towards its higher neighbours, unbiased takes a
    Newton step on the logarithm of the blurred map (DARK), udp likewise without bounds, megvii blurs first.
    A map without a value above 0 gives (-1, -1).

    Args:
        heatmaps: (B, K, h, w).
        method: see above.
        largest_step: longer Newton steps, in cells, are not taken; None takes all.

    Returns:
        coords (B, K, 2) float32 x, y in cells, and scores (B, K) float32: the peak before any blur, of megvii
        that of the blurred map on its own scale.
    """
    maps = heatmaps.float()
    if method == "megvii":
        maps = _blurred_to_peaks(maps)
    coords, scores = highest_cells(maps)
    if method == "default":
        return _quarter_step(maps, coords), scores
    if method == "megvii":
        moved = _quarter_step(maps, coords)
        return torch.where(_interior(maps, coords, 1), moved + 0.5, moved), scores / _FULL_SCALE + 0.5
    if method == "unbiased":
        inside = _interior(maps, coords, _NEAR)
        around = _logarithms_around(maps, coords, scores, inside)
        step = _newton_step(lambda dx, dy: around[..., _NEAR + dy, _NEAR + dx], spacing=_NEAR)
        return _moved(coords, step, inside, largest_step), scores
    if method == "udp":
        blurred = _blur(maps, reflect=True)
        step = _newton_step(lambda dx, dy: _at(blurred, coords, dx, dy).clamp(*_UDP_RANGE).log(), spacing=1)
        return _moved(coords, step, torch.ones_like(step, dtype=torch.bool), largest_step), scores
    return coords, scores


def highest_cells(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """The highest cell (B, K, 2) x, y of each map, (-1, -1) where it is not above 0, and its value (B, K)."""
    flat = heatmaps.flatten(2)
    if flat.device.type == "cpu" and not flat.requires_grad:  # ten times as fast as PyTorch's
        index = torch.from_numpy(flat.numpy().argmax(-1))
    else:
        index = flat.argmax(-1)
    scores = flat.gather(-1, index[..., None])[..., 0]
    width = heatmaps.shape[-1]
    coords = torch.stack([index % width, index // width], -1).float()
    return torch.where((scores > 0)[..., None], coords, -1.0), scores


def _interior(maps: Tensor, coords: Tensor, margin: int) -> Tensor:
    """Whether more than `margin` cells lie on each side of a peak's first and last cell; (B, K, 1)."""
    last = torch.tensor([maps.shape[-1], maps.shape[-2]], device=coords.device) - margin
    return ((coords > 1) & (coords < last)).all(-1, keepdim=True)


def _at(maps: Tensor, coords: Tensor, dx: int, dy: int) -> Tensor:
    """Values (B, K) at an offset from cells `coords`; cells outside take the nearest one."""
    height, width = maps.shape[-2:]
    column = (coords[..., 0].long() + dx).clamp(0, width - 1)
    row = (coords[..., 1].long() + dy).clamp(0, height - 1)
    return maps.flatten(2).gather(-1, (row * width + column)[..., None])[..., 0]


def _slopes(maps: Tensor, coords: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, (B, K) each."""
    along_x = _at(maps, coords, 1, 0) - _at(maps, coords, -1, 0)
    along_y = _at(maps, coords, 0, 1) - _at(maps, coords, 0, -1)
    return along_x, along_y


def _quarter_step(maps: Tensor, coords: Tensor) -> Tensor:
    step = torch.stack(_slopes(maps, coords), -1).sign() * 0.25
    return torch.where(_interior(maps, coords, 1), coords + step, coords)


def _newton_step(log: Callable[[int, int], Tensor], *, spacing: int) -> Tensor:
    """From a cell to the top of the parabola through logarithms around it, (B, K, 2); 0 where there is none.

    Args:
        log: logarithms (B, K) of the map at an offset of columns and rows from the cell.
        spacing: cells between the values of second differences along an axis: 2 as in DARK, 1 as in UDP.
    """
    s, here = spacing, log(0, 0)
    right, left, below, above = log(1, 0), log(-1, 0), log(0, 1), log(0, -1)
    slope_x, slope_y = 0.5 * (right - left), 0.5 * (below - above)
    rising = log(1, 1) + log(-1, -1)
    if spacing == 1:
        xx, yy = right - 2 * here + left + _EPS, below - 2 * here + above + _EPS
        xy = 0.5 * ((rising + 2 * here) - (right + left + below + above))
    else:
        xx = (log(s, 0) - 2 * here + log(-s, 0)) / s**2
        yy = (log(0, s) - 2 * here + log(0, -s)) / s**2
        xy = 0.25 * (rising - log(1, -1) - log(-1, 1))
    determinant = xx * yy - xy**2
    safe = torch.where(determinant == 0, 1.0, determinant)
    step = torch.stack([xy * slope_y - yy * slope_x, xy * slope_x - xx * slope_y], -1) / safe[..., None]
    return torch.where((determinant == 0)[..., None], 0.0, step)


def _moved(coords: Tensor, step: Tensor, allowed: Tensor, largest_step: float | None) -> Tensor:
    if largest_step is not None:
        allowed = allowed & (step.norm(dim=-1, keepdim=True) <= largest_step)
    return torch.where(allowed, coords + step, coords)


def _logarithms_around(maps: Tensor, coords: Tensor, peaks: Tensor, inside: Tensor) -> Tensor:
    """Logarithms of the 5 x 5 cells around each peak of the map blurred, with 0 outside, and scaled to it.

    Only these cells are blurred, a fraction of the work of whole maps. The scale drops out of differences of
    logarithms, so it is worked out only where a value is so small that it is clamped.

    Args:
        maps: (B, K, h, w).
        coords: cells (B, K, 2) x, y.
        peaks: highest values (B, K).
        inside: whether all of these cells lie in the map, (B, K, 1).

    Returns:
        (B, K, 5, 5); nothing of meaning where they do not.
    """
    height, width = maps.shape[-2:]
    rows, columns = min(_PATCH, height), min(_PATCH, width)
    x, y = coords.flatten(0, 1).long().clamp(min=0).unbind(-1)
    top, left = _first_cell(y, height, rows), _first_cell(x, width, columns)
    # a row of a patch is copied in one piece: windows of the flat maps, of which one starts at every cell
    cells = maps.contiguous().view(-1)
    windows = cells.as_strided((len(cells) - columns + 1, columns), (1, 1))
    firsts = torch.arange(len(x), device=maps.device) * (height * width) + top * width + left
    starts = firsts[:, None] + torch.arange(rows, device=maps.device) * width
    patch = windows.index_select(0, starts.flatten()).view(len(x), rows, columns)
    vertical, horizontal = (
        _blur_windows(length, size).to(maps.device) for length, size in ((height, rows), (width, columns))
    )
    with torch.autocast(maps.device.type, enabled=False):
        blurred = vertical[y] @ patch @ horizontal[x].transpose(-1, -2)
    clamped = (blurred <= _SMALLEST).flatten(1).any(1) & inside.flatten()
    if clamped.any():
        highest = _blur(maps.flatten(0, 1)[None, clamped], reflect=False)[0].amax((-2, -1))
        blurred[clamped] *= (peaks.flatten()[clamped] / highest)[:, None, None]
    return blurred.clamp(min=_SMALLEST).log().view(*peaks.shape, *blurred.shape[1:])


def _first_cell(place: Tensor | int, length: int, size: int) -> Tensor:
    """Where a window of `size` cells around a place starts if it has to lie within a line."""
    return torch.as_tensor(place - size // 2).clamp(0, length - size)


@lru_cache(maxsize=8)
def _blur_windows(length: int, size: int) -> Tensor:
    """For a peak at each cell of a line, what its window weighs in the five cells around.

    Returns:
        (length, 5, size).
    """
    line = F.pad(_blur_matrix(length, _BLUR_SIGMA, reflect=False), (_NEAR, _NEAR))
    windows = []
    for place in range(length):
        first = int(_first_cell(place, length, size))
        windows.append(line[first : first + size, place : place + 2 * _NEAR + 1].T)
    return torch.stack(windows)


def _blurred_to_peaks(maps: Tensor) -> Tensor:
    """Each map (B, K, h, w) blurred, with 0 outside, and scaled back to its old maximum."""
    blurred = _blur(maps, reflect=False)
    return blurred * (maps.amax((-2, -1), keepdim=True) / blurred.amax((-2, -1), keepdim=True))


def _blur(maps: Tensor, *, reflect: bool) -> Tensor:
    """Each map (B, K, h, w) blurred by 11 x 11 cells; outside lies its mirror image, or 0.

    By products with band matrices, which is faster than convolving one channel.
    """
    rows, columns = (
        _blur_matrix(length, _BLUR_SIGMA, reflect=reflect).to(maps.device) for length in maps.shape[-2:]
    )
    with torch.autocast(maps.device.type, enabled=False):
        return rows.T @ (maps @ columns)


def flip_back(
    heatmaps: Tensor, pairs: Sequence[tuple[int, int]] = FLIP_PAIRS, *, shift: bool = True
) -> Tensor:
    """Heatmaps of a mirrored crop as those of the crop itself.

    Args:
        heatmaps: (B, K, h, w) of the mirrored crop.
        pairs: left and right joints.
        shift: move one cell to the right, as mirroring pixels of a stride of 4 is off by 3/4 of a cell; the
            first column stays.
    """
    mirrored = heatmaps[:, mirrored_order(tuple(pairs), heatmaps.shape[1])].flip(-1)
    return torch.cat([mirrored[..., :1], mirrored[..., :-1]], -1) if shift else mirrored


def to_image(
    coords: Tensor, center: Tensor, scale: Tensor, size: tuple[int, int], *, udp: bool = False
) -> Tensor:
    """Heatmap coordinates of upright crops in pixels of their images.

    Args:
        coords: (B, K, 2) x, y in cells.
        center: (B, 2) x, y of the crop's centre in the image.
        scale: (B, 2) width and height of the crop in the image, over 200 pixels.
        size: (h, w) of the heatmaps.
        udp: whether the first and the last cell lie on the crop's edges.

    Returns:
        (B, K, 2) float32 x, y in pixels of the image.
    """
    cells = coords.new_tensor([size[1], size[0]]) - (1 if udp else 0)
    extent = scale * 200.0
    return coords * (extent / cells)[:, None] + (center - 0.5 * extent)[:, None]
