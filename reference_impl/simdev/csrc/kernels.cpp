// Operators: memory and views by the device itself, everything else on copies in host memory.
#include "device.h"

#include <ATen/DeviceGuard.h>
#include <ATen/EmptyTensor.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <torch/library.h>

#include <string_view>

namespace simdev {
namespace {

using at::Tensor;
using Sizes = c10::IntArrayRef;

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

c10::Device or_current(std::optional<c10::Device> device) {
  const bool has_index = device.has_value() && device->has_index();
  return {kDevice, has_index ? device->index() : current_device()};
}

Tensor empty(
    Sizes size, std::optional<at::ScalarType> dtype, std::optional<at::Layout> layout,
    std::optional<c10::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  TORCH_CHECK(layout.value_or(at::kStrided) == at::kStrided, "simdev has strided tensors only");
  const c10::DeviceGuard guard(or_current(device));
  return at::detail::empty_generic(
      size, c10::GetAllocator(kDevice), kKeys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(
    Sizes size, Sizes stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<c10::Device> device, std::optional<bool>) {
  const c10::DeviceGuard guard(or_current(device));
  return at::detail::empty_strided_generic(
      size, stride, c10::GetAllocator(kDevice), kKeys, c10::dtype_or_default(dtype));
}

Tensor on_host(const Tensor& tensor) {
  return tensor.device().type() == kDevice ? host_alias(tensor) : tensor;
}

Tensor copy_from(const Tensor& source, const Tensor& target, bool) {
  on_host(target).copy_(on_host(source));
  return target;
}

const Tensor& resize(const Tensor& tensor, Sizes size, std::optional<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(tensor.device());
  return at::native::resize_(tensor, size, format);
}

Tensor copy_from_and_resize(const Tensor& source, const Tensor& target) {
  if (target.sizes() != source.sizes()) {
    resize(target, source.sizes(), std::nullopt);
  }
  return copy_from(source, target, false);
}

// Collects what the arguments of an operator say about devices.
struct Devices {
  std::optional<c10::Device> device;
  bool host_tensor = false;

  void add(const Tensor& tensor, const c10::OperatorHandle& op) {
    if (!tensor.defined() || tensor.dim() == 0) {
      return;
    }
    if (tensor.device().type() != kDevice) {
      host_tensor = true;
      return;
    }
    TORCH_CHECK(
        !device.has_value() || *device == tensor.device(),
        op.schema().name(), " got tensors on ", *device, " and ", tensor.device(),
        ": move them to one device first");
    device = tensor.device();
  }
};

// Indices may be on the host, as for other devices.
bool takes_host_tensors(std::string_view name) {
  constexpr std::string_view prefixes[] = {"aten::index", "aten::_index_put", "aten::_unsafe_index"};
  return std::any_of(std::begin(prefixes), std::end(prefixes), [&](auto prefix) {
    return name.substr(0, prefix.size()) == prefix;
  });
}

// A host tensor in the memory of another kind of device would be wrong or raise, so it does here.
c10::Device require_one_device(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  Devices seen;
  for (const auto& value : torch::jit::last(stack, op.schema().arguments().size())) {
    if (value.isTensor()) {
      seen.add(value.toTensor(), op);
    } else if (value.isTensorList()) {
      for (const Tensor& tensor : value.toTensorVector()) {
        seen.add(tensor, op);
      }
    }
  }
  TORCH_CHECK(
      !(seen.device && seen.host_tensor) || takes_host_tensors(op.schema().name()),
      op.schema().name(), " got tensors on ", *seen.device, " and on the CPU: move them to one device first");
  return or_current(seen.device);
}

bool is_generator(const c10::Argument& argument) {
  const auto optional = argument.type()->cast<c10::OptionalType>();
  return (optional ? optional->getElementType() : argument.type())->kind() == c10::TypeKind::GeneratorType;
}

// Random operators draw from the device's generator, which the CPU's kernels do not know.
void lend_generators(const c10::OperatorHandle& op, torch::jit::Stack& stack, c10::Device device) {
  const auto& arguments = op.schema().arguments();
  for (size_t i = 0; i < arguments.size(); ++i) {
    auto& value = stack[stack.size() - arguments.size() + i];
    if (!is_generator(arguments[i]) || (value.isGenerator() && value.toGenerator().device() == at::kCPU)) {
      continue;
    }
    value = host_generator(value.isNone() ? default_generator(device.index()) : value.toGenerator());
  }
}

void run_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::Device device = require_one_device(op, *stack);
  const c10::DeviceGuard guard(device);
  lend_generators(op, *stack, device);
  at::native::cpu_fallback(op, stack);
}

} // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("resize_", resize);
  m.impl("set_.source_Storage", static_cast<Tensor& (*)(Tensor&, at::Storage)>(at::native::set_));
  m.impl("set_.source_Tensor", at::native::set_tensor_);
  m.impl("set_.source_Storage_storage_offset", at::native::set_storage_cpu_);
  // Views, which the fallback would turn into copies.
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", static_cast<Tensor (*)(const Tensor&, Sizes)>(at::native::view));
  m.impl("_reshape_alias", static_cast<Tensor (*)(const Tensor&, Sizes, Sizes)>(at::native::_reshape_alias));
  m.impl("unfold", at::native::unfold);
  m.impl("view_as_real", at::native::view_as_real);
  m.impl("view_as_complex", at::native::view_as_complex);
}

// copy_from reads and writes conjugate and negative views itself. Left to torch's fallbacks, which copy such
// tensors first, it would call itself without end.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) {
  m.impl("_copy_from", torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(aten, Negative, m) {
  m.impl("_copy_from", torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
}

} // namespace simdev
