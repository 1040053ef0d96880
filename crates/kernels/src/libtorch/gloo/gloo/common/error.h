// As gloo/context.h.

#pragma once
