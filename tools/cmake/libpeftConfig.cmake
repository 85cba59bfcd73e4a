# libpeftConfig.cmake - find_package(libpeft 0.1 REQUIRED) gives the targets that are installed:
#   libpeft::libpeft   the shared library
#   libpeft::static    the static one, with what it needs of the system
# All paths follow from the place of this file, LIBDIR/cmake/libpeft, so that an installation can be moved as a whole.
# Left out: components, configurations (there is one), Windows import libraries.
include(CMakeFindDependencyMacro)
find_dependency(Threads)

get_filename_component(_libpeft_lib "${CMAKE_CURRENT_LIST_DIR}/../.." ABSOLUTE)
foreach(_libpeft_up "../include" "../../include") # lib, lib/x86_64-linux-gnu
  get_filename_component(_libpeft_include "${_libpeft_lib}/${_libpeft_up}" ABSOLUTE)
  if(EXISTS "${_libpeft_include}/peft.h")
    break()
  endif()
endforeach()

set(libpeft_FOUND FALSE)
foreach(_libpeft_name libpeft.so libpeft.dylib)
  if(EXISTS "${_libpeft_lib}/${_libpeft_name}" AND NOT TARGET libpeft::libpeft)
    add_library(libpeft::libpeft SHARED IMPORTED)
    set_target_properties(libpeft::libpeft PROPERTIES
      IMPORTED_LOCATION "${_libpeft_lib}/${_libpeft_name}"
      INTERFACE_INCLUDE_DIRECTORIES "${_libpeft_include}")
  endif()
endforeach()
if(EXISTS "${_libpeft_lib}/libpeft.a" AND NOT TARGET libpeft::static)
  add_library(libpeft::static STATIC IMPORTED)
  set_target_properties(libpeft::static PROPERTIES
    IMPORTED_LOCATION "${_libpeft_lib}/libpeft.a"
    IMPORTED_LINK_INTERFACE_LANGUAGES C
    INTERFACE_INCLUDE_DIRECTORIES "${_libpeft_include}"
    INTERFACE_COMPILE_DEFINITIONS PEFT_STATIC
    INTERFACE_LINK_LIBRARIES "Threads::Threads;$<$<NOT:$<PLATFORM_ID:Windows>>:m>")
endif()
if(EXISTS "${_libpeft_include}/peft.h" AND (TARGET libpeft::libpeft OR TARGET libpeft::static))
  set(libpeft_FOUND TRUE)
else()
  set(libpeft_NOT_FOUND_MESSAGE "no peft.h and libpeft.so or libpeft.a beside ${CMAKE_CURRENT_LIST_DIR}")
endif()
unset(_libpeft_up)
unset(_libpeft_name)
unset(_libpeft_lib)
unset(_libpeft_include)
