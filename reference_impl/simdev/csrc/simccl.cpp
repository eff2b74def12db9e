// The life of a simccl group: made, split, aborted; and its messages between two ranks.
#include "simccl.h"

#include "device.h"
#include "staging.h"
#include "work.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include <algorithm>
#include <thread>

namespace simdev {
namespace {

// Torch's own messages have the tags of their callers, 0 as a rule.
constexpr int kAskTag = 1 << 30;
constexpr int kAnswerTag = kAskTag + 1;

GlooFactory& gloo_factory() {
  static auto* factory = new GlooFactory; // holds a Python object, which must not be freed at exit
  return *factory;
}

} // namespace

void set_gloo_factory(GlooFactory factory) {
  gloo_factory() = std::move(factory);
}

Simccl::Simccl(
    const c10::intrusive_ptr<Store>& store, int rank, int size, c10::intrusive_ptr<SimcclOptions> options)
    : Backend(rank, size),
      options_(std::move(options)),
      gloo_(gloo_factory()(store, rank, size, options_->timeout)) {}

void Simccl::setTimeout(Milliseconds timeout) {
  options_->timeout = timeout;
  gloo().setTimeout(timeout);
}

// ---- coalescing ----

// What is called in between starts at once: gloo has nothing to gain from waiting.
void Simccl::startCoalescing() {
  TORCH_CHECK(!coalesced_.has_value(), "simccl is coalescing already: end that first");
  coalesced_.emplace();
}

WorkPtr Simccl::endCoalescing() {
  TORCH_CHECK(coalesced_.has_value(), "simccl is not coalescing: start that first");
  auto works = std::move(*coalesced_);
  coalesced_.reset();
  if (std::exchange(batch_has_messages_, false)) {
    make_communicator();
  }
  wait_for_connections();
  return coalesced_work(std::move(works));
}

// ---- messages ----

WorkPtr Simccl::send(Tensors& tensors, int target, int tag) {
  Tensors bytes{message_bytes(tensors)};
  connect(target, /*sending=*/true);
  return message(gloo().send(bytes, target, tag));
}

WorkPtr Simccl::recv(Tensors& tensors, int source, int tag) {
  Tensors bytes{message_bytes(tensors)};
  connect(source, /*sending=*/false);
  return message(gloo().recv(bytes, source, tag));
}

WorkPtr Simccl::recvAnysource(Tensors& tensors, int tag) {
  TORCH_CHECK(
      static_cast<int>(sources_.size()) == size_,
      "simccl receives from any rank once all ranks are connected: call all_to_all_single first");
  Tensors bytes{message_bytes(tensors)};
  return message(gloo().recvAnysource(bytes, tag));
}

// As NCCL does: messages in a batch use the communicator of the group, which all members make together.
void Simccl::make_communicator() {
  if (!std::exchange(has_communicator_, true) && !getBoundDeviceId()) {
    gloo().barrier({})->wait();
  }
}

// As NCCL does: the first message in a direction waits, on the sender too, until both are in their calls.
void Simccl::connect(int peer, bool sending) {
  batch_has_messages_ = coalesced_.has_value();
  auto& connected = sending ? targets_ : sources_;
  if (!connected.insert(peer).second) {
    return;
  }
  Tensors own{at::zeros({1}, at::kByte)};
  Tensors other{at::zeros({1}, at::kByte)};
  connecting_.push_back(gloo().send(own, peer, sending ? kAskTag : kAnswerTag));
  connecting_.push_back(gloo().recv(other, peer, sending ? kAnswerTag : kAskTag));
  if (!coalesced_.has_value()) {
    wait_for_connections();
  }
}

void Simccl::wait_for_connections() {
  for (const auto& work : std::exchange(connecting_, {})) {
    work->wait();
  }
}

// What every rank exchanges with every other connects them all.
void Simccl::connect_all() {
  for (int peer = 0; peer < size_; ++peer) {
    targets_.insert(peer);
    sources_.insert(peer);
  }
}

at::Tensor Simccl::message_bytes(const Tensors& tensors) const {
  const Staged tensor(single(tensors));
  TORCH_CHECK(!tensor.copied, "simccl sends and receives contiguous tensors: call contiguous() first");
  return tensor.bytes();
}

// ---- life cycle ----

c10::intrusive_ptr<Backend> Simccl::split(
    const c10::intrusive_ptr<Store>& store, const std::vector<int>& ranks,
    const c10::intrusive_ptr<Backend::Options>& opts) {
  gloo();
  const auto own = std::find(ranks.begin(), ranks.end(), rank_);
  if (own == ranks.end()) {
    return {};
  }
  ++split_count_;
  auto options = c10::make_intrusive<SimcclOptions>(opts ? opts->timeout : options_->timeout);
  if (opts) {
    options->group_name = opts->group_name;
  }
  const auto& of_parent = options_->global_ranks_in_group; // empty: all ranks of the world
  for (const int rank : ranks) {
    options->global_ranks_in_group.push_back(of_parent.empty() ? rank : of_parent.at(rank));
  }
  // torch gives the backends of all devices one store, where gloo's keys for the CPU are as well.
  auto own_store = c10::make_intrusive<c10d::PrefixStore>("simccl/", store);
  auto child = c10::make_intrusive<Simccl>(
      own_store, static_cast<int>(own - ranks.begin()), static_cast<int>(ranks.size()), options);
  child->has_communicator_ = true;
  return child;
}

void Simccl::eagerConnectSingleDevice(at::Device device) {
  TORCH_CHECK(device.type() == kDevice, "simccl connects simdev devices, got ", device);
}

void Simccl::perform_nocolor_split(at::Device device) {
  eagerConnectSingleDevice(device);
}

void Simccl::setSequenceNumberForGroup() {
  gloo().setSequenceNumberForGroup();
}

uint64_t Simccl::getSequenceNumberForGroup() {
  return gloo().getSequenceNumberForGroup();
}

void Simccl::abort() {
  for (const auto& weak : std::exchange(pending_, {})) {
    if (auto work = weak.lock()) {
      work->abort();
    }
  }
  // gloo's destructor waits for its running operations, at most until their timeout.
  std::thread([gloo = std::exchange(gloo_, {})]() mutable { gloo.reset(); }).detach();
}

// ---- helpers ----

Backend& Simccl::gloo() const {
  TORCH_CHECK(
      gloo_, "the simccl communicator was aborted: destroy the process group and make a new one");
  return *gloo_;
}

void Simccl::require_bound_device(const at::Tensor& tensor) const {
  const auto bound = getBoundDeviceId();
  TORCH_CHECK(
      !bound || tensor.device().type() != kDevice || *bound == tensor.device(),
      "this simccl group is bound to ", *bound, ", got a tensor on ", tensor.device());
}

const at::Tensor& Simccl::single(const Tensors& tensors) const {
  TORCH_CHECK(tensors.size() == 1, "simccl takes one tensor of each rank, got ", tensors.size());
  require_bound_device(tensors[0]);
  return tensors[0];
}

WorkPtr Simccl::launched(WorkPtr work) {
  const auto done = [](const auto& weak) {
    const auto one = weak.lock();
    return !one || one->isCompleted();
  };
  pending_.erase(std::remove_if(pending_.begin(), pending_.end(), done), pending_.end());
  pending_.emplace_back(work);
  if (coalesced_.has_value()) {
    coalesced_->push_back(work);
  }
  return work;
}

WorkPtr Simccl::collective(
    c10d::OpType type, const WorkPtr& inner, Tensors results, std::function<void()> write_back) {
  has_communicator_ = true;
  return launched(collective_work(rank_, type, inner, std::move(results), std::move(write_back)));
}

WorkPtr Simccl::message(const WorkPtr& inner) {
  return launched(message_work(inner));
}

} // namespace simdev
