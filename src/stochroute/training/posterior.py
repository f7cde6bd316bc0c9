"""Which z explains a text: q(z | text), a network beside the model that training alone needs."""

from typing import cast

import torch
from torch import Tensor, nn

from stochroute.routed import RoutedModel

_WIDTH = 256
_PHASES = 16  # sines and as many cosines that tell where a token stands


class Posterior(nn.Module):
    """q(z | text) = N(mean, deviation²), diagonal: the amortised posterior of a variational autoencoder (Kingma &
    Welling 2014, arXiv 1312.6114).

    It reads a text as the set of its (token, position) pairs: each is looked at alone, and what was seen is added up
    (Zaheer et al. 2017, arXiv 1703.06114). So padding changes nothing, and a text alone has the posterior it has in a
    batch.
    """

    def __init__(self, embedding: int, rank: int):
        """`embedding`: channels of the token embeddings; `rank`: of z."""
        super().__init__()
        self.normalised = nn.LayerNorm(embedding, elementwise_affine=False)
        self.seen = nn.Sequential(nn.Linear(embedding + 2 * _PHASES, _WIDTH), nn.GELU())
        self.concluded = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.GELU(), nn.Linear(_WIDTH, 2 * rank))

    def forward(self, embeddings: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, float32 (b, rank) each; deviations are in (0, 1), and start near a half.

        Args:
            embeddings: (b, s, embedding), of the tokens; no gradient reaches them.
            mask: (b, s), 0 where there is padding, on either side.
        """
        real = mask[..., None].float()
        places = _phases(mask.cumsum(-1) - 1)
        seen = self.seen(torch.cat([self.normalised(embeddings.detach().float()), places], -1))
        text = (seen * real).sum(1) / real.sum(1).sqrt()
        mean, raw = self.concluded(text).float().chunk(2, -1)
        return mean, raw.sigmoid()


def new_posterior(routed: RoutedModel, seed: int) -> Posterior:
    """An untrained one for the z of the latent form, its weights drawn from `seed` and from no generator of torch's."""
    noise = routed.structural
    assert noise is not None
    channels = cast(Tensor, routed.model.get_input_embeddings().weight).shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Posterior(channels, noise.config.rank or 0)


def _phases(positions: Tensor) -> Tensor:
    """float32 (b, s, 2 · _PHASES): sines and cosines of the positions, of wavelengths from 2π to 20,000 π (Vaswani et
    al. 2017, arXiv 1706.03762)."""
    rates = 1e4 ** -(torch.arange(_PHASES, device=positions.device) / (_PHASES - 1))
    angles = positions[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)
