#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Run the numbered scripts of tests/scripts on freshly created devices, as zonefs-tests does for the kernel; or on zoned
# block devices.

set -u -o pipefail
export LC_ALL=C

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(dirname "$HERE")

# name: zones, conventional zones, zone size, zone capacity, size of the last zone (KiB), block size, max open, max active
declare -A GEOMETRIES=(
	[basic]="16 4 4096 4096 4096 4096 0 0"
	[b512]="16 4 4096 3072 4096 512 0 0"
	[limits]="16 4 4096 4096 4096 4096 4 6"
	[nocnv]="16 0 4096 4096 2048 4096 0 0"
	[onecnv]="12 1 4096 3584 4096 4096 0 0"
)
DEFAULT_GEOMETRIES="basic b512 limits nocnv onecnv"

usage() {
	cat <<-END
		Usage: ${0##*/} [options]

		Runs numbered scripts, each on a device made for it, and checks after each that the daemon ended well, logged
		nothing unexpected, and that the sizes of the files are the write pointers of their zones.

		  -l, --list              list the tests and exit
		  -t, --tests LIST        only these: 0300, 0300-0330, or several with commas between
		  -g, --geometry NAME     on this geometry; may be repeated or hold commas (default: all)
		                          $DEFAULT_GEOMETRIES
		  -d, --device PATH       on this zoned block device instead; may be repeated. ALL ITS DATA IS LOST
		  -s, --short             leave out the tests that take long
		  -r, --repeat N          run everything N times
		  -j, --jobs N            tests at a time (default 2)
		      --no-skip           a skip that expected-skips does not list is a failure
		      --timeout SECONDS   for one test (default 60)
		      --logs DIR          logs/GEOMETRY/NNNN.log go there (default $REPO/logs)
		      --scripts DIR       where the scripts are (default $HERE/scripts)
		  -h, --help              this

		A script that says "# geometry: any" tests nothing that depends on it and runs on the first one only.
		Exit status: 0 all passed, 1 a test failed, 2 wrong usage or nothing can be run; 130 or 143 when interrupted.
		zonefs-py is taken from the directory \$ZONEFS_PY_BIN, else from an active virtual environment, from .venv/bin beside
		the tests, from PATH.
	END
}

die() {
	echo "${0##*/}: $*" >&2
	exit 2
}

# ---- command line

LIST=0 SHORT=0 NO_SKIP=0 REPEAT=1 JOBS=2 TIMEOUT=60
DEVICES=()
TESTS="" CHOSEN="" SCRIPTS=$HERE/scripts LOGS=$REPO/logs

parse_command_line() {
	local parsed
	parsed=$(getopt --name "${0##*/}" --options lt:g:d:sr:j:h \
		--longoptions list,tests:,geometry:,device:,short,repeat:,jobs:,no-skip,timeout:,logs:,scripts:,help -- "$@") || exit 2
	eval set -- "$parsed"
	while [[ $1 != -- ]]; do
		case $1 in
		-l | --list) LIST=1 ;;
		-t | --tests) TESTS+=",$2" && shift ;;
		-g | --geometry) CHOSEN+=",$2" && shift ;;
		-d | --device) DEVICES+=("$2") && shift ;;
		-s | --short) SHORT=1 ;;
		-r | --repeat) REPEAT=$2 && shift ;;
		-j | --jobs) JOBS=$2 && shift ;;
		--no-skip) NO_SKIP=1 ;;
		--timeout) TIMEOUT=$2 && shift ;;
		--logs) LOGS=$2 && shift ;;
		--scripts) SCRIPTS=$2 && shift ;;
		-h | --help) usage && exit 0 ;;
		esac
		shift
	done
	shift
	(($# == 0)) || die "unexpected argument: $1"
	local name
	for name in REPEAT JOBS TIMEOUT; do
		[[ ${!name} =~ ^[1-9][0-9]*$ ]] || die "not a number above 0: ${!name}"
	done
	[[ -d $SCRIPTS ]] || die "no such directory: $SCRIPTS"
	[[ -z $CHOSEN || ${#DEVICES[@]} == 0 ]] || die "a block device has its own geometry: --device or --geometry, not both"
	for name in "${DEVICES[@]}"; do
		[[ -b $name ]] || die "not a block device: $name"
	done
}

# Set RUN_TESTS to the numbers of the chosen scripts, RUN_GEOMETRIES to the chosen geometries.
choose_tests() {
	local script number range first last chosen
	RUN_TESTS=()
	for range in ${TESTS//,/ }; do
		[[ $range =~ ^[0-9]{4}(-[0-9]{4})?$ ]] || die "not a test number or a range such as 0300-0330: $range"
	done
	for script in "$SCRIPTS"/[0-9][0-9][0-9][0-9].sh; do
		[[ -e $script ]] || continue
		number=$(basename "$script" .sh)
		chosen=$([[ -z $TESTS ]] && echo 1 || echo 0)
		for range in ${TESTS//,/ }; do
			first=${range%-*} last=${range#*-}
			((10#$number >= 10#$first && 10#$number <= 10#$last)) && chosen=1
		done
		((SHORT)) && grep --quiet '^# long:' "$script" && chosen=0
		((chosen)) && RUN_TESTS+=("$number")
	done
	((${#RUN_TESTS[@]})) || die "no test chosen"
}

choose_geometries() {
	local name
	if ((${#DEVICES[@]})); then
		RUN_GEOMETRIES=("${DEVICES[@]}")
		JOBS=1 # all tests of a device use all of it
		return
	fi
	read -r -a RUN_GEOMETRIES <<<"${CHOSEN//,/ }"
	((${#RUN_GEOMETRIES[@]})) || read -r -a RUN_GEOMETRIES <<<"$DEFAULT_GEOMETRIES"
	for name in "${RUN_GEOMETRIES[@]}"; do
		[[ -n ${GEOMETRIES[$name]:-} ]] || die "unknown geometry $name; there are: $DEFAULT_GEOMETRIES"
	done
}

list_tests() {
	local number
	for number in "${RUN_TESTS[@]}"; do
		echo "$number: $("$SCRIPTS/$number.sh")"
	done
}

# ---- what the scripts are given

find_programs() {
	local candidate found
	((EUID == 0)) || die "mounting, owners and permissions need root"
	[[ -c /dev/fuse ]] || die "no /dev/fuse: modprobe fuse"
	found=$(type -P zonefs-py)
	for candidate in "${ZONEFS_PY_BIN:-}" "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin}" "$REPO/.venv/bin" "${found%/*}"; do
		[[ -n $candidate && -x $candidate/zonefs-py ]] && break
		candidate=""
	done
	[[ -n $candidate ]] || die "zonefs-py is neither in \$ZONEFS_PY_BIN nor in a virtual environment nor in PATH: run tools/quickstart"
	export ZONEFS_PY=$candidate/zonefs-py MKZONEFS=$candidate/mkzonefs MOUNT_HELPER=$candidate/mount.fuse.zonefs-py
	export ZIO=$REPO/tools/zio PATIENCE=$((TIMEOUT <= 60 ? 10 : TIMEOUT / 4))
	# Resolved once: the python3 of a version manager is a script that costs more than a whole test step.
	ZIO_PYTHON=$(python3 -c 'import sys; print(sys.executable)') || die "python3 does not run"
	export ZIO_PYTHON
}

# set_geometry NAME: the environment of a test on it.
set_geometry() {
	local size capacity last
	read -r ZONES CONV size capacity last BLOCK MAX_OPEN MAX_ACTIVE <<<"${GEOMETRIES[$1]}"
	GEOMETRY=$1 ZONE_SIZE=$((size * 1024)) ZONE_CAP=$((capacity * 1024)) LAST_SIZE=$((last * 1024))
	export GEOMETRY ZONES CONV ZONE_SIZE ZONE_CAP LAST_SIZE BLOCK MAX_OPEN MAX_ACTIVE
}

# read_geometry DEVICE: the entry of a block device in GEOMETRIES.
read_geometry() {
	local description
	description=$({ "$ZONEFS_PY" info "$1" --format json && "$ZONEFS_PY" report "$1" --format json; } | "$ZIO_PYTHON" -I -S -c '
import json, sys
decoder = json.JSONDecoder()
text = sys.stdin.read()
info, end = decoder.raw_decode(text)
zones = json.loads(text[end:])["zones"]
device = info["device"]
sizes = (device["zone_size"], device["zone_capacity"], zones[-1]["size"])
assert not any(size % 1024 for size in sizes)
print(len(zones), device["nr_conventional_zones"], *(size // 1024 for size in sizes), device["block_size"],
      device["max_open_zones"] or 0, device["max_active_zones"] or 0)') || die "cannot read the geometry of $1"
	GEOMETRIES[$1]=$description
}

# prepare_device DEVICE: as fresh as one that was just created and formatted.
prepare_device() {
	local condition zone
	# Zones of null_blk that a test made fail come back, empty, when it is told once more. The kernel's plug of such a zone
	# keeps the write pointer that was (Linux 6.12), and would fail the next write, until the zone is reset; mkfs leaves
	# empty zones alone.
	while read -r condition zone; do
		echo "$zone" >"/sys/kernel/config/nullb/${1##*/}/zone_$condition" && blkzone reset --offset "$zone" --count 1 "$1" ||
			return 1
	done < <(blkzone report "$1" | sed --quiet \
		's/^ *start: \(0x[0-9a-f]*\),.*(ro).*/readonly \1/p; s/^ *start: \(0x[0-9a-f]*\),.*(of).*/offline \1/p')
	((!CONV)) || dd if=/dev/zero of="$1" bs="$ZONE_SIZE" count="$CONV" oflag=direct status=none
	"$ZONEFS_PY" mkfs -f "$1" >/dev/null
}

# A device is created and formatted once for each geometry and copied for each test: that is as fresh, and cheaper.
make_template() {
	local options=()
	if [[ -b $1 ]]; then
		read_geometry "$1"
		return
	fi
	set_geometry "$1"
	((MAX_OPEN)) && options+=(--max-open "$MAX_OPEN")
	((MAX_ACTIVE)) && options+=(--max-active "$MAX_ACTIVE")
	"$ZONEFS_PY" create "$WORK/template-$1" --zones "$ZONES" --conventional "$CONV" --zone-size "$ZONE_SIZE" \
		--zone-capacity "$ZONE_CAP" --block-size "$BLOCK" --last-zone-size "$LAST_SIZE" "${options[@]}" >/dev/null ||
		die "cannot create a device with geometry $1"
	"$ZONEFS_PY" mkfs "$WORK/template-$1" >/dev/null || die "cannot format a device with geometry $1"
}

# ---- one test; runs in a process of its own

# mounts_below DIR: mount points in it, innermost first.
mounts_below() {
	cut --delimiter=' ' --fields=5 /proc/self/mountinfo | grep --fixed-strings "$1/" | tac
}

# Size of each sequential file as the mounted file system shows it: "seq/N SIZE" lines.
record_sizes() {
	local dir=$1
	if mountpoint --quiet "$dir/mnt" 2>/dev/null; then
		timeout 20 find "$dir/mnt/seq" -type f -printf 'seq/%f %s\n' 2>/dev/null | sort >"$dir/sizes"
	fi
}

# Unmount everything below $1. A process that is still there is given some time: a killed one may be ending.
unmount_all() {
	local dir=$1 point deadline=$((SECONDS + PATIENCE / 2)) busy=0
	while point=$(mounts_below "$dir" | head --lines=1) && [[ -n $point ]]; do
		timeout --kill-after=2 10 umount "$point" 2>/dev/null && continue
		if ((SECONDS >= deadline)); then
			umount --lazy "$point"
			busy=1
		fi
		sleep 0.05
	done
	((!busy)) || echo "still busy: a process keeps a file of the mount open"
}

# A mount namespace that was made meanwhile (unshare --mount) holds a copy of each mount, and so keeps it alive.
mount_holder() {
	local pid
	pid=$(grep --files-with-matches --fixed-strings " $1/mnt " /proc/[0-9]*/mountinfo 2>/dev/null | head --lines=1 | cut --delimiter=/ --fields=3)
	[[ -z $pid ]] || echo ", held by the mount namespace of process $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
}

# Wait for the daemons that the test started; say what is wrong with their end.
check_daemons() {
	local dir=$1 daemon pid deadline
	for daemon in "$dir"/daemon.*/; do
		[[ -e $daemon/pid ]] || continue
		pid=$(<"$daemon/pid")
		deadline=$((SECONDS + 2 * PATIENCE))
		while [[ ! -e $daemon/status ]] && kill -0 "$pid" 2>/dev/null; do
			if ((SECONDS > deadline)); then
				echo "the daemon did not end after unmounting$(mount_holder "$dir"); killed"
				# Where its threads are: for whoever looks for the reason.
				grep --recursive . "/proc/$pid/task/"*/{comm,wchan,syscall,stack} >&2
				kill -KILL "$pid"
				break
			fi
			sleep 0.02
		done
		# A daemon that put itself into the background leaves no status to read; its log has to do.
		[[ ! -e $daemon/detached ]] || continue
		while [[ ! -e $daemon/status ]] && ((SECONDS <= deadline)); do sleep 0.02; done
		pid=$(cat "$daemon/status" 2>/dev/null)
		[[ $pid == 0 || -e $daemon/killed ]] || echo "the daemon ended with status ${pid:-unknown}"
	done
}

# Say what the daemon logged that nobody announced, and what was announced but not logged.
check_log() {
	local dir=$1 pattern lines unexpected
	touch "$dir/expected-log" "$dir/daemon.log" "$dir/daemon.out"
	lines=$(cat "$dir/daemon.log" "$dir/daemon.out" | grep --extended-regexp 'Traceback|CRITICAL|ERROR|WARNING')
	unexpected=$lines
	while read -r pattern; do
		grep --quiet --extended-regexp -e "$pattern" <<<"$lines" || echo "announced, but not in the log: $pattern"
		unexpected=$(grep --invert-match --extended-regexp -e "$pattern" <<<"$unexpected")
	done <"$dir/expected-log"
	[[ -z $unexpected ]] || printf 'unexpected in the log: %s\n' "$(head --lines=1 <<<"$unexpected")"
}

# check_sizes DIR DEVICE: compare the sizes that the mount showed last with the zone report of the device: what fsck
# would do.
check_sizes() {
	local dir=$1 differences
	[[ -e $dir/sizes ]] || return
	touch "$dir/expected-mismatch"
	"$ZONEFS_PY" report "$2" --format json >"$dir/report" || {
		echo "the device cannot be reported any more"
		return
	}
	differences=$("$ZIO_PYTHON" -I -S - "$dir" <<-'END'
		import json, sys
		where = sys.argv[1]
		ignored = set(open(f"{where}/expected-mismatch").read().split())
		zones = {zone["file"]: zone for zone in json.load(open(f"{where}/report"))["zones"] if zone["file"]}
		for line in open(f"{where}/sizes"):
		    name, size = line.split()
		    zone = zones.get(name, {"condition": "of no zone"})
		    if zone["condition"] == "full":
		        written = zone["capacity"]
		    elif zone["write_pointer"] is not None:
		        written = zone["write_pointer"] - zone["start"]
		    else:
		        continue
		    if written != int(size) and name not in ignored:
		        print(f"{name}: size {size}, but {written} bytes are written in its zone ({zone['condition']})")
	END
	)
	[[ -z $differences ]] || head --lines=1 <<<"$differences"
}

# run_script NUMBER DEVICE
run_script() {
	if [[ -b $2 ]] && ! prepare_device "$2"; then
		echo "FAILED: the device cannot be prepared"
		exit 1
	fi
	exec timeout --kill-after=5 "$TIMEOUT" "$SCRIPTS/$1.sh" "$2"
}

# worker NUMBER GEOMETRY LOG: run one test and clean up after it; print its line; write its result.
worker() {
	local number=$1 log=$3 dir device title child="" code started=$EPOCHREALTIME problems word reason="" stopped=0
	set_geometry "$2"
	GEOMETRY=${GEOMETRY##*/}
	trap 'stopped=1; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null' INT TERM
	dir=$(mktemp --directory "$WORK/$GEOMETRY-$number.XXXX")
	chmod 0711 "$dir"
	export TEST_DIR=$dir
	mkdir --parents "$dir/mnt" "$(dirname "$log")"
	if [[ -b $2 ]]; then
		device=$2
	else
		device=$dir/dev
		cp --archive "$WORK/template-$GEOMETRY" "$device"
	fi
	title=$("$SCRIPTS/$number.sh")
	run_script "$number" "$device" </dev/null >"$log" 2>&1 &
	child=$!
	while :; do
		{ wait "$child"; } 2>/dev/null # bash would tell of signals
		code=$?
		kill -0 "$child" 2>/dev/null || break
	done
	problems=$(
		exec 2>>"$log"
		record_sizes "$dir"
		unmount_all "$dir"
		check_daemons "$dir"
		check_log "$dir"
		((code)) || check_sizes "$dir" "$device"
	)
	{
		[[ ! -s $dir/daemon.log ]] || sed 's/^/daemon.log: /' "$dir/daemon.log"
		[[ ! -s $dir/daemon.out ]] || sed 's/^/daemon.out: /' "$dir/daemon.out"
		[[ -z $problems ]] || printf 'FAILED: %s\n' "$problems"
	} >>"$log"
	rm --recursive --force --one-file-system "$dir"
	((stopped)) && return
	case $code in
	0) word=passed ;;
	1) word=FAILED && reason=$(sed --quiet 's/^FAILED: //p' "$log" | head --lines=1) ;;
	2) word=skipped && reason=$(sed --quiet 's/^SKIPPED: //p' "$log" | head --lines=1) ;;
	124 | 137) word=FAILED && reason="timeout after $TIMEOUT s, or killed" ;;
	*) word=FAILED && reason="exit status $code$( ((code > 128)) && kill -l "$code" | sed 's/^/, signal /')" ;;
	esac
	if [[ $word != FAILED && -n $problems ]]; then
		word=FAILED reason=$(head --lines=1 <<<"$problems")
	fi
	if [[ $word == skipped ]] && ((NO_SKIP)) && ! is_skip_expected "$GEOMETRY" "$number"; then
		word=FAILED reason="skipped, but not in expected-skips: $reason"
	fi
	echo "$word" >"$WORK/results/$GEOMETRY.$number.$BASHPID"
	printf '%-7s %s: %-60s %-7s %s%s\n' "$GEOMETRY" "$number" "$title" "$word" \
		"$(seconds_since "$started")" "${reason:+ ($reason)}"
}

seconds_since() {
	local us=$((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}))
	printf '%d.%01d s' $((us / 1000000)) $((us % 1000000 / 100000))
}

# expected-skips: lines "GEOMETRY NNNN" or "GEOMETRY NNNN-NNNN", then anything.
is_skip_expected() {
	local geometry range rest
	while read -r geometry range rest; do
		[[ $geometry == "$1" ]] && ((10#$2 >= 10#${range%-*} && 10#$2 <= 10#${range#*-})) && return
	done <"$SCRIPTS/expected-skips"
	return 1
}

# ---- all tests

PIDS=()

# Keep only the workers that still run.
reap() {
	local pid running=()
	for pid in "${PIDS[@]}"; do
		kill -0 "$pid" 2>/dev/null && running+=("$pid")
	done
	PIDS=("${running[@]}")
}

stop() {
	trap '' INT TERM
	echo "stopping" >&2
	((${#PIDS[@]})) && kill -TERM "${PIDS[@]}" 2>/dev/null
	wait
	exit "$1"
}

clean_up() {
	unmount_all "$WORK" >/dev/null
	rm --recursive --force --one-file-system "$WORK"
}

run_all() {
	local round geometry number log seen
	for ((round = 1; round <= REPEAT; round++)); do
		seen=""
		for geometry in "${RUN_GEOMETRIES[@]}"; do
			for number in "${RUN_TESTS[@]}"; do
				[[ -n $seen ]] && grep --quiet '^# geometry: any$' "$SCRIPTS/$number.sh" && continue
				while ((${#PIDS[@]} >= JOBS)); do
					wait -n
					reap
				done
				log=$LOGS/${geometry##*/}/$number$( ((round > 1)) && echo ".$round").log
				worker "$number" "$geometry" "$log" &
				PIDS+=("$!")
			done
			seen=1
		done
	done
	wait
}

main() {
	local started=$EPOCHREALTIME geometry passed failed skipped
	parse_command_line "$@"
	choose_tests
	choose_geometries
	if ((LIST)); then
		list_tests
		exit 0
	fi
	find_programs
	WORK=$(mktemp --directory "${TMPDIR:-/tmp}/zonefs-tests.XXXXXX") || die "cannot make a temporary directory"
	trap clean_up EXIT
	trap 'stop 130' INT
	trap 'stop 143' TERM
	chmod 0711 "$WORK"
	mkdir "$WORK/results"
	for geometry in "${RUN_GEOMETRIES[@]}"; do
		make_template "$geometry"
	done
	run_all
	passed=$(cat "$WORK"/results/* | grep --count passed)
	failed=$(cat "$WORK"/results/* | grep --count FAILED)
	skipped=$(cat "$WORK"/results/* | grep --count skipped)
	echo "$(seconds_since "$started"); logs in $LOGS"
	echo "$passed passed, $failed failed, $skipped skipped"
	((failed == 0))
}

main "$@"
exit
