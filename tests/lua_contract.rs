//! Checks the headers and conventions of the scripts against `lua/README.md` and against their
//! callers in Rust.
//!
//! Names and numbers of keys need no test: `build.rs` generates them from the headers. `tests/it`
//! checks that every script loads in a real Redis.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use usher::redis::scripts;

/// Every file below a directory with an extension, sorted.
fn files(root: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(root)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|it| it == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The scripts and their libraries, as `domain/verb` and text.
fn sources() -> Vec<(String, String)> {
    let name = |path: &Path| {
        let domain = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        format!("{domain}/{}", path.file_stem().unwrap().to_str().unwrap())
    };
    files("lua", "lua").iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// The scripts without the libraries.
fn script_sources() -> Vec<(String, String)> {
    sources().into_iter().filter(|(name, _)| !name.starts_with("lib/")).collect()
}

/// The libraries of a script, which may take more than one line of its header.
fn uses(source: &str) -> Vec<&str> {
    let lines = source.lines().skip_while(|line| !line.starts_with("-- uses: "));
    let header = lines.map_while(|line| line.strip_prefix("-- "));
    header.flat_map(|line| line.trim_start_matches("uses: ").split_whitespace()).collect()
}

/// Without comments and strings.
fn code(source: &str) -> String {
    let mut code = String::new();
    for line in source.lines().map(|line| line.split("--").next().unwrap_or_default()) {
        for (nth, part) in line.split(['\'', '"']).enumerate() {
            code.push_str(if nth % 2 == 0 { part } else { "_" });
        }
        code.push('\n');
    }
    code
}

#[test]
fn registry_matches_the_folder() {
    let registered: BTreeSet<_> =
        scripts::ALL.iter().map(|script| script.name().to_owned()).collect();
    let there: BTreeSet<_> = script_sources().into_iter().map(|(name, _)| name).collect();
    assert!(there.len() > 20, "{there:?}");
    assert_eq!(registered, there);
}

#[test]
fn every_header_is_well_formed() {
    for (name, source) in script_sources() {
        let lines: Vec<&str> = source.lines().collect();
        let flags = lines[0].strip_prefix("#!lua").unwrap_or_else(|| panic!("{name}: no shebang"));
        assert!(["", " flags=no-writes", " flags=allow-oom"].contains(&flags), "{name}: {flags}");
        let header: Vec<&str> =
            lines[1..].iter().map_while(|line| line.strip_prefix("--")).map(str::trim).collect();
        let about = header.iter().take_while(|line| !line.is_empty()).last();
        assert!(
            about.is_some_and(|line| line.ends_with('.')),
            "{name}: the first line is a sentence"
        );
        let place = |tag: &str| {
            let at: Vec<_> = header
                .iter()
                .enumerate()
                .filter(|(_, line)| line.starts_with(tag))
                .map(|(at, _)| at)
                .collect();
            assert_eq!(at.len(), 1, "{name}: `{tag}` occurs once");
            at[0]
        };
        let order = ["KEYS:", "ARGV:", "Reply:", "uses:"].map(place);
        assert!(order.is_sorted(), "{name}: the order is KEYS, ARGV, Reply, uses");
        let rest = &lines[order[3] + 2..=header.len()];
        let continued = rest.iter().all(|line| line.starts_with("--   "));
        assert!(continued, "{name}: `uses:` ends the header");
        assert!(header[order[1]].starts_with("ARGV: epoch"), "{name}: the epoch comes first");
        assert!(header[order[2]].len() > "Reply: ".len(), "{name}: the reply is described");
    }
}

#[test]
fn guard_runs_before_any_other_code() {
    for (name, source) in script_sources() {
        assert_eq!(uses(&source)[..2], ["constants", "guard"], "{name}");
    }
    let guard = code(include_str!("../lua/lib/guard.lua"));
    let guard = guard.lines().find(|line| !line.trim().is_empty()).unwrap();
    for script in scripts::ALL {
        assert_eq!(script.keys()[0], "epoch", "{}", script.name());
        let body = code(script.body());
        let before = body.lines().skip(1).take_while(|line| *line != guard);
        for line in before {
            assert!(line.starts_with("local "), "{}: {line} runs first", script.name());
        }
        assert!(body.contains(guard), "{}", script.name());
    }
}

/// A code that a script never returns would be an arm in Rust that no test can reach.
#[test]
fn every_declared_code_is_returned() {
    for script in scripts::ALL {
        let body = code(script.body());
        let words: Vec<&str> =
            body.split(|it: char| !it.is_ascii_alphanumeric() && it != '_').collect();
        let source =
            fs::read_to_string(format!("{}/lua/{}.lua", env!("CARGO_MANIFEST_DIR"), script.name()))
                .unwrap();
        let Some(codes) = source.lines().find_map(|line| line.strip_prefix("-- Codes: ")) else {
            continue;
        };
        for name in codes.split_whitespace().skip(1).step_by(2) {
            let uses = words.iter().filter(|word| **word == name).count();
            assert!(uses >= 2, "{}: {name} is declared and never returned", script.name());
        }
    }
}

#[test]
fn every_library_documents_its_functions_and_is_used() {
    let used: BTreeSet<String> = script_sources()
        .iter()
        .flat_map(|(_, source)| uses(source))
        .map(|word| format!("lib/{word}"))
        .collect();
    let libraries: BTreeSet<String> = sources()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("lib/"))
        .collect();
    assert_eq!(used, libraries);
    for (name, source) in sources().into_iter().filter(|(name, _)| name.starts_with("lib/")) {
        assert!(source.starts_with("-- "), "{name}: the first line says what it is for");
        assert!(
            source.lines().any(|line| line.starts_with("-- Gives: ")),
            "{name}: the header lists what it gives"
        );
    }
}

#[test]
fn every_script_is_called_from_one_place() {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for path in files("src", "rs") {
        let text = fs::read_to_string(&path).unwrap();
        // Recovery restores the state of every domain and reuses the steps of their scripts. Its
        // own scripts are called only there.
        let recovery = path.components().any(|part| part.as_os_str() == "recovery")
            || path.ends_with("pinned_connection.rs");
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for (at, _) in text.match_indices("scripts::") {
            let name: String = text[at + 9..]
                .chars()
                .take_while(|it| it.is_ascii_uppercase() || *it == '_')
                .collect();
            if name == "ALL" {
                continue;
            }
            if recovery && !name.starts_with("RECOVERY_") {
                assert!(path.ends_with("reconcile_store.rs"), "{}: {name}", path.display());
            } else if !name.is_empty() {
                assert_eq!(recovery, name.starts_with("RECOVERY_"), "{}: {name}", path.display());
                places
                    .entry(name)
                    .or_default()
                    .push(path.file_stem().unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    for script in scripts::ALL {
        let constant = script.name().replace('/', "_").to_uppercase();
        let used = places.remove(&constant).unwrap_or_default();
        let one = matches!(&used[..], [one] if one.ends_with("store"));
        let restore_only = script.name().starts_with("recovery/") && !used.is_empty();
        assert!(
            one || restore_only,
            "{} must be called by one function of a store.rs",
            script.name()
        );
    }
    assert_eq!(places, BTreeMap::new(), "names without a script");
}

/// The call at the start of a text, to its closing parenthesis, on one line.
fn whole_call(text: &str) -> String {
    let mut depth = 0;
    let end = text.char_indices().find(|(_, it)| {
        depth += i32::from(*it == '(') - i32::from(*it == ')');
        *it == ')' && depth == 0
    });
    let call = &text[..end.map_or(text.len(), |(at, _)| at + 1)];
    call.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn keys_are_declared_and_work_is_bounded() {
    for (name, source) in sources() {
        let code = code(&source);
        for word in
            ["KEYS[", "redis.pcall", "loadstring", "dofile", "math.random", "os.", "os.time"]
        {
            // Recovery names a hash to restore and keys to delete behind those of the header.
            // A payment in one call has the keys of its `EACH:` line there.
            let behind =
                word == "KEYS[" && (name.starts_with("recovery/") || name == "payment/pay");
            assert!(behind || !code.contains(word), "{name}: {word}");
        }
        for (at, _) in source.match_indices("redis.call(") {
            let call = whole_call(&source[at..]);
            let words: Vec<&str> = call["redis.call(".len()..].split(',').map(str::trim).collect();
            let command = words[0].trim_matches(|it| "')\"".contains(it));
            for endless in [
                "KEYS", "SCAN", "HGETALL", "HKEYS", "HVALS", "SMEMBERS", "FLUSHALL", "FLUSHDB",
                "SORT", "EVAL",
            ] {
                assert_ne!(command, endless, "{name}: unbounded or forbidden: {call}");
            }
            if ["ZRANGEBYSCORE", "ZREVRANGEBYSCORE"].contains(&command) {
                assert!(call.contains("'LIMIT'"), "{name}: an unbounded range: {call}");
            }
            if command == "HSCAN" {
                assert!(call.contains("'COUNT'"), "{name}: a scan without COUNT: {call}");
            }
            if command != "TIME" {
                // A name from the header, or the variable of a loop over such names.
                let rest =
                    words[1].trim_start_matches(|it: char| it.is_ascii_alphanumeric() || it == '_');
                let ends = rest.is_empty() || rest.starts_with([')', '[']);
                let plain = rest.len() < words[1].len() && ends;
                assert!(plain, "{name}: a key that the script composes: {call}");
            }
        }
    }
}

/// Redis refuses a write to a global only when it executes the line, which may be after the first
/// write of the script.
#[test]
fn only_locals_are_assigned() {
    for script in scripts::ALL {
        let (mut locals, mut inside) = (BTreeSet::new(), 0);
        let names =
            |text: &str| text.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>();
        for line in code(script.body()).lines().map(str::trim) {
            let table_field = inside > 0;
            inside += line.matches('{').count() as i64 - line.matches('}').count() as i64;
            if let Some((_, parameters)) =
                line.split_once("function").and_then(|it| it.1.split_once('('))
            {
                locals.extend(names(parameters.split(')').next().unwrap()));
            }
            if let Some(looped) = line.strip_prefix("for ") {
                let looped =
                    looped.split_once(" in ").or_else(|| looped.split_once(" = ")).unwrap().0;
                locals.extend(names(looped));
            } else if let Some(declared) = line.strip_prefix("local ") {
                locals.extend(names(declared.split('=').next().unwrap()));
            } else if let Some((assigned, _)) = line.split_once(" = ")
                && !table_field
                && assigned
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ',' | ' '))
            {
                for name in names(assigned) {
                    // `_` is a discarded value and must not be assigned.
                    let known = name != "_" && locals.contains(&name);
                    assert!(known, "{}: `{line}` assigns {name}", script.name());
                }
            }
        }
    }
}

#[test]
fn clock_is_read_once_in_the_guard() {
    for (name, source) in sources() {
        let reads = source.matches("'TIME'").count();
        assert_eq!(reads, usize::from(name == "lib/guard"), "{name}");
    }
}

/// `tonumber` reads "0x10", "1e3" and "nan". It may read texts that Rust (checked integers in ARGV)
/// or scripts wrote, never a text that a client chose: keys and fingerprints, names, details.
#[test]
fn client_text_is_never_parsed_as_a_number() {
    for (name, source) in sources() {
        for (at, _) in source.match_indices("tonumber(") {
            let argument: String =
                source[at + 9..].chars().take_while(|it| !")\n".contains(*it)).collect();
            for text in
                ["user", "key", "fingerprint", "detail", "queue", "concert", "schedule", "reason"]
            {
                let is_it = argument == text || argument.ends_with(&format!(".{text}"));
                assert!(!is_it, "{name}: tonumber({argument})");
            }
        }
    }
}

#[test]
fn no_writes_flag_matches_the_commands() {
    const WRITES: [&str; 14] = [
        "SET", "DEL", "HSET", "HDEL", "HINCRBY", "ZADD", "ZREM", "ZPOPMIN", "SADD", "SREM", "INCR",
        "INCRBY", "XADD", "EXPIRE",
    ];
    for (name, source) in script_sources() {
        let read_only = source.starts_with("#!lua flags=no-writes");
        let writes =
            WRITES.iter().any(|command| source.contains(&format!("redis.call('{command}'")));
        assert!(!(read_only && writes), "{name}: it is flagged no-writes and writes");
    }
    // Every change of durable state is published to the outbox: a script that uses the outbox
    // publishes exactly once.
    for (name, source) in script_sources() {
        let has_outbox = uses(&source).contains(&"outbox");
        let publishes = code(&source).matches("publish()").count();
        assert_eq!(has_outbox, publishes >= 1, "{name}: a script with the outbox publishes");
        assert!(publishes <= 1, "{name}: more than one entry per call");
        if has_outbox {
            let keys = source.lines().find_map(|line| line.strip_prefix("-- KEYS: ")).unwrap();
            assert!(keys.starts_with("epoch seq outbox"), "{name}: {keys}");
        }
    }
}
