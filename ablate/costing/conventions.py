"""Operations that count as none, by the papers' convention: nothing in them multiplies and adds up over channels."""

from __future__ import annotations

_ELEMENTWISE = (
    "__or__ __xor__ abs add addcdiv addcmul alpha_dropout bernoulli bitwise_and bitwise_or ceil celu clamp "
    "clamp_max clamp_min cos deg2rad div dropout elu erf exp expm1 feature_alpha_dropout feature_dropout floor "
    "fmod frac ge gelu glu gt hardshrink hardsigmoid hardswish hardtanh isfinite isinf isnan le leaky_relu lerp "
    "log log10 log1p log2 log_sigmoid logical_and logical_not logical_or logical_xor logit lt maximum minimum "
    "mish mul nan_to_num native_dropout ne neg outer positive pow prelu reciprocal relu relu6 round rrelu rsqrt "
    "rsub selu sigmoid sign silu sin softplus softshrink softsign sqrt square sub tan tanh tanhshrink threshold "
    "trunc where xlogy"
)
_REDUCTIONS = (
    "all amax amin any argmax argmin linalg_vector_norm log_softmax logsumexp max "
    "mean median min nanmean nansum norm prod softmax softmin std std_mean sum var var_mean"
)
_NORMS = "_weight_norm batch_norm group_norm instance_norm layer_norm local_response_norm native_layer_norm rms_norm"
_POOLINGS = (
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool2d_with_indices "
    "max_pool3d"
)
_RESAMPLINGS = (
    "grid_sampler grid_sampler_2d upsample_bicubic2d upsample_bilinear2d upsample_linear1d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest_exact2d upsample_trilinear3d"
)
_MOVEMENTS = (
    "adjoint alias atleast_1d atleast_2d broadcast_tensors broadcast_to channel_shuffle clone col2im "
    "constant_pad_nd diag diag_embed diagonal embedding expand_as flip fliplr flipud H hsplit im2col index_select "
    "lift_fresh masked_select meshgrid mH moveaxis movedim mT numpy_T one_hot pad pixel_shuffle pixel_unshuffle "
    "ravel reflection_pad1d reflection_pad2d repeat repeat_interleave replication_pad1d replication_pad2d "
    "reshape_as resolve_conj roll rot90 scatter swapaxes swapdims T take_along_dim tensor_split tile tril triu "
    "unflatten unfold unsafe_chunk unsafe_split view_as vsplit"
)
_CREATIONS = (
    "empty_like eye fill full_like linspace new_ones new_zeros ones_like rand rand_like randint randn randn_like "
    "randperm scalar_tensor uniform zeros_like"
)

_NAMES = " ".join((_ELEMENTWISE, _REDUCTIONS, _NORMS, _POOLINGS, _RESAMPLINGS, _MOVEMENTS, _CREATIONS)).split()
NOT_COUNTED_BY_CONVENTION = frozenset(f"aten::{name}{in_place}" for name in _NAMES for in_place in ("", "_"))
"""Elementwise operations, reductions, norms, poolings and resampling, besides what only moves or makes values.

What fvcore ignores of its own accord (``view``, ``cat``, ``permute``, …) need not be named here. What is in neither
list and has no handler is *uncounted*, by name: transforms, decompositions, sorts, scans, recurrent layers, the
operations of other libraries.
"""
