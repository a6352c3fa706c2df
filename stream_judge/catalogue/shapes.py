"""Silhouettes of the twelve drawn products, as pieces in a free unit space.

A shape is a list of `Piece`s painted in order. Coordinates have y pointing down; only
proportions matter, because `drawing` fits the whole shape into the room it has. Everything
is a polygon (or an open line), so one transform serves all pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Role = Literal["body", "shade", "dark", "metal", "light", "line"]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One painted part: float64 points [n, 2] and what it is painted with.

    `body` takes the product's colour and pattern, `shade` a darker tone of the colour,
    `dark` a much darker one, `light` a paler one, `metal` a neutral grey; `line` is an open
    line in the outline's ink.
    """

    points: Points
    role: Role


def points(*pairs: tuple[float, float]) -> Points:
    """Float64 points [n, 2] from coordinate pairs."""
    return np.array(pairs, dtype=np.float64)


def arc(
    centre: tuple[float, float],
    radii: tuple[float, float],
    start: float = 0.0,
    stop: float = 360.0,
    steps: int = 28,
) -> Points:
    """Points [steps, 2] along an ellipse, in degrees clockwise from three o'clock."""
    angles = np.radians(np.linspace(start, stop, steps))
    return np.stack(
        [centre[0] + radii[0] * np.cos(angles), centre[1] + radii[1] * np.sin(angles)], axis=1
    )


def curve(
    start: tuple[float, float],
    first: tuple[float, float],
    second: tuple[float, float],
    stop: tuple[float, float],
    steps: int = 14,
) -> Points:
    """Points [steps, 2] along a cubic Bezier curve."""
    t = np.linspace(0.0, 1.0, steps)[:, None]
    a, b, c, d = (np.array(p, dtype=np.float64) for p in (start, first, second, stop))
    u = 1.0 - t
    points: Points = u**3 * a + 3 * u**2 * t * b + 3 * u * t**2 * c + t**3 * d
    return points


def ribbon(path: Points, width: float) -> Points:
    """The outline [2n, 2] of a band of a width along an open path."""
    direction = np.gradient(path, axis=0)
    length = np.maximum(np.hypot(direction[:, 0], direction[:, 1]), 1e-9)[:, None]
    normal = np.stack([-direction[:, 1], direction[:, 0]], axis=1) / length * (width / 2)
    return np.concatenate([path + normal, (path - normal)[::-1]])


def box(left: float, top: float, right: float, bottom: float, radius: float = 0.0) -> Points:
    """A rectangle, with rounded corners when a radius is given."""
    if radius <= 0:
        return points((left, top), (right, top), (right, bottom), (left, bottom))
    r = min(radius, (right - left) / 2, (bottom - top) / 2)
    corners = (
        ((right - r, top + r), -90.0),
        ((right - r, bottom - r), 0.0),
        ((left + r, bottom - r), 90.0),
        ((left + r, top + r), 180.0),
    )
    return np.concatenate([arc(c, (r, r), a, a + 90.0, 7) for c, a in corners])


def mirrored(half: Points) -> Points:
    """A closed outline from its right half (top to bottom), mirrored at x = 0."""
    left = half[::-1] * np.array([-1.0, 1.0])
    return np.concatenate([half, left])


def _mug(rng: np.random.Generator) -> list[Piece]:
    top = rng.uniform(0.36, 0.43)
    foot = top * rng.uniform(0.8, 1.0)
    dip = rng.uniform(0.05, 0.08)
    reach, width = rng.uniform(0.24, 0.32), rng.uniform(0.09, 0.12)
    upper, lower = rng.uniform(-0.28, -0.2), rng.uniform(0.18, 0.28)
    side = (top + foot) / 2 - 0.02
    middle, half = (upper + lower) / 2, (lower - upper) / 2
    if rng.random() < 0.5:
        grip = arc((side, middle), (reach, half), -90, 90, 18)
    else:
        grip = np.concatenate(
            [
                curve(
                    (side, upper),
                    (side + reach, upper),
                    (side + reach, upper),
                    (side + reach, middle),
                    10,
                ),
                curve(
                    (side + reach, middle),
                    (side + reach, lower),
                    (side + reach * 0.6, lower),
                    (side, lower),
                    10,
                )[1:],
            ]
        )
    body = np.concatenate(
        [points((-top, -0.42), (top, -0.42)), arc((0, 0.42), (foot, dip), 0, 180, 18)]
    )
    return [
        Piece(ribbon(grip, width), "shade"),
        Piece(body, "body"),
        Piece(arc((0, -0.42), (top, dip)), "light"),
        Piece(arc((0, -0.415), (top * 0.86, dip * 0.68)), "dark"),
    ]


def _bottle(rng: np.random.Generator) -> list[Piece]:
    wide, neck = rng.uniform(0.19, 0.24), rng.uniform(0.065, 0.085)
    shoulder = rng.uniform(-0.22, -0.05)
    bend = rng.uniform(0.1, 0.2)
    throat = shoulder - bend
    half = np.concatenate(
        [
            points((neck, -0.5)),
            curve(
                (neck, throat),
                (neck, throat + bend * 0.6),
                (wide, shoulder - bend * 0.3),
                (wide, shoulder + 0.06),
            ),
            curve((wide, 0.44), (wide, 0.49), (wide - 0.02, 0.5), (wide - 0.05, 0.5), 6),
        ]
    )
    pieces = [Piece(mirrored(half), "body")]
    if rng.random() < 0.65:
        role: Role = "metal" if rng.random() < 0.4 else "shade"
        tall, rim = rng.uniform(0.08, 0.12), neck + rng.uniform(0.015, 0.03)
        pieces.append(Piece(box(-rim, -0.5 - tall * 0.4, rim, -0.5 + tall * 0.6, 0.015), role))
    else:
        lip = neck + 0.022
        pieces.append(Piece(box(-lip, -0.51, lip, -0.465, 0.02), "shade"))
        pieces.append(Piece(arc((0, -0.51), (neck, 0.014)), "dark"))
    return pieces


def _shirt(rng: np.random.Generator) -> list[Piece]:
    chest, hem = rng.uniform(0.27, 0.31), rng.uniform(0.27, 0.33)
    neck, drop = rng.uniform(0.11, 0.14), rng.uniform(0.02, 0.05)
    sleeve, down = rng.uniform(0.2, 0.27), rng.uniform(0.2, 0.34)
    shoulder = chest + 0.03
    cuff_out = (shoulder + sleeve, -0.4 + down)
    cuff_in = (cuff_out[0] - 0.15, cuff_out[1] + 0.11)
    pit = (chest, -0.16)
    half = points((neck, -0.47), (shoulder, -0.4), cuff_out, cuff_in, pit, (hem, 0.47))
    depth = rng.uniform(0.1, 0.16)
    if rng.random() < 0.6:
        neckline = arc((0, -0.47), (neck, depth), 180, 0, 15)
    else:
        neckline = points((-neck, -0.47), (0, -0.47 + depth * 1.5), (neck, -0.47))
    outline = np.concatenate([half, half[::-1] * np.array([-1.0, 1.0]), neckline[1:-1]])
    back = np.concatenate([neckline, arc((0, -0.47), (neck, drop), 0, 180, 9)[1:-1]])
    seam = points((shoulder - 0.02, -0.4), pit)
    return [
        Piece(back, "dark"),
        Piece(outline, "body"),
        Piece(ribbon(neckline, 0.035), "shade"),
        Piece(seam, "line"),
        Piece(seam * np.array([-1.0, 1.0]), "line"),
    ]


def _trousers(rng: np.random.Generator) -> list[Piece]:
    waist, hip = rng.uniform(0.19, 0.22), rng.uniform(0.25, 0.28)
    spread = rng.uniform(0.3, 0.36)
    cuff = rng.uniform(0.15, 0.2)
    crotch = rng.uniform(-0.16, -0.08)
    half = np.concatenate(
        [
            curve((waist, -0.5), (waist + 0.03, -0.44), (hip, -0.36), (hip, -0.22), 8),
            points((spread, 0.5), (spread - cuff, 0.5), (0.0, crotch)),
        ]
    )
    band = points((waist, -0.5), (waist + 0.018, -0.43), (-waist - 0.018, -0.43), (-waist, -0.5))
    pieces = [
        Piece(mirrored(half), "body"),
        Piece(band, "shade"),
        Piece(points((0, -0.43), (0, crotch)), "line"),
    ]
    pocket = curve(
        (waist - 0.03, -0.43), (waist - 0.03, -0.36), (hip - 0.04, -0.32), (hip, -0.31), 8
    )
    if rng.random() < 0.7:
        pieces += [Piece(pocket, "line"), Piece(pocket * np.array([-1.0, 1.0]), "line")]
    return pieces


def _hat(rng: np.random.Generator) -> list[Piece]:
    brim, flat = rng.uniform(0.48, 0.56), rng.uniform(0.09, 0.13)
    crown, top = rng.uniform(0.25, 0.3), rng.uniform(0.2, 0.26)
    tall = rng.uniform(0.36, 0.46)
    style = rng.integers(3)
    if style == 0:
        head = np.concatenate(
            [
                points((-crown, 0.0)),
                curve(
                    (-crown, -0.02),
                    (-crown, -tall * 1.25),
                    (crown, -tall * 1.25),
                    (crown, -0.02),
                    22,
                ),
            ]
        )
    elif style == 1:
        head = np.concatenate(
            [
                points((-crown, 0.0)),
                curve(
                    (-top, -tall),
                    (-top * 0.5, -tall - 0.06),
                    (-0.06, -tall + 0.03),
                    (0, -tall + 0.04),
                    8,
                ),
                curve(
                    (0, -tall + 0.04),
                    (0.06, -tall + 0.03),
                    (top * 0.5, -tall - 0.06),
                    (top, -tall),
                    8,
                ),
                points((crown, 0.0)),
            ]
        )
    else:
        head = np.concatenate(
            [
                points((-crown, 0.0)),
                arc((0, -tall), (crown * 1.02, 0.045), 180, 360, 16),
                points((crown, 0.0)),
            ]
        )
    rim = arc((0, 0.0), (crown, flat * 0.5), 0, 180, 14)
    band = np.concatenate([rim - [0, 0.1], rim[::-1]])
    return [
        Piece(arc((0, 0.02), (brim, flat)), "body"),
        Piece(np.concatenate([head, rim[1:-1]]), "body"),
        Piece(band, "dark"),
    ]


def _boot(rng: np.random.Generator) -> list[Piece]:
    tall = rng.uniform(0.42, 0.58)
    wide = rng.uniform(0.15, 0.18)
    toe = rng.uniform(0.4, 0.46)
    heel = rng.uniform(0.05, 0.1)
    outline = np.concatenate(
        [
            points((-wide - 0.05, -tall), (wide - 0.02, -tall)),
            curve((wide - 0.04, -0.02), (wide, 0.12), (wide + 0.12, 0.13), (wide + 0.14, 0.16), 10),
            curve((wide + 0.14, 0.16), (toe, 0.18), (toe + 0.06, 0.26), (toe + 0.05, 0.38), 10),
            points((-wide - 0.06, 0.38)),
            curve(
                (-wide - 0.06, 0.38),
                (-wide - 0.07, 0.2),
                (-wide - 0.02, 0.1),
                (-wide - 0.02, 0.0),
                8,
            ),
        ]
    )
    sole = points(
        (-wide - 0.08, 0.36),
        (toe + 0.07, 0.36),
        (toe + 0.06, 0.43),
        (wide - 0.02, 0.43),
        (wide - 0.06, 0.43 + heel),
        (-wide - 0.08, 0.43 + heel),
    )
    cuff = box(-wide - 0.075, -tall - 0.02, wide + 0.005, -tall + rng.uniform(0.06, 0.1), 0.03)
    pieces = [Piece(outline, "body"), Piece(sole, "dark"), Piece(cuff, "shade")]
    if rng.random() < 0.5:
        pieces.append(
            Piece(
                curve((-wide - 0.02, 0.12), (-0.05, 0.1), (0.05, 0.2), (wide + 0.1, 0.16), 8),
                "line",
            )
        )
    return pieces


def _bag(rng: np.random.Generator) -> list[Piece]:
    top, foot = rng.uniform(0.34, 0.42), rng.uniform(0.4, 0.48)
    if rng.random() < 0.4:
        top, foot = foot, top
    upper, lower = -0.1 - rng.uniform(0, 0.05), 0.5
    reach, rise = rng.uniform(0.17, 0.24), rng.uniform(0.34, 0.44)
    width = rng.uniform(0.05, 0.07)
    square = rng.random() < 0.4
    power = 0.45 if square else 1.0
    angles = np.radians(np.linspace(180, 360, 25))
    loop = np.stack(
        [
            reach * np.sign(np.cos(angles)) * np.abs(np.cos(angles)) ** power,
            upper + 0.04 + rise * np.sign(np.sin(angles)) * np.abs(np.sin(angles)) ** power,
        ],
        axis=1,
    )
    body = np.concatenate(
        [
            points((-top, upper), (top, upper)),
            arc((foot - 0.06, lower - 0.06), (0.06, 0.06), 0, 90, 6),
            arc((-foot + 0.06, lower - 0.06), (0.06, 0.06), 90, 180, 6),
        ]
    )
    band = points(
        (-top - 0.005, upper - 0.01),
        (top + 0.005, upper - 0.01),
        (top + 0.01, upper + 0.06),
        (-top - 0.01, upper + 0.06),
    )
    pieces = [
        Piece(ribbon(loop * [0.9, 1.0] + [0.03, -0.05], width * 0.9), "dark"),
        Piece(body, "body"),
        Piece(band, "shade"),
        Piece(ribbon(loop, width), "shade"),
    ]
    if rng.random() < 0.35:
        pieces.append(Piece(box(-0.045, upper + 0.03, 0.045, upper + 0.12, 0.02), "metal"))
    return pieces


def _lamp(rng: np.random.Generator) -> list[Piece]:
    top, low = rng.uniform(0.14, 0.22), rng.uniform(0.33, 0.4)
    bottom = rng.uniform(-0.04, 0.04)
    foot, stem = rng.uniform(0.19, 0.25), rng.uniform(0.03, 0.045)
    metal = rng.random() < 0.35
    role: Role = "metal" if metal else "shade"
    shade = np.concatenate(
        [arc((0, -0.5), (top, 0.025), 180, 360, 10), arc((0, bottom), (low, 0.045), 0, 180, 14)]
    )
    pieces = [Piece(box(-stem, bottom - 0.02, stem, 0.46), role)]
    if rng.random() < 0.45:
        pieces.append(Piece(arc((0, 0.27), (rng.uniform(0.09, 0.13), 0.13)), role))
    base = np.concatenate(
        [arc((0, 0.46), (foot, 0.09), 180, 360, 16), arc((0, 0.47), (foot, 0.035), 0, 180, 10)]
    )
    pieces += [Piece(base, role), Piece(shade, "body")]
    return pieces


def _chair(rng: np.random.Generator) -> list[Piece]:
    back, seat = rng.uniform(0.24, 0.29), rng.uniform(0.33, 0.38)
    top, front = -0.58, rng.uniform(0.14, 0.19)
    depth = rng.uniform(0.17, 0.21)
    leg, splay = rng.uniform(0.05, 0.07), rng.uniform(0.0, 0.05)
    radius = rng.choice([0.03, 0.1, 0.2])
    rear = front - depth
    pieces = []
    for sign in (-1.0, 1.0):
        x = sign * (back - 0.04)
        pieces.append(
            Piece(ribbon(points((x, rear), (x + sign * splay * 0.6, 0.46)), leg * 0.85), "dark")
        )
        post = sign * (back - 0.05)
        pieces.append(
            Piece(ribbon(points((post, -0.3), (post, front - depth * 0.5)), leg), "shade")
        )
    gap = rng.uniform(0.0, 0.06)
    pieces.append(Piece(box(-back, top, back, rear - gap, radius), "body"))
    for sign in (-1.0, 1.0):
        x = sign * (seat - 0.05)
        pieces.append(Piece(ribbon(points((x, front), (x + sign * splay, 0.58)), leg), "shade"))
    pieces.append(Piece(box(-seat, front - 0.01, seat, front + 0.065, 0.03), "shade"))
    pieces.append(
        Piece(
            points((-back - 0.01, rear), (back + 0.01, rear), (seat, front), (-seat, front)), "body"
        )
    )
    return pieces


def _umbrella(rng: np.random.Generator) -> list[Piece]:
    wide, tall = rng.uniform(0.5, 0.56), rng.uniform(0.4, 0.5)
    count = int(rng.choice([3, 4, 5]))
    step = 2 * wide / count
    role: Role = "metal" if rng.random() < 0.4 else "shade"
    hook = rng.uniform(0.07, 0.1)
    end = rng.uniform(0.36, 0.44)
    shaft = np.concatenate(
        [points((0, -tall), (0, end)), arc((-hook, end), (hook, hook), 0, 190, 14)[1:]]
    )
    scallops = [
        arc((wide - step * (i + 0.5), 0.0), (step / 2, rng.uniform(0.07, 0.1)), 0, -180, 9)
        for i in range(count)
    ]
    canopy = np.concatenate([arc((0, 0), (wide, tall), 180, 360, 30), *scallops])
    pieces = [
        Piece(ribbon(shaft, 0.05), role),
        Piece(box(-0.018, -tall - 0.07, 0.018, -tall + 0.02), role),
        Piece(canopy, "body"),
    ]
    for i in range(1, count):
        x = wide - step * i
        pieces.append(
            Piece(curve((0, -tall), (x * 0.6, -tall * 0.9), (x, -tall * 0.4), (x, 0.0), 10), "line")
        )
    return pieces


def _ball(rng: np.random.Generator) -> list[Piece]:
    pieces = [Piece(arc((0, 0), (0.5, 0.5), 0, 360, 48), "body")]
    style = rng.integers(3)
    turn = rng.uniform(0, np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    seams = [points((0, -0.5), (0, 0.5))]
    if style == 0:
        seams += [points((-0.5, 0), (0.5, 0))]
        seams += [
            arc((sign * 0.62, 0), (0.38, 0.38), a, a + 132, 14)
            for sign, a in ((1.0, 114), (-1.0, -66))
        ]
    elif style == 1:
        seams = [
            arc((0, 0), (0.5 * k, 0.5), -90, 90, 16) * [s, 1]
            for k in (0.3, 0.8)
            for s in (-1.0, 1.0)
        ]
    else:
        seams = [
            arc((sign * 0.58, 0), (0.36, 0.42), a, a + 144, 14)
            for sign, a in ((1.0, 108), (-1.0, -72))
        ]
    pieces += [Piece(seam @ rotation.T, "line") for seam in seams]
    return pieces


def _cushion(rng: np.random.Generator) -> list[Piece]:
    wide, tall = 0.5, rng.uniform(0.4, 0.5)
    dent = rng.uniform(0.07, 0.1)
    corners = [(-wide, -tall), (wide, -tall), (wide, tall), (-wide, tall)]
    sides = []
    for i, (x, y) in enumerate(corners):
        u, v = corners[(i + 1) % 4]
        # A side leaves its pointed corner steeply and is full again in the middle.
        inward = np.array([-(y + v), 0.0]) if x == u else np.array([0.0, -np.sign(y + v)])
        inward = np.array([-np.sign(x), 0.0]) if x == u else inward
        start, stop = np.array([x, y]), np.array([u, v])
        a = start + (stop - start) * 0.22 + inward * dent * 1.25
        b = start + (stop - start) * 0.78 + inward * dent * 1.25
        sides.append(curve((x, y), tuple(a), tuple(b), (u, v), 16)[:-1])
    outline = np.concatenate(sides)
    pieces = []
    if rng.random() < 0.35:
        pieces += [
            Piece(arc((x * 1.01, y * 1.01), (0.06, 0.06), 0, 360, 12), "shade") for x, y in corners
        ]
    pieces.append(Piece(outline, "body"))
    pieces.append(Piece(np.concatenate([outline, outline[:1]]) * 0.9, "line"))
    for x, y in corners:
        fold = points(
            (x * 0.88, y * 0.88), (x * rng.uniform(0.55, 0.68), y * rng.uniform(0.6, 0.7))
        )
        pieces.append(Piece(fold, "line"))
    return pieces


SHAPES: tuple[Callable[[np.random.Generator], list[Piece]], ...] = (
    _mug,
    _bottle,
    _shirt,
    _trousers,
    _hat,
    _boot,
    _bag,
    _lamp,
    _chair,
    _umbrella,
    _ball,
    _cushion,
)
"""One function for each of `attributes.CATEGORIES`, in that order."""
