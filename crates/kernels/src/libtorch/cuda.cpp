// Kernels for NVIDIA GPUs that are compiled at run time, for cuda.rs. NVRTC and the driver are loaded at run time: a machine
// without a GPU has neither, and nothing here needs CUDA's headers.
//
// The functions called have the signatures declared here in CUDA 11.2 to 13.

#include "guarded.h"
#include "loaded.h"

#include <c10/core/Device.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <dlfcn.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

namespace {

// Values of enums of nvrtc.h and cuda.h.
constexpr int SUCCESS = 0;
constexpr int COMPILATION_FAILED = 6; // of a result of NVRTC
constexpr int MAJOR = 75;             // of an attribute of a device: its compute capability
constexpr int MINOR = 76;

// CUDA's name of a stream of torch. Before torch 2.10 only the default stream has one here.
template <typename S>
auto raw(const S &stream, int) -> decltype(stream.native_handle()) {
    return stream.native_handle();
}

template <typename S>
void *raw(const S &stream, long) {
    if (stream.id() != 0) throw std::runtime_error("a stream that is not the default one needs torch 2.10 or later");
    return nullptr;
}

} // namespace

extern "C" {

struct Nvrtc {
    int (*version)(int *major, int *minor);
    const char *(*said)(int result);
    int (*create)(void **program, const char *source, const char *name, int, const char *const *, const char *const *);
    int (*compile)(void *program, int count, const char *const *options);
    int (*log_size)(void *program, size_t *);
    int (*log)(void *program, char *);
    int (*size)(void *program, size_t *);
    int (*image)(void *program, char *);
    int (*destroy)(void **program);

    void check(int result) const {
        if (result != SUCCESS) throw std::runtime_error(said(result));
    }
};

struct Driver {
    int (*said)(int result, const char **);
    int (*init)(unsigned);
    int (*device)(int *, int index);
    int (*attribute)(int *, int attribute, int device);
    int (*retain)(void **context, int device);
    int (*current)(void **context);
    int (*set_current)(void *context);
    int (*load)(void **module, const void *image);
    int (*function)(void **, void *module, const char *name);
    int (*launch)(
        void *function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned shared, void *stream,
        void **arguments, void **);

    void check(int result) const {
        if (result == SUCCESS) return;
        const char *text = nullptr;
        if (said(result, &text) != SUCCESS || !text) text = "an unknown error of CUDA's driver";
        throw std::runtime_error(text);
    }

    // The context that torch uses on a GPU becomes that of the thread.
    void use(int gpu) const {
        int device = 0;
        check(this->device(&device, gpu));
        void *context = nullptr, *now = nullptr;
        check(retain(&context, device)); // until the process ends, as torch does
        check(current(&now));
        if (now != context) check(set_current(context));
    }
};

// Loads NVRTC. It stays loaded until the process ends.
int simmer_nvrtc_load(const char *path, Nvrtc **out, int32_t *version, char *said, size_t room) {
    return guarded(said, room, [&] {
        void *library = opened(path);
        auto nvrtc = std::make_unique<Nvrtc>();
        find(library, path, "nvrtcVersion", nvrtc->version);
        find(library, path, "nvrtcGetErrorString", nvrtc->said);
        find(library, path, "nvrtcCreateProgram", nvrtc->create);
        find(library, path, "nvrtcCompileProgram", nvrtc->compile);
        find(library, path, "nvrtcGetProgramLogSize", nvrtc->log_size);
        find(library, path, "nvrtcGetProgramLog", nvrtc->log);
        find(library, path, "nvrtcGetCUBINSize", nvrtc->size);
        find(library, path, "nvrtcGetCUBIN", nvrtc->image);
        find(library, path, "nvrtcDestroyProgram", nvrtc->destroy);
        int major = 0, minor = 0;
        nvrtc->check(nvrtc->version(&major, &minor));
        version[0] = major;
        version[1] = minor;
        // NVRTC looks for this library by its name, and finds it if it is loaded
        Dl_info info;
        if (dladdr(reinterpret_cast<void *>(nvrtc->version), &info) && info.dli_fname) {
            std::string folder = info.dli_fname;
            folder.resize(folder.rfind('/') == std::string::npos ? 0 : folder.rfind('/') + 1);
            auto name = "libnvrtc-builtins.so." + std::to_string(major) + "." + std::to_string(minor);
            dlopen((folder + name).c_str(), RTLD_NOW | RTLD_LOCAL); // elsewhere, NVRTC says that it is missing
        }
        *out = nvrtc.release();
    });
}

// Compiles a source, and gives the image for a GPU to `take`. If the source has a fault, the exception has its place.
int simmer_nvrtc_compile(
    const Nvrtc *nvrtc, const char *source, const char *name, const char *const *options, int32_t count,
    void (*take)(void *to, const char *image, size_t size), void *to, char *said, size_t room) {
    return guarded(said, room, [&] {
        void *program = nullptr;
        nvrtc->check(nvrtc->create(&program, source, name, 0, nullptr, nullptr));
        auto destroy = [nvrtc](void *program) { nvrtc->destroy(&program); };
        std::unique_ptr<void, decltype(destroy)> owned(program, destroy);
        int result = nvrtc->compile(program, count, options);
        size_t size = 0;
        if (result == COMPILATION_FAILED && nvrtc->log_size(program, &size) == SUCCESS) {
            std::string log(size, '\0');
            nvrtc->check(nvrtc->log(program, log.data()));
            throw std::runtime_error(log);
        }
        nvrtc->check(result);
        nvrtc->check(nvrtc->size(program, &size));
        std::string image(size, '\0');
        nvrtc->check(nvrtc->image(program, image.data()));
        take(to, image.data(), size);
    });
}

// Loads the driver.
int simmer_cuda_load(Driver **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        const char *path = "libcuda.so.1";
        void *library = opened(path);
        auto driver = std::make_unique<Driver>();
        find(library, path, "cuGetErrorString", driver->said);
        find(library, path, "cuInit", driver->init);
        find(library, path, "cuDeviceGet", driver->device);
        find(library, path, "cuDeviceGetAttribute", driver->attribute);
        find(library, path, "cuDevicePrimaryCtxRetain", driver->retain);
        find(library, path, "cuCtxGetCurrent", driver->current);
        find(library, path, "cuCtxSetCurrent", driver->set_current);
        find(library, path, "cuModuleLoadData", driver->load);
        find(library, path, "cuModuleGetFunction", driver->function);
        find(library, path, "cuLaunchKernel", driver->launch);
        driver->check(driver->init(0));
        *out = driver.release();
    });
}

// The compute capability of a GPU: 90 for 9.0.
int simmer_cuda_capability(const Driver *driver, int32_t gpu, int32_t *out, char *said, size_t room) {
    return guarded(said, room, [&] {
        int device = 0, major = 0, minor = 0;
        driver->check(driver->device(&device, gpu));
        driver->check(driver->attribute(&major, MAJOR, device));
        driver->check(driver->attribute(&minor, MINOR, device));
        *out = 10 * major + minor;
    });
}

// Loads an image on a GPU, where it stays until the process ends.
int simmer_cuda_module(const Driver *driver, int32_t gpu, const char *image, void **out, char *said, size_t room) {
    return guarded(said, room, [&] {
        driver->use(gpu);
        driver->check(driver->load(out, image));
    });
}

int simmer_cuda_function(const Driver *driver, void *module, const char *name, void **out, char *said, size_t room) {
    return guarded(said, room, [&] { driver->check(driver->function(out, module, name)); });
}

// Launches a kernel on torch's stream of the GPU.
int simmer_cuda_launch(
    const Driver *driver, int32_t gpu, void *function, const uint32_t *blocks, const uint32_t *threads, uint32_t shared,
    void **arguments, char *said, size_t room) {
    return guarded(said, room, [&] {
        auto device = c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(gpu));
        auto stream = c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).getStream(device);
        void *now = nullptr;
        driver->check(driver->current(&now));
        if (!now) driver->use(gpu);
        driver->check(driver->launch(
            function, blocks[0], blocks[1], blocks[2], threads[0], threads[1], threads[2], shared, raw(stream, 0),
            arguments, nullptr));
    });
}

} // extern "C"
