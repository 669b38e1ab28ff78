"""Train the small gpt-oss that comes with OpenLPU.

    python -m mapping.models.train_gpt_oss -o DIR

The text is that of `mapping.models.train`, the tokenizer that of the bundled Llama. All linear layers are
trained to be good in MXFP4: experts are stored in it, the others as BF16 numbers that MXFP4 can hold.
The result is an ordinary Hugging Face folder with a ``model_card.json``.
"""

# torch comes with the `reference` extra only: training needs it, using the model does not.
# pyright: reportMissingImports=false

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mapping.models import corpus
from mapping.models import network_gpt_oss as network
from mapping.models.train import rate, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from mapping.models.network_gpt_oss import Weights

BATCHES = [(8, 128), (4, 256), (2, 512)]
DECAY_FROM = 0.6  # from here on every step sees MXFP4 weights
RATE = 3e-3
TOKENIZER_FOLDER = Path(__file__).parent / "pydoc-llama"


def evaluate(weights: "Weights", tokens: "Tensor", context: int) -> float:
    """Return the mean loss in nats, in consecutive windows of ``context`` tokens."""
    import torch

    total = 0.0
    with torch.no_grad():
        for start in range(0, len(tokens) - 1, context):
            window = tokens[start : start + context + 1]
            value = network.loss(weights, window[None, :-1], window[None, 1:], 0.0)
            total += value.item() * (len(window) - 1)
    return total / (len(tokens) - 1)


def train(tokens: "Tensor", held_out: "Tensor", steps: int, seed: int) -> "Weights":
    """Return weights trained on ``tokens``, reporting now and then."""
    import torch

    weights = network.initial_weights(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for weight in weights.values():
        weight.requires_grad_()
    decayed = [weight for name, weight in weights.items() if network.is_matrix(name)]
    others = [weight for name, weight in weights.items() if not network.is_matrix(name)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=RATE,
        betas=(0.9, 0.95),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    begun = time.monotonic()
    for step in range(steps):
        rows, length = BATCHES[step % len(BATCHES)]
        offsets = torch.randint(len(tokens) - length, (rows, 1), generator=generator)
        batch = tokens[offsets + torch.arange(length + 1)]
        current = network.in_mxfp4(weights) if step >= DECAY_FROM * steps else weights
        value = network.loss(current, batch[:, :-1], batch[:, 1:], network.BALANCE)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            measured = evaluate(network.in_mxfp4(weights), held_out[:4097], 256)
            seconds = time.monotonic() - begun
            print(f"step {step + 1}: {value.item():.3f}, held out {measured:.3f}, {seconds:.0f} s",
                  flush=True)  # fmt: skip
    return network.in_mxfp4(weights)


def save(weights: "Weights", folder: Path) -> None:
    """Write ``model.safetensors``: experts as MXFP4 blocks and scales, all else in BF16."""
    import torch
    from safetensors.torch import save_file

    stored = {}
    for name, weight in weights.items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            _, codes, exponents = network.round_mxfp4(weight)
            pairs = codes.to(torch.uint8).unflatten(-1, (-1, network.BLOCK // 2, 2))
            stored[f"{name}_blocks"] = (pairs[..., 0] | pairs[..., 1] << 4).contiguous()
            stored[f"{name}_scales"] = (exponents + 127).to(torch.uint8).contiguous()
        else:
            stored[name] = weight.detach().bfloat16().contiguous()
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})


def main(argv: Sequence[str] | None = None) -> int:
    """Collect the text, train, measure, and write the model folder."""
    parser = argparse.ArgumentParser(description="Train the gpt-oss bundled with OpenLPU.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)

    import torch
    from tokenizers import Tokenizer

    torch.set_num_threads(arguments.threads)
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    documents, held_out_documents = corpus.collect()
    tokenizer = Tokenizer.from_file(str(TOKENIZER_FOLDER / "tokenizer.json"))
    tokens, held_out = (
        torch.tensor(tokenizer.encode(corpus.join(part)).ids)
        for part in (documents, held_out_documents)
    )
    weights = train(tokens, held_out, arguments.steps, arguments.seed)
    save(weights, folder)
    write_json(folder / "config.json", network.CONFIG)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TOKENIZER_FOLDER / name, folder / name)
    card = {
        "name": "pydoc-gpt-oss",
        "description": "A gpt-oss of about a million parameters that writes Python documentation.",
        "data": "The training text of pydoc-llama.",
        "licence": "As pydoc-llama: Python's own documentation, under the PSF License Agreement.",
        "measured": "Nats per token over heldout.txt of pydoc-llama, in windows of 256 and 1,024.",
        "steps": arguments.steps,
        "seed": arguments.seed,
        "torch": torch.__version__,
        "held_out_tokens": len(held_out),
        "loss_by_context": {
            str(context): round(evaluate(weights, held_out, context), 4) for context in (256, 1024)
        },
    }
    write_json(folder / "model_card.json", card)
    print(card)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
