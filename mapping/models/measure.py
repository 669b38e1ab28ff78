"""Measure a trained model folder against the n-gram models, and after rounding.

    python -m mapping.models.measure [--wires] DIR

Every figure is over the same tokens: all of ``heldout.txt`` but the first.
"""

# torch comes with the `reference` extra only: training needs it, using the model does not.
# pyright: reportMissingImports=false

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapping.models import corpus, network
from mapping.models.trigram import NGramModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from mapping.models.network import Weights

CONTEXTS = (128, 256, 512, 1024)
PROMPT = "The function returns"


def evaluate(weights: "Weights", tokens: "Tensor", context: int) -> float:
    """Return the mean loss in nats, in consecutive windows of ``context`` tokens."""
    import torch

    total = 0.0
    with torch.no_grad():
        for start in range(0, len(tokens) - 1, context):
            window = tokens[start : start + context + 1]
            value = network.loss(weights, window[None, :-1], window[None, 1:])
            total += value.item() * (len(window) - 1)
    return total / (len(tokens) - 1)


def sample(
    weights: "Weights",
    tokenizer: "Tokenizer",
    prompt: str,
    length: int = 120,
    temperature: float = 0.6,
    seed: int = 0,
) -> str:
    """Continue ``prompt`` by up to ``length`` tokens drawn at ``temperature``."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    end = tokenizer.token_to_id(corpus.END_OF_TEXT)
    tokens = [end, *tokenizer.encode(prompt).ids]
    with torch.no_grad():
        for _ in range(length):
            logits = network.forward(weights, torch.tensor([tokens]))[0, -1]
            chances = torch.softmax(logits / temperature, dim=-1)
            token = int(torch.multinomial(chances, 1, generator=generator))
            if token == end:
                break
            tokens.append(token)
    return tokenizer.decode(tokens)


def measure(folder: Path) -> dict[str, Any]:
    """Return the figures of the model in ``folder``, rounded to four decimals."""
    import torch
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    weights = {
        name: weight.float() for name, weight in load_file(folder / "model.safetensors").items()
    }
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = (folder / "heldout.txt").read_text(encoding="utf-8")
    held_out = tokenizer.encode(text).ids
    documents, _ = corpus.collect()
    tokens = tokenizer.encode(corpus.join(documents)).ids
    ngrams = {
        order: NGramModel(tokens, order, network.CONFIG["vocab_size"]).loss(held_out)
        for order in (1, 2, 3)
    }

    tensor = torch.tensor(held_out)
    contexts = [c for c in CONTEXTS if c <= network.CONFIG["max_position_embeddings"]]
    losses = {context: evaluate(weights, tensor, context) for context in contexts}
    longest = max(contexts)
    rounded = network.four_bit(weights)
    embedding = "model.embed_tokens.weight"
    if network.HEAD not in rounded:
        rounded[embedding] = network.round_to(weights[embedding], 127, weights[embedding].shape[1])
    rounded_loss = evaluate(rounded, tensor, longest)
    text_bytes = len(text.replace(corpus.END_OF_TEXT, "").encode("utf-8"))
    bits = losses[longest] * (len(held_out) - 1) / math.log(2)
    return {
        "parameters": sum(weight.numel() for weight in weights.values()),
        "training_documents": len(documents),
        "training_tokens": len(tokens),
        "held_out_tokens": len(held_out),
        "held_out_bytes": text_bytes,
        "loss_by_context": {str(context): round(loss, 4) for context, loss in losses.items()},
        "held_out_loss": round(losses[longest], 4),
        "perplexity": round(math.exp(losses[longest]), 3),
        "bits_per_byte": round(bits / text_bytes, 4),
        "trigram_loss": round(ngrams[3], 4),
        "bigram_loss": round(ngrams[2], 4),
        "unigram_loss": round(ngrams[1], 4),
        "nats_below_trigram": round(ngrams[3] - losses[longest], 4),
        "int4_loss" if network.HEAD in rounded else "int4_weights_int8_head_loss": round(
            rounded_loss, 4
        ),
        "int4_perplexity_cost": round(math.exp(rounded_loss - losses[longest]) - 1, 4),
        "largest_weight": round(max(w.abs().max().item() for w in weights.values()), 3),
        "sample": sample(weights, tokenizer, PROMPT),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures of one model folder as JSON."""
    parser = argparse.ArgumentParser(description="Measure a trained model folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wires", action="store_true", help="the folder is that of pydoc-wires")
    arguments = parser.parse_args(argv)
    if arguments.wires:
        network.become_wires()
    print(json.dumps(measure(arguments.folder), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
