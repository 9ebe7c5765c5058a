#!/usr/bin/env bash
# Build a libcurl that speaks HTTP and TLS and nothing else, for wheels: .cache/curl. The distribution's brings LDAP, Kerberos, RTMP and SSH, 4 MB of libraries under
# other licences. The source is the distribution's, with its patches.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/.cache/curl
version=$(dpkg-query -W -f='${Version}' libcurl4-openssl-dev)
[ "$(cat "$out/version" 2>/dev/null)" = "$version" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Sources of packages, from where packages come, without a change to what the machine is set up with.
mkdir -p "$work/lists/partial"
{ cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -n 's/^Types: .*/Types: deb-src/p; /^Types:/!p'; } >"$work/src.sources"
sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$work/src.list" 2>/dev/null || true
[ -s "$work/src.list" ] && list=$work/src.list || list=$work/src.sources
apt=(apt-get -qq -o Dir::Etc::sourcelist="$list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" -o APT::Sandbox::User=root)
cd "$work"
"${apt[@]}" update
"${apt[@]}" source "curl=$version" >log 2>&1 || { cat log >&2; exit 1; }
cd curl-*/
no=(ftp file ldap ldaps rtsp dict telnet tftp pop3 imap smb smtp gopher mqtt manual ares ntlm ntlm-wb tls-srp alt-svc hsts netrc doh unix-sockets
    sspi shared cookies dateparse mime progress-meter)
without=(brotli zstd zlib libpsl libssh libssh2 nghttp2 nghttp3 ngtcp2 libidn2 librtmp gssapi libgsasl)
export CFLAGS="-O2 -fPIC"
{ ./configure --prefix="$out" --enable-static --with-openssl --enable-threaded-resolver --with-ca-bundle=/etc/ssl/certs/ca-certificates.crt \
    "${no[@]/#/--disable-}" "${without[@]/#/--without-}" && make -j"$(nproc)" -C lib && rm -rf "$out" && make -C lib install &&
    make -C include install && mkdir -p "$out/lib/pkgconfig"; } >log 2>&1 || { tail -40 log >&2; exit 1; }
# The archive goes into ours: whoever links it needs what it needs.
sed 's/^Libs:.*/& -lssl -lcrypto -lpthread/' libcurl.pc >"$out/lib/pkgconfig/libcurl.pc"
cp COPYING "$out/COPYING"
echo "$version" >"$out/version"
