"""Repositories of the Hub: fetched."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def is_repository(name: str) -> bool:
    """Whether a text can be the name of a repository, USER/REPO."""
    return REPOSITORY.fullmatch(name) is not None and ".." not in name


def fetched(
    name: str, *, revision: str | None = None, token: str | None = None, cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> tuple[Path, str]:  # fmt: skip
    """The folder of a repository in the cache, fetched where it is not there, and its commit.

    Raises FileNotFoundError with one line where there is none, it may not be read, or the Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f" at `{revision}`" if revision else ""
    try:
        place = snapshot_download(
            name, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
    except RepositoryNotFoundError:
        raise FileNotFoundError(
            f"the Hub has no repository `{name}`, or it is private and no token that may read it was given: type `hf auth login`, or set HF_TOKEN."
        ) from None
    except RevisionNotFoundError:
        raise FileNotFoundError(f"`{name}` has no revision `{revision}`.") from None
    except LocalEntryNotFoundError:
        raise FileNotFoundError(
            f"`{name}`{at} is not in the cache, and the Hub could not be reached (or was not to be). Connect to the network once."
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise FileNotFoundError(f"`{name}`{at} could not be fetched ({' '.join(str(error).split())[:200]}).") from None
    return Path(place), Path(place).name
