"""The operations and attributes that a program may hold: the allowlist of `admission`.

Not on it, and why: whatever moves things between host and device or between devices, has effects, or calls native code;
dynamic shapes, whose sizes nobody knows beforehand; random numbers of the device's own, which no checker can repeat;
quantised types; what jax never writes and only a reader of these lists would have to understand.
"""

from __future__ import annotations

from typing import Final

from .kernels import TARGETS


def _words(dialect: str, names: str) -> frozenset[str]:
    return frozenset(f"{dialect}.{name}" for name in names.split())


ELEMENTWISE: Final = _words(
    "stablehlo",
    "abs add and atan2 cbrt ceil clamp compare complex convert cosine count_leading_zeros divide exponential"
    " exponential_minus_one floor imag is_finite log log_plus_one logistic maximum minimum multiply negate not or popcnt"
    " power real reduce_precision remainder round_nearest_afz round_nearest_even rsqrt select shift_left"
    " shift_right_arithmetic shift_right_logical sign sine sqrt subtract tan tanh xor",
) | _words(
    "chlo",
    "_asin_acos_kernel acos acosh asin asinh atan atanh bessel_i1e conj cosh digamma erf erf_inv erfc is_inf is_neg_inf"
    " is_pos_inf lgamma next_after polygamma sinh square tan zeta",
)
"""Each element of the result is a function of the operands' elements at the same place (or of operands of rank 0)."""

SHAPED: Final = _words(
    "stablehlo",
    "bitcast_convert broadcast_in_dim cholesky concatenate constant convolution dot_general dynamic_slice"
    " dynamic_update_slice fft gather iota optimization_barrier pad reduce reduce_window reshape reverse scatter slice sort"
    " transpose triangular_solve",
) | _words("chlo", "top_k")

CONTROL: Final = _words("stablehlo", "case composite if return while") | _words("func", "call return")

OPERATIONS: Final = ELEMENTWISE | SHAPED | CONTROL

COMPOSITES: Final = frozenset(name for name in ELEMENTWISE if name.startswith("chlo.")) | {"chlo.top_k"}
"""Names under which a function may be called that a compiler may know better: what it does and what its name says must
both keep the rules."""

CUSTOM_CALLS: Final = TARGETS
"""Native code that a program may call by name: the node's own kernels."""

CUSTOM_CALL_ATTRIBUTES: Final = frozenset(
    {"api_version", "call_target_name", "mhlo.backend_config", "operand_layouts", "result_layouts"}
)
"""What `jax.ffi.ffi_call` writes; the configuration is empty, and layouts are the usual."""

ATTRIBUTES: Final = frozenset({
    "algorithm", "base_dilations", "batch_group_count", "broadcast_dimensions", "callee", "compare_type",
    "comparison_direction", "composite_attributes", "decomposition", "dimension", "dimension_numbers", "dimensions",
    "dot_dimension_numbers", "edge_padding_high", "edge_padding_low", "exponent_bits", "feature_group_count",
    "fft_length", "fft_type", "indices_are_sorted", "interior_padding", "iota_dimension", "is_stable", "k",
    "largest", "left_side", "lhs_dilation", "limit_indices", "lower", "mantissa_bits", "name", "padding",
    "permutation", "precision_config", "result_accuracy", "rhs_dilation", "scatter_dimension_numbers",
    "slice_sizes", "start_indices", "strides", "transpose_a", "unique_indices", "unit_diagonal", "value", "version",
    "window_dilations", "window_dimensions", "window_reversal", "window_strides",
})  # fmt: skip
"""Of operations; which has which, MLIR has verified. What steers compilers is missing on purpose: `backend_config`,
`mhlo.frontend_attributes`, `mhlo.sharding` and their like."""

COMPOSITE_ATTRIBUTES: Final = frozenset({"k", "largest"})
FUNCTION_ATTRIBUTES: Final = frozenset({"arg_attrs", "function_type", "res_attrs", "sym_name", "sym_visibility"})
ARGUMENT_ATTRIBUTES: Final = frozenset(
    {"jax.buffer_donor", "jax.global_constant", "jax.result_info", "tf.aliasing_output"}
)
MODULE_ATTRIBUTES: Final = frozenset(
    {"jax.uses_shape_polymorphism", "mhlo.num_partitions", "mhlo.num_replicas", "sym_name"}
)
