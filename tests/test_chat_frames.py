"""How a conversation becomes text: scripts and chat templates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli_model import save_tiny_model
from stochroute.applications.chat import Script, Template
from stochroute.applications.chat.frames import encode, frame_from_dict, frame_to_dict
from stochroute.loading import LoadedModel, load_model

NAMES = st.text(min_size=1).filter(lambda text: text.strip() and "\n" not in text)
EXCHANGES = [("Hello.", "Good day."), ("How are you?", "Fine.")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(save_tiny_model(tmp_path_factory.mktemp("tiny")), "cpu", "auto")


def test_a_script_is_its_scene_and_a_line_for_every_turn():
    script = Script("Ann", "Ben", "In a park.")
    assert script.text(EXCHANGES[:1], "How are you?") == (
        "In a park.\nAnn: Hello.\nBen: Good day.\nAnn: How are you?\nBen:"
    )
    assert script.text_for_you(EXCHANGES[:1]) == "In a park.\nAnn: Hello.\nBen: Good day.\nAnn:"
    assert script.whole(EXCHANGES).endswith("Ann: How are you?\nBen: Fine.")


def test_a_script_in_chinese_has_its_own_colon_and_no_scene_no_empty_line():
    assert Script("米拉", "佐伊", colon="：").text([], "你好。") == "米拉：你好。\n佐伊："


@given(you=NAMES, other=NAMES, scene=st.text(), system=st.none() | st.text())
def test_frames_come_back_from_json(you: str, other: str, scene: str, system: str | None):
    if you != other:
        script = Script(you, other, scene)
        assert frame_from_dict(frame_to_dict(script)) == script
    assert frame_from_dict(frame_to_dict(Template(system))) == Template(system)


@pytest.mark.parametrize(("you", "other"), [("", "Ben"), ("A\nB", "Ben"), ("Ann", " "), ("Ann", "Ann")])
def test_names_that_make_no_script_are_refused(you: str, other: str):
    with pytest.raises(ValueError, match="a script needs"):
        Script(you, other)


def test_a_template_gets_every_message_with_its_role(tiny: LoadedModel):
    template = Template("Be kind.")
    messages = template.messages(EXCHANGES, "Bye.")
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    ids = encode(template, tiny.tokenizer, EXCHANGES, "Bye.")
    assert tiny.tokenizer.decode(ids) == "[Be kind.][Hello.][Good day.][How are you?][Fine.][Bye.]"
    assert (
        encode(Template(), tiny.tokenizer, [], "Bye.") == tiny.tokenizer("[Bye.]", add_special_tokens=False).input_ids
    )


def test_a_template_that_refuses_or_is_not_there_is_named(tiny: LoadedModel):
    tokenizer = tiny.tokenizer
    before = tokenizer.chat_template
    try:
        tokenizer.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        with pytest.raises(ValueError, match="chat template refuses the conversation: no system"):
            encode(Template("Be kind."), tokenizer, [], "Hello.")
        tokenizer.chat_template = None
        with pytest.raises(ValueError, match="has no chat template"):
            encode(Template(), tokenizer, [], "Hello.")
    finally:
        tokenizer.chat_template = before
