# What a process of python3 gives up before it runs a judged answer: rlimits, and where the kernel has them Landlock and
# seccomp. sandbox.ts passes this text to `python3 -c`, before harness.py.
import sys

sys.path = [entry for entry in sys.path if entry]

import ctypes
import os
import resource

libc = ctypes.CDLL(None, use_errno=True)


def hide():
    """Before anything secret is read."""
    os.closerange(4, 1 << 20)  # what the trainer's own parents left open
    libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL: nothing survives the worker that started it
    libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: other processes of this user cannot look inside


def confine(limits, readable):
    """Returns what the kernel has of it."""
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    held = []
    if readable and restrict_files(readable):
        held.append('landlock')
    lower(resource.RLIMIT_AS, limits['memory_bytes'])
    lower(resource.RLIMIT_CPU, limits['cpu_seconds'])
    lower(resource.RLIMIT_FSIZE, limits['file_bytes'])
    lower(resource.RLIMIT_NOFILE, 64)
    lower(resource.RLIMIT_CORE, 0)
    stack, hard = 256 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]
    resource.setrlimit(resource.RLIMIT_STACK, (stack if hard < 0 else min(stack, hard), hard))
    forkless = restrict_calls()
    if forkless:
        held.append('seccomp')
    lower(resource.RLIMIT_NPROC, limits['processes'])
    return held


def lower(which, value):
    hard = resource.getrlimit(which)[1]
    value = value if hard < 0 else min(value, hard)
    resource.setrlimit(which, (value, value))


def restrict_files(readable):
    """Landlock: these paths can be read, nothing can be written, whatever the user's rights; no signal leaves."""
    abi = libc.syscall(444, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        return False
    every = (1 << 13) - 1 | (1 << 13 if abi >= 2 else 0) | (1 << 14 if abi >= 3 else 0)
    # Access to files, to TCP ports (left to seccomp), and the scopes: abstract sockets and signals.
    attributes = (ctypes.c_uint64 * 3)(every, 0, 3 if abi >= 6 else 0)
    ruleset = libc.syscall(444, attributes, ctypes.c_size_t(24 if abi >= 6 else 8), 0)
    if ruleset < 0:
        return False
    for path in readable:
        try:
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        allowed = 1 | 4 | 8 if os.path.isdir(path) else 4
        rule = allowed.to_bytes(8, 'little') + parent.to_bytes(4, 'little')
        libc.syscall(445, ruleset, 1, rule, 0)
        os.close(parent)
    held = libc.syscall(446, ruleset, 0) == 0
    os.close(ruleset)
    return held


# x86-64 numbers of the calls that an answer never needs.
FORBIDDEN = {
    'fork': 57, 'vfork': 58, 'socket': 41, 'ptrace': 101, 'process_vm_readv': 310, 'process_vm_writev': 311,
    'tkill': 200, 'rt_sigqueueinfo': 129, 'rt_tgsigqueueinfo': 297, 'pidfd_open': 434, 'pidfd_send_signal': 424,
    'pidfd_getfd': 438, 'setsid': 112, 'setpgid': 109, 'unshare': 272, 'setns': 308, 'mount': 165, 'bpf': 321,
    'userfaultfd': 323, 'add_key': 248, 'request_key': 249, 'keyctl': 250, 'io_uring_setup': 425,
    'perf_event_open': 298, 'memfd_create': 319, 'memfd_secret': 447, 'shmget': 29, 'msgget': 68, 'semget': 64,
    'mq_open': 240, 'sync': 162, 'syncfs': 306,
    # Landlock leaves these to the user's rights, and to files of the user's the user has them.
    'chmod': 90, 'fchmod': 91, 'fchmodat': 268, 'fchmodat2': 452, 'chown': 92, 'fchown': 93, 'lchown': 94,
    'fchownat': 260, 'utime': 132, 'utimes': 235, 'futimesat': 261, 'utimensat': 280, 'truncate': 76,
    'setxattr': 188, 'lsetxattr': 189, 'fsetxattr': 190, 'setxattrat': 463, 'removexattr': 197, 'lremovexattr': 198,
    'fremovexattr': 199, 'removexattrat': 466,
    # Memory of the kernel that no limit counts.
    'symlink': 88, 'symlinkat': 266, 'mknod': 133, 'mknodat': 259,
    # A process that has itself starved would look like one that a busy machine lets wait.
    'setpriority': 141, 'sched_setscheduler': 144, 'sched_setattr': 314,
}
# Allowed towards the process itself alone.
SELF_ONLY = {'kill': 62, 'tgkill': 234, 'prlimit64': 302}
# Arguments that are forbidden, by call: (number of the call, index of the argument, values). Signals can also be sent by
# naming another process as the owner of a descriptor; and a process that clears its death signal outlives the worker.
FORBIDDEN_ARGUMENTS = {
    'fcntl': (72, 1, (8, 10, 15)),  # F_SETOWN, F_SETSIG, F_SETOWN_EX
    'ioctl': (16, 1, (0x8901, 0x8902, 0x5412)),  # FIOSETOWN, SIOCSPGRP, TIOCSTI
    'prctl': (157, 0, (1, 4)),  # PR_SET_PDEATHSIG, PR_SET_DUMPABLE
}
CLONE, CLONE3, CLONE_THREAD = 56, 435, 0x10000


def restrict_calls():
    """seccomp: no new processes (threads are fine), no sockets, no signals to others, no way out of the group."""
    if os.uname().machine != 'x86_64':
        return False
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill = 0x7FFF0000, 0x80000000
    deny, no_more, missing = 0x50001, 0x5000B, 0x50026  # EPERM, EAGAIN (as at RLIMIT_NPROC), ENOSYS
    nr, arch, first = 0, 4, 16  # offsets; an argument takes eight bytes
    program = [
        (load, 0, 0, arch), (equal, 1, 0, 0xC000003E), (give, 0, 0, kill),
        (load, 0, 0, nr), (at_least, 0, 1, 0x40000000), (give, 0, 0, kill),  # the x32 twins of every number
        (equal, 0, 1, CLONE3), (give, 0, 0, missing),  # its flags lie in memory; libc falls back to clone
        (equal, 0, 4, CLONE), (load, 0, 0, first), (any_bit, 1, 0, CLONE_THREAD), (give, 0, 0, no_more), (give, 0, 0, allow),
    ]
    for number in SELF_ONLY.values():
        program += [
            (equal, 0, 5, number), (load, 0, 0, first),
            (equal, 2, 0, os.getpid()), (equal, 1, 0, 0), (give, 0, 0, deny), (give, 0, 0, allow),
        ]
    for number, index, values in FORBIDDEN_ARGUMENTS.values():
        program += [(equal, 0, 2 * len(values) + 2, number), (load, 0, 0, first + 8 * index)]
        for value in values:
            program += [(equal, 0, 1, value), (give, 0, 0, deny)]
        program.append((give, 0, 0, allow))
    for number in FORBIDDEN.values():
        program += [(equal, 0, 1, number), (give, 0, 0, deny)]
    program.append((give, 0, 0, allow))
    text = b''.join(
        code.to_bytes(2, 'little') + bytes((yes, no)) + value.to_bytes(4, 'little') for code, yes, no, value in program
    )
    buffer = ctypes.create_string_buffer(text, len(text))
    header = ctypes.create_string_buffer(
        len(program).to_bytes(8, 'little') + ctypes.addressof(buffer).to_bytes(8, 'little'), 16
    )
    return libc.prctl(22, 2, header, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
