// What torch asks of every accelerator: an allocator, a device guard with streams and events, and hooks.
// Work is done at the call, so a stream is a name and an event a point in time.
#include "device.h"

#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>

namespace simdev {
namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::Stream;
using c10::CachingDeviceAllocator::DeviceStats;

thread_local DeviceIndex this_device = 0;
thread_local std::array<c10::StreamId, kMaxDevices> this_stream{};

std::atomic<int> devices_of_process{0};

struct Block {
  void* data;
  size_t bytes;
  DeviceIndex device;
};

class Allocator final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const Device device(kDevice, this_device);
    if (bytes == 0) {
      return {nullptr, device};
    }
    auto* block = new Block{c10::alloc_cpu(bytes), bytes, this_device};
    count(*block, true);
    return {block->data, block, &Allocator::release, device};
  }
  void copy_data(void* target, const void* source, size_t bytes) const override {
    std::memcpy(target, source, bytes);
  }
  bool initialized() override {
    return true;
  }
  void emptyCache(c10::MempoolId_t = {0, 0}) override {}
  void recordStream(const c10::DataPtr&, Stream) override {}
  DeviceStats getDeviceStats(DeviceIndex device) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return stats_.at(device);
  }
  void resetAccumulatedStats(DeviceIndex device) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    stats_.at(device).allocated_bytes[kAll].reset_accumulated();
  }
  void resetPeakStats(DeviceIndex device) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    stats_.at(device).allocated_bytes[kAll].reset_peak();
    stats_.at(device).reserved_bytes[kAll].reset_peak();
  }

  static Allocator& instance() {
    static auto* allocator = new Allocator; // tensors may outlive every static object
    return *allocator;
  }

 private:
  static constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

  static void release(void* context) {
    const std::unique_ptr<Block> block(static_cast<Block*>(context));
    instance().count(*block, false);
    c10::free_cpu(block->data);
  }
  void count(const Block& block, bool grows) {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto& stats = stats_.at(block.device);
    for (auto* bytes : {&stats.allocated_bytes[kAll], &stats.reserved_bytes[kAll]}) {
      grows ? bytes->increase(block.bytes) : bytes->decrease(block.bytes);
    }
  }

  std::mutex mutex_;
  std::array<DeviceStats, kMaxDevices> stats_;
};

struct Event {
  std::chrono::steady_clock::time_point recorded;
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override {
    return kDevice;
  }
  Device exchangeDevice(Device device) const override {
    const Device before = getDevice();
    set_device(device.index());
    return before;
  }
  Device getDevice() const override {
    return {kDevice, this_device};
  }
  void setDevice(Device device) const override {
    set_device(device.index());
  }
  void uncheckedSetDevice(Device device) const noexcept override {
    this_device = device.index();
  }
  DeviceIndex deviceCount() const noexcept override {
    return device_count();
  }
  Stream getStream(Device device) const override {
    return stream(device, this_stream.at(index_of(device)));
  }
  Stream getDefaultStream(Device device) const override {
    return stream(device, 0);
  }
  Stream getNewStream(Device device, int) const override {
    static std::atomic<c10::StreamId> last{0};
    return stream(device, ++last);
  }
  Stream getStreamFromGlobalPool(Device device, bool) const override {
    return getNewStream(device, 0);
  }
  Stream exchangeStream(Stream stream) const override {
    const Stream before = getStream(stream.device());
    this_stream.at(stream.device_index()) = stream.id();
    return before;
  }
  bool queryStream(const Stream&) const override {
    return true;
  }
  void synchronizeStream(const Stream&) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
  void record(void** event, const Stream&, const DeviceIndex, const c10::EventFlag) const override {
    if (*event == nullptr) {
      *event = new Event;
    }
    static_cast<Event*>(*event)->recorded = std::chrono::steady_clock::now();
  }
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override {
    return true;
  }
  void synchronizeEvent(void*) const override {}
  void destroyEvent(void* event, const DeviceIndex) const noexcept override {
    delete static_cast<Event*>(event);
  }
  double elapsedTime(void* first, void* second, const DeviceIndex) const override {
    const auto elapsed = static_cast<Event*>(second)->recorded - static_cast<Event*>(first)->recorded;
    return std::chrono::duration<double, std::milli>(elapsed).count();
  }

 private:
  static DeviceIndex index_of(Device device) {
    return device.has_index() ? device.index() : this_device;
  }
  static Stream stream(Device device, c10::StreamId id) {
    return Stream(Stream::UNSAFE, Device(kDevice, index_of(device)), id);
  }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override {
    return true;
  }
  bool isAvailable() const override {
    return device_count() > 0;
  }
  bool hasPrimaryContext(DeviceIndex) const override {
    return true;
  }
  DeviceIndex deviceCount() const override {
    return device_count();
  }
  void setCurrentDevice(DeviceIndex device) const override {
    set_device(device);
  }
  DeviceIndex getCurrentDevice() const override {
    return this_device;
  }
  DeviceIndex exchangeDevice(DeviceIndex device) const override {
    const DeviceIndex before = this_device;
    set_device(device);
    return before;
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex device) const override {
    return device < 0 ? this_device : exchangeDevice(device);
  }
  const at::Generator& getDefaultGenerator(DeviceIndex index) const override {
    return default_generator(index);
  }
  at::Generator getNewGenerator(DeviceIndex index) const override {
    return new_generator(index < 0 ? this_device : index);
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    const c10::DeviceGuard guard(storage.device());
    auto data = Allocator::instance().allocate(bytes);
    const size_t kept = std::min(bytes, storage.nbytes());
    if (kept > 0) {
      std::memcpy(data.get(), storage.data(), kept);
    }
    storage.set_data_ptr_noswap(std::move(data));
    storage.set_nbytes(bytes);
  }
};

const bool registered = [] {
  c10::SetAllocator(kDevice, &Allocator::instance());
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  return true;
}();

} // namespace

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

void set_device_count(int count) {
  TORCH_CHECK(
      0 <= count && count <= kMaxDevices, "simdev has at most ", kMaxDevices, " devices, got ", count);
  devices_of_process = count;
}

DeviceIndex device_count() noexcept {
  return static_cast<DeviceIndex>(devices_of_process.load());
}

DeviceIndex current_device() noexcept {
  return this_device;
}

void set_device(DeviceIndex index) {
  TORCH_CHECK(
      0 <= index && index < device_count(),
      "simdev:", static_cast<int>(index), " does not exist: this process has ",
      static_cast<int>(device_count()), " devices; SIMDEV_COUNT and SIMDEV_VISIBLE_DEVICES set the number");
  this_device = index;
}

at::Tensor host_alias(const at::Tensor& tensor) {
  auto alias = at::from_blob(
      tensor.mutable_data_ptr(), tensor.sizes(), tensor.strides(),
      [tensor](void*) {}, tensor.options().device(at::kCPU).requires_grad(false));
  alias._set_conj(tensor.is_conj());
  alias._set_neg(tensor.is_neg());
  return alias;
}

} // namespace simdev
