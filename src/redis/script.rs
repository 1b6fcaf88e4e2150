//! The registry of scripts, composed at build time from `lua/`.

use std::sync::OnceLock;

/// One Lua script: one operation on the keys that its header names.
#[derive(Debug)]
pub struct LuaScript {
    name: &'static str,
    keys: &'static [&'static str],
    body: &'static str,
    sha1: OnceLock<String>,
}

impl LuaScript {
    const fn new(name: &'static str, keys: &'static [&'static str], body: &'static str) -> Self {
        Self { name, keys, body, sha1: OnceLock::new() }
    }

    /// The names of all scripts.
    #[cfg(feature = "failpoints")]
    pub fn names() -> impl Iterator<Item = &'static str> {
        scripts::ALL.iter().map(|script| script.name)
    }

    /// `room/verb`, as metrics label it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The words of the header's `KEYS:` line.
    pub fn keys(&self) -> &'static [&'static str] {
        self.keys
    }

    /// Whether it may change anything.
    pub(super) fn writes(&self) -> bool {
        !self.body.lines().next().is_some_and(|shebang| shebang.contains("no-writes"))
    }

    /// The text that Redis gets.
    pub fn body(&self) -> &'static str {
        self.body
    }

    /// Its SHA-1 in hexadecimal digits, by which Redis knows it once it has seen the text.
    pub fn sha1(&self) -> &str {
        self.sha1.get_or_init(|| fred::util::sha1_hash(self.body))
    }
}

/// Every script, by room and verb.
pub mod scripts {
    use super::LuaScript;

    include!(concat!(env!("OUT_DIR"), "/scripts.rs"));
}
