//! A filter of system calls: what no program of an evaluation needs, and what is not bounded by a limit.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

use super::{Refusal, Step};

/// Refused with "operation not permitted".
const REFUSED: [i64; 40] = [
    // namespaces and mounts
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // memory that belongs to no process
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // parts of the kernel that few programs use
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_fanotify_init,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_acct,
    libc::SYS_personality,
];

/// Installs the filter in this process; programs that it becomes keep it.
pub(super) fn install() -> Result<(), Refusal> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    // sockets of other kinds could leave the network namespace
    let network = only_if(0, SeccompCmpOp::Ne, libc::AF_UNIX as u64)?;
    rules.insert(libc::SYS_socket, vec![network]);
    let new_user = libc::CLONE_NEWUSER as u64;
    let namespace = only_if(0, SeccompCmpOp::MaskedEq(new_user), new_user)?;
    rules.insert(libc::SYS_clone, vec![namespace]);
    let parent = only_if(0, SeccompCmpOp::Eq, libc::PR_SET_PDEATHSIG as u64)?;
    rules.insert(libc::SYS_prctl, vec![parent]);
    apply(rules, libc::EPERM)?;
    // The flags of clone3 are in memory, which a filter cannot read; the C library then uses clone.
    apply([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS)
}

fn only_if(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, Refusal> {
    let condition =
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value).step("filter")?;
    SeccompRule::new(vec![condition]).step("filter")
}

fn apply(rules: BTreeMap<i64, Vec<SeccompRule>>, error: i32) -> Result<(), Refusal> {
    let step = "filter system calls";
    let refuse = SeccompAction::Errno(error as u32);
    let target = std::env::consts::ARCH.try_into().step(step)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, target).step(step)?;
    let program: BpfProgram = filter.try_into().step(step)?;
    apply_filter(&program).step(step)
}
