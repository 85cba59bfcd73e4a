#!/bin/sh
# run.sh - projects of others against the installed library and against its sources: CMake, Meson, make with pkg-config, C++. The
# installation is in a folder with a space in its name, and moved away from where it was installed to. BUILD and CC as in the
# Makefile; the normal build is in BUILD. From the project's root. Ends with `N passed, N failed`.
set -u
cd "$(dirname "$0")/../.." || exit 1
root=$PWD
here=$root/tests/consumers
BUILD=${BUILD:-build}
CC=${CC:-cc}
passed=0
failed=0
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
prefix="$tmp/installed here"
moved="$tmp/moved away"
check() { # NAME COMMAND...
    name=$1
    shift
    if "$@" >"$tmp/log" 2>&1; then
        passed=$((passed + 1)) && echo "ok $name"
    else
        failed=$((failed + 1)) && echo "not ok $name" && sed 's/^/    /' "$tmp/log" | tail -n 20
    fi
}
works() { [ "$(LD_LIBRARY_PATH="${2:-}" "$1")" = "libpeft $version: works" ]; }

# ---- make install ----
version=$(sed -n "s/^ *version: '\([0-9.]*\)',/\1/p" meson.build)
install() {
    make CC="$CC" BUILD="$BUILD" PREFIX="$prefix" install && make CC="$CC" BUILD="$BUILD" PREFIX=/usr DESTDIR="$tmp/dest dir" install &&
        test -L "$tmp/dest dir/usr/lib/libpeft.so" && (cd "$prefix" && find . ! -type d | LC_ALL=C sort) >"$tmp/made" &&
        (cd "$tmp/dest dir/usr" && find . ! -type d | LC_ALL=C sort) | diff - "$tmp/made"
}
uninstall() {
    make CC="$CC" BUILD="$BUILD" PREFIX=/usr DESTDIR="$tmp/dest dir" uninstall && [ -z "$(find "$tmp/dest dir" ! -type d)" ]
}

# ---- pkg-config: where it was installed ----
pkg() { env PKG_CONFIG_PATH="$prefix/lib/pkgconfig" "$@"; }
pkgconfig() (
    cp -r "$here/pkgconfig" "$tmp/pkgconfig" && cd "$tmp/pkgconfig" && pkg make CC="$CC" MAIN="$here/main.c" consumer static &&
        works ./consumer "$prefix/lib" && works ./static && [ "$(pkg pkg-config --modversion libpeft)" = "$version" ]
)

# ---- C++ ----
same_as_c() { # COMPILER STANDARD
    pkg sh -c "$1 -std=$2 -O1 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wold-style-cast -Wnon-virtual-dtor -Werror -Iexamples/cpp \
        -o '$tmp/cpp' examples/cpp/quickstart.cpp $(pkg pkg-config --cflags --libs libpeft)" || return 1
    rm -rf "$tmp/a" "$tmp/b"
    LD_LIBRARY_PATH="$prefix/lib" "$tmp/cpp" examples/demo/base/model.gguf "$tmp/b" >"$tmp/cpp.txt" || return 1
    "$BUILD/quickstart" examples/demo/base/model.gguf "$tmp/a" >"$tmp/c.txt" || return 1
    [ -s "$tmp/c.txt" ] && cmp "$tmp/c.txt" "$tmp/cpp.txt" && cmp "$tmp/a/adapter_model.safetensors" "$tmp/b/adapter_model.safetensors"
}
border() { # COMPILER: exceptions of callbacks, errors, moves
    pkg sh -c "$1 -std=c++11 -O1 -Wall -Wextra -Werror -Iexamples/cpp -o '$tmp/border' tests/consumers/border.cpp \
        $(pkg pkg-config --cflags --libs libpeft)" && LD_LIBRARY_PATH="$prefix/lib" "$tmp/border" examples/demo/base/model.gguf
}

# ---- CMake: where it was moved to ----
cmake_run() { # FOLDER ARGUMENT...
    folder=$1
    shift
    cmake -G Ninja -S "$here/cmake" -B "$tmp/$folder" -DCMAKE_C_COMPILER="$CC" "$@" && cmake --build "$tmp/$folder" || return 1
    for program in c-libpeft c-static cxx-libpeft cxx-static; do works "$tmp/$folder/$program" || return 1; done
}
cmake_cxx_only() { # VERSION
    rm -rf "$tmp/cxx only" && mkdir "$tmp/cxx only" && cp "$here/cmake/cxx_only.cmake" "$tmp/cxx only/CMakeLists.txt" &&
        cp "$here/main.c" "$tmp/cxx only/main.cpp" &&
        cmake -G Ninja -S "$tmp/cxx only" -B "$tmp/cxx only/build" -DCMAKE_PREFIX_PATH="$moved" -DWANTED="$1" &&
        cmake --build "$tmp/cxx only/build" && works "$tmp/cxx only/build/program"
}
not_this_version() { # VERSION
    ! cmake_cxx_only "$1" && grep -q 'compatible' "$tmp/log"
}
cmake_product() { # the shared library that CMake built: name, exports
    file=$(find "$tmp/cmake-source" -name 'libpeft.so.*.*.*' | head -n 1)
    same_product "$file"
}

# ---- Meson ----
meson_sub() { # as a subproject: the tree is beside, by a link
    mkdir -p "$tmp/meson/subprojects" && cp "$here/meson/meson.build" "$here/main.c" "$tmp/meson/" &&
        ln -s "$root" "$tmp/meson/subprojects/libpeft" &&
        meson setup --buildtype plain -Doptimization=1 "$tmp/meson/build" "$tmp/meson" && ninja -C "$tmp/meson/build" &&
        works "$tmp/meson/build/consumer"
}
meson_found() {
    mkdir -p "$tmp/meson2" && cp "$here/meson/meson.build" "$here/main.c" "$tmp/meson2/" &&
        pkg meson setup --wrap-mode nofallback "$tmp/meson2/build" "$tmp/meson2" && ninja -C "$tmp/meson2/build" &&
        works "$tmp/meson2/build/consumer" "$prefix/lib"
}
meson_install() {
    meson setup --buildtype plain -Doptimization=1 --prefix "$tmp/meson prefix" "$tmp/mbuild" . && meson install -C "$tmp/mbuild" &&
        test -e "$(find "$tmp/meson prefix" -name libpeft.pc)" && cmake_run cmake-meson -DCMAKE_PREFIX_PATH="$tmp/meson prefix"
}
facts() { # exports with their versions, NEEDED and SONAME of a shared library
    nm -D --with-symbol-versions --defined-only "$1" | awk '{print $2, $3}' | LC_ALL=C sort
    readelf -d "$1" | sed -n 's/.*(\(NEEDED\|SONAME\)).*\[\(.*\)\]/\1 \2/p' | grep -v 'ld-linux\|libpthread' | LC_ALL=C sort
}
same_product() { # FILE
    facts "$prefix/lib/libpeft.so" >"$tmp/make.facts" && facts "$1" >"$tmp/other.facts" &&
        grep -q '^SONAME libpeft.so.0$' "$tmp/make.facts" &&
        [ "$(grep -c ' peft_' "$tmp/make.facts")" -ge 90 ] && diff "$tmp/make.facts" "$tmp/other.facts"
}

check "make install" install
check "make uninstall" uninstall
check "pkg-config" pkgconfig
for compiler in g++ clang++; do
    for standard in c++11 c++20; do check "C++ is as C: $compiler $standard" same_as_c $compiler $standard; done
    check "C++ border: $compiler" border $compiler
done
check "Meson, installed" meson_found
mv "$prefix" "$moved"
check "CMake, moved" cmake_run cmake-moved -DCMAKE_PREFIX_PATH="$moved"
check "CMake, C++ only" cmake_cxx_only 0.1
check "CMake, a newer version" not_this_version 0.2
check "CMake, another major version" not_this_version 1.0
mv "$moved" "$prefix"
check "CMake, sources" cmake_run cmake-source -DLIBPEFT_SOURCE="$root" -DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS=-O1
check "CMake, the same product" cmake_product
check "Meson, subproject" meson_sub
check "Meson, installed by it, found by CMake" meson_install
check "Meson, the same product" same_product "$(find "$tmp/meson prefix" -name "libpeft.so.$version")"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
