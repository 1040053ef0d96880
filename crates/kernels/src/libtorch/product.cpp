// A matrix multiplication with a factor, for product.rs. torch-sys binds none of those with factors.
//
// It has the signature used here in torch 2.9 to 2.11.

#include "guarded.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>

using at::Tensor;

extern "C" {

// out = factor * a b. The elements of out are not read.
int simmer_scaled_product(Tensor *out, const Tensor *a, const Tensor *b, double factor, char *said, size_t room) {
    return guarded(said, room, [&] { at::addmm_out(*out, *out, *a, *b, /*beta=*/0, /*alpha=*/factor); });
}

} // extern "C"
