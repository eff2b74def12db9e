// The process-group backend of simdev: every collective of torch, over gloo on host aliases.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <functional>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

namespace simdev {

using c10d::Backend;
using c10d::Store;
using c10d::Work;
using Milliseconds = std::chrono::milliseconds;
using Tensors = std::vector<at::Tensor>;
using WorkPtr = c10::intrusive_ptr<Work>;

constexpr const char* kSimccl = "simccl";

struct SimcclOptions : Backend::Options {
  explicit SimcclOptions(Milliseconds timeout) : Backend::Options(kSimccl, timeout) {}
};

// Makes a gloo backend. Wheels of torch ship no headers of gloo, so Python makes it.
using GlooFactory = std::function<c10::intrusive_ptr<Backend>(
    const c10::intrusive_ptr<Store>&, int rank, int size, Milliseconds timeout)>;

// Sets what makes the inner backends of this process; it lives until the process ends.
void set_gloo_factory(GlooFactory factory);

// Tensors must be strided and on simdev. Collectives take any strides; sends and receives want contiguous
// tensors. Calls that gloo would get wrong or that would leave the group unusable raise before any traffic.
class Simccl final : public Backend {
 public:
  Simccl(
      const c10::intrusive_ptr<Store>& store, int rank, int size,
      c10::intrusive_ptr<SimcclOptions> options);

  const std::string getBackendName() const override {
    return kSimccl;
  }
  c10::intrusive_ptr<Backend::Options> getBackendOptions() override {
    return options_;
  }
  bool supportsSplitting() const override {
    return true;
  }
  bool supportsCoalescing() const override {
    return true;
  }
  void setTimeout(Milliseconds timeout) override;

  WorkPtr broadcast(Tensors& tensors, const c10d::BroadcastOptions& opts) override;
  WorkPtr allreduce(Tensors& tensors, const c10d::AllreduceOptions& opts) override;
  WorkPtr allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& opts) override;
  WorkPtr reduce(Tensors& tensors, const c10d::ReduceOptions& opts) override;
  WorkPtr allgather(
      std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) override;
  WorkPtr _allgather_base(at::Tensor& output, at::Tensor& input, const c10d::AllgatherOptions& opts) override;
  WorkPtr allgather_coalesced(
      std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) override;
  WorkPtr allgather_into_tensor_coalesced(
      Tensors& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) override;
  WorkPtr gather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::GatherOptions& opts) override;
  WorkPtr scatter(Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ScatterOptions& opts) override;
  WorkPtr reduce_scatter(
      Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ReduceScatterOptions& opts) override;
  WorkPtr _reduce_scatter_base(
      at::Tensor& output, at::Tensor& input, const c10d::ReduceScatterOptions& opts) override;
  WorkPtr reduce_scatter_tensor_coalesced(
      Tensors& outputs, Tensors& inputs, const c10d::ReduceScatterOptions& opts) override;
  WorkPtr alltoall_base(
      at::Tensor& output, at::Tensor& input, std::vector<int64_t>& output_sizes,
      std::vector<int64_t>& input_sizes, const c10d::AllToAllOptions& opts) override;
  WorkPtr alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& opts) override;
  WorkPtr barrier(const c10d::BarrierOptions& opts) override;
  void monitoredBarrier(const c10d::BarrierOptions& opts, bool wait_all_ranks) override;

  WorkPtr send(Tensors& tensors, int target, int tag) override;
  WorkPtr recv(Tensors& tensors, int source, int tag) override;
  WorkPtr recvAnysource(Tensors& tensors, int tag) override;

  void startCoalescing() override;
  WorkPtr endCoalescing() override;

  void setSequenceNumberForGroup() override;
  uint64_t getSequenceNumberForGroup() override;

  // Every member of `ranks`, which are ranks of this group, gets the child; others get nullptr.
  c10::intrusive_ptr<Backend> split(
      const c10::intrusive_ptr<Store>& store, const std::vector<int>& ranks,
      const c10::intrusive_ptr<Backend::Options>& opts) override;
  void eagerConnectSingleDevice(at::Device device) override;
  // What torch calls on ranks outside of a new group, and how many children this rank has joined.
  void perform_nocolor_split(at::Device device);
  uint64_t split_count() const {
    return split_count_;
  }

  // Ends pending operations with an error, and refuses new ones. Peers go by their own timeouts.
  void abort() override;

 private:
  Backend& gloo() const;
  void require_bound_device(const at::Tensor& tensor) const;
  const at::Tensor& single(const Tensors& tensors) const;
  WorkPtr launched(WorkPtr work);
  WorkPtr collective(
      c10d::OpType type, const WorkPtr& inner, Tensors results, std::function<void()> write_back = {});
  WorkPtr summed_part(
      c10d::OpType type, const at::Tensor& numbers, int64_t start, int64_t length, const at::Tensor& output,
      const c10d::ReduceScatterOptions& opts);
  WorkPtr message(const WorkPtr& inner);
  void connect(int peer, bool sending);
  void connect_all();
  void make_communicator();
  void wait_for_connections();
  at::Tensor message_bytes(const Tensors& tensors) const;

  c10::intrusive_ptr<SimcclOptions> options_;
  c10::intrusive_ptr<Backend> gloo_;
  std::vector<c10::weak_intrusive_ptr<Work>> pending_;
  std::optional<std::vector<WorkPtr>> coalesced_;
  std::unordered_set<int> targets_; // of messages, and their sources: the ranks with a connection
  std::unordered_set<int> sources_;
  std::vector<WorkPtr> connecting_;
  bool has_communicator_ = false; // of all members, which their first collective makes
  bool batch_has_messages_ = false;
  uint64_t split_count_ = 0;
};

} // namespace simdev
