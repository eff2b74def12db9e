// What a caller waits for: one operation of gloo, or several as one.
#pragma once

#include "simccl.h"

namespace simdev {

// A collective: done when gloo is done and its results are in the device's tensors.
WorkPtr collective_work(
    int rank, c10d::OpType type, const WorkPtr& inner, Tensors results, std::function<void()> write_back);

// A send or receive, which gloo completes only while somebody waits.
WorkPtr message_work(const WorkPtr& inner);

WorkPtr coalesced_work(std::vector<WorkPtr> parts);

} // namespace simdev
