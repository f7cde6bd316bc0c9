"""What paths do to the next token, in nats: cross-entropy, transmission, divergences. Pure functions of logits."""

import math

from torch import Tensor
from torch.nn.functional import cross_entropy

IGNORED = -100  # the label of a position that predicts nothing, as everywhere in transformers


def row_nats(logits: Tensor, labels: Tensor) -> Tensor:
    """−Σ log p(label) of each row: float32 (rows,), in nats.

    Args:
        logits: (rows, s, v); position t predicts the label of position t + 1.
        labels: int64 (rows, s), IGNORED where nothing is to be predicted.
    """
    shifted = logits[:, :-1].float()
    nats = cross_entropy(shifted.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="none")
    return nats.view(labels.shape[0], -1).sum(-1)


def target_log_probabilities(logits: Tensor, labels: Tensor, copies: int) -> Tensor:
    """Log-probabilities where a label is to be predicted: float32 (copies, targets, v).

    Args:
        logits: (b · copies, s, v), the rows of one example together.
        labels: int64 (b, s).
        copies: rows of an example.
    """
    rows = logits.view(labels.shape[0], copies, *logits.shape[1:])[:, :, :-1].transpose(1, 2)  # (b, s − 1, copies, v)
    return rows[labels[:, 1:] != IGNORED].float().log_softmax(-1).transpose(0, 1)


def entropy(log_p: Tensor) -> Tensor:
    """H[p] = −Σ p log p over the last dimension, in nats."""
    return -(log_p.exp() * log_p).sum(-1)


def mixture(log_p: Tensor) -> Tensor:
    """log of the mean over the first dimension of the probabilities."""
    return log_p.logsumexp(0) - math.log(log_p.shape[0])


def transmission(log_p: Tensor) -> Tensor:
    """I(next token; path) = H[mean_k p_k] − mean_k H[p_k], in nats: (...), from K paths' log-probabilities (K, ..., v).

    The decomposition of total entropy in the design; for a finite K it lies between 0 and ln K and, entropy being
    concave, below the transmission of all paths on average.
    """
    return entropy(mixture(log_p)) - entropy(log_p).mean(0)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p (log p − log q) over the last dimension, in nats."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def kl_to_prior(mean: Tensor, deviation: Tensor, prior: Tensor) -> Tensor:
    """KL(N(mean, deviation²) ‖ N(0, prior²)) of each element, in nats:

        ln(prior/|deviation|) + (deviation² + mean²)/(2 prior²) − ½

    Kingma & Welling 2014 (arXiv 1312.6114), appendix B, for a prior of any width.
    """
    deviation = deviation.abs()
    return (prior / deviation).log() + (deviation.square() + mean.square()) / (2 * prior.square()) - 0.5
