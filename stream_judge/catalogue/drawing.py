"""Draws a product as a simple illustration: same generator state, same bytes."""

from __future__ import annotations

import colorsys
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from stream_judge.catalogue.attributes import COLOURS, PATTERNS, Product
from stream_judge.catalogue.shapes import SHAPES, Piece

Rgb = tuple[int, int, int]
Format = Literal["JPEG", "PNG", "WEBP"]

_SUPERSAMPLE = 2
# Hue in degrees, saturation and value in per cent. The ranges leave gaps, so that no light or
# shading used here carries one colour into another's name.
_RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-7, 3), (82, 95), (72, 88)),
    "orange": ((24, 31), (90, 100), (96, 100)),
    "yellow": ((50, 57), (75, 92), (95, 100)),
    "green": ((112, 150), (55, 85), (48, 72)),
    "blue": ((206, 228), (72, 92), (65, 92)),
    "purple": ((268, 282), (55, 78), (52, 72)),
    "pink": ((328, 342), (34, 50), (96, 100)),
    "brown": ((19, 27), (58, 74), (36, 48)),
    "black": ((0, 360), (0, 14), (8, 15)),
    "white": ((0, 360), (0, 3), (96, 100)),
}
# These carry a dark pattern, the others a pale one.
_PALE = frozenset({"orange", "yellow", "pink", "white"})


@dataclass(frozen=True, slots=True)
class _Look:
    """How every item of one picture is painted."""

    colour: Rgb
    shade: Rgb
    dark: Rgb
    light: Rgb
    metal: Rgb
    ink: Rgb
    outline: Rgb
    pattern: str
    period: float
    duty: float
    angle: float
    line: float
    shine: float


@dataclass(frozen=True, slots=True)
class _Item:
    """One placed item: its pieces in canvas coordinates (pixels of the large canvas)."""

    pieces: list[Piece]
    centre: tuple[float, float]
    turn: float
    bounds: tuple[float, float, float, float]


def _hsv(hue: float, saturation: float, value: float) -> Rgb:
    red, green, blue = colorsys.hsv_to_rgb((hue / 360.0) % 1.0, saturation / 100, value / 100)
    return round(red * 255), round(green * 255), round(blue * 255)


def _times(colour: Rgb, factor: float, lift: float = 0.0) -> Rgb:
    red, green, blue = (int(min(255, max(0, c * factor + lift))) for c in colour)
    return red, green, blue


def _luma(colour: Rgb) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _look(product: Product, rng: np.random.Generator, unit: float, span: float) -> _Look:
    """Colours and pattern for items that are `span` canvas pixels across their shorter side.

    `unit` is a 64th of the picture's shorter side, in canvas pixels.
    """
    name = COLOURS[product.colour]
    hue, saturation, value = (rng.uniform(*limits) for limits in _RANGES[name])
    colour = _hsv(hue, saturation, value)
    if name in _PALE:
        ink = _hsv(rng.uniform(0, 360), rng.uniform(0, 25), rng.uniform(12, 22))
    else:
        ink = _hsv(rng.uniform(35, 60), rng.uniform(0, 8), rng.uniform(95, 100))
    if name == "black":
        shade, dark, light = _times(colour, 1, 26), _times(colour, 1, 48), _times(colour, 1, 62)
        outline = _times(colour, 1, 55)
    else:
        shade, dark = _times(colour, 0.8), _times(colour, 0.58)
        light, outline = _times(colour, 0.7, 76), _times(colour, 0.5)
    # Fine enough to repeat on the item, coarse enough to survive 64 pixels.
    widest = max(6.4, min(10.5, 0.3 * span / unit))
    period = rng.uniform(6.0, widest) * unit
    grey = rng.uniform(150, 190)
    return _Look(
        colour=colour,
        shade=shade,
        dark=dark,
        light=light,
        metal=_times((255, 255, 255), grey / 255),
        ink=ink,
        outline=outline,
        pattern=PATTERNS[product.pattern],
        period=period,
        duty=rng.uniform(0.34, 0.42),
        angle=rng.uniform(0, np.pi),
        line=max(1.0, rng.uniform(0.45, 0.75) * unit),
        shine=rng.uniform(0, 2 * np.pi),
    )


def _texture(
    look: _Look, item: _Item, size: tuple[int, int], corner: tuple[int, int]
) -> Image.Image:
    """The product's colour with its pattern, turned with the item; RGB of `size`."""
    if look.pattern == "plain":
        return Image.new("RGB", size, look.colour)
    columns = np.arange(size[0], dtype=np.float32) + np.float32(corner[0] - item.centre[0])
    rows = np.arange(size[1], dtype=np.float32) + np.float32(corner[1] - item.centre[1])
    turn = look.angle + item.turn
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    along = columns[None, :] * cos + rows[:, None] * sin
    if look.pattern == "striped":
        marks = (along / np.float32(look.period) + 0.2) % 1.0 < look.duty
    else:
        across = rows[:, None] * cos - columns[None, :] * sin
        marks = _dots(along, across, look)
    stencil = Image.fromarray(marks.astype(np.uint8) * 255)
    texture = Image.new("RGB", size, look.colour)
    texture.paste(look.ink, (0, 0), stencil)
    return texture


def _dots(
    along: npt.NDArray[np.float32], across: npt.NDArray[np.float32], look: _Look
) -> npt.NDArray[np.bool_]:
    """Where the dots of a hexagonal lattice are; same shape as the coordinates."""
    pitch = np.float32(look.period * 1.08)
    height = np.float32(pitch * np.sqrt(3))
    radius = np.float32(look.period * (0.26 + look.duty * 0.1))
    marks = np.zeros(along.shape, dtype=np.bool_)
    for shift in (np.float32(0.0), np.float32(0.5)):
        x = along / pitch + shift
        y = across / height + shift
        x = (x - np.rint(x)) * pitch
        y = (y - np.rint(y)) * height
        marks |= x * x + y * y < radius * radius
    return marks


def _layouts(count: int) -> list[list[tuple[float, float, float, float]]]:
    """Ways to split the unit square into `count` cells (left, top, right, bottom)."""
    third = 1 / 3
    if count == 1:
        return [[(0, 0, 1, 1)]]
    if count == 2:
        return [
            [(0, 0, 0.5, 1), (0.5, 0, 1, 1)],
            [(0, 0, 1, 0.5), (0, 0.5, 1, 1)],
            [(0, 0, 0.54, 0.54), (0.46, 0.54, 1, 1)],
            [(0.46, 0, 1, 0.54), (0, 0.54, 0.54, 1)],
        ]
    return [
        [(0, 0, third, 1), (third, 0, 2 * third, 1), (2 * third, 0, 1, 1)],
        [(0, 0, 1, third), (0, third, 1, 2 * third), (0, 2 * third, 1, 1)],
        [(0.2, 0, 0.8, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1)],
        [(0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0.2, 0.5, 0.8, 1)],
        [(0, 0.2, 0.5, 0.8), (0.5, 0, 1, 0.5), (0.5, 0.5, 1, 1)],
        [(0, 0, 0.5, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.2, 1, 0.8)],
    ]


def _turned(pieces: list[Piece], turn: float) -> list[Piece]:
    """The pieces turned by an angle in radians and centred on their bounding box."""
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, sin], [-sin, cos]])
    turned = [piece.points @ matrix for piece in pieces]
    everything = np.concatenate(turned)
    middle = (everything.min(axis=0) + everything.max(axis=0)) / 2
    return [Piece(p - middle, piece.role) for p, piece in zip(turned, pieces, strict=True)]


def _extent(pieces: list[Piece]) -> npt.NDArray[np.float64]:
    """Width and height of the pieces' bounding box, float64 [2]."""
    everything = np.concatenate([piece.points for piece in pieces])
    extent: npt.NDArray[np.float64] = everything.max(axis=0) - everything.min(axis=0)
    return extent


def _place(product: Product, rng: np.random.Generator, width: int, height: int) -> list[_Item]:
    """The items side by side within the centre square, which the processor keeps."""
    pieces = SHAPES[product.category](rng)
    if rng.random() < 0.5:
        flip = np.array([-1.0, 1.0])
        pieces = [Piece(piece.points * flip, piece.role) for piece in pieces]
    count = product.count + 1
    lean = rng.normal(0, 0.07)
    turns = [float(np.clip(lean + rng.normal(0, 0.06), -0.28, 0.28)) for _ in range(count)]
    looks = [_turned(pieces, turn) for turn in turns]
    extents = np.stack([_extent(look) for look in looks])
    side = min(width, height)
    margin = 0.035
    layouts = _layouts(count)
    cells = np.array(layouts) * (1 - 2 * margin) + margin
    room = cells[..., 2:] - cells[..., :2] - (0.022 if count > 1 else 0.0)
    fits = (room / extents[None]).min(axis=(1, 2))
    chances = np.where(fits >= 0.87 * fits.max(), fits**2, 0.0)
    chosen = int(rng.choice(len(layouts), p=chances / chances.sum()))
    scale = fits[chosen] * rng.uniform((0.68, 0.87, 0.93)[count - 1], 1.0)
    corner = np.array([width - side, height - side]) / 2
    items = []
    for look, turn, cell, extent in zip(looks, turns, cells[chosen], extents, strict=True):
        slack = np.maximum(cell[2:] - cell[:2] - extent * scale - 0.02, 0.0) / 2
        centre = (cell[:2] + cell[2:]) / 2 + rng.uniform(-1, 1, 2) * slack * 0.8
        centre = corner + centre * side
        placed = [Piece(p.points * (scale * side) + centre, p.role) for p in look]
        half = extent * scale * side / 2
        low, high = centre - half, centre + half
        bounds = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        items.append(_Item(placed, (float(centre[0]), float(centre[1])), turn, bounds))
    return items


def _paint(canvas: Image.Image, mask: Image.Image, item: _Item, look: _Look) -> None:
    """Paints one item on the RGB canvas and marks it in the mask (L), both of one size."""
    pad = int(look.line * 2) + 2
    left, top = int(item.bounds[0]) - pad, int(item.bounds[1]) - pad
    right, bottom = int(item.bounds[2]) + pad + 1, int(item.bounds[3]) + pad + 1
    size = (right - left, bottom - top)
    texture = _texture(look, item, size, (left, top))
    sprite = Image.new("RGB", size, look.outline)
    outline = Image.new("L", size, 0)
    pen, marker = ImageDraw.Draw(sprite), ImageDraw.Draw(outline)
    paints = {"shade": look.shade, "dark": look.dark, "light": look.light, "metal": look.metal}
    thin = max(1, round(look.line))
    for piece in item.pieces:
        shifted = (piece.points - (left, top)).ravel().tolist()
        if piece.role == "line":
            pen.line(shifted, fill=look.outline, width=thin, joint="curve")
            continue
        if piece.role == "body":
            stencil = Image.new("L", size, 0)
            ImageDraw.Draw(stencil).polygon(shifted, fill=255)
            sprite.paste(texture, (0, 0), stencil)
        else:
            pen.polygon(shifted, fill=paints[piece.role])
        edge = shifted + shifted[:2]
        pen.line(edge, fill=look.outline, width=thin, joint="curve")
        marker.polygon(shifted, fill=255)
        marker.line(edge, fill=255, width=thin, joint="curve")
    sprite = ImageChops.multiply(sprite, _shading(size, look.shine))
    canvas.paste(sprite, (left, top), outline)
    mask.paste(255, (left, top), outline)


def _shading(size: tuple[int, int], direction: float) -> Image.Image:
    """A soft light from one side, as grey RGB factors of `size`."""
    span = np.linspace(-1, 1, 9)
    slope = span[None, :] * np.cos(direction) + span[:, None] * np.sin(direction)
    grey = (238 + 17 * np.clip(slope * 1.3, -1.6, 1)).astype(np.uint8)
    small = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR)
    return Image.merge("RGB", (small, small, small))


def _ground_colour(rng: np.random.Generator, look: _Look, near: Rgb | None = None) -> Rgb:
    """A muted colour that stands apart from the product's colour and from its pattern."""
    best, apart = (128, 128, 128), -1.0
    own = np.array(look.colour, dtype=np.float64)
    for _ in range(12):
        if near is None:
            colour = _hsv(rng.uniform(0, 360), rng.uniform(0, 24), rng.uniform(32, 97))
        else:
            colour = _times(near, rng.uniform(0.74, 1.2), rng.uniform(-8, 8))
        distance = float(np.abs(np.array(colour) - own).sum()) / 3
        distance = min(distance, 1.4 * abs(_luma(colour) - _luma(look.colour)) + 25)
        if look.pattern != "plain":
            distance = min(distance, abs(_luma(colour) - _luma(look.ink)) + 8)
        if distance >= 62:
            return colour
        if distance > apart:
            best, apart = colour, distance
    return best


def _ground(look: _Look, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Plain, gradient, wall and table, or softly textured; RGB of `size`."""
    first = _ground_colour(rng, look)
    kind = rng.integers(4)
    if kind == 0:
        return Image.new("RGB", size, first)
    second = _ground_colour(rng, look, near=first)
    if kind == 1:
        span = np.linspace(0, 1, 17)
        angle = rng.uniform(0, 2 * np.pi)
        mix = span[None, :] * np.cos(angle) + span[:, None] * np.sin(angle)
        mix = ((mix - mix.min()) / (mix.max() - mix.min()))[..., None]
        grid = np.array(first) * (1 - mix) + np.array(second) * mix
        return Image.fromarray(grid.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    if kind == 2:
        ground = Image.new("RGB", size, first)
        edge = int(size[1] * rng.uniform(0.5, 0.82))
        slant = int(size[1] * rng.normal(0, 0.01))
        table = [(0, edge - slant), (size[0], edge + slant), size, (0, size[1])]
        ImageDraw.Draw(ground).polygon(table, fill=second)
        return ground
    cells = int(rng.integers(10, 40))
    noise = rng.normal(0, rng.uniform(2, 5), (cells, cells, 1)).repeat(3, axis=2)
    grid = np.clip(np.array(first) + noise, 0, 255)
    return Image.fromarray(grid.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def _cast(canvas: Image.Image, items: list[_Item], rng: np.random.Generator, unit: float) -> None:
    """Soft shadows of the items on the ground, in place on the RGB canvas."""
    step = max(1, round(unit))
    small = Image.new("L", (canvas.width // step + 1, canvas.height // step + 1), 0)
    pen = ImageDraw.Draw(small)
    strength = int(rng.uniform(45, 110))
    standing = rng.random() < 0.5
    offset = rng.uniform(-1, 1, 2) * 1.6 * unit + (0.0, 1.2 * unit)
    for item in items:
        left, _top, right, bottom = (value / step for value in item.bounds)
        if standing:
            lift = (right - left) * 0.07
            middle, reach = (left + right) / 2, (right - left) * 0.42
            pen.ellipse(
                (middle - reach, bottom - lift, middle + reach, bottom + lift), fill=strength
            )
        else:
            for piece in item.pieces:
                if piece.role != "line":
                    shifted = (piece.points + offset) / step
                    pen.polygon(shifted.ravel().tolist(), fill=strength)
    small = small.filter(ImageFilter.GaussianBlur(0.9))
    size = (small.width * step, small.height * step)
    shadow = small.resize(size, Image.Resampling.BILINEAR).crop((0, 0, *canvas.size))
    canvas.paste((18, 16, 22), (0, 0), shadow)


def _light(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Exposure, a slight tint and a gradient of brightness across the RGB picture."""
    exposure = rng.uniform(0.88, 1.05)
    tint = 1 + rng.uniform(-0.025, 0.025, 3)
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.07)
    x = np.linspace(-1, 1, image.width, dtype=np.float32) * np.float32(np.cos(angle))
    y = np.linspace(-1, 1, image.height, dtype=np.float32) * np.float32(np.sin(angle))
    field = np.float32(exposure) * (1 + np.float32(depth) * (x[None, :] + y[:, None]))
    pixels = np.asarray(image) * (field[..., None] * tint.astype(np.float32))
    return Image.fromarray(np.minimum(pixels, 255).astype(np.uint8))


def draw_with_mask(
    product: Product, rng: np.random.Generator, *, width: int, height: int
) -> tuple[Image.Image, Image.Image]:
    """Draws a product and says where it is.

    Args:
        product: What to draw.
        rng: The only source of chance: the same state gives the same bytes.
        width: Width of the picture in pixels, at least 32.
        height: Height of the picture in pixels, at least 32.

    Returns:
        The picture (RGB) and a mask of the items (L, 255 inside), both width x height.

    Raises:
        ValueError: A side is under 32 pixels.
    """
    if min(width, height) < 32:
        raise ValueError(f"a drawing needs at least 32x32 pixels, not {width}x{height}")
    large = (width * _SUPERSAMPLE, height * _SUPERSAMPLE)
    unit = min(large) / 64
    items = _place(product, rng, *large)
    span = min(min(b[2] - b[0], b[3] - b[1]) for b in (item.bounds for item in items))
    look = _look(product, rng, unit, span)
    canvas = _ground(look, rng, large)
    _cast(canvas, items, rng, unit)
    mask = Image.new("L", large, 0)
    for item in items:
        _paint(canvas, mask, item, look)
    picture = _light(canvas.reduce(_SUPERSAMPLE), rng)
    return picture, mask.reduce(_SUPERSAMPLE)


def draw(product: Product, rng: np.random.Generator, *, width: int, height: int) -> Image.Image:
    """Draws a product as an RGB picture of width x height pixels; see `draw_with_mask`."""
    return draw_with_mask(product, rng, width=width, height=height)[0]


def encode(image: Image.Image, format: Format, rng: np.random.Generator) -> bytes:
    """Encodes a picture, JPEG and WebP at a random quality of 75 to 95.

    Args:
        image: An RGB picture.
        format: `JPEG`, `PNG` or `WEBP`.
        rng: Chooses the quality.

    Returns:
        The file's bytes; the same for the same picture and generator state.

    Raises:
        ValueError: Another format.
    """
    quality = int(rng.integers(75, 96))
    buffer = io.BytesIO()
    if format == "JPEG":
        image.save(buffer, "JPEG", quality=quality)
    elif format == "WEBP":
        image.save(buffer, "WEBP", quality=quality, method=2)
    elif format == "PNG":
        image.save(buffer, "PNG", compress_level=4)
    else:
        raise ValueError(f"cannot encode as {format!r}: JPEG, PNG or WEBP")
    return buffer.getvalue()
