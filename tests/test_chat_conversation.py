"""A conversation along paths: what it offers, what it keeps, and that all of it comes back from its transcript."""

import copy
from itertools import pairwise

import pytest
import torch

import stochroute as sr
from chat_models import MESSAGES, SCRIPT, close, conversation, embedded, reply_by_hand, with_context
from stochroute.applications.chat import (
    Conversation,
    Script,
    Speaker,
    Template,
    Transcript,
    draw_scene,
    replay,
    verdict,
)
from stochroute.applications.chat.frames import encode
from stochroute.applications.chat.routing import attach, other_model, resume
from stochroute.applications.chat.window import fit
from stochroute.generation.decoding import Decoding
from stochroute.loading import LoadedModel
from stochroute.paths import derive_paths, parse_path, read_sibling
from stochroute.world import check, draw_text

TEXT = draw_text(3, 0)
SPREAD = Decoding(temperature=1.0, spread=True)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return embedded()


@pytest.fixture(scope="module")
def exact() -> LoadedModel:
    return embedded("float64")


def test_every_reply_is_what_its_path_says_token_by_token(exact: LoadedModel):
    talk = conversation(exact, strength=0.6)
    talk.say(MESSAGES[0])
    turn = talk.say(MESSAGES[1])
    close(talk)
    text = talk.frame.text(talk.exchanges[:1], MESSAGES[1])  # pyright: ignore[reportAttributeAccessIssue]
    for reply in turn.replies:
        assert reply.text == reply_by_hand(exact, text, parse_path(reply.receipt.path), 0.6)
    assert len({reply.text for reply in turn.replies}) > 1


def test_the_replies_of_a_turn_walk_siblings_where_noise_is_spread(loaded: LoadedModel):
    talk = conversation(loaded, paths=3, noise=sr.Structural(form="latent", rank=4, spread=True))
    for number, message in enumerate(MESSAGES):
        turn = talk.say(message)
        assert [parse_path(r.receipt.path) for r in turn.replies] == derive_paths(7, 3, prompt=number, spread=True)
    close(talk)


def test_the_replies_of_a_turn_walk_the_paths_of_the_seed_and_of_the_turn(loaded: LoadedModel):
    talk = conversation(loaded, paths=3)
    for number, message in enumerate(MESSAGES):
        turn = talk.say(message)
        assert [parse_path(r.receipt.path) for r in turn.replies] == derive_paths(7, 3, prompt=number)
    close(talk)


def test_further_replies_take_further_paths_and_leave_the_choice_alone(loaded: LoadedModel):
    talk = conversation(loaded, paths=3)
    talk.say(MESSAGES[0])
    talk.choose(2)
    turn = talk.more()
    close(talk)
    assert [parse_path(r.receipt.path) for r in turn.replies] == derive_paths(7, 6)
    assert turn.chosen == 1
    assert turn.together == (3, 3)


def test_who_stays_on_a_path_gets_one_reply_a_turn_along_it_until_the_path_is_changed(loaded: LoadedModel):
    talk = conversation(loaded)
    first = talk.say(MESSAGES[0])
    talk.choose(3)
    assert talk.stay() == parse_path(first.replies[2].receipt.path)
    assert [r.receipt.path for r in talk.say(MESSAGES[1]).replies] == [first.replies[2].receipt.path]
    talk.change()
    assert len(talk.say(MESSAGES[2]).replies) == 4
    close(talk)


def test_the_same_words_bring_the_same_replies_after_they_were_taken_back(loaded: LoadedModel):
    talk = conversation(loaded)
    first = talk.say(MESSAGES[0])
    assert talk.undo() == first
    assert talk.turns == []
    assert talk.say(MESSAGES[0]) == first
    close(talk)


def test_the_chosen_reply_is_what_the_model_reads_later(loaded: LoadedModel):
    talk = conversation(loaded)
    turn = talk.say(MESSAGES[1])
    other = next(i for i, reply in enumerate(turn.replies) if reply.text != turn.replies[0].text)
    first = talk.say(MESSAGES[2])
    talk.undo()
    talk.choose(other + 1)
    second = talk.say(MESSAGES[2])
    close(talk)
    assert [r.receipt.start for r in first.replies] != [r.receipt.start for r in second.replies] or first != second


def test_an_interrupted_reply_leaves_the_conversation_as_it_was(loaded: LoadedModel):
    talk = conversation(loaded)
    talk.say(MESSAGES[0])
    before = talk.transcript()

    def interrupt(texts: list[str]) -> None:
        if len(texts[0].split()) > 2:
            raise KeyboardInterrupt

    for act in (lambda: talk.say(MESSAGES[1], interrupt), lambda: talk.more(interrupt)):
        with pytest.raises(KeyboardInterrupt):
            act()
        assert talk.transcript() == before
    ids = torch.tensor([[1, 5, 6]])
    with torch.no_grad(), talk.speaker.routed.suspended():
        suspended = loaded.model(ids).logits
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, suspended)  # no path is left on the model
    turn = talk.say(MESSAGES[1])
    close(talk)
    fresh = conversation(loaded)
    fresh.say(MESSAGES[0])
    assert fresh.say(MESSAGES[1]) == turn
    close(fresh)


def test_what_is_shown_meanwhile_grows_into_the_replies(loaded: LoadedModel):
    talk = conversation(loaded)
    seen: list[list[str]] = []
    turn = talk.say(MESSAGES[0], seen.append)
    close(talk)
    assert seen[-1] == [reply.text for reply in turn.replies]
    for before, after in pairwise(seen):
        assert all(b.startswith(a) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "decoding",
    [Decoding(), Decoding(temperature=0.8), Decoding(temperature=0.8, spread=True)],
    ids=["greedy", "sampled", "spread"],
)
def test_a_whole_conversation_replays_from_its_json_on_a_fresh_model(decoding: Decoding):
    talk = conversation(embedded(), decoding=decoding)
    talk.say(MESSAGES[0])
    talk.more()
    talk.choose(6)
    talk.say(MESSAGES[1])
    talk.stay()
    talk.say(MESSAGES[2])
    transcript = Transcript.from_dict(talk.transcript().to_dict())
    assert transcript == talk.transcript()
    other = embedded()
    found = replay(transcript, Speaker(other, attach(other, transcript), transcript.decoding, transcript.new_tokens))
    assert found.identical
    assert (found.turns, found.replies) == (3, 13)


def test_spread_replies_are_siblings_and_each_replays_alone_to_the_same_text(exact: LoadedModel):
    talk = conversation(exact, strength=0.3, paths=4, decoding=SPREAD)
    talk.say(MESSAGES[0])
    first = talk.more()
    second = talk.say(MESSAGES[1])
    for number, turn in enumerate((first, second)):
        paths = [parse_path(reply.receipt.path) for reply in turn.replies]
        assert paths == derive_paths(7, len(turn.replies), prompt=number, spread=True)
        assert len({read_sibling(path)[0] for path in paths}) == 1
        ids = fit(talk.frame, exact.tokenizer, talk.exchanges[:number], turn.message, exact.context, 48).ids
        for reply, path in zip(turn.replies, paths, strict=True):
            assert talk.speaker.replies(ids, [path], talk.frame.stop) == (reply,)
            assert reply.receipt.decoding["spread"] is True
    assert replay(talk.transcript(), talk.speaker).identical
    without = replay(talk.transcript(), Speaker(exact, talk.speaker.routed, Decoding(temperature=1.0), 48))
    close(talk)
    assert any("spread" in circumstance for circumstance in without.circumstances)
    assert without.differences


def test_spread_replies_say_more_different_things_than_independent_ones(exact: LoadedModel):
    different = dict.fromkeys((False, True), 0)
    for spread in different:
        routed = sr.route(exact.model, sr.RoutingConfig(structural=None))
        speaker = Speaker(exact, routed, Decoding(temperature=1.0, spread=spread), 3)
        for seed in range(12):
            talk = Conversation(speaker, draw_scene(7), seed, paths=8)
            different[spread] += len({reply.text for reply in talk.say(MESSAGES[0]).replies})
        routed.detach()
    assert different[True] > different[False]


def test_a_replay_says_which_routing_weights_or_settings_differ(loaded: LoadedModel):
    talk = conversation(loaded)
    for message in MESSAGES:
        talk.say(message)
    transcript = talk.transcript()
    close(talk)
    strong = conversation(loaded, strength=1.5)
    found = replay(transcript, strong.speaker, own_routing=False)
    close(strong)
    assert not found.identical
    assert len(found.circumstances) == 1
    assert found.circumstances[0].startswith("routing was ")
    assert found.differences
    assert all(d.was != d.now for d in found.differences)

    changed = copy.deepcopy(loaded.model)
    with torch.no_grad():
        changed.model.embed_tokens.weight.mul_(1.5)
    other = LoadedModel("another", changed, loaded.tokenizer, False, loaded.context, loaded.stops, loaded.pad)
    routed = attach(other, transcript)
    found = replay(transcript, Speaker(other, routed, transcript.decoding, 9))
    assert any(c.startswith("model was ") for c in found.circumstances)
    assert any("max_new_tokens" in c for c in found.circumstances)
    assert "other weights" in (other_model(transcript, other) or "")
    assert other_model(transcript, loaded) is None


def test_a_text_that_was_tampered_with_is_found(loaded: LoadedModel):
    talk = conversation(loaded)
    talk.say(MESSAGES[0])
    data = talk.transcript().to_dict()
    data["turns"][0]["replies"][2]["text"] = "Something else."
    found = replay(Transcript.from_dict(data), talk.speaker)
    close(talk)
    assert [(d.turn, d.reply, d.was) for d in found.differences] == [(1, 3, "Something else.")]
    assert found.circumstances == ()


def test_a_conversation_whose_budget_changed_on_the_way_replays_too(loaded: LoadedModel):
    talk = conversation(loaded, strength=0.1)
    talk.say(MESSAGES[1])
    weak = talk.speaker.routed.config
    talk.speaker.routed.calibrate([TEXT, TEXT], budget=0.4, tokenizer=loaded.tokenizer, pairs=4)
    talk.more()
    strong = talk.speaker.routed.config
    assert strong != weak
    found = replay(talk.transcript(), talk.speaker)
    assert found.identical
    assert talk.speaker.routed.config == strong
    transcript = talk.transcript()
    close(talk)
    again = resume(transcript, loaded, attach(loaded, transcript), 2)
    assert again.speaker.routed.config == strong
    assert len(again.say(MESSAGES[2]).replies) == 2
    assert replay(again.transcript(), again.speaker).identical
    close(again)


def test_a_full_context_leaves_out_the_earliest_turns_and_no_more_than_it_must(loaded: LoadedModel):
    small = with_context(loaded, 90)
    talk = conversation(small, new_tokens=20)
    left_out = [talk.say(message).left_out for message in MESSAGES * 2]
    assert left_out[0] == 0
    assert left_out[-1] > 0
    assert left_out == sorted(left_out)
    for number, turn in enumerate(talk.turns):
        sizes = [
            len(encode(talk.frame, loaded.tokenizer, talk.exchanges[skip:number], turn.message))
            for skip in range(number + 1)
        ]
        assert sizes[turn.left_out] + 20 <= 90
        assert all(size + 20 > 90 for size in sizes[: turn.left_out])
        # the model began to write where the receipt says: at the last token that it read
        assert turn.reply.receipt.start == sizes[turn.left_out] - 1
    assert replay(talk.transcript(), talk.speaker).identical
    close(talk)


def test_a_message_that_does_not_fit_is_refused_and_nothing_changes(loaded: LoadedModel):
    talk = conversation(with_context(loaded, 90), new_tokens=20)
    talk.say(MESSAGES[0])
    with pytest.raises(ValueError, match="tokens, and a reply may have 20, but the model holds 90: write a shorter"):
        talk.say("word " * 80)
    assert len(talk.turns) == 1
    close(talk)


def test_a_conversation_without_known_context_leaves_nothing_out(loaded: LoadedModel):
    exchanges = [("hello", "world")] * 50
    assert fit(SCRIPT, loaded.tokenizer, exchanges, "again", None, 20).left_out == 0


@pytest.mark.parametrize("message", ["", "   ", "two\nlines"])
def test_what_is_no_line_of_a_script_is_refused(loaded: LoadedModel, message: str):
    talk = conversation(loaded)
    with pytest.raises(ValueError, match="the message"):
        talk.say(message)
    close(talk)


def test_bad_choices_numbers_and_ids_are_named(loaded: LoadedModel):
    talk = conversation(loaded)
    for act in (talk.undo, talk.more, talk.stay, lambda: talk.choose(1)):
        with pytest.raises(ValueError, match="nothing has been said yet"):
            act()
    talk.say(MESSAGES[0])
    with pytest.raises(ValueError, match="there is no reply 5: choose one of 1 to 4"):
        talk.choose(5)
    with pytest.raises(ValueError, match="16 hex digits"):
        talk.stay("xyz")
    for number in (0, 65):
        with pytest.raises(ValueError, match="1 to 64"):
            talk.offer(number)
    close(talk)


def test_suggested_lines_are_the_persons_and_change_nothing(loaded: LoadedModel):
    talk = conversation(loaded, strength=1.0)
    talk.say(MESSAGES[0])
    before = talk.transcript()
    lines = talk.suggestions()
    assert talk.transcript() == before
    assert lines
    assert len(lines) == len(set(lines))
    # the embedded model knows how its dialogues go on: every line is one that the checker reads
    script = talk.frame
    assert isinstance(script, Script)
    for line in lines:
        assert verdict(script, [*talk.exchanges, (line, "")])[1].find("obstacle should be") == -1
    talk.frame = Template()
    with pytest.raises(ValueError, match="in a script only"):
        talk.suggestions()
    close(talk)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_true_dialogues_are_whole_in_the_words_of_the_verdict_and_their_beginnings_coherent(language: str):
    for seed in range(20):
        script = draw_scene(seed, language)
        lines = draw_text(seed, 0, language, "dialogue").split("\n")
        said = [line.partition(script.colon)[2] for line in lines[1:]]
        assert lines[1].startswith(script.you)
        assert lines[2].startswith(script.other)
        exchanges = list(zip(said[::2], said[1::2], strict=True))
        assert script.whole(exchanges) == "\n".join(lines)
        assert verdict(script, exchanges) == (True, "the dialogue is whole and coherent")
        assert verdict(script, exchanges[:2]) == (True, "coherent so far; ending is next")
        assert verdict(script, [exchanges[0], (said[2], "Moo.")])[0] is False


@pytest.mark.parametrize(("language", "messages"), [
    ("en", MESSAGES),
    ("zh", ("我想去看老灯塔。", "唉，桥断了。", "成功了！现在我可以点亮灯塔的灯了。")),
])  # fmt: skip
def test_the_embedded_model_holds_whole_coherent_dialogues(loaded: LoadedModel, language: str, messages: tuple[str]):
    coherent = 0
    for seed in range(4):
        talk = conversation(loaded, strength=0.3, seed=seed, frame=draw_scene(seed, language), paths=1)
        for message in messages:
            talk.say(message)
        script = talk.frame
        assert isinstance(script, Script)
        coherent += check(script.whole(talk.exchanges), language, "dialogue").coherent
        close(talk)
    assert coherent >= 3


def test_a_learned_routing_comes_back_from_its_folder(loaded: LoadedModel, tmp_path):
    routed = sr.route(loaded.model, sr.RoutingConfig(structural=sr.Structural(strength=0.4)))
    with torch.no_grad():
        for parameter in routed.noise_parameters().values():
            parameter.mul_(1.5)
    routed.save_pretrained(tmp_path / "routing")
    speaker = Speaker(loaded, routed, new_tokens=48)
    talk = Conversation(speaker, draw_scene(7), 7, routing_folder=str(tmp_path / "routing"))
    talk.say(MESSAGES[1])
    transcript = talk.transcript()
    routed.detach()
    again = attach(loaded, transcript)
    assert replay(transcript, Speaker(loaded, again, new_tokens=48)).identical
    again.detach()
    (tmp_path / "routing").rename(tmp_path / "moved")
    with pytest.raises(OSError, match="is gone: put it back"):
        attach(loaded, transcript)
