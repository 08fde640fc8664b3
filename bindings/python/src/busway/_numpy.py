"""What needs NumPy: imported when it is used."""
from typing import Any

from ._busway import Batch


def to_numpy(batch: Batch, dtype: Any = None) -> Any:
    """The values of a batch as one array, gathered in C.

    dtype None: uint8, one row a record; all values must have one length. Else one element a record, whose itemsize is the values' length."""
    import numpy as np

    lengths = np.asarray(batch.value_lengths)
    size = int(lengths[0]) if len(lengths) else 0
    if len(lengths) and (size < 0 or (lengths != size).any()):
        raise ValueError("the values have different lengths (or are null): use gather() and value_lengths")
    if dtype is None:
        out = np.empty((len(lengths), size), dtype=np.uint8)
    else:
        out = np.empty(len(lengths), dtype=dtype)
        if len(lengths) and out.dtype.itemsize != size:
            raise ValueError(f"the values have {size} bytes, {out.dtype} has {out.dtype.itemsize}")
        if out.dtype.hasobject:
            raise TypeError("a dtype without Python objects is wanted")
    if out.nbytes:
        batch.gather_into(out.view(np.uint8).reshape(-1) if out.ndim == 1 else out)
    return out
