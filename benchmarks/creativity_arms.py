"""The arms of the creativity benchmark: what is trained, and how each trained model is decoded.

A *training* is one run; an *arm* is one way to decode it, with eight settings of which a held-out score chooses one;
greedy seed-conditioning alone has nothing to choose.
"""

from dataclasses import dataclass, replace

from creativity_away import Away
from creativity_neurons import Neurons

import stochroute as sr
from stochroute.generation.decoding import Decoding

TEMPERATURES = (0.3, 0.5, 0.7, 0.85, 1.0, 1.25, 1.5, 2.0)
TOP_P = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
MIN_P = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
HOT_MIN_P = ((0.7, 0.1), (0.7, 0.3), (1.5, 0.1), (1.5, 0.2), (1.5, 0.3), (2.0, 0.2), (2.0, 0.3), (2.0, 0.4))
# far beyond: what min-p leaves comes nearly equally often
FLAT_MIN_P = ((3.0, 0.3), (3.0, 0.4), (5.0, 0.5), (5.0, 0.6), (10.0, 0.7), (10.0, 0.75), (10.0, 0.8), (20.0, 0.87))
STRENGTHS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.4)  # over the strength in training
LOW = 0.3  # of the strength in training, beside a sampler


@dataclass(frozen=True)
class Dropout:
    """Where activations are dropped in training, and how many of them.

    Attributes:
        site: "ffn" (feed-forward outputs), "residual" (these and attention's outputs), "attention" (its weights) or
            "tokens" (the embeddings of whole tokens that the model reads; Bowman et al. 2016, arXiv 1511.06349).
        rate: in (0, 1).
    """

    site: str
    rate: float


@dataclass(frozen=True)
class Training:
    """One training run.

    Attributes:
        objective: "plain" (no noise), "bound", "shuffled" (bound, but the paths of a batch change places), "fresh",
            "inferred" (InferredPaths), "inferred, shuffled" (what is inferred changes places in the batch),
            "transmission" (the model of another training, whose last steps go into the noise alone:
            MarginalPreserving), "untrained" (noise as it starts, on that model), "plain, floor" or "fresh, floor" (over
            the size's floor).
        routing: where the noise is; None for the original model.
        learns_noise: whether the noise has a gradient.
        prefix: random tokens before the prompt, one string an example.
        dropout: in training.
        neurons: that examples have by their path in training, with the objective "plain".
        decay: how fast the weights decay, over what the size says; 0: AdamW's customary 0.01.
        base: the training whose model transmission and untrained noise take.
        known: the training whose last checkpoint knows the examples by heart; "" for none. With neurons: these, on.
        away: how far away from what is known its samplers go.
    """

    objective: str = "plain"
    routing: sr.RoutingConfig | None = None
    learns_noise: bool = True
    prefix: int = 0
    dropout: Dropout | None = None
    neurons: Neurons | None = None
    decay: float = 0.0
    base: str = "null"
    known: str = ""
    away: tuple[Away, ...] = ()


@dataclass(frozen=True)
class Trial:
    """One way to decode: how tokens are chosen, the strength over that in training, and how far away from what is
    known by heart."""

    decoding: Decoding
    strength: float = 1.0
    away: Away | None = None

    def __str__(self) -> str:
        chosen = {"temperature": self.decoding.temperature, "top-p": self.decoding.top_p, "min-p": self.decoding.min_p}
        words = [f"{name} {value:g}" for name, value in chosen.items() if value is not None] or ["greedy"]
        words += [f"strength × {self.strength:g}"] if self.strength != 1 else []
        words += [str(self.away)] if self.away else []
        return ", ".join([*words, *(["spread"] if self.decoding.spread else [])])


def _structural(form: str, layers: str, hold: int | str, strength: float = 0.5) -> sr.RoutingConfig:
    return sr.RoutingConfig(
        structural=sr.Structural(form=form, layers=layers, strength=strength, hold=hold)  # pyright: ignore[reportArgumentType]
    )


def _with_attention(routing: sr.RoutingConfig | None, hold: int | str) -> sr.RoutingConfig:
    structural = None if routing is None else routing.structural
    return sr.RoutingConfig(structural=structural, attention=sr.Attention(strength=0.5, hold=hold))  # pyright: ignore[reportArgumentType]


def _kinds(layers: str, hold: int | str) -> dict[str, sr.RoutingConfig]:
    """A routing for each kind of noise and both together."""
    forms = {form: _structural(form, layers, hold) for form in ("shared", "independent", "latent")}
    attention = {
        "attention": _with_attention(None, hold),
        "latent and attention": _with_attention(forms["latent"], hold),
    }
    return {**forms, **attention}


_A_SAMPLE, _A_TOKEN = _kinds("all", "sequence"), _kinds("upper_third", 1)
_ALL_LAYERS = _structural("latent", "all", 1, strength=0.25)  # three times as many layers, each with less
_STRENGTH_1 = _structural("latent", "all", 1, strength=1.0)
_OBJECTIVES = {"bound to examples": "bound", "fresh": "fresh", "shuffled": "shuffled"}
# what a model bears that dropout has trained: a draw a token, loud where dropout is strong
_WITH_DROPOUT = {
    **{
        f"a draw a token in all layers, loud, dropout {rate:g}": (
            _structural("latent", "all", 1, strength=4.0),
            Dropout("residual", rate),
        )
        for rate in (0.2, 0.4)
    },
    "a draw a token in all layers, dropout 0.1": (_structural("latent", "all", 1), Dropout("residual", 0.1)),
    "a draw a token, dropout 0.4": (_structural("latent", "upper_third", 1, strength=2.0), Dropout("residual", 0.4)),
}

_DECAYED = {
    "a draw a token": (_structural("latent", "upper_third", 1, strength=2.0), None),
    "a draw a token in all layers": (_structural("latent", "all", 1), None),
    "a draw a token in all layers, strength 1": (_STRENGTH_1, None),
    "a draw a token in all layers, strength 1, dropout 0.2": (_STRENGTH_1, Dropout("residual", 0.2)),
    "a draw a token in all layers, loud, dropout 0.2": _WITH_DROPOUT["a draw a token in all layers, loud, dropout 0.2"],
}
_A_TEXT_STRENGTH_1 = _structural("latent", "all", "sequence", strength=1.0)
_A_TEXT_DECAYED = {
    "latent in all layers": (_A_TEXT_STRENGTH_1, None),
    "latent in all layers, dropout 0.2": (_A_TEXT_STRENGTH_1, Dropout("residual", 0.2)),
    **{
        f"latent in all layers, dropout {rate:g} of tokens": (_A_TEXT_STRENGTH_1, Dropout("tokens", rate))
        for rate in (0.5, 0.8)
    },
}
_A_TEXT_OBJECTIVES = {"bound by inference": "inferred", "shuffled by inference": "inferred, shuffled", "fresh": "fresh"}
_DECAYS = {"weight decay": 1.0, "weight decay × 1.5": 1.5}


def _away(weights: tuple[float, ...], plausible: tuple[float, ...]) -> tuple[Away, ...]:
    return tuple(Away(weight, least) for least in plausible for weight in weights)


_AWAY_FROM_NEURONS = _away((4.0, 16.0, 64.0, 128.0), (0.15, 0.2))

TRAININGS: dict[str, Training] = {
    "null": Training(),
    "bound by transmission, latent": Training("transmission", _A_TOKEN["latent"]),
    "frozen noise, a draw a token, latent": Training("untrained", _A_TOKEN["latent"]),
    "bound by transmission, latent in all layers": Training("transmission", _ALL_LAYERS),
    "frozen noise, a draw a token, latent in all layers": Training("untrained", _ALL_LAYERS),
    "bound to examples, latent": Training("bound", _A_SAMPLE["latent"]),
    "fresh, latent": Training("fresh", _A_SAMPLE["latent"]),
    "shuffled, latent": Training("shuffled", _A_SAMPLE["latent"]),
    "bound by transmission after fresh noise, latent": Training(
        "transmission", _A_TOKEN["latent"], base="fresh, latent"
    ),
    "seed, 10 tokens": Training(prefix=10),
    **{
        f"dropout {rate:g}, {site}": Training(dropout=Dropout(site, rate))
        for rate in (0.1, 0.2, 0.4)
        for site in ("residual", "ffn", "attention")
    },
    # in place of the one above: where plain training copies, it can go away from that
    "dropout 0.4, residual": Training(
        dropout=Dropout("residual", 0.4), known="null", away=_away((2.0, 3.0, 4.0, 8.0), (0.05, 0.1))
    ),
    **{
        f"{name}, {how}": Training(objective, routing, dropout=dropout)
        for how, (routing, dropout) in _WITH_DROPOUT.items()
        for name, objective in _OBJECTIVES.items()
    },
    **{f"null, {much}": Training(decay=decay) for much, decay in _DECAYS.items()},
    **{
        f"dropout {rate:g}, {site}, {much}": Training(dropout=Dropout(site, rate), decay=decay)
        for site, rates in (("residual", (0.1, 0.2)), ("tokens", (0.5, 0.8)))
        for rate in rates
        for much, decay in _DECAYS.items()
    },
    **{
        f"{name}, {how}, {much}": Training(objective, routing, dropout=dropout, decay=decay)
        for kinds, objectives in ((_DECAYED, _OBJECTIVES), (_A_TEXT_DECAYED, _A_TEXT_OBJECTIVES))
        for how, (routing, dropout) in kinds.items()
        for name, objective in objectives.items()
        for much, decay in _DECAYS.items()
    },
    "null, floor, weight decay": Training(
        "plain, floor", decay=1.0, known="null, weight decay", away=_away((1.0, 2.0, 4.0, 8.0), (0.2, 0.3))
    ),
    **{
        f"fresh, {how}, floor, weight decay": Training("fresh, floor", routing, dropout=dropout, decay=1.0)
        for how, (routing, dropout) in _DECAYED.items()
    },
    **{
        f"{name}, neurons, weight decay": Training(neurons=neurons, decay=1.0, away=_AWAY_FROM_NEURONS)
        for name, neurons in (
            ("bound to examples", Neurons(bound=True)),
            ("fresh", Neurons(bound=False)),
            ("null", Neurons(bound=False, share=1.0)),
        )
    },
    "seed, 4 tokens": Training(prefix=4),
    "frozen noise, latent": Training("bound", _A_SAMPLE["latent"], learns_noise=False),
    **{
        f"bound by transmission, {kind}": Training("transmission", _A_TOKEN[kind])
        for kind in ("shared", "independent", "attention", "latent and attention")
    },
    **{
        f"bound to examples, {kind}": Training("bound", _A_SAMPLE[kind])
        for kind in ("shared", "independent", "attention", "latent and attention")
    },
}

BASES = {training.base for training in TRAININGS.values()}  # whose checkpoint before the last steps is kept
GREEDY = tuple(Trial(Decoding(), strength) for strength in STRENGTHS)
TEMPERED = tuple(Trial(Decoding(temperature)) for temperature in TEMPERATURES)
HOT = tuple(Trial(Decoding(temperature, min_p=p)) for temperature, p in HOT_MIN_P)
FLAT = tuple(Trial(Decoding(temperature, min_p=p)) for temperature, p in FLAT_MIN_P)
HOT_AND_LOW = tuple(replace(trial, strength=LOW) for trial in HOT)
FLAT_AND_LOW = tuple(replace(trial, strength=strength) for strength in (LOW, 1.0) for trial in FLAT[1::2])
HOT_OR_LOW = tuple(replace(trial, strength=strength) for strength in (LOW, 1.0) for trial in HOT[4:])


def _spread(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    return tuple(replace(trial, decoding=replace(trial.decoding, spread=True)) for trial in trials)


def arms_of(name: str, flattened: bool) -> dict[str, tuple[Trial, ...]]:
    """The arms that a training gives: name -> its trials.

    A flattened sampler, spread paths, a hot sampler along paths of less strength, and samplers away from what is known
    by heart come only where `flattened` asks for them.
    """
    training = TRAININGS[name]
    if training.routing is not None:
        trials = {"greedy": GREEDY, "tempered": TEMPERED}
    elif training.prefix:
        trials = {"greedy": (Trial(Decoding()),), "tempered": TEMPERED}
    elif training.dropout:
        trials = {"tempered": TEMPERED}
    else:
        trials = {
            "temperature": TEMPERED,
            "top-p": tuple(Trial(Decoding(1.0, top_p=p)) for p in TOP_P),
            "min-p": tuple(Trial(Decoding(1.0, min_p=p)) for p in MIN_P),
        }
    trials["temperature and min-p"] = HOT
    if flattened and training.routing is None:
        trials |= {"flattened": FLAT, "flattened, spread": _spread(FLAT), "temperature and min-p, spread": _spread(HOT)}
        if training.away:
            away = tuple(Trial(Decoding(4.0), away=far) for far in training.away)
            trials |= {"away": away, "away, spread": _spread(away)}
    elif flattened:
        trials |= {"flattened": FLAT_AND_LOW, "temperature and min-p, less strength": HOT_AND_LOW}
        trials["temperature and min-p, spread"] = _spread(HOT_OR_LOW)
    return {f"{name}, {how}": found for how, found in trials.items()}
