"""Synthetic handwriting: any number of alphabets, the same pixels on every platform.

* An **alphabet** is a style: a small lattice of joints and a few moves between joints,
  which are straight strokes in the *angular* family and quadratic Bezier arcs in the
  *curved* family. Its characters share moves and proportions, so they look alike.
* A **character** is a stroke program: three or four moves, each of which starts where
  the last one ended or at an earlier joint. A program that retraces itself or is too
  close to an earlier character of the alphabet is replaced by the next candidate.
* A **drawer** writes the character once: every stroke wobbles, and the whole is
  stretched, slanted, turned, shifted on the page, and inked with a pen of some width.

All arithmetic is on integers, so no platform rounds a pixel differently. There is no
stream of random numbers: each number is a hash of its purpose. An image therefore does
not depend on which others are generated, and a small data set is part of a larger one.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool, Int, Int64, UInt8, UInt64

from jaxfer.data.images import Images

# Part of every key, so a new value changes all pixels. Increase it if a pixel changes.
VERSION = 1
FAMILIES = ("angular", "curved")
SIDE = 28  # side of the page, in pixels
PIXEL = 16  # length units per pixel; lengths are in units, x to the right, y down
MARGIN = 2 * PIXEL  # least distance of a pen centre to the edge; more than any radius

# An alphabet: (lowest, highest) value of each random number.
LATTICE = np.array([3, 4])  # columns and rows of joints
GAP = (2, 4)  # distance between lines, relative to the others
WIDTH, HEIGHT = (10 * PIXEL, 16 * PIXEL), (14 * PIXEL, 18 * PIXEL)
REACHES = [(0, 1), (0, 2), (0, 3), *((x, y) for x in (1, 2) for y in range(-2, 3))]
MOVES = 5  # number of moves per alphabet, each used in either direction
STROKES = (3, 4)
BEND = (6, 13)  # distance of a control point from the chord, in 16ths of its length
CHAINING = (4, 14)  # probability that the pen continues without lifting, in 16ths

# A character, and how it differs from others.
CANDIDATES = 8
APART = 32  # least mean squared distance of outlines, in squared quarter pixels
INKED = 13  # least number of two-pixel cells visited; fewer means a retraced stroke

# A drawer.
WOBBLE, SHIFT = 22, 40  # largest offset of each control point, and of the whole
STRETCH, SLANT, TURN = (208, 308), (-80, 80), (-64, 64)  # in 256ths
PEN = (12, 20)  # pen radius

SKETCH, STEPS = 6, 24  # segments per stroke for comparison, and for ink
BLOCK = 64  # images inked at once, few enough to fit a CPU cache
PROGRAM, HAND = 0, 1  # separate the keys of candidates and of drawers
Key = UInt64[np.ndarray, "..."]
Program = Int[np.ndarray, "... strokes 3 2"]  # control points of each stroke
Rolled = Int64[np.ndarray, "..."]
Points = Int[np.ndarray, "... points 2"]


def glyphs(
    *, alphabets: int = 60, characters: int = 20, drawers: int = 20, seed: int = 0
) -> Images:
    """Synthetic handwriting, with one class per character and one image per drawer.

    Args:
        alphabets: number of alphabets; angular and curved ones alternate.
        characters: number of characters per alphabet.
        drawers: number of drawers per character.
        seed: seed of the alphabets.

    Returns:
        uint8 images [alphabets * characters * drawers, 28, 28, 1], ink 255 on paper 0,
        ordered by alphabet, then character, then drawer. Classes are named like
        "curved03/character07"; alphabets are numbered within their family.

    Raises:
        ValueError: a size is below 1.

    Example:
        >>> data = glyphs(alphabets=2, characters=3, drawers=4)
        >>> data.images.shape, data.class_names[3]
        ((24, 28, 28, 1), 'curved00/character00')
    """
    sizes = {"alphabets": alphabets, "characters": characters, "drawers": drawers}
    for what, size in sizes.items():
        if size < 1:
            raise ValueError(f"expected {what} of at least 1, got {size}")
    root = _fold(np.zeros((), np.uint64), VERSION, seed % 2**64)
    character, drawer = np.indices((characters, drawers)).reshape(2, -1)

    def write(alphabet: int) -> UInt8[np.ndarray, "n side side"]:
        style = _fold(root, alphabet)
        programs = _programs(style, alphabet % len(FAMILIES), characters)
        blocks = []
        for i in range(0, len(drawer), BLOCK):
            c, d = character[i : i + BLOCK], drawer[i : i + BLOCK]
            blocks.append(_write(programs[c], _fold(style, c, HAND, d)))
        return np.concatenate(blocks)

    # NumPy releases the GIL during array operations.
    with ThreadPoolExecutor() as pool:
        written = [*pool.map(write, range(alphabets))]
    return Images(
        name="glyphs",
        images=np.concatenate(written)[..., None],
        labels=np.repeat(np.arange(alphabets * characters, dtype=np.int32), drawers),
        class_names=tuple(
            f"{FAMILIES[a % 2]}{a // 2:02d}/character{c:02d}"
            for a, c in np.ndindex(alphabets, characters)
        ),
        simulated=True,
    )


def _programs(style: Key, family: int, characters: int) -> Program:
    """A program for each character, chosen to differ from all earlier ones."""
    candidates = _candidates(style, family, characters)
    # In quarter pixels, squared distances fit 16 bits.
    outlines = (_curve(candidates, SKETCH) >> 2).astype(np.int16)
    kept = np.zeros(characters, int)
    for c, outline in enumerate(outlines):
        earlier = outlines[np.arange(c), kept[:c]]
        # Separation is capped, so argmax takes the first good candidate, or the best.
        kept[c] = np.argmax(_separation(outline, earlier) * (1 + _well_inked(outline)))
    return candidates[np.arange(characters), kept]


def _candidates(style: Key, family: int, characters: int) -> Program:
    """Programs [characters, CANDIDATES, ...] in the style of an alphabet."""
    columns = _rule(_roll(style, "columns", GAP, 2), _roll(style, "width", WIDTH))
    rows = _rule(_roll(style, "rows", GAP, 3), _roll(style, "height", HEIGHT))
    reaches = np.array(REACHES)[_shuffle(style, "reaches", len(REACHES))]
    bend = family * _roll(style, "bend", BEND, MOVES)
    bend = bend * (2 * _roll(style, "hollow", (0, 1), MOVES) - 1)
    character = np.arange(characters)[:, None]
    letter = _fold(style, character, PROGRAM, np.arange(CANDIDATES))
    strokes = int(_roll(style, "strokes", STROKES))
    move = _shuffle(letter, "moves", MOVES)[..., :strokes]
    step = reaches[move] * (2 * _roll(letter, "sense", (0, 1), strokes, 1) - 1)
    lifts = _roll(letter, "lift", (0, 15), strokes) >= _roll(style, "chain", CHAINING)
    joints = _walk(letter, step, lifts)
    ends = np.stack([columns[joints[..., 0]], rows[joints[..., 1]]], axis=-1)
    first, last = np.moveaxis(ends, -2, 0)
    normal = (last - first)[..., ::-1] * np.array([-1, 1])
    control = (first + last + (normal * bend[move][..., None] >> 3)) >> 1
    program = np.stack([first, control, last], axis=-2)
    return program - _centre(_curve(program, SKETCH))[..., None, None, :]


def _walk(letter: Key, step: Rolled, lifts: Bool[np.ndarray, "..."]) -> Rolled:
    """The joints [..., strokes, 2, 2] at which each stroke begins and ends."""
    branch = _roll(letter, "branch", (0, 2**30), step.shape[-2])
    joints = (_roll(letter, "begin", (0, 2**30), 2) % LATTICE)[..., None, :]
    walked = []
    for s in range(step.shape[-2]):
        origin = np.where(lifts[..., s], branch[..., s] % (s + 1), s)
        here = np.take_along_axis(joints, origin[..., None, None], axis=-2)
        ahead, behind = here + step[..., s, None, :], here - step[..., s, None, :]
        # A stroke that would leave the lattice goes the opposite way.
        inside = (ahead >= 0) & (ahead < LATTICE)
        there = np.clip(np.where(inside, ahead, behind), 0, LATTICE - 1)
        walked.append(np.concatenate([here, there], axis=-2))
        joints = np.concatenate([joints, there], axis=-2)
    return np.stack(walked, axis=-3)


def _separation(outlines: Points, earlier: Points) -> Int[np.ndarray, " outlines"]:
    """Distance of each outline to the nearest earlier one, at most APART."""
    points = outlines.shape[1]
    offset = outlines[:, None, :, None] - earlier[:, None]
    square = offset[..., 0] * offset[..., 0] + offset[..., 1] * offset[..., 1]
    # In both directions: a character with an extra stroke covers one without it.
    there, back = square.min(axis=-1).sum(-1), square.min(axis=-2).sum(-1)
    return np.maximum(there, back).min(axis=1, initial=APART * points) // points


def _well_inked(outlines: Points) -> Bool[np.ndarray, " outlines"]:
    """Whether outlines visit enough of the page to be distinguishable."""
    x, y = np.moveaxis(outlines >> 3, -1, 0)
    cells = np.sort(64 * x + y, axis=-1)
    return np.count_nonzero(np.diff(cells), axis=-1) + 1 >= INKED


def _write(program: Program, hand: Key) -> UInt8[np.ndarray, "n side side"]:
    """Write each program on its own page, with the hand of its drawer."""
    wobble = _roll(hand, "wobble", (-WOBBLE, WOBBLE), *program.shape[1:])
    x, y = np.moveaxis(program + wobble, -1, 0)
    wide, tall = _roll(hand, "stretch", STRETCH, 2).T[..., None, None]
    slant, turn = _roll(hand, "slant", SLANT, 1, 1), _roll(hand, "turn", TURN, 1, 1)
    bent = np.stack([wide * x - (turn + slant) * y, turn * x + tall * y], axis=-1) >> 8
    return _ink(_place(_curve(bent, STEPS), hand), _roll(hand, "pen", PEN))


def _place(points: Points, hand: Key) -> Points:
    """Centre the points and shift them randomly within the page."""
    room = SIDE * PIXEL // 2 - MARGIN
    points = points - _centre(points)[:, None]
    extent = np.abs(points).max(axis=1)
    fit = np.minimum(extent, room)
    shift = np.clip(_roll(hand, "shift", (-SHIFT, SHIFT), 2), fit - room, room - fit)
    fitted = points * fit[:, None] // np.maximum(extent, 1)[:, None]
    return fitted + shift[:, None] + SIDE * PIXEL // 2


def _ink(points: Points, pen: Rolled) -> UInt8[np.ndarray, "n side side"]:
    """The ink of a round pen at all points, with a soft edge one pixel wide."""
    half = PIXEL // 2
    pixel = np.arange(SIDE)[:, None] * PIXEL + half
    # Images are last, for speed. Pen radii are below 127, whose square fits 16 bits.
    offset = np.clip(points.T[:, :, None] - pixel, -127, 127).astype(np.int16)
    nearest = np.full((SIDE, SIDE, len(pen)), 2**15 - 1, np.int16)
    for x_square, y_square in zip(*(offset * offset), strict=True):
        np.minimum(nearest, y_square[:, None] + x_square, out=nearest)
    pen = pen.astype(np.int32)
    outer, inner = (pen + half) ** 2, (pen - half) ** 2
    ink = np.clip(255 * (outer - nearest) // (outer - inner), 0, 255)
    return np.moveaxis(ink, -1, 0).astype(np.uint8)


def _curve(program: Program, steps: int) -> Points:
    """Points along the strokes of a program, as quadratic Bezier curves."""
    t = np.arange(steps + 1)[:, None]
    weights = np.concatenate([(steps - t) ** 2, 2 * t * (steps - t), t**2], axis=1)
    return (weights @ program // steps**2).reshape(*program.shape[:-3], -1, 2)


def _centre(points: Points) -> Int[np.ndarray, "... 2"]:
    return (points.min(axis=-2) + points.max(axis=-2)) >> 1


def _rule(gap: Rolled, size: Rolled) -> Int[np.ndarray, " lines"]:
    return np.concatenate([[0], np.cumsum(gap)]) * size // gap.sum()


def _shuffle(key: Key, purpose: str, size: int) -> Rolled:
    return np.argsort(_roll(key, purpose, (0, 2**30), size), kind="stable")


def _roll(key: Key, purpose: str, span: tuple[int, int], *shape: int) -> Rolled:
    """Random integers in a span, both ends included; one array of `shape` per key."""
    low, high = span
    key = _fold(key, int.from_bytes(purpose.encode(), "big"))
    key = key.reshape(key.shape + (1,) * len(shape))
    place = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    bits = (_fold(key, place) >> 33).astype(np.int64)
    return np.asarray(low + bits % (high - low + 1))


def _fold(key: Key, *numbers: int | Int[np.ndarray, "..."]) -> Key:
    """Derive one key per number from a key: splitmix64 with the number as counter."""
    for number in numbers:
        count = np.asarray(number).astype(np.uint64)
        # Arrays have at least one axis: NumPy warns when scalars overflow, as here.
        z = np.atleast_1d(key) + np.atleast_1d(count) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> 30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> 27)) * np.uint64(0x94D049BB133111EB)
        key = (z ^ (z >> 31)).reshape(np.broadcast_shapes(key.shape, count.shape))
    return key
