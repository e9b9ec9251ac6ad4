# Cross-compiles for 64-bit ARM with Debian's compiler and its multiarch packages; tests run under qemu-user.
# scripts/lib/common.sh lists the packages (CROSS_PACKAGES).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

# Headers and CMake packages without machine code (nlohmann_json, CLI11) are shared with the host.
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(ENV{PKG_CONFIG_LIBDIR} /usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig)
# Debian's libdnnl-dev cannot be installed for two architectures; its headers serve both.
set(DNNL_LIBRARY /usr/lib/aarch64-linux-gnu/libdnnl.so.2 CACHE FILEPATH "oneDNN for arm64 (libdnnl2:arm64)")

# The most capable processor that qemu knows; scripts/lib/arm64.sh also runs an older one.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64;-cpu;max)
