//! File descriptors: one a connection, and the shell that starts a service often allows it no more than 1,024.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors beside the public listener's connections: the admin listener's, the stores', the log, and what is accepted and not yet served.
const RESERVE: usize = 300;

/// Raises this process' limit as far as `connections` need, and gives how many of them there is room for.
pub fn room_for(connections: usize) -> usize {
    let wanted = u64::try_from(connections + RESERVE).unwrap_or(u64::MAX);
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft >= wanted {
            return Ok(soft);
        }
        let raised = wanted.min(hard);
        setrlimit(Resource::RLIMIT_NOFILE, raised, hard).map(|()| raised)
    });
    match allowed {
        Ok(allowed) if allowed < wanted => {
            let room =
                usize::try_from(allowed).unwrap_or(usize::MAX).saturating_sub(RESERVE).max(1);
            tracing::warn!(
                connections,
                room,
                "the limit of open files (ulimit -Hn) leaves room for fewer connections"
            );
            room
        }
        Ok(_) => connections,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files can't be read or raised");
            connections
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_be() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let most = usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(RESERVE);
        assert_eq!(room_for(1), 1);
        let wanted = most.min(20_000);
        assert_eq!(room_for(wanted), wanted);
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert!(soft >= (wanted + RESERVE) as u64, "{soft}");
        if most < 1 << 30 {
            assert_eq!(room_for(most + 1), most);
        }
    }
}
