"""Train the small Llamas that come with OpenLPU.

    python -m mapping.models.train -o DIR
    python -m mapping.models.train --wires -o DIR       pydoc-wires, small enough to be simulated as wires

The result is an ordinary Hugging Face folder: ``config.json``,
``model.safetensors`` (bfloat16), ``tokenizer.json``, the held-out text it was
measured on and a ``model_card.json`` with the measurements.  The text is
described in ``corpus.py``, the network in ``network.py``, the model it has to
beat in ``trigram.py``.

Needs torch, tokenizers and safetensors; OpenLPU itself needs none of
them to run the result.
"""

# torch comes with the `reference` extra only: training needs it, using the model does not.
# pyright: reportMissingImports=false

import argparse
import json
import math
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapping.models import corpus, network
from mapping.models.measure import evaluate, measure

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor
    from torch.optim import Optimizer

    from mapping.models.network import Weights

# (sequences, tokens each) of a batch; every batch holds 4,096 tokens, with --wires 2,048.
BATCHES = [(16, 256), (16, 256), (8, 512), (16, 256), (4, 1024)]
WIRES_BATCHES = [(8, 256)]
MUON_RATE, ADAM_RATE = 6e-3, 3e-3
WARM_UP = 100
# From here on the rates fall, and every other step, or every one with --wires, sees 4-bit weights.
DECAY_FROM = 0.65
WEIGHT_DECAY = 0.1

TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": corpus.END_OF_TEXT,
    "eos_token": corpus.END_OF_TEXT,
    "clean_up_tokenization_spaces": False,
}

CARD = {
    "name": "pydoc-llama",
    "description": "A Llama of about a million parameters that writes Python documentation.",
    "data": "Help topics (pydoc_data.topics), docstrings and comments of Python's standard "
    "library; long paragraphs deduplicated, 3 % of topics and modules held out.",
    "licence": "The text is Python's own documentation, (c) Python Software Foundation, "
    "under the PSF License Agreement; heldout.txt and calibration.txt are excerpts of it.",
    "measured": "Losses are in nats per token over all of heldout.txt but its first token "
    "(<|endoftext|> in the file is one token), in consecutive windows of "
    "1,024 tokens unless another context is named; bytes leave out <|endoftext|>. "
    "int4: linear weights rounded to nearest, symmetric groups of 32 inputs; "
    "int8: one scale per row of the tied embedding.",
}
WIRES_CARD = {
    **CARD,
    "name": "pydoc-wires",
    "description": "A Llama of 125,000 parameters, made to be hardwired, that writes Python documentation.",
    "measured": "Losses are in nats per token over all of heldout.txt but its first token "
    "(<|endoftext|> in the file is one token), in consecutive windows of "
    "256 tokens unless another context is named; bytes leave out <|endoftext|>. "
    "int4: linear weights and the output head rounded to nearest, symmetric, one scale a row.",
}


def train_tokenizer(texts: Sequence[str]) -> "Tokenizer":
    """Return a byte-level BPE tokenizer, of as many tokens as the network has, trained on ``texts``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=network.CONFIG["vocab_size"],
            special_tokens=[corpus.END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def rate(step: int, steps: int) -> float:
    """Return the share of the full learning rate: up, level, then down in a line."""
    return min(1.0, (step + 1) / WARM_UP, (steps - step) / (steps * (1 - DECAY_FROM)))


def optimizers(weights: "Weights") -> "list[Optimizer]":
    """Return Muon for the matrices of the layers and AdamW for all else."""
    import torch

    matrices = [weight for name, weight in weights.items() if "_proj" in name]
    norms = [weight for name, weight in weights.items() if "norm" in name]
    table = [weights["model.embed_tokens.weight"]]
    return [
        torch.optim.Muon(
            matrices, lr=MUON_RATE, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(
            [
                {"params": table, "weight_decay": WEIGHT_DECAY},
                {"params": norms, "weight_decay": 0.0},
            ],
            lr=ADAM_RATE,
            betas=(0.9, 0.95),
        ),
    ]


def train(
    tokens: "Tensor", held_out: "Tensor", folder: Path, steps: int, seed: int, report: int
) -> None:
    """Train on ``tokens``, printing and saving every ``report`` steps."""
    import torch

    weights = network.initial_weights(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for weight in weights.values():
        weight.requires_grad_()
    both = optimizers(weights)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
        for optimizer in both
    ]
    start, running = time.monotonic(), 0.0
    batches = WIRES_BATCHES if network.GROUP is None else BATCHES
    for step in range(steps):
        rows, length = batches[step % len(batches)]
        offsets = torch.randint(len(tokens) - length, (rows, 1), generator=generator)
        batch = tokens[offsets + torch.arange(length + 1)]
        rounded = step >= DECAY_FROM * steps and (step % 2 == 1 or network.GROUP is None)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=network.GROUP is not None):
            current = network.four_bit(weights) if rounded else weights
            value = network.loss(current, batch[:, :-1], batch[:, 1:])
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        for stepper in (*both, *schedules):
            stepper.step()
        for optimizer in both:
            optimizer.zero_grad()
        running += value.item()
        if (step + 1) % report == 0 or step + 1 == steps:
            save_weights(weights, folder)
            print(
                f"step {step + 1} of {steps}: train {running / (step % report + 1):.3f}, "
                f"held out {evaluate(weights, held_out, 256):.3f}, "
                f"{time.monotonic() - start:.0f} s",
                flush=True,
            )
            running = 0.0


def save_weights(weights: "Weights", folder: Path) -> None:
    """Write ``model.safetensors`` in bfloat16."""
    from safetensors.torch import save_file

    save_file(
        {name: weight.detach().bfloat16().contiguous() for name, weight in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write ``value`` as indented JSON."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Collect the text, train, measure, and write the model folder."""
    parser = argparse.ArgumentParser(description="Train the Llama bundled with OpenLPU.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--wires", action="store_true", help="the smaller model, for wires")
    parser.add_argument("--steps", type=int, help="default: 2384, or 4000 with --wires")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", type=int, default=50, help="steps between reports")
    arguments = parser.parse_args(argv)

    import torch

    if arguments.wires:
        network.become_wires()
    steps = arguments.steps or (4000 if arguments.wires else 2384)
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)

    documents, held_out_documents = corpus.collect()
    text, held_out_text = corpus.join(documents), corpus.join(held_out_documents)
    tokenizer = train_tokenizer([body for _, body in documents])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "heldout.txt").write_text(held_out_text, encoding="utf-8")
    calibration = corpus.join(corpus.calibration_documents(documents))
    (folder / "calibration.txt").write_text(calibration, encoding="utf-8")
    longest = {"model_max_length": network.CONFIG["max_position_embeddings"]}
    write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG | longest)
    write_json(folder / "config.json", network.CONFIG)

    tokens = torch.tensor(tokenizer.encode(text).ids)
    held_out = torch.tensor(tokenizer.encode(held_out_text).ids)
    print(f"{len(text)} characters, {len(tokens)} tokens; {len(held_out)} held out", flush=True)
    train(tokens, held_out, folder, steps, arguments.seed, arguments.report)

    card = {
        **(WIRES_CARD if arguments.wires else CARD),
        "steps": steps,
        "tokens_per_step": math.prod((WIRES_BATCHES if arguments.wires else BATCHES)[0]),
        "seed": arguments.seed,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **measure(folder),
    }
    write_json(folder / "model_card.json", card)
    print(json.dumps(card, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
