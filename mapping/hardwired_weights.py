"""The weights of a gpt-oss folder as wires: everything that multiplies becomes MXFP4."""

import numpy as np
import numpy.typing as npt

from emulator.hardwired_system.forward import HardwiredModel, Layer, Linear
from emulator.hardwired_system.numerics import Wires, make_wires
from mapping.frontend.gpt_oss import MXFP4_BLOCK, require_gpt_oss
from mapping.frontend.gpt_oss_weights import E2M1_MAGNITUDES, Mxfp4
from mapping.frontend.model import Model
from mapping.frontend.weights import EMBEDDING, HEAD
from mapping.rope import rope_tables

LOWEST_EXPONENT = -127


def to_mxfp4(weight: npt.NDArray[np.float32]) -> Mxfp4:
    """Return the nearest MXFP4 of a matrix [..., inputs], ties to the larger magnitude.

    The scale is two powers below the largest magnitude of a block; larger elements saturate at six
    (OCP Microscaling formats 1.0). The last block is filled with zeros where inputs do not divide.
    """
    spare = -weight.shape[-1] % MXFP4_BLOCK
    padded = np.pad(weight, [(0, 0)] * (weight.ndim - 1) + [(0, spare)])
    blocks = padded.reshape(*padded.shape[:-1], -1, MXFP4_BLOCK).astype(np.float64)
    largest = np.abs(blocks).max(axis=-1)
    # frexp counts from one half: 2**(e - 1) <= largest < 2**e.
    exponents = np.where(largest > 0, np.frexp(largest)[1] - 3, LOWEST_EXPONENT)
    exponents = np.clip(exponents, LOWEST_EXPONENT, 127)
    scaled = np.abs(np.ldexp(blocks, -exponents[..., None]))
    middles = (E2M1_MAGNITUDES[1:] + E2M1_MAGNITUDES[:-1]) / 2
    codes = np.searchsorted(middles, scaled, side="right") | np.where(blocks < 0, 8, 0)
    return Mxfp4(codes.reshape(padded.shape).astype(np.uint8), exponents.astype(np.int16))


def hardwired_model(model: Model) -> HardwiredModel:
    """Return a gpt-oss as the 16-chip machine has it.

    Matrices that the folder stores as numbers are rounded to MXFP4, because all of them are wires.

    Raises
    ------
    InputError
        If the model is of another family, damaged, or its scales spread beyond the taps.
    """
    config = require_gpt_oss(model.config, "hardwired weights")

    def wires(name: str) -> Wires:
        packed = to_mxfp4(model.tensor(name))
        made = make_wires(packed.codes, packed.exponents, f"{model.name}: {name}")
        return Wires(made.weights[:, : model.tensor_shapes[name][-1]], made.exponent)

    def linear(name: str) -> Linear:
        return Linear(wires(name), model.tensor(name + ".bias"))

    def experts(name: str) -> tuple[Linear, ...]:
        packed = model.mxfp4(name)
        if packed is None:
            packed = to_mxfp4(model.tensor(name))
        inputs, biases = model.tensor_shapes[name][-1], model.tensor(name + "_bias")
        result = []
        for expert in range(config.experts):
            label = f"{model.name}: {name} of expert {expert}"
            made = make_wires(packed.codes[expert], packed.exponents[expert], label)
            result.append(Linear(Wires(made.weights[:, :inputs], made.exponent), biases[expert]))
        return tuple(result)

    def layer(number: int) -> Layer:
        prefix = f"layers.{number}."
        attention, feed = prefix + "self_attn.", prefix + "mlp."
        return Layer(
            input_norm=model.tensor(prefix + "input_layernorm"),
            post_norm=model.tensor(prefix + "post_attention_layernorm"),
            queries=linear(attention + "q_proj"),
            keys=linear(attention + "k_proj"),
            values=linear(attention + "v_proj"),
            output=linear(attention + "o_proj"),
            sinks=model.tensor(attention + "sinks"),
            router=linear(feed + "router"),
            gate_up=experts(feed + "experts.gate_up_proj"),
            down=experts(feed + "experts.down_proj"),
            window=config.window if config.windowed_layers[number] else None,
        )

    cosine, sine = rope_tables(config, np.arange(min(config.maximum_positions, 1 << 14)))
    return HardwiredModel(
        name=model.name,
        embedding=model.tensor(EMBEDDING),
        layers=tuple(layer(number) for number in range(config.layers)),
        norm=model.tensor("norm"),
        head=wires(HEAD),
        cosine=cosine.astype(np.float32),
        sine=sine.astype(np.float32),
        heads=config.heads,
        kv_heads=config.kv_heads,
        experts_per_token=config.experts_per_token,
        eps=config.rms_norm_eps,
        alpha=config.swiglu_alpha,
        limit=config.swiglu_limit,
    )
