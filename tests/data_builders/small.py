"""What the tests of builders share: a small log as text, and its counts."""

from __future__ import annotations

import warnings
from typing import Any

from rectune.log.log import Log

RATINGS = "userId,movieId,rating,timestamp\n1,10,4.0,100\n1,20,3.5,90\n2,10,1.0,50\n"
MOVIES = 'movieId,title,genres\n10,"Good, the Bad (1966)",Western|Drama\n20,Heat &amp; Dust,(no genres listed)\n30,Nobody saw it,Drama\n'


def quietly(build: Any, **arguments: Any) -> Log:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log: Log = build(**arguments)
    return log


def counts(log: Log) -> tuple[int, int, int]:
    return log.n_users, log.n_items, log.interactions.height
