"""Make the test files that PyTorch and PyTorch Geometric write: `python tools/make_torch_files.py tests/files/torch`.

They were made with torch 2.14.1 and torch_geometric 2.8.1. `expected.npz` has the tensors of the two checkpoints as
NumPy arrays.
"""

import collections
import pickle
import sys
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    x = torch.randn(3, 4)
    tensors = {
        "float32": x,
        "transposed": x.t(),  # views of one storage
        "part": x[1:, ::2],
        "float64": x.double(),
        "float16": x.half(),
        "bfloat16": x.bfloat16(),
        "int64": torch.arange(3),
        "int32": torch.arange(3).int(),
        "uint8": torch.arange(3).byte(),
        "bool": torch.tensor([True, False]),
        "complex64": torch.view_as_complex(x[:, :2].contiguous()),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    linear = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(linear.parameters(), amsgrad=True)
    linear(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 1.5,
        "state_dict": collections.OrderedDict(tensors),
        "module": linear.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0).state_dict(),
        "normalizers": {"target": {"mean": torch.tensor(-0.5), "std": torch.tensor(2.0)}},
        "config": {"device": torch.device("cuda:0"), "shape": x.shape, "lr": np.float64(1e-3), "names": ["a", None]},
        "defaults": collections.defaultdict(list, a=[1]),
        "counts": collections.Counter([2, 2]),
    }
    torch.save(checkpoint, folder / "checkpoint.pt")
    torch.save(checkpoint, folder / "checkpoint_legacy.pt", _use_new_zipfile_serialization=False)
    arrays = {name: (t.float() if t.dtype == torch.bfloat16 else t).detach().numpy() for name, t in tensors.items()}
    np.savez_compressed(folder / "expected.npz", **arrays)
    data = Data(pos=x[:, :3].clone(), cell=torch.eye(3)[None], atomic_numbers=torch.tensor([8.0, 1.0, 1.0]), natoms=3)
    (folder / "data.pkl").write_bytes(pickle.dumps(data, -1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
