#!/usr/bin/env bash
# Build what a wheel has inside, as static libraries for an old glibc: .cache/wheel/x86_64 or .cache/wheel/aarch64, with a COPYING of each in licenses/.
# tools/build_wheel.sh calls it.
#     tools/wheel_libs.sh x86_64|aarch64
# The sources are the distribution's, with its patches; the compiler is Zig's, which brings the headers and symbols of every glibc. libcurl
# speaks HTTP and TLS and nothing else: the distribution's brings LDAP, Kerberos, RTMP and SSH, 4 MB of libraries under other licences.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
machine=$1
glibc=2.28 # that of RHEL 8 and Debian 10. Below 2.25 there is no getrandom(), below 2.28 no renameat2()
base=$PWD/.cache/wheel
out=$base/$machine

# One at a time, for another machine, too: the sources and what apt knows of them lie in one place.
mkdir -p "$base"
exec 9>"$base/lock"
flock -n 9 || { echo "$machine: waits for another $0 to end" && flock 9; }

# What is built in one go, beside the others: a source comes after those that it needs, and what takes longest begins first.
chains=("openssl curl" "ncurses libedit" sqlite3 zstd pcre2 libuv1 expat lz4 snappy libdeflate xxhash libyaml)
recipe=$(sha256sum tools/wheel_libs.sh tools/requirements-wheel.txt)
[ "$(cat "$out/recipe" 2>/dev/null)" = "$recipe" ] || rm -rf "$out" # else what is built is kept, and the rest follows
[ -e "$out/licenses/tomlplusplus" ] && exit 0 # the last one

mkdir -p "$out/bin" "$out/licenses" "$out/lib/pkgconfig" "$out/include"
echo "$recipe" >"$out/recipe"
zig=$(python -c 'import ziglang; print(ziglang.__path__[0])')/zig
for tool in cc c++ ar ranlib; do
    target=
    case $tool in c*) target="-target $machine-linux-gnu.$glibc" ;; esac
    printf '#!/bin/sh\nexec "%s" %s %s "$@"\n' "$zig" "$tool" "$target" >"$out/bin/$tool"
    # Zig's linker does not read the thin archives that Meson asks for.
    [ "$tool" = ar ] && sed -i '2i what=$(echo "$1" | tr -d T)\nshift\nset -- "$what" "$@"' "$out/bin/ar"
    chmod +x "$out/bin/$tool"
done
export CC="$out/bin/cc" CXX="$out/bin/c++" AR="$out/bin/ar" RANLIB="$out/bin/ranlib" CFLAGS="-O2 -fPIC -fvisibility=hidden" CXXFLAGS="-O2 -fPIC -fvisibility=hidden"
export CPPFLAGS="-I$out/include" LDFLAGS="-L$out/lib" PKG_CONFIG_LIBDIR="$out/lib/pkgconfig:$out/share/pkgconfig" ZIG_GLOBAL_CACHE_DIR="$base/zig-cache"
jobs=$(nproc)

# Sources of packages, from where packages come, without a change to what the machine is set up with.
from=$base/sources
mkdir -p "$from/lists/partial" "$from/parts"
rm -f "$from"/parts/*
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.sources; do # older installations have the first, newer ones the others
    [ ! -e "$list" ] || sed -n 's/^Types: .*/Types: deb-src/p; t; s/^deb /deb-src /p; t; /^deb-src /!p' "$list" >"$from/parts/$(basename "$list")"
done
apt=(apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$from/parts" -o Dir::State::lists="$from/lists" -o APT::Sandbox::User=root)
"${apt[@]}" update

work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT

# The newest version that can be had: mirrors list some that they do not have. Sets dsc.
fetch() {
    local name=$1 log=$work/$1.log version folder
    [ "$name" = zstd ] && name=libzstd
    for version in $("${apt[@]/#apt-get/apt-cache}" showsrc "$name" | sed -n "/^Package: $name\$/,/^Version:/s/^Version: //p" | sort -rV | uniq); do
        folder=$from/$name-$version
        mkdir -p "$folder"
        if [ -e "$folder/done" ] || (cd "$folder" && "${apt[@]}" --download-only source "$name=$version" >"$log" 2>&1 && touch done); then
            dsc=$(ls "$folder"/*.dsc)
            return 0
        fi
    done
    cat "$log" >&2
    return 1
}

# Libraries only: programs and tests would take as long again.
autotools() { ./configure --host="$machine-linux-gnu" --prefix="$out" --libdir="$out/lib" --enable-static --disable-shared "$@"; }
cmake_setup() { cmake -S . -B build-wheel -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR="$machine" -DCMAKE_BUILD_TYPE=None -DCMAKE_INSTALL_PREFIX="$out" -DCMAKE_INSTALL_LIBDIR=lib \
    -DCMAKE_AR="$AR" -DCMAKE_RANLIB="$RANLIB" -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DBUILD_SHARED_LIBS=OFF -DBUILD_TESTING=OFF "$@"; }
cmake_install() { cmake --build build-wheel -j"$jobs" && cmake --install build-wheel; }
# keep NAME ARCHIVE HEADER ...: what its own install step would bring more of than is needed; and NAME for pkg-config, which links that archive
keep() {
    local version libs
    version=$(dpkg-parsechangelog -S Version | sed 's/^[0-9]*://; s/[-+].*//')
    libs=$(basename "$2" .a)
    cp "$2" "$out/lib/" && cp -r "${@:3}" "$out/include/" && describe "$1" "$version" "-L$out/lib -l${libs#lib}"
}
describe() { printf 'Name: %s\nDescription: %s\nVersion: %s\nLibs: %s\nCflags: -I%s/include\n' "$1" "$1" "$2" "$3" "$out" >"$out/lib/pkgconfig/$1.pc"; }
build_one() {
    case $1 in
    zstd)
        local least=(PREFIX="$out" ZSTD_LIB_DICTBUILDER=0 ZSTD_LIB_DEPRECATED=0 ZSTD_LEGACY_SUPPORT=0)
        make -C lib -j"$jobs" libzstd.a-mt libzstd.pc "${least[@]}" && make -C lib install-static install-includes install-pc "${least[@]}" ;;
    lz4) make -C lib -j"$jobs" install PREFIX="$out" BUILD_SHARED=no ;;
    snappy) # both targets of the distribution's would make libsnappy.a
        cmake_setup -DSNAPPY_BUILD_TESTS=OFF -DSNAPPY_BUILD_BENCHMARKS=OFF -DBUILD_SHARED_LIBS=ON && cmake --build build-wheel -j"$jobs" &&
            keep snappy build-wheel/libsnappy.a snappy.h snappy-c.h build-wheel/snappy-stubs-public.h ;;
    libdeflate) make -j"$jobs" libdeflate.a && keep libdeflate libdeflate.a libdeflate.h ;;
    xxhash) make -j"$jobs" libxxhash.a && keep libxxhash libxxhash.a xxhash.h xxh3.h ;;
    libuv1) cmake_setup && cmake --build build-wheel -j"$jobs" --target uv_a && keep libuv build-wheel/libuv_a.a include/. ;;
    sqlite3) # its amalgamation, by what runs here
        env -u CC -u CFLAGS -u CPPFLAGS -u LDFLAGS ./configure --disable-readline --disable-tcl --disable-load-extension && make sqlite3.c sqlite3.h &&
            $CC $CFLAGS -I. -D_HAVE_SQLITE_CONFIG_H -DSQLITE_THREADSAFE=1 -DSQLITE_OMIT_LOAD_EXTENSION -c sqlite3.c && "$AR" rcs libsqlite3.a sqlite3.o && keep sqlite3 libsqlite3.a sqlite3.h ;;
    expat) # a patch of the distribution's wants a value there, which CMake does not give
        cd expat && cmake_setup -DEXPAT_SHARED_LIBS=OFF -DEXPAT_BUILD_TOOLS=OFF -DEXPAT_BUILD_EXAMPLES=OFF -DEXPAT_BUILD_TESTS=OFF -DEXPAT_BUILD_DOCS=OFF &&
            sed -i 's/^#define XML_DTD$/& 1/' build-wheel/expat_config.h && cmake_install ;;
    libyaml) cmake_setup && cmake --build build-wheel -j"$jobs" && keep yaml-0.1 build-wheel/libyaml.a include/yaml.h ;;
    pcre2) cmake_setup -DPCRE2_BUILD_PCRE2GREP=OFF -DPCRE2_BUILD_TESTS=OFF && cmake_install ;;
    openssl) # what TLS 1.2 and 1.3 and signatures need
        local none=(shared module tests legacy engine ssl3 tls1 tls1_1 dtls srp srtp psk cms ts cmp ct comp dsa idea camellia seed rc2 rc4 md4 mdc2 whirlpool blake2 bf cast
            aria sm2 sm3 sm4 gost scrypt ocb siphash rmd160 dgram ui-console)
        ./Configure "linux-$machine" --prefix="$out" --libdir=lib --openssldir=/etc/ssl "${none[@]/#/no-}" && make -j"$jobs" build_generated && make -j"$jobs" libcrypto.a libssl.a libcrypto.pc libssl.pc openssl.pc &&
            make install_dev ;;
    curl)
        local no=(ftp file ldap ldaps rtsp dict telnet tftp pop3 imap smb smtp gopher mqtt manual ares ntlm ntlm-wb tls-srp alt-svc hsts netrc doh unix-sockets
            sspi cookies dateparse mime progress-meter)
        local without=(brotli zstd zlib libpsl libssh libssh2 nghttp2 nghttp3 ngtcp2 libidn2 librtmp gssapi libgsasl)
        ./configure --host="$machine-linux-gnu" --prefix="$out" --libdir="$out/lib" --enable-static --disable-shared --with-openssl="$out" --enable-threaded-resolver \
            --with-ca-bundle=/etc/ssl/certs/ca-certificates.crt "${no[@]/#/--disable-}" "${without[@]/#/--without-}" &&
            make -j"$jobs" -C lib && make -C lib install && make -C include install &&
            sed 's/^Libs:.*/& -lssl -lcrypto -lpthread -ldl/' libcurl.pc >"$out/lib/pkgconfig/libcurl.pc" ;;
    ncurses) autotools --without-ada --without-cxx --without-cxx-binding --without-manpages --without-progs --without-tests --disable-widec --disable-database-install \
        --with-terminfo-dirs=/etc/terminfo:/lib/terminfo:/usr/share/terminfo --without-debug --enable-overwrite && make -C include && make -C ncurses -j"$jobs" && make -C include install && make -C ncurses install ;;
    libedit) autotools --disable-examples && make -C src -j"$jobs" && make -C src install && cp libedit.pc "$out/lib/pkgconfig/" ;;
    esac
}

build_chain() {
    local source unpatched log
    for source in $1; do
        [ -e "$out/licenses/$source" ] && continue
        mkdir "$work/$source"
        fetch "$source"
        log=$work/$source.log
        [ "$source" = libedit ] && unpatched=--skip-patches || unpatched= # those of the distribution make it need libbsd
        dpkg-source $unpatched -x "$dsc" "$work/$source/tree" >"$log" 2>&1 || { cat "$log" >&2; return 1; }
        (cd "$work/$source/tree" && set -e && build_one "$source") >"$log" 2>&1 || { tail -60 "$log" >&2; echo "$source failed" >&2; return 1; }
        cp "$work/$source/tree/debian/copyright" "$out/licenses/$source"
        rm -rf "${work:?}/$source"
        echo "$machine: $source"
    done
}
running=0
for chain in "${chains[@]}"; do
    if [ "$running" = "$jobs" ]; then
        wait -n
        running=$((running - 1))
    fi
    build_chain "$chain" &
    running=$((running + 1))
done
for ((; running > 0; running--)); do wait -n; done
rm -f "$out"/lib/*.la
# Headers only, the same on each machine.
cp -r /usr/include/toml++ "$out/include/"
describe tomlplusplus "$(env -u PKG_CONFIG_LIBDIR pkg-config --modversion tomlplusplus)" ""
cp /usr/share/doc/libtomlplusplus-dev/copyright "$out/licenses/tomlplusplus"
