#include "staging.h"

#include "device.h"

#include <ATen/MemoryOverlap.h>

namespace simdev {
namespace {

bool gloo_reduces(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
    case at::kFloat:
    case at::kHalf:
    case at::kBFloat16:
    case at::kLong:
    case at::kInt:
    case at::kChar:
    case at::kByte:
    case at::kBool:
      return true;
    default:
      return false;
  }
}

const at::Tensor& required(const at::Tensor& tensor) {
  TORCH_CHECK(
      tensor.device().type() == kDevice && tensor.layout() == at::kStrided,
      "simccl moves strided tensors on simdev, got a tensor on ", tensor.device(), " with layout ",
      tensor.layout());
  return tensor;
}

// On the bytes of bools, as for NCCL: a sum is "any" and a product is "all".
c10d::ReduceOp on_bools(c10d::ReduceOp::RedOpType op) {
  if (op == c10d::ReduceOp::SUM) {
    return c10d::ReduceOp::MAX;
  }
  return op == c10d::ReduceOp::PRODUCT ? c10d::ReduceOp::MIN : op;
}

bool is_bitwise(c10d::ReduceOp::RedOpType op) {
  return op == c10d::ReduceOp::BAND || op == c10d::ReduceOp::BOR || op == c10d::ReduceOp::BXOR;
}

} // namespace

Staged::Staged(at::Tensor device_tensor)
    : device(std::move(device_tensor)),
      host(host_alias(required(device))),
      copied(!host.is_contiguous() || host.is_conj() || host.is_neg()) {
  if (copied) {
    host = host.resolve_conj().resolve_neg().contiguous();
  }
}

at::Tensor Staged::bytes() const {
  const auto size = static_cast<int64_t>(host.nbytes());
  return at::from_blob(host.mutable_data_ptr(), {size}, [owner = host](void*) {}, at::kByte);
}

at::Tensor Staged::byte_rows() const {
  const auto rows = host.size(0);
  const auto row_bytes = rows == 0 ? 0 : static_cast<int64_t>(host.nbytes()) / rows;
  return bytes().view({rows, row_bytes});
}

at::Tensor Staged::numbers() const {
  return host.scalar_type() == at::kBool ? host.view(at::kByte) : host;
}

void Staged::detach() {
  if (!copied) {
    host = host.clone();
  }
}

void Staged::write_back() const {
  if (copied) {
    host_alias(device).copy_(host);
  }
}

Staged staged_output(const at::Tensor& tensor) {
  at::assert_no_internal_overlap(tensor);
  return Staged(tensor);
}

c10d::ReduceOp reduction_of(const c10d::ReduceOp& op, at::ScalarType dtype) {
  const auto type = static_cast<c10d::ReduceOp::RedOpType>(op);
  TORCH_CHECK(gloo_reduces(dtype), "simccl does not reduce ", dtype, ": convert the tensor first");
  TORCH_CHECK(type != c10d::ReduceOp::PREMUL_SUM, "simccl has no PREMUL_SUM: multiply before a SUM");
  TORCH_CHECK(
      type != c10d::ReduceOp::AVG || at::isFloatingType(dtype),
      "simccl averages floating-point tensors, got ", dtype, ": divide the SUM");
  TORCH_CHECK(
      !is_bitwise(type) || at::isIntegralType(dtype, true),
      "simccl has bitwise operations for integers only, got ", dtype);
  return dtype == at::kBool ? on_bools(type) : c10d::ReduceOp(op);
}

} // namespace simdev
