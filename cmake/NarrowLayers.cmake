# narrow_layer(<folder> [DEPS <folder>...] [LINK <target>...])
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

function(narrow_layer name)
  cmake_parse_arguments(ARG "" "" "DEPS;LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS *.cc)
  if(sources)
    add_library(narrow_${name} STATIC ${sources})
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
