"""How a tuned language model ranks: loaded on its base, checked, its adapter folded in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from rectune.decoding.language_model import LanguageModelRanker, Ranker, catalogue_trie
from rectune.methods.contract import Loading
from rectune.methods.probe import check_reloaded
from rectune.model.adapters import fold_adapter, load_tuned
from rectune.model.load import load_base
from rectune.tasks.views import ItemViews

CARD = "rectune.json"  # beside the tuned weights: what they were made with


def load(given: Loading, folder: Path | None) -> Ranker:
    """The model in `folder`, or the untuned base, as a ranker. Raises ValueError when what was tuned does not fit the run."""
    if folder is None:
        return as_ranker(given, load_base(given.model, given.base, given.index, seed=given.seed))
    check_origin(given, folder)
    model = load_tuned(given.model, given.base, folder, given.index, seed=given.seed)
    check_reloaded(model, folder)
    return as_ranker(given, fold_adapter(model, given.model))


def as_ranker(given: Loading, model: object) -> LanguageModelRanker:
    """A model as a ranker of the run's rows."""
    return LanguageModelRanker(model, given.encoder, given.template, given.rank, given.trie)


def worded(given: Loading, ranker: LanguageModelRanker, wording: int) -> LanguageModelRanker:
    """The same model, asked in another wording of the template."""
    trie = None
    if ranker.trie is not None:
        view = ItemViews(given.split, given.index)
        trie = catalogue_trie(given.encoder, given.template, wording, view, given.index, called=view.called)
    settings = replace(given.rank, wording=wording)
    return LanguageModelRanker(ranker.model, given.encoder, given.template, settings, trie, progress=False)


def check_origin(given: Loading, tuned: Path) -> None:
    """Raise ValueError when a tuned model was made with another prompt or on another base than this run's."""
    card = json.loads((tuned / CARD).read_text())
    template, tuned_with = given.template, card.get("templates", {})
    if template.name not in tuned_with:
        raise ValueError(f"{tuned} was not tuned with `{template.name}` (`rank.template`). Train again.")
    if tuned_with[template.name] != template.hash:
        raise ValueError(
            f"{tuned} was tuned with another text of `{template.name}` than it is now. Restore the template or train again."
        )
    if card["base"] != given.base_name:
        raise ValueError(
            f"{tuned} was tuned on the base `{card['base']}`, but the recipe now names `{given.base_name}`."
        )
