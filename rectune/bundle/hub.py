"""Repositories of the Hub: what they may be called, fetched, and what the Hub says in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rectune.bundle.manifest import FILE, read_manifest

REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def escaped(name: str) -> str:
    """A file's name as a pattern that matches it alone."""
    return re.sub(r"([*?\[])", r"[\1]", name)


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
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f" at `{revision}`" if revision else ""
    try:
        asked = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        manifest = Path(str(hf_hub_download(name, FILE, revision=revision, **asked)))  # type: ignore[arg-type]
        files = [escaped(file) for file in read_manifest(manifest.parent)["files"]]
        place = snapshot_download(name, revision=manifest.parent.name, allow_patterns=[*files, FILE], **asked)  # type: ignore[arg-type]
    except RepositoryNotFoundError:
        raise FileNotFoundError(
            f"the Hub has no repository `{name}`, or it is private and no token that may read it was given: type `hf auth login`, or set HF_TOKEN. There is "
            "no folder of that name either."
        ) from None
    except LocalEntryNotFoundError:
        raise FileNotFoundError(
            f"`{name}`{at} is not in the cache, and the Hub could not be reached (or was not to be). Connect to the network once. There "
            "is no folder of that name either."
        ) from None
    except EntryNotFoundError:
        raise FileNotFoundError(f"`{name}`{at} holds no bundle of rectune (it has no {FILE}).") from None
    except RevisionNotFoundError:
        raise FileNotFoundError(f"`{name}` has no revision `{revision}`.") from None
    except (HfHubHTTPError, OSError) as error:
        raise FileNotFoundError(f"`{name}`{at} could not be fetched ({' '.join(str(error).split())[:200]}).") from None
    return Path(str(place)), Path(str(place)).name


@contextmanager
def told(repo: str) -> Iterator[None]:
    """What the Hub answers to a push, in one line. Raises OSError for a place that may not be written or is not reached."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        why = {
            401: "the token is not known",
            403: "the token may not write there",
            404: "it is not there, or the token may not see it",
        }.get(status)
        said = why or " ".join(str(error).split())[:200]
        raise OSError(
            f"the Hub refused `{repo}`: {said}. What was sent stays there; the same command goes on."
        ) from None
    except Exception as error:
        if not type(error).__module__.startswith("httpx"):  # which of them depends on the version of huggingface_hub
            raise
        raise OSError(
            f"the Hub could not be reached ({' '.join(str(error).split())[:150] or type(error).__name__}). The same command goes on where it was."
        ) from None
