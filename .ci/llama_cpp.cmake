# Read by CMake inside llama-cpp-python's project(), before it adds llama.cpp.
#
# llama-cpp-python asks for llama.cpp's `common` library, which nothing in its package loads and which takes a quarter of
# the compile time. A normal variable wins over the cache entry that it forces (policy CMP0126, CMake 3.21).
set(LLAMA_BUILD_COMMON OFF)
# A wheel cannot hold symbolic links: with version numbers every library would be in it three times.
set(CMAKE_PLATFORM_NO_VERSIONED_SONAME ON)
