"""Matrix products of an ONNX model in 8 bits, each row of activations with a scale of its own.

ONNX Runtime's own dynamic quantisation finds one scale for a whole tensor, the images of a batch together, so that an
image's score depends on what stands beside it. Here every token has its scale: nothing is shared between images, and
one token of large values does not coarsen the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cleft_bundle.extras import require

_LARGEST = 127  # of an activation, in steps to either side of the zero point
_ZERO = 128  # unsigned, because processors multiply unsigned activations by signed weights
_LARGEST_WEIGHT = 63  # processors without VNNI add two products in 16 bits: 255 * 63 * 2 fits, 8 bits would not
_SMALLEST = 1e-12  # of a scale: a row of zeros stays one


def quantize_rows(model: Any) -> Any:
    """Quantise the products with constant matrices of an ONNX model.

    A row x of activations becomes integers of -127 to 127 by the scale max|x| / 127, a column of weights integers of
    -63 to 63 likewise; the product of integers is exact, and is multiplied by both scales. Other operators, products
    of two activations among them, keep their precision.

    Args:
        model: an ``onnx.ModelProto`` with shapes inferred; it is changed.

    Returns:
        the model.

    Raises:
        BundleError: where the package onnx is missing.

    Source: Dettmers et al., "LLM.int8()", NeurIPS 2022, section 2.1 (vector-wise quantisation).
    """
    return _Quantizer(model).run()


class _Quantizer:
    """The rewriting of one model."""

    def __init__(self, model: Any) -> None:
        self.onnx = require("onnx", "onnx")
        self.model = model
        self.weights = {one.name: one for one in model.graph.initializer}
        values = [*model.graph.value_info, *model.graph.input]
        self.shapes = {one.name: [d.dim_value for d in one.type.tensor_type.shape.dim] for one in values}
        self.nodes: list[Any] = []
        self.quantized: dict[str, tuple[str, str]] = {}  # activations to their integers and scales
        self.constants: dict[str, str] = {}

    def run(self) -> Any:
        graph = self.model.graph
        for node in list(graph.node):
            matrix = self._matrix(node)
            self.nodes.extend([node] if matrix is None else self._product(node, matrix))
        del graph.node[:]
        graph.node.extend(self.nodes)
        used = {name for node in graph.node for name in node.input}
        kept = [one for one in graph.initializer if one.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        return self.model

    def _matrix(self, node: Any) -> np.ndarray | None:
        """The constant matrix [in, out] that a node multiplies rows by; None for other nodes."""
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in self.weights:
            return None
        given = {one.name: self.onnx.helper.get_attribute_value(one) for one in node.attribute}
        shape = self.shapes.get(node.input[0], [])
        if given.get("transA") or given.get("alpha", 1) != 1 or given.get("beta", 1) != 1 or not all(shape[1:]):
            return None
        matrix = self.onnx.numpy_helper.to_array(self.weights[node.input[1]])
        return None if matrix.ndim != 2 or not shape else (matrix.T if given.get("transB") else matrix)

    def _product(self, node: Any, matrix: np.ndarray) -> Iterator[Any]:
        make, name = self.onnx.helper.make_node, node.output[0]
        scale = np.maximum(np.abs(matrix).max(axis=0) / _LARGEST_WEIGHT, _SMALLEST).astype(np.float32)
        steps = self._constant(f"{name}_weight", np.rint(matrix / scale).astype(np.int8))
        yield from self._rows(node.input[0], matrix.shape[0])
        integers, scales = self.quantized[node.input[0]]
        zero = self._constant("int8_zero", np.array(_ZERO, np.uint8))
        yield make("MatMulInteger", [integers, steps, zero], [f"{name}_sum"])
        yield make("Cast", [f"{name}_sum"], [f"{name}_float"], to=self.onnx.TensorProto.FLOAT)
        yield make("Mul", [f"{name}_float", self._constant(f"{name}_scale", scale)], [f"{name}_columns"])
        biased = node.op_type == "Gemm" and len(node.input) == 3
        yield make("Mul", [f"{name}_columns", scales], [f"{name}_rows"])
        shape = self._constant(f"{name}_shape", np.array([-1, *self.shapes[node.input[0]][1:-1], matrix.shape[1]]))
        yield make("Reshape", [f"{name}_rows", shape], [f"{name}_product" if biased else name])
        if biased:
            yield make("Add", [f"{name}_product", node.input[2]], [name])

    def _rows(self, name: str, width: int) -> Iterator[Any]:
        """Quantise the rows of activations [..., width], once for all products that take them."""
        if name in self.quantized:
            return
        make = self.onnx.helper.make_node
        rows, scale = f"{name}_2d", f"{name}_scale"
        yield make("Reshape", [name, self._constant(f"int8_rows_{width}", np.array([-1, width]))], [rows])
        yield make("Abs", [rows], [f"{name}_abs"])
        axis = self._constant("int8_axis", np.array([1]))
        yield make("ReduceMax", [f"{name}_abs", axis], [f"{name}_max"], keepdims=1)
        yield make("Mul", [f"{name}_max", self._constant("int8_step", np.float32(1 / _LARGEST))], [f"{name}_raw"])
        yield make("Max", [f"{name}_raw", self._constant("int8_least", np.float32(_SMALLEST))], [scale])
        flat, zeros = f"{name}_flat", f"{name}_zeros"
        yield make("Reshape", [scale, self._constant("int8_flat", np.array([-1]))], [flat])
        yield make("Shape", [flat], [f"{name}_count"])
        yield make("Expand", [self._constant("int8_zero", np.array(_ZERO, np.uint8)), f"{name}_count"], [zeros])
        yield make("QuantizeLinear", [rows, flat, zeros], [f"{name}_int"], axis=0)
        self.quantized[name] = f"{name}_int", scale

    def _constant(self, name: str, value: Any) -> str:
        if name not in self.constants:
            self.constants[name] = name
            tensor = self.onnx.numpy_helper.from_array(np.asarray(value), name)
            self.weights[name] = tensor
            self.model.graph.initializer.append(tensor)
        return name
