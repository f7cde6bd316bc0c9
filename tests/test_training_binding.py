"""A bound path belongs to its example: through shuffling, epochs, resume and workers, by its id alone."""

import hashlib

import datasets
import pytest
import torch

import stochroute as sr
from stochroute.training import BestOfK, BoundPaths, Data, FreshPaths, example_key, example_paths, prepare_examples
from stochroute.training.binding import EVALUATION, start_positions
from stochroute.training.data import Collate
from training_runs import At, tiny_examples, tiny_trainer

IDS_OF_EXAMPLES = range(100, 132)


class Walked(BoundPaths):
    """Bound paths, with a record of which text walked which: [(step, ids of the text, path, start)]."""

    def __new__(cls):
        self = super().__new__(cls)
        object.__setattr__(self, "record", [])
        return self

    def rows(self, batch, seed, step, span):
        rows = super().rows(batch, seed, step, span)
        texts = [tuple(ids) for ids in rows.input_ids.tolist()]
        self.record.extend(zip([step] * len(texts), texts, rows.paths, rows.starts, strict=True))
        return rows

    def __repr__(self):
        return "Walked()"


def expected_paths() -> dict[tuple[int, ...], int]:
    """The path of each text, from its id, by the derivation that everybody has."""
    texts = [tuple(ids) for ids in tiny_examples()["input_ids"]]
    return {t: sr.derive_paths(7, 1, prompt=i)[0] for t, i in zip(texts, IDS_OF_EXAMPLES, strict=True)}


def test_the_bound_paths_of_an_example_are_derive_paths_with_its_id_as_the_prompt():
    assert example_paths(7, [3, 9], 4) == sr.derive_paths(7, 4, prompt=3) + sr.derive_paths(7, 4, prompt=9)


def test_wide_keys_and_texts_have_paths_of_their_own():
    text = int.from_bytes(hashlib.blake2b(b"story-1", digest_size=8).digest(), "little")
    assert example_key("story-1") == text
    keys = [5, 5 + (1 << 32), 5 + (1 << 63), text]
    paths = example_paths(7, keys, 2)
    assert len(set(paths)) == 8
    assert example_paths(7, [key - (1 << 64) if key >= 1 << 63 else key for key in keys], 2) == paths
    assert paths[:2] == sr.derive_paths(7, 2, prompt=5)
    assert [example_paths(7, [key], 2) for key in keys] == [paths[i : i + 2] for i in (0, 2, 4, 6)]


def test_fresh_paths_differ_in_every_step_example_and_draw_and_from_the_bound_ones():
    keys = list(range(10))
    steps = (*range(20), EVALUATION, None)
    drawn = {path for step in steps for path in example_paths(7, keys, 3, step)}
    assert len(drawn) == 22 * 30
    assert example_paths(7, keys, 3, 4)[9:12] == example_paths(7, [3], 3, 4)
    assert not drawn & {path for seed in (8, 9) for step in steps for path in example_paths(seed, keys, 3, step)}


def test_paths_start_at_the_position_before_the_first_label_whichever_side_is_padded():
    labels = torch.tensor([[-100, -100, 7, 8], [5, 6, -100, -100], [-100, -100, -100, 9], [-100, 3, 4, 5]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]])
    assert start_positions(labels, mask, "generated") == [1, 0, 0, 0]
    assert start_positions(labels, mask, "all") == [0, 0, 0, 0]


def test_noise_enters_just_where_generate_lets_it_enter(tmp_path):
    """Trained and generated logits at the first new token are the same, for one prompt and path."""
    routed = tiny_trainer(tmp_path).routed.eval()
    ids = torch.tensor([[0, 3, 4, 9, 9]])
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.tensor([[-100, -100, -100, 9, 9]]),
        "example": torch.tensor([4]),
    }
    rows = BoundPaths().rows(batch, 7, 0, "generated")
    with torch.no_grad(), routed.follow(rows.paths, rows.starts):
        trained = routed.model(input_ids=ids).logits[0, 2]
    out = routed.generate(
        input_ids=ids[:, :3], paths=rows.paths, max_new_tokens=1, output_logits=True, return_dict_in_generate=True
    )
    assert torch.allclose(out.logits[0][0], trained, atol=1e-5)


def test_rows_of_one_example_stand_together():
    batch = Collate()([{"input_ids": [0, 1 + i, 2], "labels": [0, 1 + i, 2], "example": i} for i in range(2)])
    rows = BestOfK(draws=3, bound=True).rows(batch, 7, 5, "generated")
    assert rows.input_ids[:, 1].tolist() == [1, 1, 1, 2, 2, 2]
    assert rows.paths == sr.derive_paths(7, 3, prompt=0) + sr.derive_paths(7, 3, prompt=1)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning")  # on one core
@pytest.mark.parametrize("workers", [0, 2])
def test_every_text_walks_its_path_through_shuffled_epochs_and_workers(tmp_path, workers):
    objective = Walked()
    tiny_trainer(tmp_path, objective, max_steps=12, dataloader_num_workers=workers).train()
    expected = expected_paths()
    orders = [[text for step, text, _, _ in objective.record if step // 4 == epoch] for epoch in range(3)]
    assert all(sorted(order) == sorted(expected) for order in orders)  # whole epochs
    assert len({tuple(order) for order in orders}) == 3  # shuffled anew
    assert all(path == expected[text] and start == 0 for _, text, path, start in objective.record)


def test_every_text_walks_its_path_after_a_resume_and_the_batches_go_on_as_they_would_have(tmp_path):
    whole = Walked()
    tiny_trainer(tmp_path / "whole", whole).train()

    def interrupt():
        raise KeyboardInterrupt

    first, second = Walked(), Walked()
    settings = {"save_strategy": "steps", "save_steps": 5}
    with pytest.raises(KeyboardInterrupt):
        tiny_trainer(tmp_path / "cut", first, callbacks=[At(7, interrupt)], **settings).train()
    tiny_trainer(tmp_path / "cut", second, **settings).train(resume_from_checkpoint=True)
    assert first.record == whole.record[: 7 * 8]
    assert second.record == whole.record[5 * 8 :]


def test_the_order_of_the_rows_and_what_stands_beside_them_change_no_path():
    forward = tiny_examples(ids=[f"text-{i}" for i in range(32)])
    backward = forward.select(range(31, 7, -1))
    by_text = {tuple(r["input_ids"]): r["example"] for r in forward}
    assert all(by_text[tuple(r["input_ids"])] == r["example"] for r in backward)


def test_evaluation_walks_fresh_paths_the_same_ones_each_time(tmp_path):
    trainer = tiny_trainer(tmp_path, eval_dataset=tiny_examples(8), max_steps=2, learning_rate=0.0)
    first = trainer.evaluate()["eval_loss"]
    assert trainer.evaluate()["eval_loss"] == first
    bound = trainer.objective.rows(Collate()(list(tiny_examples(8))), 7, 0, "generated").paths
    fresh = FreshPaths().rows(Collate()(list(tiny_examples(8))), 7, EVALUATION, "generated").paths
    assert not set(bound) & set(fresh)
    with torch.no_grad(), trainer.routed.follow(fresh):
        batch = Collate()(list(tiny_examples(8)))
        loss = trainer.routed.model(input_ids=batch["input_ids"], labels=batch["labels"]).loss
    assert first == pytest.approx(loss.item(), rel=1e-5)


def test_rows_without_ids_keep_the_numbers_of_their_rows_when_others_are_left_out():
    rows = datasets.Dataset.from_dict({"input_ids": [[1], [1, 2], [], [3, 4]]})
    assert prepare_examples(rows, Data(train=""))["example"] == [1, 3]


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        (["a", "b", "a"], "'a' .* rows 0 and 2"),
        ([1, None, 2], "row 1.*None"),
        ([1, -2, 3], "row 1.*-2"),
        ([1.5, 2.5, 3.5], "row 0.*1.5"),
        ([True, False, True], "row 0.*True"),
        (["a", "", "b"], "row 1.*''"),
    ],
)
def test_a_bad_id_is_named_with_its_row(ids, named):
    rows = datasets.Dataset.from_dict({"input_ids": [[1, 2]] * 3, "id": ids})
    with pytest.raises(ValueError, match=named):
        prepare_examples(rows, Data(train=""))


def test_rows_whose_order_does_not_last_need_ids():
    rows = datasets.Dataset.from_dict({"input_ids": [[1, 2]] * 8})
    with pytest.raises(ValueError, match=r"shuffled.*id"):
        prepare_examples(rows.shuffle(seed=1), Data(train=""))
    with pytest.raises(ValueError, match=r"IterableDataset.*datasets\.Dataset"):
        prepare_examples(rows.to_iterable_dataset(), Data(train=""))


def test_no_example_left_is_an_error():
    rows = datasets.Dataset.from_dict({"input_ids": [[1], []]})
    with pytest.raises(ValueError, match="none of its 2 examples is left"):
        prepare_examples(rows, Data(train=""))
