"""Questions about stories of the story world, with known answers, and the embedded model trained to answer them.

    items = questions(seed=1, count=240)
    model, tokenizer = trained(seed=0, noise=None, folder)

Stories, questions and answers are made by this project; every answer is one word that the story says.
"""

import math
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

import stochroute as sr
from stochroute.embedded import load
from stochroute.measuring.nats import IGNORED
from stochroute.training import example_paths
from stochroute.world import WORLD, Plot, draw_plot, tell
from stochroute.world.plots import mix

SUFFIX = "\nAnswer:"  # stands between question and answer, and is never perturbed
CHOICES = 4
BATCH, LEARNING_RATE, WARMUP = 16, 7e-4, 20

# role -> (question, the role that the question must not be confused with)
QUESTIONS = {
    "hero": ("Who had a wish?", "helper"),
    "helper": ("Who came to help?", "hero"),
    "hero_kind": ("What animal was {hero}?", "helper_kind"),
    "helper_kind": ("What animal was {helper}?", "hero_kind"),
    "place": ("Where did {hero} live?", None),
    "goal": ("What was the wish about?", None),
}
GOALS = tuple(goal for branch in WORLD.branches for goal in branch.goals)
WORDS = {**WORLD.cast, "goal": GOALS}


def story(seed: int, index: int) -> tuple[Plot, str]:
    """The index-th plot of this seed, and an English story of it."""
    plot = draw_plot(seed, index)
    return plot, tell(plot, "en", "story", telling=mix(seed, index, 1))


def ask(plot: Plot, role: str) -> str:
    """The question about this role, on a line of its own."""
    return "\nQuestion: " + QUESTIONS[role][0].format(hero=plot.hero, helper=plot.helper)


def questions(seed: int, count: int) -> list[dict[str, Any]]:
    """`count` rows of a labelled prompt set, one story each, the roles in turn: prompt, suffix, choices, answer."""
    rows = []
    for index in range(count):
        plot, text = story(seed, index)
        role = list(QUESTIONS)[index % len(QUESTIONS)]
        right, rival = getattr(plot, role), QUESTIONS[role][1]
        draw = random.Random(mix(seed, index, 2))
        wrong = [] if rival is None or getattr(plot, rival) == right else [getattr(plot, rival)]
        others = [word for word in WORDS[role] if word not in (right, *wrong)]
        choices = [right, *wrong, *draw.sample(others, CHOICES - 1 - len(wrong))]
        draw.shuffle(choices)
        rows.append(
            {
                "prompt": text + ask(plot, role),
                "suffix": SUFFIX,
                "choices": [f" {choice}" for choice in choices],
                "answer": choices.index(right),
            }
        )
    return rows


def training_batch(tokenizer: Any, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, int64 (BATCH, longest): stories with all their questions in a random order; only answers
    are labelled."""
    rows = []
    for index in range(step * BATCH, (step + 1) * BATCH):
        plot, text = story(seed, index)
        roles = list(QUESTIONS)
        random.Random(mix(seed, index, 3)).shuffle(roles)
        ids, labels = list(tokenizer(text)["input_ids"]), []
        labels += [IGNORED] * len(ids)
        for role in roles:
            asked = tokenizer(ask(plot, role) + SUFFIX, add_special_tokens=False)["input_ids"]
            answer = tokenizer(f" {getattr(plot, role)}", add_special_tokens=False)["input_ids"]
            ids += asked + answer
            labels += [IGNORED] * len(asked) + answer
        rows.append((ids, labels))
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [IGNORED] * (width - len(labels)) for _, labels in rows])
    return ids, labels


def trained(seed: int, noise: sr.RoutingConfig | None, steps: int, file: Path) -> tuple[Any, Any]:
    """The embedded model after `steps` steps on questions, and its tokenizer; from the file where it is there already.

    Args:
        seed: of the stories and their order.
        noise: fresh paths in every step (the control of the design's "just train the noise"), None for none.
        steps: of AdamW with a cosine.
        file: where the weights are kept.
    """
    model, tokenizer = load()
    if file.exists():
        model.load_state_dict(load_file(file), strict=False)
        return model.eval(), tokenizer
    model.set_attn_implementation("eager")  # on texts this short, faster than the fused kernel's backward
    routed = sr.route(model, noise or sr.RoutingConfig(structural=None))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    model.train()
    for step in range(steps):
        rate = min((step + 1) / WARMUP, (1 + math.cos(math.pi * step / steps)) / 2)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * rate
        ids, labels = training_batch(tokenizer, 1000 + seed, step)
        paths = example_paths(seed, range(step * BATCH, (step + 1) * BATCH), 1, step)
        with routed.follow(paths, start=0), torch.autocast("cpu", torch.bfloat16):
            logits = model(ids).logits
            loss = cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            print(f"{file.stem}: step {step}, loss {loss.item():.3f}", flush=True)
    routed.detach()
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}, file
    )
    return trained(seed, noise, steps, file)
