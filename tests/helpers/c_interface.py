"""Run a SavedModel through TensorFlow's C interface: `python c_interface.py FOLDER "[8, 1, 1]" "[[...], ...]"`.

The calls are those of docs/c_example.c; the library is the one in TensorFlow's wheel, whose Python is not imported.
"""

import ctypes as c
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np

folder, Z, R = sys.argv[1], np.array([json.loads(sys.argv[2])], np.int32), np.array([json.loads(sys.argv[3])], "f4")
home = Path(importlib.util.find_spec("tensorflow").origin).parent
c.CDLL(str(home / "libtensorflow_framework.so.2"), mode=c.RTLD_GLOBAL)
tf = c.CDLL(str(home / "libtensorflow_cc.so.2"), mode=c.RTLD_GLOBAL)
FLOAT, DOUBLE, INT32 = 1, 2, 3
pointer = c.c_void_p


class Output(c.Structure):
    """TF_Output: an operation and the number of its output."""

    _fields_ = [("oper", pointer), ("index", c.c_int)]


for name in (
    "TF_NewStatus TF_NewGraph TF_NewSessionOptions TF_LoadSessionFromSavedModel TF_GraphOperationByName "
    "TF_AllocateTensor TF_TensorData"
).split():
    getattr(tf, name).restype = pointer
tf.TF_Message.restype = c.c_char_p
tf.TF_Dim.restype = c.c_int64
status, graph, options = pointer(tf.TF_NewStatus()), pointer(tf.TF_NewGraph()), pointer(tf.TF_NewSessionOptions())


def check() -> None:
    if tf.TF_GetCode(status) != 0:
        raise SystemExit(tf.TF_Message(status).decode())


def tensor(array: np.ndarray, dtype: int) -> pointer:
    dims = (c.c_int64 * array.ndim)(*array.shape)
    made = pointer(tf.TF_AllocateTensor(dtype, dims, array.ndim, c.c_size_t(array.nbytes)))
    c.memmove(tf.TF_TensorData(made), array.ctypes.data, array.nbytes)
    return made


def array(made: pointer, dtype: str) -> np.ndarray:
    shape = [tf.TF_Dim(made, i) for i in range(tf.TF_NumDims(made))]
    numbers = np.empty(shape, dtype)
    c.memmove(numbers.ctypes.data, tf.TF_TensorData(made), numbers.nbytes)
    return numbers


def output(name: str, index: int = 0) -> Output:
    operation = tf.TF_GraphOperationByName(graph, name.encode())
    if not operation:
        raise SystemExit(f"no operation {name}")
    return Output(operation, index)


tags = (c.c_char_p * 1)(b"serve")
session = pointer(tf.TF_LoadSessionFromSavedModel(options, None, folder.encode(), tags, 1, graph, None, status))
check()
# names as `saved_model_cli show` prints them: the outputs of a signature in alphabetical order
inputs = (Output * 2)(output("serving_default_Z"), output("serving_default_R"))
operations = [f"StatefulPartitionedCall{suffix}" for suffix in ("", "_1", "_2")]
outputs = (Output * 2)(*(output(operations[int(sys.argv[4]) if len(sys.argv) > 4 else 2], i) for i in range(2)))
values, answers = (pointer * 2)(tensor(Z, INT32), tensor(R, FLOAT)), (pointer * 2)()
tf.TF_SessionRun(session, None, inputs, values, 2, outputs, answers, 2, None, 0, None, status)
check()
print(
    json.dumps({"energy": array(pointer(answers[0]), "f8")[0], "forces": array(pointer(answers[1]), "f4")[0].tolist()})
)
