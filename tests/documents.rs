//! Checks the documents against the repository: files, tests and decisions that they name exist,
//! and every dependency has a reason.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_test_that_security_names_exists() {
    let page = text("docs/security.md");
    let named: Vec<_> = page.split('`').filter_map(|word| word.split_once(".rs: ")).collect();
    assert!(named.len() > 30, "{named:?}");
    for (file, test) in named {
        let path = if file.starts_with("src/") {
            format!("{file}.rs")
        } else {
            format!("tests/{file}.rs")
        };
        assert!(text(&path).contains(&format!("fn {test}(")), "{path} has no {test}");
    }
    for risk in 1..=10 {
        assert!(page.contains(&format!("| API{risk} ")), "API{risk} is missing");
    }
}

/// The Markdown files that people write; the reference is generated.
fn documents() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found: Vec<String> =
        ["ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "README", "README.ko", "SECURITY"]
            .map(|name| format!("{name}.md"))
            .into();
    found.extend(
        ["deploy/redis", "examples", "loadtest", "lua"].map(|dir| format!("{dir}/README.md")),
    );
    for dir in ["docs", "docs/decisions", "docs/ko"] {
        let files = fs::read_dir(root.join(dir)).unwrap().map(|file| file.unwrap().file_name());
        let names = files.map(|name| name.into_string().unwrap());
        found
            .extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("{dir}/{name}")));
    }
    found.sort();
    found
}

/// Whether a text in backticks names a file of the repository: a path with a directory and one of
/// the usual endings, without a placeholder.
fn is_path(word: &str) -> bool {
    let endings =
        ["rs", "lua", "md", "sql", "sh", "yml", "yaml", "json", "toml", "conf", "acl", "service"];
    let plain = |it: char| it.is_ascii_alphanumeric() || "._-/".contains(it);
    let ending = word.rsplit('.').next().unwrap_or_default();
    let directories =
        ["src", "tests", "lua", "docs", "deploy", "grafana", "loadtest", "migrations"];
    let first = word.split('/').next().unwrap_or_default();
    word.chars().all(plain)
        && word.contains('/')
        && !word.starts_with('/')
        && !word.contains("NNN")
        && (endings.contains(&ending) || word.ends_with('/') && directories.contains(&first))
}

#[test]
fn every_file_that_a_document_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = documents();
    assert!(documents.len() > 20, "{documents:?}");
    let mut missing = Vec::new();
    for document in &documents {
        let text = text(document);
        let here = root.join(document);
        let here = here.parent().unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
            if !here.join(link.trim()).exists() {
                missing.push(format!("{document}: link to {link}"));
            }
        }
        // Code blocks may create files.
        let prose: String = text.split("\n```").step_by(2).collect();
        for word in prose.split('`').skip(1).step_by(2) {
            let path =
                word.split_once(".rs: ").map_or(word.to_owned(), |(file, _)| format!("{file}.rs"));
            let places =
                ["", "src", "tests", "lua", "grafana/prometheus"].map(|dir| root.join(dir));
            let exists = |place: &Path| place.join(&path).exists();
            if is_path(&path) && !exists(here) && !places.iter().any(|place| exists(place)) {
                missing.push(format!("{document}: {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "documents name files that do not exist:\n{}", missing.join("\n"));
}

/// `77090` as `77,090`.
fn with_separators(digits: &str) -> String {
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The labels of the figures of README: of the table, and of each row.
const FIGURE_LABELS: [(&str, [&str; 7]); 2] = [
    (
        "README.md",
        [
            "on two cores, load generator included",
            "polls per second",
            "joins per second",
            "coupons issued per second",
            "complete purchases per second",
            "rows written to MySQL per second",
            "restore of 100,000 reservations after a loss of Redis",
        ],
    ),
    (
        "README.ko.md",
        [
            "2코어, 부하 생성기 포함",
            "초당 폴링",
            "초당 대기열 진입",
            "초당 쿠폰 발급",
            "초당 예매 완료(대기부터 결제까지)",
            "초당 MySQL 기록 행",
            "Redis 유실 후 예매 100,000건 복구",
        ],
    ),
];

/// The six figures of README, read from `docs/benchmarks.md`.
fn readme_figures(benchmarks: &str, labels: [&str; 7]) -> String {
    let between = |before: &str, after: &str| {
        let (_, rest) = benchmarks.split_once(before).unwrap_or_else(|| panic!("no {before:?}"));
        rest.split(after).next().unwrap().split_whitespace().last().unwrap().to_owned()
    };
    let per_second = |scenario: &str| {
        let row = benchmarks.lines().find(|line| {
            let mut cells = line.split('|').map(str::trim);
            cells.nth(1) == Some(scenario)
                && cells.next().is_some_and(|it| it.parse::<u64>().is_ok())
        });
        let row = row.unwrap_or_else(|| panic!("no row {scenario}"));
        with_separators(row.split('|').nth(2).unwrap().trim())
    };
    let figures = [
        per_second("poll"),
        per_second("join"),
        per_second("issue"),
        per_second("purchase"),
        between("| on a backlog of ", " rows/s"),
        format!("{} s", between("served again after ", " s")),
    ];
    let [title, rows @ ..] = labels;
    let mut table = format!("| {title} | |\n|:--|--:|\n");
    for (label, figure) in rows.iter().zip(figures) {
        table.push_str(&format!("| {label} | {figure} |\n"));
    }
    table
}

#[test]
fn figures_of_the_readme_are_those_of_the_benchmarks() {
    const MARKS: [&str; 2] = ["<!-- figures:begin -->\n", "<!-- figures:end -->"];
    let benchmarks = text("docs/benchmarks.md");
    for (path, labels) in FIGURE_LABELS {
        let (readme, figures) = (text(path), readme_figures(&benchmarks, labels));
        let [from, to] = MARKS.map(|mark| readme.find(mark).expect("the page has the marks"));
        let from = from + MARKS[0].len();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            let page = format!("{}\n{figures}\n{}", &readme[..from], &readme[to..]);
            fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), page).unwrap();
        } else {
            let why = "UPDATE_DOCS=1 cargo test --test documents writes the figures of README";
            assert_eq!(readme[from..to].trim(), figures.trim(), "{path}: {why}");
        }
    }
}

/// The parts of a page that have the same form in every language: for each section the level of
/// its heading (and the heading of an alert, which is a name), the number of rows of its tables,
/// its code blocks, and the code in its sentences. Marks between which a test writes are left out.
fn outline(page: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut sections = Vec::new();
    let (mut form, mut words) = (String::new(), String::new());
    let mut in_block = false;
    for line in page.lines() {
        let is_fence = line.starts_with("```");
        let heading = line.trim_start_matches('#');
        let level = line.len() - heading.len();
        if in_block || is_fence {
            in_block ^= is_fence;
            form.push_str(&format!("{line}\n"));
        } else if level > 0 {
            sections.push((std::mem::take(&mut form), inline_code(&std::mem::take(&mut words))));
            let heading = heading.trim();
            let is_name = heading.starts_with("Usher") && !heading.contains(' ');
            let name = if is_name { heading } else { "" };
            form.push_str(&format!("heading of level {level} {name}\n"));
        } else if line.starts_with('|') {
            form.push_str("row of a table\n");
            words.push_str(line);
        } else {
            words.push_str(line);
            words.push(' ');
        }
    }
    sections.push((form, inline_code(&words)));
    sections
}

/// The texts in backticks.
fn inline_code(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The pages with a Korean translation, in English and in Korean.
fn translated() -> Vec<(String, String)> {
    let translations = documents().into_iter().filter_map(|korean| {
        let name = korean.strip_prefix("docs/ko/")?;
        Some((format!("docs/{name}"), korean.clone()))
    });
    [("README.md".to_owned(), "README.ko.md".to_owned())].into_iter().chain(translations).collect()
}

#[test]
fn korean_pages_have_the_headings_tables_and_code_of_the_english_ones() {
    let pages = translated();
    assert!(pages.len() > 1, "{pages:?}");
    for (english, korean) in pages {
        let name = |path: &str| path.rsplit('/').next().unwrap().to_owned();
        let (of_english, of_korean) = (text(&english), text(&korean));
        let link = korean.strip_prefix("docs/").unwrap_or(&korean);
        assert!(of_english.contains(&format!("[한국어]({link})")), "{english}: no link to Korean");
        let back = format!("{}{}", if link == korean { "" } else { "../" }, name(&english));
        assert!(of_korean.contains(&format!("[English]({back})")), "{korean}: no link to English");
        let (expected, found) = (outline(&of_english), outline(&of_korean));
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(expected, found, "change {korean} as {english} was changed");
        }
        assert_eq!(expected.len(), found.len(), "sections of {english} and {korean}");
    }
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = |it: &char| it.is_alphanumeric() || "-_ ".contains(*it);
    heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_within_a_page_has_its_heading() {
    for document in documents() {
        let page = text(&document);
        let prose: String = page.split("\n```").step_by(2).collect();
        let headings = prose.lines().filter_map(|line| line.strip_prefix('#'));
        let anchors: BTreeSet<_> = headings.map(|it| anchor(it.trim_start_matches('#'))).collect();
        for link in page.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(anchors.contains(link), "{document}: #{link}");
        }
    }
}

#[test]
fn every_test_that_failure_modes_names_exists() {
    let page = text("docs/failure-modes.md");
    let is_test = |word: &&str| {
        word.matches('_').count() > 1
            && !word.starts_with("usher_")
            && word.chars().all(|it| it.is_ascii_lowercase() || it == '_')
    };
    let mut tests = String::new();
    for file in ["faults/mod.rs", "faults/failover.rs", "recovery/faults.rs"] {
        tests.push_str(&text(&format!("tests/it/{file}")));
    }
    let named: BTreeSet<_> = page.split('`').filter(is_test).collect();
    assert!(named.len() > 20, "{named:?}");
    for name in named {
        let found = [format!("fn {name}("), format!("    {name}: ")];
        assert!(found.iter().any(|form| tests.contains(form)), "there is no test {name}");
    }
}

#[test]
fn every_decision_has_its_parts_and_is_listed() {
    let architecture = text("ARCHITECTURE.md");
    let documents = documents();
    let decisions = documents.iter().filter(|path| path.starts_with("docs/decisions/"));
    for (number, path) in (1..).zip(decisions) {
        let title = text(path).lines().next().unwrap_or_default().to_owned();
        let (prefix, title) = title.split_once(". ").unwrap_or_default();
        assert_eq!(prefix, format!("# {number}"), "{path}");
        assert!(path.starts_with(&format!("docs/decisions/{number:03}-")), "{path}");
        assert!(
            architecture.contains(&format!("{number}. [{title}]({path})")),
            "{path} is not listed"
        );
        for part in ["Context", "Decision", "Consequences"] {
            assert!(text(path).contains(&format!("\n## {part}\n")), "{path} has no {part}");
        }
    }
}

/// The names below the headings of a manifest that list dependencies, without workspace members.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let (mut listing, mut names) = (false, BTreeSet::new());
    for line in manifest.lines() {
        if line.starts_with('[') {
            listing = line.ends_with("dependencies]");
        } else if let Some((name, rest)) = line.split_once('=')
            && listing
            && !rest.contains("path = ")
            && !line.starts_with('#')
        {
            names.insert(name.trim().to_owned());
        }
    }
    names
}

#[test]
fn every_dependency_has_its_reason() {
    let manifests = ["Cargo.toml", "loadtest/rush/Cargo.toml", "loadtest/strategies/Cargo.toml"];
    let needed: BTreeSet<_> = manifests.iter().flat_map(|path| dependencies(&text(path))).collect();
    let page = text("docs/dependencies.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let listed: BTreeSet<_> =
        rows.filter(|(_, reason)| reason.len() > 4).map(|(name, _)| name.to_owned()).collect();
    assert!(needed.len() > 40, "{needed:?}");
    assert_eq!(
        needed.difference(&listed).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "have no reason"
    );
    assert_eq!(
        listed.difference(&needed).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "are not needed"
    );
}

#[test]
fn no_crate_may_have_unsafe_code() {
    assert!(text("Cargo.toml").contains("[workspace.lints.rust]\nunsafe_code = \"forbid\""));
    for manifest in ["Cargo.toml", "loadtest/rush/Cargo.toml", "loadtest/strategies/Cargo.toml"] {
        assert!(text(manifest).contains("[lints]\nworkspace = true"), "{manifest}");
    }
}
