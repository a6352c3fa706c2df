from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer

from stream_judge.serving.prompt import PromptTemplate, PromptTokenizer
from stream_judge.training.episodes import ANSWER, LABEL, PICTURE, EpisodeKind, EpisodeWriter
from stream_judge.training.tokenizer import PROMPT
from stream_judge.training.vision import Bank

KIND = EpisodeKind("title", 3, noise=0.0)


@pytest.fixture
def writer(tokenizer: Tokenizer, bank: Bank) -> EpisodeWriter:
    return EpisodeWriter(tokenizer, bank.attributes, 16, "train")


def test_same_seed_gives_the_same_batch(writer: EpisodeWriter) -> None:
    first, second = (writer.write(KIND, 4, (5, 6)) for _ in range(2))
    assert np.array_equal(first.ids, second.ids)
    assert np.array_equal(first.masks, second.masks)
    assert not np.array_equal(first.masks, writer.write(KIND, 4, (5, 7)).masks)


def test_every_pair_has_its_picture_one_answer_and_one_label(writer: EpisodeWriter) -> None:
    batch = writer.write(KIND, 4, (1,))
    for kind, count in ((ANSWER, 3), (LABEL, 3), (PICTURE, 48)):
        assert ((batch.kinds == kind).sum(1) == count).all()


def test_labels_without_noise_are_the_right_answers(writer: EpisodeWriter) -> None:
    batch = writer.write(KIND, 16, (2,))
    assert np.array_equal(batch.labels, batch.answers)
    yes, no = writer.answer_ids
    shown = batch.ids[batch.kinds == LABEL].reshape(batch.labels.shape)
    assert np.array_equal(shown, np.where(batch.labels, yes, no))


def test_noise_turns_labels_of_named_episodes_only(writer: EpisodeWriter) -> None:
    batch = writer.write(EpisodeKind("title", 3, noise=1.0), 48, (3,))
    wrong = (batch.labels != batch.answers).any(1)
    assert wrong[batch.named].any()
    assert not wrong[~batch.named].any()


def test_some_noisy_episodes_have_no_right_label(writer: EpisodeWriter) -> None:
    batch = writer.write(EpisodeKind("title", 5, named=1.0, noise=1.0), 48, (3,))
    wrong = (batch.labels != batch.answers).mean(1)
    assert 0.25 < (wrong == 1).mean() < 0.8
    assert ((wrong > 0) & (wrong < 1)).any()


def test_a_long_text_comes_behind_titles(writer: EpisodeWriter) -> None:
    batch = writer.write(EpisodeKind("spec", 4, titles=True), 6, (8,))
    lengths = np.array(
        [
            [((row == k) & (row_kinds != PICTURE)).sum() for k in range(1, 4)]
            for row, row_kinds in zip(batch.pair, batch.kinds, strict=True)
        ]
    )
    assert (lengths[:, :2].max(1) < lengths[:, 2] / 2).all()


def test_odd_lines_stand_around_the_last_text_alone(
    tokenizer: Tokenizer, writer: EpisodeWriter
) -> None:
    def texts(odd: float) -> list[list[str]]:
        batch = writer.write(EpisodeKind("title", 3, odd=odd), 12, (6,))
        return [
            [tokenizer.decode([int(i) for i in row[pair == k]]) for k in range(3)]
            for row, pair in zip(batch.ids, batch.pair, strict=True)
        ]

    # A title is one line: what has further ones, got them.
    assert not any(
        "\n" in text.strip().rpartition("\nanswer:")[0] for row in texts(0.0) for text in row[1:]
    )
    odd = [[text.strip().rpartition("\nanswer:")[0] for text in row] for row in texts(1.0)]
    assert not any("\n" in row[1] for row in odd)
    assert all("\n" in row[2] for row in odd)


def test_further_writers_come_when_they_are_asked_for(writer: EpisodeWriter) -> None:
    now, late = (
        writer.write(EpisodeKind("title", 1, named=1.0, late=late), 24, (7,))
        for late in (False, True)
    )
    assert np.array_equal(now.told, late.told)
    assert not np.array_equal(now.ids, late.ids)


def test_mixed_episodes_have_texts_of_several_forms(writer: EpisodeWriter) -> None:
    batch = writer.write(EpisodeKind("mixed", 4), 8, (8,))
    lengths = [
        int(((row == k) & (kinds != PICTURE)).sum())
        for row, kinds in zip(batch.pair, batch.kinds, strict=True)
        for k in range(1, 4)
    ]
    assert min(lengths) < 40
    assert max(lengths) > 120


def test_sparse_pictures_keep_one_token_of_each_attribute(writer: EpisodeWriter) -> None:
    batch = writer.write(EpisodeKind("title", 2, sparse=True), 3, (4,))
    rows, columns = np.nonzero(batch.kinds == PICTURE)
    kept = batch.patch[rows, columns].reshape(3, 2, 4)
    assert np.array_equal(np.sort(kept % 4, -1), np.broadcast_to(np.arange(4), kept.shape))
    assert (batch.positions[:, -1] >= 0).all()


def test_mentions_are_found_in_every_form_and_language(writer: EpisodeWriter) -> None:
    for form in ("title", "bullets", "paragraphs", "long", "spec"):
        batch = writer.write(EpisodeKind(form, 1, unsaid=0.0), 6, (5,))
        for attribute in range(4):
            assert ((batch.kinds == attribute + 1).sum(1) > 0).all(), (form, attribute)


def test_rows_are_what_the_server_builds_from_the_same_parts(
    tokenizer: Tokenizer, writer: EpisodeWriter
) -> None:
    server = PromptTokenizer(tokenizer, PromptTemplate.from_mapping(PROMPT), picture_tokens=16)
    batch = writer.write(EpisodeKind("title", 1), 5, (6,))
    for row, kinds in zip(batch.ids.tolist(), batch.kinds.tolist(), strict=True):
        start = kinds.index(PICTURE)
        end = kinds.index(ANSWER) + 1
        text = tokenizer.decode(row[start + 16 : end])
        # The tokenizer reads lower case only.
        told = text.removeprefix("text: ").removesuffix("\nanswer:")
        query = server.query(told)
        assert list(query.ids) == row[start:end]
        instruction = tokenizer.decode(row[1:start])
        said = instruction.removeprefix("instruction: ").removesuffix("\n")
        assert list(server.prefix(said, [])) == row[:start]


def test_rows_of_like_length_keep_what_they_say(writer: EpisodeWriter) -> None:
    batch = writer.write(EpisodeKind("title", 2), 23, (8,))
    parts = batch.by_length()
    assert len(parts) == 2
    assert sum(len(part.rule) for part in parts) == 23
    assert parts[0].ids.shape[1] < parts[1].ids.shape[1] == batch.ids.shape[1]
    whole = {row.tobytes() for row in batch.ids}
    for part in parts:
        padded = np.pad(part.ids, ((0, 0), (0, batch.ids.shape[1] - part.ids.shape[1])))
        assert {row.tobytes() for row in padded} <= whole
        assert np.array_equal((part.kinds == ANSWER).sum(1), np.full(len(part.rule), 2))
        assert part.pictures.shape == part.masks.shape == (len(part.rule), 2)
