"""Indexes from item vectors: quantisers, repairs, uniform mapping, and items that come later."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from rectune.indexing.atomic import atomic
from rectune.indexing.balanced_kmeans import balanced_kmeans, deal_out
from rectune.indexing.health import judged, same_pairs
from rectune.indexing.item_index import ItemIndex, colliding_items, from_levels
from rectune.indexing.letter import CollaborativeLosses, _diverse, letter
from rectune.indexing.quantised import names_of_new, token_places
from rectune.indexing.quantiser import Quantiser, check_collapse
from rectune.indexing.repair import reassign_last, repaired
from rectune.indexing.residual_kmeans import residual_kmeans
from rectune.indexing.rq_vae import RqVae, RqVaeSettings, _revive, rq_vae, train_rq_vae
from rectune.indexing.sinkhorn import spread_evenly
from rectune.log.cleaning import make_log
from rectune.log.split import Split
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.vectors.item_vectors import ItemVectors
from tests.indexing.test_indexes import split_of

BOOKS = (np.array([[0.0], [10.0]], dtype=np.float32), np.array([[-1.0], [1.0]], dtype=np.float32))


def cloud(items: int, width: int = 6) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=(items, width)).astype(np.float32)


def shop(items: int, *blocks: Any) -> tuple[Split, ItemVectors]:
    split = split_of([f"T{i}" for i in range(items)])
    return split, ItemVectors(tuple(split.log.items["item_id"].to_list()), blocks or (cloud(items),))


def test_codes_are_the_nearest_of_each_level_by_hand() -> None:
    codes, distances = Quantiser(BOOKS).codes(np.array([[0.8], [9.5], [10.9]], dtype=np.float32))
    assert codes.tolist() == [[0, 1], [1, 0], [1, 1]]
    assert distances[0] == pytest.approx([1.8**2, 0.2**2], abs=1e-5)


def test_a_quantiser_and_its_encoder_survive_as_arrays() -> None:
    layers = (
        (np.array([[-1.0]], np.float32), np.array([1.0], np.float32)),
        (np.array([[2.0]], np.float32), np.zeros(1, np.float32)),
    )
    fitted = Quantiser.from_arrays(Quantiser(BOOKS, layers).arrays())
    assert fitted.encode(np.array([[0.25], [3.0]], dtype=np.float32)).tolist() == [
        [1.5],
        [0.0],
    ]  # ReLU between the layers
    assert len(fitted.codebooks) == 2


def test_reassignment_moves_only_shared_names_and_as_little_as_possible() -> None:
    levels = np.array([[0, 0], [0, 0], [0, 2], [1, 0]], dtype=np.int32)
    distances = np.array([[0, 5, 9], [0, 2, 9], [9, 9, 0], [0, 1, 2]], dtype=np.float32)
    assert reassign_last(levels, distances).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0]]


def test_reassignment_needs_as_many_codes_as_items_share_a_prefix() -> None:
    with pytest.raises(ValueError, match=r"3 items share the codes \[0\], and the last level has 2 codes"):
        reassign_last(np.zeros((3, 2), dtype=np.int32), np.zeros((3, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="`repair`: got 'other'; use digit or reassign"):
        repaired(np.zeros((1, 1), dtype=np.int32), np.zeros((1, 1), dtype=np.float32), repair="other")  # type: ignore[arg-type]


def test_sinkhorn_uses_all_codes_equally_often() -> None:
    distances = torch.rand((60, 5), generator=torch.Generator().manual_seed(0))
    distances[:, 0] -= 0.9  # nearly everybody's nearest
    assert np.bincount(distances.argmin(1), minlength=5)[0] > 50
    plan = spread_evenly(distances, 0.05)
    assert plan.exp().sum(1).tolist() == pytest.approx([1.0] * 60)
    assert plan.exp().sum(0).tolist() == pytest.approx([12.0] * 5, abs=0.1)


def test_codes_are_dealt_out_evenly_nearest_pairs_first() -> None:
    distances = np.array([[0.1, 1], [0.2, 5], [0.3, 9], [0.4, 2]], dtype=np.float32)
    assert deal_out(distances).tolist() == [0, 0, 1, 1]
    counts = np.bincount(deal_out(np.random.default_rng(0).random((50, 7)).astype(np.float32)), minlength=7)
    assert counts.max() == 8


def test_balanced_codes_are_used_equally_often_at_every_level() -> None:
    split, vectors = shop(64)
    index = balanced_kmeans(split, vectors, levels=2, codes=8)
    assert [level["items_per_code_max"] for level in index.health["levels"][:2]] == [8, 8]


def test_rq_vae_learns_to_reconstruct_and_keeps_its_curves() -> None:
    split, vectors = shop(200)
    index = rq_vae(split, vectors, levels=3, codes=16, dimensions=4, hidden=[16], epochs=60, batch=64)
    curves = index.health["training"]
    assert curves["epoch"] == [10, 20, 30, 40, 50, 60]
    assert curves["reconstruction"][-1] < curves["reconstruction"][0]
    assert len({index.name(i) for i in range(200)}) == 200
    assert index.codes.shape == (200, 3)  # re-assigned, no further level


def test_the_uniform_mapping_lowers_collisions_of_the_last_level() -> None:
    vectors = cloud(300)
    found = [
        train_rq_vae(vectors, RqVaeSettings(2, 16, 4, (16,), epochs=30, batch=300, sinkhorn=s), seed=0).codes
        for s in (0.0, 0.01)
    ]
    plain, spread = (int(colliding_items(codes).sum()) for codes in found)
    assert spread < plain


def test_the_same_seed_gives_the_same_index() -> None:
    split, vectors = shop(80)
    one, two = (
        rq_vae(split, vectors, levels=3, codes=8, dimensions=4, hidden=[8], epochs=10, seed=3) for _ in range(2)
    )
    assert np.array_equal(one.codes, two.codes)


def test_letters_losses_pull_codes_towards_collaborative_vectors() -> None:
    groups = np.repeat(np.eye(4, dtype=np.float32), 30, axis=0)  # who is bought with whom, nothing of it in the content
    settings = RqVaeSettings(2, 16, 4, (64,), epochs=200, batch=60, learning_rate=3e-3, sinkhorn=0.0, check=200)

    def purity(alignment: float) -> float:
        losses = CollaborativeLosses(torch.from_numpy(groups), alignment, 1e-4, groups=4, seed=0)
        found = train_rq_vae(cloud(120), settings, seed=0, extra=losses)
        pure = same_pairs(found.codes[:, :1], np.repeat(np.arange(4), 30))
        assert pure is not None
        return pure

    assert purity(3.0) > purity(0.0) + 0.1


def test_letters_diversity_is_the_cross_entropy_of_another_code_of_the_group() -> None:
    book = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    group = torch.tensor([0, 1, 0, 1])
    # code 0 beside 1, 2, 3: dot products 0, 3, 0, and 2 is the one of its group; code 1 beside 0, 2, 3: 0, 0, 2, and 3 is
    first = math.log(math.exp(3) + 2) - 3
    second = math.log(math.exp(2) + 2) - 2
    assert _diverse(book, torch.tensor([0]), group).item() == pytest.approx(first)
    assert _diverse(book, torch.tensor([0, 1]), group).item() == pytest.approx((first + second) / 2)
    alone = torch.tensor([0, 1, 2, 3])  # no code has another of its group
    assert _diverse(book, torch.tensor([0, 1]), alone).item() == 0.0


def test_letter_needs_two_sources() -> None:
    split, vectors = shop(60)
    with pytest.raises(
        ValueError, match=r"LETTER needs item vectors of two sources, content and collaborative; `vectors` has 1"
    ):
        letter(split, vectors, codes=8)


@pytest.mark.parametrize("function", [residual_kmeans, balanced_kmeans, rq_vae])
def test_fewer_items_than_codes_are_refused(function: Any) -> None:
    split, vectors = shop(5)
    with pytest.raises(ValueError, match="`codes` is 8, but there are only 5 items"):
        function(split, vectors, codes=8)
    both = ItemVectors(vectors.item_ids, (cloud(5), cloud(5, 4)))
    with pytest.raises(ValueError, match="`codes` is 8, but there are only 5 items"):
        letter(split, both, codes=8)


@pytest.mark.parametrize(("function", "names"), [(residual_kmeans, 3), (balanced_kmeans, 15)])
def test_an_index_that_collapses_is_an_error_and_no_index(function: Any, names: int) -> None:
    lumps = np.repeat(np.eye(3, 6, dtype=np.float32), 40, axis=0)  # 120 items, three different vectors
    split, vectors = shop(120, lumps)
    with pytest.raises(ValueError, match=f"120 items share {names} names"):
        function(split, vectors, levels=2, codes=16)


def test_codes_that_no_item_uses_are_put_where_items_are() -> None:
    torch.manual_seed(0)
    model = RqVae(6, RqVaeSettings(2, 4, 3, (8,)))
    with torch.no_grad():
        model.books.fill_(50.0)  # far from all items
        model.books[:, 0] = 0.0
    data = torch.from_numpy(cloud(30))
    codes = np.zeros((30, 2), dtype=np.int32)  # the first code of each level has them all
    _revive(model, data, codes)
    latent = model.encoder(data).detach()
    for book in model.books.detach():
        assert (book[0] == 0).all()
        for code in book[1:]:
            assert (latent - code).abs().sum(1).min() < 1e-5


def test_the_epoch_with_the_fewest_collisions_is_kept_then_the_lowest_loss() -> None:
    fitted = train_rq_vae(cloud(60), RqVaeSettings(2, 8, 4, (16,), epochs=40, check=5, sinkhorn=0.0), seed=0)
    kept = int(colliding_items(fitted.codes).sum())
    assert kept == min(fitted.curves["colliding_items"])
    assert fitted.curves["colliding_items"][-1] >= kept
    assert fitted.curves["epoch"] == [5, 10, 15, 20, 25, 30, 35, 40]


def test_health_tells_whom_collisions_hit_and_whether_codes_agree_with_categories_by_hand() -> None:
    log = make_log(
        pl.DataFrame(
            [("u", item, float(time)) for time, item in enumerate("abcd")] + [("v", item, float(t)) for t, item in enumerate("badc")],
            schema=["user", "item", "time"], orient="row",
        ),
        pl.DataFrame({"item_id": list("abcd"), "title": list("ABCD"), "categories": ["x", "x", "y", "y"]}),
        source="toy",
        warn_unordered=False,
    )  # fmt: skip
    split = leave_one_out(log)  # the targets are d and c
    index = from_levels(
        np.array([[0, 0], [0, 1], [0, 2], [1, 0]], dtype=np.int32), colliding=np.array([False, False, True, False])
    )
    found = judged(index, split)
    assert found["colliding_test_targets"] == 0.5
    assert found["purity"] == [pytest.approx(1 / 3), None]  # a and b of a-b, a-c, b-c
    assert found["purity_by_chance"] == pytest.approx(2 / 6)


def test_collapse_is_an_error() -> None:
    one_code = np.zeros((100, 3), dtype=np.int32)
    with pytest.raises(ValueError, match=r"perplexity of its first level is 1.0 of 64 codes"):
        check_collapse(one_code, codes=64)
    shared = np.column_stack([np.arange(100) % 10, np.zeros(100)]).astype(np.int32)
    with pytest.raises(ValueError, match="100 items share 10 names"):
        check_collapse(shared, codes=64)


def test_purity_counts_pairs_by_hand() -> None:
    codes = np.array([[0, 0], [0, 0], [0, 1], [1, 0]], dtype=np.int32)
    kinds = np.array([5, 5, 6, 6])
    assert same_pairs(codes[:, :1], kinds) == pytest.approx(1 / 3)  # pairs (0,1) (0,2) (1,2); only the first agrees
    assert same_pairs(codes, kinds) == 1.0
    assert same_pairs(np.arange(4)[:, None].astype(np.int32), kinds) is None


# ------------------------------------------------------------------------------------------------------- complete codes


@pytest.mark.parametrize("repair", ["digit", "reassign"])
@pytest.mark.parametrize(
    "function",
    [residual_kmeans, balanced_kmeans, partial(rq_vae, epochs=2, hidden=[8], dimensions=4), partial(letter, epochs=2, hidden=[8], groups=2)],
)  # fmt: skip
def test_complete_adds_tokens_and_changes_no_name(function: Any, repair: Any) -> None:
    split, vectors = shop(60, cloud(60), cloud(60, 4))
    plain, whole = (function(split, vectors, levels=2, codes=16, repair=repair, complete=c) for c in (False, True))
    digits = 1 + max((code for code in token_places(plain, 2)), default=-1) if plain.codes.shape[1] > 2 else 0
    assert whole.vocabulary == (
        *(f"<s_a_{code}>" for code in range(16)), *(f"<s_b_{code}>" for code in range(16)),
        *(f"<s_c_{code}>" for code in range(digits)), "<|sid_begin|>", "<|sid_end|>",
    )  # fmt: skip
    assert [name.replace("<s_", "<") for name in map(whole.name, range(60))] == list(map(plain.name, range(60)))
    assert whole.health == plain.health
    assert [whole.meanings[code] for code in whole.codes[:, 0]] == [plain.meanings[code] for code in plain.codes[:, 0]]


def test_a_later_item_gets_no_code_that_was_never_tuned() -> None:
    books = Quantiser((np.array([[0.0], [10.0]], np.float32), np.array([[-1.0], [1.0], [5.0]], np.float32)))
    fitted = {**books.arrays(), "blocks": np.zeros(1, np.float32), "scales": np.ones(1, np.float32)}
    index = from_levels(np.array([[0, 0], [1, 1]], dtype=np.int32), sizes=[2, 3], prefix="s_", fitted=fitted)
    (name,) = names_of_new(index, ItemVectors(("new",), (np.array([[4.9]], np.float32),)))
    assert "<s_b_2>" in index.vocabulary  # the nearest to what is left, but no item's
    assert [index.vocabulary[code] for code in name] == ["<s_a_0>", "<s_b_1>"]


# ---------------------------------------------------------------------------------------------------------- later items


@pytest.mark.parametrize("repair", ["digit", "reassign"])
def test_a_later_item_is_named_by_its_nearest_free_codes(repair: Any) -> None:
    split, vectors = shop(60)
    index = residual_kmeans(split, vectors, levels=3, codes=8, repair=repair)
    before = index.codes.copy()
    near = ItemVectors(("new1", "new2"), (vectors.blocks[0][[4, 4]] + 1e-4,))
    names = names_of_new(index, near)
    assert np.array_equal(index.codes, before)
    assert names[:, 0].tolist() == [before[4, 0]] * 2  # beside the item that they resemble
    every = np.vstack([before, names])
    assert len(np.unique(every, axis=0)) == 62
    assert set(names[:, 2]) <= set(before[:, 2])  # no token that was never tuned


def test_an_index_that_was_not_fitted_on_vectors_names_no_later_item() -> None:
    index = atomic(split_of(["A", "B", "C"]))
    with pytest.raises(ValueError, match="cannot name a new item without tuning again"):
        names_of_new(index, ItemVectors(("x",), ()))


def test_when_all_names_under_a_prefix_are_taken_it_is_said() -> None:
    full = ItemIndex(np.array([[0, 1], [0, 2]], dtype=np.int32), ("<a_0>", "<b_0>", "<b_1>"))
    arrays = Quantiser((np.zeros((1, 1), np.float32), np.array([[0.0], [1.0]], np.float32))).arrays()
    index = ItemIndex(
        full.codes,
        full.vocabulary,
        fitted={**arrays, "blocks": np.zeros(1, np.float32), "scales": np.ones(1, np.float32)},
    )
    with pytest.raises(ValueError, match="all 2 last codes under its prefix are taken"):
        names_of_new(index, ItemVectors(("x",), (np.zeros((1, 1), np.float32),)))
