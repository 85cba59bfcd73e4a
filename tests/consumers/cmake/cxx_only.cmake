# cxx_only.cmake - a project without C, and one that asks for a version that there is not. Used by run.sh as CMakeLists.txt.
cmake_minimum_required(VERSION 3.16)
project(cxx_only LANGUAGES CXX)
find_package(libpeft ${WANTED} REQUIRED)
add_executable(program main.cpp)
target_link_libraries(program PRIVATE libpeft::static)
