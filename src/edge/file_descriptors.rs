//! The limit of file descriptors. Each connection needs one, and the default limit is often 1,024.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors for everything except connections of the public listener: the admin listener, the
/// stores, the log, and the connections above the limits that receive one response.
const RESERVED_DESCRIPTORS: usize = 500;

/// Raises the limit of this process for `connections`, as far as the hard limit allows. Returns how
/// many connections are possible.
pub fn raise_limit(connections: usize) -> usize {
    let required = u64::try_from(connections + RESERVED_DESCRIPTORS).unwrap_or(u64::MAX);
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft >= required {
            return Ok(soft);
        }
        let raised = required.min(hard);
        setrlimit(Resource::RLIMIT_NOFILE, raised, hard).map(|()| raised)
    });
    match allowed {
        Ok(allowed) if allowed < required => {
            let possible = usize::try_from(allowed)
                .unwrap_or(usize::MAX)
                .saturating_sub(RESERVED_DESCRIPTORS)
                .max(1);
            tracing::warn!(
                connections,
                possible,
                "the limit of open files (ulimit -Hn) allows fewer connections than configured"
            );
            possible
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
    fn limit_is_raised_up_to_the_hard_limit() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let max = usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(RESERVED_DESCRIPTORS);
        assert_eq!(raise_limit(1), 1);
        let wanted = max.min(20_000);
        assert_eq!(raise_limit(wanted), wanted);
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert!(soft >= (wanted + RESERVED_DESCRIPTORS) as u64, "{soft}");
        if max < 1 << 30 {
            assert_eq!(raise_limit(max + 1), max);
        }
    }
}
