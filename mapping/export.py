"""Export of a model as a packed checkpoint: an ordinary Hugging Face folder with `quantization_config`."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hw.spec.errors import InputError
from hw.spec.output import atomic_write
from mapping.calibration import calibration_tokens, input_norms
from mapping.frontend.awq import padded_groups, write_gemm, write_gemv
from mapping.frontend.config import require_flight
from mapping.frontend.files import read_json_object
from mapping.frontend.gptq import write_gptq
from mapping.frontend.model import CONFIG_FILE, Model
from mapping.frontend.mxfp4 import write_mxfp4
from mapping.frontend.qserve import TILE, write_qserve
from mapping.frontend.quantization import KEY, LAYOUTS
from mapping.frontend.safetensors_file import INDEX_FILE, SINGLE_FILE
from mapping.frontend.safetensors_write import write_safetensors
from mapping.frontend.stored import Tensors
from mapping.frontend.weights import stored_name
from mapping.round_to_nearest import mxfp4_matrix, progressive_matrix, zero_point_matrix

SHARD_PARAMETERS = 1 << 28
"""Models with more are written in a file a layer."""

_GROUPS = (128, 64, 32)
Norms = dict[str, npt.NDArray[np.float32]]
_COPIED = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json")  # fmt: skip


def export_model(
    model: Model,
    layout: str,
    output: Path,
    *,
    group: int | None = None,
    symmetric: bool = False,
    activation_order: bool = False,
) -> dict[str, Any]:
    """Round the matrices of all layers to nearest and write the folder; embedding, norms and head stay as they are.

    Parameters
    ----------
    model : Model
    layout : str
        One of `LAYOUTS`.
    output : Path
        The folder; it must not exist, or be empty.
    group : int, optional
        Inputs that share a scale; by default the longest of 128, 64 and 32 that divides all inputs.
    symmetric : bool
        All zero points are 8 (not with ``qserve`` and ``mxfp4``, which have others or none).
    activation_order : bool
        Groups are made of inputs of like size, the largest on the model's calibration text first (GPTQ only).

    Returns
    -------
    dict
        What was written.

    Raises
    ------
    InputError
        If the model has no folder, or the layout cannot hold its shapes.
    """
    require_flight(model.config, "export")
    if model.config.opt:
        raise InputError(
            f"{model.name}: architecture: expected a Llama or Mistral model for export, found OPT"
        )
    if model.folder is None:
        raise InputError(
            f"{model.name}: expected a model with weights of its own, found a known configuration"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: expected no such folder, or an empty one")
    group = _check(model, layout, group, symmetric)
    norms = None
    if activation_order:
        if not layout.startswith("gptq"):
            raise InputError(f"activation_order: expected a gptq format, found {layout}")
        norms = input_norms(model, calibration_tokens(model, "activation_order"))
    with atomic_write(output) as folder:
        folder.mkdir()
        size = _write_folder(model, folder, layout, group, symmetric, norms)
    return {
        "folder": str(output),
        "model": model.name,
        "format": layout,
        "group": group,
        "file_bytes": size,
    }


def _write_folder(
    model: Model, folder: Path, layout: str, group: int, symmetric: bool, norms: Norms | None
) -> int:
    """Write all files; returns the bytes of the weights."""
    assert model.folder is not None
    files: dict[str, list[str]] = {}
    for name in model.tensor_shapes:
        files.setdefault(_shard_of(model, name), []).append(name)
    places: dict[str, str] = {}
    size = 0
    for file, members in files.items():
        tensors: Tensors = {}
        for name in members:
            tensors |= _tensors(model, name, layout, group, symmetric, norms)
        write_safetensors(folder / file, tensors)
        places |= dict.fromkeys(tensors, file)
        size += (folder / file).stat().st_size
    if len(files) > 1:
        _write_json(folder / INDEX_FILE, {"metadata": {"total_size": size}, "weight_map": places})
    config = read_json_object(model.folder / CONFIG_FILE)
    config[KEY] = _quantization_config(layout, group, symmetric, norms is not None)
    _write_json(folder / CONFIG_FILE, config)
    for name in _COPIED:
        if (model.folder / name).is_file():
            shutil.copyfile(model.folder / name, folder / name)
    return size


def _check(model: Model, layout: str, group: int | None, symmetric: bool) -> int:
    """The group to use.

    Raises
    ------
    InputError
        If shapes do not allow it.
    """
    if layout not in LAYOUTS:
        raise InputError(f"format: expected one of {', '.join(LAYOUTS)}, found {layout}")
    if symmetric and layout in ("qserve", "mxfp4"):
        raise InputError(
            f"symmetric: expected a format with zero points that can all be 8, found {layout}"
        )
    if layout == "mxfp4":
        if group not in (None, 32):
            raise InputError(f"group: expected 32 with mxfp4, found {group}")
        group = 32
    shapes = {name: shape for name, shape in model.tensor_shapes.items() if is_packed(name)}
    if group is None:
        fitting = [g for g in _GROUPS if not any(shape[1] % g for shape in shapes.values())]
        group = fitting[0] if fitting else _GROUPS[-1]
    unit = TILE if layout == "qserve" else 1 if layout == "mxfp4" else 8
    for name, (outputs, inputs) in shapes.items():
        if group < 8 or (inputs % group and not layout.startswith("gptq")):
            raise InputError(
                f"group: expected a divisor of the {inputs} inputs of {name}, 8 or more, found {group}"
            )
        if outputs % unit or inputs % unit:
            raise InputError(
                f"{name}: shape: expected multiples of {unit} with {layout}, found {[outputs, inputs]}"
            )
        if layout == "awq-gemv":
            padded_groups(inputs, group)
    return group


def is_packed(name: str) -> bool:
    """Whether a weight is one of those that the export packs: the projections of all layers."""
    return name.endswith("_proj")


def _shard_of(model: Model, name: str) -> str:
    if model.parameters <= SHARD_PARAMETERS:
        return SINGLE_FILE
    count = model.config.layers + 1
    number = int(name.split(".")[1]) + 2 if name.startswith("layers.") else 1
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def _tensors(
    model: Model, name: str, layout: str, group: int, symmetric: bool, norms: Norms | None
) -> Tensors:
    """The tensors of one weight by their names in the file."""
    weight = model.tensor(name)
    if not is_packed(name):
        return {stored_name(name): weight}
    base = stored_name(name).removesuffix(".weight")
    order = None if norms is None else np.argsort(-norms[name], kind="stable")
    packed = pack(weight, layout, group, symmetric, order)
    return {f"{base}.{end}": tensor for end, tensor in packed.items()}


def pack(
    weight: npt.NDArray[np.float32],
    layout: str,
    group: int,
    symmetric: bool,
    order: npt.NDArray[np.intp] | None = None,
) -> Tensors:
    """The tensors of one matrix in a layout; `order`: of the inputs, from group to group (GPTQ)."""
    match layout:
        case "qserve":
            return write_qserve(progressive_matrix(weight, group))
        case "mxfp4":
            return write_mxfp4(mxfp4_matrix(weight))
    offset = int(layout == "gptq")
    if order is not None:
        weight = weight[:, order]
    matrix = zero_point_matrix(weight, group, symmetric=symmetric, least_zero=offset)
    if order is not None:
        back = np.argsort(order)
        matrix = replace(matrix, codes=matrix.codes[:, back], groups=matrix.groups[back])
    if layout == "awq-gemm":
        return write_gemm(matrix)
    return write_gemv(matrix) if layout == "awq-gemv" else write_gptq(matrix, offset=offset)


def _quantization_config(
    layout: str, group: int, symmetric: bool, activation_order: bool
) -> dict[str, Any]:
    if layout == "mxfp4":
        return {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head", "embed_tokens"]}
    common: dict[str, Any] = {"bits": 4, "group_size": group}
    if layout.startswith("awq"):
        return {"quant_method": "awq", **common, "zero_point": True, "version": layout[4:],
                "modules_to_not_convert": ["lm_head"]}  # fmt: skip
    if layout == "qserve":
        return {"quant_method": "qserve", **common, "modules_to_not_convert": ["lm_head"]}
    return {"quant_method": "gptq", **common, "sym": symmetric, "desc_act": activation_order,
            "checkpoint_format": layout.replace("-", "_")}  # fmt: skip


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
