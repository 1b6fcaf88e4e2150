//! Composes the Lua scripts and the tables of them that Rust reads.
//!
//! For each `lua/<module>/<verb>.lua` it reads the header, puts the names of the keys and reply codes
//! and the used libraries in front of the code, and writes three things: `scripts.rs` (one constant
//! for each script), `codes.rs` (one enum for each `Codes:` line) and `constants.rs` (the numbers of
//! `lua/lib/constants.lua`). The composed scripts are also written to `target/lua/`, to be read.
//! `lua/README.md` describes the header.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const LIBRARIES: &str = "lua/lib";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=lua");
    println!("cargo:rerun-if-changed=migrations");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let readable = readable_directory(&out);

    let mut table = String::new();
    let mut codes = String::new();
    let mut names = Vec::new();
    let mut libraries = BTreeSet::new();
    for path in script_paths(Path::new("lua"))? {
        let script = Script::read(&path)?;
        names.push(script.write_constant(&mut table)?);
        write_codes(&mut codes, &script.type_name(), &script.header.codes);
        libraries.extend(script.header.uses.iter().cloned());
        if let Some(directory) = &readable {
            let file = directory.join(&script.module).join(format!("{}.lua", script.verb));
            fs::create_dir_all(file.parent().expect("the file has a directory"))?;
            fs::write(file, script.body()?)?;
        }
    }
    for library in libraries {
        let source = fs::read_to_string(format!("{LIBRARIES}/{library}.lua"))?;
        write_codes(&mut codes, &pascal_case(&library), &Header::parse(&source).codes);
    }
    let names: String = names.iter().map(|name| format!("&{name}, ")).collect();
    push(&mut table, &format!("/// All scripts.\npub static ALL: &[&LuaScript] = &[{names}];"));

    fs::write(out.join("scripts.rs"), table)?;
    fs::write(out.join("codes.rs"), codes)?;
    fs::write(out.join("constants.rs"), constants()?)
}

/// `target/lua`, found from Cargo's `target/<profile>/build/<package>/out`.
fn readable_directory(out: &Path) -> Option<PathBuf> {
    out.ancestors().nth(4).map(|target| target.join("lua"))
}

/// All scripts except the libraries, in a stable order.
fn script_paths(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for module in fs::read_dir(root)? {
        let module = module?.path();
        if module.is_dir() && module.file_name().is_some_and(|name| name != "lib") {
            for file in fs::read_dir(module)? {
                found.push(file?.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The parts of a header that the build reads.
#[derive(Default)]
struct Header {
    summary: String,
    keys: Vec<String>,
    /// Keys of each further partition and, with the prefix `s:`, of each schedule of a call.
    each: Vec<String>,
    codes: Vec<(i64, String)>,
    uses: Vec<String>,
}

impl Header {
    /// Reads the comment lines at the top of a file. A line that is indented by three spaces or
    /// more continues the field before it.
    fn parse(source: &str) -> Self {
        let lines = source.lines().skip_while(|line| line.starts_with("#!"));
        let comments = lines.map_while(|line| line.strip_prefix("--"));
        let mut header = Self::default();
        let mut field = "summary";
        for line in comments {
            let text = line.trim();
            let known = ["KEYS", "EACH", "ARGV", "Reply", "Codes", "uses", "Gives"];
            let tagged = text.split_once(':').filter(|(tag, _)| known.contains(tag));
            let words = match tagged {
                Some((tag, rest)) => {
                    field = known.iter().find(|name| **name == tag).expect("the tag is known");
                    rest
                }
                None if text.is_empty() => {
                    field = "";
                    continue;
                }
                None if field == "summary" || line.starts_with("   ") => text,
                None => {
                    field = "";
                    continue;
                }
            };
            match field {
                "summary" => {
                    if !header.summary.is_empty() {
                        header.summary.push(' ');
                    }
                    header.summary.push_str(words);
                }
                "KEYS" => header.keys.extend(words.split_whitespace().map(str::to_owned)),
                "EACH" => header.each.extend(words.split_whitespace().map(str::to_owned)),
                "uses" => header.uses.extend(words.split_whitespace().map(str::to_owned)),
                "Codes" => header.codes.extend(pairs(words)),
                _ => {}
            }
        }
        header
    }
}

/// Reads `1 DEBITED 2 INSUFFICIENT`.
fn pairs(words: &str) -> Vec<(i64, String)> {
    let words: Vec<&str> = words.split_whitespace().collect();
    assert!(words.len().is_multiple_of(2), "`{words:?}` is not a list of numbers and names");
    let pair = |pair: &[&str]| (pair[0].parse().expect("a code is a number"), pair[1].to_owned());
    words.chunks(2).map(pair).collect()
}

/// One script with its header.
struct Script {
    module: String,
    verb: String,
    source: String,
    header: Header,
}

impl Script {
    fn read(path: &Path) -> io::Result<Self> {
        let name = |path: Option<&Path>| {
            path.and_then(Path::file_stem).and_then(|stem| stem.to_str()).map(str::to_owned)
        };
        let source = fs::read_to_string(path)?;
        assert!(source.starts_with("#!lua"), "{}: the first line is `#!lua`", path.display());
        let header = Header::parse(&source);
        assert!(!header.summary.is_empty(), "{}: the header says what it does", path.display());
        assert_eq!(
            header.keys.first().map(String::as_str),
            Some("epoch"),
            "{}: the first key is the epoch",
            path.display()
        );
        Ok(Self {
            module: name(path.parent()).expect("a script is in a module's directory"),
            verb: name(Some(path)).expect("a script has a name"),
            source,
            header,
        })
    }

    fn type_name(&self) -> String {
        pascal_case(&format!("{}_{}", self.module, self.verb))
    }

    /// What Redis gets: shebang, names of keys and codes, libraries, code.
    fn body(&self) -> io::Result<String> {
        let (shebang, code) = self.source.split_once('\n').unwrap_or((&self.source, ""));
        let names = self.local_names(&self.header.keys);
        let places: Vec<String> = (1..=names.len()).map(|n| format!("KEYS[{n}]")).collect();
        let mut body = format!("{shebang}\nlocal {} = {}\n", names.join(", "), places.join(", "));
        body.push_str(&self.each_names());
        body.push_str(&code_names(&self.header.codes));
        for library in &self.header.uses {
            let source = fs::read_to_string(format!("{LIBRARIES}/{library}.lua"))?;
            body.push_str(&code_names(&Header::parse(&source).codes));
            body.push_str(&without_comments(&source));
        }
        body.push_str(&without_comments(code));
        Ok(body)
    }

    /// The names of keys in Lua: without the prefix.
    fn local_names<'a>(&self, keys: &'a [String]) -> Vec<&'a str> {
        keys.iter().map(|key| key.rsplit(':').next().unwrap_or(key)).collect()
    }

    /// What the header's `EACH:` line becomes: the numbers of keys, and the names that `KEYS:` does
    /// not have. They begin as the keys of the first partition, which the libraries check.
    fn each_names(&self) -> String {
        let (keys, each) = (&self.header.keys, &self.header.each);
        if each.is_empty() {
            return String::new();
        }
        let fixed = keys.len();
        let of_partition = each.iter().filter(|key| !key.contains(':')).count();
        let own: Vec<_> = self.local_names(each).into_iter().enumerate().collect();
        let own = own.into_iter().filter(|(_, name)| !keys.iter().any(|key| key == name));
        let (places, names): (Vec<String>, Vec<&str>) = own
            .map(|(at, name)| match at < of_partition {
                true => (format!("KEYS[{}]", fixed + at + 1), name),
                false => ("nil".to_owned(), name),
            })
            .unzip();
        format!(
            "local QUEUE_KEYS, WALLET_KEYS = {fixed}, {of_partition}\nlocal {} = {}\n",
            names.join(", "),
            places.join(", ")
        )
    }

    /// Writes the script's constant and returns its name.
    fn write_constant(&self, table: &mut String) -> io::Result<String> {
        let (module, verb) = (&self.module, &self.verb);
        let constant = format!("{module}_{verb}").to_uppercase();
        push(table, &format!("/// `lua/{module}/{verb}.lua`: {}", self.header.summary));
        push(
            table,
            &format!(
                "pub static {constant}: LuaScript = LuaScript::new({:?}, &{:?}, &{:?}, {:?});",
                format!("{module}/{verb}"),
                self.header.keys,
                self.header.each,
                self.body()?
            ),
        );
        Ok(constant)
    }
}

/// `local DEBITED, INSUFFICIENT = 1, 2`.
fn code_names(codes: &[(i64, String)]) -> String {
    if codes.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = codes.iter().map(|(_, name)| name.as_str()).collect();
    let numbers: Vec<String> = codes.iter().map(|(number, _)| number.to_string()).collect();
    format!("local {} = {}\n", names.join(", "), numbers.join(", "))
}

/// Writes `<name>Code`, an enum of the reply codes that a header declares.
fn write_codes(out: &mut String, name: &str, codes: &[(i64, String)]) {
    if codes.is_empty() {
        return;
    }
    let variants = codes.iter().map(|(_, code)| pascal_case(&code.to_lowercase()));
    let variants: Vec<String> = variants.collect();
    push(out, &format!("/// Reply codes of `{name}`, from its header."));
    push(out, "#[derive(Debug, Clone, Copy, PartialEq, Eq)]");
    push(out, &format!("pub enum {name}Code {{ {} }}", variants.join(", ")));
    push(out, &format!("impl ReplyCode for {name}Code {{"));
    push(out, &format!("    const NAME: &'static str = {name:?};"));
    push(out, "    fn from_code(code: i64) -> Option<Self> {\n        match code {");
    for ((number, _), variant) in codes.iter().zip(&variants) {
        push(out, &format!("            {number} => Some(Self::{variant}),"));
    }
    push(out, "            _ => None,\n        }\n    }\n}");
}

/// The numbers of `lua/lib/constants.lua`, each with its comment.
fn constants() -> io::Result<String> {
    let source = fs::read_to_string(format!("{LIBRARIES}/constants.lua"))?;
    let (mut out, mut comment) = (String::new(), String::new());
    for line in source.lines() {
        if let Some(text) = line.strip_prefix("-- ") {
            push(&mut comment, &format!("/// {text}"));
        } else if let Some((name, value)) =
            line.strip_prefix("local ").and_then(|line| line.split_once(" = "))
        {
            push(&mut out, &format!("{comment}pub const {name}: i64 = {value};"));
            comment.clear();
        } else {
            comment.clear();
        }
    }
    Ok(out)
}

/// Comments are left out: Redis keeps the text of each script in memory and hashes it.
fn without_comments(source: &str) -> String {
    let lines = source.lines().filter(|line| !line.trim_start().starts_with("--"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn pascal_case(snake: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .map_or(String::new(), |first| first.to_uppercase().chain(letters).collect::<String>())
    };
    snake.split('_').map(word).collect()
}

fn push(out: &mut String, line: &str) {
    writeln!(out, "{line}").expect("writing to a String does not fail");
}
