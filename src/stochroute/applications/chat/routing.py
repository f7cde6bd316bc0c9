"""Puts the routing of a transcript on a model, and says in what the model at hand differs from the transcript's."""

from pathlib import Path

from stochroute.applications.chat.conversation import Conversation
from stochroute.applications.chat.speaker import Speaker
from stochroute.applications.chat.transcript import Transcript
from stochroute.calibration.split import strengths_of, with_strengths
from stochroute.config import RoutingConfig
from stochroute.embedded import EMBEDDED
from stochroute.generation.receipts import fingerprint
from stochroute.loading import LoadedModel
from stochroute.routed import RoutedModel, route


def differs_in_strengths_alone(config: RoutingConfig, other: RoutingConfig) -> bool:
    """Whether one becomes the other by `adopt_strengths`."""
    return config.kinds().keys() == other.kinds().keys() and with_strengths(config, strengths_of(other)) == other


def adopt(routed: RoutedModel, config: RoutingConfig) -> None:
    """Takes over the strengths of the config; ValueError when more than the strengths differs."""
    if routed.config == config:
        return
    if not differs_in_strengths_alone(routed.config, config):
        raise ValueError("the transcript was held with another kind of routing than the one on the model: load it anew")
    routed.adopt_strengths(config)


def attach(loaded: LoadedModel, transcript: Transcript) -> RoutedModel:
    """The model with the routing of the transcript's last turn, or of its beginning where it has no turn.

    Raises:
        ValueError: the routing does not fit the model.
        OSError: the routing's folder is gone.
    """
    config = last_config(transcript)
    if transcript.routing_folder is None:
        return route(loaded.model, config)
    if transcript.routing_folder != EMBEDDED and not Path(transcript.routing_folder).is_dir():
        raise FileNotFoundError(
            f"the routing {transcript.routing_folder}, which the transcript was held with, is gone: put it back"
        )
    routed = RoutedModel.from_pretrained(loaded.model, transcript.routing_folder)
    try:
        adopt(routed, config)
    except ValueError:
        routed.detach()
        raise
    return routed


def last_config(transcript: Transcript) -> RoutingConfig:
    """The routing config that the transcript ends with."""
    if transcript.turns:
        return transcript.routings[transcript.turns[-1].replies[-1].receipt.routing]
    return next(reversed(transcript.routings.values()))


def resume(transcript: Transcript, loaded: LoadedModel, routed: RoutedModel, paths: int) -> Conversation:
    """The conversation of the transcript, to be gone on with along `paths` paths a turn."""
    speaker = Speaker(loaded, routed, transcript.decoding, transcript.new_tokens)
    return Conversation(
        speaker,
        transcript.frame,
        transcript.seed,
        paths,
        transcript.turns,
        transcript.routings,
        transcript.routing_folder,
    )


def other_model(transcript: Transcript, loaded: LoadedModel) -> str | None:
    """A sentence when the transcript was held with other weights than these; None when it was not."""
    if not transcript.turns:
        return None
    was, now = transcript.turns[-1].replies[-1].receipt.model, fingerprint(loaded.model)
    if was == now:
        return None
    name = "the embedded model" if transcript.model is None else transcript.model
    return (
        f"the transcript was held with other weights ({name}, fingerprint {was}) than those of {loaded.name} ({now}): "
        "its paths say other things here"
    )
