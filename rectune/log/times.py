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
READ = "numbers, 2026-01-31, 2026-01-31 18:00:09 (with T, Z, UTC or +01:00), 2026/01/31, 31.01.2026, Jan 31, 2026, Sat Jan 31 18:00:09 +0000 2026"


def as_number(column: pl.Series, where: str, *, time_format: str | None = None) -> pl.Series:
    """Return the column as float64. Dates and date-times become seconds since 1970 (UTC).

    `time_format`: how they are written, in the signs of strptime. Raises ValueError naming `where`, the first bad value and its row, and
    for dates whose month and day cannot be told apart.
    """
    if column.dtype in (pl.Date, pl.Datetime):
        return column.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
    if column.dtype == pl.String and time_format is not None:
        numbers = _stamps(column.str.strip_chars(), time_format)
        _refuse(numbers, column, f"{where} is not of the form {time_format!r}")
        return numbers
    if column.dtype == pl.String:
        numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
        if numbers.is_null().any():
            numbers = _dates(column.str.strip_chars(), where, numbers)
    elif column.dtype.is_numeric():
        numbers = column.cast(pl.Float64)
    else:
        raise ValueError(f"{where} holds {column.dtype}, but it must be numbers or dates.")
    _refuse(numbers, column, f"{where} is not a number")
    return numbers


def _refuse(numbers: pl.Series, column: pl.Series, what: str) -> None:
    bad = numbers.is_null() | ~numbers.is_finite().fill_null(False)
    if bad.any():
        row = int(bad.arg_true()[0])
        dated = any(sign in str(column[row]) for sign in "-/.:")
        told = f" Of dates these are read: {READ}; for others say `time_format`." if dated else ""
        raise ValueError(f"{what} in {bad.sum()} rows, the first is data row {row + 1}: {column[row]!r}.{told}")


def _dates(column: pl.Series, where: str, numbers: pl.Series) -> pl.Series:
    """Dates as seconds since 1970; `numbers` where no form fits."""
    plain = column.str.strip_suffix(" UTC").str.strip_suffix("Z")
    sample = plain.head(1000)
    partly: list[tuple[int, str]] = []
    for form in CLEAR:
        missing = int(_stamps(sample, form).null_count())
        if not missing and not (whole := _stamps(plain, form)).is_null().any():
            return whole
        partly.append((missing, form))
    for forms in EITHER:
        fits = [form for form in forms if not _stamps(sample, form).is_null().any()]
        found = [stamps for form in fits if not (stamps := _stamps(plain, form)).is_null().any()]
        if len(found) == 2:
            raise ValueError(
                f'{where}: {column[0]!r} may be month or day first, and so may all others. Say `time_format: "{forms[0]}"` or '
                f'`time_format: "{forms[1]}"`.'
            )
        if found:
            return found[0]
    missing, form = min(partly)
    return _stamps(plain, form) if missing <= len(sample) / 2 else numbers  # the others are what is wrong


def _stamps(column: pl.Series, form: str) -> pl.Series:
    """Seconds since 1970 (UTC), null where a value is not of the form."""
    try:
        stamps = column.str.to_datetime(form, time_unit="us", strict=False, exact=True)
    except pl.exceptions.PolarsError:
        return pl.Series(column.name, [None] * len(column), dtype=pl.Float64)
    if getattr(stamps.dtype, "time_zone", None):
        stamps = stamps.dt.convert_time_zone("UTC")
    return stamps.dt.epoch("us").cast(pl.Float64) / 1e6
