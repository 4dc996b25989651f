"""Times as they are written in logs: numbers, and dates in the forms that can be told apart."""

from __future__ import annotations

import polars as pl

CLEAR = (
    "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S%.f",
    "%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S%.f", "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%b %d, %Y",
    "%d %b %Y", "%d %b %Y %H:%M:%S", "%a %b %d %H:%M:%S %Y", "%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%a %b %d %H:%M:%S %z %Y",
)  # fmt: skip
EITHER = tuple(  # month or day first: told by a number above 12
    (f"%m{mark}%d{mark}%Y{clock}", f"%d{mark}%m{mark}%Y{clock}")
    for mark in "/-"
    for clock in ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
)
FIRST_YEAR = 1000  # with four digits
STAMPS = "dates of their own type"
READ = "numbers, 2026-01-31, 2026-01-31 18:00:09 (with T, Z, UTC or +01:00), 2026/01/31, 31.01.2026, Jan 31, 2026, Sat Jan 31 18:00:09 +0000 2026"


def as_number(column: pl.Series, where: str, *, time_format: str | None = None) -> pl.Series:
    """Return the column as float64. Dates and date-times become seconds since 1970 (UTC).

    `time_format`: how they are written, in the signs of strptime. Raises ValueError naming `where`, the first bad value and its row, and
    for dates whose month and day cannot be told apart.
    """
    numbers = Numbers(where, time_format)
    numbers.add(column)
    return numbers.whole()


class Numbers:
    """The same for a column that comes in pieces; its dates are of one form, which the pieces choose together."""

    def __init__(self, where: str, time_format: str | None = None) -> None:
        self._where, self._given = where, time_format
        self._read: dict[str | None, list[pl.Series]] = {}  # by each form that fits all pieces so far; None: numbers
        self._rows, self._sample = 0, ""

    def add(self, column: pl.Series) -> None:
        """Read a piece. Raises ValueError for its first bad value, with its row among all pieces."""
        if not len(column):
            return
        forms = list(self._read)
        if column.dtype == pl.String:
            column = column.str.strip_chars()
            if not forms:
                self._sample = str(column[0])
            found = self._of_text(column, forms)
        elif column.dtype in (pl.Date, pl.Datetime) or column.dtype.is_numeric():
            dated = column.dtype in (pl.Date, pl.Datetime)
            found = {STAMPS: _seconds(column.cast(pl.Datetime("us")))} if dated else {None: column.cast(pl.Float64)}
        else:
            raise ValueError(f"{self._where} holds {column.dtype}, but it must be numbers or dates.")
        fitting = {
            form: values for form, values in found.items() if form in (forms or found) and not values.is_null().any()
        }
        if not fitting:
            form = forms[0] if forms else self._given
            values = found.get(form, next(iter(found.values())))
            self._refuse(values, column, "is not a number" if form is None else f"is not of the form {form!r}")
            raise ValueError(
                f"{self._where}: data row {self._rows + 1} is {column[0]!r}, but the rows before are {_called(form)}."
            )
        for values in fitting.values():
            self._refuse(values, column, "is not a number")
        self._read = {form: [*self._read.get(form, []), values] for form, values in fitting.items()}
        self._rows += len(column)

    def whole(self) -> pl.Series:
        """All pieces. Raises ValueError for dates whose month and day cannot be told apart."""
        if len(self._read) > 1:
            first, second = self._read
            raise ValueError(
                f'{self._where}: {self._sample!r} may be month or day first, and so may all others. Say `time_format: "{first}"` or '
                f'`time_format: "{second}"`.'
            )
        return pl.concat(next(iter(self._read.values()))) if self._read else pl.Series(dtype=pl.Float64)

    def _of_text(self, column: pl.Series, forms: list[str | None]) -> dict[str | None, pl.Series]:
        if self._given is not None:
            return {self._given: _stamps(column, self._given)}
        plain = column.str.strip_suffix(" UTC").str.strip_suffix("Z")
        if forms:
            return {
                form: column.cast(pl.Float64, strict=False) if form is None else _stamps(plain, form) for form in forms
            }
        numbers = column.cast(pl.Float64, strict=False)
        return _dates(plain) or {None: numbers} if numbers.is_null().any() else {None: numbers}

    def _refuse(self, numbers: pl.Series, column: pl.Series, what: str) -> None:
        bad = numbers.is_null() | ~numbers.is_finite().fill_null(False)
        if bad.any():
            row = int(bad.arg_true()[0])
            dated = any(sign in str(column[row]) for sign in "-/.:")
            told = f" Of dates these are read: {READ}; for others say `time_format`." if dated else ""
            raise ValueError(
                f"{self._where} {what} in {bad.sum()} rows, the first is data row {self._rows + row + 1}: {column[row]!r}.{told}"
            )


def _called(form: str | None) -> str:
    return "numbers" if form is None else form if form == STAMPS else f"of the form {form!r}"


def _dates(plain: pl.Series) -> dict[str | None, pl.Series]:
    """Dates as seconds since 1970 by each form that fits; where none fits all, by the one that fits most; {} where that is few."""
    sample = plain.head(1000)
    partly: list[tuple[int, str]] = []
    found: dict[str | None, pl.Series]
    for form in CLEAR:
        missing = int(_stamps(sample, form).null_count())
        if not missing and not (whole := _stamps(plain, form)).is_null().any():
            return {form: whole}
        partly.append((missing, form))
    for forms in EITHER:
        fits = [form for form in forms if not _stamps(sample, form).is_null().any()]
        found = {form: stamps for form in fits if not (stamps := _stamps(plain, form)).is_null().any()}
        if found:
            return found
    missing, form = min(partly)
    return {form: _stamps(plain, form)} if missing <= len(sample) / 2 else {}  # the others are what is wrong


def _stamps(column: pl.Series, form: str) -> pl.Series:
    """Seconds since 1970 (UTC), null where a value is not of the form; 25 is no year: Polars reads it as one, and so a day as a year."""
    try:
        stamps = column.str.to_datetime(form, time_unit="us", strict=False, exact=True)
    except pl.exceptions.PolarsError:
        return pl.Series(column.name, [None] * len(column), dtype=pl.Float64)
    if "%Y" in form:
        stamps = stamps.set(stamps.dt.year() < FIRST_YEAR, None)
    if getattr(stamps.dtype, "time_zone", None):
        stamps = stamps.dt.convert_time_zone("UTC")
    return _seconds(stamps)


def _seconds(stamps: pl.Series) -> pl.Series:
    """Seconds since 1970, each the nearest double; Polars multiplies by the inverse of a million, which is another one for a third of them."""
    micros = stamps.dt.epoch("us")
    return pl.Series(micros.name, micros.fill_null(0).to_numpy() / 1e6).set(micros.is_null(), None)
