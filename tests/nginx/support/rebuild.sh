#!/usr/bin/env bash
# Rebuilds Debian's nginx from its source package with the address sanitizer and NGX_DEBUG_PALLOC (each allocation from a
# pool is one of its own, so that a byte too many is seen), for tests of the module that are built alike:
#
#     rebuild.sh DIRECTORY
#
# leaves DIRECTORY/nginx, the binary, and DIRECTORY/source, the tree that the module is built against (IDEM_NGINX_SOURCE).
# Done once for each revision of the package. Uses package lists of its own; nothing of the system changes. If the mirror
# has only the source of another revision, that one is taken, and said. What fails is said in the last line.
# (Undefined behaviour is looked for in the module alone: nginx itself passes NULL to memcpy and the like.)
set -u -o pipefail
out=${1:?a directory}
give_up() { echo "skipped: nginx was not rebuilt: $*"; exit 77; }

installed=$(dpkg-query -W -f='${Version}' nginx) || give_up "the package nginx is not installed"
stamp="$installed $(sha256sum <"${BASH_SOURCE[0]}")"
if [[ -x $out/nginx && $(cat "$out/stamp" 2>/dev/null) == "$stamp" ]]; then exit 0; fi
rm -rf "$out"
mkdir -p "$out/apt/lists/partial" "$out/apt/cache" || give_up "cannot write to $out"
out=$(cd "$out" && pwd)

# ------------------------------------------------------------------ the source
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
printf 'deb-src http://deb.debian.org/%s main\n' "debian $release" "debian-security $release-security" >"$out/apt/sources.list"
apt=(-qq -o Dir::Etc::SourceList="$out/apt/sources.list" -o Dir::Etc::SourceParts=/nonexistent
    -o Dir::State::Lists="$out/apt/lists" -o Dir::Cache="$out/apt/cache" -o APT::Sandbox::User=root)
cd "$out" || exit 1
timeout 120 apt-get "${apt[@]}" update || give_up "no package lists with sources"
fetched=
for version in "$installed" $(apt-cache "${apt[@]}" showsrc nginx | sed -n 's/^Version: //p' | sort -ruV); do
    # A list may name what the mirror has no more.
    if timeout 120 apt-get "${apt[@]}" source --only-source --download-only "nginx=$version" 2>>"$out/build.log"; then
        fetched=$version
        break
    fi
done
[[ $fetched ]] || give_up "no source package of nginx on the mirror"
dsc=$(ls nginx_*.dsc)
[[ $fetched == "$installed" ]] || echo "the mirror has the source of nginx $fetched, not of $installed: that is what is tested"
dpkg-source --no-check -x "$dsc" source >/dev/null || give_up "dpkg-source cannot unpack it"

# ------------------------------------------------------------------ the build: as Debian's but for the flags and the dynamic modules
flags=()
while IFS= read -r flag; do
    flags+=("$flag")
done < <(/usr/sbin/nginx -V 2>&1 | grep -oE -- "--[a-z0-9_-]+(='[^']*'|=[^ ]*)?" | grep -vE -- '^--with-(cc|ld)-opt|=dynamic|^--with-(mail|stream)')
((${#flags[@]} > 10)) || give_up "nginx -V names no configuration"
printf 'NGX_CONF_FLAGS=(' >source/conf_flags
printf ' %q' "${flags[@]}" >>source/conf_flags
printf ' )\n' >>source/conf_flags
cd source || exit 1
sanitize="-fsanitize=address -fno-omit-frame-pointer"
./configure "${flags[@]}" --with-cc-opt="-g -O1 -fPIC $sanitize -DNGX_DEBUG_PALLOC=1" --with-ld-opt="$sanitize" >"$out/build.log" 2>&1 &&
    make -j "$(nproc)" -f objs/Makefile binary >>"$out/build.log" 2>&1 || {
    tail -n 20 "$out/build.log"
    give_up "it doesn't compile, see $out/build.log"
}
cp objs/nginx "$out/nginx" && rm -rf "$out/apt" && printf '%s' "$stamp" >"$out/stamp"
