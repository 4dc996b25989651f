"""A made-up shop whose own probabilities are known, so that a report can say how much there was to learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rectune.log.cleaning import make_log
from rectune.log.log import Log
from rectune.log.split import Rows, Split

Floats = NDArray[np.float64]

NOUNS = {
    "Coffee": "grinder kettle press dripper mug tamper scale filter",
    "Cycling": "helmet pump saddle pedal bell lock lamp bottle",
    "Garden": "trowel rake hose planter shears gloves sprinkler spade",
    "Painting": "brush easel canvas palette varnish sketchbook pastel apron",
    "Camping": "tent lantern stove hammock cooler tarp backpack whistle",
    "Music": "capo tuner strap pick metronome stand cable pedalboard",
    "Baking": "whisk rolling-pin tin spatula sieve piping-bag timer cutter",
    "Fishing": "reel rod lure net tackle-box float hook waders",
    "Office": "stapler notebook pen folder lampshade organiser calendar ruler",
    "Running": "shoe sock armband belt visor headband jacket watch",
    "Pets": "leash bowl bed toy carrier brush-set collar blanket",
    "Sewing": "needle thimble thread scissors bobbin zipper pattern tape",
    "Climbing": "harness chalk carabiner rope belay-device quickdraw crashpad sling",
    "Photo": "tripod lens strap-mount flash filter-case bag reflector remote",
    "Sauna": "ladle bucket towel thermometer bench-mat robe hourglass oil",
    "Chess": "board clock piece-set scorebook bag-case mat trophy puzzle-book",
}
BRANDS = "Alder Birk Corvo Dalia Elmo Fenna Grove Hask Ilmari Juno Korda Lumo Merle Nordal Osk Pino".split()
ADJECTIVES = (
    "small large light sturdy folding classic compact travel red blue green grey slim deluxe quiet bright".split()
)

FOLLOWS = 0.75  # how often the next category follows from the one bought LAG steps ago
LAG = 2
BRAND_LOYALTY = 2.5  # log-odds of a favourite brand
ECHO = 2.0  # log-odds of the brand bought LAG steps ago
TASTE = 2.0  # spread of a user's log-weights over categories
SKEW = 0.9  # exponent of the popularity law within a category


@dataclass(frozen=True)
class _World:
    """The laws of the shop. `follows[h, c]`: the category that users of habit h buy LAG steps after category c."""

    category: NDArray[np.int64]  # (items,)
    brand: NDArray[np.int64]  # (items,)
    popularity: Floats  # (items,)
    follows: NDArray[np.int64]  # (habits, categories)
    habit: NDArray[np.int64]  # (users,)
    taste: Floats  # (users, categories), rows sum to 1
    favourites: NDArray[np.bool_]  # (users, brands)
    titles: list[str]


def synthetic(
    *,
    users: int = 3000,
    items: int = 480,
    categories: int = 12,
    habits: int = 3,
    shortest: int = 10,
    longest: int = 25,
    seed: int = 0,
) -> Log:
    """Generate a shop and its log.

    What a user buys next follows, most of the time, from the category bought two steps ago through the user's habit
    (one of `habits` maps between categories, never written down in the log), else from the user's taste; with 0 habits it
    stays in that category, so that what a title means says what comes next. Within the category popularity, two favourite
    brands and the brand bought two steps ago decide. Nothing is bought twice. Histories have `shortest` to
    `longest` events. Raises ValueError for sizes that make no shop.
    """
    _check_sizes(users=users, items=items, categories=categories, habits=habits, shortest=shortest, longest=longest)
    world = _world(users, items, categories, habits, seed)
    rng = np.random.default_rng([seed, 2])
    lengths = rng.integers(shortest, longest + 1, size=users)
    bought = np.full((users, longest), -1, dtype=np.int64)
    for step in range(longest):
        chances = _chances(world, np.arange(users), bought[:, :step])
        draws = (chances.cumsum(axis=1) < rng.random((users, 1))).sum(axis=1)
        bought[:, step] = np.minimum(draws, items - 1)
    times = rng.integers(0, 300 * 86_400, size=(users, 1)) + rng.exponential(3 * 86_400, size=(users, longest)).cumsum(
        axis=1
    )
    kept = np.arange(longest) < lengths[:, None]
    order = np.argsort(times[kept], kind="stable")
    log = pl.DataFrame(
        {
            "user": [f"u{u}" for u in np.nonzero(kept)[0][order]],
            "item": [f"i{i}" for i in bought[kept][order]],
            "time": (1_600_000_000 + times[kept][order]).round(),
        }
    )
    names = list(NOUNS)
    shelf = pl.DataFrame(
        {
            "item_id": [f"i{i}" for i in range(items)],
            "title": world.titles,
            "brand": [BRANDS[b] for b in world.brand],
            "categories": [names[c] for c in world.category],
        }
    )
    return make_log(log, shelf, source="synthetic shop", warn_unordered=False)


def oracle(
    split: Split,
    rows: Rows,
    *,
    users: int = 3000,
    items: int = 480,
    categories: int = 12,
    habits: int = 3,
    shortest: int = 10,
    longest: int = 25,
    seed: int = 0,
) -> Floats:
    """Probability of every item as the next one of each row, from the generator itself; shape (rows, items).

    Takes the arguments that generated the log. It knows habits and tastes, which no recommender can.
    """
    world = _world(users, items, categories, habits, seed)
    number = np.array([int(item_id[1:]) for item_id in split.log.items["item_id"]])
    who = np.array([int(user_id[1:]) for user_id in split.log.users])
    bought = np.full((len(rows), longest), -1, dtype=np.int64)
    lengths = rows.stop - rows.first
    for i in range(len(rows)):
        bought[i, longest - lengths[i] :] = number[split.earlier(rows, i)]
    return _chances(world, who[rows.user], bought)[:, number]


def _check_sizes(**sizes: int) -> None:
    least = {name: 0 if name == "habits" else 1 for name in sizes}
    if sizes["longest"] < sizes["shortest"] or any(size < least[name] for name, size in sizes.items()):
        raise ValueError(
            f"synthetic: sizes must be at least 1 (`habits` 0) and `shortest` at most `longest`, got {sizes}."
        )
    if sizes["categories"] > len(NOUNS):
        raise ValueError(f"synthetic: at most {len(NOUNS)} categories, got {sizes['categories']}.")
    room = len(ADJECTIVES) * len(BRANDS) * 8 * sizes["categories"]
    if not 2 * sizes["longest"] * sizes["categories"] // 2 <= sizes["items"] <= room:
        low = sizes["longest"] * sizes["categories"]
        raise ValueError(
            f"synthetic: `items` must be from {low} (longest x categories) to {room}, got {sizes['items']}."
        )


def _world(users: int, items: int, categories: int, habits: int, seed: int) -> _World:
    rng = np.random.default_rng([seed, 1])
    category = np.arange(items) % categories
    shelf = np.arange(items) // categories
    weights = (1.0 + np.arange(shelf.max() + 1)) ** -SKEW
    popularity = np.empty(items)
    for c in range(categories):
        here = np.flatnonzero(category == c)
        popularity[here] = rng.permutation(weights[: len(here)])
    titles, brand = _titles(category, rng)
    favourites = np.zeros((users, len(BRANDS)), dtype=bool)
    for column in rng.integers(0, len(BRANDS), size=(2, users)):
        favourites[np.arange(users), column] = True
    taste = np.exp(TASTE * rng.standard_normal((users, categories)))
    return _World(
        category=category,
        brand=brand,
        popularity=popularity,
        follows=np.stack([rng.permutation(categories) for _ in range(habits)] or [np.arange(categories)]),
        habit=rng.integers(0, max(habits, 1), size=users),
        taste=taste / taste.sum(axis=1, keepdims=True),
        favourites=favourites,
        titles=titles,
    )


def _titles(category: NDArray[np.int64], rng: np.random.Generator) -> tuple[list[str], NDArray[np.int64]]:
    """A distinct title for each item, and its brand."""
    names = list(NOUNS)
    taken: set[str] = set()
    titles, brands = [], []
    for c in category:
        while True:
            brand = int(rng.integers(len(BRANDS)))
            noun = rng.choice(NOUNS[names[c]].split())
            title = f"{BRANDS[brand]} {rng.choice(ADJECTIVES)} {noun}"
            if title not in taken:
                break
        taken.add(title)
        titles.append(title)
        brands.append(brand)
    return titles, np.array(brands)


def _chances(world: _World, users: NDArray[np.int64], bought: NDArray[np.int64]) -> Floats:
    """Probability of each item as the next purchase; `bought` (rows, steps), -1 where nothing; shape (rows, items)."""
    rows = np.arange(len(users))
    back = bought[:, -LAG] if bought.shape[1] >= LAG else np.full(len(users), -1)
    known = back >= 0
    category_chance = world.taste[users].copy()
    category_chance[known] *= 1 - FOLLOWS
    goal = world.follows[world.habit[users], world.category[back]]
    category_chance[rows[known], goal[known]] += FOLLOWS
    weight = np.log(world.popularity)[None, :] + BRAND_LOYALTY * world.favourites[users][:, world.brand]
    weight += ECHO * (known[:, None] & (world.brand[None, :] == world.brand[back][:, None]))
    weight = np.exp(weight)
    for column in bought.T:
        weight[rows[column >= 0], column[column >= 0]] = 0.0
    total = np.zeros_like(category_chance)
    for c in range(world.taste.shape[1]):
        total[:, c] = weight[:, world.category == c].sum(axis=1)
    chances = weight * (category_chance / np.maximum(total, 1e-300))[:, world.category]
    return np.asarray(chances / chances.sum(axis=1, keepdims=True))
