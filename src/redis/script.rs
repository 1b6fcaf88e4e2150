//! The Lua scripts, their reply codes and constants, made from `lua/` by `build.rs`.

use std::sync::OnceLock;

/// One Lua script: one operation on the keys that its header names.
#[derive(Debug)]
pub struct LuaScript {
    name: &'static str,
    keys: &'static [&'static str],
    each: &'static [&'static str],
    body: &'static str,
    sha1: OnceLock<String>,
}

impl LuaScript {
    const fn new(
        name: &'static str,
        keys: &'static [&'static str],
        each: &'static [&'static str],
        body: &'static str,
    ) -> Self {
        Self { name, keys, each, body, sha1: OnceLock::new() }
    }

    /// The names of all scripts.
    #[cfg(feature = "failpoints")]
    pub fn names() -> impl Iterator<Item = &'static str> {
        scripts::ALL.iter().map(|script| script.name)
    }

    /// `module/verb`, the value of the label `script` in metrics.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The keys that the header names, in order.
    pub fn keys(&self) -> &'static [&'static str] {
        self.keys
    }

    /// The keys that follow for each further partition and each schedule of a call.
    pub fn each(&self) -> &'static [&'static str] {
        self.each
    }

    /// True unless the script is flagged `no-writes`.
    pub(super) fn writes(&self) -> bool {
        !self.body.lines().next().is_some_and(|shebang| shebang.contains("no-writes"))
    }

    /// The composed text, the argument of SCRIPT LOAD.
    pub fn body(&self) -> &'static str {
        self.body
    }

    /// The SHA-1 of the body in hexadecimal digits, the argument of EVALSHA.
    pub fn sha1(&self) -> &str {
        self.sha1.get_or_init(|| fred::util::sha1_hash(self.body))
    }
}

/// All scripts, named `<MODULE>_<VERB>`.
pub mod scripts {
    use super::LuaScript;

    include!(concat!(env!("OUT_DIR"), "/scripts.rs"));
}

/// The reply codes that the headers of scripts and libraries declare, one enum for each header.
pub mod codes {
    use crate::redis::ReplyCode;

    include!(concat!(env!("OUT_DIR"), "/codes.rs"));
}

/// The numbers of `lua/lib/constants.lua`, which scripts and service share.
pub mod constants {
    include!(concat!(env!("OUT_DIR"), "/constants.rs"));
}
