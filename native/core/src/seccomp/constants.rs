//! What the names in a profile's conditions and errnos stand for: the kernel's own constants, from libc where it has
//! them. A name that is not here is not understood in a profile, so this list is also the vocabulary of conditions.

macro_rules! constants {
    ($name:ident; libc: $($constant:ident)*; literal: $($literal:ident = $value:expr)*) => {
        $(if $name == stringify!($constant) { return u32::try_from(libc::$constant).ok(); })*
        $(if $name == stringify!($literal) { return Some($value); })*
    };
}

/// The value of a constant by its C name.
pub fn value(name: &str) -> Option<u32> {
    constants! { name; libc:
        EPERM ENOSYS EINVAL ENOTTY EACCES EAFNOSUPPORT EOPNOTSUPP ENOPROTOOPT ENODEV
        AF_UNIX AF_INET AF_INET6
        SOL_SOCKET IPPROTO_IP IPPROTO_TCP IPPROTO_UDP IPPROTO_IPV6 TCP_ULP
        F_DUPFD F_GETFD F_SETFD F_GETFL F_SETFL F_GETLK F_SETLK F_SETLKW F_DUPFD_CLOEXEC F_GETPIPE_SZ F_GET_SEALS
        TCGETS TIOCGWINSZ FIONREAD FIONBIO FIOCLEX FIONCLEX
        CLONE_NEWNS CLONE_NEWCGROUP CLONE_NEWUTS CLONE_NEWIPC CLONE_NEWUSER CLONE_NEWPID CLONE_NEWNET
        CLONE_PTRACE CLONE_UNTRACED CLONE_PIDFD
        PR_SET_NAME PR_GET_NAME PR_SET_VMA PR_GET_DUMPABLE PR_GET_NO_NEW_PRIVS PR_CAPBSET_READ
        MADV_MERGEABLE MADV_HWPOISON MADV_SOFT_OFFLINE;
    literal:
        // asm/prctl.h; libc has none of them.
        ARCH_SET_GS = 0x1001 ARCH_SET_FS = 0x1002 ARCH_GET_FS = 0x1003 ARCH_GET_GS = 0x1004
    }
    None
}
