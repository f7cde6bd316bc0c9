"""The conversation as a real program on a pseudo-terminal."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from transformers import LlamaForCausalLM

from chat_models import MESSAGES
from cli_model import save_tiny_model
from stochroute.applications.chat import read_transcript
from stochroute.applications.chat.terminal import printable

# a shell may start its background jobs with SIGINT ignored, which children inherit
HEARD = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
PROGRAM = ["-c", HEARD + "from stochroute.cli import main; main()", "chat"]
ENVIRONMENT = {**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1", "INPUTRC": os.devnull}
ERASE_LINE = "\x15"  # Ctrl-U


@pytest.fixture
def start() -> Iterator[object]:
    running: list[pexpect.spawn] = []

    def start(*arguments: str, **environment: str) -> pexpect.spawn:
        program = pexpect.spawn(
            sys.executable, [*PROGRAM, *arguments], env={**ENVIRONMENT, **environment}, encoding="utf-8",
            dimensions=(40, 120), timeout=90,
        )  # fmt: skip
        running.append(program)
        return program

    yield start
    for program in running:
        program.close(force=True)


def end(program: pexpect.spawn) -> int | None:
    program.expect(pexpect.EOF)
    program.close()
    return program.exitstatus


def test_a_person_talks_chooses_saves_and_leaves(start, tmp_path: Path):
    file = tmp_path / "talk.json"
    talk = start("--seed", "7", "--strength", "0.6")
    talk.expect("You are Finn; the model speaks for Lina")
    talk.expect("Finn › ")
    talk.sendline(MESSAGES[0])
    talk.expect("1–4, Enter for 1, /more › ")
    for wrong in ("9", "0", "two", "-1"):
        talk.sendline(wrong)
        talk.expect(f"'{wrong}' is none of the numbers: write 1 to 4")
        talk.expect("/more › ")
    talk.sendline("/more")
    talk.expect("1–8, Enter for 1, /more › ")
    talk.sendline("6")
    talk.expect("Lina: ")
    talk.expect("coherent so far; obstacle is next")
    talk.expect("Finn › ")
    # Ctrl-C where a number is asked for takes the message back, ready to be edited
    talk.sendline(MESSAGES[1])
    talk.expect("/more › ")
    talk.sendintr()
    talk.expect("taken back")
    talk.expect(MESSAGES[1])
    talk.sendline("")
    talk.expect("/more › ")
    talk.sendline("")
    talk.expect("ending is next")
    talk.sendline("/stay")
    talk.expect("every reply walks path [0-9a-f]{16} from now on")
    talk.sendline(MESSAGES[2])
    talk.expect("the dialogue is whole and coherent|does not follow|should be")
    talk.sendline("/replay")
    talk.expect("13 replies in 3 turns were walked again from their ids: identical")
    # a person may leave unsaved, but is told first
    talk.sendeof()
    talk.expect("not saved: /save FILE")
    talk.sendline(f"/save {file}")
    talk.expect("3 turns")
    talk.sendline("/quit")
    assert end(talk) == 0
    turns = read_transcript(file).turns
    assert [len(turn.replies) for turn in turns] == [8, 4, 1]
    assert turns[0].chosen == 5
    assert turns[2].reply.receipt.path == turns[1].reply.receipt.path


def test_ctrl_c_in_the_middle_of_a_reply_gives_the_message_back(start, tmp_path: Path):
    folder = tmp_path / "slow"
    save_tiny_model(folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    model.config.max_position_embeddings = 8192  # minutes of babble
    model.save_pretrained(folder)
    talk = start("--model", str(folder), "--strength", "0.5", "--max-new-tokens", "8000", "--seed", "1",
                 "--output", str(tmp_path / "talk.json"))  # fmt: skip
    talk.expect("You › ")
    talk.sendline("hello there")
    talk.expect(" 4\x1b")  # in bold: all the replies are being written
    talk.sendintr()
    talk.expect("interrupted: the conversation is as it was before")
    talk.expect("hello there")  # to be edited
    talk.send(ERASE_LINE)
    talk.sendline("/paths")
    talk.expect("4 replies a turn, from new paths")
    # Ctrl-C at an empty line only says how to leave
    talk.sendintr()
    talk.expect("Ctrl-D or /quit leaves")
    talk.sendeof()
    assert end(talk) == 0
    assert not (tmp_path / "talk.json").exists()


def test_a_dumb_terminal_and_chinese_work_too(start):
    talk = start("--seed", "3", "--strength", "0.6", "--language", "zh", "--paths", "2", TERM="dumb")
    talk.expect(" › ")
    talk.sendline("我想去看老灯塔。")
    talk.expect("1–2, Enter for 1")
    talk.sendline("2")
    talk.expect("obstacle is next")
    talk.sendeof()
    talk.expect("not saved")
    talk.sendeof()
    assert end(talk) == 0


def test_no_terminal_and_no_pipe_is_an_error():
    done = subprocess.run(
        [sys.executable, *PROGRAM], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "standard input is neither a terminal nor a pipe" in done.stderr


def test_replies_that_nobody_could_choose_are_an_error(start, tmp_path: Path):
    # standard input a terminal, standard output a file
    command = f"{sys.executable} -c 'from stochroute.cli import main; main()' chat > {tmp_path / 'out'}"
    shell = pexpect.spawn("/bin/sh", ["-c", command], env=ENVIRONMENT, encoding="utf-8", timeout=90)
    shell.expect("standard output is no terminal")
    assert end(shell) == 2


def test_a_pipe_gets_json_lines_and_ctrl_c_keeps_the_transcript(tmp_path: Path):
    file = tmp_path / "talk.json"
    program = subprocess.Popen(
        [sys.executable, *PROGRAM, "--seed", "7", "--output", str(file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert program.stdin
    assert program.stdout
    program.stdin.write(MESSAGES[0] + "\n")
    program.stdin.flush()
    assert '"turn": 1' in program.stdout.readline()
    program.send_signal(2)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 130
    assert f"interrupted after 1 turns; {file} holds them" in errors
    assert len(read_transcript(file).turns) == 1


def test_control_characters_cannot_play_with_the_terminal():
    assert printable("\x1b[2Jhe\x07llo\n水\t") == "\ufffd[2Jhe\ufffdllo\n水\t"
