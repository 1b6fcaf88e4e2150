//! The language of the repository: names of types, banned words, width, README, figures and
//! subjects of commits.
//!
//! `scripts/language-counts.sh` prints the counts that these tests limit.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use super::{files, root};

/// Words and phrases that no file may contain, in lower case.
const BANNED_WORDS: [&str; 15] = [
    "whoever",
    "nobody",
    "somebody",
    "everybody",
    "\u{ab}",
    "\u{bb}",
    "lay back",
    "lays back",
    "laid back",
    "again and again",
    "by itself",
    "of its own",
    "of their own",
    "so many",
    "for so long",
];

/// Lines that may contain a banned word: a path, and a part of the line.
const QUOTATIONS: [(&str, &str); 1] = [
    // The list of banned words.
    ("tests/tidy/language.rs", ""),
];

const MAX_COLUMNS: usize = 100;
const MAX_LONG_LINES_PERCENT: f64 = 0.5;
const MAX_SINGLE_WORD_TYPES_PERCENT: f64 = 25.0;
const MAX_REPEATED_TYPES_PERCENT: f64 = 3.0;
/// Names that several modules may use for a type.
const REPEATABLE_TYPES: [&str; 2] = ["Error", "Row"];
const MAX_README_LINES: usize = 150;
const MAX_README_WORDS: usize = 1_200;
const MAX_SUBJECT_LENGTH: usize = 72;
const CHECKED_COMMITS: usize = 50;

/// The documents that may contain measured figures.
const DOCUMENTS_WITH_FIGURES: [&str; 3] =
    ["docs/benchmarks.md", "docs/lock-strategies.md", "docs/scale.md"];

/// Everything in the repository that is written by hand.
const WRITTEN: [&str; 26] = [
    ".ci",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.toml",
    "Dockerfile",
    "Makefile",
    "README.ko.md",
    "README.md",
    "SECURITY.md",
    "build.rs",
    "clippy.toml",
    "deny.toml",
    "deploy",
    "docker-compose.yml",
    "docs",
    "examples",
    "grafana",
    "loadtest",
    "lua",
    "migrations",
    "rustfmt.toml",
    "scripts",
    "src",
    "tests",
    "web",
];

fn written() -> Vec<(String, String)> {
    let mut written = files(&WRITTEN);
    written.retain(|(path, _)| !path.ends_with("-lock.json"));
    assert!(written.len() > 300);
    written
}

fn rust_files() -> Vec<(String, String)> {
    let mut files = files(&["build.rs", "loadtest", "src", "tests"]);
    files.retain(|(path, _)| path.ends_with(".rs"));
    files
}

/// The type that a line of Rust defines.
fn type_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    if let Some(after) = rest.strip_prefix("pub") {
        rest = match after.strip_prefix('(') {
            Some(scope) => scope.split_once(')')?.1,
            None => after,
        };
        rest = rest.strip_prefix(' ')?;
    }
    let (keyword, rest) = rest.split_once(' ')?;
    let name = rest.split(|it: char| !it.is_ascii_alphanumeric()).next()?;
    let defines = ["struct", "enum", "trait", "type", "union"].contains(&keyword);
    (defines && name.starts_with(|it: char| it.is_ascii_uppercase())).then_some(name)
}

/// The names of all types in a file that rustfmt has formatted. Associated types are no types of
/// their own, so the bodies of `impl` and `trait` are skipped.
fn type_names(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut skipped_until: Option<String> = None;
    for line in text.lines() {
        if let Some(end) = &skipped_until {
            if line == end {
                skipped_until = None;
            }
            continue;
        }
        let code = line.trim_start();
        let name = type_name(line);
        names.extend(name);
        let is_trait = name.is_some() && line.contains("trait ");
        let is_impl = code.starts_with("impl ") || code.starts_with("impl<");
        if (is_impl || is_trait) && !line.ends_with("{}") && !line.ends_with(';') {
            skipped_until = Some(format!("{}}}", &line[..line.len() - code.len()]));
        }
    }
    names
}

/// The number of words in a name such as `QueueId`.
fn words_in(name: &str) -> usize {
    let letters: Vec<char> = name.chars().collect();
    let starts = |at: usize| {
        let next_is_lower = letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
        letters[at].is_ascii_uppercase()
            && (at == 0 || !letters[at - 1].is_ascii_uppercase() || next_is_lower)
    };
    (0..letters.len()).filter(|at| starts(*at)).count()
}

/// All types of the repository with the files that define them.
fn types() -> BTreeMap<String, Vec<String>> {
    let mut types = BTreeMap::<String, Vec<String>>::new();
    for (path, text) in rust_files() {
        for name in type_names(&text) {
            types.entry(name.to_owned()).or_default().push(path.clone());
        }
    }
    assert!(types.len() > 300);
    types
}

fn single_word_types(types: &BTreeMap<String, Vec<String>>) -> Vec<&str> {
    types.keys().map(String::as_str).filter(|name| words_in(name) == 1).collect()
}

fn repeated_types(types: &BTreeMap<String, Vec<String>>) -> Vec<(&str, &[String])> {
    let repeated = types
        .iter()
        .filter(|(name, paths)| paths.len() > 1 && !REPEATABLE_TYPES.contains(&name.as_str()));
    repeated.map(|(name, paths)| (name.as_str(), paths.as_slice())).collect()
}

#[expect(clippy::cast_precision_loss, reason = "the counts are small")]
fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole as f64
}

/// Whether a text contains a phrase that is not a part of a longer word. Underscores separate
/// words.
fn contains_phrase(text: &str, phrase: &str) -> bool {
    text.match_indices(phrase).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + phrase.len()..].chars().next();
        let is_word = phrase.starts_with(char::is_alphanumeric) && phrase.is_ascii();
        !is_word
            || !before.is_some_and(char::is_alphanumeric)
                && !after.is_some_and(char::is_alphanumeric)
    })
}

/// The banned words in a text, each with its line. A phrase may continue on the next line.
fn banned_words(path: &str, text: &str) -> Vec<(&'static str, String)> {
    let is_quotation =
        |line: &str| QUOTATIONS.iter().any(|(file, part)| *file == path && line.contains(part));
    let comment = |line: &str| {
        let code = line.trim_start();
        let text = code.trim_start_matches(['/', '!', '#', '-', '*', ';', '>']);
        text.trim_start().to_lowercase()
    };
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        if is_quotation(line) {
            continue;
        }
        let lower = line.to_lowercase();
        let next = lines.get(at + 1).map(|next| comment(next)).unwrap_or_default();
        let joined = format!("{} {next}", lower.trim_end());
        for phrase in BANNED_WORDS {
            let wrapped = phrase.contains(' ')
                && contains_phrase(&joined, phrase)
                && !contains_phrase(&next, phrase);
            if contains_phrase(&lower, phrase) || wrapped {
                found.push((phrase, format!("{path}:{}: {}", at + 1, line.trim())));
            }
        }
    }
    found
}

fn all_banned_words() -> Vec<(&'static str, String)> {
    written().iter().flat_map(|(path, text)| banned_words(path, text)).collect()
}

/// The long lines of all files with an ending, and the number of all their lines.
fn long_lines(ending: &str) -> (Vec<String>, usize) {
    let (mut long, mut all) = (Vec::new(), 0);
    for (path, text) in written().iter().filter(|(path, _)| path.ends_with(ending)) {
        for (number, line) in (1..).zip(text.lines()) {
            all += 1;
            if line.chars().count() > MAX_COLUMNS {
                long.push(format!("{path}:{number}"));
            }
        }
    }
    (long, all)
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

/// Whether a line contains a measured speed: a number of microseconds, or of something per second.
fn has_figure(line: &str) -> bool {
    let units = ["µs", " µs", "/s", " rows/s", " requests/s", " calls/s", " per second"];
    units.iter().any(|unit| {
        line.match_indices(unit).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + unit.len()..].chars().next();
            before.is_some_and(|it| it.is_ascii_digit())
                && !after.is_some_and(|it| it.is_alphanumeric() || it == '_')
        })
    })
}

/// Measured figures outside the documents that collect them. The block of figures in README is
/// copied from `docs/benchmarks.md`, which `tests/documents.rs` checks.
fn misplaced_figures() -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files(&["README.md", "ARCHITECTURE.md", "docs"]) {
        let collects = DOCUMENTS_WITH_FIGURES.contains(&path.as_str());
        if collects || !path.ends_with(".md") || path.starts_with("docs/reference/") {
            continue;
        }
        let mut in_block = false;
        for (number, line) in (1..).zip(text.lines()) {
            in_block =
                (in_block || line.contains("figures:begin")) && !line.contains("figures:end");
            if !in_block && has_figure(line) {
                found.push(format!("{path}:{number}: {line}"));
            }
        }
    }
    found
}

fn git(arguments: &[&str]) -> Option<String> {
    let git = Command::new("git").current_dir(root()).args(arguments).output().ok()?;
    git.status.success().then(|| String::from_utf8_lossy(&git.stdout).trim().to_owned())
}

/// The subjects of the last commits, or `None` without git or a history. Only commits after the one
/// that added this file: older ones were written before the rule.
fn subjects() -> Option<Vec<String>> {
    let this = "tests/tidy/language.rs";
    let added = git(&["log", "--diff-filter=A", "--format=%H", "--", this])?;
    let range = match added.lines().last() {
        Some(commit) => format!("{commit}..HEAD"),
        None if git(&["ls-files", "--", this])?.is_empty() => return Some(Vec::new()),
        None => return None,
    };
    let count = format!("-{CHECKED_COMMITS}");
    let log = git(&["log", &count, "--no-merges", "--format=%s", &range])?;
    Some(log.lines().map(str::to_owned).collect())
}

#[test]
fn names_and_phrases_are_counted() {
    assert_eq!(["Queue", "QueueId", "HTTPServer", "Http2Stream"].map(words_in), [1, 2, 2, 2]);
    let text = "pub(crate) struct QueueId(u64);\ntrait LogSink {\n    type Output;\n}\n\
                impl Model for Walk {\n    type State = u8;\n}\nmod tests {\n    enum Kind {}\n}\n";
    assert_eq!(type_names(text), ["QueueId", "LogSink", "Kind"]);
    let found = |text: &str| banned_words("x", text).len();
    assert_eq!(found("Some\u{62}ody waits."), 1);
    assert_eq!(found("// a name of\n// its\u{20}own\n"), 1);
    assert_eq!(found("let no\u{62}ody_waits = 1;"), 1);
    assert_eq!(found("busy body, layback, also many"), 0);
    assert!(has_figure("77,090/s") && has_figure("12 µs") && has_figure("| 81,900 rows/s |"));
    assert!(
        !has_figure("docs/security") && !has_figure("`GET /v1/seats`") && !has_figure("500 ms")
    );
}

#[test]
fn types_have_names_of_two_words() {
    let types = types();
    let single = single_word_types(&types);
    let share = percent(single.len(), types.len());
    assert!(share <= MAX_SINGLE_WORD_TYPES_PERCENT, "{share:.1} % of the types: {single:?}");
}

#[test]
fn no_type_name_is_used_twice() {
    let types = types();
    let repeated = repeated_types(&types);
    let share = percent(repeated.len(), types.len());
    assert!(share <= MAX_REPEATED_TYPES_PERCENT, "{share:.1} % of the names: {repeated:#?}");
    // Within one crate a name has one meaning.
    let krate = |path: &str| {
        let depth = if path.starts_with("src/") { 1 } else { 2 };
        path.split('/').take(depth).collect::<Vec<_>>().join("/")
    };
    let twice: Vec<_> = repeated
        .iter()
        .filter(|(_, paths)| {
            let crates: BTreeSet<_> = paths.iter().map(|path| krate(path)).collect();
            crates.len() < paths.len()
        })
        .collect();
    assert!(twice.is_empty(), "twice in one crate: {twice:#?}");
}

#[test]
fn no_file_contains_a_banned_word() {
    let found: Vec<_> = all_banned_words().into_iter().map(|(_, line)| line).collect();
    assert!(found.is_empty(), "{} lines:\n{}", found.len(), found.join("\n"));
}

#[test]
fn lines_are_not_longer_than_100_columns() {
    for ending in [".rs", ".lua"] {
        let (long, all) = long_lines(ending);
        let share = percent(long.len(), all);
        assert!(share <= MAX_LONG_LINES_PERCENT, "{share:.2} % of {ending}: {long:#?}");
    }
}

#[test]
fn readme_is_short() {
    let readme = readme();
    let (lines, words) = (readme.lines().count(), readme.split_whitespace().count());
    assert!(lines <= MAX_README_LINES, "README.md has {lines} lines");
    assert!(words <= MAX_README_WORDS, "README.md has {words} words");
}

#[test]
fn measured_figures_are_in_one_place() {
    let found = misplaced_figures();
    assert!(found.is_empty(), "{} lines:\n{}", found.len(), found.join("\n"));
}

#[test]
fn commit_subjects_are_short() {
    let Some(subjects) = subjects() else {
        // Past the harness, which hides what a passing test prints (scripts/count-tests.sh).
        let line = b"SKIPPED language::commit_subjects_are_short: there is no history\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line);
        return;
    };
    let long: Vec<_> =
        subjects.iter().filter(|it| it.chars().count() > MAX_SUBJECT_LENGTH).collect();
    assert!(long.is_empty(), "{long:#?}");
}

/// Prints all counts; for `scripts/language-counts.sh`.
#[test]
#[ignore = "prints the counts and checks nothing"]
fn print_counts() {
    let types = types();
    let (names, single) = (types.len(), single_word_types(&types).len());
    let length = types.keys().map(String::len).sum::<usize>();
    let repeated = repeated_types(&types).len();
    let banned = all_banned_words();
    let count = |words: &[&str]| banned.iter().filter(|(word, _)| words.contains(word)).count();
    let wide = |ending: &str| {
        let (long, all) = long_lines(ending);
        format!("{:.2} % ({})", percent(long.len(), all), long.len())
    };
    let readme = readme();
    let subjects = subjects().unwrap_or_default();
    let long = subjects.iter().filter(|it| it.chars().count() > MAX_SUBJECT_LENGTH).count();
    let rows = [
        ("type names made of a single word", format!("{:.1} %", percent(single, names))),
        ("average length of a type name", format!("{:.1}", percent(length, names) / 100.0)),
        (
            "type names used for more than one type",
            format!("{repeated} names, {:.1} %", percent(repeated, names)),
        ),
        ("\"whoever\"", count(&["whoever"]).to_string()),
        ("\"nobody\", \"somebody\"", count(&["nobody", "somebody"]).to_string()),
        ("banned words and phrases in all", banned.len().to_string()),
        ("Rust lines over 100 columns", wide(".rs")),
        ("Lua lines over 100 columns", wide(".lua")),
        ("lines in README", readme.lines().count().to_string()),
        ("words in README", readme.split_whitespace().count().to_string()),
        ("measured figures outside their documents", misplaced_figures().len().to_string()),
        ("commit subjects over 72 characters", format!("{long} of {}", subjects.len())),
    ];
    println!("| | |\n|:--|--:|");
    for (what, count) in rows {
        println!("| {what} | {count} |");
    }
    let mut by_directory = BTreeMap::<&str, usize>::new();
    for (_, line) in &banned {
        let path = line.split(':').next().unwrap();
        *by_directory.entry(path.split('/').next().unwrap()).or_default() += 1;
    }
    println!("\nBanned words by directory: {by_directory:?}");
}
