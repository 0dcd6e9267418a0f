"""Matrix products in 8 bits, a scale for each row of activations."""

import numpy as np
import pytest
import torch

from cleft_bundle.checkpoints.int8 import quantize_rows

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")


def product(op, weights, shape, bias=None, **attributes):
    """A model of one product with constant weights."""
    make = onnx.helper
    inputs = ["x", "w", *(["b"] if bias is not None else [])]
    constants = {"w": weights, **({"b": bias} if bias is not None else {})}
    graph = make.make_graph(
        [make.make_node(op, inputs, ["y"], **attributes)],
        "one product",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * len(shape))],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10)


def run(model, rows):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(["y"], {"x": rows})[0]


def by_hand(rows, weights):
    """The same in NumPy: integers of both, multiplied exactly, and the two scales."""
    columns = np.maximum(np.abs(weights).max(axis=0), 1e-12) / 63
    scales = np.maximum(np.abs(rows).max(axis=-1, keepdims=True), 1e-10) / 127
    integers = np.rint(rows / scales).astype(np.int64) @ np.rint(weights / columns).astype(np.int64)
    return integers * scales * columns


@pytest.fixture
def numbers():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 5, 32)).astype(np.float32) * np.array([0.01, 1, 100], np.float32)[:, None, None]
    rows[0, 2] = 0
    return rows, rng.normal(size=(32, 7)).astype(np.float32) * np.arange(7, dtype=np.float32)


def test_a_product_is_that_of_integers_times_both_scales(numbers):
    rows, weights = numbers
    model = quantize_rows(product("MatMul", weights, ["batch", 5, 32]))
    onnx.checker.check_model(model)
    assert "MatMulInteger" in {node.op_type for node in model.graph.node}
    found = run(model, rows)
    assert found.shape == (3, 5, 7)
    np.testing.assert_allclose(found, by_hand(rows, weights), rtol=1e-4, atol=1e-6)
    assert np.abs(found - rows @ weights).max() > 1e-3, "it is rounded"
    np.testing.assert_array_equal(found[0, 2], np.zeros(7))


def test_rows_know_nothing_of_each_other(numbers):
    rows, weights = numbers
    model = quantize_rows(product("MatMul", weights, ["batch", 5, 32]))
    alone = np.concatenate([run(model, row[None]) for row in rows])
    np.testing.assert_array_equal(run(model, rows), alone)


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_keeps_its_bias(numbers, transposed):
    rows, weights = numbers
    bias = np.arange(7, dtype=np.float32)
    stored = np.ascontiguousarray(weights.T) if transposed else weights
    model = quantize_rows(product("Gemm", stored, ["batch", 32], bias, transB=transposed))
    np.testing.assert_allclose(run(model, rows[1]), by_hand(rows[1], weights) + bias, rtol=1e-4, atol=1e-5)


def test_what_is_not_a_plain_product_stays(numbers):
    _, weights = numbers
    for model in (
        product("Gemm", weights, ["batch", 32], alpha=0.5),
        product("MatMul", np.stack([weights, weights]), [2, 5, 32]),
        product("Add", weights, [32, 7]),
    ):
        before = model.SerializeToString()
        assert quantize_rows(model).SerializeToString() == before


def test_the_largest_sum_of_two_products_fits_16_bits():
    """Processors without VNNI add pairs of products in 16 bits and saturate."""
    weights, rows = np.ones((64, 2), np.float32), torch.full((1, 64), 3.0).numpy()
    np.testing.assert_allclose(
        run(quantize_rows(product("MatMul", weights, ["batch", 64])), rows), [[192, 192]], rtol=1e-5
    )
