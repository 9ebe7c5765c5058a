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

# In the order in which they need each other.
sources=(zstd lz4 snappy libdeflate xxhash libuv1 sqlite3 cjson expat libyaml pcre2 ncurses libedit openssl curl)
recipe=$(sha256sum tools/wheel_libs.sh tools/requirements-wheel.txt)
[ "$(cat "$out/recipe" 2>/dev/null)" = "$recipe" ] || rm -rf "$out" # else what is built is kept, and the rest follows

mkdir -p "$out/bin" "$out/licenses"
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
mkdir -p "$from/lists/partial"
{ cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -n 's/^Types: .*/Types: deb-src/p; /^Types:/!p'; } >"$from/src.sources"
sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$from/src.list" 2>/dev/null || true
[ -s "$from/src.list" ] && list=$from/src.list || list=$from/src.sources
apt=(apt-get -qq -o Dir::Etc::sourcelist="$list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$from/lists" -o APT::Sandbox::User=root)
"${apt[@]}" update

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The newest version that can be had: mirrors list some that they do not have. Sets dsc.
fetch() {
    local name=$1 version folder
    [ "$name" = zstd ] && name=libzstd
    for version in $("${apt[@]/#apt-get/apt-cache}" showsrc "$name" | sed -n "/^Package: $name\$/,/^Version:/s/^Version: //p" | sort -rV | uniq); do
        folder=$from/$name-$version
        mkdir -p "$folder"
        if [ -e "$folder/done" ] || (cd "$folder" && "${apt[@]}" --download-only source "$name=$version" >"$work/log" 2>&1 && touch done); then
            dsc=$(ls "$folder"/*.dsc)
            return 0
        fi
    done
    cat "$work/log" >&2
    return 1
}

autotools() { ./configure --host="$machine-linux-gnu" --prefix="$out" --libdir="$out/lib" --enable-static --disable-shared "$@" && make -j"$jobs" && make install; }
cmake_build() { cmake -S . -B build-wheel -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR="$machine" -DCMAKE_BUILD_TYPE=None -DCMAKE_INSTALL_PREFIX="$out" -DCMAKE_INSTALL_LIBDIR=lib \
    -DCMAKE_AR="$AR" -DCMAKE_RANLIB="$RANLIB" -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DBUILD_SHARED_LIBS=OFF "$@" && cmake --build build-wheel -j"$jobs" && cmake --install build-wheel; }
build_one() {
    case $1 in
    zstd) make -C lib -j"$jobs" libzstd.a-mt libzstd.pc PREFIX="$out" && make -C lib install-static install-includes install-pc PREFIX="$out" ;;
    lz4) make -C lib -j"$jobs" install PREFIX="$out" BUILD_SHARED=no ;;
    snappy) cmake_build -DSNAPPY_BUILD_TESTS=OFF -DSNAPPY_BUILD_BENCHMARKS=OFF -DBUILD_SHARED_LIBS=ON && rm -f "$out"/lib/libsnappy.so* && cp build-wheel/libsnappy.a "$out/lib/" ;; # both targets of the distribution's would make libsnappy.a
    libdeflate) make -j"$jobs" install PREFIX="$out" DISABLE_SHARED=yes && rm -f "$out"/lib/libdeflate.so* ;;
    xxhash) make -j"$jobs" libxxhash.a libxxhash.pc PREFIX="$out" && cp libxxhash.a "$out/lib/" && sed "s,^prefix=.*,prefix=$out," libxxhash.pc >"$out/lib/pkgconfig/libxxhash.pc" && cp xxhash.h xxh3.h "$out/include/" ;;
    libuv1) cmake_build -DBUILD_TESTING=OFF && rm -f "$out"/lib/libuv.so* && sed 's/^Libs:.*/Libs: -L${libdir} -luv_a -lpthread -ldl -lrt/' "$out/lib/pkgconfig/libuv-static.pc" >"$out/lib/pkgconfig/libuv.pc" ;;
    sqlite3) autotools --disable-readline --disable-tcl --disable-load-extension ;;
    cjson) cmake_build -DENABLE_CJSON_TEST=Off -DENABLE_CUSTOM_COMPILER_FLAGS=Off ;;
    expat) cd expat && ./buildconf.sh && autotools --without-xmlwf --without-examples --without-tests --without-docbook ;;
    libyaml) cmake_build -DBUILD_TESTING=OFF && rm -f "$out"/lib/libyaml.so* &&
        printf 'Name: yaml-0.1\nDescription: libyaml\nVersion: 0.2.5\nLibs: -L%s/lib -lyaml\nCflags: -I%s/include\n' "$out" "$out" >"$out/lib/pkgconfig/yaml-0.1.pc" ;;
    pcre2) autotools --enable-jit=no ;;
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
        --with-terminfo-dirs=/etc/terminfo:/lib/terminfo:/usr/share/terminfo --enable-pc-files --with-pkg-config-libdir="$out/lib/pkgconfig" --without-debug --enable-overwrite ;;
    libedit) # without the distribution's patches, which make it need libbsd
        mkdir ../plain && tar -C ../plain --strip-components 1 -xf ../*.orig.tar.* && cd ../plain && autotools --disable-examples ;;
    esac
}

for source in "${sources[@]}"; do
    [ -e "$out/licenses/$source" ] && continue
    mkdir "$work/$source"
    fetch "$source"
    cp "${dsc%/*}"/*.orig.tar.* "$work/$source/"
    dpkg-source -x "$dsc" "$work/$source/tree" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    echo "$machine: $source"
    (cd "$work/$source/tree" && set -e && build_one "$source") >"$work/log" 2>&1 || { tail -60 "$work/log" >&2; echo "$source failed" >&2; exit 1; }
    cp "$work/$source/tree/debian/copyright" "$out/licenses/$source"
    rm -rf "${work:?}/$source"
done
rm -f "$out"/lib/*.la
# Headers only, the same on each machine.
cp -r /usr/include/toml++ "$out/include/"
cp /usr/share/doc/libtomlplusplus-dev/copyright "$out/licenses/tomlplusplus"
printf 'Name: tomlplusplus\nDescription: toml++\nVersion: %s\nCflags: -I%s/include\n' "$(env -u PKG_CONFIG_LIBDIR pkg-config --modversion tomlplusplus)" "$out" >"$out/lib/pkgconfig/tomlplusplus.pc"
