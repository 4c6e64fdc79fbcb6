//! How many files and sockets this process may have open.

/// As many connections as there may be sockets for, `wanted` at most: a call may need one more, to a provider.
pub(super) fn connections_max(wanted: usize) -> usize {
    let Some(files) = files_max() else { return wanted };
    let most = (files.saturating_sub(FILES_KEPT) / 2).max(CONNECTIONS_MIN);
    if most < wanted {
        tracing::info!(files, connections = most, wanted, "the limit of open files leaves room for fewer connections");
    }
    wanted.min(most)
}

/// The limit of open files, raised as far as this process may; `None` where there is none, or nobody knows.
#[cfg(target_os = "linux")]
fn files_max() -> Option<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    usize::try_from(if raised { maximum } else { current }?).ok()
}

#[cfg(not(target_os = "linux"))]
fn files_max() -> Option<usize> {
    None
}

/// For the store, the log, keys, and the listeners.
const FILES_KEPT: usize = 256;

/// Fewer are no service.
const CONNECTIONS_MIN: usize = 16;
