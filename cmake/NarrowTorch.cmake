# libtorch, for train/ and recipe/ only: Debian's libtorch-dev (1.13), or a newer PyTorch's by
# -DCMAKE_PREFIX_PATH=$(python -c 'import torch; print(torch.utils.cmake_prefix_path)'). Optional: without it there is
# no narrow-train, and `narrow qat` says how to get it.
option(NARROW_TRAIN "Build training if libtorch is found" ON)
if(NARROW_TRAIN AND NOT CMAKE_CROSSCOMPILING)
  find_package(Torch QUIET)
endif()
if(Torch_FOUND)
  message(STATUS "Training with libtorch ${Torch_VERSION} (${TORCH_INSTALL_PREFIX})")
else()
  message(STATUS "No libtorch: training is left out")
endif()

# narrow_torch_tests(<folder>): as narrow_tests, for a folder whose tests use libtorch.
function(narrow_torch_tests name)
  narrow_tests(${name} DEPS io)
  if(TARGET ${name}_tests AND NOT NARROW_UNITY)
    target_precompile_headers(${name}_tests PRIVATE ${PROJECT_SOURCE_DIR}/src/train/torch.h)
  endif()
endfunction()

# Lets a target use libtorch, whose headers are not held to our warnings and cost most of the compile time.
function(narrow_torch target)
  target_include_directories(${target} SYSTEM PUBLIC ${TORCH_INCLUDE_DIRS})
  separate_arguments(flags NATIVE_COMMAND "${TORCH_CXX_FLAGS}")
  target_compile_options(${target} PUBLIC ${flags})
  target_link_libraries(${target} PUBLIC ${TORCH_LIBRARIES})
  # A newer libtorch brings the headers of an fmt of its own, but not its library.
  if(Torch_VERSION VERSION_GREATER_EQUAL 2)
    target_compile_definitions(${target} PUBLIC FMT_HEADER_ONLY)
  endif()
  if(target STREQUAL narrow_train)
    target_precompile_headers(${target} PRIVATE ${PROJECT_SOURCE_DIR}/src/train/torch.h)
  else()
    target_precompile_headers(${target} REUSE_FROM narrow_train)
  endif()
endfunction()
