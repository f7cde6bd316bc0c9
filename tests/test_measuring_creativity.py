"""Samples for a task: one a path, decoded as asked for and in no other way."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessor

import stochroute as sr
from stochroute.generation.decoding import Decoding
from stochroute.measuring.creativity import write_samples
from stochroute.tasks import Circle

TASK = Circle(entities=5, nodes=4, training_size=3)
NOISY = sr.RoutingConfig(structural=sr.Structural(form="latent", layers="all", strength=1.0, hold=1, rank=4))
PATHS = sr.derive_paths(seed=3, n=40)


@pytest.fixture
def model():
    torch.manual_seed(0)
    vocabulary = TASK.vocabulary
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary.size,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            bos_token_id=vocabulary.start,
            eos_token_id=vocabulary.end,
            pad_token_id=vocabulary.pad,
            initializer_range=0.5,
        )
    ).eval()


def test_a_sample_is_a_function_of_its_path_alone(model):
    routed = sr.route(model, NOISY)
    for decoding in (Decoding(), Decoding(temperature=0.8)):
        samples = write_samples(routed, TASK, decoding, PATHS)
        assert samples.dtype == np.int64
        assert samples.shape[0] == len(PATHS)
        assert samples.shape[1] <= TASK.sample_length
        assert len(np.unique(samples, axis=0)) > 20
        backwards = write_samples(routed, TASK, decoding, PATHS[::-1])
        np.testing.assert_array_equal(backwards[::-1], samples)


def test_greedy_paths_differ_by_their_noise_alone(model):
    silent = sr.route(model, sr.RoutingConfig(structural=None))
    samples = write_samples(silent, TASK, Decoding(), PATHS[:4])
    assert len(np.unique(samples, axis=0)) == 1


def test_sampling_hides_no_cut_of_the_tail(model):
    """At a high temperature every token of the vocabulary comes first sooner or later, top_k=50 or not."""
    silent = sr.route(model, sr.RoutingConfig(structural=None))
    samples = write_samples(silent, TASK, Decoding(temperature=50.0), sr.derive_paths(1, 2_000))
    assert TASK.vocabulary.size > 50
    assert set(samples[:, 0].tolist()) == set(range(TASK.vocabulary.size))
    cut = write_samples(silent, TASK, Decoding(temperature=1.0, min_p=0.999), sr.derive_paths(1, 50))
    assert len(np.unique(cut, axis=0)) == 1


def test_what_changes_the_logits_does_so_before_a_temperature_and_a_cut(model):
    """The margin is one that min-p cuts at only once the temperature has made it ten times as large."""

    class Prefer(LogitsProcessor):
        def __call__(self, input_ids, scores):
            preferred = torch.zeros_like(scores)
            preferred[:, 0] = 0.05
            return preferred

    silent = sr.route(model, sr.RoutingConfig(structural=None))
    decoding = Decoding(temperature=0.1, min_p=0.9)
    samples = write_samples(silent, TASK, decoding, PATHS, logits_processor=[Prefer()])
    assert (samples == 0).all()
    assert (write_samples(silent, TASK, decoding, PATHS) != 0).any()


def test_prefixes_stand_before_the_prompt_and_are_cut_off(model):
    silent = sr.route(model, sr.RoutingConfig(structural=None))
    prefixes = TASK.vocabulary.seed_prefixes(len(PATHS), 4, seed=1)
    with_prefixes = write_samples(silent, TASK, Decoding(), PATHS, prefixes)
    assert with_prefixes.shape[1] <= TASK.sample_length
    assert len(np.unique(with_prefixes, axis=0)) > 1
