// What the headers of a newer GCC call, and the C++ library of manylinux_2_28 (GCC 8) does not have.

#include <new>
#include <sstream>

namespace std {

// GCC 11
void __throw_bad_array_new_length() { throw bad_array_new_length(); }

// GCC 9
template basic_ostringstream<char>::basic_ostringstream();

}  // namespace std
