"""`rectune export`: a run as a folder that transformers alone loads, ranks with, and that is shown to be the tuned model."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rectune.bundle import files as files
from rectune.bundle.card import card, plain_code
from rectune.bundle.fidelity import check_written, plain_model
from rectune.bundle.files import ABOUT, TEMPLATE
from rectune.bundle.for_engines import FOLDER, write_catalogues, writer_of
from rectune.bundle.manifest import write_manifest
from rectune.bundle.parts import write_parts
from rectune.bundle.plain import prompt_ids, read
from rectune.decoding.language_model import LanguageModelRanker
from rectune.decoding.ranking import recall_and_ndcg, target_ranks
from rectune.log.split import evenly
from rectune.methods.language_model import as_ranker
from rectune.methods.probe import probe_ids, write_probe
from rectune.methods.validation import answer_metrics
from rectune.model.settings import quantization_config
from rectune.recipe.fingerprints import name_of
from rectune.run.judged import HIDDEN
from rectune.run.rankings import answered, prior_weight, ranked
from rectune.run.run import Run, open_run
from rectune.runtime.files import check_disk
from rectune.runtime.processes import gather, is_main, wait
from rectune.tasks.asked_histories import outside_of

COMPARED = 200  # prompts that are encoded both ways


def export(
    folder: str | Path, to: str | Path | None = None, *, adapter_only: bool = False, engines: Sequence[str] = ()
) -> tuple[Path, dict[str, Any]]:
    """Write a finished run as a bundle, by default `RUN/export`; returns it and its `rectune.json`.

    It is a plain transformers folder, and holds everything that recommending needs. `adapter_only`: the adapter instead of whole weights, beside the name
    of its base on the Hub. Otherwise an adapter is merged into the base in the recipe's dtype, never into 4-bit weights; of a quantised run both forms are
    ranked on the test rows. `engines`: those for which a catalogue is written, too. Items that were added to the run are exported too. Raises FileNotFoundError for a folder that is
    no finished run and for a base that is gone, ValueError for a place that holds something else and when the written model
    does not give the logits of the tuned one. Leaves the whole folder or none. A run that cannot be written is read: what it
    lacks is built in a temporary place.
    """
    with tempfile.TemporaryDirectory() as temporary:
        own = Path(folder).resolve()
        elsewhere = None if not own.is_dir() or os.access(own, os.W_OK) else Path(temporary)
        return _export(folder, to, elsewhere, adapter_only, engines)


def _export(
    folder: str | Path, to: str | Path | None, elsewhere: Path | None, adapter_only: bool, engines: Sequence[str]
) -> tuple[Path, dict[str, Any]]:
    for name in engines:
        writer_of(name)
    run, listed = open_run(folder, elsewhere=elsewhere), open_run(folder, added=True, elsewhere=elsewhere)
    place = (Path(to) if to is not None else run.folder.path / "export").resolve()
    files.check_place(place, run)
    if hasattr(run.asked.trainings[-1].method, "export"):
        return place, _export_own(run, listed, place, engines)
    if adapter_only:
        files.check_adapter(run)
    with run.folder.lock():
        if run.asked.prior is not None and run.rows.kind == "item":
            run.place("prior")  # boxes that all processes build, while the bundle is written by one
            prior_weight(run)
        model, logits, found = plain_model(run)
        ranker = as_ranker(listed.loading, model)
        about = {
            **files.about_run(listed, room=ranker.room()), "encoder_decoder": bool(model.config.is_encoder_decoder),
            "weights": {"dtype": str(model.dtype).partition(".")[2], **found},
            "model": files.model_of(run, adapter_only=adapter_only), "adapter_only": adapter_only, "method_files": False,
            "plain_code": plain_code(listed) and not adapter_only,
        }  # fmt: skip
        work = place.with_name(f".{place.name}.partial")
        try:
            if is_main():
                about = _write_parts(listed, run, model, about, work)
                about["weights"]["writing"] = check_written(run, work, logits)
            if quantization_config(run.asked.model) is not None:
                about["forms"] = both_forms(run, model)
            if is_main():
                about["prompts"] = same_prompts(listed, ranker, work)
                if adapter_only:
                    files.keep_adapter(run, work)
                _finish(work, place, about, engines)
        except BaseException:
            if is_main():
                shutil.rmtree(work, ignore_errors=True)
            raise
        wait()
    return place, gather(about)[0]


def _export_own(run: Run, listed: Run, place: Path, engines: Sequence[str]) -> dict[str, Any]:
    """Write a run whose method says itself what its model is in files: these, the items, the template, and what is known of the run."""
    method = run.asked.trainings[-1].method
    about = {
        **files.about_run(listed, room=None), "method": name_of(method), "model": files.model_of(run, adapter_only=False),
        "adapter_only": False, "method_files": True, "plain_code": False, "prompts": {"compared": 0, "same": 0},
    }  # fmt: skip
    work = place.with_name(f".{place.name}.partial")
    with run.folder.lock():
        if is_main():
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            try:
                about["items"], _ = files.write_items(listed, work)
                (work / TEMPLATE).write_text(listed.asked.template.source, encoding="utf-8")
                about["weights"] = method.export(listed.loading, run.tuned.folder / "model", work)  # type: ignore[attr-defined]
                about |= write_parts(listed, run, work)
                listed.encoder.tokenizer.save_pretrained(work)
                _finish(work, place, about, engines)
            except BaseException:
                shutil.rmtree(work, ignore_errors=True)
                raise
        wait()
    return gather(about)[0]  # type: ignore[no-any-return]


def _finish(work: Path, place: Path, about: dict[str, Any], engines: Sequence[str]) -> None:
    """Write catalogues for engines, card and manifest, and move the folder to its place."""
    (work / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
    if told := write_catalogues(work, engines, work / FOLDER):
        about["engines"] = told
        (work / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
    (work / "README.md").write_text(card(work), encoding="utf-8")
    write_manifest(work)
    files.put(work, place)


def _write_parts(listed: Run, run: Run, model: Any, about: dict[str, Any], work: Path) -> dict[str, Any]:
    """Write everything but the card into a new folder; returns `about` with what is known of items and answers."""
    work.parent.mkdir(parents=True, exist_ok=True)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    check_disk(work, size, "the weights", "--to")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    about["items"], longest = files.write_items(listed, work)
    (work / TEMPLATE).write_text(listed.asked.template.source, encoding="utf-8")
    if listed.rows.kind == "answer":
        about["answers"] = files.answers_of(listed)
        longest = max(len(answer["tokens"]) for answer in about["answers"])
    files.write_model(model, listed, work, longest=longest)
    about |= write_parts(listed, run, work)
    write_probe(model, probe_ids(run.tuned.folder / "model"), work)
    (work / ABOUT).write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
    return about


def both_forms(run: Run, model: Any) -> dict[str, dict[str, float]]:
    """Metrics on the test rows of the adapter on the quantised base and of the merged `model`: recall and ndcg at `rank.k`, seen
    items hidden, or AUC. Rankings are stages of the run, so a killed one goes on."""
    run.models["merged"] = as_ranker(run.loading, model)
    forms = {"merged": _measured(run, "merged")}
    run.models.clear()
    forms["adapter on the quantised base"] = _measured(run, "tuned")
    run.models.clear()
    return forms


def _measured(run: Run, who: str) -> dict[str, float]:
    if run.rows.kind == "answer":
        return answer_metrics(run.rows, answered(run, who)[0])
    ranking, _ = ranked(run, who, HIDDEN)
    place, width = target_ranks(ranking, run.rows.target.astype(np.int32)), ranking.items.shape[1]
    return recall_and_ndcg(place, width, k=run.asked.rank.k)


def same_prompts(listed: Run, ranker: LanguageModelRanker, work: Path) -> dict[str, int]:
    """How many of some prompts the card's code encodes like the run: titles that spell a special token differ.
    Warns where any does."""
    if not plain_code(listed):
        return {"compared": 0, "same": 0}  # the card shows no code
    split, which = listed.split, evenly(len(listed.split.test), COMPARED)
    sample = split.test.take(which)
    histories = [split.history(sample, i).tolist() for i in range(len(sample))]
    asked = listed.rows.take(which)
    if listed.rows.kind == "item":  # users are strangers, as in `recommend`
        asked = listed.rows_of_split(outside_of(split).split(histories))
    plain = SimpleNamespace(**read(work), tokenizer=listed.encoder.tokenizer)
    shown = list(plain.items.values())
    same = 0
    for i, target in enumerate(split.targets(sample)):
        extras = asked.variables(i).get("history", [])
        entries = [{**extra, **shown[item]} for extra, item in zip(extras, histories[i], strict=False)]
        same += prompt_ids(plain, entries, shown[target]) == ranker.prompts(asked, [i])[0]
    if same < len(sample):
        warnings.warn(
            f"{len(sample) - same} of {len(sample)} prompts are encoded otherwise by the code in the export's README than by the "
            "run: item texts spell special tokens.",
            stacklevel=3,
        )
    return {"compared": len(sample), "same": int(same)}
