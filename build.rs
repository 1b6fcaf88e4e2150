//! Composes the Lua scripts: reads each header of `lua/<room>/<verb>.lua`, puts the names of its keys and the libraries it
//! uses in front of it, and writes one Rust table of all scripts. `lua/README.md` tells the form.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=lua");
    println!("cargo:rerun-if-changed=migrations");
    let mut table = String::new();
    let mut all = Vec::new();
    for path in scripts(Path::new("lua"))? {
        let source = fs::read_to_string(&path)?;
        all.push(write_script(&mut table, &path, &source)?);
    }
    let all: String = all.iter().map(|constant| format!("&{constant}, ")).collect();
    writeln!(table, "/// Every script there is.\npub static ALL: &[&LuaScript] = &[{all}];")
        .expect("a String takes it");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("scripts.rs"), table)
}

/// Every script but the libraries, in a stable order.
fn scripts(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for room in fs::read_dir(root)? {
        let room = room?.path();
        if room.is_dir() && room.file_name().is_some_and(|name| name != "lib") {
            for file in fs::read_dir(room)? {
                found.push(file?.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Writes one constant and gives its name.
fn write_script(table: &mut String, path: &Path, source: &str) -> io::Result<String> {
    let stem = path.file_stem().and_then(|s| s.to_str()).expect("a script has a name");
    let room = path
        .parent()
        .and_then(Path::file_name)
        .and_then(|s| s.to_str())
        .expect("a script has a room");
    let shebang = source
        .lines()
        .next()
        .filter(|line| line.starts_with("#!lua"))
        .unwrap_or_else(|| missing(path, "#!lua"));
    let header = |tag: &str| {
        let mut lines =
            source.lines().filter_map(|line| line.strip_prefix("-- ")?.strip_prefix(tag));
        lines.next().unwrap_or_else(|| missing(path, tag)).split_whitespace().collect::<Vec<_>>()
    };
    let keys = header("KEYS: ");
    assert_eq!(
        keys.first(),
        Some(&"generation"),
        "{}: the first key is the generation",
        path.display()
    );

    let names: Vec<&str> = keys.iter().map(|key| key.rsplit(':').next().unwrap_or(key)).collect();
    let places: Vec<String> = (1..=keys.len()).map(|n| format!("KEYS[{n}]")).collect();
    let mut body = format!("{shebang}\nlocal {} = {}\n", names.join(", "), places.join(", "));
    for library in header("uses: ") {
        body.push_str(&without_comments(&fs::read_to_string(format!("lua/lib/{library}.lua"))?));
    }
    body.push_str(&without_comments(source.split_once('\n').map_or("", |(_, rest)| rest)));

    let constant = format!("{room}_{stem}").to_uppercase();
    let about = source
        .lines()
        .nth(1)
        .and_then(|line| line.strip_prefix("-- "))
        .unwrap_or_else(|| missing(path, "what it does"));
    writeln!(table, "/// `lua/{room}/{stem}.lua`: {about}").expect("a String takes it");
    writeln!(
        table,
        "pub static {constant}: LuaScript = LuaScript::new({:?}, &{keys:?}, {body:?});",
        format!("{room}/{stem}")
    )
    .expect("a String takes it");
    Ok(constant)
}

/// Redis keeps every script's text in memory and hashes it; the comments are for the files.
fn without_comments(source: &str) -> String {
    let lines = source.lines().filter(|line| !line.trim_start().starts_with("--"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn missing(path: &Path, what: &str) -> ! {
    panic!("{}: the header lacks «{what}»", path.display())
}
