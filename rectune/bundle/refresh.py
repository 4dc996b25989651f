"""`rectune train --from`: a recipe that goes on from a run, a bundle, or a repository of the Hub."""

from __future__ import annotations

import json
from pathlib import Path

from rectune.bundle.export import export
from rectune.bundle.files import ABOUT, exported_run, run_of
from rectune.bundle.manifest import FILE, check_files
from rectune.bundle.names import written_call
from rectune.recipe.load import Recipe, overridden
from rectune.run.asked import ask
from rectune.run.earlier import EARLIER
from rectune.run.run import RESOLVED, open_run
from rectune.runtime.processes import gather


def refreshed(recipe: Recipe, named: str | Path) -> Recipe:
    """The recipe with its key `from`. A run folder is exported first, into it, to a folder that is named by what was trained.

    Raises FileNotFoundError where nothing is there, ValueError for the run folder of the recipe itself, for a bundle that is not as it was
    written, and where the recipe has another index or other item vectors than the earlier run, by which new items could not be named.
    """
    folder = Path(named)
    if (folder / RESOLVED).exists() and (folder / "run.json").exists():
        run = open_run(folder, added=True)
        added = "" if run.asked.added is None else f"-{run.asked.added.mark}"
        bundle = (
            folder.resolve() / f"{EARLIER}{run.tuned.fingerprint}{added}"
        )  # what goes on from it finds it as it was
        if not gather(exported_run(bundle) == run_of(run))[0]:  # all processes export, or none does
            export(folder, bundle)
    else:
        bundle = _bundle(folder, str(named))
    check_files(bundle)
    if Path(recipe.settings["output_dir"]).resolve() in (bundle, bundle.parent):
        raise ValueError(
            f"`--from`: {named} lies in the folder that this recipe writes. Give another one with --output_dir."
        )
    made = overridden(recipe, [("from", json.dumps(str(bundle)))])
    about = json.loads((bundle / ABOUT).read_text(encoding="utf-8"))
    had, has = about["asked"]["vectors"], [written_call("vectors", call) for call in ask(made).vectors]
    if had and had != has:
        raise ValueError(
            f"{recipe.where('vectors')}: the earlier run has other item vectors ({json.dumps(had)}), by which its index names items. Take those."
        )
    return made


def _bundle(folder: Path, named: str) -> Path:
    from rectune.bundle.hub import fetched, is_repository

    if (folder / FILE).exists() or (folder / ABOUT).exists():
        return folder.resolve()
    if folder.exists() or not is_repository(named):
        raise FileNotFoundError(
            f"`--from`: `{named}` is neither a finished run folder, nor a bundle that `rectune export` wrote, nor a repository of the Hub (USER/REPO)."
        )
    return fetched(named)[0]
