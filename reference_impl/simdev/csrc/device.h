// The simulated device: memory, devices, streams and random numbers, all on the host.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

namespace simdev {

constexpr c10::DeviceType kDevice = c10::DeviceType::PrivateUse1;
constexpr int kMaxDevices = 64;

// The number of devices is set once, before torch asks for it.
void set_device_count(int count);
c10::DeviceIndex device_count() noexcept;

c10::DeviceIndex current_device() noexcept;

// Raises for an index without a device.
void set_device(c10::DeviceIndex index);

// A CPU tensor over the same memory, with the same sizes, strides and conjugate and negative bits.
// It keeps the device tensor's memory alive.
at::Tensor host_alias(const at::Tensor& tensor);

const at::Generator& default_generator(c10::DeviceIndex index);

at::Generator new_generator(c10::DeviceIndex index);

// The CPU generator that draws a simdev generator's numbers.
at::Generator host_generator(const at::Generator& generator);

} // namespace simdev
