# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# What tools/quickstart and tools/test share: find out what this machine lacks, install it, make .venv.
# Sourced, with $root set to the top of the source tree. Functions return non-zero after they said why.

venv=${root:?}/.venv
setup_log=$root/logs/setup.log
# What it takes to build zonefs-py and to mount with it.
# shellcheck disable=SC2034  # for those who source this
packages_to_run=(python3-dev gcc pkg-config libfuse3-dev fuse3 ca-certificates)
# What tools/vm starts a machine with; it can also unpack them into its cache, as it does with a QEMU that is new enough.
# shellcheck disable=SC2034  # for those who source this
packages_for_vm=(busybox-static kmod)
readonly venv setup_log
# shellcheck disable=SC2034  # for those who source this
readonly packages_to_run packages_for_vm

say() { printf '%s\n' "$*"; }
complain() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# have WHAT: whether the machine has it. Asked of the machine, not of the package manager, so that
# whatever was installed by other means counts too.
have() {
	case $1 in
	libfuse3-dev) pkg-config --exists 'fuse3 >= 3.10' 2>/dev/null ;;
	fuse3) command -v fusermount3 ;;
	libzbd2) PATH=$PATH:/sbin:/usr/sbin ldconfig -p | grep 'libzbd\.so\.2 ' ;;
	gcc) command -v gcc && echo 'int main(void) { return 0; }' | gcc -x c -o /dev/null - 2>/dev/null ;;
	python3-dev) find_python >/dev/null ;;
	pkg-config | fio | shellcheck | rsync) command -v "$1" ;;
	xfsprogs) PATH=$PATH:/sbin:/usr/sbin command -v mkfs.xfs ;;
	btrfs-progs) PATH=$PATH:/sbin:/usr/sbin command -v mkfs.btrfs ;;
	attr) command -v setfattr ;;
	# A static program has nothing that ldd could list.
	busybox-static) command -v busybox && ! ldd "$(command -v busybox)" 2>/dev/null ;;
	kmod) PATH=$PATH:/sbin:/usr/sbin command -v modprobe ;;
	e2fsprogs) PATH=$PATH:/sbin:/usr/sbin command -v mkfs.ext4 ;;
	ca-certificates) test -s /etc/ssl/certs/ca-certificates.crt ;;
	*) complain "setup.sh does not know how to look for $1"; return 1 ;;
	esac >/dev/null
}

# find_python: print the Python to build with: 3.11 or newer, with venv, pip and the headers of the C interface.
find_python() {
	local candidate
	# The system's first: root's own may be where nobody else can run it, and some tests run as a plain user.
	for candidate in ${PYTHON:+"$PYTHON"} /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
		candidate=$(command -v "$candidate") || continue
		"$candidate" -c '
import os, sys, sysconfig
import ensurepip, venv
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(not (sys.version_info >= (3, 11) and os.path.exists(header)))' 2>/dev/null || continue
		printf '%s\n' "$candidate"
		return 0
	done
	return 1
}

# packages_for WHAT...: the Debian packages that bring it.
packages_for() {
	local what
	for what in "$@"; do
		case $what in
		gcc) printf 'gcc libc6-dev ' ;;
		python3-dev) printf 'python3 python3-dev python3-venv ' ;;
		*) printf '%s ' "$what" ;;
		esac
	done
}

# install_missing WHAT...: install what is missing, as root or through sudo; else name the command to run.
install_missing() {
	local what missing=() packages as_root=()
	for what in "$@"; do
		have "$what" || missing+=("$what")
	done
	((${#missing[@]})) || return 0
	packages=$(packages_for "${missing[@]}")
	packages=${packages% }
	if ! command -v apt-get >/dev/null; then
		complain "this machine has no apt-get; install what these Debian packages hold, then run me again: $packages"
		return 1
	fi
	if ((EUID != 0)); then
		if ! sudo -n true 2>/dev/null; then
			complain "packages are missing and I may not install them. Run this, then run me again:"
			printf '    sudo apt-get install -y %s\n' "$packages" >&2
			return 1
		fi
		as_root=(sudo -n)
	fi
	say "Installing packages: $packages"
	local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
	logged "${apt[@]}" update || return 1
	# shellcheck disable=SC2086  # one word a package
	logged "${apt[@]}" install -y --no-install-recommends $packages || return 1
	for what in "${missing[@]}"; do
		have "$what" && continue
		complain "$what is still missing after its installation; see $setup_log"
		return 1
	done
}

# logged COMMAND...: run it quietly; when it fails show the end of what it printed.
logged() {
	mkdir -p "$root/logs" || return 1
	printf '\n$ %s\n' "$*" >>"$setup_log" || return 1
	"$@" </dev/null >>"$setup_log" 2>&1 && return 0
	complain "this failed: $*"
	tail -n 25 "$setup_log" | sed 's/^/    /' >&2
	complain "all of its output is in $setup_log"
	return 1
}

# venv_works: whether .venv holds a Python that runs, is new enough and has pip.
venv_works() {
	"$venv/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# fingerprint WHAT: changes when an installation of WHAT would give something else.
fingerprint() {
	{
		printf '%s\n%s\n' "$1" "$root"
		"$venv/bin/python" -VV
		cat "$root/pyproject.toml" "$root"/tools/build_door.py "$root"/zonefs_py/fuse/*.c
		pkg-config --modversion fuse3
	} 2>&1 | sha256sum
}

# ready WHAT: whether WHAT was installed by install_into_venv and nothing changed since.
ready() {
	venv_works && [[ $(cat "$venv/.installed-$1" 2>/dev/null) == "$(fingerprint "$1")" ]] \
		&& "$venv/bin/python" -c "import zonefs_py.fuse._door" 2>/dev/null
}

# install_into_venv zonefs-py|bench|dev: make .venv if there is no good one, and install the source tree into it,
# for dev with the tools that the tests need, for bench with what draws plots. Does nothing if that was done before.
install_into_venv() {
	local what=$1 python source=$root
	ready "$what" && return 0
	if [[ -e $venv && ! -w $venv || ! -w $root ]]; then
		complain "$root belongs to somebody else and is not installed completely; run me in a clone of your own"
		return 1
	fi
	if ! venv_works; then
		if [[ -e $venv && ! -e $venv/pyvenv.cfg ]]; then
			complain "$venv exists and is not a virtual environment; move it away and run me again"
			return 1
		fi
		python=$(find_python) || { complain "no Python 3.11 or newer with venv and Python.h was found"; return 1; }
		say "Making a virtual environment in $venv with $("$python" -V)"
		logged "$python" -m venv --clear "$venv" || return 1
	fi
	local pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet)
	say "Installing zonefs-py into it (the first time pyfuse3 is compiled, which takes about a minute)"
	# Dependency groups need pip 25.1; Debian 12 has 23.0.
	if [[ $what == dev ]]; then
		logged "${pip[@]}" --upgrade 'pip>=25.1' || return 1
		(cd "$root" && logged "${pip[@]}" --group dev) || return 1
	fi
	[[ $what == bench ]] && source+='[bench]'
	logged "${pip[@]}" --editable "$source" || return 1
	"$venv/bin/zonefs-py" --version >/dev/null || { complain "zonefs-py was installed but does not start"; return 1; }
	fingerprint "$what" >"$venv/.installed-$what"
}

# check_fuse: whether this user can mount a FUSE file system here; says what to do if not.
check_fuse() {
	if [[ ! -e /dev/fuse ]] && ((EUID == 0)); then
		modprobe fuse 2>/dev/null
	fi
	if [[ ! -e /dev/fuse ]]; then
		complain "/dev/fuse is missing. Run 'modprobe fuse' as root; start a container with --device /dev/fuse"
		return 1
	fi
	if [[ ! -r /dev/fuse || ! -w /dev/fuse ]]; then
		complain "you may not open /dev/fuse. Run this, then run me again:"
		printf '    sudo chmod 666 /dev/fuse\n' >&2
		return 1
	fi
}
