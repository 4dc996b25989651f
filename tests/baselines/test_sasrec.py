"""SASRec: what it learns, how it is trained, stopped, gone on with and chosen."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from rectune.baselines import sasrec_training
from rectune.baselines.sasrec_network import FILE, load_sasrec
from rectune.baselines.sasrec_settings import SasRecSettings
from rectune.baselines.sasrec_training import best_sasrec, train_sasrec, training_sequences, validation_ndcg
from rectune.indexing.rq_vae import RqVaeSettings
from rectune.log.cleaning import make_log
from rectune.log.split import Split, windows
from rectune.log.splits.by_user import by_user
from rectune.log.splits.leave_one_out import leave_one_out

SMALL = SasRecSettings(dimensions=16, dropout=0.0, epochs=40, batch=8, learning_rate=1e-2)


def walks(last: int = 0) -> Split:
    """Users who walk along a round of 12 items; `last` moves the held-out targets."""
    rows = []
    for user in range(24):
        items = [(user * 5 + step) % 12 for step in range(6)]
        items[-1] = (items[-1] + last) % 12
        rows += [(f"u{user:02}", f"i{item:02}", float(n)) for n, item in enumerate(items)]
    names = [f"i{item:02}" for item in range(12)]  # the order of items must not depend on what is held out
    items = pl.DataFrame({"item_id": names, "title": names})
    return leave_one_out(
        make_log(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"), items, source="walks")
    )


def test_it_learns_a_fixed_order() -> None:
    split = walks()
    assert validation_ndcg(split, train_sasrec(split, SMALL, seed=0)) > 0.95


def test_without_validation_rows_the_last_epoch_is_kept() -> None:
    split = walks()
    alone = dataclasses.replace(split, validation=split.validation.take(np.zeros(0, dtype=np.int64)))
    assert validation_ndcg(split, train_sasrec(alone, SMALL, seed=0)) > 0.95


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="`epochs` of SASRec must be at least 1, got 0"):
        SasRecSettings(epochs=0)
    with pytest.raises(ValueError, match=r"`index.batch` must be at least 1, got 0"):
        RqVaeSettings(batch=0)


def test_held_out_targets_change_nothing_but_which_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sasrec_training, "LOOKS", 1)  # at the first epoch alone
    one, two = (train_sasrec(walks(last), dataclasses.replace(SMALL, epochs=2), seed=0) for last in (0, 3))
    assert np.array_equal(one.vectors(), two.vectors())


def test_it_sees_the_training_events_of_its_split_and_no_others() -> None:
    rows = [(f"u{user:02}", f"i{(user + n) % 12:02}", float(n)) for user in range(40) for n in range(9)]
    log = make_log(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"), source="walks")
    split = by_user(log, rows_per_user=1, max_history=2)
    users = len(split.train)
    assert len(split.train_events) == 3 * users  # the target and two items before it
    sequences = training_sequences(split, 20)
    assert np.array_equal(np.concatenate(sequences), log.item_codes[split.train_events])
    assert len(sequences) == users
    short = training_sequences(split, 1)  # windows share one event: each but a user's first is a target once
    assert sorted((a, b) for a, b in short) == sorted(pair for one in sequences for pair in pairwise(one.tolist()))


def test_windows_of_training_events_are_those_of_the_rows() -> None:
    split = walks()
    rows = windows(split, length=2)
    expected = [split.log.item_codes[a : b + 1].tolist() for a, b in zip(rows.start, rows.target, strict=True)]
    assert [one.tolist() for one in training_sequences(split, 2)] == expected


def test_it_survives_saving_and_gives_probabilities(tmp_path: Path) -> None:
    split = walks()
    model = train_sasrec(split, dataclasses.replace(SMALL, epochs=1), seed=0)
    model.save(tmp_path)
    again = load_sasrec(tmp_path)
    assert again.settings == model.settings
    found: Any = again.log_probabilities(split, split.test)
    assert np.allclose(np.exp(found).sum(1), 1.0)
    assert np.array_equal(found, model.log_probabilities(split, split.test))


SAMPLED = dataclasses.replace(SMALL, loss="sampled_softmax", negatives=6)


@pytest.mark.parametrize(
    "settings",
    [SAMPLED, dataclasses.replace(SAMPLED, sampling_power=0.75, log_q=True), dataclasses.replace(SMALL, lr_scheduler_type="constant")],
    ids=["sampled", "log-q", "constant"],
)  # fmt: skip
def test_every_loss_learns_a_fixed_order(settings: SasRecSettings) -> None:
    split = walks()
    assert validation_ndcg(split, train_sasrec(split, settings, seed=0)) > 0.9


def test_a_sampled_softmax_over_everything_is_the_full_one() -> None:
    """Drawn evenly so often that each item comes equally often, the mean over negatives is the catalogue's but for the target's own share."""
    split, model = walks(), train_sasrec(walks(), dataclasses.replace(SMALL, epochs=1), seed=0)
    sequences = training_sequences(split, 20)[:5]
    device = torch.device("cpu")
    ids = model.started(sequences)
    scores = (model(ids[:, :-1]) @ model.table()[:-1].T)[ids[:, 1:] != model.items].detach()
    targets = ids[:, 1:][ids[:, 1:] != model.items]
    many = 400_000
    q = sasrec_training._Loss(split, dataclasses.replace(SAMPLED, sampling_power=1.0), 0, device).share
    others = scores - torch.nn.functional.one_hot(targets, 12) * 1e9
    for log_q, power, expected in (
        (False, 0.0, torch.log(many / 12 * others.exp().sum(1) + scores.gather(1, targets[:, None])[:, 0].exp())),
        (False, 1.0, torch.log(many * (others.exp() * q).sum(1) + scores.gather(1, targets[:, None])[:, 0].exp())),
        (True, 1.0, None),
    ):
        settings = dataclasses.replace(SAMPLED, negatives=many, sampling_power=power, log_q=log_q)
        found = float(sasrec_training._Loss(split, settings, 0, device)(model, sequences).detach())
        own = scores.gather(1, targets[:, None])[:, 0]
        if expected is None:  # the draws' own frequencies cancel out
            own = own - q[targets].log()
            expected = torch.log(many * others.exp().sum(1) + own.exp())
        assert found == pytest.approx(float((expected - own).mean()), abs=0.01)


def test_patience_ends_a_training_that_gets_no_better() -> None:
    split = walks()
    model = train_sasrec(split, dataclasses.replace(SMALL, epochs=200, patience=3), seed=0)
    about = model.about
    assert about["epochs_trained"] == about["best_epoch"] + 3 < 200
    assert about["ndcg@10"] == pytest.approx(validation_ndcg(split, model))
    alone = dataclasses.replace(split, validation=split.validation.take(np.zeros(0, dtype=np.int64)))
    short = dataclasses.replace(SMALL, epochs=5, patience=1)
    about = train_sasrec(alone, short, seed=0).about
    assert (about["epochs_trained"], about["best_epoch"]) == (5, 5)  # nothing tells when to stop


@pytest.mark.parametrize("settings", [SMALL, SAMPLED], ids=["full", "sampled"])
def test_an_interrupted_training_ends_as_one_that_was_not(
    settings: SasRecSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, settings = walks(), dataclasses.replace(settings, epochs=6, dropout=0.3)
    monkeypatch.setattr(sasrec_training, "EVERY", 0.0)
    whole = train_sasrec(split, settings, seed=3)
    epochs, run = [], sasrec_training._Training.run_epoch

    def interrupted(self: Any) -> None:
        if len(epochs) == 3:
            raise KeyboardInterrupt
        epochs.append(run(self))

    monkeypatch.setattr(sasrec_training._Training, "run_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_sasrec(split, settings, seed=3, folder=tmp_path)
    trained: list[int] = []
    monkeypatch.setattr(sasrec_training._Training, "run_epoch", lambda self: (trained.append(self.epoch), run(self))[1])
    again = train_sasrec(split, settings, seed=3, folder=tmp_path)
    assert trained == [3, 4, 5]
    assert np.array_equal(again.vectors(), whole.vectors())
    assert again.about == whole.about


def test_of_several_configurations_validation_chooses(tmp_path: Path) -> None:
    split = walks()
    worse = dataclasses.replace(SMALL, epochs=1)
    model = best_sasrec(split, [worse, SMALL], seed=0, folder=tmp_path)
    assert model.settings == SMALL
    assert [(one["epochs"], one["ndcg@10"]) for one in model.about["tried"]] == [(1, train_sasrec(split, worse, seed=0).about["ndcg@10"]), (40, model.about["ndcg@10"])]  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == [FILE]
    assert load_sasrec(tmp_path).about == model.about


def test_one_that_was_killed_while_it_tidied_up_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, settings = walks(), dataclasses.replace(SMALL, epochs=1)
    model = best_sasrec(split, [settings, SMALL], seed=0, folder=tmp_path)
    (tmp_path / "configuration1").mkdir()  # the first one is gone already
    monkeypatch.setattr(sasrec_training, "train_sasrec", None)
    again = best_sasrec(split, [settings, SMALL], seed=0, folder=tmp_path)
    assert np.array_equal(again.vectors(), model.vectors())
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


def test_a_file_that_was_half_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(weights: Any, file: Path, metadata: Any) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    model = train_sasrec(walks(), dataclasses.replace(SMALL, epochs=1), seed=0)
    with monkeypatch.context() as patch:
        patch.setattr("rectune.baselines.sasrec_network.save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            model.save(tmp_path)
    assert not (tmp_path / FILE).exists()
    model.save(tmp_path)
    assert np.array_equal(load_sasrec(tmp_path).vectors(), model.vectors())


def test_a_longer_history_than_the_splits_is_seen() -> None:
    """`max_history` of a split is what a prompt holds; a baseline sees all that the user did, as far as its own `history` goes."""
    rows = [(f"u{user:02}", f"i{(user + n) % 12:02}", float(n)) for user in range(24) for n in range(9)]
    log = make_log(pl.DataFrame(rows, schema=["user", "item", "time"], orient="row"), source="walks")
    model = train_sasrec(leave_one_out(log), dataclasses.replace(SMALL, epochs=2), seed=0)
    short, long = (leave_one_out(log, max_history=most) for most in (1, 20))
    assert np.array_equal(model.log_probabilities(short, short.test), model.log_probabilities(long, long.test))


@pytest.mark.parametrize("way", ["initial", "projected", "null_space"])
def test_vectors_enter_and_are_saved_as_they_came_out(way: Any, tmp_path: Path) -> None:
    split = walks()
    angles = np.arange(12) / 12 * 2 * np.pi
    vectors = np.stack([np.cos(angles), np.sin(angles), np.ones(12)], 1).astype(np.float32)
    settings = dataclasses.replace(SMALL, vectors=way, epochs=60)
    model = train_sasrec(split, settings, seed=0, vectors=vectors)
    assert validation_ndcg(split, model) > 0.9
    model.save(tmp_path)
    again = load_sasrec(tmp_path)
    assert np.array_equal(again.vectors(), model.vectors())
    assert np.array_equal(again.log_probabilities(split, split.test), model.log_probabilities(split, split.test))
    other = train_sasrec(split, settings, seed=0, vectors=vectors[::-1].copy())
    assert not np.allclose(other.vectors(), model.vectors())
    if way == "projected":  # a linear map of two centred coordinates
        assert np.linalg.matrix_rank(model.vectors(), tol=1e-4) == 2
    if way == "null_space":  # the given half has not moved but in scale
        given, centred = model.vectors()[:, :2], vectors[:, :2] - vectors[:, :2].mean(0)
        assert np.allclose(given @ given.T / (given**2).sum(), centred @ centred.T / (centred**2).sum(), atol=1e-5)


def test_vectors_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="`vectors: initial` of SASRec needs item vectors"):
        train_sasrec(walks(), dataclasses.replace(SMALL, vectors="initial"), seed=0)
