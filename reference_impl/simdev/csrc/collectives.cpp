// The collectives of simccl: each stages its tensors, lets gloo work on host memory, and writes results back.
#include "simccl.h"

#include "staging.h"
#include "work.h"

#include <algorithm>
#include <numeric>

namespace simdev {
namespace {

std::vector<Staged> staged(const Tensors& tensors) {
  return {tensors.begin(), tensors.end()};
}

std::vector<Staged> staged_outputs(const Tensors& tensors) {
  std::vector<Staged> all;
  std::transform(tensors.begin(), tensors.end(), std::back_inserter(all), staged_output);
  return all;
}

Tensors bytes_of(const std::vector<Staged>& all) {
  Tensors bytes;
  std::transform(all.begin(), all.end(), std::back_inserter(bytes), [](auto& one) { return one.bytes(); });
  return bytes;
}

std::function<void()> writing_back(std::vector<Staged> all) {
  return [all = std::move(all)] {
    for (const auto& one : all) {
      one.write_back();
    }
  };
}

void require_same_dtype(const Tensors& tensors, const at::Tensor& like) {
  for (const auto& tensor : tensors) {
    TORCH_CHECK(
        tensor.scalar_type() == like.scalar_type(), "simccl needs tensors of one dtype, got ",
        tensor.scalar_type(), " and ", like.scalar_type());
  }
}

std::vector<int64_t> sizes_of(const Tensors& tensors) {
  std::vector<int64_t> sizes;
  for (const auto& tensor : tensors) {
    sizes.push_back(tensor.numel());
  }
  return sizes;
}

} // namespace

WorkPtr Simccl::broadcast(Tensors& tensors, const c10d::BroadcastOptions& opts) {
  const Staged tensor = staged_output(single(tensors));
  Tensors bytes{tensor.bytes()};
  return collective(
      c10d::OpType::BROADCAST, gloo().broadcast(bytes, opts), tensors, writing_back({tensor}));
}

WorkPtr Simccl::allreduce(Tensors& tensors, const c10d::AllreduceOptions& opts) {
  const Staged tensor = staged_output(single(tensors));
  auto reducing = opts;
  reducing.reduceOp = reduction_of(opts.reduceOp, tensor.host.scalar_type());
  Tensors numbers{tensor.numbers()};
  return collective(
      c10d::OpType::ALLREDUCE, gloo().allreduce(numbers, reducing), tensors, writing_back({tensor}));
}

WorkPtr Simccl::reduce(Tensors& tensors, const c10d::ReduceOptions& opts) {
  Staged tensor = staged_output(single(tensors));
  auto reducing = opts;
  reducing.reduceOp = reduction_of(opts.reduceOp, tensor.host.scalar_type());
  const bool is_root = opts.rootRank == rank_;
  if (!is_root) {
    tensor.detach(); // gloo leaves partial sums in it
  }
  Tensors numbers{tensor.numbers()};
  return collective(
      c10d::OpType::REDUCE, gloo().reduce(numbers, reducing), tensors,
      is_root ? writing_back({tensor}) : nullptr);
}

WorkPtr Simccl::allgather(
    std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) {
  const Staged input(single(inputs));
  TORCH_CHECK(outputs.size() == 1, "simccl gathers into one list of tensors, got ", outputs.size());
  require_same_dtype(outputs[0], input.device);
  const auto parts = staged_outputs(outputs[0]);
  std::vector<Tensors> output_bytes{bytes_of(parts)};
  Tensors input_bytes{input.bytes()};
  return collective(
      c10d::OpType::ALLGATHER, gloo().allgather(output_bytes, input_bytes, opts), outputs[0],
      writing_back(parts));
}

WorkPtr Simccl::_allgather_base(
    at::Tensor& output, at::Tensor& input, const c10d::AllgatherOptions& opts) {
  require_bound_device(input);
  require_same_dtype({output}, input);
  TORCH_CHECK(
      output.numel() == input.numel() * size_, "simccl gathers ", input.numel(), " elements of each of ",
      size_, " ranks, got an output of ", output.numel());
  const Staged whole = staged_output(output);
  auto output_bytes = whole.bytes();
  auto input_bytes = Staged(input).bytes();
  return collective(
      c10d::OpType::_ALLGATHER_BASE, gloo()._allgather_base(output_bytes, input_bytes, opts), {output},
      writing_back({whole}));
}

WorkPtr Simccl::gather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::GatherOptions& opts) {
  const Staged input(single(inputs));
  const Tensors targets = outputs.empty() ? Tensors{} : outputs[0];
  require_same_dtype(targets, input.device);
  const auto parts = staged_outputs(targets);
  std::vector<Tensors> output_bytes;
  if (!outputs.empty()) {
    output_bytes.push_back(bytes_of(parts));
  }
  Tensors input_bytes{input.bytes()};
  return collective(
      c10d::OpType::GATHER, gloo().gather(output_bytes, input_bytes, opts), targets, writing_back(parts));
}

WorkPtr Simccl::scatter(Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ScatterOptions& opts) {
  const Staged output = staged_output(single(outputs));
  std::vector<Tensors> input_bytes;
  if (!inputs.empty()) {
    require_same_dtype(inputs[0], output.device);
    input_bytes.push_back(bytes_of(staged(inputs[0])));
  }
  Tensors output_bytes{output.bytes()};
  return collective(
      c10d::OpType::SCATTER, gloo().scatter(output_bytes, input_bytes, opts), outputs,
      writing_back({output}));
}

WorkPtr Simccl::reduce_scatter(
    Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ReduceScatterOptions& opts) {
  TORCH_CHECK(
      inputs.size() == 1 && inputs[0].size() == static_cast<size_t>(size_),
      "simccl scatters one tensor to each of ", size_, " ranks, got ",
      inputs.empty() ? 0 : inputs[0].size());
  Tensors parts;
  for (const auto& part : inputs[0]) {
    require_bound_device(part);
    parts.push_back(Staged(part).numbers().view({-1}));
  }
  require_same_dtype(inputs[0], single(outputs));
  const auto own = parts.begin() + rank_;
  const int64_t start = std::accumulate(
      parts.begin(), own, int64_t{0}, [](int64_t sum, auto& part) { return sum + part.numel(); });
  return summed_part(c10d::OpType::REDUCE_SCATTER, at::cat(parts), start, own->numel(), outputs[0], opts);
}

WorkPtr Simccl::_reduce_scatter_base(
    at::Tensor& output, at::Tensor& input, const c10d::ReduceScatterOptions& opts) {
  require_bound_device(input);
  require_bound_device(output);
  require_same_dtype({output}, input);
  TORCH_CHECK(
      input.numel() == output.numel() * size_, "simccl scatters ", output.numel(), " elements to each of ",
      size_, " ranks, got an input of ", input.numel());
  return summed_part(
      c10d::OpType::_REDUCE_SCATTER_BASE, Staged(input).numbers().view({-1}).clone(), rank_ * output.numel(),
      output.numel(), output, opts);
}

// gloo's own reduce-scatter is an all-reduce too, but one that finishes only in wait().
WorkPtr Simccl::summed_part(
    c10d::OpType type, const at::Tensor& numbers, int64_t start, int64_t length, const at::Tensor& output,
    const c10d::ReduceScatterOptions& opts) {
  const Staged part = staged_output(output);
  TORCH_CHECK(
      part.host.numel() == length, "simccl scatters ", length, " elements to this rank, got an output of ",
      part.host.numel());
  c10d::AllreduceOptions reducing;
  reducing.reduceOp = reduction_of(opts.reduceOp, part.host.scalar_type());
  reducing.timeout = opts.timeout;
  Tensors all{numbers};
  const auto write_back = [=] {
    part.numbers().view({-1}).copy_(numbers.narrow(0, start, length));
    part.write_back();
  };
  return collective(type, gloo().allreduce(all, reducing), {output}, write_back);
}

WorkPtr Simccl::alltoall_base(
    at::Tensor& output, at::Tensor& input, std::vector<int64_t>& output_sizes,
    std::vector<int64_t>& input_sizes, const c10d::AllToAllOptions& opts) {
  require_bound_device(input);
  require_bound_device(output);
  require_same_dtype({output}, input);
  c10d::checkSplitSizes(input_sizes, input, size_);
  c10d::checkSplitSizes(output_sizes, output, size_);
  const Staged received = staged_output(output);
  auto output_rows = received.byte_rows();
  auto input_rows = Staged(input).byte_rows();
  connect_all();
  return collective(
      c10d::OpType::ALLTOALL_BASE,
      gloo().alltoall_base(output_rows, input_rows, output_sizes, input_sizes, opts), {output},
      writing_back({received}));
}

WorkPtr Simccl::alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& opts) {
  const auto n = static_cast<size_t>(size_);
  TORCH_CHECK(
      inputs.size() == n && outputs.size() == n, "simccl needs ", n, " inputs and outputs, got ",
      inputs.size(), " and ", outputs.size());
  std::for_each(inputs.begin(), inputs.end(), [&](auto& tensor) { require_bound_device(tensor); });
  std::for_each(outputs.begin(), outputs.end(), [&](auto& tensor) { require_bound_device(tensor); });
  const auto parts = staged_outputs(outputs);
  const Tensors output_bytes = bytes_of(parts);
  const Tensors input_bytes = bytes_of(staged(inputs));
  auto output_sizes = sizes_of(output_bytes);
  auto input_sizes = sizes_of(input_bytes);
  auto sent = at::cat(input_bytes);
  auto received = at::cat(output_bytes);
  connect_all();
  const auto write_back = [=] {
    const auto pieces = received.split_with_sizes(output_sizes);
    for (size_t i = 0; i < pieces.size(); ++i) {
      output_bytes[i].copy_(pieces[i]);
      parts[i].write_back();
    }
  };
  return collective(
      c10d::OpType::ALLTOALL, gloo().alltoall_base(received, sent, output_sizes, input_sizes, opts), outputs,
      write_back);
}

WorkPtr Simccl::barrier(const c10d::BarrierOptions& opts) {
  return collective(c10d::OpType::BARRIER, gloo().barrier(opts), {});
}

void Simccl::monitoredBarrier(const c10d::BarrierOptions& opts, bool wait_all_ranks) {
  gloo().monitoredBarrier(opts, wait_all_ranks);
}

// ---- several as one ----

WorkPtr Simccl::allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& opts) {
  std::vector<WorkPtr> works;
  for (const auto& tensor : tensors) {
    Tensors one{tensor};
    works.push_back(allreduce(one, opts));
  }
  return coalesced_work(works);
}

WorkPtr Simccl::allgather_coalesced(
    std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) {
  std::vector<WorkPtr> works;
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::vector<Tensors> one_output(1);
    for (const auto& of_rank : outputs) {
      one_output[0].push_back(of_rank.at(i));
    }
    Tensors one_input{inputs[i]};
    works.push_back(allgather(one_output, one_input, opts));
  }
  return coalesced_work(works);
}

WorkPtr Simccl::allgather_into_tensor_coalesced(
    Tensors& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) {
  std::vector<WorkPtr> works;
  for (size_t i = 0; i < inputs.size(); ++i) {
    works.push_back(_allgather_base(outputs.at(i), inputs[i], opts));
  }
  return coalesced_work(works);
}

WorkPtr Simccl::reduce_scatter_tensor_coalesced(
    Tensors& outputs, Tensors& inputs, const c10d::ReduceScatterOptions& opts) {
  std::vector<WorkPtr> works;
  for (size_t i = 0; i < inputs.size(); ++i) {
    works.push_back(_reduce_scatter_base(outputs.at(i), inputs[i], opts));
  }
  return coalesced_work(works);
}

} // namespace simdev
