// What Python sees of the extension.
#include "device.h"
#include "simccl.h"

#include <pybind11/chrono.h>
#include <pybind11/functional.h>
#include <torch/csrc/utils/pybind.h>

namespace py = pybind11;

namespace {

using simdev::Simccl;
using simdev::SimcclOptions;
using StorePtr = c10::intrusive_ptr<c10d::Store>;
using OptionsPtr = c10::intrusive_ptr<SimcclOptions>;

void bind_options(py::module_& module) {
  const auto copy = [](const SimcclOptions& options) { return c10::make_intrusive<SimcclOptions>(options); };
  py::class_<SimcclOptions, c10d::Backend::Options, OptionsPtr>(module, "SimcclOptions")
      .def(
          py::init([](simdev::Milliseconds timeout) { return c10::make_intrusive<SimcclOptions>(timeout); }),
          py::arg("timeout"))
      .def("__copy__", copy)
      .def("__deepcopy__", [copy](const SimcclOptions& options, const py::dict&) { return copy(options); });
}

void bind_backend(py::module_& module) {
  const auto make = [](const StorePtr& store, int rank, int size, OptionsPtr options) {
    return c10::make_intrusive<Simccl>(store, rank, size, std::move(options));
  };
  py::class_<Simccl, c10d::Backend, c10::intrusive_ptr<Simccl>>(module, "ProcessGroupSimccl")
      .def(
          py::init(make), py::arg("store"), py::arg("rank"), py::arg("size"), py::arg("options"),
          py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("options", &Simccl::getBackendOptions)
      .def("perform_nocolor_split", &Simccl::perform_nocolor_split, py::arg("device"))
      .def("comm_split_count", &Simccl::split_count);
}

} // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  py::module_::import("torch._C._distributed_c10d");
  bind_options(module);
  bind_backend(module);
  module.def("set_gloo_factory", &simdev::set_gloo_factory, py::arg("factory"));
  module.def("set_device_count", &simdev::set_device_count, py::arg("count"));
  module.def("device_count", [] { return static_cast<int>(simdev::device_count()); });
  module.def("current_device", [] { return static_cast<int>(simdev::current_device()); });
  module.def("set_device", [](int index) { simdev::set_device(static_cast<c10::DeviceIndex>(index)); });
  module.def("default_generator", [](int index) {
    return simdev::default_generator(static_cast<c10::DeviceIndex>(index));
  });
}
