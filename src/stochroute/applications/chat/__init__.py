"""A conversation in which every turn offers several replies, each along its own path.

conversation = Conversation(Speaker(loaded, routed), script, seed=7)
turn = conversation.say("I want to see the old lighthouse.")
print([reply.text for reply in turn.replies])
conversation.choose(2)
write_transcript(Path("talk.json"), conversation.transcript())
replay(read_transcript(Path("talk.json")), speaker).identical
"""

from stochroute.applications.chat.conversation import Conversation
from stochroute.applications.chat.frames import Frame, Script, Template
from stochroute.applications.chat.replaying import Difference, Replay, replay
from stochroute.applications.chat.speaker import Speaker
from stochroute.applications.chat.transcript import Reply, Transcript, Turn, read_transcript, write_transcript
from stochroute.applications.chat.world_talk import draw_scene, verdict

__all__ = [
    "Conversation", "Difference", "Frame", "Replay", "Reply", "Script", "Speaker", "Template", "Transcript", "Turn",
    "draw_scene", "read_transcript", "replay", "verdict", "write_transcript",
]  # fmt: skip
