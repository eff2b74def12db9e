#include "work.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/ivalue.h>

#include <algorithm>
#include <atomic>

namespace simdev {
namespace {

using c10::ivalue::Future;

constexpr const char* kAborted =
    "the simccl communicator was aborted: destroy the process group and make a new one";

c10::TypePtr tensor_list() {
  return c10::ListType::create(c10::TensorType::get());
}

// A future takes tensors of the devices that it knows of.
std::vector<c10::Device> devices_of(const Tensors& tensors) {
  std::vector<c10::Device> devices;
  for (const auto& tensor : tensors) {
    devices.push_back(tensor.device());
  }
  return devices;
}

class CollectiveWork final : public Work {
 public:
  CollectiveWork(int rank, c10d::OpType type, WorkPtr inner, Tensors results)
      : Work(rank, type),
        inner_(std::move(inner)),
        results_(std::move(results)),
        future_(c10::make_intrusive<Future>(tensor_list(), devices_of(results_))) {}

  Tensors result() override {
    return results_;
  }
  c10::intrusive_ptr<Future> getFuture() override {
    return future_;
  }
  uint64_t getSequencenumber() const override {
    return inner_->getSequencenumber();
  }
  void abort() override {
    complete(std::make_exception_ptr(std::runtime_error(kAborted)));
  }
  // The first to come, gloo or abort, decides.
  void complete(const std::exception_ptr& error) {
    {
      const std::lock_guard<std::mutex> lock(decision_);
      if (std::exchange(decided_, true)) {
        return;
      }
    }
    if (error) {
      future_->setError(error);
    } else {
      future_->markCompleted(results_);
    }
    finish(error);
  }

 private:
  WorkPtr inner_;
  Tensors results_;
  c10::intrusive_ptr<Future> future_;
  std::mutex decision_;
  bool decided_ = false;
};

class MessageWork final : public Work {
 public:
  explicit MessageWork(WorkPtr inner) : inner_(std::move(inner)) {}

  bool isCompleted() override {
    return inner_->isCompleted();
  }
  bool isSuccess() const override {
    return inner_->isSuccess();
  }
  int sourceRank() const override {
    return inner_->sourceRank();
  }
  bool wait(Milliseconds timeout) override {
    if (!done_) { // gloo would wait for another message
      TORCH_CHECK(!aborted_ && inner_->wait(timeout) && !aborted_, kAborted);
      done_ = true;
    }
    return true;
  }
  void abort() override {
    aborted_ = true;
    inner_->abort();
  }

 private:
  WorkPtr inner_;
  std::atomic<bool> aborted_{false};
  std::atomic<bool> done_{false};
};

class CoalescedWork final : public Work {
 public:
  explicit CoalescedWork(std::vector<WorkPtr> parts)
      : Work(-1, c10d::OpType::COALESCED), parts_(std::move(parts)) {}

  bool isCompleted() override {
    return std::all_of(parts_.begin(), parts_.end(), [](auto& part) { return part->isCompleted(); });
  }
  bool isSuccess() const override {
    return std::all_of(parts_.begin(), parts_.end(), [](auto& part) { return part->isSuccess(); });
  }
  bool wait(Milliseconds timeout) override {
    for (auto& part : parts_) {
      part->wait(timeout);
    }
    return true;
  }
  void abort() override {
    for (auto& part : parts_) {
      part->abort();
    }
  }
  Tensors result() override {
    Tensors all;
    for (auto& part : parts_) {
      const auto some = part->result();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }
  c10::intrusive_ptr<Future> getFuture() override {
    c10::List<c10::intrusive_ptr<Future>> futures(c10::FutureType::create(tensor_list()));
    for (auto& part : parts_) {
      futures.push_back(part->getFuture());
    }
    return c10::collectAll(futures)->then(
        [results = result()](Future& done) {
          done.value(); // raises the error of a part
          return results;
        },
        tensor_list());
  }

 private:
  std::vector<WorkPtr> parts_;
};

} // namespace

WorkPtr collective_work(
    int rank, c10d::OpType type, const WorkPtr& inner, Tensors results, std::function<void()> write_back) {
  auto work = c10::make_intrusive<CollectiveWork>(rank, type, inner, std::move(results));
  inner->getFuture()->addCallback([work, write_back = std::move(write_back)](Future& done) {
    std::exception_ptr error = done.exception_ptr();
    // gloo's threads are never in inference mode, outside of which torch lets nobody write to its tensors.
    const at::AutoDispatchBelowADInplaceOrView written_as_by_a_device;
    try {
      if (!error && write_back) {
        write_back();
      }
    } catch (...) {
      error = std::current_exception();
    }
    work->complete(error);
  });
  return work;
}

WorkPtr message_work(const WorkPtr& inner) {
  return c10::make_intrusive<MessageWork>(inner);
}

WorkPtr coalesced_work(std::vector<WorkPtr> parts) {
  return c10::make_intrusive<CoalescedWork>(std::move(parts));
}

} // namespace simdev
