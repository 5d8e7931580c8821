#include "core/failure.h"

#include <c10/util/Exception.h>

#include <exception>
#include <new>

#include "core/error.h"
#include "kernels/gpu_device.h"

namespace archer {

Failure current_failure() {
  try {
    throw;
  } catch (const ArcherError& error) {
    return {error.code(), error.what(), ""};
  } catch (const DeviceError& error) {
    return {error.kind() == DeviceError::Kind::out_of_memory ? kOom : kDevice, error.what(), ""};
  } catch (const c10::OutOfMemoryError& error) {
    return {kOom, error.what_without_backtrace(), ""};
  } catch (const c10::Error& error) {
    const std::string message = error.what_without_backtrace();
    // the CPU allocator reports exhaustion as a plain c10::Error
    const bool out_of_memory = message.find("can't allocate memory") != std::string::npos;
    return {out_of_memory ? kOom : kInternal, message, error.what()};
  } catch (const std::bad_alloc&) {
    return {kOom, "out of memory", ""};
  } catch (const std::exception& error) {
    return {kInternal, error.what(), ""};
  } catch (...) {
    return {kInternal, "an exception that is no std::exception", ""};
  }
}

}  // namespace archer
