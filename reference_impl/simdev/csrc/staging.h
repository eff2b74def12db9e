// How a device tensor is shown to gloo, which walks memory without looking at strides.
#pragma once

#include "simccl.h"

namespace simdev {

// The contiguous host tensor of a device tensor: over the same memory where that is contiguous, else a copy.
struct Staged {
  // Raises for a tensor that is not on simdev or not strided.
  explicit Staged(at::Tensor device_tensor);

  // The host tensor as bytes, (n,): moving data needs no number format.
  at::Tensor bytes() const;
  // As bytes in rows, (size(0), n): splits go by the first dimension.
  at::Tensor byte_rows() const;
  // As gloo can reduce it: bools as bytes.
  at::Tensor numbers() const;
  // Lets the device tensor keep its values, whatever becomes of the host tensor.
  void detach();
  void write_back() const;

  at::Tensor device;
  at::Tensor host;
  bool copied;
};

// Raises if the tensor's elements share memory, so that it cannot hold a result.
Staged staged_output(const at::Tensor& tensor);

// The operation that gives the right result on numbers(). Raises for what gloo can't reduce, some of which it
// would only notice when the group is no longer usable.
c10d::ReduceOp reduction_of(const c10d::ReduceOp& op, at::ScalarType dtype);

} // namespace simdev
