"""N:M pruning: which weights of every 16 along the input a sparse format keeps."""

import numpy as np

from hw.spec.weight_format import BLOCK_ELEMENTS


def prune(matrix: np.ndarray, kept: int, norms: np.ndarray | None = None) -> np.ndarray:
    """The matrix with all but `kept` weights of every 16 inputs set to zero.

    Parameters
    ----------
    matrix : float32 [outputs, inputs]
    kept : int
        Weights kept of each run of 16 inputs of each output.
    norms : float [inputs], optional
        Root mean square of each input. A weight's importance is its magnitude times it, after Sun and others,
        "A Simple and Effective Pruning Approach for Large Language Models" (Wanda, ICLR 2024); without it, its magnitude.

    Returns
    -------
    float32 [outputs, inputs]
        Of equally important weights the first are kept.
    """
    outputs, inputs = matrix.shape
    importance = np.zeros((outputs, inputs + -inputs % BLOCK_ELEMENTS), np.float32)
    importance[:, :inputs] = np.abs(matrix)
    if norms is not None:
        importance[:, :inputs] *= norms
    blocks = importance.reshape(outputs, -1, BLOCK_ELEMENTS)
    order = np.argsort(-blocks, axis=2, kind="stable")[..., :kept]
    keep = np.zeros(blocks.shape, bool)
    np.put_along_axis(keep, order, True, axis=2)
    return np.where(keep.reshape(outputs, -1)[:, :inputs], matrix, 0).astype(np.float32)
