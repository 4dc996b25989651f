"""What may be asked over HTTP, and what comes back."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

Id = Annotated[StrictStr, Field(max_length=1000)]
MOST_HISTORY, MOST_LISTED, MOST_HISTORIES = 1_000, 10_000, 256


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Recommend(_Asked):
    """`history` for one list, or `histories` for many."""

    history: Annotated[list[Id], Field(max_length=MOST_HISTORY)] | None = Field(
        None, description="item ids, oldest first"
    )
    histories: (
        Annotated[list[Annotated[list[Id], Field(max_length=MOST_HISTORY)]], Field(min_length=1, max_length=MOST_HISTORIES)] | None
    ) = Field(None, description="many histories")  # fmt: skip
    k: Annotated[StrictInt, Field(ge=1, le=1000)] | None = Field(
        None, description="items in a list; 10, or as many as are searched"
    )
    by: Literal["item_id", "title"] = "item_id"
    hide_seen: StrictBool = True
    allow: Annotated[list[Id], Field(max_length=MOST_LISTED)] | None = Field(
        None, description="ids of items that alone may be listed"
    )
    deny: Annotated[list[Id], Field(max_length=MOST_LISTED)] = Field(
        [], description="ids of items that must not be listed"
    )
    candidates: Annotated[list[Id], Field(max_length=MOST_LISTED)] | None = Field(
        None, description="ids that are to be ranked"
    )
    user: Annotated[StrictStr, Field(max_length=1000)] = Field(
        "", description="whose history it is, for a model with user tokens"
    )
    prior_weight: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def one_or_many(self) -> Recommend:
        """Either one history or many."""
        if (self.history is None) == (self.histories is None):
            raise ValueError("give either `history` or `histories`")
        return self


Entry = Id | tuple[Id, StrictBool | Annotated[float, Field(allow_inf_nan=False)]]


class Score(_Asked):
    """What a user with this history would say of an item, for a Yes/No or rating model."""

    history: Annotated[list[Entry], Field(max_length=MOST_HISTORY)] = Field(
        description="item ids, or pairs of an id and true, false or a rating"
    )
    items: Annotated[list[Id], Field(min_length=1, max_length=MOST_HISTORIES)] = Field(
        description="the items that are asked about"
    )
    by: Literal["item_id", "title"] = "item_id"


class Listed(BaseModel):
    """An item of a list."""

    item_id: str
    title: str
    score: float
    proven: bool


class Lists(BaseModel):
    """`items` for one history, `lists` for many; `model`: which bundle answered, `commit` its commit on the Hub."""

    items: list[Listed] | None = None
    lists: list[list[Listed]] | None = None
    model: str
    commit: str | None = None


class Said(BaseModel):
    """An answer about an item: the probability of Yes, or the expected rating, and the chance of each answer."""

    item_id: str
    title: str
    score: float
    chances: dict[str, float]


class Opinions(BaseModel):
    """One answer an item."""

    items: list[Said]
    model: str
    commit: str | None = None


class Found(BaseModel):
    """Items by words of their titles."""

    items: list[dict[str, str]]
