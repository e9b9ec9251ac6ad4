# narrow_layer(<folder> [COLD] [WITHOUT <file>...] [DEPS <folder>...] [LINK <target>...])
# One static library per folder of src/. DEPS are the only folders whose headers it may include;
# scripts/check_layers.py reads the same lines and fails on any other include.
add_library(narrow_flags INTERFACE)
target_compile_options(narrow_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor
  # Bit-for-bit results across compilers and ISAs: no silent fused multiply-add.
  -ffp-contract=off -fno-math-errno -fno-trapping-math
  # gcc 12 sees overlaps in std::string that are not there (its bug 105651).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(NARROW_WERROR)
  target_compile_options(narrow_flags INTERFACE -Werror)
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  # The oldest x86 machine served has AVX2; newer instructions live in src/kernels/<isa> only.
  target_compile_options(narrow_flags INTERFACE -march=x86-64-v3)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  target_compile_options(narrow_flags INTERFACE -march=armv8.2-a+dotprod+fp16)
endif()
if(NARROW_SANITIZE)
  # What is tested is instrumented; the tests themselves, a third of the compile time, are not.
  set(instrumented $<NOT:$<BOOL:$<TARGET_PROPERTY:NARROW_TEST>>>)
  target_compile_options(narrow_flags INTERFACE
    $<${instrumented}:-fsanitize=${NARROW_SANITIZE}> $<${instrumented}:-fno-omit-frame-pointer>
    $<${instrumented}:-fno-sanitize-recover=all>
    # What the address sanitizer finds as well costs an eighth of the compile time.
    $<${instrumented}:-fno-sanitize=null$<COMMA>object-size$<COMMA>vptr>)
  target_link_options(narrow_flags INTERFACE -fsanitize=${NARROW_SANITIZE})
endif()
target_include_directories(narrow_flags INTERFACE ${PROJECT_SOURCE_DIR}/include)

# For a build from nothing: several files of a folder in one compilation, so that headers and their templates are
# compiled once. Half of the time; after a change the build without it is the quicker one.
option(NARROW_UNITY "Compile several source files together" OFF)
function(narrow_unity target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${NARROW_UNITY} UNITY_BUILD_BATCH_SIZE 20)
endfunction()

# narrow_alone(<file>...): files whose names would meet those of their neighbours.
function(narrow_alone)
  set_source_files_properties(${ARGN} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

# What computes nothing: -O1, a third of the compile time less.
function(narrow_cold target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
endfunction()

function(narrow_layer name)
  cmake_parse_arguments(ARG "COLD" "" "WITHOUT;DEPS;LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS *.cc)
  foreach(file ${ARG_WITHOUT})
    list(REMOVE_ITEM sources ${CMAKE_CURRENT_SOURCE_DIR}/${file})
  endforeach()
  if(sources)
    add_library(narrow_${name} STATIC ${sources})
    narrow_unity(narrow_${name})
    if(ARG_COLD)
      narrow_cold(narrow_${name})
    endif()
    set(scope PUBLIC)
  else()
    add_library(narrow_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_link_libraries(narrow_${name} ${scope} narrow_flags)
  target_include_directories(narrow_${name} ${scope} ${PROJECT_SOURCE_DIR}/src)
  foreach(dep ${ARG_DEPS})
    target_link_libraries(narrow_${name} ${scope} narrow_${dep})
  endforeach()
  target_link_libraries(narrow_${name} ${scope} ${ARG_LINK})
endfunction()

# narrow_tests(<folder> [DEPS <folder>...]): every *_test.cc of tests/<folder> in one executable.
function(narrow_tests name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS *_test.cc)
  if(NOT sources)
    return()
  endif()
  add_executable(${name}_tests ${sources})
  narrow_unity(${name}_tests)
  set_target_properties(${name}_tests PROPERTIES NARROW_TEST ON)
  target_link_libraries(${name}_tests PRIVATE narrow_flags narrow_testing GTest::gtest GTest::gtest_main)
  # What is tested is optimised; the tests themselves are compiled once and run once.
  target_compile_options(${name}_tests PRIVATE $<$<CONFIG:Release>:-O1> $<$<CONFIG:Debug>:-O0>)
  if(TARGET narrow_${name})
    target_link_libraries(${name}_tests PRIVATE narrow_${name})
  endif()
  foreach(dep ${ARG_DEPS})
    target_link_libraries(${name}_tests PRIVATE narrow_${dep})
  endforeach()
  include(GoogleTest)
  gtest_discover_tests(${name}_tests DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 600)
endfunction()
